"""Clocks of several machines: what round trips tell of them, and that times moved change no figure."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any, cast

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pacemark.figures.health import Health
from pacemark.figures.level import sum_up
from pacemark.instrument.clocks import (
    BEAT_TIMES,
    DRIFT_PPM,
    EXCHANGE_TIMES,
    NodeClock,
    Round,
    batch_here,
    command_there,
)
from pacemark.instrument.commands import Batch, Begin, Hush
from pacemark.pace import Concurrency, Load, Rate
from pacemark.simulator import simulate
from pacemark.summary import LATENCIES, Level
from pacemark.trace import ABSENT, Beat, Exchange, Trace, Window
from support.servers import exchange

HOUR_NS = 3_600_000_000_000
SECOND_NS = 1_000_000_000
SPANS = {"send_ns", "connect_ns", "lag_ns", "cpu_ns", "wait_ns", "stall_ns", "throttled_ns", "gap_ns"}
BEAT = Beat(0, 500, 1, 0, ABSENT, 0, 0, 0, 0, 0.5, 0, 0, True)


def clock(offset_ns: int, ppm: float) -> Callable[[int], int]:
    """The clock of a machine: its time at a time of ours."""
    return lambda ours_ns: ours_ns + offset_ns + round(ours_ns * ppm / 1e6)


def round_trip(theirs: Callable[[int], int], at_ns: int, there_ns: int, spent_ns: int, back_ns: int) -> Round:
    """A question asked at `at_ns` that is on its way, answered, and on its way back for so long."""
    got, said = at_ns + there_ns, at_ns + there_ns + spent_ns
    return Round(at_ns, theirs(got), theirs(said), said + back_ns)


ways = st.integers(0, 50_000_000)


@given(
    st.integers(-HOUR_NS, HOUR_NS),
    st.floats(-50, 50),
    st.lists(st.tuples(ways, ways, ways), min_size=1, max_size=30),
    st.integers(0, 600 * SECOND_NS),
)
def test_the_offset_is_never_further_off_than_its_bound(
    offset_ns: int, ppm: float, delays: list[tuple[int, int, int]], later_ns: int
) -> None:
    """However unequal the ways there and back, and however long ago the last of them."""
    theirs, known, at_ns = clock(offset_ns, ppm), NodeClock(), HOUR_NS
    for delay in delays:
        known.hear(round_trip(theirs, at_ns, *delay))
        at_ns += SECOND_NS
    now_ns = at_ns + later_ns
    found = known.begin(0, now_ns)
    assert abs(found.offset_ns - (theirs(now_ns) - now_ns)) <= found.bound_ns + 2
    assert known.of(0) == found


def test_the_shortest_round_trip_counts_until_it_is_old() -> None:
    theirs, known = clock(-7 * HOUR_NS, 0.0), NodeClock()
    known.hear(round_trip(theirs, 0, 100_000, 0, 100_000))
    known.hear(round_trip(theirs, SECOND_NS, 900_000, 0, 100_000))
    assert known.at(2 * SECOND_NS).at_ns == 100_000
    assert known.at(2 * SECOND_NS).bound_ns < 400_000
    for n in range(60):
        known.hear(round_trip(theirs, n * SECOND_NS, 600_000, 0, 600_000))
    assert known.at(60 * SECOND_NS).at_ns > 50 * SECOND_NS


def test_a_clock_that_jumps_is_noticed_and_learnt_anew() -> None:
    """Nothing that keeps within what two clocks may drift apart is a jump."""
    known, at_ns = NodeClock(), HOUR_NS
    for ppm in (0.0, 90.0):
        theirs = clock(HOUR_NS, ppm)
        known = NodeClock()
        for n in range(300):
            known.hear(round_trip(theirs, at_ns + n * SECOND_NS, 200_000 + n % 9 * 400_000, 0, 300_000))
        assert known.jumped_ns == 0
    known.begin(1, at_ns + 300 * SECOND_NS)
    paused = clock(HOUR_NS - 40_000_000, 90.0)
    known.hear(round_trip(paused, at_ns + 301 * SECOND_NS, 300_000, 0, 300_000))
    assert known.jumped_ns == pytest.approx(40_000_000, abs=2_000_000)
    now_ns = at_ns + 302 * SECOND_NS
    found = known.begin(2, now_ns)
    assert abs(found.offset_ns - (paused(now_ns) - now_ns)) <= found.bound_ns + 2
    assert known.jumped_ns == 0


def test_drift_is_told_once_it_can_be() -> None:
    theirs, known = clock(HOUR_NS, 50.0), NodeClock()
    known.hear(round_trip(theirs, 0, 200_000, 0, 200_000))
    known.begin(0, 0)
    assert known.drift_ppm(SECOND_NS) is None
    for n in range(1, 600):
        known.hear(round_trip(theirs, n * SECOND_NS, 200_000 + n % 7 * 10_000, 0, 200_000))
    found = known.drift_ppm(600 * SECOND_NS)
    assert found is not None
    assert abs(found[0] - 50.0) <= found[1] < 2.0
    assert DRIFT_PPM == 100.0


def test_every_time_is_moved_and_no_span() -> None:
    """A field that is added to an exchange or a beat has to be one or the other."""
    for kind, points in ((Exchange, EXCHANGE_TIMES), (Beat, BEAT_TIMES)):
        named = {f.name for f in msgspec.structs.fields(kind) if f.name.endswith("_ns")}
        assert named == set(points) | (named & SPANS) | (named & {"hi_ns", "lo_ns"})
    before = exchange(10.0, [20.0, 30.0])
    moved = batch_here(Batch([before], BEAT, [(1, 2, b"asked", b"answered")]), {before.level: 1_000, 1: 7})
    assert moved.bodies == [(1, 2, b"asked", b"answered")]
    (after,) = moved.exchanges
    assert {getattr(after, n) - getattr(before, n) for n in EXCHANGE_TIMES if getattr(before, n) != ABSENT} == {-1_000}
    assert all(getattr(after, n) == ABSENT for n in EXCHANGE_TIMES if getattr(before, n) == ABSENT)
    assert np.array_equal(after.hi_ns, before.hi_ns - 1_000)
    assert np.array_equal(after.lo_ns, before.lo_ns - 1_000)
    assert (after.send_ns, after.connect_ns) == (before.send_ns, before.connect_ns)
    assert (moved.beat.now_ns, moved.beat.oldest_ns, moved.beat.cpu_ns) == (493, ABSENT, 0)


def test_a_command_is_told_in_the_time_of_the_machine() -> None:
    begun = Begin(1, Concurrency(2), 1_000, 5)
    assert command_there(begun, -300) == Begin(1, Concurrency(2), 700, 5)
    assert command_there(Hush(), -300) == Hush()


def spread_out(trace: Trace, nodes: list[Callable[[int], int]], start_ns: int) -> Trace:
    """A trace as it comes back of several machines: stamped by their clocks, and moved by what round trips told."""
    rng = np.random.default_rng(1)
    parts = []
    for number, theirs in enumerate(nodes):
        known = NodeClock()
        for _ in range(20):
            there, spent, back = (int(x) for x in rng.integers(100_000, 1_500_000, 3))
            known.hear(round_trip(theirs, start_ns, there, spent, back))
        offset_ns = known.begin(0, start_ns).offset_ns

        def moved(times: np.ndarray, theirs: Callable[[int], int] = theirs, by: int = offset_ns) -> np.ndarray:
            return np.asarray([theirs(int(t)) - by if t != ABSENT else t for t in times], np.int64)

        part = trace.taken(np.flatnonzero(np.arange(len(trace)) % len(nodes) == number))
        times = {n: moved(getattr(part, n)) for n in ("hi_ns", "lo_ns", *EXCHANGE_TIMES) if hasattr(part, n)}
        parts.append(replace(part, **cast("Any", times)))
    return Trace.joined(parts).in_order()


@pytest.mark.parametrize("load", [Concurrency(64), Rate(20.0)], ids=str)
def test_clocks_an_hour_apart_that_drift_change_no_figure(load: Load) -> None:
    """Two machines, one an hour ahead and 50 ppm fast, one an hour behind and 50 ppm slow, against one machine: each
    latency is the same to 50 ppm, and each rate to what the bound lets through at the edges of the window."""
    trace = simulate(load, "demo", input_tokens=256, output_tokens=64, duration_s=30.0)
    window = Window(5 * SECOND_NS, 30 * SECOND_NS)
    apart = spread_out(trace, [clock(HOUR_NS, 50.0), clock(-HOUR_NS, -50.0)], window.start_ns)
    one, two = (sum_up(load, t, window, Health()).level for t in (trace, apart))
    for name in LATENCIES:
        for statistic in ("mean", "p50", "p95"):
            a, b = (getattr(getattr(x, name), statistic).value for x in (one, two))
            assert b == pytest.approx(a, rel=2e-3), (name, statistic)
    for name in ("output_tokens_per_s", "requests_per_s"):
        a, b = (getattr(x, name).value for x in (one, two))
        assert b == pytest.approx(a, rel=5e-3), name
    assert verdict(one) == verdict(two)


def verdict(level: Level) -> tuple[str, list[str]]:
    return level.verdict.status, [reason.code for reason in level.verdict.reasons]
