"""A level of several machines, machine by machine: what each carried, and whether it is one to rely on."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import wraps

import msgspec
import numpy as np

from pacemark.figures import client, metrics
from pacemark.figures.evidence import Evidence, Finding
from pacemark.figures.health import Health
from pacemark.nodes import NodeLevel, NodePart
from pacemark.summary import VERDICTS, Level

__all__ = ["NODE_CHECKS", "by_node", "clocks", "nodes_of_all", "on_one_machine", "slowed"]

NodeCheck = Callable[[Evidence], Finding | None]

MOST_BOUND_MS = 5.0
"""Where clocks of machines may be further apart than this, starts, windows and rates by time are not to be trusted."""


def _on_each(check: NodeCheck) -> NodeCheck:
    """The check on each machine by itself, where there are several: the worst finding, with the names of all it is of.
    One that is in trouble may not show among many."""

    @wraps(check)
    def checked(e: Evidence) -> Finding | None:
        if not e.health.nodes:
            return check(e)
        found = [(part.name, one) for part, health in e.health.nodes if (one := check(replace(e, health=health)))]
        if not found:
            return None
        worst = max((one for _, one in found), key=lambda one: one.status == "invalid")
        names = [name for name, _ in found]
        which = ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")
        return Finding(worst.status, worst.code, f"on {which}: {worst.message}")

    return checked


_CHECKS: tuple[NodeCheck, ...] = (
    client.client_starved,
    client.client_throttled,
    client.client_stalled,
    client.client_busy,
    client.client_lag,
)
NODE_CHECKS: tuple[NodeCheck, ...] = tuple(map(_on_each, _CHECKS))
"""The checks of a client that are made of each machine by itself."""


def clocks(e: Evidence) -> Finding | None:
    """Machines of which it is not known well enough what time it is there."""
    jumped = [part for part, _ in e.health.nodes if part.jumped_ns > MOST_BOUND_MS * 1e6]
    if jumped:
        worst = max(jumped, key=lambda part: part.jumped_ns)
        text = f"the clock of {worst.name}, or of the coordinator, jumped by {worst.jumped_ns / 1e6:,.0f} ms under way"
        return Finding("suspect", "clocks", f"{text} (one was paused); repeat the level on machines that run on")
    off = [part for part, _ in e.health.nodes if part.bound_ns > MOST_BOUND_MS * 1e6]
    if not off:
        return None
    worst = max(off, key=lambda part: part.bound_ns)
    return Finding(
        "suspect",
        "clocks",
        f"the clock of {worst.name} is known to {worst.bound_ns / 1e6:.1f} ms only, so its requests may be so far off "
        "in time (their latencies hold); measure over a quieter network, or give the coordinator a core",
    )


def slowed(e: Evidence) -> Finding | None:
    """Workers that have to stand back behind others on their machine."""
    low = [part for part, _ in e.health.nodes if part.niceness > 0]
    if not low:
        return None
    text = f"the workers on {low[0].name} run at niceness {low[0].niceness}, behind whatever else runs there"
    return Finding("suspect", "niceness", f"{text}; start Ray there without nice, and with RAY_worker_niceness=0")


def on_one_machine(e: Evidence) -> Finding | None:
    """Nodes that share a machine share its ports and its network."""
    boots = Counter(part.boot for part, _ in e.health.nodes if part.boot)
    same = [part.name for part, _ in e.health.nodes if boots[part.boot] > 1]
    if not same:
        return None
    text = f"{' and '.join(same[:2])} are on one machine, and share its network and its ports"
    return Finding("note", "one_machine", f"{text}; keep nodes on machines of their own")


def by_node(e: Evidence) -> list[NodeLevel]:
    """What each machine carried and how it fared; nothing where there was but one."""
    return [_of_one(e, part, health) for part, health in e.health.nodes]


def _of_one(e: Evidence, part: NodePart, health: Health) -> NodeLevel:
    mine = e.trace.index % len(e.health.nodes) == part.number
    own = e.trace.taken(np.flatnonzero(mine))
    _, tokens = metrics.tokens_in(own, e.window.start_ns, e.window.end_ns)
    ttft_ms = metrics.ttft_ms(e.trace)[mine & e.good]
    ttft_ms = ttft_ms[np.isfinite(ttft_ms)]
    p50, p95 = np.quantile(ttft_ms, [0.5, 0.95]).tolist() if len(ttft_ms) else (None, None)
    alone = replace(health, nodes=((part, health),))
    found = [one for check in (*_CHECKS, clocks, slowed) if (one := check(replace(e, health=alone)))]
    said = [part.lost, *(one.message for one in found)]
    bad = part.lost or any(one.status == "invalid" for one in found)
    return NodeLevel(
        name=part.name,
        requests=int((mine & e.sample).sum()),
        failed=int((mine & e.sample & ~e.good).sum()),
        output_tokens_per_s=float(tokens.sum()) / e.window.seconds
        if e.window.seconds and not own.outlined.any()
        else None,
        ttft_ms_p50=p50,
        ttft_ms_p95=p95,
        clock="kernel" if health.clock == "kernel" else "user",
        lag_ms_p99=part.lag_ns[1] / 1e6 if part.lag_ns is not None else None,
        cpu_share=max(health.worker_cpu_share, default=None),
        wait_share=max(health.worker_wait_share, default=None),
        idle_share=health.idle_share,
        stall_ms=health.stall_ns / 1e6 if part.reads else None,
        offset_s=part.offset_ns / 1e9,
        offset_bound_ms=part.bound_ns / 1e6,
        drift_ppm=part.drift_ppm,
        status="invalid" if bad else "suspect" if found else "valid",
        why="; ".join(filter(None, said)),
    )


def nodes_of_all(levels: Sequence[Level]) -> list[NodeLevel]:
    """The machines of one load that was measured several times: requests added up, figures averaged, of health and
    clocks the worst."""
    every = [node for level in levels for node in level.nodes or ()]
    return [_joined([node for node in every if node.name == name]) for name in dict.fromkeys(n.name for n in every)]


def _joined(same: Sequence[NodeLevel]) -> NodeLevel:
    def known(name: str) -> list[float]:
        return [value for node in same if (value := getattr(node, name)) is not None]

    means = {n: float(np.mean(known(n))) for n in ("output_tokens_per_s", "ttft_ms_p50", "ttft_ms_p95") if known(n)}
    worst = ("lag_ms_p99", "cpu_share", "wait_share", "stall_ms", "offset_bound_ms")
    return msgspec.structs.replace(
        max(same, key=lambda node: VERDICTS.index(node.status)),
        requests=sum(node.requests for node in same),
        failed=sum(node.failed for node in same),
        idle_share=min(known("idle_share"), default=None),
        **means,
        **{name: max(known(name), default=None) for name in worst},
    )
