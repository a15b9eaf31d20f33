"""The face of Text Generation Inference's own generate."""

from __future__ import annotations

from typing import Any

import msgspec

from pacemark.simulator.server import tokens as words
from pacemark.simulator.server.answers import Answer, Plan, Usage
from pacemark.simulator.server.asks import Ask, Refusal, body_of
from pacemark.simulator.server.http import Request

__all__ = ["TgiAnswer", "read_tgi", "tgi_error"]


class _Parameters(msgspec.Struct):
    max_new_tokens: int | None = None


class _Asked(msgspec.Struct):
    inputs: str
    parameters: _Parameters | None = None


_REASONS = {"stop": "eos_token", "length": "length"}
_KINDS = {429: "overloaded", 400: "validation", 404: "validation"}


def read_tgi(request: Request, *, strict: bool = False) -> Ask:
    """Understand a request to generate; the path says whether as a stream. Raises Refusal."""
    body = body_of(request, _Asked)
    limit = body.parameters.max_new_tokens if body.parameters else None
    if limit is not None and limit < 1:
        raise Refusal(400, "`max_new_tokens` must be strictly positive")
    tokens = words.pieces(body.inputs)
    return Ask(
        task="completions",
        model="",
        tokens=tokens,
        prompt_tokens=len(tokens) + 1,
        limit=limit,
        stream=request.path == "/generate_stream",
    )


def tgi_error(refusal: Refusal) -> dict[str, Any]:
    """A refusal in TGI's words."""
    return {"error": str(refusal), "error_type": _KINDS.get(refusal.status, "generation")}


class TgiAnswer(Answer):
    """One token an event; the last one has the whole text, and so waits for the counts."""

    def __init__(self, plan: Plan) -> None:
        super().__init__(plan)
        self._left = plan.output
        self._texts: list[bytes] = []

    def token(self, count: int) -> bytes:
        """So many events, the last of the answer left out."""
        self._texts += [self._text(1) for _ in range(count)]
        self._left -= count
        shown = self._texts[len(self._texts) - count : None if self._left else -1]
        return b"".join(self._head + text + self._tail for text in shown)

    def closing(self, reason: str, usage: Usage) -> bytes:
        """The last token with all that is known of the answer."""
        text = b"".join(self._texts).decode()
        piece = self._piece(self._texts[-1].decode()) | {
            "generated_text": text,
            "details": self._details(reason, usage),
        }
        return self._chunk([piece])

    def whole(self, reason: str, usage: Usage) -> dict[str, Any]:
        """The answer without streaming."""
        return {"generated_text": self._text(self.plan.output).decode(), "details": self._details(reason, usage)}

    def _details(self, reason: str, usage: Usage) -> dict[str, Any]:
        counts = {"generated_tokens": usage.output, "input_length": usage.prompt}
        return {"finish_reason": _REASONS[reason], "seed": None} | counts

    def _chunk(self, choices: list[dict[str, Any]]) -> bytes:
        return b"".join(b"data:" + msgspec.json.encode(piece) + b"\n\n" for piece in choices)

    def _piece(self, text: str) -> dict[str, Any]:
        token = {"id": 1, "text": text, "logprob": 0.0, "special": False}
        return {"index": 1, "token": token, "generated_text": None, "details": None}
