"""What the server told of itself, in words: whether both sides agree, and where the time goes."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

from msgspec import UnsetType

from pacemark.metered import Agreement, Gauge, Phases, Server, ServerRun
from pacemark.pace import Concurrency
from pacemark.summary import Level, Summary
from pacemark.units import number

__all__ = ["agreement_in_words", "server_in_words", "where_time_goes"]

_CALLED = {
    "requests": "requests",
    "input_tokens": "tokens in",
    "output_tokens": "tokens out",
    "ttft_ms": "mean TTFT, ms",
    "request_ttft_ms": "TTFT of each request",
    "decode_s": "decode time, s",
    "in_flight": "requests in flight",
}
_PHASES = ("network", "queue", "prefill")
"""What TTFT is made of beside the client's own share."""


def server_in_words(level: Level) -> list[str]:
    """A few lines on one level; none where nothing was told."""
    server = level.server
    if isinstance(server, UnsetType):
        return []
    told = [
        *(f"{name} {_gauge(x)}" for name, x in (("running", server.running), ("waiting", server.waiting)) if x),
        *([f"KV cache {server.kv_used.mean:.0%} full, at most {server.kv_used.max:.0%}"] if server.kv_used else []),
        *([f"{server.preemptions:,.0f} preemptions"] if server.preemptions else []),
        *([f"{server.prefix_hits:.1%} prefix hits"] if server.prefix_hits is not None else []),
        *([f"{server.power_w.mean:,.0f} W"] if server.power_w else []),
        *(_cost(server)),
    ]
    lines = [f"{server.engine}: {', '.join(told)}"] if told else []
    lines += [line for line in (_phases(server.phases), _checks(server.checks, "")) if line]
    return lines


def _gauge(gauge: Gauge) -> str:
    return f"{number(gauge.mean)} (at most {number(gauge.max)})"


def _cost(server: Server) -> list[str]:
    said = []
    if server.joules_per_1k_tokens is not None:
        said.append(f"{number(server.joules_per_1k_tokens)} J per 1,000 output tokens")
    if server.gpu_seconds_per_1k_tokens is not None:
        said.append(f"{number(server.gpu_seconds_per_1k_tokens)} GPU-seconds per 1,000 output tokens")
    return said


def _phases(phases: Phases) -> str:
    names = ("network", "queue", "prefill", "decode")
    told = [(name, getattr(phases, f"{name}_ms")) for name in names]
    known = [f"{name} {number(max(0.0, ms))} ms" for name, ms in told if ms is not None]
    return f"of a request's time, mean: {', '.join(known)}" if len(known) > 1 else ""


def _checks(checks: Sequence[Agreement], where: str) -> str:
    """What agrees, and by how much the rest does not."""
    alike = [_CALLED[check.what] for check in checks if check.agrees]
    other = [
        f"{_CALLED[check.what]}: client {number(check.client)}, server {number(check.server)}"
        for check in checks
        if check.agrees is False and check.client is not None and check.server is not None
    ]
    said = [f"client and server agree{where}: {', '.join(alike)}"] if alike else []
    return "; ".join([*said, *([f"they differ{where}: {'; '.join(other)}"] if other else [])])


def agreement_in_words(summary: Summary) -> str:
    """Whether the counters of the whole run are those of the client; empty where nobody told."""
    run = summary.server
    if not isinstance(run, ServerRun):
        return ""
    if not run.looks:
        return f"server: its metrics could not be read ({'; '.join(run.problems)})"
    said = _checks(run.checks, " over the whole run")
    return f"{' and '.join(run.engines)}: {said}" if said else ""


_MIXED = "of several kinds"


def where_time_goes(summary: Summary) -> str:
    """What most of TTFT is, from which load on; empty where the server did not tell."""
    levels = sorted((x for x in summary.levels if _main(x)), key=lambda x: x.load.value)
    if not levels or any(level.asked for level in levels) or len({type(level.load) for level in levels}) > 1:
        return ""
    parts = _in_turn(levels)
    if len(parts) > 3 and (clear := [level for level in levels if _main(level) != _MIXED]):
        parts = _in_turn(clear)  # between two kinds a busy endpoint goes to and fro
    (first, group), *others = parts
    at = f"up to {_load(group[-1])}" if others else "at every load" if len(levels) > 1 else f"at {_load(group[0])}"
    later = [f"from {_load(group[0])} on it is {name}" for name, group in others]
    return "; ".join([f"most of TTFT is {first} {at}", *later])


def _in_turn(levels: Sequence[Level]) -> list[tuple[str, list[Level]]]:
    """Neighbouring levels of one kind together."""
    return [(name, list(group)) for name, group in itertools.groupby(levels, key=_main)]


def _load(level: Level) -> str:
    if isinstance(level.load, Concurrency):
        return f"{level.load.value} parallel request{'' if level.load.value == 1 else 's'}"
    return f"{level.load.value:g} requests/s"


def _main(level: Level) -> str:
    """What more than half of TTFT is; `of several kinds` where nothing is, empty where that is not known."""
    server = level.server
    if isinstance(server, UnsetType):
        return ""
    told = {name: getattr(server.phases, f"{name}_ms") for name in _PHASES}
    if any(ms is None for ms in told.values()):
        return ""
    name = max(told, key=lambda name: told[name])
    return name if 2 * told[name] > sum(told.values()) else _MIXED
