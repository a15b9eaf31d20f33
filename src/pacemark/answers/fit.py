"""Laws fitted to a throughput-latency curve: to interpolate between levels, and to warn where it stops too soon.

They never replace a measurement. Each carries its error at levels that it was not fitted to; docs/search.md has the
formulas with their sources, and what the laws cannot show.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray

from pacemark.pace import Concurrency
from pacemark.summary import Fits, Level, Scalability, StepTime

__all__ = ["TRUSTED", "decoding", "fits", "knee_of", "throughput", "tpot_ms"]

Floats = NDArray[np.float64]

_FEWEST = 4
"""Levels without which a law of three parameters says nothing."""
TRUSTED = 0.1
"""A law that is further off than this at left-out levels is not drawn, has no knee and gives no warning."""
_RISING = 0.05


def fits(levels: Sequence[Level]) -> Fits:
    """The laws that the closed-loop levels allow; invalid ones do not count, and four different loads are the least."""
    usable = {
        float(x.load.value): x
        for x in levels
        if isinstance(x.load, Concurrency) and x.verdict.status != "invalid" and x.output_tokens_per_s.value
    }
    ordered = [usable[n] for n in sorted(usable)]
    scalability = _scalability(ordered)
    return Fits(scalability, _step_time(ordered), _warning(ordered, scalability))


def throughput(law: Scalability, streams: ArrayLike) -> Floats:
    """Output tokens/s at so many `streams`."""
    n = np.asarray(streams, dtype=np.float64)
    return np.asarray(law.rate * n / (1 + law.contention * (n - 1) + law.coherency * n * (n - 1)))


def tpot_ms(law: StepTime, streams: ArrayLike) -> Floats:
    """Mean TPOT with so many `streams` decoding."""
    return np.asarray(law.base_ms + law.per_stream_ms * np.asarray(streams, dtype=np.float64))


def decoding(level: Level) -> float | None:
    """Mean number of streams that decode, by Little's law: requests/s x (latency - TTFT)."""
    latency, ttft, rate = level.latency_ms.mean.value, level.ttft_ms.mean.value, level.requests_per_s.value
    return None if latency is None or ttft is None or rate is None else rate * (latency - ttft) / 1e3


def knee_of(x: ArrayLike, y: ArrayLike) -> float:
    """Where a concave rising curve bends most: the largest y - x once both run from 0 to 1.

    The maximum of the difference curve of Kneedle (Satopaa, Albrecht, Irwin and Raghavan, "Finding a 'Kneedle' in a
    haystack", ICDCSW 2011). It depends on where the curve begins and ends.
    """
    x, y = np.asarray(x, dtype=np.float64), np.asarray(y, dtype=np.float64)
    return float(x[np.argmax((y - y.min()) / np.ptp(y) - (x - x.min()) / np.ptp(x))])


# --- universal scalability law


def _scalability(levels: Sequence[Level]) -> Scalability | None:
    """Gunther's law (Guerrilla Capacity Planning, 2007, chapter 4), its parameters not negative.

    n / X is linear in (1, n - 1, n (n - 1)); least squares of the relative errors.
    """
    if len(levels) < _FEWEST:
        return None
    n = np.array([float(x.load.value) for x in levels])
    x = np.array([x.output_tokens_per_s.value or 0.0 for x in levels])
    terms = np.column_stack([np.ones_like(n), n - 1, n * (n - 1)])
    coefficients, error = _fit(terms, n / x)
    first, contention, coherency = coefficients
    if first <= 0:
        return None
    law = Scalability(float(1 / first), float(contention / first), float(coherency / first), error, None, None)
    fine = np.linspace(n[0], n[-1], 512)
    drawn = throughput(law, fine)
    most = None
    if law.coherency > 0 and law.contention < 1:
        most = float(throughput(law, np.sqrt((1 - law.contention) / law.coherency)))
    elif law.contention > 0:
        most = law.rate / law.contention
    knee = knee_of(fine, drawn) if error <= TRUSTED and np.ptp(drawn) > 0 else None
    return Scalability(law.rate, law.contention, law.coherency, error, most, knee)


def _fit(terms: Floats, y: Floats) -> tuple[Floats, float]:
    """Coefficients, none negative, with the least relative errors; and the error at each level when it is left out.

    The outermost levels are always kept: without them it would be extrapolation that is judged.
    """
    from scipy import optimize  # a fifth of a second to load, and most runs do without

    scaled = terms / y[:, None]

    def solve(rows: Floats) -> Floats:
        found, _ = optimize.nnls(rows, np.ones(len(rows)))
        return np.asarray(found, dtype=np.float64)

    inner = range(1, len(y) - 1)
    misses = [scaled[i] @ solve(np.delete(scaled, i, axis=0)) - 1 for i in inner]
    return solve(scaled), float(np.sqrt(np.mean(np.square(misses))))


# --- step time


def _step_time(levels: Sequence[Level]) -> StepTime | None:
    """TPOT over the streams that decode, which a full batch bounds.

    The step of a continuous-batching engine costs a + b_d n + c P n / (O - 1) with n streams that decode: each brings
    a prompt of P tokens once in O - 1 steps. What is left of the TTFT without a queue, less a, is c P.
    """
    rows = [(decoding(level), level.tpot_ms.mean.value, level.ttft_ms.mean.value) for level in levels]
    known = sorted((streams, tpot, ttft) for streams, tpot, ttft in rows if streams and tpot and ttft is not None)
    if len(known) < _FEWEST or known[-1][0] < 1.5 * known[0][0]:
        return None
    batch, tpot_mean, ttft_mean = np.array(known).T
    (base, slope), error = _fit(np.column_stack([np.ones(len(known)), batch]), tpot_mean)
    alone = batch[0] < 1.5
    prefill = max(0.0, float(ttft_mean[0]) - float(base + slope * batch[0])) if alone else None
    return StepTime(float(base), float(slope), prefill, error, float(batch[-1]))


# --- where the levels stop too soon


def _warning(levels: Sequence[Level], law: Scalability | None) -> str | None:
    """A higher load, where the law expects it to be worth it. It is believed up to twice the largest level."""
    if law is None or law.error > TRUSTED:
        return None
    last, before = levels[-1], levels[-2]
    top = float(last.load.value)
    here, there = throughput(law, [top, 2 * top])
    gain = float(there / here - 1)
    measured = (last.output_tokens_per_s.value or 0.0) / (before.output_tokens_per_s.value or 1.0) - 1
    if gain < _RISING or measured < _RISING:
        return None
    return (
        f"throughput still rose at {last.load}: the fitted law expects some {gain:.0%} more at twice that load, "
        "so a higher one is worth measuring"
    )
