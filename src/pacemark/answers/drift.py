"""Whether an endpoint was steady while its levels were measured, and what its scatter does to what they say.

The same load visited at several times tells. By how much its visits at different occasions differ beyond their own
errors is the scatter: a random effect of the time, which every level shares that was measured then.
"""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray
from scipy import special

from pacemark.answers.boundary import DRAWS, Reading, Unrest
from pacemark.figures import longrun, metrics
from pacemark.figures.level import LevelResult
from pacemark.pace import Rate

__all__ = [
    "GLANCE", "GLANCE_S", "NEARLY", "OCCASION_S", "RATE_S", "REST_S", "RETURNS", "STEADY", "VisitScatter", "Visit",
    "contradiction", "scatter_of", "visits_of", "worth_another",
]  # fmt: skip

OCCASION_S = 20.0
"""Time is cut into occasions of this length."""
GLANCE = 3
"""Requests that show how fast the endpoint is, of a load at which they do not compete."""
GLANCE_S = 40.0
"""How often a search looks at how fast the endpoint is."""
RETURNS = 8
"""Visits at the most of an endpoint that was not steady, to see it at other times."""
REST_S = 30.0
"""Before each of them."""
RATE_S = 60.0
"""How long a visit of a rate takes: a queue must have the time to build up."""
NEARLY = 1.5
"""A budget that the lowest load misses by less than this could be met when the endpoint is as fast as it can be."""
_ALIKE = 3
"""So many occasions, a minute, share one effect: what changes over minutes is alike for them."""
_HEREAFTER = 2**32
"""Stands for the time that an answer is for."""
_LEAST_ERROR = 0.01
"""Of a visit's slowness: what a closed loop's phases alone make of it."""
_SLIGHT = 0.03
"""A scatter below this is within what an answer claims anyway."""
_CHANCE = 0.01
"""How often a steady endpoint may be called unsteady."""
_NEAR = 1.5
"""Loads within this ratio can contradict each other: a server may well be slower at 1 than at 2."""
_SURELY = 3.0
"""Standard errors by which a higher load must do better than a lower one to contradict it."""


@dataclass(frozen=True, slots=True)
class Visit:
    """One level at one time."""

    load: float
    begun_s: float
    slowness: float
    """Mean of the logarithms of its requests' TPOT (latency where an answer has one token): a difference of 0.1
    between two visits of one load says that the endpoint was 10% slower."""
    error: float
    """Its standard error."""
    requests: int


@dataclass(frozen=True, slots=True)
class VisitScatter:
    """By how much an endpoint's speed differs from occasion to occasion."""

    sd: float = 0.0
    """Standard deviation of the logarithm of its slowness; 0 where nothing speaks of any."""
    dof: int = 0
    occasions: Mapping[float, Mapping[int, int]] = field(default_factory=dict)
    """At which occasions each load was visited, and with how many requests."""
    contradicting: tuple[Reading, Reading] | None = None
    """Two levels that speak of it, where no load was visited twice."""

    def __bool__(self) -> bool:
        return self.sd > 0

    def unrest(self, load: float) -> Unrest | None:
        """What it does to what is known of `load`; None where the endpoint was steady.

        The minutes of its visits have their effects, and so has the time that the answer is for: the interval predicts
        what the endpoint can be at another time, as after a jump (Higgins, Thompson and Spiegelhalter, Journal of the
        Royal Statistical Society A 172, 2009).
        """
        seen: Counter[int] = Counter()
        for occasion, n in self.occasions.get(load, {}).items():
            seen[occasion // _ALIKE] += n
        if not self or not seen:
            return None
        shares = {times: n / seen.total() for times, n in seen.items()}
        shift = sum((share * _effects(times) for times, share in shares.items()), _effects(_HEREAFTER))
        unsure = np.sqrt(self.dof / special.chdtri(self.dof, _chances()))  # the scatter itself is known with its dof
        left = math.sqrt(sum(share**2 for share in shares.values()))
        return Unrest(np.exp(self.sd * unsure * shift), self.sd * left)

    def in_words(self, *, interval: bool = True) -> str:
        """What an answer says of it; with an `interval`, that it is in there."""
        what = f"visits of one load differ by {self.sd:.0%}"
        if self.contradicting is not None:
            lower, higher = (f"{reading.load:g}" for reading in self.contradicting)
            what = f"{higher} did better than {lower}"
        return f"the endpoint was not steady: {what}{'; the interval holds it' if interval else ''}"


STEADY = VisitScatter()


def _effects(times: int) -> NDArray[np.float64]:
    """(DRAWS,) standard effects of some occasions, the same for every load that was visited then."""
    return np.random.default_rng([17, times]).normal(size=DRAWS)


def _chances() -> NDArray[np.float64]:
    return (np.random.default_rng(19).permutation(DRAWS) + 0.5) / DRAWS


def visits_of(result: LevelResult) -> list[Visit]:
    """A level as a visit, or where it took long as several; none where no request of its window was answered, and of a
    trace, whose rows are never the same for long."""
    if isinstance(result.load, Rate) and result.load.speed:
        return []
    trace, window = result.trace, result.window
    sample = metrics.started_in(trace, window.start_ns, window.end_ns)
    values = metrics.tpot_ms(trace)[sample]
    if not np.isfinite(values).any():
        values = metrics.latency_ms(trace)[sample]
    known = np.isfinite(values) & (values > 0)
    sent_s, logs = trace.sent_ns[sample][known] / 1e9, np.log(values[known])
    parts = max(1, int(window.seconds / OCCASION_S))
    ends_s = window.start_ns / 1e9 + np.arange(1, parts) * window.seconds / parts
    visits = []
    for part in range(parts):
        here = np.searchsorted(ends_s, sent_s) == part
        if here.sum() > 1:
            slowness, error = float(logs[here].mean()), math.hypot(_LEAST_ERROR, _error(logs[here]))
            visits.append(Visit(float(result.load.value), float(sent_s[here].min()), slowness, error, int(here.sum())))
    return visits


def _error(logs: NDArray[np.float64]) -> float:
    """Standard error of the mean, widened by what so few leave unknown of it."""
    n = len(logs)
    variance = max(float(logs.var(ddof=1)), longrun.long_run(logs).variance)
    return math.sqrt(variance / n) * float(special.stdtrit(min(n - 1, 30), 0.975)) / 1.96


def scatter_of(visits: Sequence[Visit], readings: Iterable[Reading]) -> VisitScatter:
    """The scatter between occasions, from the loads that were visited at several; from `readings` that contradict each
    other where one of the two was not.

    By moments: DerSimonian and Laird, "Meta-analysis in clinical trials", Controlled Clinical Trials 7 (1986), with one
    scatter for the groups of visits of each load, as for subgroups (Borenstein and others, Introduction to
    Meta-Analysis, 2009, chapter 19).
    """
    units, occasions = _by_occasion(visits)
    q, dof, c = 0.0, 0, 0.0
    for group in units.values():
        values, errors = np.array([(v, e) for v, e in group.values()]).T
        weights = 1 / errors**2
        mean = np.average(values, weights=weights)
        q += float((weights * (values - mean) ** 2).sum())
        dof += len(values) - 1
        c += float(weights.sum() - (weights**2).sum() / weights.sum())
    if dof and special.chdtrc(dof, q) < _CHANCE and (sd := math.sqrt(max(0.0, q - dof) / c)) > _SLIGHT:
        return VisitScatter(sd, dof, occasions)
    pair = contradiction(readings)
    if pair and 1 in [len(occasions.get(reading.load, ())) for reading in pair]:
        lower, higher = (reading.values[pair[0].worst] for reading in pair)
        return VisitScatter(abs(math.log(lower / higher)) / math.sqrt(2), 1, occasions, pair)
    return VisitScatter(0.0, dof, occasions)


def _by_occasion(
    visits: Sequence[Visit],
) -> tuple[dict[float, dict[int, tuple[float, float]]], dict[float, dict[int, int]]]:
    """For each load and occasion: the slowness with its error, and the number of requests."""
    parts: dict[float, dict[int, list[Visit]]] = defaultdict(lambda: defaultdict(list))
    origin_s, before_s, occasion = 0.0, math.inf, -_ALIKE
    for visit in visits:
        if visit.begun_s < before_s:  # the first, or another day's clock, which may be behind
            occasion = occasion // _ALIKE * _ALIKE + _ALIKE
            origin_s = visit.begun_s - occasion * OCCASION_S
        occasion, before_s = int((visit.begun_s - origin_s) / OCCASION_S), visit.begun_s
        parts[visit.load][occasion].append(visit)
    units = {load: {o: _mean(same) for o, same in seen.items()} for load, seen in parts.items()}
    counts = {load: {o: sum(v.requests for v in same) for o, same in seen.items()} for load, seen in parts.items()}
    return units, counts


def _mean(visits: Sequence[Visit]) -> tuple[float, float]:
    weights = np.array([1 / v.error**2 for v in visits])
    return float(np.average([v.slowness for v in visits], weights=weights)), float(weights.sum() ** -0.5)


def contradiction(readings: Iterable[Reading]) -> tuple[Reading, Reading] | None:
    """A load that misses the budget and one not much higher that meets it, and is clearly better."""
    ordered = sorted((r for r in readings if r.n), key=lambda r: r.load)
    for i, lower in enumerate(ordered):
        for higher in ordered[i + 1 :]:
            k = lower.worst
            near = higher.load <= _NEAR * lower.load and k < len(lower.names) - 1
            if not near or lower.holds or not higher.holds:
                continue
            if lower.values[k] - higher.values[k] > _SURELY * math.hypot(lower.errors[k], higher.errors[k]):
                return lower, higher
    return None


def worth_another(scatter: VisitScatter, readings: Iterable[Reading], near: float) -> float:
    """The load to visit again: of two that contradict each other that of fewer requests, else that nearest `near`."""
    if scatter.contradicting:
        return min(scatter.contradicting, key=lambda reading: reading.n).load
    return min((reading.load for reading in readings if reading.n), key=lambda load: abs(load - near))
