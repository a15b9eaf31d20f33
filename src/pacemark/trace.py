"""The record of requests: what was sent, when each read brought bytes, and how it ended.

`RawExchange` is what a worker saw, bytes and stamps. `Exchange` is the same request after its bytes were
understood. `Trace` holds the exchanges of one level as columns; every metric is computed from it.
All times are nanoseconds on the machine's monotonic clock.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import msgspec
import numpy as np
from numpy.typing import NDArray

ABSENT = -1
"""Stands for a time or a count that this request does not have."""

Int64 = NDArray[np.int64]


class RawExchange(msgspec.Struct, frozen=True, array_like=True):
    """One request as the worker saw it; nothing in it has been interpreted."""

    level: int
    index: int
    stream: int
    scheduled_ns: int
    """When it was due: its place in the arrival schedule, or when its stream became free."""
    first_byte_sent_ns: int
    sent_ns: int
    """t0: just before the call that handed the kernel the request's last byte."""
    send_ns: int
    """How long that call took: t0 is uncertain by at most this."""
    headers_ns: int
    ended_ns: int
    connect_ns: int
    """What opening the connection took, or ABSENT where a warm one served."""
    status: int
    streamed: bool
    """The answer's content type was text/event-stream."""
    encoding: str
    """Content-Encoding of the body, empty for none."""
    error: str
    """Kind of transport failure, or empty."""
    detail: str
    asked_tokens: int
    reads: bytes
    """int64 rows (arrival_ns, lag_ns, body bytes so far), one per socket read."""
    body: bytes
    retry_after_s: float = ABSENT
    """How long a refusal asked to be left alone; ABSENT where it did not."""


class Exchange(msgspec.Struct, frozen=True):
    """One request, understood. Event arrays have one entry per event that carried output."""

    level: int
    index: int
    stream: int
    scheduled_ns: int
    first_byte_sent_ns: int
    sent_ns: int
    send_ns: int
    headers_ns: int
    first_event_ns: int
    answer_ns: int
    """First event with text for the reader, after any reasoning."""
    ended_ns: int
    connect_ns: int
    status: int
    error: str
    """Empty, or the kind of failure: http_429, timeout, reset, bad_stream ..."""
    detail: str
    finish_reason: str
    asked_tokens: int
    input_tokens: int
    cached_tokens: int
    output_tokens: int
    tokens_source: str
    """Who counted output_tokens: usage, tokenizer or events."""
    hi_ns: Int64
    """Latest time each output event can have arrived: the kernel stamp of the read that completed it."""
    lo_ns: Int64
    """Earliest time: equal to hi_ns unless several events were read at once."""
    tokens: NDArray[np.float32]
    """Tokens in each event; they sum to output_tokens."""
    lag_ns: NDArray[np.int32]
    """Per read: how long the bytes lay in the kernel before this client took them."""
    coalesced_reads: int
    hidden_tokens: int = 0
    """Tokens that the server counted and never streamed (hidden reasoning); output_tokens leaves them out."""
    reasoning_tokens: int = ABSENT
    """Tokens of reasoning as the server counted them, shown or hidden."""
    tpot_off: float = 0.0
    """By what share TPOT may be off, where it is not known how many tokens the first event held; 0 where it is."""
    unread_events: int = 0
    """Events that were passed over because they had no meaning."""
    in_one_piece: bool = False
    """Streamed in name only: several tokens, and all came in one read or one event. Its TTFT is none."""
    done_ns: int = ABSENT
    """When the event came that said that the answer is complete ([DONE], or else a finish_reason)."""
    retry_after_s: float = ABSENT
    """How long a refusal asked to be left alone; ABSENT where it did not. It is not stored."""


@dataclass(frozen=True, slots=True)
class Trace:
    """The exchanges of one level as columns: n requests, in the order sent, and m output events.

    Events of request i are rows `offsets[i]:offsets[i + 1]`.
    """

    scheduled_ns: Int64
    sent_ns: Int64
    headers_ns: Int64
    first_event_ns: Int64
    answer_ns: Int64
    ended_ns: Int64
    stream: NDArray[np.int32]
    error: NDArray[np.str_]
    asked_tokens: Int64
    input_tokens: Int64
    cached_tokens: Int64
    output_tokens: Int64
    tokens_from_usage: NDArray[np.bool_]
    offsets: Int64
    hi_ns: Int64
    lo_ns: Int64
    tokens: NDArray[np.float32]
    open_loop: bool = False
    """Whether a request's clock starts when it was due rather than when it was sent."""

    def __len__(self) -> int:
        return len(self.sent_ns)


@dataclass(frozen=True, slots=True)
class Window:
    """The steady part of a level: the time between (start, end]."""

    start_ns: int
    end_ns: int

    @property
    def seconds(self) -> float:
        """Length; 0 where no steady part was reached."""
        return max(0.0, (self.end_ns - self.start_ns) / 1e9)


class Beat(msgspec.Struct, frozen=True, array_like=True):
    """A worker's pulse: where it stands, and how well it keeps up."""

    worker: int
    now_ns: int
    level: int
    in_flight: int
    oldest_ns: int
    """When the oldest request that is in flight, or held back from it, was due; or ABSENT."""
    turned: int
    """Streams that finished a request since the level began."""
    reads: int
    cpu_ns: int
    wait_ns: int
    """How long the process has been ready to run without a CPU to run on, since it started."""
    idle_share: float
    """Share of the last moments in which the cores that this worker may use were idle; ABSENT where unknown."""
    stall_ns: int
    """How late this beat was: the longest the event loop can have been away."""
    reconnects: int
    idle: bool
    """Nothing in flight and nothing more to send."""


class Sight(msgspec.Struct, frozen=True):
    """One look at the endpoint."""

    now_ns: int
    state: str = ""
    """In words: `ready`, `not ready`, with what else there is to say."""
    ready: bool | None = None
    capacity: float | None = None
    """Requests in parallel that it is scaled to serve, where it exports that."""
    version: int | None = None
    """Of its configuration: another one means that it was changed."""
    metrics: dict[str, float] = {}
    """What it exports, summed over what it serves."""
    problem: str = ""
    """Why it could not be looked at, or its headers not be renewed."""


@dataclass(frozen=True, slots=True)
class Watch:
    """What is known of the endpoint while a level ran, beside its answers."""

    sights: tuple[Sight, ...] = ()
    limits: tuple[str, ...] = ()
    """Limits that turned requests away, the most frequent first."""

    def during(self, window: Window) -> tuple[Sight, ...]:
        """The looks inside the window, and the last one before it."""
        before = [s for s in self.sights if s.now_ns < window.start_ns and not s.problem]
        return (*before[-1:], *(s for s in self.sights if window.start_ns <= s.now_ns <= window.end_ns))


def trace_of(exchanges: Sequence[Exchange], open_loop: bool = False) -> Trace:
    """Columns of `exchanges`, sorted by the time they were sent."""
    rows = sorted(exchanges, key=lambda x: x.sent_ns)

    def ints(values: list[int]) -> Int64:
        return np.asarray(values, dtype=np.int64)

    counts = ints([len(x.hi_ns) for x in rows])
    return Trace(
        scheduled_ns=ints([x.scheduled_ns for x in rows]),
        sent_ns=ints([x.sent_ns for x in rows]),
        headers_ns=ints([x.headers_ns for x in rows]),
        first_event_ns=ints([x.first_event_ns for x in rows]),
        answer_ns=ints([x.answer_ns for x in rows]),
        ended_ns=ints([x.ended_ns for x in rows]),
        stream=np.asarray([x.stream for x in rows], dtype=np.int32),
        error=np.asarray([x.error for x in rows], dtype=np.str_),
        asked_tokens=ints([x.asked_tokens for x in rows]),
        input_tokens=ints([x.input_tokens for x in rows]),
        cached_tokens=ints([x.cached_tokens for x in rows]),
        output_tokens=ints([x.output_tokens for x in rows]),
        tokens_from_usage=np.asarray([x.tokens_source == "usage" for x in rows], dtype=np.bool_),
        offsets=np.concatenate([ints([0]), np.cumsum(counts)]),
        hi_ns=np.concatenate([x.hi_ns for x in rows]) if rows else ints([]),
        lo_ns=np.concatenate([x.lo_ns for x in rows]) if rows else ints([]),
        tokens=np.concatenate([x.tokens for x in rows]) if rows else np.zeros(0, np.float32),
        open_loop=open_loop,
    )
