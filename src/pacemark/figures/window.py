"""Which part of a level may be averaged: where it became steady, whether it stayed so, whether it ever can.

The series are sums over equal bins of time, or per-request values in the order sent; nothing here knows of requests.
docs/statistics.md gives the sources and the measured error rates.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import special

from pacemark.figures.estimate import Floats
from pacemark.figures.longrun import long_run

__all__ = ["Change", "Growth", "backlog_growth", "change_in", "steady_start"]


def steady_start(series: ArrayLike, *, batch: int = 5) -> int | None:
    """First bin of the steady part of `series`, shape (bins,), at least a hundred; None where it has not settled.

    Give it the token rate from the moment as many requests have ended as there are streams (closed loop), or the
    requests in flight from five mean latencies after the start (open loop). Averaged over `batch` bins, the series
    has settled where it first comes within two standard deviations of its second half, and must do so in the first.
    The deviations are those from the second half's own line, lest a series that drifts throughout should pass.
    The rule of crossing the mean (Fishman 1973) with a band, for it must not choose: MSER-5, the usual rule, seeks
    the cut that makes the rest look calm, and near capacity drops the busy spells with which a run happens to
    begin. docs/statistics.md has the bias of each.
    """
    values = np.asarray(series, dtype=np.float64)
    count = len(values) // batch
    if count < 4:
        return None
    means = values[: count * batch].reshape(count, batch).mean(axis=1)
    second = means[count // 2 :]
    place = np.arange(len(second)) - (len(second) - 1) / 2
    level = float(second.mean())
    spread = float(np.std(second - place * float(place @ second) / float(place @ place)))
    settled = np.flatnonzero(np.abs(means - level) <= 2 * spread + 1e-9 * abs(level))
    return int(settled[0]) * batch if len(settled) and settled[0] <= count // 2 else None


@dataclass(frozen=True, slots=True)
class Change:
    """One change of level inside a window."""

    index: int
    """First value after the change."""
    before: float
    after: float
    """Medians on either side."""
    p_value: float
    """How often an unchanged series would show as much."""


def change_in(
    series: ArrayLike, *, smallest: float = 0.1, wander: float = 3.0, error_rate: float = 0.01
) -> Change | None:
    """The step in `series`, shape (n,), if there is one: p below `error_rate`, and medians that differ enough.

    The self-normalised CUSUM of Shao and Zhang 2010 (J. Amer. Statist. Assoc. 105), which no autocorrelation
    misleads and no change weakens, on ranks, so that no outlier carries it. NaN stands for no value. Enough is
    `smallest` of the larger median, and `wander` times the standard deviation of twentieths of the series about the
    median of their side: near capacity the requests in flight, and TPOT with them, move about in long spells.
    Test the token rate and the TPOT of the requests: a closed loop shows a faster service in both, an open loop in
    TPOT only.
    """
    values = np.asarray(series, dtype=np.float64)
    places = np.flatnonzero(np.isfinite(values))
    values = values[places]
    n = len(values)
    if n < 40 or np.ptp(values) == 0:
        return None
    size = max(1, n // _POINTS)
    ranks = _ranks(values)[: n // size * size].reshape(-1, size).mean(axis=1)
    statistic, at = _self_normalised(ranks[None, :])
    cut = int(at[0]) * size
    before, after = float(np.median(values[:cut])), float(np.median(values[cut:]))
    enough = max(smallest * max(abs(before), abs(after)), wander * _wander(values, cut))
    if abs(after - before) < enough:  # asked first: on a steady endpoint, what chance does need not be drawn
        return None
    chance = float(np.mean(_null_statistics() >= statistic[0]))
    if chance >= error_rate:
        return None
    return Change(int(places[cut]), before, after, max(chance, 1.0 / len(_null_statistics())))


_POINTS = 100
_TWENTIETH = 20


def _wander(values: Floats, cut: int) -> float:
    """Standard deviation of the medians of twentieths of `values` about the median of their side of `cut`."""
    squares: list[float] = []
    for side in (values[:cut], values[cut:]):
        parts = np.array_split(side, max(2, round(len(side) * _TWENTIETH / len(values))))
        squares += [float(np.median(part) - np.median(side)) ** 2 for part in parts]
    return math.sqrt(sum(squares) / len(squares))


def _ranks(values: Floats) -> Floats:
    """Ranks from 1, ties sharing their mean."""
    _, inverse, counts = np.unique(values, return_inverse=True, return_counts=True)
    last = np.cumsum(counts)
    return (last - (counts - 1) / 2.0)[inverse]


def _self_normalised(rows: Floats) -> tuple[Floats, NDArray[np.int64]]:
    """Largest self-normalised CUSUM of each row, and the number of values before the change it points to."""
    n = rows.shape[1]
    sums = np.concatenate([np.zeros((len(rows), 1)), np.cumsum(rows, axis=1)], axis=1)
    best, where = np.zeros(len(rows)), np.zeros(len(rows), dtype=np.int64)
    steps = np.arange(n + 1)
    for k in range(n // 10, n - n // 10 + 1):
        gap = sums[:, k] - k / n * sums[:, n]
        left = sums[:, : k + 1] - steps[: k + 1] / k * sums[:, k : k + 1]
        right = (sums[:, k:] - sums[:, k : k + 1]) - steps[: n - k + 1] / (n - k) * (sums[:, n:] - sums[:, k : k + 1])
        scale = (np.sum(left**2, axis=1) + np.sum(right**2, axis=1)) / n
        score = np.divide(gap**2, scale, out=np.full(len(rows), np.inf), where=scale > 0)
        better = score > best
        best[better], where[better] = score[better], k
    return best, where


@lru_cache(maxsize=1)
def _null_statistics() -> Floats:
    """The statistic of 4000 series without correlation or change; its limit law holds with any correlation."""
    rng = np.random.default_rng(2010)
    return np.sort(_self_normalised(rng.standard_normal((4000, _POINTS)))[0])


@dataclass(frozen=True, slots=True)
class Growth:
    """How a backlog moves over a window; slopes per second with their 95% intervals."""

    in_flight_per_s: float
    in_flight_low: float
    in_flight_high: float
    ttft_per_s: float
    ttft_low: float
    ttft_high: float
    beyond: bool
    """Both grow, surely and by much: the load is beyond capacity and no average of it means anything."""


def backlog_growth(sent_ns: ArrayLike, in_flight: ArrayLike, ttft: ArrayLike, *, least: float = 0.3) -> Growth | None:
    """Slopes of the requests in flight and of TTFT over the window, requests in the order sent; None for too few.

    Per request: when it was sent, how many were in flight then, and its TTFT (NaN where it has none). The error of
    a slope takes the long-run variance of the residuals times regressor (Newey and West 1987 in EWC's form), with
    its t quantile. Both must rise by `least` of their mean over the window, for a queue near capacity wanders far.
    """
    sent = np.asarray(sent_ns, dtype=np.float64)
    waits = np.asarray(ttft, dtype=np.float64)
    there = np.isfinite(waits)
    if there.sum() < 40:
        return None
    seconds = (sent[there] - sent[there].mean()) / 1e9
    span = float(np.ptp(seconds))
    flight = np.asarray(in_flight, dtype=np.float64)[there]
    waits = waits[there]
    if span == 0:
        return None
    slopes = [_slope(seconds, flight), _slope(seconds, waits)]
    grown = [
        low > 0 and slope * span >= least * max(1e-12, abs(float(np.mean(y))))
        for (slope, low, _), y in zip(slopes, (flight, waits), strict=True)
    ]
    return Growth(*slopes[0], *slopes[1], beyond=all(grown))


def _slope(t: Floats, y: Floats) -> tuple[float, float, float]:
    """Least-squares slope of y on the centred t, with its 95% interval."""
    power = float(t @ t)
    slope = float(t @ (y - y.mean())) / power
    run = long_run(t * (y - y.mean() - slope * t))
    half = float(special.stdtrit(run.dof, 0.975)) * math.sqrt(run.variance * len(t)) / power
    return slope, slope - half, slope + half
