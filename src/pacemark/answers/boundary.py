"""Where a budget stops being met: a belief about the boundary, from the levels measured so far.

Each condition of a budget is a statistic of scores (metric over limit) that must stay below 1. Two things are known
of it as a function of the load, and nothing more is assumed: it does not fall, and a continuous-batching server makes
it a line that bends where a resource runs out (a step costs a + b x streams; behind a full batch a queue grows in
proportion). So a level's data are used whole, not only for how many requests missed: a level well below the boundary
still tells how fast it is being approached.

The belief is a sample of possible boundaries. Each draw takes one plausible value of the statistic at every measured
level, makes them monotone, and crosses 1 on a line that bends once, anywhere, between the two levels around it.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy import special

from pacemark.figures import longrun
from pacemark.figures.conditions import Condition

__all__ = ["DRAWS", "Belief", "Reading", "Unrest", "believe", "most_met", "offered", "read", "three_digits"]

Floats = NDArray[np.float64]

DRAWS = 512
UNSEEN = 10.0
_HUGE = 1e9
"""Stands for an infinite score: a request that was never answered."""
_FAR = 1e3
"""A score so far over its limit that more makes no difference, and little enough for sums of weights to be exact."""


class Unrest(NamedTuple):
    """What is not known of a load because its endpoint was not steady while it was measured (`answers.drift`)."""

    times: Floats
    """(DRAWS,) how many times as slow as in the long run the endpoint may have been then."""
    left: float
    """Of the logarithm of its slowness: the standard deviation that the long run has and these requests have not."""


@dataclass(frozen=True, slots=True)
class Reading:
    """What one level says of each condition."""

    load: float
    names: tuple[str, ...]
    values: Floats
    """(k,) the statistics, as shares of their limits."""
    draws: Floats
    """(k, DRAWS) plausible values of them, given how little was seen."""
    most: Floats
    """(k,) the limits, in ms, or as a share of the requests."""
    n: int

    @property
    def within(self) -> float:
        """How likely it is that every condition is met."""
        return float((self.draws < 1).all(axis=0).mean())

    @property
    def errors(self) -> Floats:
        """(k,) the standard errors of the statistics."""
        low, high = np.quantile(np.minimum(self.draws, _FAR), [0.16, 0.84], axis=1)
        return np.asarray((high - low) / 2, dtype=np.float64)

    @property
    def verdict(self) -> bool | None:
        """Whether the budget is met; None where that is less than nine to one."""
        return None if 0.1 < self.within < 0.9 else self.within > 0.5

    def failed(self, load: float) -> Reading:
        """What to think of `load`, which gave no result: every request failed. Of the same conditions as this one."""
        values = np.zeros(len(self.names))
        values[-1] = 1 / self.most[-1]  # errors stand last
        return Reading(load, self.names, values, np.repeat(values[:, None], DRAWS, axis=1), self.most, 0)

    @property
    def holds(self) -> bool:
        """Whether the budget is met by the figures themselves, and more likely than not."""
        return self.within >= 0.5 and bool((self.values < 1).all())

    @property
    def worst(self) -> int:
        """The condition that is nearest to its limit, or furthest over it.

        Errors come first where there are too many: a request that failed misses the other limits as well.
        """
        return len(self.names) - 1 if self.values[-1] >= 1 else int(np.argmax(self.values))

    def clear(self, errors: float = 3.0) -> bool:
        """Whether the verdict is beyond doubt: the statistics lie so many standard errors from their limits.

        Three is the boundary of Haybittle (1971) and Peto (1976) for data that are looked at again and again.
        """
        low, high = np.quantile(self.draws, [0.025, 0.975], axis=1)
        reach = errors / 1.96
        below = self.values + reach * (high - self.values) < 1
        above = self.values - reach * (self.values - low) > 1
        return bool(below.all() or above.any())


def read(load: float, conditions: Sequence[Condition], seed: int, unrest: Unrest | None = None) -> Reading:
    """Weigh one level. `seed` makes the draws independent of those of other levels."""
    # One order for all conditions: what makes one of them look bad by chance does so for the others too.
    at = (np.random.default_rng([seed, 7]).permutation(DRAWS) + 0.5) / DRAWS
    pairs = [_statistic(condition, at) for condition in conditions]
    if unrest is not None:
        pairs[:-1] = [
            (value, draws * unrest.times * _mixed(condition, unrest.left))
            for condition, (value, draws) in zip(conditions[:-1], pairs[:-1], strict=True)
        ]
    return Reading(
        load=load,
        names=tuple(condition.name for condition in conditions),
        values=np.array([value for value, _ in pairs]),
        draws=np.array([draws for _, draws in pairs]),
        most=np.array([condition.most for condition in conditions]),
        n=max(len(condition.scores) for condition in conditions),
    )


def _statistic(condition: Condition, at: Floats) -> tuple[float, Floats]:
    """The statistic, and its posterior at the probabilities `at`."""
    scores = np.minimum(condition.scores, _HUGE)
    n = len(scores)
    if n == 0:
        return 0.0, np.zeros(len(at))
    if condition.quantile is not None:
        return _quantile(scores, condition.quantile, at)
    if condition.name == "errors":
        return _share(scores, condition.most, at)
    n_eff, dof = _effective(scores, 0.5)
    spread = float(scores.std(ddof=1)) if n > 1 else float(scores[0])
    mean = float(scores.mean())
    return mean, mean + spread / np.sqrt(n_eff) * special.stdtrit(dof, at)


def _mixed(condition: Condition, left: float) -> float:
    """How many times larger the statistic is of requests whose slowness scatters by `left` more.

    A mean stays what it is. A quantile is taken of all scores times all of 21 quantiles of that scatter.
    """
    scores = condition.scores[np.isfinite(condition.scores)]
    if condition.quantile is None or not len(scores):
        return 1.0
    plain = float(np.quantile(scores, condition.quantile))
    mixed = np.outer(scores, np.exp(left * special.ndtri((np.arange(21) + 0.5) / 21)))
    return float(np.quantile(mixed, condition.quantile)) / plain if plain > 0 else 1.0


def _share(scores: Floats, most: float, at: Floats) -> tuple[float, Floats]:
    """A share of failures: none seen counts as none, for nothing speaks of any."""
    failed, n = float((scores > 0).sum()), len(scores)
    if failed == 0:
        return 0.0, np.zeros(len(at))
    known = _independent(scores > 0, failed / n) / n
    return failed / n / most, special.betaincinv(failed * known, (n - failed) * known + 1, at) / most


def _independent(scores: Floats | NDArray[np.bool_], share: float, memory: float = 1.0) -> float:
    """As `_effective`, with what is not known of it taken off: by (z / t)^2."""
    n_eff, dof = _effective(scores, share, memory)
    return n_eff * float(special.ndtri(0.975) / special.stdtrit(dof, 0.975)) ** 2


def _effective(scores: Floats | NDArray[np.bool_], share: float, memory: float = 1.0) -> tuple[float, int]:
    """How many independent requests would say as much as `scores` (n,), and with how many degrees of freedom.

    Fewer than there are by the overdispersion: requests that are served together are fast or slow together. A series
    in which few requests lie beyond the quantile cannot show its overdispersion, and it is then taken to be high:
    docs/search.md has the coverage that this factor was chosen on.
    """
    x = np.asarray(scores, dtype=np.float64)
    n, variance = len(x), float(x.var())
    rare = 1 + UNSEEN * memory / (n * min(share, 1 - share) or 0.5)  # where all failed none is on the other side
    if n < 40 or variance == 0:
        return n / rare, max(1, n - 1)
    run = longrun.long_run(x)
    return n / rare / max(1.0, run.variance / variance), run.dof


def _quantile(scores: Floats, q: float, at: Floats) -> tuple[float, Floats]:
    """Order statistics at the ranks that a Beta posterior with the effective sample size gives.

    Beyond the largest score its tail is taken to be exponential, with the mean excess of the largest tenth.
    """
    ordered = np.sort(scores)
    n = len(ordered)
    value = float(np.quantile(ordered, q))
    memory = 1.0
    if n >= 40:
        half = longrun.overdispersion(scores <= np.median(scores))
        memory = 1 - 1 / half**2
    n_eff = min(_independent(scores <= value, q, memory), _independent(scores <= np.median(scores), q, memory))
    rank = special.betaincinv(n_eff * q + 0.5, n_eff * (1 - q) + 0.5, at)
    drawn = np.interp(rank, (np.arange(n) + 0.5) / n, ordered)
    top = ordered[-max(2, n // 5) :]
    beyond = rank > 1 - 0.5 / n
    excess = top.mean() - top[0] if n > 1 else value  # one alone shows no scatter, which is not to say there is none
    drawn[beyond] += excess * np.log(0.5 / n / (1 - rank[beyond]))
    return value, drawn


@dataclass(frozen=True, slots=True)
class Belief:
    """A sample of where the boundary may lie."""

    draws: Floats
    """(DRAWS,) the largest load that meets the budget; infinite where none seems to miss it."""
    binds: tuple[str, ...]
    """Which condition sets the boundary, the likeliest first."""

    def at(self, probability: float) -> float:
        """The load that the boundary is below with this probability."""
        return float(np.quantile(self.draws, probability, method="lower"))

    @property
    def middle(self) -> float:
        """As likely too low as too high."""
        return self.at(0.5)

    def interval(self, confidence: float = 0.95) -> tuple[float, float]:
        """Where it lies with this probability."""
        return self.at(0.5 - confidence / 2), self.at(0.5 + confidence / 2)


def believe(readings: Sequence[Reading]) -> Belief:
    """What `readings`, one for each load, say together."""
    ordered = sorted(readings, key=lambda r: r.load)
    loads = np.array([r.load for r in ordered])
    names = ordered[0].names
    rng = np.random.default_rng(11)
    bend, slope, fraction, pick = rng.random(DRAWS), rng.normal(size=DRAWS), rng.random(DRAWS), rng.random(DRAWS)
    roots = np.array(
        [
            _root(loads, _monotone(np.minimum([r.draws[k] for r in ordered], _FAR)), bend, slope, fraction, pick)
            for k in range(len(names))
        ]
    )
    # A request that failed misses every limit, so errors set a boundary that others share with them.
    cause = np.append(roots[:-1], 0.98 * roots[-1:], axis=0)
    first = np.bincount(cause.argmin(axis=0), minlength=len(names))
    order = [int(k) for k in np.argsort(-first, kind="stable") if first[k]]
    return Belief(roots.min(axis=0), tuple(names[k] for k in order))


def most_met(readings: Sequence[Reading], x: float, *, whole: bool) -> float:
    """`x`, or the most load below it that is not one of `readings` whose own figures miss the budget."""
    missed = {r.load for r in readings if not r.holds}
    below = max((r.load for r in readings if r.holds and r.load < x), default=x)
    while x in missed and below < x:
        x = x - 1 if whole else below
    return x


def offered(x: float, whole: bool) -> float:
    """The load at or just under `x` that can be asked for: a whole number of streams, or a rate of three digits."""
    if not math.isfinite(x):
        return x
    return math.floor(x) if whole else three_digits(x)


def three_digits(x: float) -> float:
    """A rate as it is offered and shown."""
    return float(f"{x:.3g}")


def _monotone(drawn: Floats) -> Floats:
    """Isotonic regression of each draw over the loads: (j, DRAWS) in and out, by the min-max formula.

    Weighted by precision; Robertson, Wright and Dykstra, Order Restricted Statistical Inference (1988), 1.4.
    """
    levels = len(drawn)
    low, high = np.quantile(drawn, [0.16, 0.84], axis=1)
    weight = 1 / np.maximum((high - low) / 2, 1e-3 + 0.002 * np.abs(np.median(drawn, axis=1))) ** 2
    sums = np.concatenate([np.zeros((1, drawn.shape[1])), np.cumsum(weight[:, None] * drawn, axis=0)])
    total = np.concatenate([[0.0], np.cumsum(weight)])
    out = np.empty_like(drawn)
    for i in range(levels):
        best = np.full(drawn.shape[1], -np.inf)
        for a in range(i + 1):
            means = (sums[i + 1 :] - sums[a]) / (total[i + 1 :] - total[a])[:, None]
            best = np.maximum(best, means.min(axis=0))
        out[i] = best
    return out


def _root(loads: Floats, y: Floats, bend: Floats, slope: Floats, fraction: Floats, pick: Floats) -> Floats:
    """Where each draw (a column of `y`) crosses 1."""
    levels, draws = y.shape
    column = np.arange(draws)
    above = np.where((y >= 1).any(axis=0), (y >= 1).argmax(axis=0), levels)
    below = above - 1
    a = np.maximum(below, 0)
    xa, ya = loads[a], y[a, column]
    tangent = _tangent(loads, y, a, fraction)
    with np.errstate(divide="ignore", invalid="ignore"):
        beyond = xa + (1 - ya) / (tangent * np.exp(0.5 * slope))
        b = np.minimum(above, levels - 1)
        xb, yb = loads[b], y[b, column]
        c = np.minimum(above + 1, levels - 1)
        steep = (y[c, column] - yb) / (loads[c] - xb)
        # Where the lines through the two levels below and the two above meet, if they do, it may as well bend there.
        meet = (yb - ya - steep * (xb - xa)) / (tangent - steep) + xa
        knee = np.where((c > above) & (meet > xa) & (meet < xb) & (pick < 0.5), meet, xa + bend * (xb - xa))
        at_knee = np.minimum(ya + tangent * (knee - xa), yb)
        before = xa + (1 - ya) / tangent
        after = knee + (1 - at_knee) / (yb - at_knee) * (xb - knee)
    inside = np.where(at_knee >= 1, before, after)
    under = loads[0] / np.maximum(y[0], 1.0)
    return np.asarray(np.where(below < 0, under, np.where(above == levels, beyond, inside)), dtype=np.float64)


def _tangent(loads: Floats, y: Floats, a: NDArray[np.int64], fraction: Floats) -> Floats:
    """The slope that leads up to level `a` of each draw, from a level well below it where there is one."""
    column = np.arange(y.shape[1])
    far = np.searchsorted(loads, 0.8 * loads[a], side="right") - 1
    before = np.where(far >= 0, far, a - 1)
    known = before >= 0
    before = np.maximum(before, 0)
    rise = y[a, column] - y[before, column]
    run = np.where(known, loads[a] - loads[before], 1.0)
    # Of one level alone: anything from flat to a line through the origin.
    return np.where(known & (run > 0), rise / np.where(run > 0, run, 1.0), fraction * y[a, column] / loads[a])
