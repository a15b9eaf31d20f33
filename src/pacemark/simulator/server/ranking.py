"""The face of rerank and score: a mark for each document, which depends on its text and the query alone."""

from __future__ import annotations

from random import Random
from typing import Any

import msgspec

from pacemark.simulator.server import tokens as words
from pacemark.simulator.server.answers import Answer, Usage
from pacemark.simulator.server.asks import Ask, Refusal, body_of
from pacemark.simulator.server.http import Request

__all__ = ["RerankAnswer", "ScoreAnswer", "read_rerank", "read_score"]

_PAIR_TOKENS = 3
"""What marks the beginning, middle and end of a query and a document."""


class _Rerank(msgspec.Struct):
    query: str
    documents: list[str]
    model: str = ""


class _Score(msgspec.Struct):
    text_1: str
    text_2: str | list[str]
    model: str = ""


def read_rerank(request: Request, *, strict: bool = False) -> Ask:
    """Understand a request to rank documents. Raises Refusal."""
    body = body_of(request, _Rerank)
    return _ask(body.model, body.query, body.documents)


def read_score(request: Request, *, strict: bool = False) -> Ask:
    """Understand a request to score texts. Raises Refusal."""
    body = body_of(request, _Score)
    return _ask(body.model, body.text_1, [body.text_2] if isinstance(body.text_2, str) else body.text_2)


def _ask(model: str, query: str, documents: list[str]) -> Ask:
    if not documents:
        raise Refusal(400, "documents must not be empty")
    asked = words.pieces(query)
    read = [words.pieces(document) for document in documents]
    counted = sum(len(tokens) for tokens in read) + (len(asked) + _PAIR_TOKENS) * len(read)
    tokens = [*asked, *(token for tokens in read for token in tokens)]
    return Ask(task="embeddings", model=model, tokens=tokens, prompt_tokens=counted, limit=1, texts=[query, *documents])


class RerankAnswer(Answer):
    """The marks, the best first."""

    def whole(self, reason: str, usage: Usage) -> dict[str, Any]:
        """The ranking, with its counts as Jina and vLLM word them."""
        texts = self.plan.ask.texts[1:]
        ranked = sorted(enumerate(self._marks()), key=lambda pair: -pair[1])
        results = [{"index": n, "document": {"text": texts[n]}, "relevance_score": mark} for n, mark in ranked]
        return {"id": self.id, "model": self.plan.model, "results": results, "usage": self._counts(usage)}

    def _piece(self, text: str) -> dict[str, Any]:
        return {"text": text}

    def _marks(self) -> list[float]:
        query, *documents = self.plan.ask.texts
        return [round(Random(f"{query}\n{document}").random(), 6) for document in documents]

    def _counts(self, usage: Usage) -> dict[str, int]:
        return {"prompt_tokens": usage.prompt, "total_tokens": usage.prompt}


class ScoreAnswer(RerankAnswer):
    """The marks in the order of the texts."""

    def whole(self, reason: str, usage: Usage) -> dict[str, Any]:
        """The scores."""
        data = [{"index": n, "object": "score", "score": mark} for n, mark in enumerate(self._marks())]
        return {"id": self.id, "object": "list", "model": self.plan.model, "data": data, "usage": self._counts(usage)}
