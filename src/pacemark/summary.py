"""The contract: what `summary.json` holds, schema `pacemark/summary/1`.

A figure that cannot be had is null, never 0; NaN and infinity are never written.
"""

from __future__ import annotations

from typing import Any, Literal

import msgspec

from pacemark.content import Cached as Cached
from pacemark.content import JsonAnswers, Reasoning, ToolCalls, Upload
from pacemark.content import Sizes as Sizes
from pacemark.content import Traffic as Traffic
from pacemark.content import Turns as Turns
from pacemark.laws import Fits as Fits
from pacemark.laws import Scalability as Scalability
from pacemark.laws import StepTime as StepTime
from pacemark.metered import ByModel, Server, ServerMoment, ServerRun
from pacemark.nodes import NodeLevel
from pacemark.pace import Load, Rate
from pacemark.quantities import STATISTICS as STATISTICS
from pacemark.quantities import Basis as Basis
from pacemark.quantities import Distribution as Distribution
from pacemark.quantities import Figure as Figure
from pacemark.quantities import Scatter as Scatter
from pacemark.quantities import Spread as Spread

SCHEMA = "pacemark/summary/1"
EndedBy = Literal["duration", "requests", "rows", "precision", "max_duration", "allowance", "interrupted"]
"""What ended a level: its time, its number of requests, that the rows of its file had run out, its intervals being
tight enough, its longest time, what the run may spend, or something from outside."""


RATES = ("output_tokens_per_s", "total_tokens_per_s", "requests_per_s")
"""The rates of a level by name."""
LATENCIES = {"ttft_ms": "TTFT", "tpot_ms": "TPOT", "itl_ms": "ITL", "latency_ms": "latency"}
"""The latencies of a level by name, and what people call them."""


class Requests(msgspec.Struct, frozen=True):
    """How many requests a level made. `in_window` is the sample the latency figures stand on."""

    completed: int
    failed: int
    in_window: int
    short: int = 0
    """Answers of the window with fewer tokens than asked for."""


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
    idle_share: float | None = None
    """How idle the cores were that the workers may run on."""
    reconnects: int = 0
    """Kept connections that the server had closed and that were opened anew."""
    bound_ms: float | None = None
    """The most that this client can have added to the TTFT p99."""
    bound: str | None = None
    """What this client can have done to the latencies, in words."""
    lateness_ms: Spread | None = None
    """Open loop only: how late requests were sent against their schedule."""


class Experience(msgspec.Struct, frozen=True):
    """What a reader of the answers feels, which no mean shows."""

    longest_stall_ms: Distribution = Distribution()
    """The longest gap inside an answer."""
    reading_idle_ms: Distribution = Distribution()
    """How long a reader of 10 tokens/s waits for text after it has begun."""
    fluidity: Figure = Figure()
    """Mean share of token deadlines met (Etalon's fluidity index), at 1.25 x the level's own median pace."""
    tokens_per_s_per_user: Figure = Figure()
    """1 / median TPOT."""
    words_per_minute: Figure = Figure()
    """The same at 0.75 words per token."""


class Goodput(msgspec.Struct, frozen=True):
    """The requests that meet every limit of a budget; a failed one meets none."""

    budget: str
    share: Figure
    requests_per_s: Figure


class Reason(msgspec.Struct, frozen=True):
    """Why a level is not simply valid, and what to do about it."""

    code: str
    message: str


VERDICTS: tuple[Literal["valid", "suspect", "invalid"], ...] = ("valid", "suspect", "invalid")
"""From the best to the worst."""


class Verdict(msgspec.Struct, frozen=True):
    """Whether a level's numbers can be relied on."""

    status: Literal["valid", "suspect", "invalid"]
    reasons: list[Reason] = []


class Held(msgspec.Struct, frozen=True):
    """A level held against the budget."""

    status: Literal["met", "missed", "open"]
    """By the figure shown, and beyond its error; open: within the error of the limit, too close to tell."""
    binds: str
    """The limit that is nearest, or that is missed by most."""
    share: float | None
    """That figure over its limit; None where it has no end."""
    why: str
    """The same in words."""


class Asked(msgspec.Struct, frozen=True):
    """The lengths that one level of a length grid asked for, in tokens."""

    input_tokens: int
    output_tokens: int

    def __str__(self) -> str:
        return f"{self.input_tokens:,} in, {self.output_tokens:,} out"


class Between(msgspec.Struct, frozen=True):
    """One figure over several runs of the same load."""

    values: list[float | None]
    """In each run."""
    deviation: float | None
    """Standard deviation from run to run: the noise floor of a comparison. None where fewer than two have a value."""


class Connections(msgspec.Struct, frozen=True):
    """How unequally the connections of a level were served: each may lead to another replica."""

    used: int
    fewest: int
    """Requests that the least used one carried."""
    most: int
    fastest_ms: float
    """TTFT p50 on the fastest tenth of the connections that carried five requests or more; where nothing streamed it
    is the latency."""
    slowest_ms: float
    """The same on the slowest tenth."""
    chance: float
    """How likely equal connections would differ so much (Kruskal-Wallis test)."""


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
    ended_by: EndedBy = "duration"
    basis: dict[str, Basis] = {}
    """Per latency metric: the sample that its figures stand on."""
    repeats: int = 1
    """How many measurements the figures stand on."""
    output_tokens_per_s_by_cycle: Figure = Figure()
    """The second estimator: concurrency x mean tokens / mean time from one request of a stream to its next."""
    ttft_views_ms: dict[str, Spread] = {}
    """Time to the headers, the first event, the first token, the first answer token: what other tools call TTFT."""
    experience: Experience = Experience()
    goodput: Goodput | None = None
    between_runs: dict[str, Between] | msgspec.UnsetType = msgspec.UNSET
    """Of a load measured several times: how much the rates and latencies (`ttft_ms.p95`) scatter between the runs."""
    asked: Asked | None = None
    """In a length grid: the lengths of this level. Elsewhere all levels have those of `workload`."""
    budget: Held | msgspec.UnsetType = msgspec.UNSET
    """There where a budget was given and this level can tell of it."""
    unread_events: int | msgspec.UnsetType = msgspec.UNSET
    """Events without a meaning that were passed over; there where there were some."""
    traffic: Traffic | msgspec.UnsetType = msgspec.UNSET
    """There where it is known what each request was made to be."""
    upload: Upload | msgspec.UnsetType = msgspec.UNSET
    """There where requests are large."""
    connections: Connections | msgspec.UnsetType = msgspec.UNSET
    """There where two or more carried enough requests to tell."""
    served: list[ByModel] | msgspec.UnsetType = msgspec.UNSET
    """By the model that answered, where the endpoint names several."""
    reasoning: Reasoning | msgspec.UnsetType = msgspec.UNSET
    """These three where answers had such."""
    tool_calls: ToolCalls | msgspec.UnsetType = msgspec.UNSET
    json_answers: JsonAnswers | msgspec.UnsetType = msgspec.UNSET
    server: Server | msgspec.UnsetType = msgspec.UNSET
    """What the server told of itself, where its metrics were read."""
    nodes: list[NodeLevel] | msgspec.UnsetType = msgspec.UNSET
    """The machines that carried the load, where it was not one alone."""


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


class Probe(msgspec.Struct, frozen=True):
    """One level of a budget search."""

    load: Load
    within: bool | None
    """Whether it meets the budget; None where that cannot be told."""
    why: str


class Spent(msgspec.Struct, frozen=True):
    """What a search cost, or will."""

    requests: int
    seconds: float
    tokens: int = 0
    """Input and output."""


class Confirmation(msgspec.Struct, frozen=True):
    """What a closed loop promised, tried in the open loop."""

    load: Rate
    """The request rate that the answer implies, and how requests arrived."""
    stable: bool | None
    """Whether the backlog stayed bounded; None where that cannot be told."""
    within: bool | None
    """Whether the budget was met; None where that cannot be told, and where the rate is not stable."""
    why: str
    level: Level | None = None
    """Its figures; an unstable rate has no latency. None where it was not tried."""


class Find(msgspec.Struct, frozen=True):
    """The result of a budget search: the block `find`."""

    budget: str
    load: Literal["concurrency", "rate", "speed"]
    resolved: bool
    """Whether the answer is as certain as was asked for."""
    answer: Figure | None
    """The largest load that meets the budget, and its 95% interval; None where no load does."""
    binds: str | None
    """The condition that sets the boundary."""
    probes: list[Probe]
    spent: Spent
    why: str = ""
    """Why the search ended where it did."""
    next: Load | None = None
    """Of an answer from stored levels: the load whose measurement would tighten it most."""
    next_why: str = ""
    """What it would do to the interval."""
    scatter: float = 0.0
    """By how much the endpoint's speed differed from visit to visit, beyond their errors, as a share (one standard
    deviation); 0 where it was steady as far as was seen. The interval has it in it."""
    confirmations: list[Confirmation] = []
    """The closed-loop answer in the open loop, one entry for each way of arriving; where that was asked for."""


class Span(msgspec.Struct, frozen=True):
    """A level's window on the time axis of its run."""

    load: Load
    begin_s: float
    end_s: float


class Seen(msgspec.Struct, frozen=True):
    """What the endpoint said of itself at one time."""

    at_s: float
    state: str
    capacity: float | None = None
    """Requests in parallel that it was scaled to serve."""
    queue_ms: float | None = None
    model_ms: float | None = None
    """Means that it exports, of the minute before: of waiting for its model, and of the model itself."""


class Timeline(msgspec.Struct, frozen=True):
    """A run on one axis of time, from its first request."""

    step_s: float
    output_tokens_per_s: list[float]
    throttled: list[int]
    """Requests answered with 429. These, as all such lists here, by step."""
    levels: list[Span]
    endpoint: list[Seen] = []
    in_flight: list[float] = []
    """Requests, on average."""
    failed: list[int] = []
    server: list[ServerMoment] = []
    """Where its metrics were read."""


class Line(msgspec.Struct, frozen=True):
    """A straight line through the medians of a length grid."""

    intercept_ms: Figure
    cells: int
    """How many levels it goes through."""
    residual_ms: float
    """How far the farthest of them is from it."""
    per_input_token_ms: Figure = Figure()
    per_output_token_ms: Figure = Figure()


class Slopes(msgspec.Struct, frozen=True):
    """What a token costs, from a length grid; None where the lengths cannot tell."""

    ttft_ms: Line | None = None
    """The slope over input tokens is that of prefill."""
    latency_ms: Line | None = None
    """The slope over output tokens is that of decode."""


class Summary(msgspec.Struct, frozen=True):
    """A whole run, as `summary.json`."""

    target: dict[str, Any]
    workload: dict[str, Any]
    levels: list[Level]
    operating_points: OperatingPoints = OperatingPoints()
    schema: str = SCHEMA
    run: dict[str, Any] = {}
    """What `run.json` says of the run itself: when, how, whether it was interrupted."""
    find: Find | msgspec.UnsetType = msgspec.UNSET
    fits: Fits = Fits()
    timeline: Timeline | msgspec.UnsetType = msgspec.UNSET
    slopes: Slopes | msgspec.UnsetType = msgspec.UNSET
    """There after a length grid only."""
    answer: Find | msgspec.UnsetType = msgspec.UNSET
    """The most load that meets the budget, by one rule whoever asks; there wherever a budget was given. After a search
    the same as `find`."""
    server: ServerRun | msgspec.UnsetType = msgspec.UNSET
    """The whole run by the server's counters, where its metrics were read."""
