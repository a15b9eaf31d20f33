"""The face of Gemini's generateContent."""

from __future__ import annotations

import re
from typing import Any, Literal
from urllib.parse import unquote

import msgspec

from pacemark.simulator.server import tokens as words
from pacemark.simulator.server.answers import Plan, Told, Usage, event
from pacemark.simulator.server.asks import Ask, Refusal, to_call
from pacemark.simulator.server.asks import body_of as read_body
from pacemark.simulator.server.http import Request
from pacemark.simulator.server.media import media_tokens

__all__ = ["GEMINI", "GeminiAnswer", "gemini_error", "read_gemini"]

GEMINI = re.compile(r"/v1(?:beta)?/models/([^/:]+):(generateContent|streamGenerateContent)")
"""Path of a request: the model and what to do."""


class _Data(msgspec.Struct):
    data: str


class _Part(msgspec.Struct, rename="camel"):
    text: str = ""
    inline_data: _Data | None = None


class _Content(msgspec.Struct):
    parts: list[_Part] = []


class _Config(msgspec.Struct, rename="camel"):
    max_output_tokens: int | None = None
    response_mime_type: str = ""


class _Function(msgspec.Struct):
    name: str


class _Tools(msgspec.Struct, rename="camel"):
    function_declarations: list[_Function] = []


class _Calling(msgspec.Struct, rename="camel"):
    mode: Literal["AUTO", "ANY", "NONE"] = "AUTO"
    allowed_function_names: list[str] = []


class _ToolConfig(msgspec.Struct, rename="camel"):
    function_calling_config: _Calling = msgspec.field(default_factory=_Calling)


class _Asked(msgspec.Struct, rename="camel"):
    contents: list[_Content] = []
    generation_config: _Config = msgspec.field(default_factory=_Config)
    tools: list[_Tools] = []
    tool_config: _ToolConfig = msgspec.field(default_factory=_ToolConfig)


_REASONS = {"stop": "STOP", "length": "MAX_TOKENS"}
_STATUS = {
    400: "INVALID_ARGUMENT",
    401: "UNAUTHENTICATED",
    403: "PERMISSION_DENIED",
    404: "NOT_FOUND",
    429: "RESOURCE_EXHAUSTED",
    503: "UNAVAILABLE",
}


def read_gemini(request: Request, *, strict: bool = False) -> Ask:
    """Understand a request to generate content; the path names the model. Raises Refusal."""
    found = GEMINI.fullmatch(request.path)
    body = read_body(request, _Asked)
    if found is None or not body.contents:
        raise Refusal(400, "contents is not specified")
    stream = found.group(2) == "streamGenerateContent"
    if stream and "alt=sse" not in request.query.split("&"):
        raise Refusal(400, "this endpoint streams with alt=sse alone")
    limit = body.generation_config.max_output_tokens
    if limit is not None and limit < 1:
        raise Refusal(400, f"max_output_tokens must be positive, not {limit}")
    tokens = [t for content in body.contents for part in content.parts for t in words.pieces(part.text)]
    overhead = words.MESSAGE_TOKENS * len(body.contents) + words.REPLY_TOKENS
    media = [part.inline_data.data for content in body.contents for part in content.parts if part.inline_data]
    counted = len(tokens) + overhead + sum(map(media_tokens, media))
    model = unquote(found.group(1))
    calling = body.tool_config.function_calling_config
    names = [function.name for tools in body.tools for function in tools.function_declarations]
    tool = to_call(names, next(iter(calling.allowed_function_names), ""), required=calling.mode == "ANY")
    return Ask(
        task="chat",
        model=model,
        tokens=tokens,
        prompt_tokens=counted,
        limit=limit,
        stream=stream,
        tool=tool,
        json=body.generation_config.response_mime_type == "application/json" and not tool,
    )


def gemini_error(refusal: Refusal) -> dict[str, Any]:
    """A refusal in Google's words."""
    status = _STATUS.get(refusal.status, "INTERNAL")
    return {"error": {"code": refusal.status, "message": str(refusal), "status": status}}


class GeminiAnswer(Told):
    """Counts stand in every event; thinking is counted apart. A call comes whole, once it is."""

    def __init__(self, plan: Plan) -> None:
        super().__init__(plan)
        self._sent = 0

    def opening(self) -> bytes:
        """Nothing."""
        return b""

    def token(self, count: int) -> bytes:
        """An event with the counts so far."""
        self._sent += count
        if self.plan.ask.tool:
            return b"" if self._sent < self.plan.output else event({"candidates": [self._candidate([self._call()])]})
        thoughts = min(self._sent, self.plan.reasoning)
        counts = msgspec.json.encode(self._counts(self.plan.ask.prompt_tokens, self._sent, thoughts, 0))
        return super().token(count).replace(b"}\n\n", b',"usageMetadata":%b}\n\n' % counts)

    def closing(self, reason: str, usage: Usage) -> bytes:
        """The reason for the end, which is the connection's."""
        return event(self._event([], reason, usage))

    def whole(self, reason: str, usage: Usage) -> dict[str, Any]:
        """The answer without streaming."""
        thought, text = self.spoken()
        thinking = [{"text": thought, "thought": True}] if thought else []
        return self._event([*thinking, self._call() if self.plan.ask.tool else {"text": text}], reason, usage)

    def _call(self) -> dict[str, Any]:
        return {"functionCall": {"name": self.plan.ask.tool, "args": msgspec.json.decode(self.spoken()[1])}}

    def _candidate(self, parts: list[dict[str, Any]]) -> dict[str, Any]:
        return {"content": {"role": "model", "parts": parts}, "index": 0}

    def _chunk(self, choices: list[dict[str, Any]]) -> bytes:
        return b"".join(event(piece) for piece in choices)

    def _piece(self, text: str) -> dict[str, Any]:
        return {"candidates": [self._candidate([{"text": text}])]}

    def _thinking(self, text: str) -> dict[str, Any]:
        return {"candidates": [self._candidate([{"text": text, "thought": True}])]}

    def _event(self, parts: list[dict[str, Any]], reason: str, usage: Usage) -> dict[str, Any]:
        candidate = self._candidate(parts) | {"finishReason": _REASONS[reason]}
        counts = self._counts(usage.prompt, usage.output, usage.reasoning, usage.cached)
        return {"candidates": [candidate], "usageMetadata": counts, "modelVersion": self.plan.model}

    def _counts(self, prompt: int, output: int, thoughts: int, cached: int) -> dict[str, int]:
        counts = {"promptTokenCount": prompt, "candidatesTokenCount": output - thoughts}
        more = {"thoughtsTokenCount": thoughts} | ({"cachedContentTokenCount": cached} if cached else {})
        return counts | more | {"totalTokenCount": prompt + output}
