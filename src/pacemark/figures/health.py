"""How well the client itself kept up while a level ran."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from itertools import zip_longest
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from pacemark.nodes import NodePart
from pacemark.summary import Spread
from pacemark.trace import Beat, Trace


@dataclass(frozen=True, slots=True)
class Health:
    """Client health of one level. `lag_ns` has one entry per stamped read."""

    clock: Literal["kernel", "user", "virtual"] = "virtual"
    lag_ns: NDArray[np.int32] = field(default_factory=lambda: np.zeros(0, np.int32))
    send_ns: NDArray[np.int64] = field(default_factory=lambda: np.zeros(0, np.int64))
    """Per request: how long the sending call took, by which its t0 is uncertain."""
    reads: int = 0
    coalesced_reads: int = 0
    cpu_ns: int = 0
    """CPU time of the workers."""
    worker_cpu_share: tuple[float, ...] = ()
    worker_wait_share: tuple[float, ...] = ()
    """Share of the time each worker was ready to run and had no CPU."""
    idle_share: float | None = None
    """How idle the cores were that the workers may use: the median over time, of the worst placed worker; None where
    that is unknown."""
    stall_ns: int = 0
    reconnects: int = 0
    died: tuple[str, ...] = ()
    throttled_share: float = 0.0
    """Share of the time for which the CPU quota of the container stopped it: at most that, for the kernel counts the
    time once for each CPU that it stops."""
    nodes: tuple[tuple[NodePart, Health], ...] = ()
    """Of several machines each, with its own health, whose `lag_ns` is its p99 alone."""


def spread_ms(values_ns: NDArray[np.int32] | NDArray[np.int64] | NDArray[np.float64]) -> Spread:
    """p50, p99 and maximum in ms; None of an empty sample."""
    if not len(values_ns):
        return Spread()
    p50, p99 = np.quantile(values_ns, [0.5, 0.99], method="higher") / 1e6
    return Spread(float(p50), float(p99), float(values_ns.max() / 1e6))


def _idle(beats: Sequence[Beat]) -> float | None:
    known = [b.idle_share for b in beats if b.idle_share >= 0]
    return float(np.median(known)) if known else None


def health_of(trace: Trace, beats: Sequence[Beat], died: Sequence[str] = (), parts: Sequence[NodePart] = ()) -> Health:
    """Health of a level from its requests and the pulses its workers gave while it ran; `parts` are what its machines
    were to it, where it had several."""
    whole = health_from(trace.lag_ns, trace.send_ns, int(trace.coalesced_reads.sum()), beats, died)
    return replace(whole, nodes=tuple((part, _of_node(part, len(parts), trace, beats)) for part in parts))


def _of_node(part: NodePart, nodes: int, trace: Trace, beats: Sequence[Beat]) -> Health:
    mine = trace.index % nodes == part.number
    lags = np.asarray(part.lag_ns[1:2] if part.lag_ns is not None else (), np.int32)
    coalesced = int(trace.coalesced_reads[mine].sum())
    own = health_from(lags, trace.send_ns[mine], coalesced, [b for b in beats if b.worker % nodes == part.number])
    return replace(own, clock="kernel" if 2 * part.stamped > part.reads else "user", reads=part.reads)


def health_from(
    lags: NDArray[np.int32],
    send_ns: NDArray[np.int64],
    coalesced_reads: int,
    beats: Sequence[Beat],
    died: Sequence[str] = (),
) -> Health:
    """The same from columns: the lag of each read and the sending time of each request, both in ns."""
    known = lags >= 0
    stamped = lags if known.all() else lags[known]  # a copy costs as much again
    pulses = [[b for b in beats if b.worker == worker] for worker in sorted({b.worker for b in beats})]
    lengths = [max(1, own[-1].now_ns - own[0].now_ns) for own in pulses]
    cpu_ns = [own[-1].cpu_ns - own[0].cpu_ns for own in pulses]
    wait_ns = [own[-1].wait_ns - own[0].wait_ns for own in pulses]
    stopped_ns = [own[-1].throttled_ns - own[0].throttled_ns for own in pulses]
    shares = (min(1.0, stopped / length) for stopped, length in zip(stopped_ns, lengths, strict=True))
    return Health(
        clock="kernel" if len(stamped) * 2 > len(lags) else "user",
        lag_ns=stamped,
        send_ns=send_ns,
        reads=len(lags),
        coalesced_reads=coalesced_reads,
        cpu_ns=sum(cpu_ns),
        worker_cpu_share=tuple(cpu / length for cpu, length in zip(cpu_ns, lengths, strict=True)),
        worker_wait_share=tuple(wait / length for wait, length in zip(wait_ns, lengths, strict=True)),
        throttled_share=max(shares, default=0.0),
        idle_share=min((mean for own in pulses if (mean := _idle(own)) is not None), default=None),
        stall_ns=max((b.stall_ns for b in beats), default=0),
        reconnects=sum(own[-1].reconnects - own[0].reconnects for own in pulses),
        died=tuple(died),
    )


def joined(parts: Sequence[Health]) -> Health:
    """The health of several levels as if they had been one: what adds up is added, and of the rest the worst counts."""
    idle = [p.idle_share for p in parts if p.idle_share is not None]
    return Health(
        clock="user" if any(p.clock == "user" for p in parts) else parts[0].clock,
        lag_ns=np.concatenate([p.lag_ns for p in parts]),
        send_ns=np.concatenate([p.send_ns for p in parts]),
        reads=sum(p.reads for p in parts),
        coalesced_reads=sum(p.coalesced_reads for p in parts),
        cpu_ns=sum(p.cpu_ns for p in parts),
        worker_cpu_share=tuple(map(max, zip_longest(*(p.worker_cpu_share for p in parts), fillvalue=0.0))),
        worker_wait_share=tuple(map(max, zip_longest(*(p.worker_wait_share for p in parts), fillvalue=0.0))),
        throttled_share=max(p.throttled_share for p in parts),
        idle_share=min(idle, default=None),
        stall_ns=max(p.stall_ns for p in parts),
        reconnects=sum(p.reconnects for p in parts),
        died=tuple(dict.fromkeys(who for p in parts for who in p.died)),
    )
