"""A fleet of equal replicas as one queue: how many carry a rate of requests, and how sure that is.

docs/search.md has the formulas, their sources, and how far the estimate was from simulated fleets.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from pacemark.answers.boundary import Reading
from pacemark.answers.weighing import conditions, weighed
from pacemark.budget import Budget
from pacemark.errors import BadInput
from pacemark.figures import metrics
from pacemark.figures.conditions import Condition
from pacemark.figures.level import LevelResult
from pacemark.summary import Level

__all__ = ["Needed", "Replicas", "combined", "fleet_for", "replicas_like"]

Floats = NDArray[np.float64]

MOST_REPLICAS = 10_000


@dataclass(frozen=True, slots=True)
class MeasuredOne:
    """One replica as measured: what it does with n streams."""

    streams: Floats
    """(levels,) from 0."""
    rates: Floats
    """(levels,) requests/s; never falling, and level beyond the last."""
    misses: Floats
    """(conditions, levels) each condition's share of misses, or its mean; over what the budget allows of it."""
    evenness: float
    """E[min(S, S')] / E[S] of the request times S: 1 where all are equal, 0.5 where they are exponential."""
    within_budget: float
    """Requests per second at the within-budget point."""

    def rate(self, n: Floats) -> Floats:
        """Requests per second with `n` streams."""
        return np.asarray(np.interp(n, self.streams, self.rates), dtype=np.float64)

    def missing(self, n: Floats) -> Floats:
        """(conditions, n); beyond the last level the last slope goes on, for a queue only grows."""
        last = self.streams[-1]
        inside = np.array([np.interp(n, self.streams, row) for row in self.misses])
        slope = np.maximum(0.0, (self.misses[:, -1] - self.misses[:, -2]) / (last - self.streams[-2]))
        return np.asarray(inside + slope[:, None] * np.maximum(0.0, n - last), dtype=np.float64)


class Replicas(NamedTuple):
    """A replica, and how else it may be: `slow` and `fast` by the intervals of its rates, `bad` and `good` by those of
    what the budget limits."""

    measured: MeasuredOne
    slow: MeasuredOne
    fast: MeasuredOne
    bad: MeasuredOne
    good: MeasuredOne


class Needed(NamedTuple):
    """How many replicas, with a 95% interval."""

    replicas: int
    missing: float
    """The budget's worst statistic as a share of its limit; not a number where rates were measured."""
    low: int
    high: int | None
    """None where the run was too short to give one."""


def replicas_like(results: Sequence[LevelResult], levels: Sequence[Level], at: Level, budget: Budget) -> Replicas:
    """One replica from its `levels`, each the `results` of one load together; `at` is the within-budget point."""
    even = _evenness([r for r in results if r.load == at.load])
    streams = np.array([0.0, *(float(level.load.value) for level in levels)])

    def like(rates: Sequence[float], misses: Floats, one: float | None) -> MeasuredOne:
        rising = np.maximum.accumulate([0.0, *rates])
        return MeasuredOne(streams, rising, np.maximum.accumulate(misses, axis=1), even, one or 0.0)

    each, few, many = _misses(results, levels, budget)
    rates = [level.requests_per_s for level in levels]
    middle = [x.value or 0.0 for x in rates]
    low, high = ([(getattr(x, end) or x.value or 0.0) for x in rates] for end in ("low", "high"))
    one = at.requests_per_s
    return Replicas(
        measured=like(middle, each, one.value),
        slow=like(low, each, one.low),
        fast=like(high, each, one.high or one.value),
        bad=like(middle, many, one.value),
        good=like(middle, few, one.value),
    )


def _misses(results: Sequence[LevelResult], levels: Sequence[Level], budget: Budget) -> tuple[Floats, Floats, Floats]:
    """(conditions, levels) as in `MeasuredOne`, from no streams on: as measured, and with the statistic that the budget
    limits at either end of its interval. A latency grows with the load, so what the ends of other levels rule out is
    ruled out here too."""
    readings = weighed(results, budget)
    columns: list[list[list[float]]] = [[], [], []]
    for level in levels:
        found = conditions([r for r in results if r.load == level.load], budget)
        ends = _ends(readings.get(level.load), found)
        for n, column in enumerate(columns):
            column.append([
                (float(np.minimum(c.scores, 1e6).mean()) if len(c.scores) else 1e6) * by[n]
                if c.quantile is None
                else float((c.scores * by[n] >= 1).mean()) / (1 - c.quantile)
                for c, by in zip(found, ends, strict=True)
            ])  # fmt: skip
    each, few, many = (np.array([column[0], *column]).T for column in columns)
    many = np.minimum.accumulate(many[:, ::-1], axis=1)[:, ::-1]
    return each, np.maximum.accumulate(few, axis=1), np.maximum(many, each)


def _ends(reading: Reading | None, found: Sequence[Condition]) -> list[tuple[float, float, float]]:
    """For each condition 1, and its statistic at either end of its interval as a share of the statistic itself."""
    if reading is None:
        return [(1.0, 1.0, 1.0)] * len(found)
    shares = reading.draws / np.maximum(reading.values, 1e-12)[:, None]
    low, high = np.clip(np.quantile(shares, (0.025, 0.975), axis=1), 0.1, 10.0)
    return [(1.0, float(min(a, 1.0)), float(max(b, 1.0))) for a, b in zip(low, high, strict=True)]


def fleet_for(like: Replicas, rate: float, burstiness: float, rates: tuple[float, float]) -> Needed:
    """The fewest replicas that serve `rate` requests/s within the budget; `rates` are the ends of its interval."""
    count, missing = _fewest(like.measured, rate, burstiness)
    middle = _needed(like.measured, rate, burstiness)
    fewer = [_needed(like.fast, rate, burstiness), _needed(like.good, rate, burstiness)]
    more = [_needed(like.slow, rate, burstiness), _needed(like.bad, rate, burstiness)]
    low, high = combined(
        middle,
        [*fewer, _needed(like.measured, rates[0], burstiness)],
        [*more, _needed(like.measured, rates[1], burstiness)],
    )
    return Needed(count, missing, min(low, count), None if high is None else max(high, count))


def combined(middle: float, fewer: Sequence[float], more: Sequence[float]) -> tuple[int, int | None]:
    """The interval of a number of replicas from what each error alone makes of it (MOVER: Zou and Donner 2008,
    Statistics in Medicine 27); no upper end where one alone makes it infinite."""
    low = middle - math.hypot(*(middle - min(x, middle) for x in fewer))
    high = middle + math.hypot(*(max(x, middle) - middle for x in more))
    return max(1, _whole(low)), None if math.isinf(high) else _whole(high)


def _whole(count: float) -> int:
    return math.ceil(count - 1e-3)


def _evenness(results: Sequence[LevelResult]) -> float:
    """E[min(S, S')] / E[S] of the requests' latencies, from their order statistics."""
    times = np.sort(np.concatenate([metrics.latency_ms(r.trace) for r in results]))
    times = times[np.isfinite(times)]
    n = len(times)
    if n < 2:
        return 1.0
    weights = 2 * (n - 1 - np.arange(n)) / (n * (n - 1))
    return float(weights @ times / times.mean())


def _fewest(replica: MeasuredOne, rate: float, burstiness: float) -> tuple[int, float]:
    """The fewest replicas within the budget, and its worst statistic as a share of its limit."""
    count = max(1, math.ceil(rate / replica.within_budget - 1e-9))
    step = 1
    low = count - 1
    while (missing := expected_misses(replica, rate, count, burstiness)) >= 1:
        low, count, step = count, count + step, 2 * step
        if count > MOST_REPLICAS:
            raise BadInput(f"more than {MOST_REPLICAS:,} replicas would be needed; the demand and the run do not match")
    while count - low > 1:
        middle = (low + count) // 2
        here = expected_misses(replica, rate, middle, burstiness)
        low, count, missing = (middle, count, missing) if here >= 1 else (low, middle, here)
    return count, missing


def _needed(replica: MeasuredOne, rate: float, burstiness: float) -> float:
    """The same as a number that need not be whole; infinite where the budget is missed without any load,
    or no rate is sure."""
    if replica.within_budget <= 0 or (replica.misses[:, 0] >= 1).any():
        return math.inf
    try:
        count, _ = _fewest(replica, rate, burstiness)
    except BadInput:
        return math.inf
    low, high = max(rate / replica.within_budget, count - 1.0), float(count)
    if count == 1 or low >= high:
        return high
    for _ in range(6):
        middle = (low + high) / 2
        within = expected_misses(replica, rate, middle, burstiness) < 1
        low, high = (low, middle) if within else (middle, high)
    return high


def expected_misses(replica: MeasuredOne, rate: float, replicas: float, burstiness: float) -> float:
    """The budget's worst statistic over all requests, as a share of what it allows; infinite for an unstable fleet.

    The fleet is one birth-death process: requests come at `rate`, and leave n streams, spread evenly, at
    replicas x X(n / replicas). A server that shares its steps among all it holds is a processor-sharing queue, whose
    occupancy under Poisson arrivals depends on the work of a request through its mean only (Cohen 1979, Acta
    Informatica 12; Kelly, Reversibility and Stochastic Networks, 1979, section 3.3), and arrivals see time averages
    (Wolff 1982). Burstier arrivals are taken z at a time, z being their peakedness 1 + (CV^2 - 1) E[min(S, S')] / E[S]
    (Whitt 1984, AT&T Bell Labs Tech. J. 63), after Hayward's approximation (Fredericks 1980, Bell Syst. Tech. J. 59).
    """
    if rate >= replicas * replica.rates[-1]:
        return math.inf
    peakedness = max(0.1, 1 + (burstiness**2 - 1) * replica.evenness)
    most = 4 * replicas * replica.streams[-1] + 40 * peakedness
    n = np.arange(1, math.ceil(most / peakedness) + 1) * peakedness
    steps = np.log(rate) - np.log(replicas * np.maximum(replica.rate(n / replicas), 1e-12))
    weights = np.concatenate([[0.0], np.cumsum(steps)])
    weights = np.exp(weights - weights.max())
    seen = weights / weights.sum()
    # A request that finds n others is one of n + 1.
    each = (np.concatenate([[0.0], n]) + 1) / replicas
    return float((replica.missing(each) @ seen).max())
