"""The search, over the engine in virtual time, where the truth is one long simulation away."""

from __future__ import annotations

import dataclasses
import itertools
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest

import pacemark
from pacemark.answers.allowance import Allowance
from pacemark.answers.search import find
from pacemark.answers.step import Step
from pacemark.budget import parse
from pacemark.errors import BadInput, RunFailed, Unreachable
from pacemark.figures.conditions import demands
from pacemark.figures.level import Enough, LevelResult, Measure, sum_up
from pacemark.figures.metrics import ttft_ms
from pacemark.pace import Concurrency, Load, Rate
from pacemark.runs.simulated import virtual_measure
from pacemark.simulator import EngineSpec, Preset, named, simulate
from pacemark.simulator.engine.model import FixedSpec
from pacemark.simulator.engine.virtual import Recorded
from pacemark.summary import Find
from pacemark.trace import Trace, Window
from support.sampled import first

SMALL = Preset(
    name="small",
    summary="",
    model="small",
    timeline=EngineSpec(base_ms=10, per_decode_ms=0.4, per_prefill_token_ms=0.02, max_batch=32, token_budget=512),
)
LENGTHS: dict[str, Any] = {"input_tokens": 64, "output_tokens": 16}
BUDGET = "tpot p95 < 18ms"


def small(seed: int = 1) -> Measure:
    return virtual_measure(SMALL, **LENGTHS, duration_s=10, seed=seed)


def score(
    load: Load, budget: str, preset: Preset = SMALL, requests: int = 4000, lengths: dict[str, Any] = LENGTHS
) -> float:
    """The budget's worst statistic over a long simulation, as a share of its limit."""
    trace = simulate(load, preset, **lengths, requests=requests, seed=99)
    sample = np.arange(requests) >= 300
    conditions = demands(parse(budget), trace, sample)[:-1]
    return max(float(np.quantile(c.scores, c.quantile) if c.quantile else c.scores.mean()) for c in conditions)


def assert_right(found: Find, budget: str = BUDGET, preset: Preset = SMALL) -> None:
    """The answer is within max(1, 5%) of the largest concurrency that meets the budget."""
    assert found.answer is not None
    assert found.answer.value is not None
    under = int(min(found.answer.value - 1, 0.95 * found.answer.value))
    over = int(max(found.answer.value + 1, 1.05 * found.answer.value)) + 1
    assert under < 1 or score(Concurrency(under), budget, preset) < 1
    assert score(Concurrency(over), budget, preset) >= 1


def spoiled(measure: Measure, spoil: Callable[[Load, Trace], Trace]) -> Measure:
    """`measure`, with its traces changed before anybody sees them."""

    def measured(load: Load, enough: Enough | None = None) -> LevelResult:
        def seen(trace: Trace, window: Window) -> bool:
            return enough is not None and enough(spoil(load, trace), window)

        result = measure(load, seen if enough else None)
        return sum_up(load, spoil(load, result.trace), result.window, result.health)

    return measured


def refusing(most: int, error: str) -> Callable[[Load, Trace], Trace]:
    """An endpoint that serves `most` requests at a time, and answers the others with `error`."""

    def spoil(load: Load, trace: Trace) -> Trace:
        assert isinstance(load, Concurrency)
        share = max(0.0, 1 - most / load.value)
        # Evenly spread, with every other request of the trace the same wherever it is cut.
        refused = np.floor(np.arange(len(trace)) * share) != np.floor((np.arange(len(trace)) + 1) * share)
        return dataclasses.replace(trace, error=np.where(refused, error, ""))

    return spoil


# --- finding it


@pytest.mark.parametrize("budget", [BUDGET, "ttft p95 < 60ms, tpot mean < 16ms", "90% of requests: latency < 280ms"])
@pytest.mark.parametrize("seed", first(1, [1, 2]))
def test_the_answer_is_right(budget: str, seed: int) -> None:
    found = find(small(seed), budget)
    assert found.resolved
    assert_right(found, budget)
    assert found.answer is not None
    assert found.answer.low is not None
    assert found.answer.high is not None
    assert found.answer.low <= (found.answer.value or 0) <= found.answer.high
    assert found.budget == budget
    assert found.load == "concurrency"
    assert found.spent.requests < 3000


def test_what_binds_is_named() -> None:
    assert find(small(), "ttft p95 < 10s, tpot p95 < 18ms").binds == "tpot p95"
    assert find(small(), "latency p95 < 250ms, tpot p95 < 10s").binds == "latency p95"


@pytest.mark.slow(shared=True)
def test_a_noisy_boundary_is_within_the_interval() -> None:
    lengths: dict[str, Any] = {"input_tokens": (64.0, 0.5), "output_tokens": (16.0, 0.5)}
    found = find(virtual_measure(SMALL, **lengths, seed=5), "latency p90 < 400ms", precision=0.2)
    trace = {x: simulate(Concurrency(x), SMALL, **lengths, requests=5000, seed=7) for x in (8, 12, 16, 20, 24)}
    p90 = [float(np.quantile((t.ended_ns - t.sent_ns)[300:] / 1e6, 0.9)) for t in trace.values()]
    truth = float(np.interp(400, p90, list(trace)))
    assert found.answer is not None
    assert found.answer.low is not None
    assert found.answer.high is not None
    assert found.answer.low - 1 <= truth <= found.answer.high + 1


def test_a_slow_start_is_not_the_boundary() -> None:
    """One stream alone misses the budget, as where a server falls asleep between requests; two meet it."""
    timeline = EngineSpec(base_ms=40, per_decode_ms=0.4, per_prefill_token_ms=0.02)
    sleepy = virtual_measure(timed(SMALL, timeline), **LENGTHS, seed=3)
    awake = small(3)
    found = find(lambda load, enough=None: (sleepy if load.value == 1 else awake)(load, enough), BUDGET)
    assert_right(found)


def timed(preset: Preset, timeline: EngineSpec | FixedSpec) -> Preset:
    return Preset(name=preset.name, summary="", model=preset.model, timeline=timeline)


def noisy(seed: int = 1) -> Measure:
    return virtual_measure(SMALL, input_tokens=(64.0, 0.5), output_tokens=(16.0, 0.3), seed=seed)


def test_the_same_seed_finds_the_same() -> None:
    one, same, other = (find(noisy(seed), BUDGET, precision=0.2) for seed in (4, 4, 5))
    assert one == same
    assert one.spent != other.spent


@pytest.mark.slow(shared=True)
def test_a_wider_precision_costs_less() -> None:
    wide, narrow = (find(noisy(), "latency p95 < 380ms", precision=p).spent.requests for p in (0.3, 0.1))
    assert wide < narrow


# --- where there is no boundary


def test_a_budget_that_nothing_meets() -> None:
    found = find(small(), "ttft p95 < 2ms")
    assert found.answer is None
    assert found.resolved
    assert "not even one request at a time meets it" in found.why
    assert "ttft p95" in found.why
    assert "% over its limit" in found.why
    assert found.spent.requests < 100


def test_a_budget_that_everything_meets_up_to_the_most() -> None:
    preset = timed(SMALL, FixedSpec(ttft_ms=50, itl_ms=5))
    found = find(virtual_measure(preset, **LENGTHS), "ttft p95 < 1s", most=40)
    assert found.answer is not None
    assert found.answer.value == 40
    assert found.answer.high is None
    assert "met at concurrency 40, the largest load to be tried: --most sets it" in found.why
    assert not found.resolved


def test_a_plateau_is_told_and_left() -> None:
    """TPOT stops rising with a full batch, and so does throughput: a higher load only waits longer."""
    found = find(small(), "tpot p95 < 60ms")
    assert "throughput no longer rises" in found.why
    assert found.answer is not None
    assert found.answer.high is None
    assert max(probe.load.value for probe in found.probes) <= 256


# --- errors


@pytest.mark.parametrize("error", ["http_500", "http_429", "said_429"])
def test_errors_are_a_boundary_of_their_own(error: str) -> None:
    found = find(spoiled(small(), refusing(12, error)), BUDGET)
    assert found.answer is not None
    assert found.answer.value == pytest.approx(12, abs=1)
    assert found.binds != "tpot p95"
    assert ("429" in str(found.binds)) == error.endswith("_429")
    assert any(error in probe.why and "failed" in probe.why for probe in found.probes)


def test_a_limit_of_a_time_leaves_the_answer_open() -> None:
    within, left = small(), 100

    def measure(load: Load, enough: Enough | None = None) -> LevelResult:
        def limited(trace: Trace) -> Trace:
            return dataclasses.replace(trace, error=np.where(np.arange(len(trace)) < left, "", "http_429"))

        nonlocal left
        result = within(load, (lambda trace, window: enough(limited(trace), window)) if enough else None)
        trace = limited(result.trace)
        left = max(0, left - len(trace))
        return sum_up(load, trace, result.window, result.health)

    found = find(measure, "ttft p95 < 5s")
    assert found.binds == "rate limit (429)"
    assert not found.resolved
    assert "one of a time" in found.why
    assert find(spoiled(small(), refusing(12, "http_429")), BUDGET).resolved  # that is one on what is in flight


@pytest.mark.parametrize("seed", first(3, range(6)))
def test_what_a_few_refusals_show_is_not_waved_through(seed: int) -> None:
    """Refused streams pause, so that few of the requests are refusals; none of them may be taken for chance."""

    def spoil(load: Load, trace: Trace) -> Trace:
        share = {5: 0.06, 6: 0.12}.get(int(load.value), 0.25) if load.value > 4 else 0.0
        refused = np.random.default_rng([seed, int(load.value)]).random(len(trace)) < share
        return dataclasses.replace(trace, error=np.where(refused, "http_429", ""))

    found = find(spoiled(small(seed), spoil), "latency p95 < 2s")
    assert found.answer is not None
    assert found.answer.value == 4
    assert found.binds == "rate limit (429)"


def test_a_level_that_fails_whole_is_over_the_boundary() -> None:
    within = small()

    def measure(load: Load, enough: Enough | None = None) -> LevelResult:
        if load.value > 12:
            raise RunFailed(f"all of the first 12 requests at {load} failed (http_503)")
        return within(load, enough)

    found = find(measure, BUDGET)
    assert found.answer is not None
    assert found.answer.value == pytest.approx(12, abs=1)
    assert found.binds == "errors"
    assert any("http_503" in probe.why and probe.within is False for probe in found.probes)


def test_an_endpoint_that_is_gone_is_no_boundary() -> None:
    within = small()

    def measure(load: Load, enough: Enough | None = None) -> LevelResult:
        if load.value > 3:
            raise Unreachable("all of the first 12 requests failed (refused)")
        return within(load, enough)

    with pytest.raises(Unreachable):
        find(measure, BUDGET)


def test_a_first_level_that_fails_whole_is_an_error() -> None:
    def measure(load: Load, enough: Enough | None = None) -> LevelResult:
        raise RunFailed("nobody there")

    with pytest.raises(RunFailed, match="nobody there"):
        find(measure, BUDGET)


def test_a_few_errors_that_are_allowed_do_no_harm() -> None:
    def spoil(load: Load, trace: Trace) -> Trace:
        return dataclasses.replace(trace, error=np.where(np.arange(len(trace)) % 200 == 199, "http_500", ""))

    assert_right(find(spoiled(small(), spoil), BUDGET + ", errors < 3%"))


# --- allowances


@pytest.mark.parametrize(
    ("allowance", "most", "words"),
    [
        (Allowance(requests=200), lambda f: f.spent.requests, "200 requests"),
        (Allowance(seconds=4.0), lambda f: f.spent.seconds, "4 s"),
        (Allowance(tokens=12_000), lambda f: f.spent.tokens, "12,000 tokens"),
        (Allowance(cost=0.01, price_per_hour=9.0), lambda f: f.spent.seconds * 9 / 3600, "0.01 of cost"),
        (
            Allowance(cost=0.012, price_per_million_tokens=1.0),
            lambda f: f.spent.tokens / 1e6,
            "0.012 of cost",
        ),
    ],
)
def test_a_search_ends_within_its_allowance(allowance: Allowance, most: Callable[[Find], float], words: str) -> None:
    limit = next(v for v in (allowance.seconds, allowance.requests, allowance.tokens, allowance.cost) if v is not None)
    found = find(small(), BUDGET, allowance=allowance)
    assert f"the next level would exceed the allowance of {words}: allow more" in found.why
    assert not found.resolved
    assert most(found) <= 1.05 * limit, "ramp and tail included"
    assert found.answer is not None, "it ends with the best that it has"
    assert found.answer.low is not None
    assert found.answer.low <= 20


@pytest.mark.parametrize("kind", ["concurrency", "rate"])
def test_an_allowance_is_kept_within_a_level(kind: Any) -> None:
    """A plateau a hair over its limit, of which a level could go on for long."""
    for seconds in (10.0, 30.0):
        found = find(small(), "ttft p95 < 300ms", kind=kind, allowance=Allowance(seconds=seconds))
        assert found.spent.seconds <= 1.05 * seconds
        assert found.spent.requests > 10


def test_a_level_that_measured_nothing_is_told() -> None:
    def cut(load: Load, enough: Enough | None = None) -> LevelResult:
        result = small()(load, enough)
        return sum_up(load, result.trace, Window(0, 0), result.health)

    found = find(cut, BUDGET, allowance=Allowance(seconds=1.0))
    assert found.answer is None
    assert "the allowance ended before" in found.why
    assert found.probes[0].within is None


def test_what_comes_next_is_forecast() -> None:
    steps: list[Step] = []
    find(small(), BUDGET, observe=steps.append)
    costs = [after.spent.requests - before.spent.requests for before, after in itertools.pairwise(steps)]
    expected = [step.forecast.requests for step in steps[1:-1] if step.forecast]
    assert len(expected) == len(costs) - 1
    assert 0.2 < np.median(np.array(costs[1:]) / np.array(expected)) < 5


def test_the_story_is_told() -> None:
    steps: list[Step] = []
    found = find(small(), BUDGET, observe=steps.append)
    assert steps[0].probe is None
    assert [step.probe for step in steps[1:]] == found.probes
    assert steps[-1].next is None
    assert steps[-1].why == found.why
    assert all(step.why for step in steps)
    widths = [step.high - step.low for step in steps if step.high is not None and step.low is not None]
    assert widths[-1] < widths[0]
    assert all(probe.why for probe in found.probes)


# --- open loop


@pytest.mark.slow(shared=True)
@pytest.mark.parametrize(("arrivals", "burstiness"), [("poisson", 1.0), ("gamma", 2.0)])
def test_a_rate_is_found(arrivals: str, burstiness: float) -> None:
    budget = "ttft p95 < 120ms"
    found = find(small(), budget, kind="rate", precision=0.1, arrivals=arrivals, burstiness=burstiness)  # type: ignore[arg-type]
    assert found.load == "rate"
    assert found.answer is not None
    assert found.answer.value is not None
    assert isinstance(found.probes[-1].load, Rate)
    process = found.probes[-1].load
    assert score(at(process, 0.9 * found.answer.value), budget, requests=12_000) < 1
    assert score(at(process, 1.1 * found.answer.value), budget, requests=12_000) > 1


def at(process: Rate, value: float) -> Rate:
    return Rate(value, process.arrivals, process.burstiness)


@pytest.mark.slow(shared=True)
def test_the_speed_of_a_trace_is_found() -> None:
    """Uneven arrivals of unequal requests, 900 of them, four a second on average."""
    rng = np.random.default_rng(3)
    gaps = rng.gamma(0.5, 0.5, 900)
    rows = [
        Recorded(int(at * 1e9), int(64 * n), 16, (), 0)
        for at, n in zip(np.cumsum(gaps), rng.lognormal(0, 0.6, 900), strict=True)
    ]
    rows = [row._replace(input_tokens=max(1, row.input_tokens), at_ns=row.at_ns - rows[0].at_ns) for row in rows]

    def p95_ms(speed: float) -> float:
        return float(np.quantile(ttft_ms(simulate(Rate(1.0, "trace", speed=speed), SMALL, recorded=rows)), 0.95))

    found = find(virtual_measure(SMALL, recorded=rows), "ttft p95 < 300ms", kind="speed", precision=0.1)
    assert found.load == "speed"
    assert found.answer is not None
    assert found.answer.value is not None
    assert p95_ms(0.85 * found.answer.value) < 300 < p95_ms(1.15 * found.answer.value)
    assert all(isinstance(x.load, Rate) and x.load.arrivals == "trace" and x.load.speed for x in found.probes)


@pytest.mark.slow(shared=True)
def test_rates_have_three_digits() -> None:
    found = find(small(), "ttft p95 < 120ms", kind="rate", precision=0.2)
    assert found.answer is not None
    values = [float(probe.load.value) for probe in found.probes]
    ends = [x for x in (found.answer.low, found.answer.value, found.answer.high) if x is not None]
    assert [float(f"{x:.3g}") for x in values + ends] == values + ends


@pytest.mark.slow(shared=True)
def test_burstier_arrivals_leave_less() -> None:
    smooth = find(small(), "ttft p95 < 120ms", kind="rate", precision=0.1)
    bursty = find(small(), "ttft p95 < 120ms", kind="rate", arrivals="gamma", burstiness=3.0, precision=0.1)
    assert smooth.answer is not None
    assert bursty.answer is not None
    assert (bursty.answer.value or 0) < (smooth.answer.value or 0)


def test_a_budget_that_makes_no_sense() -> None:
    with pytest.raises(BadInput, match="at character 1"):
        find(small(), "speed p95 < 1s")


# --- over real sockets


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_over_real_sockets_it_finds_what_virtual_time_has(tmp_path: Path) -> None:
    """One of three searches, for a shared machine adds delays that the endpoint does not have."""
    truth = 26  # of the long simulations of benchmarks/find_sockets.py
    lengths: dict[str, Any] = {"input_tokens": 256, "output_tokens": 64}
    budget = "ttft p95 < 200ms, tpot p95 < 12.5ms"
    assert score(Concurrency(truth), budget, named("demo"), lengths=lengths) < 1
    assert score(Concurrency(truth + 1), budget, named("demo"), lengths=lengths) >= 1
    answers = []
    for seed in range(3):
        run = pacemark.find("sim:demo", budget=budget, seed=seed, out=tmp_path, **lengths)
        found = msgspec.convert(run.summary.find, Find)
        assert found.binds == "tpot p95"
        assert found.spent.seconds < 240
        answers.append(found.answer and found.answer.value)
        if answers[-1] and abs(answers[-1] - truth) <= 0.07 * truth:
            return
    pytest.fail(f"found {answers}, where {truth} is right")


@pytest.mark.slow
@pytest.mark.xdist_group("llama")
def test_a_real_engine_gives_an_answer_or_a_reason(llama: str, tmp_path: Path) -> None:
    """llama.cpp with four slots: it ends by itself, in under 3 minutes, and says why."""
    began = time.monotonic()
    run = pacemark.find(
        llama,
        budget="ttft p95 < 400ms",
        input_tokens=48,
        output_tokens=24,
        seed=1,
        most=64,
        allowance=Allowance(seconds=120),
        out=tmp_path,
    )
    found = msgspec.convert(run.summary.find, Find)
    assert time.monotonic() - began < 180
    assert found.why
    assert found.answer is not None or "not even one" in found.why
    assert all(probe.why for probe in found.probes)
    assert found.spent.seconds <= 180


def cutting(most: int) -> Callable[[Load, Trace], Trace]:
    """An endpoint that ends half of its answers early once it has more than `most` requests."""

    def spoil(load: Load, trace: Trace) -> Trace:
        cut = (np.arange(len(trace)) % 2 == 1) & (load.value > most)
        return dataclasses.replace(trace, asked_tokens=np.where(cut, 64, trace.asked_tokens))

    return spoil


def test_a_load_that_cuts_answers_short_does_not_meet_the_budget() -> None:
    found = find(spoiled(small(), cutting(6)), BUDGET)
    assert found.answer is not None
    assert found.answer.value is not None
    assert 5 <= found.answer.value <= 7
    assert found.binds == "answers cut short"
    assert any("cut_short" in probe.why for probe in found.probes)


def test_answers_that_end_where_the_model_does_are_no_failures() -> None:
    assert_right(find(spoiled(small(), cutting(0)), BUDGET))


@pytest.mark.parametrize("budget", ["ttft p95 < 50ms", "95% of requests: ttft < 50ms"])
def test_what_the_endpoint_never_gives_is_no_budget_met(budget: str) -> None:
    def whole(_: Load, trace: Trace) -> Trace:
        return dataclasses.replace(trace, first_event_ns=np.full(len(trace), -1, dtype=np.int64))

    with pytest.raises(RunFailed, match="no answer at concurrency 1 has what the budget limits"):
        find(spoiled(small(), whole), budget)


def test_no_load_beyond_the_largest_is_tried() -> None:
    for kind, most in (("rate", 0.5), ("concurrency", 2.7)):
        found = find(small(), "ttft p95 < 5s", kind=kind, most=most)  # type: ignore[arg-type]
        assert max(probe.load.value for probe in found.probes) <= most
    with pytest.raises(BadInput, match=r"--most 0\.5"):
        find(small(), "ttft p95 < 5s", most=0.5)


@pytest.mark.slow(shared=True)
def test_a_rate_below_one_a_second_is_found() -> None:
    engine = EngineSpec(base_ms=300, per_decode_ms=100, per_prefill_token_ms=0.02, max_batch=4, token_budget=512)
    slow = Preset(name="slow", summary="", model="slow", timeline=engine)
    found = find(virtual_measure(slow, **LENGTHS, duration_s=10, seed=1), "latency p95 < 15s", kind="rate")
    assert found.answer is not None
    assert found.answer.value is not None
    assert score(Rate(found.answer.value / 2, "poisson", 1.0), "latency p95 < 15s", slow) < 1


def test_a_rate_is_given_up_where_requests_do_not_meet() -> None:
    found = find(small(), "ttft p95 < 10ms", kind="rate")
    assert (found.answer, found.resolved) == (None, True)
    assert "not even 0.25 requests/s" in found.why
