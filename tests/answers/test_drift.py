"""Whether an endpoint was steady: what its visits show, and what the answers make of it."""

from __future__ import annotations

import math
from typing import Any

import msgspec
import numpy as np
import pytest

from pacemark.answers.allowance import Allowance
from pacemark.answers.boundary import DRAWS, Reading, Unrest, believe, read
from pacemark.answers.drift import OCCASION_S, STEADY, Visit, VisitScatter, contradiction, scatter_of, visits_of
from pacemark.answers.search import find
from pacemark.answers.step import Step
from pacemark.answers.stored import find_from
from pacemark.answers.weighing import comparable, weighed
from pacemark.budget import parse
from pacemark.figures.conditions import Condition
from pacemark.figures.level import Enough, LevelResult
from pacemark.pace import Concurrency, Load
from pacemark.runs.simulated import VirtualBench, virtual_measure
from pacemark.simulator import Unsteady, customised, named
from pacemark.summary import Find
from support.samples import known

LENGTHS: dict[str, Any] = {"input_tokens": (256, 0.3), "output_tokens": (128, 0.3)}
BUDGET = "tpot p95 < 12ms"


def demo(kind: str = "", *, seed: int = 1, **change: Any) -> VirtualBench:
    """The demo endpoint, steady or with a speed that changes."""
    changes = {"unsteady": msgspec.to_builtins(Unsteady(kind=kind, seed=seed, **change))} if kind else {}  # type: ignore[arg-type]
    return virtual_measure(customised(named("demo"), changes), seed=seed, **LENGTHS)


def visits(seed: int, sd: float, *, every_s: float = 60.0, loads: int = 2, times: int = 5) -> list[Visit]:
    """Of some loads at some times, at which the endpoint was slower or faster by `sd`."""
    rng = np.random.default_rng(seed)
    error, found = 0.02, []
    for n in range(times):
        effect = sd * rng.normal()
        for load in range(1, loads + 1):
            slowness = 0.1 * load + effect + error * rng.normal()
            found.append(Visit(float(load), n * every_s + load, slowness, error, 50))
    return found


# --- the scatter


def test_a_steady_endpoint_is_seldom_called_unsteady() -> None:
    assert sum(bool(scatter_of(visits(seed, 0.0), [])) for seed in range(300)) <= 9


def test_the_scatter_is_found() -> None:
    found = np.array([scatter_of(visits(seed, 0.1, times=8), []).sd for seed in range(200)])
    assert np.sqrt(np.mean(found**2)) == pytest.approx(0.1, rel=0.15)
    assert (found > 0).mean() > 0.95


def test_visits_of_one_occasion_tell_nothing_of_another() -> None:
    close = visits(1, 0.3, every_s=OCCASION_S / 8)
    assert scatter_of(close, []).dof == 0
    assert scatter_of(visits(1, 0.3), []).dof == 8


def test_a_clock_that_went_back_is_another_occasion() -> None:
    late, early = Visit(1.0, 5000.0, 0.0, 0.01, 50), Visit(1.0, 10.0, 0.3, 0.01, 50)
    assert scatter_of([late, early], []).sd == pytest.approx(0.3 / math.sqrt(2), rel=0.1)


def test_a_level_that_took_long_is_several_visits() -> None:
    measure = demo()
    short, long = visits_of(measure(Concurrency(4))), virtual_measure("demo", duration_s=5 * OCCASION_S)(Concurrency(4))
    assert len(short) == 1
    assert len(visits_of(long)) == 5
    assert not scatter_of(visits_of(long), [])


def test_a_slower_endpoint_is_slower_by_so_much() -> None:
    slower = demo("jumps", by=0.5, period_s=1e-9)
    before, after = visits_of(demo()(Concurrency(4)))[0], visits_of(slower(Concurrency(4)))[0]
    assert after.slowness - before.slowness == pytest.approx(math.log(1.5), abs=0.06)


# --- levels that contradict each other


def reading(load: float, value: float, error: float, n: int = 100) -> Reading:
    draws = np.array([value + error * np.random.default_rng(int(load)).normal(size=DRAWS), np.zeros(DRAWS)])
    return Reading(load, ("ttft p95", "errors"), np.array([value, 0.0]), draws, np.array([500.0, 0.01]), n)


def test_levels_that_contradict_each_other_leave_the_interval_open() -> None:
    """A load 2% over its limit by 257 requests, and the next one 35% under it by 22."""
    over, within = reading(8, 1.02, 0.01, 257), reading(9, 0.65, 0.05, 22)
    others = [reading(4, 0.4, 0.01), reading(16, 2.0, 0.05)]
    pair = contradiction([*others, over, within])
    assert pair == (over, within)
    each = [Visit(r.load, 10.0 * i, 0.0, 0.02, r.n) for i, r in enumerate([*others, over, within])]
    scatter = scatter_of(each, [*others, over, within])
    assert scatter.sd == pytest.approx(math.log(1.02 / 0.65) / math.sqrt(2))
    assert "9 did better than 8" in scatter.in_words()
    low, high = believe([shaken(r, scatter) for r in [*others, over, within]]).interval()
    assert low < 8
    assert high > 10


def shaken(reading: Reading, scatter: VisitScatter) -> Reading:
    unrest = known(scatter.unrest(reading.load))
    draws = reading.draws.copy()
    draws[0] *= unrest.times
    return Reading(reading.load, reading.names, reading.values, draws, reading.most, reading.n)


def test_what_is_slower_at_1_than_at_2_is_no_contradiction() -> None:
    assert contradiction([reading(1, 1.5, 0.01), reading(2, 0.7, 0.01)]) is None
    assert contradiction([reading(8, 1.02, 0.1), reading(9, 0.9, 0.1)]) is None, "within their errors"
    assert contradiction([reading(8, 0.8, 0.01), reading(9, 0.7, 0.01)]) is None, "both meet the budget"


# --- what it does to a level


def condition(scores: np.ndarray, quantile: float | None) -> Condition:
    return Condition("tpot p95", scores, quantile, 50.0)


def test_the_long_run_holds_the_slow_times_as_well() -> None:
    scores = np.random.default_rng(1).lognormal(0, 0.1, 400)
    errors = Condition("errors", np.zeros(400), None, 0.01)
    unrest = Unrest(np.ones(DRAWS), 0.2)
    for quantile, expected in ((0.95, 1.6449 * (math.hypot(0.1, 0.2) - 0.1)), (0.5, 0.0), (None, 0.0)):
        plain, long_run = (read(8, [condition(scores, quantile), errors], 1, u) for u in (None, unrest))
        assert math.log(np.median(long_run.draws[0]) / np.median(plain.draws[0])) == pytest.approx(expected, abs=0.03)
        assert np.array_equal(long_run.values, plain.values), "the figures shown are those measured"


def test_more_occasions_leave_less_open() -> None:
    for times in (1, 2, 8, 32):
        scatter = VisitScatter(0.1, 10, {4.0: dict.fromkeys(range(0, 3 * times, 3), 50)})
        unrest = known(scatter.unrest(4.0))
        expected = 0.1 * math.sqrt(1 + 1 / times) * math.sqrt(10 / 8)  # Student's t, and the time of the answer
        assert np.log(unrest.times).std() == pytest.approx(expected, rel=0.12)
        assert unrest.left == pytest.approx(0.1 / math.sqrt(times))


def test_levels_of_one_minute_were_slow_together() -> None:
    same = VisitScatter(0.1, 10, {4.0: {0: 50}, 8.0: {2: 70}, 16.0: {3: 50}})
    four, eight, sixteen = (np.log(known(same.unrest(load)).times) for load in (4.0, 8.0, 16.0))
    assert np.corrcoef(four, eight)[0, 1] == pytest.approx(1.0)
    assert np.corrcoef(four, sixteen)[0, 1] == pytest.approx(0.5, abs=0.15), "but for the time of the answer"


def test_a_steady_endpoint_changes_nothing() -> None:
    assert STEADY.unrest(4.0) is None
    assert not STEADY


# --- the search


class Recorded:
    """A measuring step that keeps what it gave."""

    def __init__(self, measure: VirtualBench) -> None:
        self.measure, self.results, self.rests = measure, list[LevelResult](), list[float]()

    def __call__(self, load: Load, enough: Enough | None = None) -> LevelResult:
        self.results.append(self.measure(load, enough))
        return self.results[-1]

    def rest(self, seconds: float) -> None:
        self.rests.append(seconds)
        self.measure.rest(seconds)


@pytest.mark.slow(shared=True)
def test_a_steady_endpoint_is_looked_at_in_a_few_requests_more() -> None:
    steps: list[Step] = []
    bench = Recorded(demo(seed=3))
    found = find(bench, BUDGET, rest=bench.rest, observe=steps.append)
    assert found.scatter == 0
    assert found.resolved
    assert not bench.rests
    looks = [i for i, step in enumerate(steps) if "as fast as it was" in step.why]
    assert looks, "it took a minute, so it was looked whether the endpoint was as fast as at first"
    for i in looks:
        assert steps[i].next == Concurrency(1)
        assert steps[i + 1].spent.requests - steps[i].spent.requests <= 8


@pytest.mark.slow(shared=True)
@pytest.mark.parametrize("kind", ["jumps", "wanders", "neighbour"])
def test_an_unsteady_endpoint_is_told_and_seen_at_other_times(kind: str) -> None:
    change = {"wanders": (0.2, 150.0), "jumps": (0.2, 40.0), "neighbour": (0.3, 120.0)}[kind]
    bench = Recorded(demo(kind, seed=2, by=change[0], period_s=change[1]))
    found = find(bench, BUDGET, rest=bench.rest)
    assert 0.03 < found.scatter < 0.4
    assert "the endpoint was not steady: visits of one load differ by " in found.why
    assert found.why.endswith("the interval holds it")
    assert not found.resolved
    assert len(bench.rests) >= 3
    assert found.spent.seconds == pytest.approx(bench.measure.now_ns / 1e9, rel=0.02), "rests are part of what it took"
    steady = find(demo(seed=2), BUDGET)
    assert width(found) > width(steady)


@pytest.mark.slow(shared=True)
def test_no_load_is_said_to_meet_a_budget_only_when_two_times_say_so() -> None:
    bench = Recorded(demo("jumps", by=-0.3, period_s=25.0))
    found = find(bench, "tpot p95 < 8ms", rest=bench.rest)  # 8.9 ms at first, 6.2 ms later
    assert found.scatter > 0
    assert not found.resolved
    assert known(found.answer).high is None or known(known(found.answer).high) >= 23
    steady = Recorded(demo())
    assert find(steady, "tpot p95 < 8ms", rest=steady.rest).answer is None
    assert steady.rests == [30.0]
    assert steady.results[-1].load == Concurrency(1)
    hopeless = Recorded(demo())
    assert find(hopeless, "tpot p95 < 3ms", rest=hopeless.rest).answer is None
    assert not hopeless.rests


def width(found: Find) -> float:
    answer = known(found.answer)
    return (answer.high if answer.high is not None else math.inf) - known(answer.low)


@pytest.mark.slow(shared=True)
def test_the_rests_are_within_the_allowance() -> None:
    for seconds in (60.0, 120.0, 200.0):
        measure = demo("jumps", seed=2, by=0.3, period_s=50.0)
        found = find(measure, BUDGET, rest=measure.rest, allowance=Allowance(seconds=seconds))
        assert found.spent.seconds <= 1.01 * seconds
        assert found.scatter > 0 or seconds < 100


@pytest.mark.slow(shared=True)
def test_the_levels_of_a_search_tell_the_same_scatter_afterwards() -> None:
    bench = Recorded(demo("neighbour", seed=2, by=0.3, period_s=120.0))
    found = find(bench, BUDGET, rest=bench.rest)
    again = find_from(comparable(bench.results), parse(BUDGET))
    assert again.scatter == pytest.approx(found.scatter)
    assert "the endpoint was not steady" in again.why
    assert known(again.answer).low == pytest.approx(known(known(found.answer).low), abs=2)


def test_a_sweep_that_saw_a_load_twice_has_it_too() -> None:
    measure = demo("jumps", by=0.4, period_s=70.0)
    results = []
    for _ in range(2):
        results += [measure(Concurrency(n)) for n in (1, 4, 16)]
    budget = parse("tpot p95 < 13.5ms")
    found = find_from(results, budget)
    assert found.scatter == pytest.approx(math.log(1.4) / math.sqrt(2), rel=0.3)
    alone = find_from(results[:3], budget)
    assert alone.scatter == 0
    assert width(found) > width(alone)
    marks = weighed(results, budget)
    assert all(reading.draws.shape == (2, DRAWS) for reading in marks.values())
