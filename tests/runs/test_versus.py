"""Targets measured in turn over real sockets: one under load at a time, each with a run of its own."""

from __future__ import annotations

import itertools
import json
import sqlite3
from pathlib import Path
from xml.etree import ElementTree

import msgspec
import pytest

import pacemark as face
from pacemark.answers.versus import Contest
from pacemark.reporting.versus import contest_html, contest_markdown, contest_text
from support.inside import inside

SHORT = ("--duration", "0.5", "--input-tokens", "16", "--output-tokens", "8", "--rounds", "4", "--workers", "1")
pytestmark = pytest.mark.xdist_group("versus")  # its contest is played once
NOBODY = "http://127.0.0.1:9/v1"


@pytest.fixture(scope="module")
def played(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, Path]:
    """What was printed of a contest of two embedded endpoints, and its folder."""
    out = tmp_path_factory.mktemp("versus")
    words = ("--concurrency", "2,4", "--prices", "4,8", "--seed", "1", "--out", out, "--json")
    done = inside("versus", "sim:demo", "sim:demo", *words, *SHORT)
    assert done.returncode == 0, done.stderr
    assert "round 4/4, concurrency 4, tok/s: A " in done.stderr
    (folder,) = out.iterdir()
    return done.stdout, folder


@pytest.mark.slow
def test_each_target_has_a_run_that_every_command_reads(played: tuple[str, Path]) -> None:
    printed, folder = played
    found = json.loads(printed)
    assert found == json.loads((folder / "versus.json").read_text())
    assert found["schema"] == "pacemark/versus/1"
    assert [x["load"]["value"] for x in found["loads"]] == [2, 4]
    runs = [Path(x["run"]) for x in found["targets"]]
    assert sorted(runs) == sorted(p for p in folder.iterdir() if p.is_dir())
    for run in runs:
        shown = json.loads(inside("show", run, "--json").stdout)
        assert [(x["load"]["value"], x["repeats"]) for x in shown["levels"]] == [(2, 4), (4, 4)]
    compared = inside("compare", *runs, "--json")
    assert compared.returncode == 0, compared.stderr
    workloads = [json.loads((run / "run.json").read_text())["workload"] for run in runs]
    assert {x["seed"] for x in workloads} == {1, 2}, "with the same prompts one could answer from the other's cache"
    assert {x["draw_seed"] for x in workloads} == {1}


@pytest.mark.slow
def test_a_gate_has_its_exit_code(tmp_path: Path) -> None:
    gate = ("--fail-if", "latency p50 > +400%", "--fail-if", "throughput < +900%")
    written = ("--out", tmp_path, "--junit", tmp_path / "gate.xml")
    done = inside("versus", "sim:demo", "sim:demo", "--concurrency", "2", *written, *gate, *SHORT)
    assert done.returncode == 1, done.stderr
    assert done.stdout.startswith("passed: latency p50 > +400%: concurrency 2: ")
    assert "failed: throughput < +900%" in " ".join(done.stdout.split())
    assert "throughput < +900%" in done.stderr.splitlines()[-1]
    suite = ElementTree.parse(tmp_path / "gate.xml").getroot()[0]
    assert "against http://127.0.0.1:" in (suite.get("name") or "")
    failed = {case.get("name"): case.find("failure") is not None for case in suite}
    assert failed == {"latency p50 > +400%": False, "throughput < +900%": True}
    refused = inside("versus", NOBODY, NOBODY, "--fail-if", "ttft p99 > +5%")
    assert (refused.returncode, refused.stdout) == (2, "")
    assert "versus compares" in refused.stderr


@pytest.mark.slow
def test_lengths_are_those_of_all_targets(tmp_path: Path) -> None:
    words = ("--concurrency", "2", "--out", tmp_path, "--output-tokens", "uniform(2, 9)", "--json")
    done = inside("versus", "sim:demo", "sim:demo", *words, *SHORT[:4], *SHORT[6:])
    assert done.returncode == 0, done.stderr
    found = []
    for x in json.loads(done.stdout)["targets"]:
        with sqlite3.connect(Path(x["run"]) / "run.db") as db:
            asked = "SELECT asked_tokens, idx FROM request WHERE level = 1 AND idx BETWEEN 2 AND 8 ORDER BY idx"
            found.append(db.execute(asked).fetchall())
        db.close()
    assert found[0] == found[1]
    assert len({tokens for tokens, _ in found[0]}) > 2


@pytest.mark.slow
def test_one_target_is_under_load_at_a_time(played: tuple[str, Path]) -> None:
    spans: list[tuple[int, int, int]] = []
    for n, run in enumerate(p for p in played[1].iterdir() if p.is_dir()):
        with sqlite3.connect(run / "run.db") as db:
            asked = "SELECT min(sent_ns), max(ended_ns) FROM request WHERE level >= 0 GROUP BY level"
            spans += [(start, end, n) for start, end in db.execute(asked)]
        db.close()
    spans.sort()
    assert len(spans) == 16
    assert all(before[1] < after[0] for before, after in itertools.pairwise(spans) if before[2] != after[2])


@pytest.mark.slow
def test_pulses_of_a_resting_client_are_of_no_level(played: tuple[str, Path]) -> None:
    for run in (p for p in played[1].iterdir() if p.is_dir()):
        with sqlite3.connect(run / "run.db") as db:
            rows = db.execute(
                "SELECT max(health.now_ns) - max(request.ended_ns) FROM health JOIN request USING (level) "
                "WHERE level >= 0 GROUP BY level"
            ).fetchall()
        db.close()
        assert max(late for (late,) in rows) < 400_000_000, "another's slice takes longer than that"


@pytest.mark.slow
def test_it_is_told_in_words(played: tuple[str, Path]) -> None:
    contest = msgspec.json.decode(played[0], type=Contest)
    text = contest_text(contest)
    assert "A: demo-8b, http://127.0.0.1:" in text
    assert "A million output tokens cost" in text
    assert max(map(len, text.splitlines())) <= 80
    assert "| concurrency 2 | output tok/s |" in contest_markdown(contest)
    assert contest_html(contest).count("<tr>") > 10


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["sim:demo"], "2 to 4 targets, not 1"),
        (["sim:demo"] * 5, "2 to 4 targets, not 5"),
        (["sim:demo", "sim:demo", "--rounds", "3"], "--rounds 3"),
        (["sim:demo", "sim:demo", "--prices", "3"], "one price for each of the 2 targets"),
        (["sim:demo", "sim:demo", "--prices", "3,0"], "--prices 0"),
        (["sim:demo", "sim:demo", "--concurrency", "1,x"], "--concurrency '1,x'"),
        (["sim:demo", "sim:nothing"], "nothing"),
        (["sim:demo", NOBODY, "--model", "demo-8b,m"], "no server at http://127.0.0.1:9/v1"),
    ],
)
def test_what_cannot_work_is_refused_in_a_line(words: list[str], said: str, tmp_path: Path) -> None:
    done = inside("versus", *words, *(() if "--rounds" in words else SHORT), "--out", tmp_path / "runs")
    assert done.returncode == 2, done.stderr
    assert said in done.stderr.splitlines()[-1]
    assert list((tmp_path / "runs").glob("*")) == [], "nothing was measured, so nothing is left behind"


@pytest.mark.slow
def test_python_has_the_same_words(tmp_path: Path) -> None:
    with pytest.raises(face.BadInput, match="'outpt_tokens'"):
        face.versus(["sim:demo", "sim:demo"], outpt_tokens=4)  # type: ignore[call-arg]
    found = face.versus(
        ["sim:demo", "sim:demo"], concurrency=[2], rounds=4, duration=0.5, output_tokens=8, out=tmp_path, workers=1
    )
    assert found.targets[0].name == "A"
    assert "output tok/s" in repr(found)
    assert "<table>" in found._repr_html_()
