"""One level, summed up: columns and a window in, figures and a verdict out.

This is the one place where measured and simulated traces become results, so that what is proven of the one
holds for the other.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pacemark import metrics, stats
from pacemark.exchange import Trace
from pacemark.health import Health, spread_ms
from pacemark.pace import Load, Rate
from pacemark.summary import Client, Distribution, Figure, Level, Requests
from pacemark.verdict import Evidence, judge

Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class LevelResult:
    """A level's summary together with the columns it was computed from."""

    load: Load
    level: Level
    trace: Trace
    window: metrics.Window
    health: Health


Measure = Callable[[Load], LevelResult]
"""The measuring step. A network and a simulator each give one; sweep, search and statistics know no more."""


def sum_up(load: Load, trace: Trace, window: metrics.Window, health: Health) -> LevelResult:
    """Figures of one level from its trace.

    Latency figures stand on the requests that started inside the window; throughput stands on the tokens that
    arrived inside it.
    """
    sample = metrics.started_in(trace, window.start_ns, window.end_ns)
    good = sample & metrics.succeeded(trace)
    seconds = window.seconds
    failures = Counter(trace.error[trace.error != ""].tolist())
    times, tokens = metrics.tokens_in(trace, window.start_ns, window.end_ns)
    ended = trace.ended_ns[metrics.succeeded(trace)]
    first = trace.hi_ns[np.minimum(trace.offsets[:-1], max(len(trace.hi_ns) - 1, 0))] if len(trace.hi_ns) else ended
    arrived = np.diff(trace.offsets) > 0
    output = _rate(times, tokens, window)
    taken_in = _rate(first[arrived], np.maximum(trace.input_tokens[arrived], 0), window)
    counted = good & trace.tokens_from_usage
    evidence = Evidence(load, trace, window, health, sample, good)
    return LevelResult(
        load=load,
        level=Level(
            load=load,
            window_s=seconds if seconds > 0 else None,
            requests=Requests(
                completed=int(metrics.succeeded(trace).sum()),
                failed=int((trace.error != "").sum()),
                in_window=int(sample.sum()),
                short=int((good & (trace.output_tokens < trace.asked_tokens)).sum()),
            ),
            errors=dict(sorted(failures.items())),
            output_tokens_per_s=output,
            total_tokens_per_s=_total(output, taken_in, bool((trace.input_tokens[good] >= 0).any())),
            requests_per_s=_rate(ended, np.ones(len(ended)), window),
            input_tokens=_mean(trace.input_tokens[counted & (trace.input_tokens >= 0)]),
            output_tokens=_mean(trace.output_tokens[good]),
            ttft_ms=_distribution(metrics.ttft_ms(trace)[sample]),
            tpot_ms=_distribution(metrics.tpot_ms(trace)[sample]),
            itl_ms=_bounded(*metrics.gaps(trace, good)),
            latency_ms=_distribution(metrics.latency_ms(trace)[sample]),
            client=_client(load, trace, good, health),
            verdict=judge(evidence),
        ),
        trace=trace,
        window=window,
        health=health,
    )


def _rate(
    times_ns: NDArray[np.int64], weights: NDArray[np.float64] | NDArray[np.int64], window: metrics.Window
) -> Figure:
    if window.seconds <= 0:
        return Figure()
    return stats.rate_interval(times_ns, weights, window.start_ns, window.end_ns).figure


def _total(output: Figure, taken_in: Figure, known: bool) -> Figure:
    if not known or output.value is None or taken_in.value is None:
        return Figure()
    return Figure(output.value + taken_in.value)


def _mean(values: NDArray[np.int64]) -> float | None:
    return float(values.mean()) if len(values) else None


def _distribution(values: NDArray[np.float64]) -> Distribution:
    known = values[np.isfinite(values)]
    return Distribution(
        stats.mean_interval(known).figure,
        *(_quantile(known, q) for q in (0.50, 0.90, 0.95, 0.99)),
    )


def _quantile(values: NDArray[np.float64], q: float) -> Figure:
    figure = stats.quantile_interval(values, q).figure
    if figure.value is None and len(values) * (1 - q) >= 1:
        # Enough to say where it lies, not enough to say how surely.
        return Figure(float(np.quantile(values, q)), figure.low, figure.high)
    return figure


def _bounded(stamped: Floats, least: Floats, most: Floats) -> Distribution:
    """Mean and quantiles of pooled gaps. Their low and high are no confidence interval but what the true figure lies
    between, given that events which were read together have one stamp."""
    if not len(stamped):
        return Distribution()
    rows = [(x.mean(), *np.quantile(x, [0.50, 0.90, 0.95, 0.99])) for x in (stamped, least, most)]
    return Distribution(*(Figure(float(v), float(low), float(high)) for v, low, high in zip(*rows, strict=True)))


def _client(load: Load, trace: Trace, good: NDArray[np.bool_], health: Health) -> Client:
    return Client(
        clock=health.clock,
        lag_ms=spread_ms(health.lag_ns),
        cpu_us_per_event=health.cpu_ns / 1e3 / health.reads if health.reads and health.cpu_ns else None,
        coalesced_share=health.coalesced_reads / health.reads if health.reads else None,
        stall_ms=health.stall_ns / 1e6 if health.reads else None,
        cpu_share=[round(share, 4) for share in health.worker_cpu_share],
        wait_share=[round(share, 4) for share in health.worker_wait_share],
        reconnects=health.reconnects,
        bound=_bound(trace, good, health),
        lateness_ms=spread_ms(trace.sent_ns - trace.scheduled_ns) if isinstance(load, Rate) else None,
    )


STAMP_ERROR_MS = 0.1
"""How far a kernel stamp can be from the arrival on a quiet machine; measured on loopback (docs/accuracy.md)."""


def _bound(trace: Trace, good: NDArray[np.bool_], health: Health) -> str | None:
    """The most that the client can have added to the TTFT tail: what coalesced reads leave open, and, without kernel
    stamps, the event loop's own absence."""
    ttft = metrics.ttft_ms(trace)
    known = good & np.isfinite(ttft)
    if health.clock == "virtual" or not known.any():
        return None
    first = trace.offsets[:-1][known]
    slack = (trace.hi_ns[first] - trace.lo_ns[first]) / 1e6
    over = float(np.quantile(ttft[known], 0.99) - np.quantile(ttft[known] - slack, 0.99)) + STAMP_ERROR_MS
    if health.clock == "user":
        over += health.stall_ns / 1e6
    return f"TTFT p99 may be overstated by at most {over:.1f} ms by this client"
