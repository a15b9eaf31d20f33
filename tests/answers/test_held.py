"""One answer to a budget, whoever asks; how every level stands to it; and what an unmet one does."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

import pacemark as face
from pacemark.answers.held import answer_of, closest
from pacemark.answers.stored import find_from
from pacemark.budget import parse
from pacemark.figures.level import LevelResult
from pacemark.pace import Concurrency, Rate
from pacemark.reporting.answer import unmet
from pacemark.runs.simulated import virtual_measure
from pacemark.summary import Held
from support.cli_tools import assert_refused
from support.inside import inside
from support.samples import known

UNMET, MET = "ttft p95 < 1ms", "ttft p95 < 2s"


@pytest.fixture(scope="module")
def swept() -> list[LevelResult]:
    measure = virtual_measure("demo", duration_s=10.0, seed=2, input_tokens=(256, 0.3), output_tokens=(64, 0.3))
    return [measure(Concurrency(n)) for n in (1, 2, 4, 8, 16, 32)]


def test_a_level_is_met_by_the_figure_shown_missed_by_it_or_too_close_to_tell(swept: list[LevelResult]) -> None:
    for limit in (9.5, 10.0, 10.5, 11.0, 11.5, 12.0):
        found = answer_of(swept, parse(f"tpot p95 < {limit}ms"))
        for result in swept:
            held = found.held[result.load]
            share = known(held.share)
            assert held.binds == "tpot p95"
            assert {"met": share < 1, "missed": share >= 1, "open": True}[held.status]
            shown = result.level.tpot_ms.p95.value
            assert shown is None or (shown < limit) == (share < 1) or abs(shown / limit - 1) < 0.01


def test_the_chosen_level_is_the_largest_up_to_the_answer_that_meets_the_budget(swept: list[LevelResult]) -> None:
    budget = parse("tpot p95 < 11.5ms")
    found = answer_of(swept, budget)
    assert found.find == find_from(swept, budget)
    answer = known(known(found.find).answer)
    chosen = found.chosen
    assert chosen is not None
    assert chosen.value <= known(answer.value) < 2 * chosen.value
    assert found.held[chosen].status in ("met", "open")


def test_a_rate_beyond_capacity_is_missed() -> None:
    measure = virtual_measure("demo", input_tokens=256, output_tokens=64, duration_s=10.0)
    results = [measure(Rate(5.0)), measure(Rate(60.0))]
    found = answer_of(results, parse("latency p95 < 1000s"))
    assert found.chosen == Rate(5.0)
    assert found.held[Rate(60.0)].status == "missed"
    assert known(known(known(found.find).answer).value) < 60


def test_an_unmet_budget_is_the_first_line_and_exit_code_1(stored_run: Path) -> None:
    done = inside("report", stored_run, "--budget", UNMET)
    assert done.returncode == 1
    assert done.stderr.startswith(f"pacemark: no level meets {UNMET}: the closest is concurrency ")
    assert "over its limit" in done.stderr
    first = next(line for line in done.stdout.splitlines() if line.startswith("No level meets"))
    assert first.startswith(f"No level meets {UNMET}: the closest is concurrency ")
    assert "Recommended" not in done.stdout
    run = face.load(stored_run)  # written all the same
    assert run.answer.startswith("No level meets")
    assert "recommended" not in (stored_run / "report.html").read_text().partition("<section class=answer>")[2][:3000]
    assert inside("report", stored_run, "--budget", UNMET, "--no-fail-budget").returncode == 0
    assert inside("report", stored_run, "--budget", MET).returncode == 0
    assert inside("find", "--from", stored_run, "--budget", UNMET).returncode == 1


def test_json_holds_the_marks_and_the_answer_where_the_command_fails(stored_run: Path) -> None:
    done = inside("report", stored_run, "--budget", UNMET, "--json")
    said: Any = json.loads(done.stdout)
    assert done.returncode == 1
    assert [level["budget"]["status"] for level in said["levels"]] == ["missed"] * 4
    assert all(level["budget"]["binds"] == "ttft p95" and level["budget"]["share"] > 1 for level in said["levels"])
    assert said["answer"]["answer"] is None
    assert said["operating_points"]["within_budget"] is None


def test_the_closest_level_is_the_one_that_misses_by_least(stored_run: Path) -> None:
    run = face.report(stored_run, budget=UNMET)
    near = known(closest(run.levels))
    assert isinstance(near.budget, Held)
    shares = [known(level.budget.share) for level in run.levels if isinstance(level.budget, Held)]
    assert known(near.budget.share) == min(shares)
    assert near.budget.why in unmet(run.summary)
    assert unmet(face.report(stored_run, budget=MET).summary) == ""


def test_the_answer_has_its_figures_and_where_throughput_is_flat(stored_run: Path) -> None:
    run = face.report(stored_run, budget=MET)
    assert run.answer.startswith("Doubtful (within budget): concurrency 8 ")  # few requests: it is suspect
    text = " ".join(run.answer.split())
    for part in ("requests/s", "TTFT p95", "TPOT p95", "output tokens/s"):
        assert part in text
    assert known(run.summary.operating_points.within_budget).load == Concurrency(8)


def test_a_run_whose_levels_are_all_invalid_ends_with_3_and_is_kept(tmp_path: Path) -> None:
    short = ("--duration", "1", "--input-tokens", "32", "--output-tokens", "8", "--out", tmp_path)
    done = inside("run", "sim:demo", "--rate", "900", *short)
    assert done.returncode == 3
    assert "invalid" in done.stdout
    assert "what was measured is in" in done.stderr
    assert (next(tmp_path.iterdir()) / "report.html").exists()


def test_a_budget_flag_is_still_checked(stored_run: Path) -> None:
    assert_refused(inside("report", stored_run, "--budget", "ttft p95 <"), "something is missing at the end")
