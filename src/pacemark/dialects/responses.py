"""OpenAI's Responses, as vLLM, SGLang, llama.cpp and agents on Databricks answer too.

Every event names its type. An agent may give its answer in `response.output_item.done` alone: then that event is the
answer, and it was not streamed. What was streamed before is only repeated there.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec

from pacemark.dialects.attached import Attached
from pacemark.dialects.calls import spelled
from pacemark.dialects.said import ANSWER, EMPTY, NOTHING, REASONING, Said, broke, entries_of, fields_of, tally
from pacemark.dialects.sse import is_sign_of_life
from pacemark.dialects.streams import Fields, cut_short, objects, one_object
from pacemark.tools import CHOICES, Tool


def body(text: str) -> dict[str, Any]:
    """The fields of a request that hold the prompt; the answer need not be kept."""
    return {"input": [{"role": "user", "content": text}], "store": False}


def attach(body: dict[str, Any], beside: Sequence[Attached]) -> None:
    """Put images and audio after the prompt, see `openai.chat_attach`."""
    (message,) = body["input"]
    parts = [{"type": "input_image", "image_url": x.url} if x.kind == "image" else x.input_audio for x in beside]
    message["content"] = [{"type": "input_text", "text": message["content"]}, *parts]


def tools(tools: Sequence[Tool], choice: str) -> dict[str, Any]:
    """The fields that offer tools, see `openai.chat_tools`."""
    offered = [{"type": "function", **tool.given["function"]} for tool in tools]
    chosen = choice if choice in CHOICES else {"type": "function", "name": choice}
    return {"tools": offered} | ({"tool_choice": chosen} if choice else {})


def schema(schema: dict[str, Any]) -> dict[str, Any]:
    """The field that asks for JSON of this schema."""
    return {"text": {"format": {"type": "json_schema", "name": "answer", "schema": schema}}}


_ENDS = ("completed", "incomplete", "failed", "cancelled")


def read(body: bytes, streamed: bool) -> Said:
    """What an answer of status 200 said. Failures that it reveals are its `error`; nothing is raised."""
    said = Said()
    if not streamed:
        if (answer := one_object(said, body, "a response", "output")) is not None:
            _end(said, answer, len(body))
        return said
    told: set[object] = set()
    last, opened = "", False
    for value, end in objects(said, body):
        last = str(value.get("type") or "")
        opened = opened or last == "response.created"
        _take(said, last, value, told, end)
        if said.error:
            break
    # Agents may leave out the events round the answer; then a whole item ends it.
    ended = said.finish_reason or said.done_at is not None or (last == "response.output_item.done" and not opened)
    if not ended:
        cut_short(said, body, "response.completed")
    return said


def _take(said: Said, name: str, value: Fields, told: set[object], end: int) -> None:
    """Take one event; what was streamed of an item is noted as `told`."""
    if name.removeprefix("response.") in _ENDS:
        _end(said, fields_of(value.get("response")), end)
    elif name.endswith(".delta"):
        told |= _names(value.get("item_id"), value)
        if name == "response.function_call_arguments.delta":
            said.call(_place(value), str(value.get("delta") or ""))
        said.add(*_delta(name, value.get("delta"), end))
    elif name == "response.output_item.added":
        _item_added(said, value, end)
    elif name == "response.output_item.done":
        _item_done(said, value, told, end)
    else:
        said.unread += not name.startswith("response.") and not is_sign_of_life(name.encode(), b"")
        said.add(NOTHING, end)


def _delta(name: str, delta: Any, end: int) -> tuple[int, int, str]:
    """Kind, end and text of a delta: of text, reasoning or its summary, a refusal, or a call's arguments."""
    if not isinstance(delta, str) or ".audio.delta" in name:
        return NOTHING, end, ""
    return (REASONING if "reasoning" in name else ANSWER) if delta else EMPTY, end, delta


def _item_added(said: Said, value: Fields, end: int) -> None:
    """A call begins with the name of its tool, which was generated too."""
    item = fields_of(value.get("item"))
    if not _is_call(item):
        said.add(NOTHING, end)
        return
    name = str(item.get("name") or "")
    said.call(_place(value))
    said.add(ANSWER if name else NOTHING, end, name)


def _item_done(said: Said, value: Fields, told: set[object], end: int) -> None:
    item = fields_of(value.get("item"))
    if _names(item.get("id"), value) & told:
        said.add(NOTHING, end)
    else:
        kind, text = _item(item)
        if _is_call(item):
            said.call(_place(value), spelled(item.get("arguments") or ""))
        said.add(kind, end, text)


def _is_call(item: Fields) -> bool:
    """Whether an item calls a tool of the client's; others the server runs itself."""
    return item.get("type") == "function_call"


def _names(item: Any, value: Fields) -> set[object]:
    """By what an event's item may be known from another: its id, and its place."""
    return {name for name in (item, value.get("output_index")) if isinstance(name, str | int)}


def _place(value: Fields) -> object:
    """What tells an event's item apart from others."""
    index, item = value.get("output_index"), value.get("item_id") or fields_of(value.get("item")).get("id")
    return index if isinstance(index, int) else str(item)


def _item(item: Fields) -> tuple[int, str]:
    """Kind and text of a whole item."""
    name = str(item.get("type") or "")
    if name == "reasoning":
        parts = entries_of(item.get("content")) or entries_of(item.get("summary"))
        text = "".join(str(part.get("text") or "") for part in parts)
        return (REASONING if text else NOTHING), text
    if name.endswith("_call"):
        return ANSWER, msgspec.json.encode([item.get("name"), item.get("arguments")]).decode("utf-8", "replace")
    parts = entries_of(item.get("content"))
    text = "".join(str(part.get("text") or part.get("refusal") or "") for part in parts)
    return (ANSWER if text and name == "message" else NOTHING), text


def _end(said: Said, response: Fields, end: int) -> None:
    """Take the response as a whole: how it ended, what it counted, and its output where no event brought any."""
    said.by(response.get("model"))
    status = str(response.get("status") or "completed")
    items = entries_of(response.get("output")) if not any(kind > EMPTY for kind in said.kinds) else []
    for number, item in enumerate(items):
        if _is_call(item):
            said.call(number, spelled(item.get("arguments") or ""))
    said.add_parts([_item(item) for item in items], end)
    _count(said, fields_of(response.get("usage")))
    why = fields_of(response.get("incomplete_details")).get("reason")
    said.finish_reason = str(why) if why else status
    if status in ("failed", "cancelled"):
        broke(said, msgspec.json.encode({"error": response.get("error") or {"message": f"the response was {status}"}}))
    elif why and "filter" in str(why):
        said.fail(f"finish_{why}", f"the answer ended as incomplete: {why}")
    said.is_over(end)


def _count(said: Said, usage: Fields) -> None:
    said.prompt_tokens, said.completion_tokens = tally(usage.get("input_tokens")), tally(usage.get("output_tokens"))
    said.cached_tokens = tally(fields_of(usage.get("input_tokens_details")).get("cached_tokens"))
    said.reasoning_tokens = tally(fields_of(usage.get("output_tokens_details")).get("reasoning_tokens"))
