"""How sure a number is: 95% intervals that hold although neighbouring requests share a queue.

Requests that are answered together wait together, so a thousand of them say less than a thousand independent ones.
Everything here rests on the long-run variance of a series in the order it happened; docs/statistics.md gives the
methods, their sources and their measured coverage.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import ArrayLike
from scipy import special

from pacemark.figures.estimate import CONFIDENCE, Estimate, Floats, Mask, observed, t_quantile
from pacemark.figures.longrun import BLOCKS, MOST_TERMS, long_run
from pacemark.summary import Figure, Scatter

__all__ = [
    "RATE_BINS",
    "Replicated",
    "binned",
    "binned_rate",
    "look_confidence",
    "mean_interval",
    "precise_enough",
    "rate_interval",
    "ratio_interval",
    "replicated",
    "share_interval",
]

RATE_BINS = BLOCKS
"""Bins of time in which `binned_rate` wants its counts."""
# Chosen on measured coverage (benchmarks/coverage.py), not on theory.
_BATCHES = (20, 40, 80)  # Lengths at which the skewness of a mean is looked for.
_SKEW_WEIGHT = 4.0  # On the high side: the skewness of a sample falls far short of that of a queue.
_FARTHEST = 3.5  # However skewed, a limit lies no more than this many t intervals away.


def mean_interval(x: ArrayLike, censored: Mask | None = None, *, confidence: float = CONFIDENCE) -> Estimate:
    """Mean of a per-request metric, requests in the order sent; NaN stands for a request that has no value.

    EWC's t interval, each side moved by the skewness of batch means with Willink's transformation (2005, Commun.
    Statist. Theory Methods 34), as Skart does (Tafazzoli and Wilson 2011). On the high side the largest skewness of
    20, 40 and 80 batches counts, and weighs four times: a few waits in a queue decide a mean, and the sample may
    have missed some. `censored` marks requests that were cut off at that value: the mean is then only bounded from
    below.
    """
    values, cut = observed(x, censored)
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


def _share_limits(p: float, n: float, confidence: float) -> tuple[float, float]:
    """Clopper-Pearson limits of a share `p` of `n`, which need not be whole (Korn and Graubard 1998)."""
    tail = (1 - confidence) / 2
    hits, misses = n * p, n * (1 - p)
    low = 0.0 if hits <= 0 else float(special.betaincinv(hits, misses + 1, tail))
    high = 1.0 if misses <= 0 else float(special.betaincinv(hits + 1, misses, 1 - tail))
    return low, high


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
    run = long_run(counts * (BLOCKS / seconds), most=MOST_TERMS)
    half = t_quantile(run.dof, confidence) * math.sqrt(run.variance / BLOCKS)
    n_eff = BLOCKS / max(1.0, run.time)
    if run.growth > 1:
        return Estimate(Figure(value), BLOCKS, n_eff, run.growth)
    return Estimate(Figure(value, max(0.0, value - half), value + half), BLOCKS, n_eff)


def binned(times_ns: ArrayLike, weights: ArrayLike, start_ns: int, end_ns: int, bins: int) -> Floats:
    """Sum of `weights` in each of `bins` equal parts of (start_ns, end_ns]."""
    times = np.asarray(times_ns, dtype=np.int64)
    inside = (times > start_ns) & (times <= end_ns)
    index = (times[inside] - start_ns - 1) * bins // (end_ns - start_ns)
    given = np.asarray(weights, dtype=np.float64)
    counted = given[inside] if given.ndim else np.full(len(index), float(given))
    return np.bincount(index, counted, bins).astype(np.float64)


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


def _ratio(above: float, below: float) -> float:
    """above / below, at least 1; 1 for a constant series."""
    return max(1.0, above / below) if below > 0 else 1.0
