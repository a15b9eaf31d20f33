"""Ollama's own chat and generate: one JSON object a line, the last of which says `done` and has the counts.

A failure may come as a line of a stream that began with status 200. Durations are in nanoseconds and are passed over.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec

from pacemark.dialects.attached import Attached
from pacemark.dialects.said import ANSWER, EMPTY, NOTHING, REASONING, Said, duration_ms, entries_of, fields_of, tally
from pacemark.dialects.streams import Fields, cut_short, lines, one_object
from pacemark.errors import BadInput
from pacemark.tools import Tool


def body(text: str) -> dict[str, Any]:
    """The fields of a chat request that hold the prompt; it would stream if not told otherwise."""
    return {"messages": [{"role": "user", "content": text}], "stream": False}


def generate_body(text: str) -> dict[str, Any]:
    """The same of a request to generate."""
    return {"prompt": text, "stream": False}


def attach(body: dict[str, Any], beside: Sequence[Attached]) -> None:
    """Put images beside the prompt."""
    body["messages"][0]["images"] = [x.data for x in beside]


def generate_attach(body: dict[str, Any], beside: Sequence[Attached]) -> None:
    """The same of a request to generate."""
    body["images"] = [x.data for x in beside]


def tools(tools: Sequence[Tool], choice: str) -> dict[str, Any]:
    """The field that offers tools. Raises BadInput for a choice, which it has no field for."""
    if choice not in ("", "auto"):
        raise BadInput(f"--tool-choice {choice}: Ollama leaves it to the model which tool is called; leave it out")
    return {"tools": [tool.given for tool in tools]}


def schema(schema: dict[str, Any]) -> dict[str, Any]:
    """The field that asks for JSON of this schema."""
    return {"format": schema}


def read(body: bytes, streamed: bool) -> Said:
    """What an answer of status 200 said. Failures that it reveals are its `error`; nothing is raised."""
    said = Said()
    if not streamed:
        if (answer := one_object(said, body, "Ollama", "done")) is not None:
            _take(said, answer, len(body))
        return said
    for value, end in lines(said, body):
        if "message" not in value and "response" not in value and "done" not in value:
            said.unread += 1
        _take(said, value, end)
        if said.done_at is not None:
            break
    if said.done_at is None:
        cut_short(said, body, "a line that is done")
    return said


def _take(said: Said, value: Fields, end: int) -> None:
    kind, text = _carried(value)
    said.by(value.get("model"))
    for call in entries_of(fields_of(value.get("message")).get("tool_calls")):
        said.whole_call(fields_of(call.get("function")).get("arguments"))
    done = value.get("done") is True
    said.add(NOTHING if done and kind == EMPTY else kind, end, text)
    if done:
        said.is_over(end)
        said.finish_reason = str(value.get("done_reason") or "done")
        said.prompt_tokens = tally(value.get("prompt_eval_count"))
        said.completion_tokens = tally(value.get("eval_count"))
        said.queue_ms = duration_ms(value.get("load_duration"), 1e-6)  # waiting for a runner, with the model in it
        said.prefill_ms = duration_ms(value.get("prompt_eval_duration"), 1e-6)
        said.decode_ms = duration_ms(value.get("eval_duration"), 1e-6)


def _carried(value: Fields) -> tuple[int, str]:
    """Kind and text of one line: of a chat's message, or of a bare response."""
    message = fields_of(value.get("message"))
    text, thought = message.get("content", value.get("response")), message.get("thinking", value.get("thinking"))
    if isinstance(text, str) and text:
        return ANSWER, text
    if isinstance(thought, str) and thought:
        return REASONING, thought
    if calls := message.get("tool_calls"):
        return ANSWER, msgspec.json.encode(calls).decode("utf-8", "replace")
    return (EMPTY if isinstance(text, str) else NOTHING), ""
