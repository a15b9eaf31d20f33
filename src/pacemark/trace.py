"""The record of requests: what was sent, when each read brought bytes, and how it ended.

`RawExchange` is what a worker saw, bytes and stamps. `Exchange` is the same request after its bytes were
understood. `Trace` holds the exchanges of one level as columns; every metric is computed from it.
All times are nanoseconds on the machine's monotonic clock.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, fields, replace
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from pacemark.sights import Scrape as Scrape
from pacemark.sights import Sight as Sight
from pacemark.sights import Watch as Watch
from pacemark.sights import Window as Window

RATE_LIMITS = ("http_429", "said_429")
"""Kinds of failure that are a limit somebody set, told by the status or inside a 200."""
ABSENT = -1
"""Stands for a time or a count that this request does not have."""

UNTOLD = -2
"""Of `shared_tokens`: the prompt is a user's own, and nobody knows what it shares with others."""

Int64 = NDArray[np.int64]

_NONE: Int64 = np.zeros(0, np.int64)
_NO_LAGS: NDArray[np.int32] = np.zeros(0, np.int32)
_LEFT_OUT: dict[str, tuple[Any, Any]] = {
    "index": (ABSENT, np.int64),
    "send_ns": (0, np.int64),
    "status": (ABSENT, np.int64),
    "coalesced_reads": (0, np.int64),
    "finish_reason": ("", np.str_),
    "in_one_piece": (False, np.bool_),
    "tpot_off": (0.0, np.float64),
    "hidden_tokens": (0, np.int64),
    **dict.fromkeys(("unread_events", "calls", "malformed_calls", "sent_bytes"), (0, np.int64)),
    **dict.fromkeys(
        ("reasoning_tokens", "call_ns", "called_ns", "json_answer", "first_byte_sent_ns"), (ABSENT, np.int64)
    ),
    "disclosed": ("", np.str_),
    "done_ns": (ABSENT, np.int64),
    **dict.fromkeys(("asked_input", "shared_tokens", "origin", "turn"), (ABSENT, np.int64)),
    "connection": (ABSENT, np.int64),
    "served_by": ("", np.str_),
    **dict.fromkeys(("filtered", "outlined", "tokens_from_events"), (False, np.bool_)),
    **dict.fromkeys(("server_queue_ms", "server_prefill_ms", "server_decode_ms"), (float(ABSENT), np.float64)),
}
"""What stands in a column that a trace's maker left out, and of which type it is."""


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
    asked_input: int = ABSENT
    """Input tokens that the request was made to have; ABSENT where nobody said."""
    shared_tokens: int = ABSENT
    """Tokens of its beginning that requests before it are to have had too; ABSENT where that is not planned."""
    origin: int = ABSENT
    """The prefix, conversation or row of a file that it is of."""
    turn: int = ABSENT
    """Of a conversation: how many turns came before it."""
    connection: int = ABSENT
    """Number of the connection that it went over, over all workers; ABSENT where none was got."""
    served_by: str = ""
    """The answer's `served-model-name`, which Databricks gives where traffic is split."""
    sent: bytes = b""
    """The whole request, secrets included, where its body is to be kept; else empty."""
    sent_bytes: int = 0
    """Of the request, with its head."""


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
    """Tokens of reasoning, shown or hidden, see `pacemark.dialects.counting`."""
    disclosed: str = ""
    """How a stream showed its reasoning: verbatim, summary or hidden; empty where there was none."""
    calls: int = 0
    """Tools that it called."""
    malformed_calls: int = 0
    """Those whose arguments are no JSON."""
    call_ns: int = ABSENT
    """The event with which its first call began, and the one with which it was whole."""
    called_ns: int = ABSENT
    json_answer: int = ABSENT
    """Of an answer that was to be JSON: 1 where it is, 0 where it is not."""
    sent_bytes: int = 0
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
    asked_input: int = ABSENT
    """Input tokens that the request was made to have; ABSENT where nobody said."""
    shared_tokens: int = ABSENT
    """Tokens of its beginning that requests before it are to have had too; ABSENT where that is not planned."""
    origin: int = ABSENT
    """The prefix, conversation or row of a file that it is of."""
    turn: int = ABSENT
    """Of a conversation: how many turns came before it."""
    connection: int = ABSENT
    """Number of the connection that it went over, over all workers."""
    served_by: str = ""
    """Which of several models answered, as the server's header says it."""
    filtered: bool = False
    """A content filter annotated its events, and may have held text back until it had judged it."""
    events: int = 0
    """How many carried output, and the longest time between two of them."""
    gap_ns: int = 0
    part: int = ABSENT
    """Of one in outline, whose events here are but the first and the last: the part file that holds them all, and where
    in it. See `pacemark.instrument.apart`."""
    place: int = ABSENT
    server_queue_ms: float = ABSENT
    """What the server said of this request itself: how long it waited, its prompt took, its tokens took."""
    server_prefill_ms: float = ABSENT
    server_decode_ms: float = ABSENT


@dataclass(frozen=True, slots=True)
class Trace:
    """The exchanges of one level as columns: n requests, in the order sent, and m output events.

    Events of request i are rows `offsets[i]:offsets[i + 1]`. What a maker does not know of its requests it leaves
    out: such a column is then ABSENT, empty or false for each of them.
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
    exact: bool = False
    """Every event time is known exactly: `lo_ns` equals `hi_ns`."""
    index: Int64 = field(default_factory=lambda: _NONE)
    """(n,) number in the level."""
    send_ns: Int64 = field(default_factory=lambda: _NONE)
    """(n,) how long the sending call took."""
    status: Int64 = field(default_factory=lambda: _NONE)
    coalesced_reads: Int64 = field(default_factory=lambda: _NONE)
    """(n,) reads that held several output events."""
    finish_reason: NDArray[np.str_] = field(default_factory=lambda: np.zeros(0, np.str_))
    in_one_piece: NDArray[np.bool_] = field(default_factory=lambda: np.zeros(0, np.bool_))
    """(n,) streamed in name only: several tokens, and all came at once."""
    tpot_off: NDArray[np.float64] = field(default_factory=lambda: np.zeros(0))
    """(n,) by what share TPOT may be off, where it is not known how many tokens the first event held."""
    hidden_tokens: Int64 = field(default_factory=lambda: _NONE)
    """(n,) counted by the server and never streamed; `output_tokens` leaves them out."""
    reasoning_tokens: Int64 = field(default_factory=lambda: _NONE)
    disclosed: NDArray[np.str_] = field(default_factory=lambda: np.zeros(0, np.str_))
    calls: Int64 = field(default_factory=lambda: _NONE)
    malformed_calls: Int64 = field(default_factory=lambda: _NONE)
    call_ns: Int64 = field(default_factory=lambda: _NONE)
    called_ns: Int64 = field(default_factory=lambda: _NONE)
    json_answer: Int64 = field(default_factory=lambda: _NONE)
    sent_bytes: Int64 = field(default_factory=lambda: _NONE)
    first_byte_sent_ns: Int64 = field(default_factory=lambda: _NONE)
    """(n,) these nine as in an `Exchange`."""
    unread_events: Int64 = field(default_factory=lambda: _NONE)
    """(n,) events that were passed over because they had no meaning."""
    done_ns: Int64 = field(default_factory=lambda: _NONE)
    """(n,) when the answer said that it was complete."""
    asked_input: Int64 = field(default_factory=lambda: _NONE)
    """(n,) input tokens that the request was made to have."""
    shared_tokens: Int64 = field(default_factory=lambda: _NONE)
    """(n,) tokens of its beginning that requests before it are to have had too."""
    origin: Int64 = field(default_factory=lambda: _NONE)
    """(n,) the prefix, conversation or row of a file that it is of."""
    turn: Int64 = field(default_factory=lambda: _NONE)
    """(n,) of a conversation: how many turns came before it."""
    connection: Int64 = field(default_factory=lambda: _NONE)
    """(n,) number of the connection that each went over."""
    served_by: NDArray[np.str_] = field(default_factory=lambda: np.zeros(0, np.str_))
    """(n,) which of several models answered."""
    filtered: NDArray[np.bool_] = field(default_factory=lambda: np.zeros(0, np.bool_))
    """(n,) a content filter annotated the events."""
    tokens_from_events: NDArray[np.bool_] = field(default_factory=lambda: np.zeros(0, np.bool_))
    """(n,) nobody counted the tokens, and events stand for them."""
    outlined: NDArray[np.bool_] = field(default_factory=lambda: np.zeros(0, np.bool_))
    """(n,) of its events the first and the last are known: those between are drawn evenly, and give no figure."""
    server_queue_ms: NDArray[np.float64] = field(default_factory=lambda: np.zeros(0))
    """(n,) how long the request waited in the server, its prompt took, its tokens took, as its answer says."""
    server_prefill_ms: NDArray[np.float64] = field(default_factory=lambda: np.zeros(0))
    server_decode_ms: NDArray[np.float64] = field(default_factory=lambda: np.zeros(0))
    lag_ns: NDArray[np.int32] = field(default_factory=lambda: _NO_LAGS)
    """One per read of all requests, in no order: how long bytes lay in the kernel. Parts of a trace have none."""
    refusals: tuple[str, ...] = ()
    """What the server said with each 429."""
    known_origins: frozenset[int] = frozenset()
    """Origins of which a request was answered before the first of these was sent."""

    def __post_init__(self) -> None:
        for name, column in _LEFT_OUT.items():
            if len(getattr(self, name)) != len(self.sent_ns):
                object.__setattr__(self, name, np.full(len(self.sent_ns), column[0], dtype=column[1]))

    def __len__(self) -> int:
        return len(self.sent_ns)

    def taken(self, rows: Int64) -> Trace:
        """The requests `rows`, in that order, with their events."""
        starts, counts = self.offsets[:-1][rows], np.diff(self.offsets)[rows]
        hi_ns = pieces_of(self.hi_ns, starts, counts)
        return replace(
            self,
            **{name: getattr(self, name)[rows] for name in PER_REQUEST},
            offsets=np.concatenate([[0], np.cumsum(counts)]).astype(np.int64),
            hi_ns=hi_ns,
            lo_ns=hi_ns if self.exact else pieces_of(self.lo_ns, starts, counts),
            tokens=pieces_of(self.tokens, starts, counts),
        )

    def origins(self) -> frozenset[int]:
        """Those of which a request was answered by now."""
        return self.known_origins | frozenset(self.origin[self.error == ""].tolist()) - {ABSENT}

    def in_order(self) -> Trace:
        """The same, sorted by the time the requests were sent."""
        if bool(np.all(self.sent_ns[1:] >= self.sent_ns[:-1])):
            return self
        return self.taken(np.argsort(self.sent_ns, kind="stable"))

    @staticmethod
    def joined(parts: Sequence[Trace]) -> Trace:
        """The requests of `parts`, one part after the other; at least one part, all of one kind of loop."""
        if len(parts) == 1:
            return parts[0]
        ends = np.cumsum([0, *(int(p.offsets[-1]) for p in parts)])
        exact = all(p.exact for p in parts)
        hi_ns = np.concatenate([p.hi_ns for p in parts])
        return Trace(
            **{name: np.concatenate([getattr(p, name) for p in parts]) for name in PER_REQUEST},
            offsets=np.concatenate([[0], *(p.offsets[1:] + end for p, end in zip(parts, ends[:-1], strict=True))]),
            hi_ns=hi_ns,
            lo_ns=hi_ns if exact else np.concatenate([p.lo_ns for p in parts]),
            tokens=np.concatenate([p.tokens for p in parts]),
            open_loop=parts[0].open_loop,
            exact=exact,
            lag_ns=np.concatenate([p.lag_ns for p in parts]),
            refusals=tuple(said for p in parts for said in p.refusals),
            known_origins=parts[0].known_origins,
        )


def pieces_of(column: NDArray[Any], starts: Int64, counts: Int64) -> NDArray[Any]:
    """The pieces of `column` that begin at `starts` (n,) and are `counts` (n,) long, one after the other.

    Indices take more room than what they point to, so they are there for `_AT_ONCE` values or one piece at a time.
    """
    ends = np.cumsum(counts)
    found = np.empty(int(counts.sum()), column.dtype)
    first, done = 0, 0
    while first < len(counts):
        last = max(first + 1, int(np.searchsorted(ends, done + _AT_ONCE, side="right")))
        lengths = counts[first:last]
        end = int(ends[last - 1])
        offsets = np.repeat(starts[first:last] - ends[first:last] + lengths, lengths)
        found[done:end] = column[offsets + np.arange(done, end)]
        first, done = last, end
    return found


_AT_ONCE = 1 << 18
_ELSE = ("offsets", "hi_ns", "lo_ns", "tokens", "open_loop", "exact", "lag_ns", "refusals", "known_origins")
PER_REQUEST = tuple(f.name for f in fields(Trace) if f.name not in _ELSE)
"""The columns of a trace that have one entry per request."""


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
    spent_ns: int = ABSENT
    """When the worker found that the rows of its file had run out; ABSENT where they have not."""
    throttled_ns: int = 0
    """How long the CPU quota of its container has stopped it, see `pacemark.cpu.throttled_ns`; 0 without a quota."""


_TYPES: dict[type, Any] = {int: np.int64, float: np.float64, bool: np.bool_, str: np.str_}
TYPES: dict[str, Any] = {f.name: _TYPES.get(f.type) for f in msgspec.structs.fields(Exchange)} | {"stream": np.int32}
"""Of each plain field of an exchange: the type of its column."""


def trace_of(exchanges: Sequence[Exchange], open_loop: bool = False) -> Trace:
    """Columns of `exchanges`, sorted by the time they were sent.

    A level that grows is built of the traces of its batches: `Trace.joined(batches).in_order()`.
    """
    rows = sorted(exchanges, key=lambda x: x.sent_ns)
    plain: dict[str, Any] = {
        name: np.asarray([getattr(x, name) for x in rows], dtype=TYPES[name]) for name in PER_REQUEST if name in TYPES
    }
    hi_ns = np.concatenate([x.hi_ns for x in rows]) if rows else _NONE
    lo_ns = np.concatenate([x.lo_ns for x in rows]) if rows else _NONE
    exact = bool(np.array_equal(hi_ns, lo_ns))
    return Trace(
        **plain,
        tokens_from_usage=np.asarray([x.tokens_source == "usage" for x in rows], dtype=np.bool_),
        tokens_from_events=np.asarray([x.tokens_source == "events" for x in rows], dtype=np.bool_),
        offsets=np.cumsum([0, *(len(x.hi_ns) for x in rows)], dtype=np.int64),
        hi_ns=hi_ns,
        lo_ns=hi_ns if exact else lo_ns,
        tokens=np.concatenate([x.tokens for x in rows]) if rows else np.zeros(0, np.float32),
        open_loop=open_loop,
        exact=exact,
        lag_ns=np.concatenate([x.lag_ns for x in rows]) if rows else _NO_LAGS,
        refusals=tuple(x.detail for x in rows if x.error == "http_429"),
    )
