"""Chat and completions as OpenAI words them, and as its many imitators answer.

What most servers send is read by typed decoding, see `chunks`; of events alike only the first is decoded.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Sequence
from itertools import accumulate
from typing import Any

import msgspec

from pacemark.dialects.attached import Attached
from pacemark.dialects.calls import spelled
from pacemark.dialects.chunks import Chunk, ChunkChoice, Delta, chunk_of
from pacemark.dialects.said import (
    ANSWER,
    EMPTY,
    NOTHING,
    REASONING,
    Said,
    broke,
    busy_code,
    duration_ms,
    entries_of,
    error_text,
    fields_of,
    line_of,
    loosely,
    otherwise,
    says_failure,
)
from pacemark.dialects.sse import Events, is_done, is_sign_of_life
from pacemark.dialects.streams import cut_short, unglued
from pacemark.dialects.usage import CountedUsage, take_usage
from pacemark.tools import CHOICES, Tool


def chat_body(text: str) -> dict[str, Any]:
    """The fields of a chat request that hold the prompt."""
    return {"messages": [{"role": "user", "content": text}]}


def completions_body(text: str) -> dict[str, Any]:
    """The field of a completions request that holds the prompt."""
    return {"prompt": text}


def chat_attach(body: dict[str, Any], beside: Sequence[Attached]) -> None:
    """Put images and audio after the prompt, whose beginning is each request's own."""
    (message,) = body["messages"]
    parts = [{"type": "image_url", "image_url": {"url": x.url}} if x.kind == "image" else x.input_audio for x in beside]
    message["content"] = [{"type": "text", "text": message["content"]}, *parts]


def chat_tools(tools: Sequence[Tool], choice: str) -> dict[str, Any]:
    """The fields that offer tools; `choice` is one of `CHOICES`, the name of a tool, or empty."""
    chosen = choice if choice in CHOICES else {"type": "function", "function": {"name": choice}}
    return {"tools": [tool.given for tool in tools]} | ({"tool_choice": chosen} if choice else {})


def chat_schema(schema: dict[str, Any]) -> dict[str, Any]:
    """The field that asks for JSON of this schema."""
    return {"response_format": {"type": "json_schema", "json_schema": {"name": "answer", "schema": schema}}}


# --- what a choice carried

_REASONS = ("reasoning_content", "reasoning", "reasoning_text", "thinking", "reasoning_details")
_NOT_TEXT = ("type", "id", "format", "signature", "data", "index", "encrypted_content")


def _carried(choice: ChunkChoice) -> tuple[int, str]:
    delta = choice.delta or choice.message
    if choice.text is None:
        return (NOTHING, "") if delta is None else _carried_in(delta)
    if choice.text or delta is None:
        return (ANSWER, choice.text) if choice.text else (EMPTY, "")
    return max((EMPTY, ""), _carried_in(delta))  # Together has both, and reasoning in the delta alone


def _carried_in(delta: Delta) -> tuple[int, str]:
    content = delta.content
    if content:
        kind, text = (ANSWER, content) if isinstance(content, str) else _parts(content)
        if kind > EMPTY:
            return kind, text
    for name in _REASONS:
        if (thought := getattr(delta, name)) and (text := _text_in(thought)):
            return REASONING, text
    for call in (delta.tool_calls, delta.function_call):
        if call and isinstance(call, list | dict):
            return ANSWER, msgspec.json.encode(call).decode("utf-8", "replace")
    if delta.refusal and isinstance(delta.refusal, str):
        return ANSWER, delta.refusal
    return (NOTHING if content is None or not isinstance(content, str | list) else EMPTY), ""


def _parts(parts: Any) -> tuple[int, str]:
    """Content as typed parts, which Databricks and Mistral use for reasoning models."""
    said: dict[int, list[str]] = {REASONING: [], ANSWER: []}
    for part in parts if isinstance(parts, list) else ():
        name = str(part.get("type", "")).lower() if isinstance(part, dict) else ""
        said[REASONING if "reason" in name or "think" in name else ANSWER].append(_text_in(part))
    for kind in (ANSWER, REASONING):
        if text := "".join(said[kind]):
            return kind, text
    return EMPTY, ""


def _text_in(value: Any, depth: int = 6) -> str:
    """The text inside a part, however it is wrapped; signatures and what is encrypted are none."""
    if isinstance(value, str):
        return value
    if not depth or not isinstance(value, list | dict):
        return ""
    inner = value if isinstance(value, list) else [v for k, v in value.items() if k not in _NOT_TEXT]
    return "".join(_text_in(v, depth - 1) for v in inner)


def _finish_of(reason: Any) -> str:
    if isinstance(reason, dict):
        reason = reason.get("type") or reason.get("reason")
    return reason if isinstance(reason, str) and reason.lower() not in _NO_REASON else ""


_NO_REASON = ("null", "none")
"""A missing finish_reason, as a word: DashScope's and that of Python's None."""


_FAILED = re.compile(
    "error|abort|fail|cancel|content_?filter|sensitive|safety|recitation|blocklist|prohibited|insufficient|malformed|"
    "timeout|overload",
    re.IGNORECASE,
)
"""Finish reasons that are no ending of an answer, by the words that OpenAI, vLLM, SGLang, OpenRouter, DeepSeek, GLM and
Gemini use."""


def _take(said: Said, chunk: Chunk, end: int) -> None:
    kind, finish = NOTHING, ""
    texts: list[str] = []
    for choice in chunk.choices or ():
        found, words = _carried(choice)
        _called(said, choice.delta or choice.message)
        if choice.delta is not None and choice.delta.role and not said.opened:
            said.opened = True
            found = NOTHING if found == EMPTY else found
        if choice.finish_reason and (finish := _finish_of(choice.finish_reason)):
            found = NOTHING if found == EMPTY else found
        if choice.error:
            said.fail("stream_error", error_text(msgspec.json.encode({"error": choice.error})))
        kind = max(kind, found)
        texts.append(words)
    said.add(kind, end, "".join(texts))
    if finish:
        said.finish_reason, said.done_at = finish, end
    if (counts := _counts(chunk)) is not None:
        take_usage(said, counts, kind)
    if chunk.x_groq and chunk.x_groq.error:
        said.fail("stream_error", error_text(msgspec.json.encode({"error": chunk.x_groq.error})))
    if chunk.timings or chunk.metrics:
        _time(said, fields_of(chunk.timings), fields_of(chunk.metrics))
    if finish and _FAILED.search(finish):
        said.fail(f"finish_{finish.lower()}", f"the answer ended with finish_reason {finish!r}")


def _called(said: Said, delta: Delta | None) -> None:
    """Take the calls in a delta, or pieces of some: told apart by their index, or where they are whole by their id."""
    if delta is None or not (delta.tool_calls or delta.function_call):
        return
    for number, call in enumerate(entries_of(delta.tool_calls)):
        index, function = call.get("index"), fields_of(call.get("function"))
        key = index if isinstance(index, int) else str(call.get("id") or number)
        said.call(key, spelled(function.get("arguments") or ""))
    if old := fields_of(delta.function_call):
        said.call("function_call", spelled(old.get("arguments") or ""))


def _counts(chunk: Chunk) -> CountedUsage | None:
    """What the server counted: beside the choices, where Groq has it, or in a choice as Moonshot does."""
    if chunk.usage is not None:
        return chunk.usage
    for choice in chunk.choices or ():
        if choice.usage is not None:
            return choice.usage
    return None if chunk.x_groq is None else chunk.x_groq.usage


def _time(said: Said, timings: dict[str, Any], metrics: dict[str, Any]) -> None:
    said.queue_ms = duration_ms(metrics.get("queue_time_ms"))
    said.prefill_ms = duration_ms(timings.get("prompt_ms", metrics.get("time_to_first_token_ms")))
    said.decode_ms = duration_ms(timings.get("predicted_ms", metrics.get("generation_time_ms")))


# --- reading


def read(body: bytes, streamed: bool) -> Said:
    """What an answer of status 200 said, as an event stream or as one JSON. Failures that it reveals are its `error`;
    nothing is raised."""
    said = _read_stream(body) if streamed else _read_single(body)
    said.filtered = b'"content_filter_results"' in body
    if named := _MODEL(body):
        said.by(named[1].decode("utf-8", "replace"))
    return said


_MODEL = re.compile(rb'"model" ?: ?"([^"\\]{1,120})"').search
"""In an answer's text these marks would have a backslash."""


def _read_stream(body: bytes) -> Said:
    said, events = Said(), Events(body)
    for payload in events:
        for piece, end in unglued(events, payload):
            if len(piece) < 16 and is_done(piece):
                said.is_over(end)
            elif piece.strip():
                if (chunk := _read_event(said, piece, end, events.event)) is None:
                    return said
                if piece is payload:
                    _read_alike(events, piece, chunk, said)
    if not said.over and not said.finish_reason:
        cut_short(said, body, "a finish_reason and without [DONE]")
    return said


def _read_event(said: Said, payload: bytes, end: int, name: bytes) -> Chunk | None:
    """Take one event; None where the answer is over with it, for it is a failure."""
    try:
        chunk = chunk_of(payload)
    except ValueError as problem:
        if name == b"error":
            said.fail("stream_error", error_text(payload))
        elif is_sign_of_life(payload, name):
            said.unread += 1
            return Chunk()
        else:
            said.fail("bad_stream", f"an event is no JSON: {problem}: {line_of(payload)}")
        return None
    if chunk.error or chunk.error_code or chunk.object == "error" or name == b"error":
        broke(said, payload)
        return None
    if chunk.choices is None and chunk.usage is None:
        if says_failure(loosely(payload)):
            broke(said, payload)
            return None
        said.unread += 1
        return chunk
    _take(said, chunk, end)
    if chunk.choices and said.kinds[-1] <= EMPTY and not _is_regular(chunk):
        said.unread += 1
    return chunk if not said.error or said.error.startswith("finish_") else None


def _is_regular(chunk: Chunk) -> bool:
    """Whether a chunk without output has a reason to be: a role, an ending, a count, or content that is empty."""
    if chunk.usage is not None:
        return True
    for choice in chunk.choices or ():
        delta = choice.delta or choice.message
        if choice.finish_reason or choice.text is not None or delta is None or not delta.content:
            return True
    return False


_DIGITS = b"0123456789"
_USAGE = re.compile(rb'"usage": ?\{[^{}]*"completion_tokens": ?\d[^{}]*(?:\{[^{}]*\}[^{}]*)*\}\}').fullmatch
_COMPLETION = re.compile(rb'"completion_tokens": ?(\d+)').findall
_FIRST_LOOK, _WIDEST = 4096, 1 << 16
"""Bytes of a stream that are looked at together: few, and twice as many as long as all in them is alike."""
_string = msgspec.json.Decoder(str).decode


def _read_alike(events: Events, payload: bytes, chunk: Chunk, said: Said) -> None:
    """Take the events that follow `payload` and differ from it in their text, and in what they count, alone: most do,
    and decoding each would be most of the work (measured in docs/accuracy.md)."""
    choices = chunk.choices or ()
    if len(choices) != 1 or choices[0].finish_reason or events.event:
        return
    kind, text = _carried(choices[0])
    quoted = b'"%b"' % text.encode("utf-8", "replace")
    before, found, after = payload.partition(quoted)
    counts = after[after.find(b'"usage"') :] if chunk.usage is not None else b""
    if kind < REASONING or not found or quoted in after or (chunk.usage is not None and not _USAGE(counts)):
        return
    opening, closing = b'data: %b"' % before, b'"%b' % after[: len(after) - len(counts)]
    body, at, size, last = events.body, events.at, _FIRST_LOOK, b""
    while body.startswith(opening, at):
        window = body[at : body.rfind(b"\n\n", at, at + size) + 2]
        pieces = window.split(b"\n\n")
        parts, counted = _alike(window, pieces, opening, closing, counts)
        texts = _strings(parts)
        del pieces[len(texts) :]
        if not texts:
            break
        if counts:
            told = map(int, _COMPLETION(b"".join(counted[: len(texts)])))
            said.running += zip(range(len(said.ends), len(said.ends) + len(texts)), told, strict=True)
            last = pieces[-1]
        ends = list(accumulate([len(piece) + 2 for piece in pieces], initial=at))
        at = ends[-1]
        said.ends += ends[1:]
        said.texts += texts
        said.kinds += [kind] * len(texts)
        size = min(2 * size, _WIDEST)
    if last:  # its counts hold for the answer
        take_usage(said, chunk_of(last.removeprefix(b"data: ")).usage or CountedUsage(), NOTHING)
    events.at = at


def _alike(
    window: bytes, pieces: list[bytes], opening: bytes, closing: bytes, counts: bytes
) -> tuple[list[bytes], list[bytes]]:
    """What stands between `opening` and `closing` in the first of `pieces`, which `window` was split into, up to one
    that is made otherwise; and the counts behind it, which differ from `counts` in their digits alone."""
    skip = len(opening)
    if not counts:
        count = len(pieces) - 1
        while count and not (pieces[count - 1].startswith(opening) and pieces[count - 1].endswith(closing)):
            count -= 1
        parts = [piece[skip : -len(closing)] for piece in pieces[:count]]
        between = b"%b\n\n%b" % (closing, opening)
        if window.startswith(b"%b%b%b\n\n" % (opening, between.join(parts), closing)):
            return parts, []
    parts, counted, uncounted = [], [], counts.translate(None, _DIGITS)
    for piece in pieces:
        text, found, these = piece[skip:].partition(closing)
        if not found or not piece.startswith(opening) or these.translate(None, _DIGITS) != uncounted:
            break
        parts.append(text)
        counted.append(these)
    return parts, counted


def _strings(parts: list[bytes]) -> list[str]:
    """What JSON makes of the insides of strings, up to the first that is empty or none."""
    together = b'"'.join(parts)
    if all(parts) and together.count(b'"') == len(parts) - 1 and b"\\" not in together:
        with contextlib.suppress(UnicodeDecodeError):
            if (text := together.decode()).isprintable():
                return text.split('"')
    texts: list[str] = []
    for part in parts:
        try:
            text = _string(b'"%b"' % part)
        except (msgspec.DecodeError, UnicodeDecodeError):
            break
        if not text:
            break
        texts.append(text)
    return texts


def _read_single(body: bytes) -> Said:
    said = Said()
    try:
        chunk = chunk_of(body)
    except ValueError as problem:
        said.fail("bad_answer", otherwise("a completion", body, problem))
        return said
    if chunk.choices is not None and not (chunk.error or chunk.error_code):
        _take(said, chunk, len(body))
    elif says_failure(value := loosely(body)):
        code = busy_code(value)
        said.fail("server_error" if code is None else f"said_{code}", error_text(body))
    else:
        said.fail("bad_answer", otherwise("a completion", body))
    return said
