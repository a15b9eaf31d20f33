"""What a request asks for: the OpenAI request bodies, server side."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal, TypeVar

import msgspec

from pacemark.simulator.server import tokens as words
from pacemark.simulator.server.http import Request
from pacemark.simulator.server.media import media_tokens
from pacemark.simulator.server.refusal import Refusal as Refusal

__all__ = [
    "Ask",
    "Message",
    "Refusal",
    "Sampling",
    "asked",
    "body_of",
    "conversation",
    "plainly",
    "read_chat",
    "read_completion",
    "read_embeddings",
    "read_task",
    "to_call",
]


class _Url(msgspec.Struct):
    url: str


class _Data(msgspec.Struct):
    data: str


class _Part(msgspec.Struct):
    type: str = "text"
    text: str = ""
    image_url: _Url | str = ""
    """Of chat and of responses."""
    input_audio: _Data | None = None
    source: _Data | None = None
    """Of messages."""

    def media(self) -> str:
        """Its image or sound, if it is one."""
        inner = self.input_audio or self.source
        url = self.image_url.url if isinstance(self.image_url, _Url) else self.image_url
        return inner.data if inner is not None else url


class Message(msgspec.Struct):
    """One message of a conversation; its parts are text, images or sounds."""

    role: str
    content: str | list[_Part] | None = None
    images: list[str] = []
    """Of Ollama."""

    def media(self) -> list[str]:
        """Its images and sounds."""
        parts = self.content if isinstance(self.content, list) else []
        return [found for part in parts if (found := part.media())] + self.images


class _StreamOptions(msgspec.Struct):
    include_usage: bool = False


class _Function(msgspec.Struct):
    name: str


class _Tool(msgspec.Struct):
    function: _Function


class _Form(msgspec.Struct):
    type: str = "text"


class Sampling(msgspec.Struct):
    """How long an answer is wanted, and whether as a stream, in OpenAI's words."""

    model: str = ""
    max_tokens: int | None = None
    max_completion_tokens: int | None = None
    min_tokens: int = 0
    ignore_eos: bool = False
    n: int | None = 1
    stream: bool | None = False
    stream_options: _StreamOptions | None = None


class _Chat(Sampling):
    messages: list[Message] = []
    tools: list[_Tool] = []
    tool_choice: Literal["none", "auto", "required"] | _Tool = "auto"
    response_format: _Form | None = None


class _Completion(Sampling):
    prompt: str | list[str | int | list[int]] = ""


class _Embeddings(msgspec.Struct):
    input: str | list[str | int | list[int]]
    model: str = ""
    dimensions: int = 64
    encoding_format: Literal["float", "base64"] = "float"


class Ask(msgspec.Struct, frozen=True, kw_only=True):
    """What a request asks for, whichever route it came by."""

    task: Literal["chat", "completions", "embeddings"]
    model: str
    tokens: list[str]
    """The prompt's own tokens."""
    prompt_tokens: int
    """With what the chat template adds."""
    limit: int | None = None
    """Most output tokens, where the request says."""
    min_tokens: int = 0
    ignore_eos: bool = False
    stream: bool = False
    include_usage: bool = False
    tool: str = ""
    """Name of the function that the answer must call, or empty."""
    json: bool = False
    """The answer must be JSON."""
    texts: list[str] = []
    """Embeddings: what to embed, one vector each."""
    dimensions: int = 0
    base64: bool = False


_STANDARD = """
model messages prompt max_tokens max_completion_tokens n stream stream_options temperature top_p stop seed user
presence_penalty frequency_penalty logit_bias logprobs top_logprobs tools tool_choice response_format
reasoning_effort best_of echo suffix store metadata
"""


def read_chat(request: Request, *, strict: bool = False) -> Ask:
    """Understand a chat request; `strict` refuses fields that OpenAI does not know. Raises Refusal."""
    body = body_of(request, _Chat, strict)
    if not body.messages:
        raise Refusal(400, "messages: at least one message is needed")
    tokens, counted = conversation(body.messages)
    named = body.tool_choice.function.name if isinstance(body.tool_choice, _Tool) else ""
    tool = to_call([tool.function.name for tool in body.tools], named, required=body.tool_choice == "required")
    form = body.response_format
    return asked("chat", body, tokens, counted, tool=tool, json=form is not None and form.type.startswith("json"))


def to_call(tools: Sequence[str], named: str, *, required: bool) -> str:
    """The tool to call: the one that is named, or where one is required the first; empty for none. Raises Refusal."""
    tool = named or (next(iter(tools), "") if required else "")
    if (tool or required) and tool not in tools:
        raise Refusal(400, f"tool_choice: no function {tool!r} among the tools")
    return tool


def conversation(messages: Sequence[Message]) -> tuple[list[str], int]:
    """The tokens of messages, and how many they are with what the chat template adds."""
    tokens: list[str] = []
    seen = 0
    for message in messages:
        content = message.content or ""
        seen += sum(media_tokens(found) for found in message.media())
        tokens += words.pieces(content if isinstance(content, str) else "\n".join(part.text for part in content))
    return tokens, seen + len(tokens) + words.MESSAGE_TOKENS * len(messages) + words.REPLY_TOKENS


def plainly(body: Sampling, strict: bool) -> None:
    """Raise Refusal where a strict endpoint is asked for what only engines know."""
    for field in ("ignore_eos", "min_tokens"):
        if strict and getattr(body, field):
            raise Refusal(400, f"{field}: Extra inputs are not permitted")


def read_completion(request: Request, *, strict: bool = False) -> Ask:
    """Understand a completions request, its prompt text or token ids. Raises Refusal."""
    body = body_of(request, _Completion, strict)
    prompts = _prompts(body.prompt)
    if len(prompts) != 1:
        raise Refusal(400, f"prompt: one prompt a request is served, not {len(prompts)}")
    return asked("completions", body, prompts[0], len(prompts[0]) + 1)


def read_embeddings(request: Request, *, strict: bool = False) -> Ask:
    """Understand an embeddings request, of one text or several. Raises Refusal."""
    body = body_of(request, _Embeddings, False)
    prompts = _prompts(body.input)
    if not prompts or not 1 <= body.dimensions <= 4096:
        raise Refusal(400, "input must not be empty, and dimensions must be between 1 and 4096")
    tokens = [token for prompt in prompts for token in prompt]
    return Ask(
        task="embeddings",
        model=body.model,
        tokens=tokens,
        prompt_tokens=len(tokens) + len(prompts),
        limit=1,
        texts=[" ".join(prompt) for prompt in prompts],
        dimensions=body.dimensions,
        base64=body.encoding_format == "base64",
    )


def read_task(request: Request, *, strict: bool = False) -> Ask:
    """Understand a request whose route does not say what it is, by the fields it has. Raises Refusal."""
    fields = body_of(request, dict[str, Any], False)
    for field, read in (("messages", read_chat), ("prompt", read_completion), ("input", read_embeddings)):
        if field in fields:
            return read(request, strict=strict)
    raise Refusal(400, "the request has none of messages, prompt and input")


_T = TypeVar("_T")


def body_of(request: Request, kind: type[_T], strict: bool = False) -> _T:
    """The body as `kind`; `strict` refuses fields that OpenAI does not know. Raises Refusal."""
    try:
        body = msgspec.json.decode(request.body, type=kind)
        if strict:
            for field in msgspec.json.decode(request.body, type=dict[str, msgspec.Raw]):
                if field not in _STANDARD.split():
                    raise Refusal(400, f"Unrecognized request argument supplied: {field}")
    except msgspec.DecodeError as error:
        raise Refusal(400, f"the request body cannot be read: {error}") from None
    return body


def _prompts(given: str | list[str | int | list[int]]) -> list[list[str]]:
    """Tokens of each prompt: text, token ids, or a list of either."""
    if isinstance(given, str):
        return [words.pieces(given)]
    if given and all(isinstance(item, int) for item in given):
        return [[str(item) for item in given]]
    return [
        words.pieces(p) if isinstance(p, str) else [str(i) for i in (p if isinstance(p, list) else [p])] for p in given
    ]


def asked(
    task: Literal["chat", "completions"],
    body: Sampling,
    tokens: list[str],
    prompt_tokens: int,
    *,
    tool: str = "",
    json: bool = False,
) -> Ask:
    """What `body` asks for with a prompt of these tokens. Raises Refusal."""
    limit = body.max_completion_tokens if body.max_completion_tokens is not None else body.max_tokens
    if limit is not None and limit < 1:
        raise Refusal(400, f"max_tokens must be at least 1, not {limit}")
    if body.min_tokens < 0 or (limit is not None and body.min_tokens > limit):
        raise Refusal(400, f"min_tokens must be between 0 and max_tokens, not {body.min_tokens}")
    if body.n not in (None, 1):
        raise Refusal(400, f"n: one choice a request is served, not {body.n}")
    if body.stream_options and not body.stream:
        raise Refusal(400, "stream_options can only be given with stream: true")
    return Ask(
        task=task,
        model=body.model,
        tokens=tokens,
        prompt_tokens=prompt_tokens,
        limit=limit,
        min_tokens=body.min_tokens,
        ignore_eos=body.ignore_eos,
        stream=bool(body.stream),
        include_usage=bool(body.stream_options and body.stream_options.include_usage),
        tool=tool,
        json=json and not tool,
    )
