"""Score, as vLLM has it: how alike a text and others are."""

from __future__ import annotations

from typing import Any

from pacemark.dialects.documents import DOCUMENTS_MARK, QUERY_MARK, judged
from pacemark.dialects.said import Said


def body(text: str) -> dict[str, Any]:
    """The fields of a request, with holes for the parts of its prompt."""
    return {"text_1": QUERY_MARK, "text_2": DOCUMENTS_MARK}


def read(body: bytes, streamed: bool) -> Said:
    """What an answer of status 200 said. Failures that it reveals are its `error`; nothing is raised."""
    return judged(body, "scores")
