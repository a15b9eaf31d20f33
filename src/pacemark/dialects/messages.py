"""Anthropic's Messages, as vLLM, SGLang, llama.cpp and gateways answer too.

The input is counted where a message starts, the output where it ends. What was read from a cache, or written to it, is
counted beside `input_tokens` and not in it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec

from pacemark.dialects.attached import Attached
from pacemark.dialects.calls import spelled
from pacemark.dialects.said import ANSWER, EMPTY, NOTHING, REASONING, Said, entries_of, fields_of, tally
from pacemark.dialects.streams import Fields, objects, one_object
from pacemark.tools import Tool


def body(text: str) -> dict[str, Any]:
    """The fields of a request that hold the prompt."""
    return {"messages": [{"role": "user", "content": text}]}


def attach(body: dict[str, Any], beside: Sequence[Attached]) -> None:
    """Put images after the prompt, see `openai.chat_attach`."""
    (message,) = body["messages"]
    sources = [{"type": "base64", "media_type": x.mime, "data": x.data} for x in beside]
    parts = [{"type": "image", "source": source} for source in sources]
    message["content"] = [{"type": "text", "text": message["content"]}, *parts]


_CHOICES = {"auto": "auto", "none": "none", "required": "any"}


def tools(tools: Sequence[Tool], choice: str) -> dict[str, Any]:
    """The fields that offer tools, see `openai.chat_tools`."""
    offered = [{"name": t.name, "description": t.description, "input_schema": t.parameters} for t in tools]
    chosen = {"type": _CHOICES[choice]} if choice in _CHOICES else {"type": "tool", "name": choice}
    return {"tools": offered} | ({"tool_choice": chosen} if choice else {})


def schema(schema: dict[str, Any]) -> dict[str, Any]:
    """The field that asks for JSON of this schema."""
    return {"output_config": {"format": {"type": "json_schema", "schema": schema}}}


_DELTAS = {
    "text_delta": ("text", ANSWER),
    "thinking_delta": ("thinking", REASONING),
    "input_json_delta": ("partial_json", ANSWER),
}
_INPUT = ("input_tokens", "cache_creation_input_tokens", "cache_read_input_tokens")


def read(body: bytes, streamed: bool) -> Said:
    """What an answer of status 200 said. Failures that it reveals are its `error`; nothing is raised."""
    said = Said()
    counts: dict[str, int] = {}
    if not streamed:
        if (answer := one_object(said, body, "a message", "content")) is not None:
            _whole(said, answer, counts, len(body))
        return said
    for value, end in objects(said, body):
        name = value.get("type")
        if name == "content_block_delta":
            kind, _, text = piece = _delta(delta := fields_of(value.get("delta")), end)
            if delta.get("type") == "input_json_delta" and (block_at := str(value.get("index"))) in said.calls:
                said.call(block_at, text)
            said.add(*piece)
        elif name == "content_block_start":
            kind, text = _block(block := fields_of(value.get("content_block")))
            if block.get("type") == "tool_use":
                said.call(str(value.get("index")), spelled(block.get("input") or ""))
            said.add(kind, end, text)
        else:
            said.add(NOTHING, end)
            _take(said, value, counts, end)
    if said.done_at is None:
        said.fail("truncated", "the stream ended without message_stop")
    return said


def _take(said: Said, value: Fields, counts: dict[str, int], end: int) -> None:
    """Take an event that holds no output."""
    match value.get("type"):
        case "message_start":
            _count(said, fields_of(fields_of(value.get("message")).get("usage")), counts)
        case "message_delta":
            _count(said, fields_of(value.get("usage")), counts)
            _stopped(said, fields_of(value.get("delta")).get("stop_reason"))
        case "message_stop":
            said.is_over(end)
        case "ping" | "content_block_stop":
            pass
        case _:
            said.unread += 1


def _delta(delta: Fields, end: int) -> tuple[int, int, str]:
    """Kind, end and text; signatures and citations are none."""
    field, kind = _DELTAS.get(str(delta.get("type")), ("", NOTHING))
    text = delta.get(field)
    if not isinstance(text, str):
        return NOTHING, end, ""
    return (kind if text else EMPTY), end, text


def _block(block: Fields) -> tuple[int, str]:
    """What a block holds from its start: mostly nothing, but a call's name; or all, in an answer of one piece."""
    match block.get("type"):
        case "text":
            kind, text = ANSWER, block.get("text")
        case "thinking":
            kind, text = REASONING, block.get("thinking")
        case "tool_use" | "server_tool_use":
            given = block.get("input")
            kind, text = ANSWER, f"{block.get('name') or ''}{msgspec.json.encode(given).decode() if given else ''}"
        case _:
            kind, text = NOTHING, ""
    return (kind, text) if text and isinstance(text, str) else (NOTHING, "")


def _whole(said: Said, answer: Fields, counts: dict[str, int], end: int) -> None:
    blocks = entries_of(answer.get("content"))
    for block in blocks:
        if block.get("type") == "tool_use":
            said.whole_call(block.get("input"))
    said.add_parts([_block(block) for block in blocks], end)
    _count(said, fields_of(answer.get("usage")), counts)
    _stopped(said, answer.get("stop_reason"))
    said.is_over(end)


def _count(said: Said, usage: Fields, counts: dict[str, int]) -> None:
    """Take what is counted here; a later count of the same stands in for an earlier one, unless it is an empty 0."""
    for name in (*_INPUT, "output_tokens"):
        count = tally(usage.get(name))
        if count is not None and (count or name not in counts):
            counts[name] = count
    if any(name in counts for name in _INPUT):
        said.prompt_tokens = sum(counts.get(name, 0) for name in _INPUT)
    said.completion_tokens = counts.get("output_tokens")
    said.cached_tokens = counts.get("cache_read_input_tokens")
    thought = tally(fields_of(usage.get("output_tokens_details")).get("thinking_tokens"))
    said.reasoning_tokens = said.reasoning_tokens if thought is None else thought


def _stopped(said: Said, reason: Any) -> None:
    if isinstance(reason, str) and reason:
        said.finish_reason = reason
        if reason == "refusal":
            said.fail("finish_refusal", "the answer ended with stop_reason 'refusal'")
