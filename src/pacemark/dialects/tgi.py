"""Text Generation Inference's own generate: one token an event; the last one has the text as a whole and the count."""

from __future__ import annotations

from typing import Any

from pacemark.dialects.said import ANSWER, EMPTY, NOTHING, Said, fields_of, tally
from pacemark.dialects.streams import Fields, cut_short, objects, one_object


def body(text: str) -> dict[str, Any]:
    """The fields of a request that hold the prompt; `details` are the counts."""
    return {"inputs": text, "parameters": {"details": True}}


def schema(schema: dict[str, Any]) -> dict[str, Any]:
    """The field that asks for JSON of this schema."""
    return {"parameters": {"grammar": {"type": "json", "value": schema}}}


def read(body: bytes, streamed: bool) -> Said:
    """What an answer of status 200 said. Failures that it reveals are its `error`; nothing is raised."""
    said = Said()
    if not streamed:
        # Some versions put the one answer into a list.
        inner = body.strip()
        inner = inner[1:-1] if inner[:1] == b"[" and inner[-1:] == b"]" else inner
        if (answer := one_object(said, inner, "TGI", "generated_text")) is not None:
            text = answer["generated_text"]
            said.add(ANSWER if text else NOTHING, len(body), text if isinstance(text, str) else "")
            _ended(said, answer, len(body))
        return said
    for value, end in objects(said, body):
        token = fields_of(value.get("token"))
        text = token.get("text")
        if not isinstance(text, str):
            said.unread += "generated_text" not in value
            said.add(NOTHING, end)
        else:  # a special token, as of the text's end, was generated, but nobody is shown it
            shown = text and token.get("special") is not True
            said.add(ANSWER if shown else EMPTY, end, text if shown else "")
        if value.get("generated_text") is not None:
            _ended(said, value, end)
    if said.done_at is None:
        cut_short(said, body, "generated_text")
    return said


def _ended(said: Said, value: Fields, end: int) -> None:
    details = fields_of(value.get("details"))
    said.is_over(end)
    said.finish_reason = str(details.get("finish_reason") or "done")
    said.completion_tokens = tally(details.get("generated_tokens"))
    said.prompt_tokens = tally(details.get("input_length", details.get("prompt_tokens")))  # the latter is LoRAX's
    prefill = details.get("prefill")
    if said.prompt_tokens is None and isinstance(prefill, list) and prefill:
        said.prompt_tokens = len(prefill)
