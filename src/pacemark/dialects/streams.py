"""The JSON objects of an answer with the offset past each: of events, or of lines, or of one piece; and what is said
of a stream that ends too soon."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import msgspec

from pacemark.dialects.said import (
    NO_JSON,
    Said,
    broke,
    busy_code,
    error_text,
    line_of,
    loosely,
    otherwise,
    says_failure,
    unwrapped,
)
from pacemark.dialects.sse import BOM, Events, is_done, is_event_stream, is_sign_of_life, last_words

Fields = dict[str, Any]


def objects(said: Said, body: bytes) -> Iterator[tuple[Fields, int]]:
    """Of every event, up to one that is a failure, which `said` is told of. `[DONE]` sets its `done_at`."""
    events = Events(body)
    for payload in events:
        for piece, end in unglued(events, payload):
            text = piece.strip()
            if len(text) < 16 and is_done(text):
                said.is_over(end)
            elif text:
                if events.event == b"error":
                    broke(said, text)
                    return
                if (value := _object(said, text, events.event)) is None:
                    return
                yield value, end


def lines(said: Said, body: bytes) -> Iterator[tuple[Fields, int]]:
    """Of every line, as `objects` does; of every event where a gateway made events of them."""
    if is_event_stream(body):
        yield from objects(said, body)
        return
    begin = len(BOM) if body.startswith(BOM) else 0
    while begin < len(body):
        end = body.find(b"\n", begin) + 1 or len(body)
        if text := body[begin:end].strip():
            if (value := _object(said, text)) is None:
                return
            yield value, end
        begin = end


def _object(said: Said, text: bytes, name: bytes = b"") -> Fields | None:
    """None where the answer is over with it, for it is a failure."""
    try:
        value = _decoded(text)
    except ValueError as problem:
        if is_sign_of_life(text, name):
            return {}
        said.fail("bad_stream", f"an event is no JSON: {problem}: {line_of(text)}")
        return None
    if not isinstance(value := unwrapped(value), dict):  # counted by the reader, as whatever else it has no meaning for
        return {}
    if value.get("error") or value.get("error_code") or value.get("type") == "error":
        broke(said, text)
        return None
    return value


def cut_short(said: Said, body: bytes, mark: str) -> None:
    """Take the end of a stream that came without the `mark` of one: with a failure that is no event, as servers and
    proxies write it, or without a word."""
    if words := last_words(body):
        broke(said, words)
    foreign = said.foreign
    said.fail("truncated", f"the stream ended without {mark}{foreign and f': {foreign}'}")


def one_object(said: Said, body: bytes, what: str, form: str) -> Fields | None:
    """The object of an answer in one piece, which must have the field `form`; None where it is none, but a failure,
    which `said` is told of. `what` names the API in words."""
    try:
        value = _decoded(body.removeprefix(BOM).strip())
    except ValueError as problem:
        said.fail("bad_answer", otherwise(what, body, problem))
        return None
    if isinstance(value, dict) and form in value and not value.get("error"):
        return value
    if says_failure(value):
        code = busy_code(value)
        said.fail("server_error" if code is None else f"said_{code}", error_text(body))
    else:
        said.fail("bad_answer", otherwise(what, body))
    return None


def _decoded(text: bytes) -> Any:
    """JSON, strictly and fast where it can be. Raises ValueError."""
    try:
        return msgspec.json.decode(text)
    except NO_JSON:
        return loosely(text)


def unglued(events: Events, payload: bytes) -> list[tuple[bytes, int]]:
    """One event is one piece, unless its lines, or what was glued to it, are events of their own."""
    if b"data:" in payload or b"\n" in payload:
        try:
            loosely(payload)
        except ValueError:
            return events.pieces() or [(payload, events.at)]
    return [(payload, events.at)]
