"""The contract: what `summary.json` holds, schema `pacemark/summary/1`.

A figure that cannot be had is null, never 0; NaN and infinity are never written.
"""

from __future__ import annotations

from typing import Any, Literal

import msgspec

from pacemark.pace import Load

SCHEMA = "pacemark/summary/1"


class Figure(msgspec.Struct, frozen=True):
    """A number and its 95% confidence interval; each part is None where it cannot be had."""

    value: float | None = None
    low: float | None = None
    high: float | None = None


class Distribution(msgspec.Struct, frozen=True):
    """Mean and quantiles of one metric over the requests of a level's window."""

    mean: Figure = Figure()
    p50: Figure = Figure()
    p90: Figure = Figure()
    p95: Figure = Figure()
    p99: Figure = Figure()


class Requests(msgspec.Struct, frozen=True):
    """How many requests a level made. `in_window` is the sample the latency figures stand on."""

    completed: int
    failed: int
    in_window: int
    short: int = 0
    """Answers of the window with fewer tokens than asked for."""


class Spread(msgspec.Struct, frozen=True):
    """p50, p99 and maximum of a quantity that needs no interval."""

    p50: float | None = None
    p99: float | None = None
    max: float | None = None


class Client(msgspec.Struct, frozen=True):
    """How well this machine kept up while the level ran."""

    clock: Literal["kernel", "user", "virtual"]
    lag_ms: Spread = Spread()
    cpu_us_per_event: float | None = None
    coalesced_share: float | None = None
    """Share of the reads that held several output events, whose times are then known as intervals only."""
    stall_ms: float | None = None
    """The longest that a worker's event loop was away."""
    cpu_share: list[float] = []
    """Per worker: how busy it was, of one core."""
    wait_share: list[float] = []
    """Per worker: share of the time it was ready to run and had no core."""
    reconnects: int = 0
    """Kept connections that the server had closed and that were opened anew."""
    bound: str | None = None
    """What this client can have done to the latencies, in words."""
    lateness_ms: Spread | None = None
    """Open loop only: how late requests were sent against their schedule."""


class Reason(msgspec.Struct, frozen=True):
    """Why a level is not simply valid, and what to do about it."""

    code: str
    message: str


class Verdict(msgspec.Struct, frozen=True):
    """Whether a level's numbers can be relied on."""

    status: Literal["valid", "suspect", "invalid"]
    reasons: list[Reason] = []


class Level(msgspec.Struct, frozen=True):
    """One load level: what was offered, what came back, and whether to believe it."""

    load: Load
    window_s: float | None
    requests: Requests
    errors: dict[str, int]
    output_tokens_per_s: Figure
    total_tokens_per_s: Figure
    requests_per_s: Figure
    input_tokens: float | None
    """Mean input tokens per request, as the server counted them."""
    output_tokens: float | None
    """Mean output tokens per answered request."""
    ttft_ms: Distribution
    tpot_ms: Distribution
    itl_ms: Distribution
    latency_ms: Distribution
    client: Client
    verdict: Verdict


class OperatingPoint(msgspec.Struct, frozen=True):
    """A load worth choosing and one sentence on why."""

    load: Load
    output_tokens_per_s: Figure
    why: str


class OperatingPoints(msgspec.Struct, frozen=True):
    """The choices a curve offers; None where the curve cannot tell."""

    lowest_latency: OperatingPoint | None = None
    balanced: OperatingPoint | None = None
    within_budget: OperatingPoint | None = None
    highest_throughput: OperatingPoint | None = None


class Summary(msgspec.Struct, frozen=True):
    """A whole run, as `summary.json`."""

    target: dict[str, Any]
    workload: dict[str, Any]
    levels: list[Level]
    operating_points: OperatingPoints = OperatingPoints()
    schema: str = SCHEMA
    run: dict[str, Any] = {}
    """What `run.json` says of the run itself: when, how, whether it was interrupted."""
    find: dict[str, Any] | msgspec.UnsetType = msgspec.UNSET
