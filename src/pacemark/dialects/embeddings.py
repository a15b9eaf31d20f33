"""Embeddings: a text in, a vector out, in one piece. A vector counts as one token of output."""

from __future__ import annotations

import re
from typing import Any

import msgspec

from pacemark.dialects.said import (
    ANSWER,
    NO_JSON,
    Said,
    busy_code,
    error_text,
    fields_of,
    first_tally,
    loosely,
    otherwise,
    says_failure,
)


def body(text: str) -> dict[str, Any]:
    """The field of a request that holds the text."""
    return {"input": text}


class _Answer(msgspec.Struct):
    data: list[msgspec.Raw]
    usage: Any = None
    model: Any = None


_decode = msgspec.json.Decoder(_Answer, strict=False).decode
_HOLLOW = re.compile(rb'"embedding"\s*:\s*(?:null|\[\s*(?:null|\]))')
"""No vector, or one of no numbers: what llama.cpp gives where the model overflows (ggml-org/llama.cpp, issue 14812)."""


def read(body: bytes, streamed: bool) -> Said:
    """What an answer of status 200 said. Failures that it reveals are its `error`; nothing is raised."""
    said = Said()
    try:
        answer = _decode(body)
    except NO_JSON as problem:
        return _otherwise(said, body, problem)
    said.by(answer.model)
    _take(said, len(answer.data), answer.usage, body)
    return said


def _take(said: Said, entries: int, usage: Any, body: bytes) -> None:
    vectors = max(0, entries - len(_HOLLOW.findall(body)))
    if vectors:
        said.add(ANSWER, len(body))
    said.completion_tokens = vectors
    # Some servers count the whole input as the total alone.
    said.prompt_tokens = first_tally(fields_of(usage), "prompt_tokens", "total_tokens")


def _otherwise(said: Said, body: bytes, problem: Exception) -> Said:
    """An answer that is not as it should be: a failure, or vectors beside fields of odd types."""
    try:
        value = loosely(body)
    except ValueError:
        said.fail("bad_answer", otherwise("vectors", body, problem))
        return said
    data = value.get("data") if isinstance(value, dict) else None
    if isinstance(data, list) and not value.get("error"):
        said.by(value.get("model"))
        _take(said, len(data), value.get("usage"), body)
    elif says_failure(value):
        code = busy_code(value)
        said.fail("server_error" if code is None else f"said_{code}", error_text(body))
    else:
        said.fail("bad_answer", otherwise("vectors", body))
    return said
