"""Latencies of a level: mean and quantiles with their intervals, what they stand on, and what a reader feels."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from pacemark.figures import metrics, quantiles, stats
from pacemark.figures.estimate import Estimate
from pacemark.figures.health import spread_ms
from pacemark.summary import Basis, Distribution, Experience, Figure, Spread
from pacemark.trace import ABSENT, Trace

Floats = NDArray[np.float64]
Mask = NDArray[np.bool_]

_QUANTILES = {"p50": 0.50, "p90": 0.90, "p95": 0.95, "p99": 0.99}


def finite(values: Floats) -> Floats:
    """The values that are there."""
    return values[np.isfinite(values)]


def estimates_of(known: Floats) -> dict[str, Estimate]:
    """The mean and the quantiles of a metric, by the names they have in a `Distribution`."""
    intervals = quantiles.quantile_intervals(known, list(_QUANTILES.values()))
    return {"mean": stats.mean_interval(known), **dict(zip(_QUANTILES, intervals, strict=True))}


def distribution(known: Floats, estimates: dict[str, Estimate]) -> Distribution:
    """Figures of a metric whose `known` values (n,) have these `estimates`."""
    points = {name: _pointed(known, q, estimates[name].figure) for name, q in _QUANTILES.items()}
    return Distribution(estimates["mean"].figure, **points)


def spread_of(values: Floats) -> Distribution:
    """Figures of the values (n,) that are there."""
    known = finite(values)
    return distribution(known, estimates_of(known))


def basis(known: Floats, estimates: dict[str, Estimate]) -> Basis:
    """What the figures of the `known` values (n,) stand on."""
    if not len(known):
        return Basis(note="insufficient: no values")
    median, high = estimates["p50"], estimates["p95"]
    phi = max(1.0, len(known) / max(high.n_eff, 1e-9))
    certified = {name: quantiles.certified_quantile(known, q, phi=phi) for name, q in _QUANTILES.items() if q > 0.5}
    scatter = {name: e.scatter for name, e in estimates.items() if e.scatter is not None}
    return Basis(len(known), high.n_eff, certified, _lacking(median, high), scatter)


def _lacking(median: Estimate, high: Estimate) -> str | None:
    """Which of the two has no interval, and what it would take."""
    refused = {"p50": median, "p95": high}
    if not (messages := {name: said for name, x in refused.items() if (said := x.message())}):
        return None
    worst = max((refused[name] for name in messages), key=Estimate.needed)
    return f"{' and '.join(messages)}: {(worst.message() or '').removeprefix('insufficient: ')}"


def _pointed(known: Floats, q: float, figure: Figure) -> Figure:
    """A quantile with at least one request beyond it has a point, if no upper limit; with none it has but a bound."""
    if figure.value is not None or len(known) * (1 - q) < 1:
        return figure
    return Figure(float(np.quantile(known, q, method="inverted_cdf")), figure.low, None)


def between_events(trace: Trace, good: Mask) -> tuple[Distribution, int]:
    """Mean and quantiles of pooled gaps, and how many gaps there are. Their low and high are no confidence interval but
    what the true figure lies between, given that events which were read together have one stamp."""
    count = int(np.maximum(np.diff(trace.offsets)[good] - 1, 0).sum())
    if not count or trace.outlined.any():
        return Distribution(), 0
    exact = trace.exact
    kinds = (metrics.STAMPED,) if exact else (metrics.STAMPED, metrics.LEAST, metrics.MOST)
    rows = [_pooled(trace, good, which, count) for which in kinds]
    values, lows, highs = rows * 3 if exact else rows
    mean, p50, p90, p95, p99 = (Figure(*three) for three in zip(values, lows, highs, strict=True))
    return Distribution(mean, p50, p90, p95, p99), count


def _pooled(trace: Trace, good: Mask, which: int, count: int) -> tuple[float, ...]:
    """Mean and quantiles of one of the three kinds of gaps. A float32 holds a gap to the nanosecond up to 16 ms, and
    to the ten-millionth part above."""
    pooled, filled = np.empty(count, np.float32), 0
    for rows, part in metrics.parts(trace):
        some = metrics.gap(part, good[rows], which)
        pooled[filled : filled + len(some)] = some
        filled += len(some)
    mean = float(pooled.mean(dtype=np.float64))
    quantiles = np.quantile(pooled, list(_QUANTILES.values()), overwrite_input=True)
    return mean, *(float(value) for value in quantiles)


def views(trace: Trace, good: Mask) -> dict[str, Spread]:
    """What tools call TTFT: the time to the headers, the first event, the first token, in ms."""
    named = {
        "headers": metrics.ttfb_ms(trace),
        "first_event": metrics.ttfe_ms(trace),
        "first_token": metrics.ttft_ms(trace),
        "first_answer_token": metrics.ttfa_ms(trace),
        "first_token_from_schedule": metrics.ttft_ms(trace) + (not trace.open_loop) * metrics.send_delay_ms(trace),
    }
    return {name: spread_ms(values[good & np.isfinite(values)] * 1e6) for name, values in named.items()}


_WORDS_PER_TOKEN = 0.75
_FLUIDITY_SAMPLE = 2000


def experience(trace: Trace, good: Mask, tpot: Distribution, ttft: Distribution) -> Experience:
    """What a reader of the `good` answers (n,) feels."""
    streamed = good & (trace.first_event_ns != ABSENT)
    if not streamed.any() or tpot.p50.value is None or ttft.p50.value is None:
        return Experience()
    pace = tpot.p50
    per_user = Figure(*(1e3 / v if v else None for v in (pace.value, pace.high, pace.low)))
    judged = streamed.copy()
    judged[np.flatnonzero(streamed)[_FLUIDITY_SAMPLE:]] = False
    fluid = metrics.fluidity(trace, judged, 1.25 * ttft.p50.value, 1.25 * pace.value) if pace.value else np.zeros(0)
    return Experience(
        longest_stall_ms=spread_of(metrics.longest_stall_ms(trace)[good]),
        reading_idle_ms=spread_of(metrics.reading_idle_ms(trace)[good]),
        fluidity=as_share(stats.mean_interval(fluid).figure),
        tokens_per_s_per_user=per_user,
        words_per_minute=scaled(per_user, 60 * _WORDS_PER_TOKEN),
    )


def as_share(figure: Figure) -> Figure:
    """A share and the ends of its interval, none of them below 0 or above 1."""
    return Figure(*(None if x is None else min(1.0, max(0.0, x)) for x in (figure.value, figure.low, figure.high)))


def scaled(figure: Figure, factor: float) -> Figure:
    """The figure and its ends, times `factor`."""
    return Figure(*(None if part is None else part * factor for part in (figure.value, figure.low, figure.high)))
