"""The bytes of answers in OpenAI's form, event by event or whole."""

from __future__ import annotations

import base64
import struct
from collections.abc import Callable
from random import Random
from typing import Any

import msgspec

from pacemark.simulator.server import tokens as words
from pacemark.simulator.server.asks import Ask

__all__ = [
    "Answer",
    "ChatAnswer",
    "CompletionAnswer",
    "EmbeddingAnswer",
    "Plan",
    "Framed",
    "Told",
    "ToolAnswer",
    "Usage",
    "answer",
]


class Plan(msgspec.Struct, frozen=True):
    """What will be answered."""

    ask: Ask
    number: int
    """Of the request, from 0; the words depend on it."""
    created: int
    output: int
    """Tokens."""
    model: str
    """Name under which the answer is signed."""
    reasoning: int = 0
    """Tokens of reasoning that come first; they count as output."""
    reasoning_field: str = "reasoning_content"


class Usage(msgspec.Struct, frozen=True):
    """Token counts of an answered request."""

    prompt: int
    output: int
    cached: int = 0
    reasoning: int = 0
    queue_ns: int = 0
    prefill_ns: int = 0
    decode_ns: int = 0

    def times(self) -> dict[str, float]:
        """Where the time went, as vLLM says it of a request (--enable-per-request-metrics)."""
        names = ("queue_time_ms", "time_to_first_token_ms", "generation_time_ms")
        return {n: ns / 1e6 for n, ns in zip(names, (self.queue_ns, self.prefill_ns, self.decode_ns), strict=True)}

    def as_json(self) -> dict[str, Any]:
        """In OpenAI's words."""
        usage: dict[str, Any] = {
            "prompt_tokens": self.prompt,
            "completion_tokens": self.output,
            "total_tokens": self.prompt + self.output,
            "prompt_tokens_details": {"cached_tokens": self.cached},
        }
        if self.reasoning:
            usage["completion_tokens_details"] = {"reasoning_tokens": self.reasoning}
        return usage


def event(body: Any) -> bytes:
    """One server-sent event."""
    return b"data: " + msgspec.json.encode(body) + b"\n\n"


class Framed:
    """So many tokens as a JSON object: the first opens it, the last closes it, those between are words in it."""

    def __init__(self, tokens: int, words: Callable[[int], bytes]) -> None:
        """`words` gives the next ones, JSON-escaped."""
        self._tokens = self._left = tokens
        self._words = words

    def take(self, count: int) -> str:
        """The text of the next `count` tokens."""
        words, opening, closing = count, "", ""
        if self._left == self._tokens:
            opening, words = '{"text":"', words - 1
        self._left -= count
        if not self._left:
            closing, words = '"}', words - 1
        return opening + (self._words(words).decode() if words > 0 else "") + closing


class Answer:
    """Writes one answer; each token's text is a word of `words.WORDS`."""

    content_type = "text/event-stream; charset=utf-8"
    id_prefix = ""
    object = ""
    chunk_object = ""

    def __init__(self, plan: Plan) -> None:
        self.plan = plan
        self.id = f"{self.id_prefix}-{plan.number:024x}"
        self._next = plan.number * 31
        self._head, self._tail = self._cut(self._piece("\x00"))
        formed = plan.ask.json or plan.ask.tool
        self._framed = Framed(plan.output - min(plan.reasoning, plan.output), self._text) if formed else None

    def opening(self) -> bytes:
        """Events that come before any token."""
        return b""

    def token(self, count: int) -> bytes:
        """The event that carries the next `count` tokens."""
        return self._head + self._words(count) + self._tail

    def closing(self, reason: str, usage: Usage) -> bytes:
        """Events after the last token."""
        events = self._chunk([self._last(reason)])
        if self.plan.ask.include_usage:
            events += event(
                self._base(self.chunk_object) | {"choices": [], "usage": usage.as_json(), "metrics": usage.times()}
            )
        return events + b"data: [DONE]\n\n"

    def whole(self, reason: str, usage: Usage) -> dict[str, Any]:
        """The answer without streaming."""
        return self._base(self.object) | {
            "choices": [self._choice(reason)],
            "usage": usage.as_json(),
            "metrics": usage.times(),
        }

    def _base(self, object: str) -> dict[str, Any]:
        return {"id": self.id, "object": object, "created": self.plan.created, "model": self.plan.model}

    def _chunk(self, choices: list[dict[str, Any]]) -> bytes:
        return event(self._base(self.chunk_object) | {"choices": choices})

    def _cut(self, piece: dict[str, Any]) -> tuple[bytes, bytes]:
        """The event's bytes before and after the text, so that a token costs no JSON encoding."""
        head, tail = self._chunk([piece]).split(b"\\u0000")
        return head, tail

    def _text(self, count: int) -> bytes:
        start = self._next
        self._next = start + count
        size = len(words.ENCODED)
        if count == 1:
            return words.ENCODED[start % size]
        return b"".join([words.ENCODED[i % size] for i in range(start, start + count)])

    def _words(self, count: int) -> bytes:
        """The next tokens of the answer proper, JSON-escaped; where it must be JSON they are."""
        return self._text(count) if self._framed is None else msgspec.json.encode(self._framed.take(count))[1:-1]

    def _piece(self, text: str) -> dict[str, Any]:
        raise NotImplementedError

    def _last(self, reason: str) -> dict[str, Any]:
        raise NotImplementedError

    def _choice(self, reason: str) -> dict[str, Any]:
        raise NotImplementedError


class ChatAnswer(Answer):
    """Its stream opens with an event that only names the role; reasoning, if any, comes before text."""

    id_prefix = "chatcmpl"
    object = "chat.completion"
    chunk_object = "chat.completion.chunk"

    def __init__(self, plan: Plan) -> None:
        super().__init__(plan)
        self._reasoning = min(plan.reasoning, plan.output)
        if self._reasoning:
            self._thought = self._cut(self._delta(self._thinking("\x00")))

    def opening(self) -> bytes:
        """The role."""
        return self._chunk([self._delta({"role": "assistant", "content": ""})])

    def token(self, count: int) -> bytes:
        """Text, or reasoning and then text where the event holds the last of it."""
        if not self._reasoning:
            return super().token(count)
        thoughts = min(count, self._reasoning)
        self._reasoning -= thoughts
        head, tail = self._thought
        thought = head + self._text(thoughts) + tail
        return thought + super().token(count - thoughts) if count > thoughts else thought

    def _thinking(self, text: str) -> dict[str, Any]:
        """The fields that carry reasoning, of a delta or a message."""
        return {self.plan.reasoning_field: text}

    def _delta(self, delta: dict[str, Any], reason: str | None = None) -> dict[str, Any]:
        return {"index": 0, "delta": delta, "finish_reason": reason}

    def _piece(self, text: str) -> dict[str, Any]:
        return self._delta({"content": text})

    def _last(self, reason: str) -> dict[str, Any]:
        return self._delta({}, reason)

    def _choice(self, reason: str) -> dict[str, Any]:
        message: dict[str, Any] = {"role": "assistant", "content": None}
        if self._reasoning:
            message |= self._thinking(self._text(self._reasoning).decode())
        if count := self.plan.output - self._reasoning:
            message["content"] = self._text(count).decode() if self._framed is None else self._framed.take(count)
        return {"index": 0, "message": message, "finish_reason": reason}


class ToolAnswer(ChatAnswer):
    """Calls a function; its arguments are JSON."""

    def __init__(self, plan: Plan) -> None:
        super().__init__(msgspec.structs.replace(plan, reasoning=0))
        self._arguments = Framed(plan.output, self._text).take
        self._first = True

    def token(self, count: int) -> bytes:
        """A piece of the arguments; the first event also names the function."""
        first, self._first = self._first, False
        return self._chunk([self._delta({"tool_calls": [self._call(self._arguments(count), first)]})])

    def _call(self, arguments: str, first: bool) -> dict[str, Any]:
        call: dict[str, Any] = {"index": 0, "function": {"arguments": arguments}}
        if first:
            call |= {"id": f"call_{self.plan.number:024x}", "type": "function"}
            call["function"] = {"name": self.plan.ask.tool, "arguments": arguments}
        return call

    def _last(self, reason: str) -> dict[str, Any]:
        return self._delta({}, "tool_calls")

    def _choice(self, reason: str) -> dict[str, Any]:
        call = self._call(self._arguments(self.plan.output), first=True)
        del call["index"]
        message = {"role": "assistant", "content": None, "tool_calls": [call]}
        return {"index": 0, "message": message, "finish_reason": "tool_calls"}


class CompletionAnswer(Answer):
    """An answer to a bare prompt."""

    id_prefix = "cmpl"
    object = chunk_object = "text_completion"

    def _piece(self, text: str) -> dict[str, Any]:
        return {"index": 0, "text": text, "logprobs": None, "finish_reason": None}

    def _last(self, reason: str) -> dict[str, Any]:
        return {"index": 0, "text": "", "logprobs": None, "finish_reason": reason}

    def _choice(self, reason: str) -> dict[str, Any]:
        return self._last(reason) | {"text": self._text(self.plan.output).decode()}


class EmbeddingAnswer(Answer):
    """One unit vector for each text; equal texts have equal vectors."""

    def _piece(self, text: str) -> dict[str, Any]:
        return {"text": text}

    def whole(self, reason: str, usage: Usage) -> dict[str, Any]:
        """The vectors, as numbers or as base64 of little-endian 32-bit floats."""
        ask = self.plan.ask
        data = []
        for index, text in enumerate(ask.texts):
            random = Random(text)
            vector = [random.gauss(0, 1) for _ in range(ask.dimensions)]
            norm = sum(x * x for x in vector) ** 0.5
            vector = [x / norm for x in vector]
            packed = base64.b64encode(struct.pack(f"<{ask.dimensions}f", *vector)).decode()
            data.append({"object": "embedding", "index": index, "embedding": packed if ask.base64 else vector})
        counts = {"prompt_tokens": usage.prompt, "total_tokens": usage.prompt}
        return {"object": "list", "model": self.plan.model, "data": data, "usage": counts}


class Told(ChatAnswer):
    """A chat in the words of another API: each of its events is one piece, and reasoning and text may be kept apart."""

    def __init__(self, plan: Plan) -> None:
        super().__init__(plan)
        self._unnamed = bool(plan.ask.tool)
        """The name of the tool, which is generated too, is yet to come."""

    def token(self, count: int) -> bytes:
        """As `ChatAnswer`, with `turn` where the reasoning is over, and before the first token of a call."""
        if self._unnamed:
            self._unnamed = False
            return self.turn() + super().token(count)
        before = self._reasoning
        if not before or count < before:
            return super().token(count)
        thought = super().token(before) + self.turn()
        return thought + super().token(count - before) if count > before else thought

    def turn(self) -> bytes:
        """Events between reasoning and text."""
        return b""

    def spoken(self) -> tuple[str, str]:
        """The whole reasoning and the whole text."""
        first, thoughts, size = self.plan.number * 31, min(self.plan.reasoning, self.plan.output), len(words.WORDS)
        said = [words.WORDS[i % size] for i in range(first, first + self.plan.output)]
        text = said[thoughts:]
        if self._framed is not None:
            return "".join(said[:thoughts]), f'{{"text":"{"".join(text[: max(0, len(text) - 2)])}"}}'
        return "".join(said[:thoughts]), "".join(text)

    def call_id(self) -> str:
        """What a call is named by."""
        return f"call_{self.plan.number:024x}"

    def _delta(self, delta: dict[str, Any], reason: str | None = None) -> dict[str, Any]:
        return delta


def answer(plan: Plan) -> Answer:
    """The writer for `plan`."""
    if plan.ask.task == "chat":
        return ToolAnswer(plan) if plan.ask.tool else ChatAnswer(plan)
    return CompletionAnswer(plan) if plan.ask.task == "completions" else EmbeddingAnswer(plan)
