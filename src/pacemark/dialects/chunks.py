"""One event of chat or completions, as OpenAI words it: typed where it fits, and taken leniently where it does not.

Fields that pacemark does not use are not named, and so are passed over.
"""

from __future__ import annotations

from typing import Any

import msgspec

from pacemark.dialects.said import NO_JSON, loosely, tally

__all__ = ["ChunkChoice", "Chunk", "CountedUsage", "Delta", "chunk_of"]


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


class ChunkChoice(msgspec.Struct):
    """One of the answers; more are never asked for."""

    delta: Delta | None = None
    message: Delta | None = None
    text: str | None = None
    finish_reason: Any = None
    error: Any = None


class _PromptDetails(msgspec.Struct):
    cached_tokens: int | None = None


class _CompletionDetails(msgspec.Struct):
    reasoning_tokens: int | None = None


class CountedUsage(msgspec.Struct):
    """What the server counted."""

    prompt_tokens: int | None = None
    completion_tokens: int | None = None
    total_tokens: int | None = None
    prompt_tokens_details: _PromptDetails | None = None
    completion_tokens_details: _CompletionDetails | None = None


class Chunk(msgspec.Struct):
    """An event, or an answer in one piece."""

    choices: list[ChunkChoice] | None = None
    usage: CountedUsage | None = None
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
    choices, usage = value.get("choices"), value.get("usage")
    return Chunk(
        choices=[_tolerant_choice(c) for c in choices if isinstance(c, dict)] if isinstance(choices, list) else None,
        usage=_tolerant_usage(usage) if isinstance(usage, dict) else None,
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
        error=choice.get("error"),
    )


def _tolerant_delta(delta: Any) -> Delta | None:
    if not isinstance(delta, dict):
        return None
    known = {name: delta.get(name) for name in Delta.__struct_fields__}
    return Delta(**known | {"role": _text_or_none(known["role"])})


def _tolerant_usage(usage: dict[str, Any]) -> CountedUsage:
    def within(name: str, field: str) -> int | None:
        inner = usage.get(name)
        return tally(inner.get(field)) if isinstance(inner, dict) else None

    return CountedUsage(
        prompt_tokens=tally(usage.get("prompt_tokens")),
        completion_tokens=tally(usage.get("completion_tokens")),
        total_tokens=tally(usage.get("total_tokens")),
        prompt_tokens_details=_PromptDetails(within("prompt_tokens_details", "cached_tokens")),
        completion_tokens_details=_CompletionDetails(within("completion_tokens_details", "reasoning_tokens")),
    )


def _text_or_none(value: Any) -> str | None:
    return value if isinstance(value, str) else None
