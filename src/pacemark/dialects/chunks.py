"""One event of chat or completions, as OpenAI words it: typed where it fits, and taken leniently where it does not.

Fields that pacemark does not use are not named, and so are passed over.
"""

from __future__ import annotations

from typing import Any

import msgspec

from pacemark.dialects.said import NO_JSON, fields_of, loosely
from pacemark.dialects.usage import CountedUsage, usage_in

__all__ = ["ChunkChoice", "Chunk", "Delta", "chunk_of"]


class Delta(msgspec.Struct):
    """What a choice brought: a piece of a message, or all of it."""

    role: str | None = None
    content: Any = None
    reasoning: Any = None
    reasoning_content: Any = None
    reasoning_text: Any = None
    reasoning_details: Any = None
    thinking: Any = None
    refusal: Any = None
    tool_calls: Any = None
    function_call: Any = None


class _Groq(msgspec.Struct):
    usage: CountedUsage | None = None
    error: Any = None
    """Why a stream was stopped early."""


class ChunkChoice(msgspec.Struct):
    """One of the answers; more are never asked for."""

    delta: Delta | None = None
    message: Delta | None = None
    text: str | None = None
    finish_reason: Any = None
    usage: CountedUsage | None = None
    error: Any = None


class Chunk(msgspec.Struct):
    """An event, or an answer in one piece."""

    choices: list[ChunkChoice] | None = None
    usage: CountedUsage | None = None
    x_groq: _Groq | None = None
    error: Any = None
    error_code: Any = None
    """Databricks' way to report a failure."""
    object: str | None = None
    timings: Any = None
    """llama.cpp's times of this request."""
    metrics: Any = None
    """vLLM's, with --enable-per-request-metrics."""


_decode = msgspec.json.Decoder(Chunk, strict=False).decode


def chunk_of(payload: bytes) -> Chunk:
    """The event that `payload` is. Raises ValueError where `payload` is no JSON at all."""
    try:
        return _decode(payload)
    except NO_JSON:
        return _tolerant(loosely(payload))


def _tolerant(value: Any) -> Chunk:
    if not isinstance(value, dict):
        return Chunk()
    choices, groq = value.get("choices"), fields_of(value.get("x_groq"))
    return Chunk(
        choices=[_tolerant_choice(c) for c in choices if isinstance(c, dict)] if isinstance(choices, list) else None,
        usage=usage_in(value.get("usage")),
        x_groq=_Groq(usage_in(groq.get("usage")), groq.get("error")),
        error=value.get("error"),
        error_code=value.get("error_code"),
        object=_text_or_none(value.get("object")),
        timings=value.get("timings"),
        metrics=value.get("metrics"),
    )


def _tolerant_choice(choice: dict[str, Any]) -> ChunkChoice:
    delta, message = ([_tolerant_delta(choice[k])] if k in choice else [None] for k in ("delta", "message"))
    return ChunkChoice(
        delta=delta[0],
        message=message[0],
        text=_text_or_none(choice.get("text")),
        finish_reason=choice.get("finish_reason"),
        usage=usage_in(choice.get("usage")),
        error=choice.get("error"),
    )


def _tolerant_delta(delta: Any) -> Delta | None:
    if not isinstance(delta, dict):
        return None
    known = {name: delta.get(name) for name in Delta.__struct_fields__}
    return Delta(**known | {"role": _text_or_none(known["role"])})


def _text_or_none(value: Any) -> str | None:
    return value if isinstance(value, str) else None
