"""What a server told of one load over several measurements of it, as one."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from pacemark.metered import Agreement, Gauge, Phases, Server, WithinEdge
from pacemark.summary import Level

__all__ = ["server_over"]

_COUNTS = ("requests", "input_tokens", "output_tokens", "decode_s")
"""What is summed; all else of a check is a mean of requests, or over time."""


def server_over(levels: Sequence[Level]) -> Server | None:
    """The server over all measurements; None where it did not tell of each.

    Counts and times are summed; means of requests are weighed by the requests of each window, values over time by its
    length. A check agrees where it does in each.
    """
    servers = [level.server for level in levels if isinstance(level.server, Server)]
    if len(servers) < len(levels) or len({server.engine for server in servers}) > 1:
        return None
    by_requests = _weighing([float(level.requests.in_window) for level in levels])
    by_time = _weighing([server.seconds for server in servers])

    def gauge(name: str) -> Gauge | None:
        told = [getattr(server, name) for server in servers]
        mean = by_time([each and each.mean for each in told])
        return None if mean is None else Gauge(mean, max(each.max for each in told))

    def value(name: str) -> float | None:
        return by_requests([getattr(server, name) for server in servers])

    return Server(
        engine=servers[0].engine,
        seconds=sum(server.seconds for server in servers),
        looks=sum(server.looks for server in servers),
        running=gauge("running"),
        waiting=gauge("waiting"),
        kv_used=gauge("kv_used"),
        preemptions=_sum([server.preemptions for server in servers]),
        prefix_hits=value("prefix_hits"),
        power_w=gauge("power_w"),
        joules_per_1k_tokens=value("joules_per_1k_tokens"),
        gpu_seconds_per_1k_tokens=value("gpu_seconds_per_1k_tokens"),
        checks=_checks(servers, by_requests),
        ttft_within=_within(servers, by_requests),
        phases=Phases(
            **{
                name: by_requests([getattr(server.phases, name) for server in servers])
                for name in Phases.__struct_fields__
            }
        ),
    )


Mean = Callable[[Sequence[float | None]], float | None]


def _weighing(weights: Sequence[float]) -> Mean:
    """A mean with these weights; None where a value is not told."""

    def mean(values: Sequence[float | None]) -> float | None:
        told = [value for value in values if value is not None]
        if len(told) < len(weights) or not sum(weights):
            return None
        return sum(weight * value for weight, value in zip(weights, told, strict=True)) / sum(weights)

    return mean


def _sum(values: Sequence[float | None]) -> float | None:
    told = [value for value in values if value is not None]
    return sum(told) if len(told) == len(values) else None


def _checks(servers: Sequence[Server], mean: Mean) -> list[Agreement]:
    """Those that every one has, in the order of the first."""
    found = []
    for what in [check.what for check in servers[0].checks]:
        same = [check for server in servers for check in server.checks if check.what == what]
        if len(same) < len(servers):
            continue
        over = _sum if what in _COUNTS else mean
        agrees = False if any(check.agrees is False for check in same) else all(check.agrees for check in same) or None
        found.append(Agreement(what, over([x.client for x in same]), over([x.server for x in same]), agrees))
    return found


def _within(servers: Sequence[Server], mean: Mean) -> list[WithinEdge]:
    """The edges at which each has a share."""
    found = []
    for edge in [within.ttft_ms for within in servers[0].ttft_within]:
        same = [within for server in servers for within in server.ttft_within if within.ttft_ms == edge]
        client, server = mean([x.client for x in same]), mean([x.server for x in same])
        if client is not None and server is not None:
            found.append(WithinEdge(edge, client, server))
    return found
