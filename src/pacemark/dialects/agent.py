"""MLflow's ChatAgent, as agents on Databricks of the task `agent/v2/chat` speak it (mlflow/types/agent.py of MLflow 3).

A stream is a `delta` an event, in which whole messages may come; an answer in one piece has its `messages`. Nothing
says how long an answer is to be, most agents count no tokens, and a stream need not say that it has ended.
"""

from __future__ import annotations

from typing import Any

import msgspec

from pacemark.dialects.said import ANSWER, EMPTY, NOTHING, Said, entries_of, fields_of, tally
from pacemark.dialects.streams import Fields, objects, one_object


def body(text: str) -> dict[str, Any]:
    """The field of a request that holds the prompt."""
    return {"messages": [{"role": "user", "content": text}]}


def read(body: bytes, streamed: bool) -> Said:
    """What an answer of status 200 said. Failures that it reveals are its `error`; nothing is raised."""
    said = Said()
    if not streamed:
        if (answer := one_object(said, body, "a chat agent", "messages")) is not None:
            messages = entries_of(answer.get("messages"))
            kinds = [_message(message) for message in messages]
            for message in messages:
                _calls(said, message)
            said.add(max((k for k, _ in kinds), default=NOTHING), len(body), "".join(t for _, t in kinds))
            _end(said, answer, len(body))
        return said
    for value, end in objects(said, body):
        if "delta" in value:
            _calls(said, delta := fields_of(value.get("delta")))
            said.add(*_placed(_message(delta), end))
        else:
            said.unread += 1
            said.add(NOTHING, end)
        _end(said, value, end)
    return said


def _placed(found: tuple[int, str], end: int) -> tuple[int, int, str]:
    return found[0], end, found[1]


def _calls(said: Said, message: Fields) -> None:
    """Take the calls in a message: each is whole."""
    for call in entries_of(message.get("tool_calls")) if message.get("role") != "tool" else ():
        said.whole_call(fields_of(call.get("function")).get("arguments"))


def _message(message: Fields) -> tuple[int, str]:
    """Kind and text of a message or a piece of one; what a tool answered is no output of the agent."""
    if message.get("role") == "tool":
        return NOTHING, ""
    if isinstance(text := message.get("content"), str) and text:
        return ANSWER, text
    if calls := message.get("tool_calls"):
        return ANSWER, msgspec.json.encode(calls).decode("utf-8", "replace")
    return (EMPTY if message.get("content") == "" else NOTHING), ""


def _end(said: Said, value: Fields, end: int) -> None:
    """Take what it says of its ending and of its tokens."""
    if reason := value.get("finish_reason"):
        said.finish_reason, said.done_at = str(reason), end
    if usage := fields_of(value.get("usage")):
        said.prompt_tokens, said.total_tokens = tally(usage.get("prompt_tokens")), tally(usage.get("total_tokens"))
        said.completion_tokens = tally(usage.get("completion_tokens"))
