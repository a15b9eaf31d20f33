"""What is promised: the words of the command line, the keys of the files, the public names, and runs stored before.

The files in `golden/` were made by version 0.1.0. They may be added to and never lose.
"""

from __future__ import annotations

import inspect
import json
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import pacemark
from pacemark.api import Options
from support.inside import inside as command

GOLDEN = Path(__file__).parent / "golden"
HELP = sorted(path.stem for path in (GOLDEN / "help").glob("*.txt"))


def keys(value: Any, at: str = "") -> Iterator[str]:
    """Every place in a JSON value; a list's entries share one."""
    if isinstance(value, dict):
        for key, inner in value.items():
            yield f"{at}.{key}".lstrip(".")
            yield from keys(inner, f"{at}.{key}")
    elif isinstance(value, list):
        for inner in value:
            yield from keys(inner, f"{at}[]")


def promised(name: str) -> set[str]:
    return set((GOLDEN / "keys" / f"{name}.txt").read_text().splitlines())


@pytest.fixture
def stored(tmp_path: Path) -> Path:
    """The run of 0.1.0: sim:demo at 1, 2, 4 and 8 in parallel, with a budget."""
    return Path(shutil.copytree(GOLDEN / "run", tmp_path / "20260101T000000Z-golden"))


def answered(*words: object) -> Any:
    done = command(*words, "--json")
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.mark.parametrize("name", HELP)
def test_help_never_loses_a_word(name: str) -> None:
    done = command(*([] if name == "pacemark" else [name]), "--help", env={"COLUMNS": "100"})
    assert done.returncode == 0
    flags = re.compile(r"^\s+(--[\w-]+(?:\s*/\s*--[\w-]+)?|[a-z]+(?=\s{2,}\S))", re.MULTILINE)
    before = {" ".join(m.split()) for m in flags.findall((GOLDEN / "help" / f"{name}.txt").read_text())}
    assert len(before) > 1
    now = {" ".join(m.split()) for m in flags.findall(done.stdout)}
    assert before <= now, before - now


def test_the_public_names_take_what_they_took() -> None:
    before = json.loads((GOLDEN / "signatures.json").read_text())
    options = set(before.pop("Options"))
    assert options <= set(Options.__annotations__)
    assert set(before) <= set(pacemark.__all__)
    for name, taken in before.items():
        if taken:
            assert set(taken) <= set(inspect.signature(getattr(pacemark, name)).parameters), name


def test_a_stored_run_is_shown_as_it_was(stored: Path) -> None:
    shown = answered("show", stored)
    assert [level["load"]["value"] for level in shown["levels"]] == [1, 2, 4, 8]
    assert shown["levels"] == json.loads((GOLDEN / "run" / "summary.json").read_text())["levels"]
    assert "ttft" in command("show", stored, "--detail").stdout.lower()


def test_a_stored_run_is_reported_anew(stored: Path) -> None:
    before = json.loads((GOLDEN / "run" / "summary.json").read_text())
    after = answered("report", stored)
    assert promised("summary") - set(keys(after)) <= {k for k in promised("summary") if k not in set(keys(before))}
    for old, new in zip(before["levels"], after["levels"], strict=True):
        for name in ("output_tokens_per_s", "ttft_ms", "tpot_ms", "latency_ms"):
            assert close(new[name], old[name]), name
    assert (stored / "report.html").stat().st_size > 100_000


def close(a: Any, b: Any) -> bool:
    """Whether two JSON values are equal, numbers to a millionth part."""
    if isinstance(a, dict) and isinstance(b, dict):
        return a.keys() >= b.keys() and all(close(a[key], b[key]) for key in b)
    return bool(a == pytest.approx(b, rel=1e-6)) if isinstance(b, float) else bool(a == b)


def test_a_stored_run_answers_a_budget(stored: Path) -> None:
    found = answered("find", "--from", stored, "--budget", "tpot p95 < 50ms")
    assert found["find"]["answer"]["value"] >= 8


def test_a_stored_run_makes_a_plan(stored: Path) -> None:
    words = ("--demand", "40 requests/s", "--budget", "tpot p95 < 50ms", "--price-per-hour", "3")
    plan = answered("plan", stored, *words, "--provisioned", "50 model units")
    assert promised("plan") <= set(keys(plan)), promised("plan") - set(keys(plan))


def test_a_stored_run_is_compared_with_itself(stored: Path) -> None:
    compared = answered("compare", stored, stored)
    assert promised("compare") <= set(keys(compared)), promised("compare") - set(keys(compared))
    assert {level["load"]["value"] for level in compared["levels"]} == {1, 2, 4, 8}


def test_a_stored_run_is_exported(stored: Path, tmp_path: Path) -> None:
    done = command("export", stored, "--output", tmp_path / "rows.csv")
    assert done.returncode == 0, done.stderr
    header, *rows = (tmp_path / "rows.csv").read_text().splitlines()
    assert {"level", "ttft_ms", "tpot_ms", "output_tokens"} <= set(header.split(","))
    assert len(rows) > 100


@pytest.mark.slow
def test_a_run_of_today_keeps_every_key(tmp_path: Path) -> None:
    short = ("--duration", "1", "--input-tokens", "16", "--output-tokens", "4", "--out", tmp_path)
    budget = ("--budget", "tpot p95 < 50ms")
    swept = answered("sweep", "sim:demo", "--concurrency", "1,2,4,8", *budget, *short)
    grid = answered("sweep", "sim:demo", *short[:2], "--input-tokens", "16,64", "--output-tokens", "4", *short[-2:])
    rate = answered("run", "sim:demo", "--rate", "20", *short)
    folders = sorted(tmp_path.iterdir())
    found = answered("find", "--from", folders[0], *budget)
    now = set().union(*(keys(x) for x in (swept, grid, rate, found)))
    lost = {k for k in promised("summary") - now if not re.search(r"scatter|certified|errors\.", k)}
    assert not lost, lost
    runs = set().union(*(keys(json.loads((f / "run.json").read_text())) for f in folders))
    assert promised("run") <= runs, promised("run") - runs
