"""Which API a path belongs to: how its requests are read, how they are answered, and how they are refused."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

from pacemark.simulator.server import gemini, messages, ollama, ranking, responses, tgi
from pacemark.simulator.server.answers import Answer, Plan, answer
from pacemark.simulator.server.asks import Ask, Refusal, read_chat, read_completion, read_embeddings

__all__ = ["Face", "catalogue", "face_of", "openai_error"]


def openai_error(refusal: Refusal) -> dict[str, Any]:
    """A refusal in OpenAI's words."""
    return {"error": {"message": str(refusal), "type": refusal.kind, "param": None, "code": refusal.code}}


class Face(NamedTuple):
    """One API, as the endpoint speaks it."""

    read: Callable[..., Ask]
    make: Callable[[Plan], Answer] = answer
    error: Callable[[Refusal], dict[str, Any]] = openai_error
    named: bool = True
    """A request must name the model."""


_GENERATE = Face(tgi.read_tgi, tgi.TgiAnswer, tgi.tgi_error, named=False)
_RERANK = Face(ranking.read_rerank, ranking.RerankAnswer)
_SCORE = Face(ranking.read_score, ranking.ScoreAnswer)
_GEMINI = Face(gemini.read_gemini, gemini.GeminiAnswer, gemini.gemini_error)
_FACES = {
    "/v1/chat/completions": Face(read_chat),
    "/v1/completions": Face(read_completion),
    "/v1/embeddings": Face(read_embeddings),
    "/v1/responses": Face(responses.read_response, responses.ResponseAnswer),
    "/v1/messages": Face(messages.read_message, messages.MessageAnswer, messages.message_error),
    "/api/chat": Face(ollama.read_ollama, ollama.OllamaAnswer, ollama.ollama_error),
    "/api/generate": Face(ollama.read_ollama_generate, ollama.OllamaText, ollama.ollama_error),
    "/generate": _GENERATE,
    "/generate_stream": _GENERATE,
    **dict.fromkeys(("/rerank", "/v1/rerank", "/v2/rerank"), _RERANK),
    **dict.fromkeys(("/score", "/v1/score"), _SCORE),
}


def face_of(path: str) -> Face | None:
    """The API that is asked at `path`."""
    return _FACES.get(path) or (_GEMINI if gemini.GEMINI.fullmatch(path) else None)


def catalogue(path: str, model: str) -> dict[str, Any] | None:
    """The list of models as APIs other than OpenAI's give it."""
    if path == "/api/tags":
        return ollama.ollama_models(model)
    return {"models": [{"name": f"models/{model}"}]} if path == "/v1beta/models" else None
