"""From bytes to an Exchange: which read brought which event, and what the events said.

It runs after a request has ended, in another process than the one that measured it.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable
from typing import Any

import msgspec
import numpy as np

from pacemark.dialects.calls import is_json
from pacemark.dialects.counting import Counted, counted
from pacemark.dialects.dialect import DIALECTS, Dialect
from pacemark.dialects.said import Said, error_text, first_answer, one_line
from pacemark.dialects.sse import BOM, Events, is_event_stream
from pacemark.trace import ABSENT, Exchange, Int64, RawExchange

_TRANSPORT_SAID = ("truncated", "bad_stream", "bad_answer", "empty")
"""What bytes that broke off reveal: the failure of the transport says more."""
UNREAD = "unread"
"""The failure of an answer that could not be read for a defect of pacemark's own."""
_INFLATED = ("gzip", "x-gzip", "deflate")
_MEMBER = b"\x1f"
"""How a member of gzip begins: a gateway may compress each event by itself (RFC 1952, 2.2). Other bytes after one are
padding."""
MOST_PLAIN_BYTES = 64 << 20
"""Of an answer that came compressed; no more of it is inflated."""
MOST_EVENTS = 1_000_000
"""Of an answer; one that could have more is not read."""
_MOST_LETTERS = 120
"""Of a word that a server chose, such as a finish_reason: columns of words are as wide as their longest."""
_KEPT = (
    *("level", "index", "stream", "status", "connection", "origin", "turn", "asked_input", "shared_tokens"),
    *("scheduled_ns", "first_byte_sent_ns", "sent_ns", "send_ns", "headers_ns", "ended_ns", "connect_ns"),
    *("retry_after_s", "sent_bytes"),
)
"""What is known of a request whatever its answer says."""
_LONGEST_NS = np.iinfo(np.int32).max
"""A lag that is longer is stored as this."""


def understand(
    raw: RawExchange,
    dialect: Dialect | str = "chat",
    count_tokens: Callable[[str], int] | None = None,
    json_answers: bool = False,
) -> Exchange:
    """The meaning of one request's bytes, as `dialect` (or the one of that name) reads them.

    A failure that the bytes reveal (an HTTP error, an error object inside a stream, a stream that breaks
    off) becomes the exchange's `error`; nothing is raised. `count_tokens` counts output where the server
    does not report usage, and shares it out where events hold several tokens. `json_answers`: look whether it is JSON.
    """
    try:
        return _understood(raw, dialect, count_tokens, json_answers)
    except Exception as problem:  # a mistake of ours costs an answer, and not the run
        told = f"pacemark could not read the answer: {problem!r}; that is a defect of pacemark, please report it"
        unread = msgspec.structs.replace(raw, body=b"", reads=b"", status=0, error=UNREAD, detail=told)
        return msgspec.structs.replace(_understood(unread, dialect, None, False), status=raw.status)


def _understood(
    raw: RawExchange, dialect: Dialect | str, count_tokens: Callable[[str], int] | None, json_answers: bool
) -> Exchange:
    raw, reads = _in_order(raw, np.frombuffer(raw.reads, dtype=np.int64).reshape(-1, 3))
    body, ends = raw.body, reads[:, 2]
    if raw.encoding in _INFLATED and body:
        body, ends = _inflated(body, ends)
    spoken = dialect if isinstance(dialect, Dialect) else DIALECTS[dialect]
    streamed = _is_stream(raw, body, spoken.lines)
    said = _too_much(body) or _packed(raw, body) or _said(raw, body, streamed, spoken)
    output = counted(said, count_tokens)
    error, detail = _failure(raw, said, output)
    hi, lo, read_of = _arrivals(raw, said, output, reads, ends)
    chosen = output.events
    answer = first_answer(said) if streamed and len(hi) else None
    holding = read_of[chosen]
    hi_ns = hi[chosen]
    return Exchange(
        **{name: getattr(raw, name) for name in _KEPT},
        first_event_ns=int(hi[0]) if streamed and len(hi) else ABSENT,
        answer_ns=ABSENT if answer is None else int(hi[answer]),
        error=_word(error),
        detail=detail,
        finish_reason=_word(said.finish_reason),
        asked_tokens=0 if spoken.unlimited else raw.asked_tokens,
        input_tokens=ABSENT if said.prompt_tokens is None else said.prompt_tokens,
        cached_tokens=ABSENT if said.cached_tokens is None else said.cached_tokens,
        output_tokens=output.output_tokens,
        tokens_source=output.source,
        hi_ns=hi_ns,
        lo_ns=lo[chosen],
        tokens=output.tokens.astype(np.float32),
        lag_ns=np.minimum(np.maximum(reads[:, 1], ABSENT), _LONGEST_NS).astype(np.int32),
        coalesced_reads=_coalesced(holding),
        hidden_tokens=output.hidden_tokens,
        reasoning_tokens=output.reasoning_tokens,
        disclosed=output.disclosed if streamed else "",
        tpot_off=output.tpot_off,
        unread_events=said.unread,
        in_one_piece=bool(streamed and output.output_tokens > 1 and len(holding) and holding[0] == holding[-1]),
        done_ns=_stamp_of(said.done_at, reads, ends),
        served_by=_word(raw.served_by or said.model),
        filtered=said.filtered,
        events=len(hi_ns),
        gap_ns=int((hi_ns[1:] - hi_ns[:-1]).max()) if len(hi_ns) > 1 else 0,
        **_server_times(said),
        **_called(said, hi if streamed else None),
        json_answer=_json_answer(said) if json_answers and not error else ABSENT,
    )


def _in_order(raw: RawExchange, reads: Int64) -> tuple[RawExchange, Int64]:
    """The request and its reads, none of which came before the one before it or before the request was sent.

    One can seem to: the kernel's stamps are of the wall clock, which may be set forward between a stamp and its read.
    """
    arrivals = np.maximum.accumulate(np.maximum(reads[:, 0], raw.sent_ns))
    if np.array_equal(arrivals, reads[:, 0]):
        return raw, reads
    headers_ns = raw.headers_ns if raw.headers_ns == ABSENT else max(raw.headers_ns, raw.sent_ns)
    raw = msgspec.structs.replace(raw, headers_ns=headers_ns, ended_ns=max(raw.ended_ns, int(arrivals[-1])))
    lags = np.where(arrivals == reads[:, 0], reads[:, 1], ABSENT)
    return raw, np.column_stack([arrivals, lags, reads[:, 2]])


def _packed(raw: RawExchange, body: bytes) -> Said | None:
    """What is said of an answer that came compressed in a way that nobody asked for and that is not undone here."""
    if raw.encoding in ("", *_INFLATED) or is_event_stream(body) or body.lstrip()[:1] in (b"", b"{", b"["):
        return None
    said = Said()
    said.fail("bad_encoding", f"the answer came compressed as {_word(raw.encoding)}, though none was asked for")
    return said


def _too_much(body: bytes) -> Said | None:
    """What is said of an answer that would fill the memory as it is read; None for any other."""
    what = ""
    if len(body) > MOST_PLAIN_BYTES:
        what = f"it is larger than {MOST_PLAIN_BYTES >> 20} MB once it is inflated"
    elif len(body) > MOST_EVENTS and max(map(body.count, (b"\n", b"\r", b"data:"))) > MOST_EVENTS:
        what = f"it has more than {MOST_EVENTS:,} events"
    if not what:
        return None
    said = Said()
    said.fail("too_large", f"the answer is not read: {what}")
    return said


def _word(text: str) -> str:
    """A word that the server chose, as one that can be stored."""
    return text if text.isascii() and len(text) <= _MOST_LETTERS else one_line(text[:_MOST_LETTERS])


def _server_times(said: Said) -> dict[str, Any]:
    """What the server said of this request's own times, by the fields of an exchange."""
    told = {"queue": said.queue_ms, "prefill": said.prefill_ms, "decode": said.decode_ms}
    return {f"server_{name}_ms": ms for name, ms in told.items() if ms is not None}


def _called(said: Said, hi_ns: Int64 | None) -> dict[str, Any]:
    """What tools were called, by the fields of an exchange. `hi_ns`: when each event came; None of an answer in one
    piece."""
    calls = list(said.calls.values())
    if not calls:
        return {}
    found = {"calls": len(calls), "malformed_calls": sum(not call.sound for call in calls)}
    if hi_ns is None or len(hi_ns) <= calls[0].ended:
        return found
    return found | {"call_ns": int(hi_ns[calls[0].begun]), "called_ns": int(hi_ns[calls[0].ended])}


def _json_answer(said: Said) -> int:
    """1 for an answer that is JSON, 0 for one that is not; ABSENT for one that calls tools instead."""
    if said.calls:
        return ABSENT
    return int(is_json(said.answer()))


def _said(raw: RawExchange, body: bytes, streamed: bool, dialect: Dialect) -> Said:
    if raw.status < 300 and raw.status and (streamed or not raw.error):
        return dialect.read(body, streamed)
    said = Said()
    if raw.status >= 300:
        moved_to = raw.detail if raw.status < 400 else ""
        said.fail(f"http_{raw.status}", moved_to or _refusal(body))
    return said


def _is_stream(raw: RawExchange, body: bytes, lines: bool) -> bool:
    """Whether the answer is a stream: by how it begins, and by its content type where nothing came. One of `lines` has
    several, or a first one that is not the last."""
    begun = body.removeprefix(BOM).lstrip()[:1]
    if lines and begun == b"{":
        first, _, rest = body.strip().partition(b"\n")
        return (bool(rest) and first.rstrip()[-1:] == b"}") or b'"done":false' in first.replace(b" ", b"")
    return is_event_stream(body) or (raw.streamed and begun not in (b"{", b"["))


def _refusal(body: bytes) -> str:
    """What an HTTP error says; some servers wrap it in an event."""
    if is_event_stream(body):
        body = next(iter(Events(body)), body)
    return error_text(body)


def _failure(raw: RawExchange, said: Said, output: Counted) -> tuple[str, str]:
    """Kind and detail of what went wrong, the server's own words first; both empty for a success."""
    if said.error and not (raw.error and said.error in _TRANSPORT_SAID):
        return said.error, said.detail
    if raw.error:
        held_open = said.done_at is not None and raw.error in ("timeout", "stalled")
        complete = said.over or held_open
        return ("", "") if complete and len(output.events) else (raw.error, raw.detail)
    if len(output.events):
        return "", ""
    if foreign := said.foreign:
        return "bad_answer", foreign
    if output.hidden_tokens:
        return (
            "empty",
            f"all {output.hidden_tokens} tokens of the answer were reasoning, which is not shown",
        )
    if said.completion_tokens:
        return (
            "empty",
            f"the server counted {said.completion_tokens} tokens, and the answer has no text where one is known",
        )
    return "empty", "the answer ended without any output"


def _arrivals(raw: RawExchange, said: Said, output: Counted, reads: Int64, ends: Int64) -> tuple[Int64, Int64, Int64]:
    """For each event: the latest and the earliest time it can have come, and the read that completed it.

    The stamp is that of the read's last byte: exact for an event that ends there, a bound for one before it. What
    is followed only by events without output (finish, usage, [DONE]) counts as exact: servers write them together.
    """
    if not len(reads):
        none = np.zeros(0, np.int64)
        return none, none, none
    offsets = np.array(said.ends, dtype=np.int64)
    read_of = np.minimum(ends.searchsorted(offsets), len(ends) - 1)
    arrivals = reads[:, 0]
    hi = lo = arrivals[read_of]
    followed = np.zeros(len(offsets), bool)
    followed[output.events] = True
    followed[:-1] = followed[1:]
    followed[-1:] = False
    followed &= ends[read_of] != offsets
    if followed.any():
        previous = read_of[followed] - 1
        lo = hi.copy()
        lo[followed] = np.where(previous >= 0, arrivals[previous], raw.sent_ns)
    return hi, lo, read_of


def _coalesced(holding: Int64) -> int:
    """How many reads stand more than once in `holding`, which ascends."""
    again = holding[1:] == holding[:-1]
    return int(np.count_nonzero(again)) - int(np.count_nonzero(again[1:] & again[:-1]))


def _stamp_of(offset: int | None, reads: Int64, ends: Int64) -> int:
    if offset is None or not len(reads):
        return ABSENT
    return int(reads[min(int(np.searchsorted(ends, offset)), len(reads) - 1), 0])


def _inflated(body: bytes, ends: Int64) -> tuple[bytes, Int64]:
    """A compressed body, inflated read by read, so that events keep the stamps of their reads."""
    for wbits in (47, -15):  # gzip or zlib by its head; then a bare deflate, as some servers send
        machine = zlib.decompressobj(wbits=wbits)
        plain, sizes, begin = bytearray(), [], 0
        try:
            for end in ends.tolist():
                part = body[begin:end]
                while part and len(plain) <= MOST_PLAIN_BYTES:  # one byte more than there may be tells of it
                    plain += machine.decompress(part, MOST_PLAIN_BYTES + 1 - len(plain))
                    part = machine.unused_data
                    if not part.startswith(_MEMBER):
                        break
                    machine = zlib.decompressobj(wbits=wbits)
                sizes.append(len(plain))
                begin = end
        except zlib.error:
            continue
        return bytes(plain), np.asarray(sizes, dtype=np.int64)
    return body, ends
