"""Targets measured in turn: the order of turns, the test over rounds, and who wins."""

from __future__ import annotations

import math
from collections.abc import Callable

import msgspec
import numpy as np
import pytest

from pacemark.answers.comparison import SAME
from pacemark.answers.gate import gated_contest, refuse_condition
from pacemark.answers.versus import COST, Contest, Entrant, Slice, contest, orders, slices, wins
from pacemark.errors import BadInput
from pacemark.figures.level import Enough, LevelResult, Measure
from pacemark.pace import Concurrency, Load, Rate
from pacemark.runs.simulated import virtual_measure
from pacemark.simulator import EngineSpec, customised, named
from pacemark.summary import Distribution, Figure, Level, Reason, Verdict
from support.samples import level

LOAD = Concurrency(8)
TWO = [Entrant(name=name, target=name.lower()) for name in "AB"]
THREE = [Entrant(name=name, target=name.lower()) for name in "ABC"]


def took(factor: float) -> Level:
    """A level of which everything takes `factor` times as long."""
    base = level(LOAD, tokens_per_s=None, ttft_ms=None, tpot_ms=None, latency_ms=None)

    def spread(ms: float) -> Distribution:
        return Distribution(p50=Figure(ms * factor), p95=Figure(1.5 * ms * factor))

    return msgspec.structs.replace(
        base,
        output_tokens_per_s=Figure(400 / factor),
        ttft_ms=spread(100),
        tpot_ms=spread(20),
        latency_ms=spread(2000),
    )


def played(
    factors: list[float],
    rounds: int = 10,
    *,
    noise: float = 0.02,
    drift: Callable[[float], float] = lambda t: 1.0,
    seed: int = 0,
) -> list[Slice]:
    """Rounds of targets that take `factors` times as long, with noise, and all of them with what drifts meanwhile."""
    rng = np.random.default_rng(seed)
    taken: list[Slice] = []
    for number, order in enumerate(orders(len(factors), rounds, seed)):
        for place, target in enumerate(order):
            slow = factors[target] * drift(len(taken) / (rounds * len(factors) - 1))
            taken.append(Slice(number, place, target, took(slow * math.exp(rng.normal(0, noise)))))
    return taken


# --- whose turn it is


@pytest.mark.parametrize(("targets", "rounds"), [(2, 4), (2, 9), (3, 8), (4, 10)])
def test_every_target_has_its_turn_in_every_round_and_the_next_round_turns_the_order_round(
    targets: int, rounds: int
) -> None:
    turns = orders(targets, rounds, seed=5)
    assert len(turns) == rounds
    assert all(sorted(order) == list(range(targets)) for order in turns)
    assert all(b == a[::-1] for a, b in zip(turns[::2], turns[1::2], strict=False))
    assert turns == orders(targets, rounds, seed=5)
    assert any(orders(targets, rounds, seed) != turns for seed in range(5))


def test_a_round_puts_every_target_under_every_load_in_its_order() -> None:
    asked: list[tuple[int, Load]] = []

    def of(target: int) -> Measure:
        def measure(load: Load, enough: Enough | None = None) -> LevelResult:
            asked.append((target, load))
            return virtual_measure("demo", duration_s=0.5, output_tokens=4)(load)

        return measure

    loads = [Concurrency(1), Concurrency(2)]
    taken = list(slices([of(0), of(1)], loads, [(1, 0), (0, 1)]))
    assert asked == [(t, load) for order in ((1, 0), (0, 1)) for load in loads for t in order]
    assert [(x.round, x.place, x.target) for x in taken[:2]] == [(0, 0, 1), (0, 1, 0)]


# --- the test


@pytest.mark.parametrize("drift", [lambda t: 1.0, lambda t: 1 + 0.3 * t], ids=["steady", "drift"])
def test_the_same_endpoint_twice_shows_a_difference_in_at_most_one_contest_of_twenty(
    drift: Callable[[float], float],
) -> None:
    found = [contest(played([1.0, 1.0], drift=drift, seed=n), TWO) for n in range(400)]
    wrong = sum(any(x.verdict != SAME for x in one.loads[0].pairs[0].metrics.values()) for one in found)
    assert wrong <= 0.06 * 400
    assert sum(one.winner is not None for one in found) <= wrong


@pytest.mark.parametrize("drift", [lambda t: 1.0, lambda t: 1 + 0.3 * t], ids=["steady", "drift"])
def test_five_percent_is_found_whatever_drifts_for_both(drift: Callable[[float], float]) -> None:
    found = [contest(played([1.0, 1.05], drift=drift, seed=n), TWO) for n in range(100)]
    assert sum(one.winner == "A" for one in found) >= 95
    ratios = [one.loads[0].pairs[0].metrics["latency_ms.p50"].ratio for one in found]
    assert sum(r.low is not None and r.high is not None and r.low < 1.05 < r.high for r in ratios) >= 95


def test_a_drift_within_the_rounds_is_no_part_of_the_difference() -> None:
    steep = played([1.0, 1.0], rounds=4, noise=0.001, drift=lambda t: math.exp(t))
    for found in contest(steep, TWO).loads[0].pairs[0].metrics.values():
        assert found.ratio.value == pytest.approx(1.0, abs=0.01)
        assert found.ratio.low is not None and found.ratio.low > 0.95  # noqa: PT018
        assert found.rounds == 4


def test_a_verdict_and_an_interval_say_the_same() -> None:
    for seed in range(60):
        found = contest(played([1.0, 1.02, 1.03], seed=seed), THREE)
        for one in (x for pair in found.loads[0].pairs for x in pair.metrics.values()):
            low, high = one.ratio.low, one.ratio.high
            assert low is not None
            assert high is not None
            assert (one.verdict != SAME) == (not low <= 1 <= high)
            assert (one.p_adjusted < 0.05) == (one.verdict != SAME)
            assert one.p <= one.p_adjusted


def test_what_the_clients_may_have_got_wrong_is_no_difference() -> None:
    def with_bound(bound_ms: float) -> Contest:
        taken = played([1.0, 1.05], noise=0.001)
        client = msgspec.structs.replace(taken[0].level.client, bound_ms=bound_ms)
        return contest([x._replace(level=msgspec.structs.replace(x.level, client=client)) for x in taken], TWO)

    sharp, blurred = (with_bound(ms).loads[0].pairs[0].metrics for ms in (0.1, 6.0))
    assert sharp["ttft_ms.p50"].verdict == "slower"
    assert blurred["ttft_ms.p50"].verdict == SAME
    assert blurred["output_tokens_per_s"].verdict == "lower"


def test_fewer_than_four_sound_rounds_are_undecidable() -> None:
    taken = played([1.0, 1.5], rounds=5)
    bad = Verdict("invalid", [Reason("errors", "more than one request in ten failed")])
    spoiled = [
        x._replace(level=msgspec.structs.replace(x.level, verdict=bad)) if x.target == 1 and x.round < 2 else x
        for x in taken
    ]
    found = contest(spoiled, TWO)
    assert found.loads[0].pairs[0].metrics == {}
    assert found.winner is None
    assert found.left_out == [f"round {n} of B at concurrency 8: invalid (errors)" for n in (1, 2)]


# --- who wins


def test_the_winner_of_three_is_better_than_both() -> None:
    found = contest(played([1.1, 1.0, 1.2], noise=0.005), THREE)
    assert found.winner == "B"
    assert wins(found.loads[0].pairs, "B", "C")[1] == []
    alike = contest(played([1.0, 1.0, 1.2], noise=0.005, seed=1), THREE)
    assert alike.winner is None


def test_better_in_one_thing_and_worse_in_another_is_no_winner() -> None:
    taken = [
        x._replace(level=msgspec.structs.replace(x.level, output_tokens_per_s=Figure(400 * (1.2 if x.target else 1.0))))
        for x in played([1.0, 1.1], noise=0.005)
    ]
    found = contest(taken, TWO)
    better, worse = wins(found.loads[0].pairs, "B", "A")
    assert better == ["output_tokens_per_s"]
    assert "ttft_ms.p50" in worse
    assert found.winner is None


def test_prices_tell_what_a_million_tokens_cost() -> None:
    priced = [msgspec.structs.replace(x, price_per_hour=p) for x, p in zip(TWO, (4.0, 3.0), strict=True)]
    found = contest(played([1.0, 1.2], noise=0.005), priced)
    a, b = found.loads[0].targets
    assert a.cost_per_million_tokens == pytest.approx(4 / (a.figures["output_tokens_per_s"] * 3600) * 1e6)
    cost = found.loads[0].pairs[0].metrics[COST]
    assert cost.ratio.value == pytest.approx(3 / 4 * 1.2, rel=0.02)
    assert cost.verdict == "cheaper"
    assert b.cost_per_million_tokens is not None
    assert found.cheapest == "B"
    assert found.winner == "A"
    even = [msgspec.structs.replace(x, price_per_hour=p) for x, p in zip(TWO, (3.6, 3.0), strict=True)]
    assert contest(played([1.0, 1.2]), even).cheapest is None


# --- through the whole measuring step


def hour(slower: float, drift: float, seed: int) -> Contest:
    """Two endpoints in virtual time, in 8 rounds of about 60 requests each; both get slower by `drift` meanwhile."""
    taken = 0

    def of(factor: float) -> Measure:
        def measure(load: Load, enough: Enough | None = None) -> LevelResult:
            nonlocal taken
            slow = factor * (1 + drift * taken / 15)
            taken += 1
            preset = named("demo")
            assert isinstance(preset.timeline, EngineSpec)
            costs = ("base_ms", "per_decode_ms", "per_prefill_token_ms", "per_kv_token_ms")
            changed = customised(preset, {cost: getattr(preset.timeline, cost) * slow for cost in costs})
            lengths = {"input_tokens": (256.0, 0.5), "output_tokens": (64.0, 0.66)}
            return virtual_measure(changed, **lengths, duration_s=5.0, seed=100 * seed + taken)(load)  # type: ignore[arg-type]

        return measure

    return contest(list(slices([of(1.0), of(slower)], [LOAD], orders(2, 8, seed))), TWO)


@pytest.mark.slow(shared=True)
def test_in_virtual_time_the_slower_one_is_named_though_both_drift() -> None:
    assert [hour(1.05, 0.3, seed).winner for seed in (1, 2)] == ["A", "A"]
    assert hour(1.0, 0.3, 3).winner is None


# --- a gate


def test_a_condition_is_judged_for_every_other_target_against_the_first() -> None:
    found = gated_contest(contest(played([1.0, 1.2, 1.0]), THREE), ["latency p95 > +5%", "throughput < -40%"])
    slow, light = found.conditions
    assert (slow.status, light.status) == ("failed", "passed")
    assert [x.status for x in slow.levels] == ["failed", "passed"], "B against A, C against A, and not C against B"
    assert slow.why.startswith("B at concurrency 8: +")
    assert gated_contest(contest(played([1.2, 1.0]), TWO), ["latency p95 > +5%"]).conditions[0].status == "passed"


def test_a_condition_that_the_rounds_cannot_decide() -> None:
    noisy = contest(played([1.0, 1.05], 4, noise=0.2), TWO)
    (outcome,) = gated_contest(noisy, ["ttft p50 > +5%"]).conditions
    assert outcome.status == "undecided"
    assert outcome.why.endswith("more --rounds")
    (few,) = gated_contest(contest(played([1.0, 2.0], 3), TWO), ["ttft p50 > +5%"]).conditions
    assert few.status == "undecided"


@pytest.mark.parametrize(
    ("text", "load"),
    [("itl p95 > +5%", LOAD), ("ttft p99 > +5%", LOAD), ("throughput < -5%", Rate(5.0)), ("faster", LOAD)],
)
def test_what_is_not_compared_is_refused(text: str, load: Load) -> None:
    with pytest.raises(BadInput, match="--fail-if"):
        refuse_condition(text, [load])
    refuse_condition("ttft p95 > +5%", [load])


def test_who_could_not_serve_a_load_does_not_win() -> None:
    def at(load: Load, *bad: int) -> list[Slice]:
        taken = [x._replace(level=msgspec.structs.replace(x.level, load=load)) for x in played([1.2, 1.0])]
        failed = Verdict("invalid", [Reason("errors", "30% of the requests failed")])
        return [
            x._replace(level=msgspec.structs.replace(x.level, verdict=failed)) if x.target in bad else x for x in taken
        ]

    assert contest(at(LOAD) + at(Concurrency(16)), TWO).winner == "B"
    assert contest(at(LOAD) + at(Concurrency(16), 0), TWO).winner == "B"
    assert contest(at(LOAD) + at(Concurrency(16), 1), TWO).winner is None
    assert contest(at(LOAD) + at(Concurrency(16), 0, 1), TWO).winner == "B"
