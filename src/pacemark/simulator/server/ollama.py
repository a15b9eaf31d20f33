"""The face of Ollama: chat and generate, a JSON object a line."""

from __future__ import annotations

import time
from typing import Any

import msgspec

from pacemark.simulator.server.answers import Plan, Told, Usage
from pacemark.simulator.server.asks import Ask, Message, Refusal, Sampling, asked, body_of, conversation
from pacemark.simulator.server.http import Request

__all__ = ["OllamaAnswer", "OllamaText", "ollama_models", "ollama_error", "read_ollama", "read_ollama_generate"]


class _Options(msgspec.Struct):
    num_predict: int | None = None


class _Function(msgspec.Struct):
    name: str


class _Tool(msgspec.Struct):
    function: _Function


class _Asked(Sampling):
    stream: bool | None = True
    options: _Options | None = None
    messages: list[Message] = msgspec.field(default_factory=list)
    prompt: str = ""
    images: list[str] = msgspec.field(default_factory=list)
    tools: list[_Tool] = msgspec.field(default_factory=list)
    format: str | dict[str, Any] = ""


def _read(request: Request) -> _Asked:
    body = body_of(request, _Asked)
    limit = body.options.num_predict if body.options else None
    body.max_tokens = limit if limit is not None and limit > 0 else None  # -1: no limit
    body.model = body.model.removesuffix(":latest")
    return body


def read_ollama(request: Request, *, strict: bool = False) -> Ask:
    """Understand a request to chat; nothing says whether a tool is to be called, so one that is offered is. Raises
    Refusal."""
    body = _read(request)
    if not body.messages:
        raise Refusal(400, "messages is required")
    tool = next((tool.function.name for tool in body.tools), "")
    return asked("chat", body, *conversation(body.messages), tool=tool, json=bool(body.format))


def read_ollama_generate(request: Request, *, strict: bool = False) -> Ask:
    """Understand a request to generate, which the model's template wraps as a chat's one message. Raises Refusal."""
    body = _read(request)
    return asked("chat", body, *conversation([Message("user", body.prompt, body.images)]), json=bool(body.format))


def ollama_error(refusal: Refusal) -> dict[str, Any]:
    """A refusal in Ollama's words."""
    return {"error": str(refusal)}


def ollama_models(model: str) -> dict[str, Any]:
    """The models as /api/tags lists them."""
    return {"models": [{"name": model, "model": model, "size": 0, "digest": "", "details": {"family": "pacemark"}}]}


class OllamaAnswer(Told):
    """Chat; the last line has counts and times. A call comes whole, once it is."""

    content_type = "application/x-ndjson"

    def __init__(self, plan: Plan) -> None:
        super().__init__(plan)
        self._left = plan.output

    def token(self, count: int) -> bytes:
        """A line, but of a call none before the last token."""
        self._left -= count
        if not self.plan.ask.tool:
            return super().token(count)
        return b"" if self._left else self._chunk([self._called()])

    def _called(self) -> dict[str, Any]:
        function = {"name": self.plan.ask.tool, "arguments": msgspec.json.decode(self.spoken()[1])}
        message = {"role": "assistant", "content": "", "tool_calls": [{"function": function}]}
        return self._named() | {"message": message, "done": False}

    def opening(self) -> bytes:
        """Nothing."""
        return b""

    def closing(self, reason: str, usage: Usage) -> bytes:
        """The line that is done."""
        return msgspec.json.encode(self._line("", "") | self._done(reason, usage)) + b"\n"

    def whole(self, reason: str, usage: Usage) -> dict[str, Any]:
        """The answer without streaming."""
        said = self._called() if self.plan.ask.tool else self._line(*self.spoken())
        return said | self._done(reason, usage)

    def _chunk(self, choices: list[dict[str, Any]]) -> bytes:
        return b"".join(msgspec.json.encode(piece) + b"\n" for piece in choices)

    def _piece(self, text: str) -> dict[str, Any]:
        return self._line("", text)

    def _thinking(self, text: str) -> dict[str, Any]:
        return self._line(text, "")

    def _line(self, thought: str, text: str) -> dict[str, Any]:
        message = {"role": "assistant", "content": text} | ({"thinking": thought} if thought else {})
        return self._named() | {"message": message, "done": False}

    def _named(self) -> dict[str, Any]:
        at = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(self.plan.created))
        return {"model": self.plan.model, "created_at": at}

    def _done(self, reason: str, usage: Usage) -> dict[str, Any]:
        return {
            "done": True,
            "done_reason": reason,
            "total_duration": usage.queue_ns + usage.prefill_ns + usage.decode_ns,
            "load_duration": usage.queue_ns,
            "prompt_eval_count": usage.prompt,
            "prompt_eval_duration": usage.prefill_ns,
            "eval_count": usage.output,
            "eval_duration": usage.decode_ns,
        }


class OllamaText(OllamaAnswer):
    """Generate."""

    def _line(self, thought: str, text: str) -> dict[str, Any]:
        return self._named() | {"response": text, "done": False} | ({"thinking": thought} if thought else {})
