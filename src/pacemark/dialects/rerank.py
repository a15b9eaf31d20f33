"""Rerank, as Cohere, Jina, vLLM, llama.cpp and TEI answer: a query and documents in, a mark for each out."""

from __future__ import annotations

from typing import Any

from pacemark.dialects.documents import DOCUMENTS_MARK, QUERY_MARK, judged
from pacemark.dialects.said import Said


def body(text: str) -> dict[str, Any]:
    """The fields of a request, with holes for the parts of its prompt."""
    return {"query": QUERY_MARK, "documents": DOCUMENTS_MARK}


def read(body: bytes, streamed: bool) -> Said:
    """What an answer of status 200 said. Failures that it reveals are its `error`; nothing is raised."""
    return judged(body, "a ranking")
