"""What the client that measured a level can have added to it, and the checks of it."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from pacemark.figures import metrics
from pacemark.figures.evidence import Evidence, Finding
from pacemark.figures.health import Health, spread_ms
from pacemark.figures.remedy import keep_up
from pacemark.pace import Concurrency, Load, Rate
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


LEAST_IDLE = 0.03
"""Below this share of idle time a core has nothing left for a client that wakes up."""


def client_starved(e: Evidence) -> Finding | None:
    """A client that waits for a core sends late and reads late, whatever its clock says."""
    share = max(e.health.worker_wait_share, default=0.0)
    idle = e.health.idle_share
    if share <= 0.15 and idle is not None and idle < LEAST_IDLE:
        text = f"the cores that this client may use were idle only {idle:.0%} of the time, so it had to fight for them"
        return Finding("suspect", "client_starved", f"{text}; free a core for it, or load from a machine that has one")
    if share <= 0.15:
        return None
    return Finding(
        "suspect" if share <= 0.4 else "invalid",
        "client_starved",
        f"this client was ready to run but had no CPU for {share:.0%} of the time; free a core for it, "
        "or load from a machine that has one",
    )


def client_throttled(e: Evidence) -> Finding | None:
    """A client that is stopped by its quota has a CPU and may not use it."""
    share = e.health.throttled_share
    if share <= 0.05:
        return None
    return Finding(
        "suspect",
        "client_throttled",
        f"the CPU quota of this container (cpu.max) stopped it for up to {share:.0%} of the time, and what arrived "
        "then was read late; give it more CPU, or use fewer --workers",
    )


STOOD_STILL_MS = 500.0
"""A client that was away for so long, and for a hundredth of the window, did not offer the load."""


def stood_still_ms(e: Evidence) -> float:
    """How long a worker did nothing at a stretch, where that is too long to pass over; else 0."""
    away_ms = e.health.stall_ns / 1e6
    return away_ms if away_ms > max(STOOD_STILL_MS, 10 * e.window.seconds) else 0.0


def client_stalled(e: Evidence) -> Finding | None:
    """A client that stood still asked for nothing, and what it had asked for piled up."""
    away_ms = stood_still_ms(e)
    if not away_ms:
        return None
    text = f"this client stood still for {away_ms / 1e3:.1f} s (suspended, stopped, or out of memory), and asked for "
    return Finding("suspect", "client_stalled", f"{text}nothing then; repeat the level on a machine that runs on")


def client_busy(e: Evidence) -> Finding | None:
    """A worker near one whole core queues its own reads."""
    share = max(e.health.worker_cpu_share, default=0.0)
    if share <= 0.85:
        return None
    text = f"a worker of this client was busy {share:.0%} of the time; {keep_up(e.health.idle_share)}"
    return Finding("suspect", "client_busy", text)


def client_lag(e: Evidence) -> Finding | None:
    """How long answers lay in the kernel. Its stamps make up for that, up to where events pile up in one read."""
    if not len(e.health.lag_ns):
        return None
    lag_ms = float(np.quantile(e.health.lag_ns, 0.99)) / 1e6
    gap, whole = e.level.itl_ms.p50.value, e.level.latency_ms.p50.value  # an answer in one piece has no gaps
    typical = gap or whole or 20.0
    what = "an answer takes" if whole and not gap else "tokens come every"
    if lag_ms <= max(5.0, 0.5 * typical):
        return None
    return Finding(
        "suspect",
        "client_lag",
        f"this client read answers up to {lag_ms:.1f} ms after they arrived (p99), where {what} "
        f"{typical:.1f} ms; {keep_up(e.health.idle_share)}",
    )


def coalesced(e: Evidence) -> Finding | None:
    """Events that were read together have one stamp, so their gaps are bounds."""
    least, most = e.level.itl_ms.p99.low, e.level.itl_ms.p99.high
    if e.gaps < 100 or least is None or most is None:
        return None
    if most - least <= max(1.0, 0.1 * least):
        return None
    text = f"events arrived together, so ITL p99 is only known to lie between {least:.1f} and {most:.1f} ms: "
    late_ms = float(np.quantile(e.health.lag_ns, 0.99)) / 1e6 if len(e.health.lag_ns) else 0.0
    late_ms = max(late_ms, stood_still_ms(e))
    if late_ms > 0.5 * (most - least):
        return Finding("suspect", "coalesced", f"{text}this client read late; {keep_up(e.health.idle_share)}")
    return Finding("suspect", "coalesced", f"{text}the server or a proxy sends several at once; find what buffers")


def late_sends(e: Evidence) -> Finding | None:
    """Open loop: a request that leaves late did not arrive as the arrival process says."""
    if not e.trace.open_loop or not e.sample.any():
        return None
    late = metrics.send_delay_ms(e.trace)[e.sample]
    p99, p50 = float(np.quantile(late, 0.99)), float(np.median(late))
    ttft = metrics.ttft_ms(e.trace)[e.good]
    typical = float(np.nanmedian(ttft)) if np.isfinite(ttft).any() else 100.0
    if p99 <= max(1.0, 0.01 * typical):
        return None
    remedy = f"raise --max-in-flight, which is {e.max_in_flight}" if e.max_in_flight else keep_up(e.health.idle_share)
    return Finding(
        "invalid" if p99 > 0.05 * typical and p50 > 10.0 else "suspect",
        "late_sends",
        f"this client sent requests up to {p99:.1f} ms after they were due (p99); latencies count from the due time, "
        f"so they hold, but the arrivals were less even than asked; {remedy}",
    )


def underfilled(e: Evidence) -> Finding | None:
    """Closed loop: the slots must be in use, or the load was less than it says."""
    if not isinstance(e.level.load, Concurrency) or e.window.seconds <= 0 or not len(e.trace):
        return None
    begin = np.clip(e.trace.sent_ns, e.window.start_ns, e.window.end_ns)
    end = np.clip(e.trace.ended_ns, e.window.start_ns, e.window.end_ns)
    used = float((end - begin).sum()) / 1e9 / e.window.seconds / e.level.load.value
    if used >= 0.95:
        return None
    failed = int(e.sample.sum() - e.good.sum()) > 0.01 * int(e.sample.sum())
    why = f"the client kept slots empty; {keep_up(e.health.idle_share)}"
    if failed:
        why = "requests that failed left slots empty for a while; mend the failures"
    return Finding(
        "suspect",
        "underfilled",
        f"on average {used * e.level.load.value:.1f} of {e.level.load.value} requests were in flight: {why}",
    )
