"""The face of Anthropic's Messages."""

from __future__ import annotations

from typing import Any, Literal

import msgspec

from pacemark.simulator.server.answers import Told, Usage, event
from pacemark.simulator.server.asks import (
    Ask,
    Message,
    Refusal,
    Sampling,
    asked,
    body_of,
    conversation,
    plainly,
    to_call,
)
from pacemark.simulator.server.http import Request

__all__ = ["MessageAnswer", "message_error", "read_message"]


class _Tool(msgspec.Struct):
    name: str


class _Choice(msgspec.Struct):
    type: Literal["auto", "any", "tool", "none"]
    name: str = ""


class _Form(msgspec.Struct):
    type: str


class _Output(msgspec.Struct):
    format: _Form | None = None


class _Messages(Sampling):
    messages: list[Message] = msgspec.field(default_factory=list)
    system: str = ""
    tools: list[_Tool] = msgspec.field(default_factory=list)
    tool_choice: _Choice | None = None
    output_config: _Output | None = None


_REASONS = {"stop": "end_turn", "length": "max_tokens"}
_KINDS = {
    401: "authentication_error",
    403: "permission_error",
    404: "not_found_error",
    429: "rate_limit_error",
    500: "api_error",
    503: "overloaded_error",
}


def read_message(request: Request, *, strict: bool = False) -> Ask:
    """Understand a request for a message. Raises Refusal."""
    body = body_of(request, _Messages)
    plainly(body, strict)
    if body.max_tokens is None:
        raise Refusal(400, "max_tokens: Field required")
    if not body.messages:
        raise Refusal(400, "messages: at least one message is required")
    system = [Message("system", body.system)] if body.system else []
    choice = body.tool_choice or _Choice("auto")
    tool = to_call([tool.name for tool in body.tools], choice.name, required=choice.type == "any")
    form = body.output_config is not None and body.output_config.format is not None
    return asked("chat", body, *conversation([*system, *body.messages]), tool=tool, json=form)


def message_error(refusal: Refusal) -> dict[str, Any]:
    """A refusal in Anthropic's words."""
    kind = _KINDS.get(refusal.status, "invalid_request_error")
    return {"type": "error", "error": {"type": kind, "message": str(refusal)}}


class MessageAnswer(Told):
    """Its blocks are the thinking, where there is some, and the text."""

    id_prefix = "msg"

    def _chunk(self, choices: list[dict[str, Any]]) -> bytes:
        return b"".join(b"event: %b\n%b" % (piece["type"].encode(), event(piece)) for piece in choices)

    def opening(self) -> bytes:
        """The message as it begins, and its first block; what the cache held is known later."""
        usage = {"input_tokens": self.plan.ask.prompt_tokens, "output_tokens": 1}
        begun = {"type": "message_start", "message": self._message([], None, usage)}
        thinking = {"type": "thinking", "thinking": "", "signature": ""}
        block = b"" if self._unnamed else self._start(0, thinking) if self._reasoning else self.turn()
        return self._chunk([begun, {"type": "ping"}]) + block

    def turn(self) -> bytes:
        """The text begins."""
        stop = [{"type": "content_block_stop", "index": 0}] if self._at else []
        return self._chunk(stop) + self._start(self._at, self._block("", {}))

    def _block(self, text: str, arguments: Any) -> dict[str, Any]:
        """The block of the answer proper: text, or the call of a tool."""
        if self.plan.ask.tool:
            return {"type": "tool_use", "id": self.call_id(), "name": self.plan.ask.tool, "input": arguments}
        return {"type": "text", "text": text}

    def _reason(self, reason: str) -> str:
        return "tool_use" if self.plan.ask.tool else _REASONS[reason]

    def closing(self, reason: str, usage: Usage) -> bytes:
        """The end of the last block, the counts, and the end of the message."""
        counts = self._counts(usage)
        delta = {"stop_reason": self._reason(reason), "stop_sequence": None}
        return self._chunk(
            [
                {"type": "content_block_stop", "index": self._at},
                {"type": "message_delta", "delta": delta, "usage": counts},
                {"type": "message_stop"},
            ]
        )

    def whole(self, reason: str, usage: Usage) -> dict[str, Any]:
        """The message without streaming."""
        thought, text = self.spoken()
        thinking = [{"type": "thinking", "thinking": thought, "signature": "c2lnbmVk"}] if thought else []
        block = self._block(text, msgspec.json.decode(text) if self.plan.ask.tool else None)
        return self._message([*thinking, block], self._reason(reason), self._counts(usage))

    @property
    def _at(self) -> int:
        return 1 if self.plan.reasoning else 0

    def _start(self, index: int, block: dict[str, Any]) -> bytes:
        return self._chunk([{"type": "content_block_start", "index": index, "content_block": block}])

    def _piece(self, text: str) -> dict[str, Any]:
        called = {"type": "input_json_delta", "partial_json": text}
        delta = called if self.plan.ask.tool else {"type": "text_delta", "text": text}
        return {"type": "content_block_delta", "index": self._at, "delta": delta}

    def _thinking(self, text: str) -> dict[str, Any]:
        delta = {"type": "thinking_delta", "thinking": text}
        return {"type": "content_block_delta", "index": 0, "delta": delta}

    def _counts(self, usage: Usage) -> dict[str, Any]:
        counts: dict[str, Any] = {
            "input_tokens": usage.prompt - usage.cached,
            "cache_creation_input_tokens": 0,
            "cache_read_input_tokens": usage.cached,
            "output_tokens": usage.output,
        }
        thinking = {"output_tokens_details": {"thinking_tokens": usage.reasoning}} if usage.reasoning else {}
        return counts | thinking

    def _message(self, content: list[Any], stop_reason: str | None, usage: dict[str, Any]) -> dict[str, Any]:
        return {
            "id": self.id,
            "type": "message",
            "role": "assistant",
            "model": self.plan.model,
            "content": content,
            "stop_reason": stop_reason,
            "stop_sequence": None,
            "usage": usage,
        }
