"""One answer to a budget, whoever asks; how every level stands to it; and what an unmet one does."""

from __future__ import annotations

import io
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
from rich.console import Console

import pacemark as face
from pacemark.answers.allowance import Allowance
from pacemark.answers.curve import flat_from
from pacemark.answers.held import answer_of, closest
from pacemark.answers.planning import parse_demand, plan_for
from pacemark.answers.search import find
from pacemark.answers.stored import find_from
from pacemark.answers.weighing import comparable
from pacemark.budget import Budget, parse
from pacemark.errors import BadInput
from pacemark.figures.level import Enough, LevelResult, sum_up
from pacemark.pace import Concurrency, Load, Rate
from pacemark.reporting.answer import answer as statements
from pacemark.reporting.answer import recommended, unmet
from pacemark.reporting.charts.curve import parts
from pacemark.reporting.terminal import table
from pacemark.runs import tables
from pacemark.runs.conclude import summary_of
from pacemark.runs.record import RunRecord
from pacemark.runs.run import Run
from pacemark.runs.simulated import VirtualBench, virtual_measure
from pacemark.scenario import Grid, Levels, Scenario, Settings
from pacemark.simulator import customised, named
from pacemark.summary import Asked, Figure, Find, Held, Summary
from support.cli_tools import assert_refused
from support.inside import inside
from support.sampled import first
from support.samples import known

UNMET, MET = "ttft p95 < 1ms", "ttft p95 < 2s"


pytestmark = pytest.mark.xdist_group("held")  # its simulations are made once


@pytest.fixture(scope="module")
def swept() -> list[LevelResult]:
    measure = virtual_measure("demo", duration_s=10.0, seed=2, input_tokens=(256, 0.3), output_tokens=(64, 0.3))
    return [measure(Concurrency(n)) for n in (1, 2, 4, 8, 16, 32)]


def test_a_sweep_does_not_recommend_a_load_that_cuts_answers_short(swept: list[LevelResult]) -> None:
    def told(most: int) -> tuple[Load | None, Held | None]:
        results = [
            replace(r, trace=replace(r.trace, asked_tokens=r.trace.asked_tokens + 40 * (r.load.value > most)))
            for r in swept
        ]
        answered = answer_of(results, parse(MET))
        return answered.chosen, answered.held.get(Concurrency(16))

    chosen, held = told(8)
    assert chosen == Concurrency(8)
    assert held is not None
    assert held.status == "missed"
    assert "cut_short" in held.why
    assert told(0)[0] == Concurrency(32)  # they end early at every load: that is the model


@pytest.mark.parametrize("budget", [MET, "ttft mean < 2s"])
def test_a_level_of_which_all_failed_bounds_the_answer(swept: list[LevelResult], budget: str) -> None:
    results = [
        sum_up(
            r.load, replace(r.trace, error=np.full(len(r.trace), "http_500" * (r.load.value > 8))), r.window, r.health
        )
        for r in swept
    ]
    found = known(answer_of(results, parse(budget)).find)
    assert known(found.answer).value in range(8, 16)
    assert known(known(found.answer).high) <= 16
    assert found.binds == "errors"
    plan = plan_for(results, parse_demand("100 requests/s"), parse(budget))
    assert plan.point.load == Concurrency(8)
    assert plan.fleets[0].missing is not None


def test_throughput_that_falls_is_said_beside_the_most_load(swept: list[LevelResult]) -> None:
    level = msgspec.structs.replace(swept[-1].level, output_tokens_per_s=Figure(100.0, 99.0, 101.0))
    results = [*swept[:-1], replace(swept[-1], level=level)]
    said = statements(summary_of(results, record_of(results, parse(MET)), None))[0]
    assert "concurrency 32" in said.text
    assert "Throughput falls: concurrency 16 gives" in said.why


def test_each_level_of_a_length_grid_has_its_mark() -> None:
    results, cells = [], []
    for tokens in (16, 64, 256):
        measure = virtual_measure("demo", duration_s=6.0, seed=2, input_tokens=64, output_tokens=tokens)
        results.append(measure(Concurrency(2)))
        cells.append(Asked(64, tokens))
    limits = Settings(budget=parse("latency p95 < 1s"))
    order = Scenario("sim:demo", Grid(Concurrency(2), tuple(cells)), settings=limits)
    record = RunRecord(scenario=order, target={"model": "m", "url": "u", "api": "chat"})
    summary = summary_of(results, record, None)
    marks = {known(level.asked).output_tokens: level.budget for level in summary.levels}
    assert [isinstance(mark, Held) and mark.status for mark in marks.values()] == ["met", "met", "missed"]
    assert tables.levels(summary, "r").columns["budget"] == ["met", "met", "missed"]
    assert "Budget" in printed(summary)
    assert "missed" in printed(summary)
    (drawn,) = parts(summary, 600, 400)
    assert "Circle: meets the budget, triangle: misses it" in str(drawn.to_dict()["title"])


def printed(summary: Summary) -> str:
    """The table in the terminal."""
    console = Console(width=80, file=io.StringIO())
    console.print(table(summary))
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


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


@pytest.mark.slow(shared=True)
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


@pytest.mark.slow(shared=True)
def test_json_holds_the_marks_and_the_answer_where_the_command_fails(stored_run: Path) -> None:
    done = inside("report", stored_run, "--budget", UNMET, "--json")
    said: Any = json.loads(done.stdout)
    assert done.returncode == 1
    assert [level["budget"]["status"] for level in said["levels"]] == ["missed"] * 4
    assert all(level["budget"]["binds"] == "ttft p95" and level["budget"]["share"] > 1 for level in said["levels"])
    assert said["answer"]["answer"] is None
    assert said["operating_points"]["within_budget"] is None


@pytest.mark.slow(shared=True)
def test_the_closest_level_is_the_one_that_misses_by_least(stored_run: Path) -> None:
    run = face.report(stored_run, budget=UNMET)
    near = known(closest(run.levels))
    assert isinstance(near.budget, Held)
    shares = [known(level.budget.share) for level in run.levels if isinstance(level.budget, Held)]
    assert known(near.budget.share) == min(shares)
    assert near.budget.why in unmet(run.summary)
    assert unmet(face.report(stored_run, budget=MET).summary) == ""


@pytest.mark.slow(shared=True)
def test_the_answer_has_its_figures_and_where_throughput_is_flat(stored_run: Path) -> None:
    run = face.report(stored_run, budget=MET)
    assert run.answer.startswith("Doubtful (within budget): concurrency 8 ")  # few requests: it is suspect
    text = " ".join(run.answer.split())
    for part in ("requests/s", "TTFT p95", "TPOT p95", "output tokens/s"):
        assert part in text
    assert known(run.summary.operating_points.within_budget).load == Concurrency(8)


@pytest.mark.slow
def test_a_run_whose_levels_are_all_invalid_ends_with_3_and_is_kept(tmp_path: Path) -> None:
    short = ("--duration", "1", "--input-tokens", "32", "--output-tokens", "8", "--out", tmp_path)
    done = inside("run", "sim:demo", "--rate", "900", *short)
    assert done.returncode == 3
    assert "invalid" in done.stdout
    assert "what was measured is in" in done.stderr
    assert (next(tmp_path.iterdir()) / "report.html").exists()


def test_a_budget_flag_is_still_checked(stored_run: Path) -> None:
    assert_refused(inside("report", stored_run, "--budget", "ttft p95 <"), "something is missing at the end")


# --- whoever asks


BUDGETS = ("tpot p95", "ttft p95", "latency p90", "ttft mean")


def endpoint(number: int) -> tuple[VirtualBench, list[LevelResult], Budget]:
    """A random endpoint over the usual levels, and a budget that lies somewhere around what they give.

    Every third has a neighbour, and its levels were measured twice.
    """
    rng = np.random.default_rng(number)
    changes: dict[str, Any] = {
        "base_ms": rng.uniform(4, 20),
        "per_decode_ms": rng.uniform(0.05, 0.6),
        "max_batch": 24,
    }
    shared = number % 3 == 2
    if shared:
        changes["unsteady"] = {"kind": "neighbour", "by": 0.3, "period_s": 40.0, "seed": number}
    preset = customised(named("demo"), changes)
    measure = virtual_measure(preset, input_tokens=(256, 0.3), output_tokens=(24, 0.3), duration_s=4.0, seed=number)
    results = [measure(Concurrency(n)) for _ in range(1 + shared) for n in (1, 2, 4, 8, 16, 32)]
    what = BUDGETS[number % len(BUDGETS)]
    metric, statistic = what.split()
    values = [getattr(r.level, f"{metric}_ms").p50.value or 50.0 for r in results]
    limit = float(np.exp(rng.uniform(np.log(0.9 * min(values)), np.log(1.2 * max(values)))))
    return measure, results, parse(f"{metric} {statistic} < {limit:.6g}ms")


def record_of(results: list[LevelResult], budget: Budget) -> RunRecord:
    loads = tuple(dict.fromkeys(r.load for r in results))
    order = Scenario("sim:demo", Levels(loads, len(results) // len(loads)), settings=Settings(budget=budget))
    return RunRecord(scenario=order, target={"url": "http://127.0.0.1:1/v1", "model": "m"})


@pytest.mark.parametrize("number", first(3, range(30)))
def test_a_budget_has_one_answer_whoever_asks(number: int) -> None:
    _, results, budget = endpoint(number)
    record = record_of(results, budget)
    swept = summary_of(results, record, None)  # sweep --budget, and report --budget
    again = summary_of(results, record, find_from(comparable(results), budget))  # find --from
    found = swept.answer
    assert isinstance(found, Find)
    assert again.find == again.answer == found
    assert again.operating_points == swept.operating_points
    point = swept.operating_points.within_budget
    said = statements(swept)[0]  # the terminal's, the report's and the notebook's
    assert said.text in Run(swept, Path()).answer.replace("\n  ", " ")
    assert statements(again)[0].text == said.text
    if found.answer is None:
        assert point is None
        assert said.name.startswith("no level meets")
        with pytest.raises(BadInput, match="no level of the run meets"):
            plan_for(results, parse_demand("40 requests/s"), budget)
        return
    assert point is not None
    assert point.load.value <= known(found.answer.value)
    assert plan_for(results, parse_demand("40 requests/s"), budget).point.load == point.load
    assert f"concurrency {found.answer.value:,g} " in said.text
    assert recommended(swept) == point.load
    level = next(x for x in swept.levels if x.load == point.load)
    assert isinstance(level.budget, Held)
    assert known(level.budget.share) < 1


@pytest.mark.parametrize("number", first(3, range(30)))
def test_a_search_gives_the_answer_of_its_run_from_then_on(number: int) -> None:
    measure, _, budget = endpoint(number)
    kept: list[LevelResult] = []

    def measured(load: Load, enough: Enough | None = None) -> LevelResult:
        kept.append(measure(load, enough))
        return kept[-1]

    found = find(measured, budget, rest=measure.rest, precision=0.2, most=64, allowance=Allowance(seconds=300))
    summary = summary_of(kept, record_of(kept, budget), found)  # find, report --budget, show, the notebook
    assert summary.answer == summary.find == found
    point = summary.operating_points.within_budget
    if found.answer is None or point is None:
        assert point is None
        with pytest.raises(BadInput, match="no level of the run meets"):
            plan_for(kept, parse_demand("40 requests/s"), budget, find=found)
        return
    assert plan_for(kept, parse_demand("40 requests/s"), budget, find=found).point.load == point.load
    assert point.load.value <= known(found.answer.value)
    asked_again = find_from(comparable(kept), budget)  # as if the search had not come to its end
    assert asked_again.scatter == pytest.approx(found.scatter)


def test_where_throughput_is_flat_is_said_beside_the_answer() -> None:
    measure = virtual_measure("demo", output_tokens=24, duration_s=10.0, seed=1)
    results = [measure(Concurrency(n)) for n in (8, 32, 64, 128)]
    summary = summary_of(results, record_of(results, parse("ttft p95 < 60s")), None)
    assert isinstance(summary.answer, Find)
    assert known(summary.answer.answer).value == 128
    assert "Throughput no longer rises from" in statements(summary)[0].why
    assert flat_from(summary.levels) is not None


@pytest.mark.parametrize("limit", first(1, [MET, UNMET, "tpot p95 < 10.4ms"]))
def test_the_commands_on_a_stored_run_agree(limit: str, stored_run: Path) -> None:
    found = face.find(from_run=stored_run, budget=limit)
    report = face.report(stored_run, budget=limit)
    shown = face.show(stored_run)
    assert found.summary.answer == report.summary.answer == shown.summary.answer
    points = {repr(run.summary.operating_points.within_budget) for run in (found, report, shown)}
    assert len(points) == 1
    said = report.summary.answer
    assert isinstance(said, Find)
    if said.answer is None:
        with pytest.raises(BadInput):
            face.plan(stored_run, demand="40 requests/s", budget=limit)
    else:
        plan = face.plan(stored_run, demand="40 requests/s", budget=limit)
        assert plan.point == report.summary.operating_points.within_budget
