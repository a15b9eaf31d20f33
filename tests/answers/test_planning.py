"""Fleets for a demand: what is asked for, the queueing estimate against simulated fleets, and the command."""

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
from pacemark.answers.planning import Demand, Plan, parse_demand, parse_size, plan_for
from pacemark.answers.sizes import Sold
from pacemark.budget import parse
from pacemark.errors import BadInput
from pacemark.figures import metrics
from pacemark.figures.conditions import demands
from pacemark.figures.level import LevelResult
from pacemark.pace import Concurrency, Load, Rate
from pacemark.reporting.plan import planned
from pacemark.runs.simulated import virtual_measure
from pacemark.simulator import named, simulate
from pacemark.summary import Figure
from support.cli_tools import assert_refused
from support.inside import inside
from support.sampled import first
from support.samples import known

BUDGET = parse("ttft p95 < 60ms, latency p95 < 1s")


pytestmark = pytest.mark.xdist_group("planning")  # its simulations are made once


@pytest.fixture(scope="module")
def one() -> list[LevelResult]:
    """One replica of the demo preset, in a closed loop."""
    measure = virtual_measure("demo", input_tokens=256, output_tokens=64, duration_s=15.0, seed=3)
    return [measure(Concurrency(n)) for n in (1, 4, 8, 16, 24, 32, 48)]


# --- what the user says


@pytest.mark.parametrize(
    ("text", "value", "unit"),
    [
        ("40 requests/s", 40, "requests/s"),
        ("30000 output tokens/s", 30000, "output tokens/s"),
        ("30,000 tokens per second", 30000, "tokens/s"),
        (" 1.5 Requests / min ", 0.025, "requests/s"),
        ("3600 request per hour", 1, "requests/s"),
        ("8640000 output tokens/day", 100, "output tokens/s"),
    ],
)
def test_a_demand_is_understood(text: str, value: float, unit: str) -> None:
    found = parse_demand(text)
    assert found.value == pytest.approx(value)
    assert str(found.unit) == unit


@pytest.mark.parametrize("text", ["", "40", "forty requests/s", "40 requests", "40 requests/fortnight", "0 requests/s"])
def test_a_demand_that_is_not_understood_is_refused(text: str) -> None:
    with pytest.raises(BadInput, match="--demand"):
        parse_demand(text)


@pytest.mark.parametrize(
    "text", ["30 to 50 requests/s", "30-50 requests/s", "40 +- 10 requests/s", "40±10 requests per second"]
)
def test_a_demand_may_be_a_range(text: str) -> None:
    assert parse_demand(text) == Demand(40, "requests/s", 30, 50)
    assert str(parse_demand(text)) == "30 to 50 requests/s"
    for wrong in ("50 to 30 requests/s", "10 +- 10 requests/s", "30 to requests/s"):
        with pytest.raises(BadInput, match="--demand"):
            parse_demand(wrong)


def test_a_size_is_understood() -> None:
    assert parse_size("50 model units") == (50, "model units")
    assert parse_size("9,500 tokens/s") == (9500, "tokens/s")
    for text in ("50", "model units", "0 model units", "50 DBU"):
        with pytest.raises(BadInput, match="--provisioned"):
            parse_size(text)


# --- the plan


def test_the_within_budget_point_carries_the_plan(one: list[LevelResult]) -> None:
    plan = plan_for(one, Demand(100, "requests/s"), BUDGET)
    assert plan.point.load == Concurrency(32)
    each = next(r.level for r in one if r.load == Concurrency(32)).requests_per_s
    assert plan.per_replica == each
    assert plan.replicas_without_headroom == int(np.ceil(100 / known(each.value)))
    assert plan.fleets[0].replicas >= plan.replicas_without_headroom
    assert plan.fleets[0].load == pytest.approx(100 / (plan.fleets[0].replicas * known(each.value)))


def test_replicas_run_where_throughput_has_not_fallen(one: list[LevelResult]) -> None:
    level = msgspec.structs.replace(one[-1].level, requests_per_s=Figure(8.0, 7.8, 8.2))
    fallen = [*one[:-1], replace(one[-1], level=level)]
    wanted, limits = parse_demand("100 requests/s"), parse("latency p95 < 1000s")
    plan = plan_for(fallen, wanted, limits)
    assert plan.point.load.value < 48
    assert plan.replicas_without_headroom == plan_for(one[:-1], wanted, limits).replicas_without_headroom


def test_demands_in_other_units_are_the_same_demand(one: list[LevelResult]) -> None:
    in_requests = plan_for(one, Demand(100, "requests/s"), BUDGET)
    assert in_requests.output_tokens_per_s == pytest.approx(6400)
    assert in_requests.tokens_per_s == pytest.approx(32000)
    for value, unit in ((6400, "output tokens/s"), (32000, "tokens/s")):
        same = plan_for(one, Demand(value, unit), BUDGET)  # type: ignore[arg-type]
        assert same.requests_per_s == pytest.approx(100)
        assert same.fleets[0].replicas == in_requests.fleets[0].replicas


@pytest.mark.parametrize("cv", first(1, [2.0, 1.0]))
@pytest.mark.parametrize("demand", [37.0, 150.0])
def test_a_simulated_fleet_of_that_size_meets_the_budget(one: list[LevelResult], demand: float, cv: float) -> None:
    plan = plan_for(one, Demand(demand, "requests/s"), BUDGET, burstiness=cv)
    fleet = plan.fleets[0]
    assert fleet.burstiness == cv
    assert known(fleet.missing) < 1
    assert served(fleet.replicas, demand, cv) < 1
    # And it is not lavish: with two fewer the budget is missed, or the rate is beyond what they can do.
    assert served(fleet.replicas - 2, demand, cv) > 1 if fleet.replicas > 2 else True


def served(replicas: int, rate: float, cv: float) -> float:
    """The budget's worst condition in an open loop: its share of misses over what is allowed."""
    preset = msgspec.structs.replace(named("demo"), replicas=replicas)
    trace = simulate(Rate(rate, "gamma", cv), preset, input_tokens=256, output_tokens=64, requests=6000, seed=5)
    trace = replace(trace, open_loop=True)
    sample = np.arange(len(trace)) > 600
    return max(
        float(c.scores.mean() if c.quantile is None else (c.scores >= 1).mean() / (1 - c.quantile))
        for c in demands(BUDGET, trace, sample)
    )


def test_burstier_arrivals_never_need_fewer(one: list[LevelResult]) -> None:
    demand = Demand(150, "requests/s")
    sizes = [plan_for(one, demand, BUDGET, burstiness=cv).fleets[0].replicas for cv in (0.5, 1, 2, 4)]
    assert sizes == sorted(sizes)
    assert sizes[-1] > sizes[0]


def test_a_larger_fleet_needs_less_headroom_for_each_request(one: list[LevelResult]) -> None:
    loads = [plan_for(one, Demand(d, "requests/s"), BUDGET, burstiness=2.0).fleets[0].load for d in (36, 3600)]
    assert loads[1] > loads[0] + 0.1


def test_a_burstier_fleet_stands_beside_it_to_compare(one: list[LevelResult]) -> None:
    assert [f.burstiness for f in plan_for(one, Demand(9, "requests/s"), BUDGET).fleets] == [1.0, 2.0]
    assert [f.burstiness for f in plan_for(one, Demand(9, "requests/s"), BUDGET, burstiness=3.0).fleets] == [3.0]


def short_sweep(seed: int, duration_s: float) -> list[LevelResult]:
    """One replica with lengths that vary, as a user would measure it in a hurry."""
    lengths: Any = {"input_tokens": (256.0, 0.5), "output_tokens": (64.0, 0.5)}
    measure = virtual_measure("demo", **lengths, duration_s=duration_s, seed=seed)
    return [measure(Concurrency(n)) for n in (4, 8, 16, 32)]


@pytest.mark.slow(shared=True)
def test_the_interval_holds_what_a_long_measurement_gives() -> None:
    budget, demand = parse("latency p95 < 2.5s, ttft p95 < 100ms"), Demand(500, "requests/s")
    truth = plan_for(short_sweep(99, 60.0), demand, budget).fleets[0].replicas
    found = [plan_for(short_sweep(seed, 6.0), demand, budget).fleets[0] for seed in range(3)]
    assert all(known(f.replicas_low) <= truth <= known(f.replicas_high) for f in found)
    assert all(known(f.replicas_high) < 1.5 * truth for f in found)


def test_an_uncertain_demand_widens_it(one: list[LevelResult]) -> None:
    sure, unsure = (
        plan_for(one, d, BUDGET) for d in (parse_demand("100 requests/s"), parse_demand("60-140 requests/s"))
    )
    assert sure.fleets[0].replicas == unsure.fleets[0].replicas
    assert known(unsure.fleets[0].replicas_low) < known(sure.fleets[0].replicas_low)
    assert known(unsure.safe) > known(sure.safe) >= sure.fleets[0].replicas
    at_most = plan_for(one, Demand(140, "requests/s"), BUDGET)
    assert known(unsure.safe) >= at_most.fleets[0].replicas


def test_a_run_too_short_for_its_budget_has_no_safe_number() -> None:
    lengths: Any = {"input_tokens": 256, "output_tokens": (64.0, 0.7)}
    measure = virtual_measure("demo", **lengths, duration_s=2.0, seed=2)
    results = [measure(Concurrency(n)) for n in (1, 2)]
    worst = max(float(metrics.latency_ms(r.trace).max()) for r in results)
    plan = plan_for(results, Demand(20, "requests/s"), parse(f"latency p95 < {1.01 * worst:.0f}ms"))
    assert plan.safe is None
    assert any("too short to give a safe number" in note for note in plan.notes)
    assert "no number is safe yet" in printed(plan)


@pytest.mark.parametrize("load", [Concurrency(2), Rate(2.0)])
def test_a_rate_that_may_be_nothing_makes_no_number_safe(load: Load) -> None:
    measure = virtual_measure("demo", input_tokens=256, output_tokens=128, duration_s=1.0, seed=1)
    plan = plan_for([measure(load)], Demand(40, "requests/s"), parse("tpot p50 < 40ms"))
    assert not plan.per_replica.low
    assert plan.fleets[0].replicas_high is None
    assert plan.safe is None


def printed(plan: Plan) -> str:
    """The plan as the terminal has it, on one line."""
    console = Console(width=80, file=io.StringIO())
    console.print(planned(plan), highlight=False, crop=False)
    assert isinstance(console.file, io.StringIO)
    return " ".join(console.file.getvalue().split())


def test_the_safe_number_and_its_cost_stand_in_the_first_lines(one: list[LevelResult]) -> None:
    plan = plan_for(one, parse_demand("60-140 requests/s"), BUDGET, price_per_hour=12.0)
    first = plan.fleets[0]
    assert f"95% interval {first.replicas_low} to {plan.safe}: {plan.safe} are safe and cost" in printed(plan)
    assert plan.safe_cost_per_hour == 12.0 * known(plan.safe)


def test_links_are_whole_and_databricks_sizes_stand_for_databricks_alone(one: list[LevelResult]) -> None:
    plan = plan_for(one, Demand(100, "requests/s"), BUDGET, sold=Sold())
    assert all(f"{advice.source}" in printed(plan).split() for advice in plan.advice)
    assert "atabricks" not in printed(plan_for(one, Demand(100, "requests/s"), BUDGET))


def test_cost_at_each_operating_point(one: list[LevelResult]) -> None:
    plan = plan_for(one, Demand(100, "requests/s"), BUDGET, price_per_hour=12.0)
    costs = {cost.point: cost for cost in plan.costs}
    assert costs.keys() == {"within budget", "balanced", "highest throughput", "lowest latency"}
    tokens = known(plan.point.output_tokens_per_s.value)
    assert costs["within budget"].per_million_output_tokens == pytest.approx(12 / 3600 / tokens * 1e6)
    assert costs["lowest latency"].per_million_output_tokens > costs["highest throughput"].per_million_output_tokens
    assert known(costs["balanced"].per_million_tokens) < costs["balanced"].per_million_output_tokens
    fleet = plan.fleets[0]
    assert fleet.cost_per_hour == 12.0 * fleet.replicas
    assert fleet.cost_per_million_output_tokens == pytest.approx(12 * fleet.replicas / 3600 / 6400 * 1e6)
    assert plan_for(one, Demand(100, "requests/s"), BUDGET).costs == []


def test_databricks_sizes_scale_with_what_was_measured(one: list[LevelResult]) -> None:
    plan = plan_for(one, Demand(100, "requests/s"), BUDGET, sold=Sold((50, "model units")))
    (advice,) = plan.advice
    assert f"{50 * plan.fleets[0].replicas} model units" in advice.text
    assert advice.source.startswith("https://docs.databricks.com/")
    assert advice.dated
    assert plan_for(one, Demand(100, "requests/s"), BUDGET).advice == []
    unknown = plan_for(one, Demand(100, "requests/s"), BUDGET, sold=Sold()).advice
    assert "--provisioned" in unknown[0].text
    assert "32,000 tokens/s" in unknown[1].text


def test_what_to_keep_in_mind_is_said(one: list[LevelResult]) -> None:
    lofty = plan_for(one, Demand(100, "requests/s"), parse("latency p95 < 60s"))
    assert any("the largest load of the run" in note for note in lofty.notes)
    with pytest.raises(BadInput, match="no level of the run meets"):
        plan_for(one, Demand(100, "requests/s"), parse("ttft p50 < 1ms"))


def test_rates_hold_their_headroom_already() -> None:
    measure = virtual_measure("demo", input_tokens=256, output_tokens=64, duration_s=20.0, seed=4)
    rates = [measure(Rate(r)) for r in (5.0, 20.0, 30.0)]
    plan = plan_for(rates, Demand(100, "requests/s"), parse("tpot p95 < 14ms"), burstiness=2.0)
    assert [f.burstiness for f in plan.fleets] == [1.0]
    assert plan.fleets[0].missing is None
    assert plan.fleets[0].replicas == plan.replicas_without_headroom
    assert any("was not measured" in note for note in plan.notes)


# --- the command


class TestCommand:
    def test_it_fits_the_terminal_and_says_what_matters(self, stored_run: Path) -> None:
        words = ("--demand", "500 output tokens/s", "--budget", "latency p95 < 9s", "--price-per-hour", "12")
        done = inside("plan", stored_run, *words)
        assert done.returncode == 0, done.stderr
        text = " ".join(done.stdout.split())
        assert "serve 500 output tokens/s" in text or "serves 500 output tokens/s" in text
        assert "Poisson" in text
        assert "CV 2" in text
        assert "databricks" not in text.lower()
        sized = inside("plan", stored_run, *words, "--provisioned", "9500 tokens/s").stdout
        assert "deploy-prov-throughput-foundation-model-apis\n" in sized, "the link is whole"
        assert all(len(line) <= 80 for line in done.stdout.splitlines() if "https://" not in line)

    def test_json_is_the_plan(self, stored_run: Path) -> None:
        words = ("--demand", "5 requests/s", "--budget", "latency p95 < 9s", "--json")
        plan: Any = json.loads(inside("plan", stored_run, *words).stdout)
        assert plan["schema"] == "pacemark/plan/1"
        assert plan["demand"] == {"value": 5.0, "unit": "requests/s"}
        assert plan["fleets"][0]["replicas"] >= 1
        same = face.plan(stored_run, demand="5 requests/s", budget="latency p95 < 9s")
        assert msgspec.to_builtins(same) == plan

    @pytest.mark.parametrize(
        ("options", "part"),
        [
            ({"demand": "5 apples/s"}, "--demand '5 apples/s'"),
            ({"budget": "latency p95"}, "the budget"),
            ({"burstiness": 0.0}, "--burstiness 0"),
            ({"price_per_hour": float("nan")}, "--price-per-hour nan"),
            ({"provisioned": "9"}, "--provisioned '9'"),
            ({"path": "none"}, "no run"),
        ],
    )
    def test_bad_input(self, stored_run: Path, options: Any, part: str) -> None:
        words: Any = {"path": stored_run, "demand": "5 requests/s", "budget": "latency p95 < 9s"}
        with pytest.raises(BadInput, match=part):
            face.plan(**words | options)

    def test_a_run_without_a_budget_needs_one(self, stored_run: Path) -> None:
        record = json.loads((stored_run / "run.json").read_text())
        record["settings"]["budget"] = ""
        (stored_run / "run.json").write_text(json.dumps(record))
        with pytest.raises(BadInput, match="needs a budget"):
            face.plan(stored_run, demand="5 requests/s")

    def test_on_the_command_line_it_is_one_line_and_exit_code_2(self, stored_run: Path) -> None:
        words = ("plan", stored_run, "--demand", "5 requests/s", "--budget")
        assert_refused(inside(*words, "latency p95 < 1ms"), "no level of the run meets")
        assert_refused(inside("plan", stored_run, "--budget", "latency p95 < 1s"), "--demand")
