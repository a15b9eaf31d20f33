"""Intervals of quantiles: of what share of the requests a latency is not exceeded."""

from __future__ import annotations

import bisect
import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike
from scipy import special

from pacemark.figures.estimate import CONFIDENCE, Estimate, Floats, Mask, observed, t_quantile
from pacemark.figures.longrun import MOST_TERMS, LongRun, long_run
from pacemark.summary import Figure, Scatter

__all__ = ["certified_quantile", "quantile_interval", "quantile_intervals"]

# All of these were chosen on measured coverage (benchmarks/coverage.py), not on theory.
_CLUSTERS = 0.5  # Independent groups of requests expected beyond a quantile for an interval of it.
_AROUND = (10.0, 8.0, 6.0, 4.0, 2.0, 0.6, 0.3)  # Queues are looked for where these times 1 - q lie beyond,
_AROUND_MIDDLE = (0.8, 0.6)  # and for a quantile in the middle, these.
_UNSEEN = 1.3  # They are larger than they look.
_DOF_BEYOND = 200.0  # Most degrees of freedom of what is unseen, per 1 - q: two for p99, ten for p95.


def quantile_interval(
    x: ArrayLike, q: float, censored: Mask | None = None, *, confidence: float = CONFIDENCE
) -> Estimate:
    """The q-quantile of a per-request metric, requests in the order sent; see `quantile_intervals`."""
    return quantile_intervals(x, (q,), censored, confidence=confidence)[0]


def quantile_intervals(
    x: ArrayLike, qs: Sequence[float], censored: Mask | None = None, *, confidence: float = CONFIDENCE
) -> tuple[Estimate, ...]:
    """Quantiles of a per-request metric, shape (n,), requests in the order sent.

    NaN stands for a request that has no value; `censored` marks requests that were cut off at that value, and they
    enter by Kaplan and Meier's estimate. Interval: order statistics at the ranks of an interval for a share
    (Woodruff 1952), Jeffreys' below and Clopper and Pearson's above, with the effective sample size of Korn and
    Graubard 1998, n / overdispersion x (z / t)^2. Above, the largest overdispersion at the quantile and around it
    counts, for queues show in the tail first; and where that rank lies beyond the sample, so does the limit, on an
    exponential tail. A sample of which not even independent values would reach beyond the quantile has no point,
    and its low end is a one-sided bound; one that is short against its own memory has no interval.
    """
    if not all(0 < q < 1 for q in qs):
        raise ValueError(f"quantiles must lie between 0 and 1, not {list(qs)}")
    values, cut = observed(x, censored)
    if len(values) == 0:
        return tuple(Estimate(Figure(), 0, 0.0) for _ in qs)
    sample = _Sample(values, cut)
    return tuple(sample.interval(q, confidence) for q in qs)


class _Sample:
    """Values in the order sent, and sorted with their Kaplan-Meier distribution."""

    def __init__(self, values: Floats, cut: Mask | None) -> None:
        self.values = values
        self.cut = cut
        if cut is None:
            self.ordered = np.sort(values)
            return
        order = np.lexsort((cut, values))  # at a tie the observed ones come first
        self.ordered = values[order]
        at_risk = np.arange(len(values), 0, -1)
        died = ~cut[order]
        self.reached = 1.0 - np.cumprod(np.where(died, 1.0 - 1.0 / at_risk, 1.0))
        with np.errstate(divide="ignore"):
            self.greenwood = np.cumsum(np.where(died & (at_risk > 1), 1.0 / (at_risk * (at_risk - 1.0)), 0.0))

    def at(self, share: float) -> float | None:
        """Smallest value that `share` of the requests do not exceed; None beyond what was observed."""
        n = len(self.values)
        if self.cut is None:
            rank = math.ceil(share * n - 1e-9)
            return float(self.ordered[max(0, rank - 1)]) if rank <= n else None
        rank = int(np.searchsorted(self.reached, share - 1e-12))
        return float(self.ordered[rank]) if rank < n else None

    def below(self, value: float) -> Floats:
        """Per request 1 if its value is at most `value`; where it was cut off, the chance of that (Efron 1967)."""
        under = self.values <= value
        if self.cut is None:
            return under.astype(np.float64)
        here = self._distribution(np.asarray([value]))[0]
        there = self._distribution(self.values[self.cut & under])
        shares = under.astype(np.float64)
        shares[self.cut & under] = np.where(there < 1, (here - there) / np.maximum(1e-12, 1 - there), 1.0)
        return shares

    def _distribution(self, at: Floats) -> Floats:
        ranks = np.searchsorted(self.ordered, at, side="right")
        return np.concatenate([[0.0], self.reached])[ranks]

    def dispersion(self, share: float) -> tuple[float, LongRun] | None:
        """Overdispersion of the share of requests below the `share` quantile."""
        value = self.at(share)
        if value is None:
            return None
        below = self.below(value)
        p = float(below.mean())
        if not 0 < p < 1:
            return None
        run = long_run(below)
        inflation = run.variance / (p * (1 - p))
        if self.cut is not None:
            rank = int(np.searchsorted(self.ordered, value, side="right")) - 1
            lost = len(self.values) * (1 - p) * float(self.greenwood[rank]) / p
            inflation *= max(1.0, lost) * p * (1 - p) / max(1e-12, float(below.var()))
        return inflation, run

    def interval(self, q: float, confidence: float) -> Estimate:
        """The q-quantile with its interval, or the bound or the point that the sample has for it."""
        n = len(self.values)
        here = self.dispersion(min(q, 1 - 2 / n))
        phi, run = here or (1.0, LongRun(0.0, MOST_TERMS, 1.0))
        high = q > 0.7
        levels = [1 - (1 - q) * ratio for ratio in (_AROUND if high else _AROUND_MIDDLE)]
        around = [found[0] for level in levels if 0.5 <= level <= 1 - 2 / n and (found := self.dispersion(level))]
        worst = max([phi, *around])
        n_eff = n / max(1.0, worst)
        tail = (1 - confidence) / 2
        # A sample that saw much of a queue overrates its overdispersion, and the low end of a high quantile with it.
        low = _jeffreys_low(q, self._effective(phi, q, run.dof, confidence, toll=0.0 if high else 0.5), tail)
        bottom = self.at(low if self.cut is None else min(low, float(self.reached[-1])))
        top = self._reached_by(_share_above(q, self._effective(_UNSEEN * worst, q, run.dof, confidence), tail), q)
        value, fewest = self.at(q), math.log(tail) / math.log(q)
        growth = max(run.growth, _CLUSTERS / (min(q, 1 - q) * n_eff))
        if value is None or top is None or n < fewest:
            return Estimate(Figure(None, bottom, None), n, n_eff, max(growth, 1.01, fewest / n_eff))
        if growth > 1:
            return Estimate(Figure(value), n, n_eff, growth)
        return Estimate(Figure(value, bottom, top), n, n_eff, scatter=self._scatter(q, phi, run.dof))

    def _reached_by(self, share: float, q: float) -> float | None:
        """The value that only `share` of the requests exceed; None beyond what was observed of a censored sample.

        Beyond the sample on an exponential tail, as waits in a queue have (Abate, Choudhury and Whitt 1995, Operations
        Research 43), with the mean excess of what lies beyond the q-quantile.
        """
        n = len(self.values)
        if self.cut is not None or n * share >= 0.5:
            return self.at(1 - share)
        beyond = self.ordered[int(q * n) :]
        return float(beyond[-1]) - float((beyond - beyond[0]).mean()) * math.log(n * share)

    def _effective(self, phi: float, q: float, terms: int, confidence: float, toll: float = 1.0) -> float:
        """Effective sample size less the t quantile's toll, or part of that; few clusters know their own size badly.

        However many there seem to be: where a run missed the queue that decides p99, its many clusters are others.
        """
        n = len(self.values)
        dof = min(self._dof(phi, q, terms), max(2.0, _DOF_BEYOND * (1 - q)))
        kept = (t_quantile(math.inf, confidence) / t_quantile(dof, confidence)) ** 2
        return min(float(n), n / max(phi, 1e-9) * math.pow(kept, toll))

    def _dof(self, phi: float, q: float, terms: int) -> float:
        clusters = min(q, 1 - q) * len(self.values) / max(1.0, phi)
        return min(float(terms), max(2.0, clusters / 2))

    def _scatter(self, q: float, phi: float, terms: int) -> Scatter | None:
        """Standard error of the q-quantile: half of what lies between the ranks one standard error off."""
        off = math.sqrt(max(phi, 1e-9) * q * (1 - q) / len(self.values))
        low, high = self.at(max(0.0, q - off)), self.at(q + off)
        return None if low is None or high is None else Scatter((high - low) / 2, self._dof(phi, q, terms))


def _jeffreys_low(p: float, n: float, tail: float) -> float:
    """Jeffreys' lower limit of a share (Brown, Cai and DasGupta 2001, Statistical Science 16)."""
    return float(special.betaincinv(n * p + 0.5, n * (1 - p) + 0.5, tail))


def _share_above(p: float, n: float, tail: float) -> float:
    """1 - Clopper and Pearson's upper limit of a share, exact where it is next to nothing."""
    return float(special.betaincinv(n * (1 - p), n * p + 1, tail))


def certified_quantile(x: ArrayLike, q: float, *, phi: float = 1.0, confidence: float = 0.99) -> float | None:
    """MLPerf's early-stopping estimate: a value that the q-quantile does not exceed with that confidence.

    Of n values the largest t are given away, t being the most for which P(Bin(n, 1 - q) <= t) < 1 - confidence;
    the estimate is the t-th largest, and None where t < 1 (n < 662 for q = 0.99). LoadGen takes requests for
    independent; `phi`, their overdispersion, divides both n and t. Source of the rule: mlcommons/inference,
    loadgen/early_stopping.cc and results.cc.
    """
    values = np.sort(observed(x, None)[0])
    n = len(values)
    fewest, most = max(1, math.ceil(phi)), n // 2
    # P rises with t, so the largest t that is allowed lies left of the first that is not.
    given = bisect.bisect_left(
        range(fewest, most + 1), 1 - confidence, key=lambda t: float(special.betainc((n - t) / phi, t / phi + 1, q))
    )
    return float(values[n - (fewest + given - 1)]) if given else None
