"""What a page can draw of a level beyond its figures: how the latencies are distributed, and some of its requests.

However many requests there are, a picture stays small: a distribution is read off at fixed shares, and of the requests
a stretch in the middle of the window is taken.
"""

from __future__ import annotations

import heapq

import msgspec
import numpy as np
from numpy.typing import NDArray

from pacemark.figures import metrics
from pacemark.figures.level import LevelResult
from pacemark.trace import Int64, Trace

__all__ = ["SHARES", "Lane", "LevelPicture", "pictured"]

SHARES = (0.0, *(n / 100 for n in range(1, 100)), 0.995, 0.999, 1.0)
"""At which a distribution is read off; the last ones only where there are as many requests."""
METRICS = ("ttft_ms", "tpot_ms", "latency_ms")
LANES, MOST = 40, 160
"""How many lanes are drawn, and how many requests in them."""


class Lane(msgspec.Struct, frozen=True, array_like=True):
    """One request; times in ms from the start of the stretch that is drawn, None where it never came so far."""

    lane: int
    due: float
    sent: float
    first: float | None
    """Its first token."""
    ended: float
    error: str = ""


class LevelPicture(msgspec.Struct, frozen=True):
    """What can be drawn of one measurement of a level."""

    name: str
    """Its load; in a length grid its lengths."""
    spreads: dict[str, list[float]]
    """By metric: the value that each of `SHARES` of the window's requests has at the most; fewer where they are few."""
    lanes: list[Lane]


def pictured(result: LevelResult, name: str) -> LevelPicture:
    """The picture of a level that is called `name`."""
    trace, window = result.trace, result.window
    good = metrics.started_in(trace, window.start_ns, window.end_ns) & metrics.succeeded(trace)
    rows = np.flatnonzero(good)
    spreads = {}
    for metric in METRICS:
        values = getattr(metrics, metric)(trace)[rows]
        values = values[np.isfinite(values)]
        if len(values):
            shares = [share for share in SHARES if share in (0.0, 1.0) or len(values) * (1 - share) >= 1]
            spreads[metric] = [float(f"{x:.5g}") for x in np.quantile(values, shares, method="inverted_cdf")]
    return LevelPicture(name, spreads, _lanes(trace, (window.start_ns + window.end_ns) // 2))


def _lanes(trace: Trace, middle_ns: int) -> list[Lane]:
    """Requests about the middle of a window: whole lanes of streams, or of arrivals that lie where there is room."""
    due = trace.scheduled_ns if trace.open_loop else trace.sent_ns
    if not len(trace):
        return []
    span_ns = int(2.2 * np.median(trace.ended_ns - trace.sent_ns))
    rows = np.flatnonzero((trace.ended_ns > middle_ns - span_ns) & (due < middle_ns + span_ns))
    rows = rows[np.argsort(due[rows], kind="stable")]
    places = _packed(due[rows], trace.ended_ns[rows]) if trace.open_loop else _streams(trace.stream[rows])
    kept = np.flatnonzero(places < LANES)[:MOST]
    if not len(kept):
        return []
    start_ns = int(due[rows[kept]].min())
    first_ms = metrics.ttft_ms(trace)[rows[kept]] + (due[rows[kept]] - start_ns) / 1e6

    def ms(ns: int) -> float:
        return round((ns - start_ns) / 1e6, 2)

    return [
        Lane(
            int(places[n]),
            ms(int(due[row])),
            ms(int(trace.sent_ns[row])),
            round(float(first), 2) if np.isfinite(first) else None,
            ms(int(trace.ended_ns[row])),
            str(trace.error[row]),
        )
        for n, row, first in zip(kept.tolist(), rows[kept].tolist(), first_ms.tolist(), strict=True)
    ]


def _streams(streams: NDArray[np.int32]) -> Int64:
    """A lane for each stream, in their order."""
    return np.unique(streams, return_inverse=True)[1].astype(np.int64)


def _packed(due: Int64, ended: Int64) -> Int64:
    """For each request, in the order they were due, the first lane that is free."""
    free: list[int] = []
    busy: list[tuple[int, int]] = []
    places = np.zeros(len(due), np.int64)
    for n, (begin, end) in enumerate(zip(due.tolist(), ended.tolist(), strict=True)):
        while busy and busy[0][0] <= begin:
            heapq.heappush(free, heapq.heappop(busy)[1])
        places[n] = heapq.heappop(free) if free else len(busy)
        heapq.heappush(busy, (end, int(places[n])))
    return places
