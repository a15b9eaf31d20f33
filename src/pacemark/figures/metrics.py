"""The definitions. Each function takes the columns of a level and returns one value per request or per gap.

Times in, milliseconds out; NaN where a request does not have the metric.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from pacemark.trace import ABSENT, PER_REQUEST, Int64, Trace, Window

Float = NDArray[np.float64]
Mask = NDArray[np.bool_]


_NO_LAGS = np.zeros(0, np.int32)
PART_EVENTS = 1 << 18
"""Events that are worked on at once: what is as long as they are takes memory for so many, however long the level."""


def parts(trace: Trace) -> Iterator[tuple[slice, Trace]]:
    """`trace` in parts of some `PART_EVENTS` events, without a copy: which requests, and those as a trace."""
    offsets, first = trace.offsets, 0
    while first < len(trace) or first == 0:
        end = max(first + 1, int(np.searchsorted(offsets, offsets[first] + PART_EVENTS, side="right")) - 1)
        end = min(end, len(trace))
        rows, events = slice(first, end), slice(offsets[first], offsets[end])
        plain = {name: getattr(trace, name)[rows] for name in PER_REQUEST}
        inner = {name: getattr(trace, name)[events] for name in ("hi_ns", "lo_ns", "tokens")}
        yield rows, replace(trace, **plain, **inner, offsets=offsets[first : end + 1] - offsets[first], lag_ns=_NO_LAGS)
        first = max(end, 1)


def _by_parts(metric: Callable[..., Float]) -> Callable[..., Float]:
    """A metric with one value per request, computed part by part. Of a level some of whose events are not known it is
    unknown for all: those that are left were measured by some machines and not by others."""

    @functools.wraps(metric)
    def pieced(trace: Trace, *args: float) -> Float:
        if trace.outlined.any():
            return np.full(len(trace), np.nan)
        return np.concatenate([metric(part, *args) for _, part in parts(trace)])

    return pieced


def succeeded(trace: Trace) -> Mask:
    """Requests (n,) that were answered in full."""
    return np.asarray(trace.error == "", dtype=np.bool_)


def started_in(trace: Trace, start_ns: int, end_ns: int) -> Mask:
    """Requests (n,) whose clock started inside (start, end]: the fair sample, since choosing by the end favours
    short answers."""
    begun = trace.scheduled_ns if trace.open_loop else trace.sent_ns
    return (begun > start_ns) & (begun <= end_ns)


def ttft_ms(trace: Trace) -> Float:
    """Time to first token (n,): from t0 to the first event with generated output. NaN where nothing streamed."""
    return _since_start(trace, _first(trace, trace.hi_ns), trace.first_event_ns != ABSENT)


def ttfe_ms(trace: Trace) -> Float:
    """Time to first event (n,) of any kind: what tools report that take a role header for a token."""
    return _since_start(trace, trace.first_event_ns, trace.first_event_ns != ABSENT)


def ttfb_ms(trace: Trace) -> Float:
    """Time to the answer's headers (n,)."""
    return _since_start(trace, trace.headers_ns, trace.headers_ns != ABSENT)


def ttfa_ms(trace: Trace) -> Float:
    """Time to the first answer token (n,), after any reasoning."""
    return _since_start(trace, trace.answer_ns, trace.answer_ns != ABSENT)


def upload_ms(trace: Trace) -> Float:
    """How long it took to hand a request (n,) to the kernel, from its first byte to its last."""
    last = trace.sent_ns + trace.send_ns
    known = (trace.first_byte_sent_ns != ABSENT) & (last >= trace.first_byte_sent_ns)
    return np.where(succeeded(trace) & known, (last - trace.first_byte_sent_ns) / 1e6, np.nan)


def call_ms(trace: Trace) -> Float:
    """Time to the first event of the first tool call (n,)."""
    return _since_start(trace, trace.call_ns, trace.call_ns != ABSENT)


def complete_call_ms(trace: Trace) -> Float:
    """Time to the event that made the first tool call whole (n,)."""
    return _since_start(trace, trace.called_ns, trace.called_ns != ABSENT)


def reasoning_ms(trace: Trace) -> Float:
    """From the first token of reasoning to the first of the answer (n,); NaN where either was not to be seen."""
    shown = ((trace.disclosed == "verbatim") | (trace.disclosed == "summary")) & (trace.answer_ns != ABSENT)
    return np.where(succeeded(trace) & shown, (trace.answer_ns - _first(trace, trace.hi_ns)) / 1e6, np.nan)


def latency_ms(trace: Trace) -> Float:
    """From t0 to the last event with output (n,); the usage event and [DONE] come after it and do not count."""
    return _since_start(trace, _last(trace, trace.hi_ns), np.ones(len(trace), dtype=bool))


def tpot_ms(trace: Trace) -> Float:
    """Time per output token after the first (n,): (last - first) / (tokens - tokens that came with the first).

    NaN where that is 0 / 0. Dividing by tokens - 1 instead would understate it wherever several come first: in one
    event, as under speculative decoding, or in one read, as from a proxy that holds back the beginning.
    """
    first, last = _first(trace, trace.hi_ns), _last(trace, trace.hi_ns)
    counts = np.diff(trace.offsets)
    rest = trace.output_tokens - np.concatenate([_with_first(part) for _, part in parts(trace)])
    rest[last == first] = 0
    with np.errstate(divide="ignore", invalid="ignore"):
        tpot = (last - first) / 1e6 / rest
    return np.where(succeeded(trace) & (counts > 1) & (rest > 0) & (trace.first_event_ns != ABSENT), tpot, np.nan)


def _with_first(trace: Trace) -> Float:
    """Tokens that each request (n,) got together with its first."""
    owner = np.repeat(np.arange(len(trace)), np.diff(trace.offsets))
    at_once = trace.hi_ns == _first(trace, trace.hi_ns)[owner]
    return np.bincount(owner[at_once], trace.tokens[at_once], minlength=len(trace)).astype(np.float64)


@_by_parts
def longest_stall_ms(trace: Trace) -> Float:
    """The longest gap between output events of each request (n,); NaN where there is none."""
    longest = np.full(len(trace), np.nan)
    stamped = gap(trace, succeeded(trace), STAMPED)
    owner = _owners(trace)
    np.fmax.at(longest, owner, stamped)
    return longest


READING_MS = 100.0
"""Time per token of a fast reader: 10 tokens/s, about 450 words per minute."""


@_by_parts
def reading_idle_ms(trace: Trace, pace_ms: float = READING_MS) -> Float:
    """How long (n,) a reader who takes `pace_ms` per token waits for text after it has begun.

    Smooth goodput's idle time (arXiv 2410.14257): the reader consumes token i at u_i = max(t_i, u_(i-1) + pace) and
    idles for max(0, t_i - u_(i-1) - pace). Summed, that is the most by which an arrival trails the reader who never
    waits: max over i of t_i - t_1 - (tokens before i) x pace, which needs no loop over tokens.
    """
    first = np.repeat(trace.offsets[:-1], np.diff(trace.offsets))
    before = np.cumsum(trace.tokens, dtype=np.float64) - trace.tokens
    behind = (trace.hi_ns - trace.hi_ns[first]) / 1e6 - (before - before[first]) * pace_ms if len(first) else first
    idle = np.full(len(trace), np.nan)
    some = np.diff(trace.offsets) > 0
    if some.any():
        idle[some] = np.maximum.reduceat(behind, trace.offsets[:-1][some])
    return np.where(succeeded(trace) & (trace.first_event_ns != ABSENT), np.maximum(idle, 0.0), np.nan)


def fluidity(trace: Trace, wanted: Mask, ttft_limit_ms: float, gap_limit_ms: float) -> Float:
    """Fluidity index of the `wanted` requests, one value each: the share of token deadlines that were met.

    Deadlines follow Etalon's code (arXiv 2407.07000, etalon/metrics/metric_utils.py) rather than its text: time
    gained on one deadline may be spent on the next, a miss starts the slack at 0 again, and a long gap counts as
    all the deadlines it passed.
    """
    found = []
    start = _start(trace)
    for row in np.flatnonzero(wanted & succeeded(trace) & ~trace.outlined.any()).tolist():
        times = trace.hi_ns[trace.offsets[row] : trace.offsets[row + 1]]
        waits = np.diff(times, prepend=start[row]) / 1e6
        gained = gap_limit_ms - waits
        gained[:1] = ttft_limit_ms - waits[:1]
        if len(waits) and gained.cumsum().min() > 0:
            found.append(1.0)  # its slack was never used up: so for most, and found in a twentieth of the time
            continue
        slack, missed, total = 0.0, 0, 0
        for i, wait in enumerate(waits.tolist()):
            limit = gap_limit_ms if i else ttft_limit_ms
            if wait <= limit + slack:
                slack += limit - wait
                total += 1
            else:
                late = wait - slack - (0.0 if i else ttft_limit_ms)
                passed = max(1, (0 if i else 1) + int(late // gap_limit_ms))
                missed += passed
                total += passed
                slack = 0.0
        if total:
            found.append(1.0 - missed / total)
    return np.asarray(found)


def cycles_ms(trace: Trace, window: Window) -> tuple[Float, Float]:
    """Closed loop: the time from each request of a stream to the stream's next, of the requests begun in the window
    in the order sent, and their output tokens."""
    order = np.lexsort((trace.sent_ns, trace.stream))
    streams, sent = trace.stream[order], trace.sent_ns[order]
    follows = streams[1:] == streams[:-1]
    begun = (sent[:-1] > window.start_ns) & (sent[:-1] <= window.end_ns)
    chosen = np.flatnonzero(follows & begun)
    chosen = chosen[np.argsort(sent[chosen], kind="stable")]
    return (sent[chosen + 1] - sent[chosen]) / 1e6, trace.output_tokens[order[chosen]].astype(np.float64)


def in_flight(trace: Trace) -> Int64:
    """How many requests were in flight when each (n,) was begun, itself included."""
    begun = _start(trace)
    return np.searchsorted(np.sort(begun), begun, side="right") - np.searchsorted(
        np.sort(trace.ended_ns), begun, side="right"
    )


def send_delay_ms(trace: Trace) -> Float:
    """How long after its due time each request (n,) was sent."""
    return (trace.sent_ns - trace.scheduled_ns) / 1e6


def gaps(trace: Trace, wanted: Mask) -> tuple[Float, Float, Float]:
    """Inter-token latency: gaps between neighbouring output events of the `wanted` requests, pooled, in ms.

    Three arrays of one entry per gap: as stamped, and the least and the most it can have been where several
    events were taken in one read.
    """
    inner = _inner(trace, wanted)
    return _gap(trace, inner, STAMPED), _gap(trace, inner, LEAST), _gap(trace, inner, MOST)


STAMPED, LEAST, MOST = range(3)


def gap(trace: Trace, wanted: Mask, which: int) -> Float:
    """One of the three arrays of `gaps`: `STAMPED`, `LEAST` or `MOST`."""
    return _gap(trace, _inner(trace, wanted), which)


def _inner(trace: Trace, wanted: Mask) -> Mask:
    """Which differences of neighbouring events lie within a `wanted` request."""
    inner = np.full(max(0, len(trace.hi_ns) - 1), not trace.outlined.any())
    inner[trace.offsets[(trace.offsets > 0) & (trace.offsets < len(trace.hi_ns))] - 1] = False
    if not wanted.all():
        inner &= np.repeat(wanted, np.diff(trace.offsets))[1:]
    return inner


def _gap(trace: Trace, inner: Mask, which: int) -> Float:
    later = trace.lo_ns if which == LEAST else trace.hi_ns
    earlier = trace.lo_ns if which == MOST else trace.hi_ns
    found = (later[1:] - earlier[:-1])[inner]
    return np.maximum(found, 0) / 1e6 if which == LEAST else found / 1e6


def tokens_in(trace: Trace, start_ns: int, end_ns: int) -> tuple[Int64, Float]:
    """Arrival times (ns) and token counts of the output events inside (start, end]."""
    inside = (trace.hi_ns > start_ns) & (trace.hi_ns <= end_ns)
    return trace.hi_ns[inside], trace.tokens[inside].astype(np.float64)


def _owners(trace: Trace) -> Int64:
    """Which request each gap of the answered requests belongs to."""
    counts = np.where(succeeded(trace), np.maximum(np.diff(trace.offsets) - 1, 0), 0)
    return np.repeat(np.arange(len(trace)), counts)


def _start(trace: Trace) -> Int64:
    """Where a request's clock starts: when it was due in open loop, so that a late send cannot hide a wait."""
    return trace.scheduled_ns if trace.open_loop else trace.sent_ns


def _since_start(trace: Trace, when_ns: Float | Int64, known: Mask) -> Float:
    return np.where(succeeded(trace) & known, (when_ns - _start(trace)) / 1e6, np.nan)


def _first(trace: Trace, times_ns: Int64) -> Float:
    return _at(trace, times_ns, trace.offsets[:-1])


def _last(trace: Trace, times_ns: Int64) -> Float:
    return _at(trace, times_ns, trace.offsets[1:] - 1)


def _at(trace: Trace, times_ns: Int64, rows: Int64) -> Float:
    """The event time at each request's row, NaN where it has no events. A float64 holds it to within 2 ns."""
    found = np.full(len(trace), np.nan)
    some = np.diff(trace.offsets) > 0
    found[some] = times_ns[rows[some]]
    return found
