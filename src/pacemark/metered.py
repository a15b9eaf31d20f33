"""What a server tells of itself while a level runs, held against what the client saw: the block `server` of a level.

A value that nobody told is None, never 0.
"""

from __future__ import annotations

import msgspec

__all__ = ["Agreement", "ByModel", "Gauge", "Phases", "Server", "ServerMoment", "ServerRun", "WithinEdge"]


class ByModel(msgspec.Struct, frozen=True):
    """What one of several models behind the endpoint did of a level."""

    model: str
    requests: int
    ttft_ms_p50: float | None
    latency_ms_p50: float | None
    output_tokens: float
    """Mean of an answer."""


class Gauge(msgspec.Struct, frozen=True):
    """A value that goes up and down, over the looks in a window."""

    mean: float
    max: float


class Agreement(msgspec.Struct, frozen=True):
    """One quantity as each side knows it."""

    what: str
    """With its unit: `requests`, `output_tokens`, `ttft_ms`."""
    client: float | None
    server: float | None
    agrees: bool | None = None
    """None where that cannot be told."""


class WithinEdge(msgspec.Struct, frozen=True):
    """The share of requests with a TTFT of at most one edge of the server's buckets."""

    ttft_ms: float
    client: float
    server: float


class Phases(msgspec.Struct, frozen=True):
    """Where the time of a request went: means in ms."""

    client_ms: float | None = None
    """The client's own share: what sending took, and by its own clock what it read late."""
    network_ms: float | None = None
    """TTFT as the client saw it, without the client's share, the queue and the prefill: network, gateway, front end."""
    queue_ms: float | None = None
    prefill_ms: float | None = None
    decode_ms: float | None = None


class Server(msgspec.Struct, frozen=True, kw_only=True):
    """A server over the window of a level, from its own counters."""

    engine: str
    """Whose names its metrics have, such as vLLM."""
    seconds: float
    """Between the looks that its counters are taken from, the nearest to the window's ends."""
    looks: int
    running: Gauge | None = None
    waiting: Gauge | None = None
    kv_used: Gauge | None = None
    """Share of the KV cache in use."""
    preemptions: float | None = None
    prefix_hits: float | None = None
    """Share of the prompt tokens looked up that were in the prefix cache."""
    power_w: Gauge | None = None
    joules_per_1k_tokens: float | None = None
    gpu_seconds_per_1k_tokens: float | None = None
    checks: list[Agreement] = []
    ttft_within: list[WithinEdge] = []
    phases: Phases = Phases()


class ServerMoment(msgspec.Struct, frozen=True):
    """A server at one time of its run; of what it counts, since the look before."""

    at_s: float
    running: float | None = None
    waiting: float | None = None
    kv_used: float | None = None
    """Share of the KV cache in use."""
    preemptions: float | None = None
    prefix_hits: float | None = None
    """Share of the prompt tokens looked up that were in the prefix cache."""
    power_w: float | None = None


class ServerRun(msgspec.Struct, frozen=True, kw_only=True):
    """A server over a whole run, from before its first request until its last had ended: then counts are exact."""

    engines: list[str]
    looks: int
    took_ms: float
    """Median time that a look at its metrics took."""
    checks: list[Agreement]
    problems: list[str] = []
    """Why looks at it failed."""
