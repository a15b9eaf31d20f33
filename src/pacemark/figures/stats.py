"""How sure a number is: 95% intervals that hold although neighbouring requests share a queue.

Requests that are answered together wait together, so a thousand of them say less than a thousand independent ones.
Everything here rests on the long-run variance of a series in the order it happened; docs/statistics.md gives the
methods, their sources and their measured coverage.
"""

from __future__ import annotations

import bisect
import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import fft, special

from pacemark.summary import Figure, Scatter

__all__ = [
    "Estimate",
    "LongRun",
    "Replicated",
    "binned_rate",
    "certified_quantile",
    "long_run",
    "look_confidence",
    "mean_interval",
    "overdispersion",
    "precise_enough",
    "quantile_interval",
    "quantile_intervals",
    "rate_interval",
    "ratio_interval",
    "replicated",
    "share_interval",
]

Floats = NDArray[np.float64]
Mask = NDArray[np.bool_]

CONFIDENCE = 0.95

# All of these were chosen on measured coverage (benchmarks/coverage.py), not on theory.
_BLOCKS = 1024  # A series is summed into this many blocks: low frequencies are all that is asked of it.
RATE_BINS = _BLOCKS
"""Bins of time in which `binned_rate` wants its counts."""
_MOST_TERMS = 8  # More cosines know the variance better, but look at shorter times than a queue remembers.
_WHITE_TERMS = 16  # Where nothing is remembered.
_LEAST_TERMS = 2
_FEWEST = 16  # Values below which nothing is said.
_SPANS_PER_TERM = 4  # The shortest cosine must still span this many correlation times.
_CLUSTERS = 0.5  # Independent groups of requests expected beyond a quantile for an interval of it.
_AROUND = (10.0, 8.0, 6.0, 4.0, 2.0, 0.6, 0.3)  # Queues are looked for where these times 1 - q lie beyond,
_AROUND_MIDDLE = (0.8, 0.6)  # and for a quantile in the middle, these.
_UNSEEN = 1.3  # They are larger than they look.
_BATCHES = (20, 40, 80)  # Lengths at which the skewness of a mean is looked for.
_SKEW_WEIGHT = 4.0  # On the high side: the skewness of a sample falls far short of that of a queue.
_FARTHEST = 3.5  # However skewed, a limit lies no more than this many t intervals away.


@dataclass(frozen=True, slots=True)
class Estimate:
    """A figure, and what it stands on."""

    figure: Figure
    n: int
    """Values in the sample: requests, or bins of time for a rate."""
    n_eff: float
    """Independent values that would know the figure equally well."""
    growth: float = 1.0
    """How many times longer the sample must be before an interval can be given; 1 where one is given."""
    scatter: Scatter | None = None
    """What a comparison with another sample needs to know; None where no interval is given."""

    @property
    def refused(self) -> bool:
        """No two-sided interval can be given: the figure is a bare point, a bound, or absent."""
        return self.figure.low is None or self.figure.high is None

    @property
    def half_width(self) -> float | None:
        """Half the interval's width over the value's size; None where there is no interval or the value is 0."""
        value, low, high = self.figure.value, self.figure.low, self.figure.high
        if value is None or low is None or high is None or value == 0:
            return None
        return (high - low) / 2 / abs(value)

    def needed(self, requests: int | None = None) -> int:
        """How many more requests are needed, to two digits; `requests` is how many the level has, if not `n`."""
        if self.growth <= 1:
            return 0
        more = (self.growth - 1) * (self.n if requests is None else requests)
        step = 10.0 ** max(0, math.floor(math.log10(max(more, 1))) - 1)
        return int(math.ceil(max(more, 1) / step) * step)

    def message(self, requests: int | None = None) -> str | None:
        """Why there is no interval, for a person; None where there is one."""
        if not self.refused:
            return None
        if self.n == 0:
            return "insufficient: no values"
        if self.growth <= 1:
            return "insufficient: too many requests were cut off before they ended"
        return f"insufficient: about {self.needed(requests)} more requests needed"


@dataclass(frozen=True, slots=True)
class LongRun:
    """What the mean of a correlated series scatters by."""

    variance: float
    """Long-run variance: n times the variance of the mean of n successive values."""
    dof: int
    """Degrees of freedom the variance is known with."""
    time: float
    """Integrated correlation time in values, 1 where they are independent; no finer than a thousandth of the series."""

    @property
    def growth(self) -> float:
        """How many times longer the series must be for the variance to be trusted; 1 where it is long enough."""
        return max(1.0, self._need)

    _need: float = 0.0
    """Fewest cosines over those that the correlation time allows."""


def long_run(x: Floats, *, most: int = _WHITE_TERMS) -> LongRun:
    """Long-run variance of `x`, shape (n,), in the order it happened.

    Mean square of the first few type II cosine coefficients ("EWC"), whose t quantile has as many degrees of
    freedom as there are cosines: Lazarus, Lewis, Stock and Watson 2018, J. Business & Econ. Statistics 36, eq. 5.
    Their number follows from the correlation time, by the initial monotone sequence of Geyer 1992, and is at most
    `most`.
    """
    size = max(1, len(x) // _BLOCKS)
    blocks = len(x) // size
    y = x[: blocks * size].reshape(blocks, size).mean(axis=1) if size > 1 else np.asarray(x, dtype=np.float64)
    y = y - y.mean()
    if blocks < _FEWEST or not np.any(np.abs(y) > 1e-12 * np.max(np.abs(x))):
        return LongRun(0.0, _LEAST_TERMS, 1.0, _FEWEST / max(1, blocks))
    span = _correlation_time(y)
    terms = blocks / (_SPANS_PER_TERM * span)
    count = int(np.clip(terms, _LEAST_TERMS, _MOST_TERMS if span > 1.5 else most))
    power = fft.dct(y, type=2, norm="ortho")[1 : count + 1] ** 2
    return LongRun(float(power.mean()) * size, count, span * size, _LEAST_TERMS / terms)


def _correlation_time(y: Floats) -> float:
    """Integrated correlation time of the centred series `y` in its own steps, at least 1 (Geyer 1992)."""
    n = len(y)
    spectrum = np.abs(fft.rfft(y, fft.next_fast_len(2 * n, real=True))) ** 2
    covariance = fft.irfft(spectrum, fft.next_fast_len(2 * n, real=True))[:n]
    pairs = (covariance[: n // 2 * 2] / covariance[0]).reshape(-1, 2).sum(axis=1)
    ends = np.flatnonzero(pairs <= 0)
    positive = pairs[: ends[0]] if len(ends) else pairs
    return max(1.0, 2.0 * float(np.minimum.accumulate(positive).sum()) - 1.0) if len(positive) else 1.0


def mean_interval(x: ArrayLike, censored: Mask | None = None, *, confidence: float = CONFIDENCE) -> Estimate:
    """Mean of a per-request metric, requests in the order sent; NaN stands for a request that has no value.

    EWC's t interval, each side moved by the skewness of batch means with Willink's transformation (2005, Commun.
    Statist. Theory Methods 34), as Skart does (Tafazzoli and Wilson 2011). On the high side the largest skewness of
    20, 40 and 80 batches counts, and weighs four times: a few waits in a queue decide a mean, and the sample may
    have missed some. `censored` marks requests that were cut off at that value: the mean is then only bounded from
    below.
    """
    values, cut = _observed(x, censored)
    n = len(values)
    if n == 0:
        return Estimate(Figure(), 0, 0.0, growth=1.0)
    mean = float(values.mean())
    run = long_run(values)
    t = t_quantile(run.dof, confidence)
    error = math.sqrt(run.variance / n)
    n_eff = min(float(n), n / _ratio(run.variance, float(values.var())))
    skews = [_batch_skewness(values, batches) for batches in _BATCHES]
    low = mean - _willink(t, skews[0] / 6) * error
    if cut is not None:
        return Estimate(Figure(None, low, None), n, n_eff)
    if run.growth > 1:
        return Estimate(Figure(mean), n, n_eff, run.growth)
    high = mean + _willink(t, -_SKEW_WEIGHT * max(skews) / 6) * error
    return Estimate(Figure(mean, low, high), n, n_eff, scatter=Scatter(error, float(run.dof)))


def _batch_skewness(values: Floats, batches: int) -> float:
    """Skewness of the mean, judged by that of `batches` batch means; never negative."""
    size = len(values) // batches
    if size == 0:
        return 0.0
    means = values[: batches * size].reshape(batches, size).mean(axis=1)
    means = means - means.mean()
    second = float(np.mean(means**2))
    if second == 0:
        return 0.0
    third = float(np.mean(means**3)) / math.pow(second, 1.5)
    unbiased = third * math.sqrt(batches * (batches - 1)) / (batches - 2)
    return float(max(0.0, unbiased / math.sqrt(batches)))


def _willink(t: float, beta: float) -> float:
    """Standard errors from a mean to its limit, where beta is a sixth of its skewness, away from the limit.

    Towards a long tail (beta < 0) the transformation has a pole; from there on the limit is as far as it goes.
    """
    if abs(beta) < 1e-6:
        return t
    cube = 1 + 6 * beta * (t - beta)
    return min(_FARTHEST * t, (cube ** (1 / 3) - 1) / (2 * beta)) if cube > 0 else _FARTHEST * t


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
    values, cut = _observed(x, censored)
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
        phi, run = here or (1.0, LongRun(0.0, _MOST_TERMS, 1.0))
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
        """Effective sample size less the t quantile's toll, or part of that; few clusters know their own size badly."""
        n = len(self.values)
        kept = (t_quantile(math.inf, confidence) / t_quantile(self._dof(phi, q, terms), confidence)) ** 2
        return min(float(n), n / max(phi, 1e-9) * math.pow(kept, toll))

    def _dof(self, phi: float, q: float, terms: int) -> float:
        clusters = min(q, 1 - q) * len(self.values) / max(1.0, phi)
        return min(float(terms), max(2.0, clusters / 2))

    def _scatter(self, q: float, phi: float, terms: int) -> Scatter | None:
        """Standard error of the q-quantile: half of what lies between the ranks one standard error off."""
        off = math.sqrt(max(phi, 1e-9) * q * (1 - q) / len(self.values))
        low, high = self.at(max(0.0, q - off)), self.at(q + off)
        return None if low is None or high is None else Scatter((high - low) / 2, self._dof(phi, q, terms))


def _share_limits(p: float, n: float, confidence: float) -> tuple[float, float]:
    """Clopper-Pearson limits of a share `p` of `n`, which need not be whole (Korn and Graubard 1998)."""
    tail = (1 - confidence) / 2
    hits, misses = n * p, n * (1 - p)
    low = 0.0 if hits <= 0 else float(special.betaincinv(hits, misses + 1, tail))
    high = 1.0 if misses <= 0 else float(special.betaincinv(hits + 1, misses, 1 - tail))
    return low, high


def _jeffreys_low(p: float, n: float, tail: float) -> float:
    """Jeffreys' lower limit of a share (Brown, Cai and DasGupta 2001, Statistical Science 16)."""
    return float(special.betaincinv(n * p + 0.5, n * (1 - p) + 0.5, tail))


def _share_above(p: float, n: float, tail: float) -> float:
    """1 - Clopper and Pearson's upper limit of a share, exact where it is next to nothing."""
    return float(special.betaincinv(n * (1 - p), n * p + 1, tail))


def share_interval(met: ArrayLike, *, confidence: float = CONFIDENCE) -> Estimate:
    """Share of requests for which `met` holds, in the order sent: Korn and Graubard's interval (1998)."""
    flags = np.asarray(met, dtype=np.bool_)
    n = len(flags)
    if n == 0:
        return Estimate(Figure(), 0, 0.0)
    p = float(flags.mean())
    if p in (0.0, 1.0):
        low, high = _share_limits(p, n, confidence)
        return Estimate(Figure(p, low, high), n, n)
    run = long_run(flags.astype(np.float64))
    phi = run.variance / (p * (1 - p))
    n_eff = n / max(1.0, phi)
    if run.growth > 1:
        return Estimate(Figure(p), n, n_eff, run.growth)
    toll = (t_quantile(math.inf, confidence) / t_quantile(run.dof, confidence)) ** 2
    low, high = _share_limits(p, min(float(n), n / max(phi, 1e-9) * toll), confidence)
    return Estimate(Figure(p, low, high), n, n_eff)


def overdispersion(indicator: ArrayLike) -> float:
    """How many times the variance of a share exceeds that of independent requests; at least 1.

    `indicator`, shape (n,), says per request in the order sent whether it did something, such as miss a budget.
    """
    flags = np.asarray(indicator, dtype=np.float64)
    p = float(flags.mean()) if len(flags) else 0.0
    if p in (0.0, 1.0):
        return 1.0
    return max(1.0, long_run(flags).variance / (p * (1 - p)))


def rate_interval(
    times_ns: ArrayLike, weights: ArrayLike, start_ns: int, end_ns: int, *, confidence: float = CONFIDENCE
) -> Estimate:
    """Events per second in (start_ns, end_ns], each counting `weights` (tokens; 1 for requests); see `binned_rate`.

    Raises ValueError for an empty window.
    """
    if end_ns <= start_ns:
        raise ValueError(f"the window must end after it starts: {start_ns} to {end_ns}")
    counts = binned(times_ns, weights, start_ns, end_ns, RATE_BINS)
    return binned_rate(counts, (end_ns - start_ns) / 1e9, confidence=confidence)


def binned_rate(counts: Floats, seconds: float, *, confidence: float = CONFIDENCE) -> Estimate:
    """Rate per second of what was counted in `RATE_BINS` equal parts of a window of `seconds`.

    The rate over bins of equal time is a series like any other; `n` counts the bins.
    """
    value = float(counts.sum()) / seconds
    run = long_run(counts * (_BLOCKS / seconds), most=_MOST_TERMS)
    half = t_quantile(run.dof, confidence) * math.sqrt(run.variance / _BLOCKS)
    n_eff = _BLOCKS / max(1.0, run.time)
    if run.growth > 1:
        return Estimate(Figure(value), _BLOCKS, n_eff, run.growth)
    return Estimate(Figure(value, max(0.0, value - half), value + half), _BLOCKS, n_eff)


def ratio_interval(above: ArrayLike, below: ArrayLike, *, confidence: float = CONFIDENCE) -> Estimate:
    """Sum of `above` over sum of `below`, both shape (n,) in the order they happened.

    EWC's t interval on above - ratio x below, by which a ratio scatters to first order (Cochran 1977, Sampling
    Techniques, section 6.3). Raises ValueError where `below` sums to 0.
    """
    top, bottom = np.asarray(above, dtype=np.float64), np.asarray(below, dtype=np.float64)
    n, total = len(top), float(bottom.sum())
    if total == 0:
        raise ValueError("the ratio's lower part must not sum to 0")
    value = float(top.sum()) / total
    run = long_run(top - value * bottom)
    if run.growth > 1:
        return Estimate(Figure(value), n, 0.0, run.growth)
    half = t_quantile(run.dof, confidence) * math.sqrt(run.variance * n) / total
    return Estimate(Figure(value, value - half, value + half), n, n / max(1.0, run.time))


def binned(times_ns: ArrayLike, weights: ArrayLike, start_ns: int, end_ns: int, bins: int) -> Floats:
    """Sum of `weights` in each of `bins` equal parts of (start_ns, end_ns]."""
    times = np.asarray(times_ns, dtype=np.int64)
    inside = (times > start_ns) & (times <= end_ns)
    index = (times[inside] - start_ns - 1) * bins // (end_ns - start_ns)
    given = np.asarray(weights, dtype=np.float64)
    counted = given[inside] if given.ndim else np.full(len(index), float(given))
    return np.bincount(index, counted, bins).astype(np.float64)


@dataclass(frozen=True, slots=True)
class Replicated:
    """A figure over repeated runs, and where its scatter comes from."""

    figure: Figure
    runs: int
    between: float | None
    """Standard deviation of a run's value from run to run: the noise floor of a comparison."""
    within: float | None
    """Standard deviation that each run's own interval says it has."""


def replicated(figures: Sequence[Figure], *, confidence: float = CONFIDENCE) -> Replicated:
    """Combine the same figure of R independent runs: t interval on the runs' values, whatever happens within them.

    Needs three runs for an interval. Runs without a value are left out.
    """
    values = np.asarray([f.value for f in figures if f.value is not None], dtype=np.float64)
    halves = [(f.high - f.low) / 2 for f in figures if f.low is not None and f.high is not None]
    within = math.sqrt(float(np.mean(np.square(halves)))) / t_quantile(math.inf, CONFIDENCE) if halves else None
    if len(values) == 0:
        return Replicated(Figure(), 0, None, within)
    mean = float(values.mean())
    if len(values) < 2:
        return Replicated(Figure(mean), len(values), None, within)
    between = float(values.std(ddof=1))
    if len(values) < 3:
        return Replicated(Figure(mean), len(values), between, within)
    half = t_quantile(len(values) - 1, confidence) * between / math.sqrt(len(values))
    return Replicated(Figure(mean, mean - half, mean + half), len(values), between, within)


def certified_quantile(x: ArrayLike, q: float, *, phi: float = 1.0, confidence: float = 0.99) -> float | None:
    """MLPerf's early-stopping estimate: a value that the q-quantile does not exceed with that confidence.

    Of n values the largest t are given away, t being the most for which P(Bin(n, 1 - q) <= t) < 1 - confidence;
    the estimate is the t-th largest, and None where t < 1 (n < 662 for q = 0.99). LoadGen takes requests for
    independent; `phi`, their overdispersion, divides both n and t. Source of the rule: mlcommons/inference,
    loadgen/early_stopping.cc and results.cc.
    """
    values = np.sort(_observed(x, None)[0])
    n = len(values)
    fewest, most = max(1, math.ceil(phi)), n // 2
    # P rises with t, so the largest t that is allowed lies left of the first that is not.
    given = bisect.bisect_left(
        range(fewest, most + 1), 1 - confidence, key=lambda t: float(special.betainc((n - t) / phi, t / phi + 1, q))
    )
    return float(values[n - (fewest + given - 1)]) if given else None


def precise_enough(estimates: Sequence[Estimate], target: float) -> bool:
    """Every interval is there, and no wider on each side than `target` (0.05: 5%) of its value, on average.

    Look only when the sample has doubled, with estimates at `look_confidence`: a rule that peeks after every
    request stops on lucky widths.
    """
    widths = [e.half_width for e in estimates]
    return all(width is not None and width <= target for width in widths)


@lru_cache(maxsize=32)
def look_confidence(looks: int, confidence: float = CONFIDENCE) -> float:
    """Confidence for each of `looks` looks, the sample doubling from one to the next, so that all hold together.

    Equal levels as in Pocock 1977 (Biometrika 64), at doublings: the standardised means at successive looks
    correlate by the square root of a half, each depending on the last only. 0.95 for one look.
    """
    if looks < 1:
        raise ValueError(f"there must be at least one look, not {looks}")
    nodes, weights = np.polynomial.legendre.leggauss(200)

    def together(limit: float) -> float:
        z = nodes * limit
        density = np.exp(-(z**2) / 2) / math.sqrt(2 * math.pi)
        step = np.exp(-((z[:, None] - z[None, :] * math.sqrt(0.5)) ** 2)) / math.sqrt(math.pi)
        for _ in range(looks - 1):
            density = step @ (density * weights * limit)
        return float(density @ weights) * limit

    from scipy import optimize  # a fifth of a second to load, and most runs do without

    limit = optimize.brentq(lambda c: together(c) - confidence, 1.0, 6.0, xtol=1e-10)
    return float(special.erf(limit / math.sqrt(2)))


def _observed(x: ArrayLike, censored: Mask | None) -> tuple[Floats, Mask | None]:
    """Values that are there, and which of them were cut off, None if none was."""
    values = np.asarray(x, dtype=np.float64)
    there = np.isfinite(values)
    if censored is not None and censored.shape != values.shape:
        raise ValueError(f"censored has shape {censored.shape}, the values {values.shape}")
    cut = censored[there] if censored is not None else None
    return values[there], cut if cut is not None and cut.any() else None


def _ratio(above: float, below: float) -> float:
    """above / below, at least 1; 1 for a constant series."""
    return max(1.0, above / below) if below > 0 else 1.0


@lru_cache(maxsize=4096)
def t_quantile(dof: float, confidence: float) -> float:
    """Two-sided quantile of Student's t, of the normal distribution for infinite `dof`."""
    p = 0.5 + confidence / 2
    return float(special.ndtri(p) if math.isinf(dof) else special.stdtrit(dof, p))
