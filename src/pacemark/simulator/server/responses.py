"""The face of OpenAI's Responses."""

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

__all__ = ["ResponseAnswer", "read_response"]


class _Function(msgspec.Struct):
    name: str = ""
    type: str = "function"


class _Text(msgspec.Struct):
    format: _Function | None = None


class _Responses(Sampling):
    input: str | list[Message] = ""
    instructions: str | None = None
    max_output_tokens: int | None = None
    tools: list[_Function] = msgspec.field(default_factory=list)
    tool_choice: Literal["none", "auto", "required"] | _Function = "auto"
    text: _Text | None = None


def read_response(request: Request, *, strict: bool = False) -> Ask:
    """Understand a request for a response. Raises Refusal."""
    body = body_of(request, _Responses)
    plainly(body, strict)
    body.max_tokens = body.max_output_tokens
    messages = [Message("user", body.input)] if isinstance(body.input, str) else body.input
    if not messages:
        raise Refusal(400, "input: must not be empty")
    system = [Message("system", body.instructions)] if body.instructions else []
    named = body.tool_choice.name if isinstance(body.tool_choice, _Function) else ""
    tool = to_call([tool.name for tool in body.tools], named, required=body.tool_choice == "required")
    form = body.text.format if body.text is not None else None
    json = form is not None and form.type.startswith("json")
    return asked("chat", body, *conversation([*system, *messages]), tool=tool, json=json)


class ResponseAnswer(Told):
    """Its items are the reasoning, where there is some, and the message."""

    id_prefix = "resp"

    def _chunk(self, choices: list[dict[str, Any]]) -> bytes:
        return b"".join(b"event: %b\n%b" % (piece["type"].encode(), event(piece)) for piece in choices)

    def opening(self) -> bytes:
        """The response as it begins."""
        begun = self._response("in_progress", [], None)
        names = ("response.created", "response.in_progress")
        thinking = {"type": "reasoning", "summary": [], "content": []}
        item = b"" if self._unnamed else self._added(0, thinking) if self._reasoning else self.turn()
        return self._chunk([{"type": name, "response": begun} for name in names]) + item

    def turn(self) -> bytes:
        """The message begins, or the call of a function."""
        if self.plan.ask.tool:
            return self._added(self._at, self._call(""))
        place = {"item_id": self._item(self._at), "output_index": self._at, "content_index": 0}
        part = {"type": "output_text", "text": "", "annotations": []}
        return self._added(self._at, {"type": "message", "role": "assistant", "content": []}) + self._chunk(
            [{"type": "response.content_part.added", "part": part} | place]
        )

    def closing(self, reason: str, usage: Usage) -> bytes:
        """Each item as a whole, and the response."""
        items = self._output()
        done = [{"type": "response.output_item.done", "output_index": n, "item": x} for n, x in enumerate(items)]
        if self.plan.ask.tool:
            place = {"item_id": self._item(0), "output_index": 0}
            whole = {"type": "response.function_call_arguments.done", "arguments": self.spoken()[1]}
            done.insert(0, whole | {"name": self.plan.ask.tool} | place)
        status = "completed" if reason == "stop" else "incomplete"
        last = {"type": f"response.{status}", "response": self._response(status, items, usage)}
        return self._chunk([*done, last])

    def whole(self, reason: str, usage: Usage) -> dict[str, Any]:
        """The response without streaming."""
        return self._response("completed" if reason == "stop" else "incomplete", self._output(), usage)

    @property
    def _at(self) -> int:
        """The message's place among the items."""
        return 1 if self.plan.reasoning else 0

    def _item(self, index: int) -> str:
        return f"item-{self.plan.number}-{index}"

    def _added(self, index: int, item: dict[str, Any]) -> bytes:
        item |= {"id": self._item(index), "status": "in_progress"}
        return self._chunk([{"type": "response.output_item.added", "output_index": index, "item": item}])

    def _piece(self, text: str) -> dict[str, Any]:
        place = {"item_id": self._item(self._at), "output_index": self._at}
        if self.plan.ask.tool:
            return {"type": "response.function_call_arguments.delta", "delta": text} | place
        return {"type": "response.output_text.delta", "delta": text, "content_index": 0} | place

    def _thinking(self, text: str) -> dict[str, Any]:
        place = {"item_id": self._item(0), "output_index": 0, "content_index": 0}
        return {"type": "response.reasoning_text.delta", "delta": text} | place

    def _output(self) -> list[dict[str, Any]]:
        thought, text = self.spoken()
        if self.plan.ask.tool:
            return [self._call(text) | {"id": self._item(0), "status": "completed"}]
        content = [{"type": "output_text", "text": text, "annotations": []}]
        message = {"type": "message", "role": "assistant", "status": "completed", "content": content}
        reasoning = {"type": "reasoning", "summary": [], "content": [{"type": "reasoning_text", "text": thought}]}
        items: list[dict[str, Any]] = [*([reasoning] if thought else []), message]
        return [item | {"id": self._item(n)} for n, item in enumerate(items)]

    def _call(self, arguments: str) -> dict[str, Any]:
        named = {"call_id": self.call_id(), "name": self.plan.ask.tool}
        return {"type": "function_call", "arguments": arguments} | named

    def _response(self, status: str, output: list[dict[str, Any]], usage: Usage | None) -> dict[str, Any]:
        counts = usage and {
            "input_tokens": usage.prompt,
            "input_tokens_details": {"cached_tokens": usage.cached},
            "output_tokens": usage.output,
            "output_tokens_details": {"reasoning_tokens": usage.reasoning},
            "total_tokens": usage.prompt + usage.output,
        }
        return {
            "id": self.id,
            "object": "response",
            "created_at": self.plan.created,
            "model": self.plan.model,
            "status": status,
            "incomplete_details": {"reason": "max_output_tokens"} if status == "incomplete" else None,
            "error": None,
            "output": output,
            "usage": counts,
            "parallel_tool_calls": False,
            "tool_choice": "auto",
            "tools": [],
        }
