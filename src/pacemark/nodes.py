"""What is known of the machines that carry a load together: nodes, as an engine that starts processes on them says."""

from __future__ import annotations

from typing import Literal

import msgspec


class NodeFacts(msgspec.Struct, frozen=True):
    """What a machine says of itself before it is given a part of the load."""

    name: str
    address: str = ""
    boot: str = ""
    """Tells one machine from another, whatever containers they run in; empty where nothing does."""
    cpus: int = 1
    pacemark: str = ""
    code: str = ""
    """Of pacemark's own files there, presets included: a digest."""
    python: str = ""
    engine: str = ""
    """What started the process there, and its version."""
    workers: int = 0
    niceness: int = 0
    """Of its workers: 0 unless something has lowered their priority."""
    target: list[str] = []
    """The addresses that it finds the target at."""
    proxy: str = ""
    """The proxy that its environment names for the target, without its password."""
    calibrated: list[int] = []
    """Streams that it was calibrated for, plain and over TLS; empty where it never was."""


class NodePart(msgspec.Struct, frozen=True):
    """What a machine was to one level: where its clock stood, and how its reads were stamped."""

    number: int
    """Of the requests and the workers of a level those belong to it whose numbers leave this remainder."""
    name: str
    boot: str = ""
    niceness: int = 0
    offset_ns: int = 0
    """Its monotonic clock less that of the coordinating machine: one constant for the level, taken off every time."""
    bound_ns: int = 0
    """The most that the offset was off as the level began."""
    drift_ppm: float | None = None
    """How fast its clock runs away from ours; None until that can be told."""
    drift_bound_ppm: float | None = None
    jumped_ns: int = 0
    """The farthest that its clock, or ours, jumped while the level ran."""
    reads: int = 0
    stamped: int = 0
    """Reads with a stamp of the kernel's."""
    lag_ns: tuple[int, int, int] | None = None
    """How long bytes lay in the kernel: p50, p99, maximum; None without a stamp."""
    lost: str = ""
    """Why nothing came from it any more; empty where it stayed."""


class NodeLevel(msgspec.Struct, frozen=True):
    """One machine's part in a level. Without intervals: it is there to tell a machine that is unlike the others."""

    name: str
    requests: int
    """Of the window, whether answered or not."""
    failed: int
    output_tokens_per_s: float | None
    ttft_ms_p50: float | None
    ttft_ms_p95: float | None
    clock: Literal["kernel", "user"]
    """Whose stamps its event times are."""
    lag_ms_p99: float | None
    cpu_share: float | None
    """Of the busiest of its workers, of one core."""
    wait_share: float | None
    idle_share: float | None
    stall_ms: float | None
    offset_s: float
    """Its monotonic clock less that of the coordinating machine, which was taken off."""
    offset_bound_ms: float
    """The most that was off with it."""
    drift_ppm: float | None
    status: Literal["valid", "suspect", "invalid"]
    why: str = ""
    """What is wrong with it, where something is."""
