"""How sure a number is: 95% intervals that hold although neighbouring requests share a queue."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import fft, special
from scipy import stats as dist

from pacemark.summary import Figure

Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Estimate:
    """A figure, and what it stands on."""

    figure: Figure
    n: int
    n_eff: float
    needed: int = 0
    """How many more requests an interval needs, at the least; 0 where one is given."""
    why: str = ""

    @property
    def refused(self) -> bool:
        """No two-sided interval could be given."""
        return self.figure.low is None or self.figure.high is None


@dataclass(frozen=True, slots=True)
class LongRun:
    """Long-run variance of a series, per observation, and the degrees of freedom it is known with."""

    variance: float
    dof: float


def long_run(x: Floats) -> LongRun:
    n = len(x)
    size = max(1, n // 1024)
    m = n // size
    y = x[: m * size].reshape(m, size).mean(axis=1)
    y = y - y.mean()
    if not np.any(y):
        return LongRun(0.0, 1.0)
    f = np.abs(fft.rfft(y, 2 * m)) ** 2
    acov = fft.irfft(f)[:m] / m
    rho = acov / acov[0]
    pairs = rho[: m // 2 * 2].reshape(-1, 2).sum(axis=1)
    stop = int(np.argmax(pairs <= 0)) if (pairs <= 0).any() else len(pairs)
    tau = max(1.0, 2 * np.minimum.accumulate(pairs[:stop]).sum() - 1) if stop else 1.0
    dof = int(np.clip(0.5 * m / tau, 4, 24))
    c = fft.dct(y, type=2, norm="ortho")[1 : dof + 1]
    return LongRun(float(np.mean(c**2)) * size, dof)


def clean(x: ArrayLike) -> Floats:
    values = np.asarray(x, dtype=np.float64)
    return values[np.isfinite(values)]


def mean_interval(x: ArrayLike, censored: NDArray[np.bool_] | None = None, *, confidence: float = 0.95) -> Estimate:
    """Mean of a per-request metric, in the order the requests were sent."""
    values = clean(x)
    n = len(values)
    if n < 20 or (censored is not None and censored.any()):
        return Estimate(Figure(float(values.mean()) if n else None), n, n, 20, "")
    lr = long_run(values)
    mean = float(values.mean())
    half = float(dist.t.ppf(0.5 + confidence / 2, lr.dof)) * math.sqrt(lr.variance / n)
    n_eff = float(n * values.var() / lr.variance) if lr.variance > 0 else float(n)
    return Estimate(Figure(mean, mean - half, mean + half), n, min(n_eff, n))


def quantile_interval(
    x: ArrayLike, q: float, censored: NDArray[np.bool_] | None = None, *, confidence: float = 0.95
) -> Estimate:
    """Quantile of a per-request metric, in the order the requests were sent."""
    values = clean(x)
    n = len(values)
    if n == 0:
        return Estimate(Figure(), 0, 0.0, 20)
    ordered = np.sort(values)
    point = float(np.quantile(ordered, q))
    phi, dof = overdispersion_of(values <= point)
    n_eff = n / phi
    n_df = n_eff * float(dist.norm.ppf(0.5 + confidence / 2) / dist.t.ppf(0.5 + confidence / 2, dof)) ** 2
    tail = 0.5 - confidence / 2
    lo = float(special.betaincinv(n_df * q + 0.5, n_df * (1 - q) + 0.5, tail))
    hi = float(special.betaincinv(n_df * q + 0.5, n_df * (1 - q) + 0.5, 1 - tail))
    j, k = math.floor(lo * n), math.ceil(hi * n)
    low = float(ordered[j - 1]) if j >= 1 else None
    if n_df * (1 - q) < 3 or k > n:
        return Estimate(Figure(None, low, None), n, n_eff, max(1, math.ceil(3 / (1 - q) * phi) - n))
    return Estimate(Figure(point, low, float(ordered[k - 1])), n, n_eff)


def overdispersion_of(indicator: NDArray[np.bool_]) -> tuple[float, float]:
    p = float(indicator.mean())
    if p in (0.0, 1.0):
        return 1.0, 24.0
    lr = long_run(indicator.astype(np.float64))
    return max(1.0, lr.variance / (p * (1 - p))), lr.dof


def overdispersion(indicator: ArrayLike) -> float:
    """How many times the variance of a share exceeds that of independent requests; at least 1."""
    return overdispersion_of(np.asarray(indicator, dtype=np.bool_))[0]


def rate_interval(
    times_ns: ArrayLike, weights: ArrayLike, start_ns: int, end_ns: int, *, confidence: float = 0.95
) -> Estimate:
    """Events (weighted) per second inside (start_ns, end_ns]."""
    t = np.asarray(times_ns, dtype=np.int64)
    w = np.broadcast_to(np.asarray(weights, dtype=np.float64), t.shape)
    inside = (t > start_ns) & (t <= end_ns)
    bins = 512
    series, _ = np.histogram(t[inside] - start_ns, bins=bins, range=(0, end_ns - start_ns), weights=w[inside])
    series = series / ((end_ns - start_ns) / 1e9 / bins)
    return mean_interval(series, confidence=confidence)
