"""Agents as a workspace serves them, and the fields that its endpoints know: by the task of the endpoint."""

from __future__ import annotations

from typing import Any

import msgspec

from pacemark.simulator.server import tokens as words
from pacemark.simulator.server.answers import Answer, Usage, event
from pacemark.simulator.server.asks import Ask, Refusal
from pacemark.simulator.server.http import Request

__all__ = ["AGENTS", "AgentAnswer", "ResponsesAnswer", "read_agent", "refuse_fields"]

AGENTS = ("agent/v1/responses", "agent/v2/chat")
_COMMON = "client_request_id usage_context stream"
_KNOWN = {
    "agent/v2/chat": f"messages context custom_inputs databricks_options {_COMMON}",
    "agent/v1/responses": f"input model context custom_inputs databricks_options max_output_tokens store {_COMMON}",
    "llm/v1/chat": "model messages prompt input max_tokens max_completion_tokens temperature top_p top_k n stop tools "
    f"tool_choice response_format reasoning_effort logprobs top_logprobs extra_params {_COMMON}",
}
"""Fields of a request by task (query reference, `databricks-sdk` 0.162 and MLflow's agent types)."""


def refuse_fields(request: Request, task: str) -> None:
    """Raise Refusal (400) for a field that endpoints of the task do not know, in the service's own words."""
    known = _KNOWN.get(task)
    try:
        fields = msgspec.json.decode(request.body, type=dict[str, msgspec.Raw])
    except msgspec.DecodeError:
        return  # whoever reads it refuses it
    for field in fields if known else ():
        if field not in (known or "").split():
            raise Refusal(400, f'Bad request: json: unknown field "{field}"')


def read_agent(request: Request, *, strict: bool = False) -> Ask:
    """Understand a request to an agent: `messages`, or the `input` of Responses. Raises Refusal."""
    try:
        body = msgspec.json.decode(request.body, type=dict[str, Any])
        given = body.get("messages") or body["input"]
        said = given if isinstance(given, str) else "\n".join(str(message["content"]) for message in given)
    except (msgspec.DecodeError, KeyError, TypeError) as error:
        raise Refusal(400, f"the request body cannot be read: {error}") from None
    tokens = words.pieces(said)
    limit = body.get("max_output_tokens")
    return Ask(
        task="chat", model=str(body.get("model") or ""), tokens=tokens, prompt_tokens=len(tokens),
        limit=limit if isinstance(limit, int) else None, stream=body.get("stream") is True,
    )  # fmt: skip


class AgentAnswer(Answer):
    """ChatAgent's: a `delta` an event, or `messages`; no count of tokens, and no word of an end."""

    id_prefix = "msg"

    def _chunk(self, choices: list[dict[str, Any]]) -> bytes:
        return event({"delta": choices[0]})

    def _piece(self, text: str) -> dict[str, Any]:
        return {"role": "assistant", "content": text, "id": self.id}

    def closing(self, reason: str, usage: Usage) -> bytes:
        """Nothing."""
        return b""

    def whole(self, reason: str, usage: Usage) -> dict[str, Any]:
        """The answer without streaming."""
        return {"messages": [self._piece(self._text(self.plan.output).decode())]}


class ResponsesAnswer(Answer):
    """Responses as agents stream them: deltas of the text, then the item as a whole."""

    id_prefix = "msg"

    def __init__(self, plan: Any) -> None:
        super().__init__(plan)
        self._said = b""

    def token(self, count: int) -> bytes:
        """A delta, which the item repeats."""
        text = self._text(count)
        self._said += text
        return self._head + text + self._tail

    def _chunk(self, choices: list[dict[str, Any]]) -> bytes:
        return event(choices[0])

    def _piece(self, text: str) -> dict[str, Any]:
        return {"type": "response.output_text.delta", "item_id": self.id, "delta": text}

    def closing(self, reason: str, usage: Usage) -> bytes:
        """The item."""
        return (
            event({"type": "response.output_item.done", "item": self._item(self._said.decode())}) + b"data: [DONE]\n\n"
        )

    def whole(self, reason: str, usage: Usage) -> dict[str, Any]:
        """The answer without streaming."""
        return {"object": "response", "output": [self._item(self._text(self.plan.output).decode())]}

    def _item(self, text: str) -> dict[str, Any]:
        content = [{"type": "output_text", "text": text, "annotations": []}]
        return {"type": "message", "id": self.id, "role": "assistant", "content": content}
