"""What people see of the machines of a run, where it had several."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from pacemark.nodes import NodeFacts, NodeLevel
from pacemark.reporting.words import plain
from pacemark.summary import Level, Summary
from pacemark.units import duration, number

__all__ = ["HEADS", "facts_of_nodes", "node_row", "nodes_in_words", "nodes_of"]

HEADS = ("Node", "Req.", "Tok/s", "TTFT\np50", "TTFT\np95", "Clock", "Lag\np99", "CPU", "Offset\n+/-", "Verdict")
"""Of the columns of `node_row`; times are in ms."""


def nodes_of(level: Level) -> Sequence[NodeLevel]:
    """The machines of a level; none where it was one alone."""
    return level.nodes or ()


def node_row(node: NodeLevel) -> tuple[str, ...]:
    """A machine's part in a level, a cell for each of `HEADS`."""
    return (
        plain(node.name),
        f"{node.requests:,}",
        _cell(node.output_tokens_per_s),
        _cell(node.ttft_ms_p50),
        _cell(node.ttft_ms_p95),
        node.clock,
        _cell(node.lag_ms_p99),
        "-" if node.cpu_share is None else f"{node.cpu_share:.0%}",
        _cell(node.offset_bound_ms),
        node.status,
    )


def _cell(value: float | None) -> str:
    return "-" if value is None else number(value)


def nodes_in_words(summary: Summary) -> str:
    """How many machines carried the load, how evenly, and how well their clocks are known; empty for one alone."""
    levels = [level for level in summary.levels if nodes_of(level)]
    if not levels:
        return ""
    last = nodes_of(levels[-1])
    rates = [node.output_tokens_per_s for node in last if node.output_tokens_per_s is not None]
    spread = f", {number(min(rates))} to {number(max(rates))} output tok/s each" if rates else ""
    each = f"{spread} at {plain(levels[-1].load)}" if len(summary.levels) > 1 else spread
    bound_ms = max(node.offset_bound_ms for level in levels for node in nodes_of(level))
    known = f"their clocks are known to {duration(bound_ms)}"
    return f"{len(last)} nodes carried the load{each}; {known}"


def facts_of_nodes(summary: Summary) -> list[tuple[str, str]]:
    """What each machine said of itself, by its name."""
    nodes = msgspec.convert(summary.run.get("nodes", []), list[NodeFacts])
    return [(f"Node: {node.name}", _told(node)) for node in nodes]


def _told(node: NodeFacts) -> str:
    said = [
        f"{node.address}, {node.cpus} CPUs, {node.workers} worker{'' if node.workers == 1 else 's'}",
        f"asks {' or '.join(node.target)}" + (f" through {node.proxy}" if node.proxy else ""),
        f"pacemark {node.pacemark}, Python {node.python}, {node.engine}",
    ]
    return plain("; ".join(said))
