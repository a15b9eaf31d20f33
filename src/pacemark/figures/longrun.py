"""How much the mean of a series scatters whose neighbours depend on each other.

Everything that says how sure a number is rests on this: docs/statistics.md gives the method and its source.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike
from scipy import fft

from pacemark.figures.estimate import Floats

__all__ = ["BLOCKS", "MOST_TERMS", "LongRun", "long_run", "overdispersion"]

# All of these were chosen on measured coverage (benchmarks/coverage.py), not on theory.
BLOCKS = 1024  # A series is summed into this many blocks: low frequencies are all that is asked of it.
MOST_TERMS = 8  # More cosines know the variance better, but look at shorter times than a queue remembers.
_WHITE_TERMS = 16  # Where nothing is remembered.
_LEAST_TERMS = 2
_FEWEST = 16  # Values below which nothing is said.
_SPANS_PER_TERM = 4  # The shortest cosine must still span this many correlation times.


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
    size = max(1, len(x) // BLOCKS)
    blocks = len(x) // size
    y = x[: blocks * size].reshape(blocks, size).mean(axis=1) if size > 1 else np.asarray(x, dtype=np.float64)
    y = y - y.mean()
    if blocks < _FEWEST or not np.any(np.abs(y) > 1e-12 * np.max(np.abs(x))):
        return LongRun(0.0, _LEAST_TERMS, 1.0, _FEWEST / max(1, blocks))
    span = _correlation_time(y)
    terms = blocks / (_SPANS_PER_TERM * span)
    count = int(np.clip(terms, _LEAST_TERMS, MOST_TERMS if span > 1.5 else most))
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


def overdispersion(indicator: ArrayLike) -> float:
    """How many times the variance of a share exceeds that of independent requests; at least 1.

    `indicator`, shape (n,), says per request in the order sent whether it did something, such as miss a budget.
    """
    flags = np.asarray(indicator, dtype=np.float64)
    p = float(flags.mean()) if len(flags) else 0.0
    if p in (0.0, 1.0):
        return 1.0
    return max(1.0, long_run(flags).variance / (p * (1 - p)))
