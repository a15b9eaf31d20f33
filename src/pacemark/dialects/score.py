"""Score, as vLLM has it: how alike a text and others are."""

from __future__ import annotations

from typing import Any

from pacemark.dialects.documents import DOCUMENTS_MARK, QUERY_MARK, judged
from pacemark.dialects.said import Said, entries_of
from pacemark.dialects.streams import one_object


def body(text: str) -> dict[str, Any]:
    """The fields of a request, with holes for the parts of its prompt."""
    return {"text_1": QUERY_MARK, "text_2": DOCUMENTS_MARK}


def read(body: bytes, streamed: bool) -> Said:
    """What an answer of status 200 said. Failures that it reveals are its `error`; nothing is raised."""
    said = Said()
    answer = one_object(said, body, "scores", "data")
    if answer is None:
        return said
    marked = [x for x in entries_of(answer["data"]) if "score" in x]
    return judged(said, len(marked), answer, len(body))
