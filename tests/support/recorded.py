"""Answers in the shapes of each API, made up by hand: two tokens of reasoning where it has any, three of text."""

from __future__ import annotations

import json
from typing import Any, NamedTuple

from support.servers import event

THOUGHTS, TEXTS = ("Hm", ", so"), ("One", " two", " thr\u00e9e")


class Recorded(NamedTuple):
    """The events of a streamed answer, and what must be read from them."""

    api: str
    events: list[bytes]
    carrying: list[int]
    """Which of the events hold output."""
    answer: int
    """Which is the first for the reader."""
    done: int
    """Which says that the answer is complete."""
    finish: str
    input_tokens: int
    output_tokens: int
    cached_tokens: int = -1
    reasoning_tokens: int = -1


def named(payload: dict[str, Any]) -> bytes:
    """An event that has its type as its name too."""
    return f"event: {payload['type']}\n".encode() + event(payload)


def line(**fields: Any) -> bytes:
    """A line of Ollama's."""
    return (
        json.dumps({"model": "m", "created_at": "2026-11-28T10:00:00Z"} | fields, ensure_ascii=False).encode() + b"\n"
    )


def _responses() -> Recorded:
    def part(kind: str, item: str, **fields: Any) -> bytes:
        return named({"type": f"response.{kind}", "sequence_number": len(kind), "item_id": item} | fields)

    text = "".join(TEXTS)
    message = {"type": "message", "id": "m1", "content": [{"type": "output_text", "text": text}]}
    thought = {"type": "reasoning", "id": "t1", "summary": [{"type": "summary_text", "text": "".join(THOUGHTS)}]}
    usage = {
        "input_tokens": 9,
        "input_tokens_details": {"cached_tokens": 4},
        "output_tokens": 5,
        "output_tokens_details": {"reasoning_tokens": 2},
        "total_tokens": 14,
    }
    response = {"id": "r1", "status": "completed", "output": [thought, message], "error": None, "usage": usage}
    events = [
        named({"type": "response.created", "response": {"id": "r1", "status": "in_progress", "error": None}}),
        named({"type": "response.output_item.added", "output_index": 0, "item": {"type": "reasoning", "id": "t1"}}),
        *(part("reasoning_summary_text.delta", "t1", delta=t) for t in THOUGHTS),
        named({"type": "response.output_item.done", "output_index": 0, "item": thought}),
        part("content_part.added", "m1", part={"type": "output_text", "text": ""}),
        *(part("output_text.delta", "m1", delta=t) for t in TEXTS),
        part("output_text.done", "m1", text=text),
        named({"type": "response.output_item.done", "output_index": 1, "item": message}),
        named({"type": "response.completed", "response": response}),
    ]
    return Recorded("responses", events, [2, 3, 6, 7, 8], 6, 11, "completed", 9, 5, 4, 2)


def _messages() -> Recorded:
    def delta(index: int, **fields: Any) -> bytes:
        return named({"type": "content_block_delta", "index": index, "delta": fields})

    def block(index: int, **fields: Any) -> bytes:
        return named({"type": "content_block_start", "index": index, "content_block": fields})

    counts = {"input_tokens": 3, "cache_read_input_tokens": 4, "cache_creation_input_tokens": 2, "output_tokens": 1}
    ended = {"output_tokens": 5, "output_tokens_details": {"thinking_tokens": 2}}
    events = [
        named({"type": "message_start", "message": {"id": "m1", "role": "assistant", "usage": counts}}),
        block(0, type="thinking", thinking=""),
        *(delta(0, type="thinking_delta", thinking=t) for t in THOUGHTS),
        delta(0, type="signature_delta", signature="c2ln"),
        named({"type": "content_block_stop", "index": 0}),
        named({"type": "ping"}),
        block(1, type="text", text=""),
        *(delta(1, type="text_delta", text=t) for t in TEXTS),
        named({"type": "content_block_stop", "index": 1}),
        named({"type": "message_delta", "delta": {"stop_reason": "end_turn", "stop_sequence": None}, "usage": ended}),
        named({"type": "message_stop"}),
    ]
    return Recorded("messages", events, [2, 3, 8, 9, 10], 8, 13, "end_turn", 9, 5, 4, 2)


_COUNTS = {"total_duration": 912_000_000, "load_duration": 9_000_000, "prompt_eval_count": 9,
           "prompt_eval_duration": 80_000_000, "eval_count": 5, "eval_duration": 60_000_000}  # fmt: skip


def _ollama() -> Recorded:
    def said(**fields: Any) -> bytes:
        return line(message={"role": "assistant", "content": ""} | fields, done=False)

    last = line(message={"role": "assistant", "content": ""}, done=True, done_reason="stop", **_COUNTS)
    events = [*(said(thinking=t) for t in THOUGHTS), *(said(content=t) for t in TEXTS), last]
    return Recorded("ollama", events, [0, 1, 2, 3, 4], 2, 5, "stop", 9, 5, reasoning_tokens=2)


def _ollama_generate() -> Recorded:
    thoughts = [line(response="", thinking=t, done=False) for t in THOUGHTS]
    last = line(response="", done=True, done_reason="length", **_COUNTS)
    events = [*thoughts, *(line(response=t, done=False) for t in TEXTS), last]
    return Recorded("ollama-generate", events, [0, 1, 2, 3, 4], 2, 5, "length", 9, 5, reasoning_tokens=2)


def gemini(part: dict[str, Any], candidates: int, thoughts: int = 2, **candidate: Any) -> bytes:
    """An event of Gemini's, with the counts so far."""
    counts = {"promptTokenCount": 9, "cachedContentTokenCount": 4, "thoughtsTokenCount": thoughts}
    counts |= {"candidatesTokenCount": candidates, "totalTokenCount": 9 + thoughts + candidates}
    content = {"content": {"role": "model", "parts": [part] if part else []}}
    return event({"candidates": [content | candidate], "usageMetadata": counts})


def _gemini() -> Recorded:
    events = [
        *(gemini({"text": t, "thought": True}, 0, n) for n, t in enumerate(THOUGHTS, 1)),
        *(gemini({"text": t}, n) for n, t in enumerate(TEXTS, 1)),
        gemini({}, 3, finishReason="STOP"),
    ]
    return Recorded("gemini", events, [0, 1, 2, 3, 4], 2, 5, "STOP", 9, 5, 4, 2)


def tgi(text: str, special: bool = False, **fields: Any) -> bytes:
    """An event of TGI's: there is no blank after the colon."""
    token = {"id": 77, "text": text, "logprob": -0.2, "special": special}
    payload = {"index": 1, "token": token, "generated_text": None, "details": None} | fields
    return f"data:{json.dumps(payload)}\n\n".encode()


def _tgi() -> Recorded:
    details = {"finish_reason": "eos_token", "generated_tokens": 4, "seed": None, "input_length": 9}
    events = [*(tgi(t) for t in TEXTS), tgi("</s>", True, generated_text="".join(TEXTS), details=details)]
    return Recorded("tgi", events, [0, 1, 2, 3], 0, 3, "eos_token", 9, 4)


RECORDED = {r.api: r for r in (_responses(), _messages(), _ollama(), _ollama_generate(), _gemini(), _tgi())}
