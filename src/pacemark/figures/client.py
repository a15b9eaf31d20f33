"""What the client that measured a level can have added to it."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from pacemark.figures import metrics
from pacemark.figures.health import Health, spread_ms
from pacemark.pace import Load, Rate
from pacemark.summary import Client
from pacemark.trace import Trace

Mask = NDArray[np.bool_]


def client(load: Load, trace: Trace, good: Mask, health: Health) -> Client:
    """How well this machine kept up while the level ran; `good` (n,) are the requests that its figures stand on."""
    most_ms = bound_ms(trace, good, health)
    return Client(
        clock=health.clock,
        lag_ms=spread_ms(health.lag_ns),
        cpu_us_per_event=health.cpu_ns / 1e3 / health.reads if health.reads and health.cpu_ns else None,
        coalesced_share=health.coalesced_reads / health.reads if health.reads else None,
        stall_ms=health.stall_ns / 1e6 if health.reads else None,
        cpu_share=[round(share, 4) for share in health.worker_cpu_share],
        wait_share=[round(share, 4) for share in health.worker_wait_share],
        idle_share=health.idle_share,
        reconnects=health.reconnects,
        bound_ms=most_ms,
        bound=None if most_ms is None else f"TTFT p99 may be overstated by at most {most_ms:.1f} ms by this client",
        lateness_ms=spread_ms(trace.sent_ns - trace.scheduled_ns) if isinstance(load, Rate) else None,
    )


STAMP_ERROR_MS = 0.1
"""How far a kernel stamp can be from the arrival on a quiet machine; measured on loopback (docs/accuracy.md)."""


def bound_ms(trace: Trace, good: Mask, health: Health) -> float | None:
    """The most that the client can have added to the TTFT tail: what coalesced reads leave open, how long sending
    took, and, without kernel stamps, the event loop's own absence."""
    ttft = metrics.ttft_ms(trace)
    known = good & np.isfinite(ttft)
    if health.clock == "virtual" or not known.any():
        return None
    first = trace.offsets[:-1][known]
    slack = (trace.hi_ns[first] - trace.lo_ns[first]) / 1e6
    over = float(np.quantile(ttft[known], 0.99) - np.quantile(ttft[known] - slack, 0.99)) + STAMP_ERROR_MS
    if len(health.send_ns):
        over += float(np.quantile(health.send_ns, 0.99)) / 1e6
    if health.clock == "user":
        over += health.stall_ns / 1e6
    return over
