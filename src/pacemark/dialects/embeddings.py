"""Embeddings: a text in, a vector out, in one piece. A vector counts as one token of output."""

from __future__ import annotations

from typing import Any

import msgspec

from pacemark.dialects.said import ANSWER, NO_JSON, Said, busy_code, error_text, loosely, says_failure, tally


def body(text: str) -> dict[str, Any]:
    """The field of a request that holds the text."""
    return {"input": text}


class _Usage(msgspec.Struct):
    prompt_tokens: int | None = None
    total_tokens: int | None = None


class _Answer(msgspec.Struct):
    data: list[msgspec.Raw]
    usage: _Usage | None = None


_decode = msgspec.json.Decoder(_Answer, strict=False).decode


def read(body: bytes, streamed: bool) -> Said:
    """What an answer of status 200 said. Failures that it reveals are its `error`; nothing is raised."""
    said = Said()
    try:
        answer = _decode(body)
    except NO_JSON as problem:
        return _otherwise(said, body, problem)
    _take(said, len(answer.data), answer.usage, len(body))
    return said


def _take(said: Said, vectors: int, usage: _Usage | None, end: int) -> None:
    if vectors:
        said.add(ANSWER, end)
    said.completion_tokens = vectors
    if usage is not None:
        # Some servers count the whole input as the total alone.
        said.prompt_tokens = tally(usage.total_tokens if usage.prompt_tokens is None else usage.prompt_tokens)


def _otherwise(said: Said, body: bytes, problem: Exception) -> Said:
    """An answer that is not as it should be: a failure, or vectors beside fields of odd types."""
    try:
        value = loosely(body)
    except ValueError:
        said.fail("bad_answer", f"the answer is not the JSON of vectors: {problem}")
        return said
    data = value.get("data") if isinstance(value, dict) else None
    if isinstance(data, list) and not value.get("error"):
        _take(said, len(data), None, len(body))
    elif says_failure(value):
        code = busy_code(value)
        said.fail("server_error" if code is None else f"said_{code}", error_text(body))
    else:
        said.fail("bad_answer", f"the answer is not the JSON of vectors: {problem}")
    return said
