"""Dialects: the bytes of a request, and the meaning of what comes back.

`understand` runs after a request has ended, in another process than the one that measured it.
"""

from __future__ import annotations

import re
import zlib
from collections.abc import Callable
from typing import Any, NamedTuple

import msgspec
import numpy as np

from pacemark.dialects.sse import Events
from pacemark.trace import ABSENT, Exchange, Int64, RawExchange


class Dialect(NamedTuple):
    """A way of asking for text: where to post, and how the prompt is wrapped."""

    name: str
    path: str
    ask: Callable[[str], dict[str, Any]]


DIALECTS = {
    "chat": Dialect("chat", "/chat/completions", lambda text: {"messages": [{"role": "user", "content": text}]}),
    "completions": Dialect("completions", "/completions", lambda text: {"prompt": text}),
    "embeddings": Dialect("embeddings", "/embeddings", lambda text: {"input": text}),
}


class Options(msgspec.Struct, frozen=True):
    """What this server accepts, learned by trying once and sent with every request."""

    stream: bool = True
    include_usage: bool = True
    ignore_eos: bool = True
    min_tokens: bool = True
    max_tokens_field: str = "max_tokens"
    """Empty: the answer's length is not the client's to choose."""


def attempts(stream: bool, api: str = "chat") -> list[Options]:
    """Options from the most telling to the plainest; the first that a server takes is kept."""
    if api == "embeddings":
        return [Options(stream=False, include_usage=False, ignore_eos=False, min_tokens=False, max_tokens_field="")]
    plain = Options(stream=stream, include_usage=stream, ignore_eos=False, min_tokens=False)
    return [
        Options(stream=stream, include_usage=stream),
        msgspec.structs.replace(plain, ignore_eos=True),
        plain,
        msgspec.structs.replace(plain, max_tokens_field="max_completion_tokens"),
        *([msgspec.structs.replace(plain, include_usage=False)] if stream else []),
    ]


_PROMPT_HOLE = "@prompt@"
_TOKENS_HOLE = "@tokens@"


def template(dialect: Dialect, model: str, options: Options, extra: dict[str, Any]) -> bytes:
    """The JSON of every request of a run, with holes for the prompt and the tokens asked for."""
    body: dict[str, Any] = {"model": model} if model else {}
    body |= dialect.ask(_PROMPT_HOLE)
    if options.max_tokens_field:
        body[options.max_tokens_field] = _TOKENS_HOLE
    if options.stream:
        body["stream"] = True
    if options.include_usage:
        body["stream_options"] = {"include_usage": True}
    if options.ignore_eos:
        body["ignore_eos"] = True
    if options.min_tokens:
        body["min_tokens"] = _TOKENS_HOLE
    return msgspec.json.encode(body | extra)


def fill(template: bytes, prompt: str, tokens: int) -> bytes:
    """`template` with its holes filled. `prompt` must hold nothing that JSON would escape."""
    counted = template.replace(b'"%s"' % _TOKENS_HOLE.encode(), b"%d" % tokens)
    return counted.replace(_PROMPT_HOLE.encode(), prompt.encode("ascii"))


# --- what servers send back; fields that pacemark does not use are not named, and so are passed over


class _Delta(msgspec.Struct):
    role: str | None = None
    content: str | list[Any] | None = None
    reasoning: str | None = None
    reasoning_content: str | None = None
    refusal: str | None = None
    tool_calls: list[Any] | None = None
    function_call: Any = None


class _Choice(msgspec.Struct):
    delta: _Delta | None = None
    message: _Delta | None = None
    text: str | None = None
    finish_reason: str | None = None


class _PromptDetails(msgspec.Struct):
    cached_tokens: int | None = None


class _Usage(msgspec.Struct):
    prompt_tokens: int | None = None
    completion_tokens: int | None = None
    prompt_tokens_details: _PromptDetails | None = None


class _Chunk(msgspec.Struct):
    choices: list[_Choice] | None = None
    data: list[msgspec.Raw] | None = None
    """Embeddings: one vector for each text."""
    usage: _Usage | None = None
    error: Any = None
    error_code: Any = None
    """Databricks' way to report a failure."""
    object: str | None = None


_decode = msgspec.json.Decoder(_Chunk, strict=False).decode

NOTHING, EMPTY, REASONING, ANSWER = range(4)
"""What a choice carried: no output at all, an empty delta, reasoning or tool arguments, text for the reader."""


def _carried(choice: _Choice) -> tuple[int, str]:
    if choice.text is not None:
        return (ANSWER, choice.text) if choice.text else (EMPTY, "")
    delta = choice.delta or choice.message
    if delta is None:
        return NOTHING, ""
    content = delta.content
    if isinstance(content, list):
        return _carried_parts(content)
    if content:
        return ANSWER, content
    reasoning = delta.reasoning_content or delta.reasoning
    if reasoning:
        return REASONING, reasoning
    if delta.tool_calls or delta.function_call:
        return ANSWER, msgspec.json.encode(delta.tool_calls or delta.function_call).decode()
    if delta.refusal:
        return ANSWER, delta.refusal
    return (NOTHING if content is None else EMPTY), ""


def _carried_parts(parts: list[Any]) -> tuple[int, str]:
    """Content as a list of typed parts, which Databricks uses for reasoning models."""
    texts = [str(p.get("text", "")) for p in parts if isinstance(p, dict) and p.get("type") == "text"]
    if any(texts):
        return ANSWER, "".join(texts)
    return (REASONING, msgspec.json.encode(parts).decode()) if parts else (EMPTY, "")


def _error_text(body: bytes) -> str:
    """What the server said went wrong, in one line."""
    try:
        value = msgspec.json.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return _one_line(re.sub(r"<[^>]*>", " ", body.decode("utf-8", "replace")))
    for key in ("error", "message", "detail"):
        if isinstance(value, dict) and value.get(key):
            value = value[key]
            if isinstance(value, dict) and value.get("message"):
                value = value["message"]
            break
    return _one_line(value if isinstance(value, str) else msgspec.json.encode(value).decode())


def _one_line(text: str) -> str:
    """Printable and on one line; whole, because half a secret could not be recognised and masked any more."""
    return " ".join("".join(c if c.isprintable() else " " for c in text).split())


def understand(raw: RawExchange, count_tokens: Callable[[str], int] | None = None) -> Exchange:
    """The meaning of one request's bytes.

    A failure that the bytes reveal (an HTTP error, an error object inside a stream, a stream that breaks
    off) becomes the exchange's `error`; nothing is raised. `count_tokens` counts output where the server
    does not report usage.
    """
    reads: Int64 = np.frombuffer(raw.reads, dtype=np.int64).reshape(-1, 3)
    body, ends = raw.body, reads[:, 2]
    error, detail = raw.error, raw.detail
    if raw.encoding in ("gzip", "deflate") and body:
        body, ends = _inflated(body, ends)
    if raw.status >= 300:
        error, detail = f"http_{raw.status}", _error_text(body)
    said = _Said()
    if raw.streamed and not error.startswith("http_"):
        said = _read_stream(body)
    elif raw.status and not error:
        said = _read_single(body)
    error, detail = (error, detail) if error else (said.error, said.detail)
    offsets = np.asarray(said.ends, dtype=np.int64)
    read_of = np.minimum(np.searchsorted(ends, offsets), max(len(ends) - 1, 0))
    arrivals = reads[:, 0]
    hi = arrivals[read_of] if len(arrivals) else np.zeros(0, np.int64)
    previous = np.concatenate([[raw.sent_ns], arrivals])[read_of] if len(arrivals) else hi
    output_tokens, source = said.completion_tokens, "usage"
    kinds = np.asarray(said.kinds, dtype=np.int8)
    carries = kinds > EMPTY
    if output_tokens is None or (output_tokens == 0 and carries.any()):
        if count_tokens is not None and said.text:
            output_tokens, source = count_tokens("".join(said.text)), "tokenizer"
        else:
            output_tokens, source = int(carries.sum()), "events"
    elif int(carries.sum()) < output_tokens:
        # Empty deltas are tokens where the server's own count says that there were more.
        spare = np.flatnonzero(kinds == EMPTY)[: output_tokens - int(carries.sum())]
        carries[spare] = True
    # The stamp is that of the read's last byte: exact for an event that ends there, a bound for one before it. What
    # is followed only by events without output (finish, usage, [DONE]) counts as exact: servers write them together.
    followed = np.append(carries[1:], False) & (ends[read_of] != offsets) if len(arrivals) else np.zeros(len(hi), bool)
    lo = np.where(followed, previous, hi)
    answers = np.flatnonzero(kinds == ANSWER)
    chosen = np.flatnonzero(carries)
    if not error and not len(chosen):
        error, detail = "empty", "the answer ended without any output"
    holding = read_of[chosen]
    weight = output_tokens / len(chosen) if len(chosen) else 0.0
    return Exchange(
        level=raw.level,
        index=raw.index,
        stream=raw.stream,
        scheduled_ns=raw.scheduled_ns,
        first_byte_sent_ns=raw.first_byte_sent_ns,
        sent_ns=raw.sent_ns,
        send_ns=raw.send_ns,
        headers_ns=raw.headers_ns,
        first_event_ns=int(hi[0]) if raw.streamed and len(hi) else ABSENT,
        answer_ns=int(hi[answers[0]]) if raw.streamed and len(answers) else ABSENT,
        ended_ns=raw.ended_ns,
        connect_ns=raw.connect_ns,
        status=raw.status,
        error=error,
        detail=detail,
        finish_reason=said.finish_reason,
        asked_tokens=raw.asked_tokens,
        input_tokens=ABSENT if said.prompt_tokens is None else said.prompt_tokens,
        cached_tokens=ABSENT if said.cached_tokens is None else said.cached_tokens,
        output_tokens=output_tokens,
        tokens_source=source,
        hi_ns=hi[chosen],
        lo_ns=lo[chosen],
        tokens=np.full(len(chosen), weight, dtype=np.float32),
        lag_ns=np.clip(reads[:, 1], ABSENT, np.iinfo(np.int32).max).astype(np.int32),
        coalesced_reads=len(np.unique(holding[1:][holding[1:] == holding[:-1]])),
        retry_after_s=raw.retry_after_s,
    )


class _Said:
    """What the events of one answer said, gathered while reading them."""

    def __init__(self) -> None:
        self.kinds: list[int] = []
        self.ends: list[int] = []
        self.text: list[str] = []
        self.prompt_tokens: int | None = None
        self.cached_tokens: int | None = None
        self.completion_tokens: int | None = None
        self.finish_reason = ""
        self.opened = False
        """The role header was seen."""
        self.error = ""
        self.detail = ""

    def take(self, chunk: _Chunk, end: int) -> None:
        kind, text = NOTHING, ""
        for choice in chunk.choices or ():
            kind, text = _carried(choice)
            if choice.delta is not None and choice.delta.role and not self.opened:
                self.opened = True
                kind = NOTHING if kind == EMPTY else kind
            if choice.finish_reason:
                self.finish_reason = choice.finish_reason
        usage = chunk.usage
        if chunk.data and not chunk.choices:
            kind = ANSWER  # a vector counts as one token of output
            self.completion_tokens = len(chunk.data)
            self.prompt_tokens = usage.prompt_tokens if usage is not None else None
        self.kinds.append(kind)
        self.ends.append(end)
        if text:
            self.text.append(text)
        if usage is not None and usage.completion_tokens is not None and not chunk.data:
            self.prompt_tokens = usage.prompt_tokens
            self.completion_tokens = usage.completion_tokens
            if usage.prompt_tokens_details is not None:
                self.cached_tokens = usage.prompt_tokens_details.cached_tokens


def _is_error(chunk: _Chunk) -> bool:
    return bool(chunk.error or chunk.error_code) or chunk.object == "error"


def _read_stream(body: bytes) -> _Said:
    said = _Said()
    done = False
    events = Events(body)
    for payload in events:
        if payload == b"[DONE]" or not payload.strip():
            done = done or bool(payload.strip())
            continue
        try:
            chunk = _decode(payload)
        except (msgspec.DecodeError, UnicodeDecodeError) as problem:
            said.error, said.detail = "bad_stream", f"an event is not the JSON of a completion chunk: {problem}"
            return said
        if _is_error(chunk):
            said.error, said.detail = "stream_error", _error_text(payload)
            return said
        said.take(chunk, events.at)
        _read_alike(events, payload, chunk, said)
    if not done and not said.finish_reason:
        said.error, said.detail = "truncated", "the stream ended without a finish_reason and without [DONE]"
    return said


_PLAIN = re.compile(rb"[ !#-\[\]-~]+").fullmatch
"""ASCII text that JSON writes as it is."""


def _read_alike(events: Events, payload: bytes, chunk: _Chunk, said: _Said) -> None:
    """Take the events that follow `payload` and differ from it in their text alone: most do, and decoding each would
    be most of the work (measured in docs/accuracy.md)."""
    choices = chunk.choices or ()
    if len(choices) != 1 or choices[0].finish_reason or chunk.usage is not None:
        return
    kind, text = _carried(choices[0])
    quoted = b'"%b"' % text.encode("utf-8", "replace")
    before, found, after = payload.partition(quoted)
    if kind < REASONING or not found or quoted in after or not _PLAIN(quoted[1:-1]):
        return
    opening, closing = b'data: %b"' % before, b'"%b\n\n' % after
    body, at, skip = events.body, events.at, len(opening)
    while body.startswith(opening, at) and (stop := body.find(closing, at + skip)) >= 0:
        plain = body[at + skip : stop]
        if not _PLAIN(plain):
            break
        at = stop + len(closing)
        said.kinds.append(kind)
        said.ends.append(at)
        said.text.append(plain.decode("ascii"))
    events.at = at


def _read_single(body: bytes) -> _Said:
    said = _Said()
    try:
        chunk = _decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError) as problem:
        said.error, said.detail = "bad_answer", f"the answer is not the JSON of a completion: {problem}"
        return said
    if _is_error(chunk):
        said.error, said.detail = "server_error", _error_text(body)
        return said
    said.take(chunk, len(body))
    return said


def _inflated(body: bytes, ends: Int64) -> tuple[bytes, Int64]:
    """A compressed body, inflated read by read, so that events keep the stamps of their reads."""
    machine = zlib.decompressobj(wbits=47)
    plain, sizes, begin = bytearray(), [], 0
    for end in ends.tolist():
        try:
            plain += machine.decompress(body[begin:end])
        except zlib.error:
            return body, ends
        sizes.append(len(plain))
        begin = end
    return bytes(plain), np.asarray(sizes, dtype=np.int64)
