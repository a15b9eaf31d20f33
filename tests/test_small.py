"""Small comforts: times with units, options that do not exist, a run in a Python session, labels, the list of runs."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

import pacemark as face
from pacemark.errors import BadInput
from pacemark.figures.distributions import as_share
from pacemark.scenario import Check, Words, ordered
from pacemark.summary import Figure
from pacemark.values import labelled, lasting, seconds
from pacemark.version import __version__
from support.inside import inside

NOBODY = "http://127.0.0.1:9/v1"


@pytest.mark.parametrize(
    ("given", "wanted"),
    [
        ("20s", 20.0),
        ("2m", 120.0),
        ("2 min", 120.0),
        ("1h", 3600.0),
        ("500ms", 0.5),
        ("20", 20.0),
        (20, 20.0),
        (1e-5, 1e-5),
    ],
)
def test_a_time_is_a_number_of_seconds_or_has_its_unit(given: Any, wanted: float) -> None:
    assert seconds("--wait", given) == lasting("--duration", given) == pytest.approx(wanted)
    words = Words(duration=given, max_duration=given, timeout=given, stall_timeout=given, wait=given)
    settings = ordered(NOBODY, Check(), words).settings
    assert settings.duration_s == settings.max_duration_s == settings.timeout_s == pytest.approx(wanted)
    assert settings.stall_timeout_s == settings.wait_s == pytest.approx(wanted)


@pytest.mark.parametrize("flag", ["--duration", "--max-duration", "--timeout", "--stall-timeout"])
@pytest.mark.parametrize("text", ["soon", "0s", "-1", "nan", "3 fortnights"])
def test_a_time_that_is_none_is_refused_by_its_flag(flag: str, text: str, tmp_path: Path) -> None:
    done = inside("sweep", NOBODY, flag, text, cwd=tmp_path)
    assert done.returncode == 2
    assert f"{flag} " in done.stderr
    assert "above 0" in done.stderr


def test_the_search_takes_its_allowance_as_a_time(tmp_path: Path) -> None:
    done = inside("find", NOBODY, "--budget", "ttft p95 < 1s", "--max-duration", "soon", cwd=tmp_path)
    assert (done.returncode, "--max-duration soon" in done.stderr) == (2, True)
    done = inside("find", NOBODY, "--model", "m", "--budget", "ttft p95 < 1s", "--max-duration", "2m", cwd=tmp_path)
    assert "no server at" in done.stderr


def test_the_version() -> None:
    done = inside("--version")
    assert (done.returncode, done.stdout) == (0, f"pacemark {__version__}\n")


@pytest.mark.parametrize(
    ("options", "near"), [({"output_token": 8}, "output_tokens"), ({"modle": "x"}, "model"), ({"xyzzy": 1}, "")]
)
def test_an_option_that_does_not_exist_is_refused_with_the_nearest(options: Any, near: str, tmp_path: Path) -> None:
    calls: list[Any] = [
        lambda: face.run(NOBODY, concurrency=2, **options),
        lambda: face.sweep(NOBODY, **options),
        lambda: face.check(NOBODY, **options),
        lambda: face.demo(**options),
        lambda: face.find(NOBODY, budget="ttft p95 < 1s", **options),
    ]
    for call in calls:
        with pytest.raises(BadInput, match=f"no option '{next(iter(options))}'") as refused:
            call()
        assert (f"did you mean '{near}'?" in str(refused.value)) == bool(near)


def test_a_run_in_a_python_session_fits_a_screen_and_has_the_answer(stored_run: Path) -> None:
    text = repr(face.load(stored_run))
    assert len(text.splitlines()) <= 20
    assert max(map(len, text.splitlines()[1:])) <= 80
    assert "4 levels" in text
    assert face.load(stored_run).answer.splitlines()[0] in text


def test_the_public_names_are_listed() -> None:
    assert {"run", "sweep", "find", "compare", "plan", "check", "load", "Run"} <= set(dir(face))


@pytest.mark.slow(shared=True)
def test_labels_are_kept_with_the_run(tmp_path: Path) -> None:
    short = ("--duration", "500ms", "--input-tokens", "32", "--output-tokens", "8", "--out", tmp_path)
    inside("run", "sim:demo", "--concurrency", 2, "--label", "gpu=h100", "--label", "engine=a=b", *short)
    (folder,) = tmp_path.iterdir()
    labels = {"gpu": "h100", "engine": "a=b"}
    assert json.loads((folder / "run.json").read_text())["labels"] == labels
    assert face.load(folder).summary.run["labels"] == labels
    assert face.report(folder).summary.run["labels"] == labels
    assert "h100" in (folder / "report.html").read_text()
    listed = inside("list", tmp_path)
    assert (listed.returncode, "gpu=h100 engine=a=b" in listed.stdout) == (0, True)


def test_a_label_needs_a_name_and_a_value() -> None:
    for text in ("gpu", "=h100"):
        with pytest.raises(BadInput, match="--label"):
            labelled(Words(labels=[text]))
    assert labelled(Words(labels={"gpu": "h100"})) == {"gpu": "h100"}


def test_stored_runs_are_listed_with_their_answers(stored_run: Path) -> None:
    shown = inside("list", stored_run.parent)
    assert shown.returncode == 0, shown.stderr
    assert stored_run.name in shown.stdout
    assert "demo-8b" in shown.stdout
    (run,) = json.loads(inside("list", stored_run.parent, "--json").stdout)
    assert run["run"] == str(stored_run)
    assert run["answer"].startswith("within budget: ") or "concurrency" in run["answer"]
    (stored_run / "summary.json").unlink()
    assert "cut off before its summary" in inside("list", stored_run.parent).stdout
    assert inside("list", stored_run).returncode == 2


def test_a_share_is_never_above_1() -> None:
    assert as_share(Figure(0.95, 0.825, 1.07)) == Figure(0.95, 0.825, 1.0)
    assert as_share(Figure(0.02, -0.1, None)) == Figure(0.02, 0.0, None)
