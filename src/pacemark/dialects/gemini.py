"""Gemini's generateContent, streamed as events.

Thinking is counted beside `candidatesTokenCount` and not in it. Most events carry the counts so far. There is no mark
of the end but a `finishReason`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec

from pacemark.dialects.attached import Attached
from pacemark.dialects.said import ANSWER, NOTHING, REASONING, Said, broke, entries_of, fields_of, says_failure, tally
from pacemark.dialects.streams import Fields, cut_short, objects, one_object
from pacemark.tools import Tool


def body(text: str) -> dict[str, Any]:
    """The fields of a request that hold the prompt."""
    return {"contents": [{"role": "user", "parts": [{"text": text}]}]}


def attach(body: dict[str, Any], beside: Sequence[Attached]) -> None:
    """Put images and audio after the prompt, see `openai.chat_attach`."""
    (content,) = body["contents"]
    content["parts"] += [{"inlineData": {"mimeType": x.mime, "data": x.data}} for x in beside]


_CHOICES = {"auto": "AUTO", "none": "NONE", "required": "ANY"}


def tools(tools: Sequence[Tool], choice: str) -> dict[str, Any]:
    """The fields that offer tools, see `openai.chat_tools`."""
    offered = [{"name": t.name, "description": t.description, "parametersJsonSchema": t.parameters} for t in tools]
    named = {"mode": "ANY", "allowedFunctionNames": [choice]}
    chosen = {"mode": _CHOICES[choice]} if choice in _CHOICES else named
    fields: dict[str, Any] = {"tools": [{"functionDeclarations": offered}]}
    return fields | ({"toolConfig": {"functionCallingConfig": chosen}} if choice else {})


def schema(schema: dict[str, Any]) -> dict[str, Any]:
    """The fields that ask for JSON of this schema."""
    return {"generationConfig": {"responseMimeType": "application/json", "responseJsonSchema": schema}}


_ENDINGS = ("STOP", "MAX_TOKENS", "FINISH_REASON_UNSPECIFIED")
"""Every other finishReason is one for which the answer was broken off: SAFETY, RECITATION and the like."""


def read(body: bytes, streamed: bool) -> Said:
    """What an answer of status 200 said. Failures that it reveals are its `error`; nothing is raised."""
    said = Said()
    if not streamed:
        # Without alt=sse a stream is one list that grows.
        whole_body = b'{"candidates":%b}' % body if body.lstrip()[:1] == b"[" else body
        form = "promptFeedback" if b'"candidates"' not in whole_body else "candidates"
        if (answer := one_object(said, whole_body, "Gemini", form)) is not None:
            listed = entries_of(answer.get("candidates")) if whole_body is not body else [answer]
            for value in listed:
                if says_failure(value):
                    broke(said, msgspec.json.encode(value))
                _take(said, value, len(body))
        return said
    for value, end in objects(said, body):
        _take(said, value, end)
    if not said.finish_reason:
        cut_short(said, body, "a finishReason")
    return said


def _take(said: Said, value: Fields, end: int) -> None:
    """Take one event; several candidates are never asked for."""
    parts, reason = [], ""
    said.by(value.get("modelVersion"))
    for candidate in entries_of(value.get("candidates")):
        for part in entries_of(fields_of(candidate.get("content")).get("parts")):
            parts.append(_part(part))
            if call := fields_of(part.get("functionCall")):
                said.whole_call(call.get("args"))
        reason = str(candidate.get("finishReason") or "") or reason
    said.add_parts(parts, end)
    if "usageMetadata" in value:
        _count(said, fields_of(value["usageMetadata"]), said.kinds[-1])
    elif "candidates" not in value and "promptFeedback" not in value:
        said.unread += 1
    blocked = fields_of(value.get("promptFeedback")).get("blockReason")
    if blocked:
        said.finish_reason = str(blocked)
        said.fail("prompt_blocked", f"the prompt was blocked: {blocked}")
    if reason:
        said.finish_reason, said.done_at = reason, end
        if reason.upper() not in _ENDINGS:
            said.fail(f"finish_{reason.lower()}", f"the answer ended with finishReason {reason!r}")


def _part(part: Fields) -> tuple[int, str]:
    text = part.get("text")
    if isinstance(text, str) and text:
        return (REASONING if part.get("thought") is True else ANSWER), text
    if call := part.get("functionCall"):
        return ANSWER, msgspec.json.encode(call).decode("utf-8", "replace")
    return NOTHING, ""


def _count(said: Said, usage: Fields, kind: int) -> None:
    def counted(name: str) -> int | None:
        return tally(usage.get(name))

    thought, answered, tools = counted("thoughtsTokenCount"), counted("candidatesTokenCount"), "toolUsePromptTokenCount"
    if (prompt := counted("promptTokenCount")) is not None:
        said.prompt_tokens = prompt + (counted(tools) or 0)
    if (cached := counted("cachedContentTokenCount")) is not None:
        said.cached_tokens = cached
    said.reasoning_tokens = said.reasoning_tokens if thought is None else thought
    if answered is not None or thought is not None:
        said.completion_tokens = (answered or 0) + (said.reasoning_tokens or 0)
        if kind > NOTHING:
            said.running.append((len(said.kinds) - 1, said.completion_tokens))
