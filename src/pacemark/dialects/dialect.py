"""Dialects: how each API is asked, how its answers are read, and which optional fields a server takes.

A new dialect is one file with its body and its `read`, and one line in `DIALECTS`.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, TypeAlias
from urllib.parse import quote

import msgspec

from pacemark.dialects import agent, embeddings, gemini, messages, ollama, openai, rerank, responses, score, tgi
from pacemark.dialects.attached import Attached
from pacemark.dialects.documents import DOCUMENTS_HOLE, deal
from pacemark.dialects.said import Said
from pacemark.errors import BadInput
from pacemark.media import audio_s, images
from pacemark.tools import Tool, schema_in, tools_in

if TYPE_CHECKING:
    from pacemark.trace import Exchange  # these two take numpy, which the command line's help does without
    from pacemark.traffic import Workload


_OPTIONAL = ("running_usage", "min_tokens", "ignore_eos", "include_usage")
"""Given up in this order where nothing says which of them is refused."""


class Dialect(NamedTuple):
    """A way of asking: where to post, how the prompt is wrapped, and what the answer means."""

    name: str
    path: str
    """Below the base URL; `{model}` in it is the model's name."""
    ask: Callable[[str], dict[str, Any]]
    read: Callable[[bytes, bool], Said]
    """Body of an answer of status 200, and whether it came as a stream."""
    streams: bool = True
    output_tokens: int | None = None
    """The length of every answer, where it is not the client's to choose."""
    whole_path: str = ""
    """Where an answer in one piece is asked for, if that is another place."""
    root: str = ""
    """Path of the base URL where a URL names the host alone."""
    beside_v1: bool = False
    """It stands beside /v1, so that a base URL that ends in it stands for its parent."""
    models: str = "/models"
    """Where the models are listed, below the base URL."""
    headers: tuple[tuple[str, str], ...] = ()
    key_headers: tuple[str, ...] = ("Authorization",)
    """Headers that carry the API key: after `Bearer` in the first of these names, bare in others."""
    limit: str = "max_tokens"
    """Field of the answer's longest length, its parents before it: `options.num_predict`."""
    takes: tuple[str, ...] = _OPTIONAL
    """Optional fields that a server of it may know."""
    bare: bool = False
    """The body names neither the model nor that it should stream: the path does."""
    lines: bool = False
    """A stream is one JSON object a line, without events round them."""
    attach: Callable[[dict[str, Any], Sequence[Attached]], None] | None = None
    """Puts images and audio beside the prompt in a body; None where it takes none."""
    hears: bool = False
    """It takes audio, and not images alone."""
    tools: Callable[[Sequence[Tool], str], dict[str, Any]] | None = None
    """Fields that offer tools, and say which are to be called; None where it has none."""
    schema: Callable[[dict[str, Any]], dict[str, Any]] | None = None
    """Fields that ask for JSON of a schema."""
    documents: bool = False
    """It judges documents against a query: as many as output tokens are asked for, for each is one."""

    @property
    def unlimited(self) -> bool:
        """Whether an answer is as long as it happens to be: nobody can ask for a length."""
        return not self.limit and self.output_tokens is None and not self.documents

    def output_of(self, asked: int | str) -> int | str:
        """How many tokens an answer has where `asked` are asked for."""
        return asked if self.output_tokens is None else self.output_tokens

    def place(self, model: str, stream: bool) -> str:
        """Where to post, below the base URL."""
        path = self.path if stream or not self.whole_path else self.whole_path
        return path.replace("{model}", quote(model.removeprefix("models/"), safe=""))  # as Gemini lists its names


_ALWAYS = ("ignore_eos", "min_tokens")
_KEYS = ("Authorization", "x-api-key")
_VERSION = (("anthropic-version", "2023-06-01"),)
_GEMINI = ("/models/{model}:streamGenerateContent?alt=sse", "/models/{model}:generateContent")

DIALECTS = {
    dialect.name: dialect
    for dialect in (
        Dialect("chat", "/chat/completions", openai.chat_body, openai.read, tools=openai.chat_tools,
                schema=openai.chat_schema, attach=openai.chat_attach, hears=True),
        Dialect("completions", "/completions", openai.completions_body, openai.read),
        Dialect("embeddings", "/embeddings", embeddings.body, embeddings.read, streams=False, output_tokens=1),
        Dialect("responses", "/responses", responses.body, responses.read, limit="max_output_tokens", takes=_ALWAYS,
                tools=responses.tools, schema=responses.schema, attach=responses.attach, hears=True),
        Dialect("messages", "/messages", messages.body, messages.read, root="/v1", takes=_ALWAYS, headers=_VERSION,
                key_headers=_KEYS, tools=messages.tools, schema=messages.schema, attach=messages.attach),
        Dialect("ollama", "/api/chat", ollama.body, ollama.read, lines=True, beside_v1=True, models="/api/tags",
                limit="options.num_predict", takes=(), tools=ollama.tools, schema=ollama.schema, attach=ollama.attach),
        Dialect("ollama-generate", "/api/generate", ollama.generate_body, ollama.read, lines=True, beside_v1=True,
                models="/api/tags", limit="options.num_predict", takes=(), schema=ollama.schema,
                attach=ollama.generate_attach),
        Dialect("agent", "/invocations", agent.body, agent.read, limit="", takes=()),
        Dialect("rerank", "/rerank", rerank.body, rerank.read, streams=False, limit="", documents=True),
        Dialect("score", "/score", score.body, score.read, streams=False, limit="", documents=True),
        Dialect("gemini", _GEMINI[0], gemini.body, gemini.read, whole_path=_GEMINI[1], root="/v1beta", bare=True,
                key_headers=("x-goog-api-key",), limit="generationConfig.maxOutputTokens", takes=(),
                tools=gemini.tools, schema=gemini.schema, attach=gemini.attach, hears=True),
        Dialect("tgi", "/generate_stream", tgi.body, tgi.read, whole_path="/generate", beside_v1=True, bare=True,
                models="/v1/models", limit="parameters.max_new_tokens", takes=(), schema=tgi.schema),
    )
}  # fmt: skip


def spoken(conjunction: str = "or") -> str:
    """The names of the dialects, as a sentence lists them."""
    *names, last = DIALECTS
    return f"{', '.join(names)} {conjunction} {last}"


# --- the request


class Options(msgspec.Struct, frozen=True):
    """What this server accepts, learned by trying once and sent with every request."""

    stream: bool = True
    include_usage: bool = True
    ignore_eos: bool = True
    min_tokens: bool = True
    max_tokens_field: str = "max_tokens"
    """Empty: the answer's length is not the client's to choose."""
    running_usage: bool = False
    """Ask for the count of tokens so far in every event (`continuous_usage_stats`), as vLLM gives it."""
    texts: bool = False
    """Documents to rank are called texts, as TEI has it."""


_PROMPT_HOLE = "@prompt@"
_TOKENS_HOLE = "@tokens@"


def template(
    dialect: Dialect, model: str, options: Options, extra: dict[str, Any], beside: Sequence[Attached] = ()
) -> bytes:
    """The JSON of every request of a run, with holes for the prompt, what is `beside` it, and the tokens asked for."""
    body: dict[str, Any] = {"model": model} if model and not dialect.bare else {}
    body |= dialect.ask(_PROMPT_HOLE)
    if beside and dialect.attach is not None:
        dialect.attach(body, beside)
    if options.stream and not dialect.bare:
        body["stream"] = True
    if options.include_usage:
        running = {"continuous_usage_stats": True} if options.running_usage else {}
        body["stream_options"] = {"include_usage": True, **running}
    if options.ignore_eos:
        body["ignore_eos"] = True
    if options.min_tokens:
        body["min_tokens"] = _TOKENS_HOLE
    if options.texts and "documents" in body:
        body["texts"] = body.pop("documents")
    body = _merged(body, extra)
    if options.max_tokens_field:
        *parents, field = options.max_tokens_field.split(".")
        inner = body
        for parent in parents:
            inner = inner.setdefault(parent, {})
        inner[field] = _TOKENS_HOLE
    return msgspec.json.encode(body)


def further(dialect: Dialect, workload: Workload) -> dict[str, Any]:
    """The fields of every request beside its prompt and length, as this API words them: tools, the form of the answer,
    and over them those that the user gave. Raises BadInput where it has no words for one."""
    fields: dict[str, Any] = {}
    if workload.tools:
        if dialect.tools is None:
            raise BadInput(f"--tools: the API {dialect.name} has no tools; {_with(lambda d: d.tools)} have")
        fields |= dialect.tools(tools_in(Path(workload.tools)), workload.tool_choice)
    if workload.response_format:
        if dialect.schema is None:
            whose = _with(lambda d: d.schema)
            raise BadInput(f"--response-format: the API {dialect.name} cannot be asked for JSON; {whose} can")
        fields = _merged(fields, dialect.schema(schema_in(Path(workload.response_format))))
    return _merged(fields, workload.extra)


def attached(dialect: Dialect, workload: Workload) -> list[Attached]:
    """What is beside every prompt. Raises BadInput where the API takes no such thing."""
    pictures, sound = images(workload.images), audio_s(workload.audio)
    if pictures and dialect.attach is None:
        raise BadInput(f"--images: the API {dialect.name} takes none; {_with(lambda d: d.attach)} do")
    if sound and not dialect.hears:
        raise BadInput(f"--audio: the API {dialect.name} takes none; {_with(lambda d: d.hears)} do")
    seen = [Attached("image", f"image/{pictures.form}")] * pictures.number if pictures else []
    return seen + ([Attached("audio", "audio/wav")] if sound else [])


def _with(able: Callable[[Dialect], object]) -> str:
    return ", ".join(name for name, dialect in DIALECTS.items() if able(dialect))


def _merged(fields: dict[str, Any], more: dict[str, Any]) -> dict[str, Any]:
    """`fields` with `more` over them; objects in both are merged."""
    both = {k: _merged(v, more[k]) for k, v in fields.items() if isinstance(v, dict) and isinstance(more.get(k), dict)}
    return fields | more | both


def fill(template: bytes, prompt: str, tokens: int) -> bytes:
    """`template` with its holes filled."""
    counted = template.replace(b'"%s"' % _TOKENS_HOLE.encode(), b"%d" % tokens)
    if DOCUMENTS_HOLE in counted:
        return deal(counted, prompt, tokens)
    return counted.replace(_PROMPT_HOLE.encode(), msgspec.json.encode(prompt)[1:-1])


# --- which optional fields a server takes

Tried: TypeAlias = "Sequence[tuple[Options, Exchange]]"
"""What was asked so far, oldest first, and what came of it."""

_WIRE = {
    "running_usage": r"continuous_usage_stats|stream_options",
    "min_tokens": r"min_tokens",
    "ignore_eos": r"ignore_eos",
    "include_usage": r"stream_options|include_usage",
}
_LIMITS = ("max_tokens", "max_completion_tokens")
_UNKNOWN = re.compile(
    r"un(?:supported|recogni[sz]ed|known|expected|permitted)|not (?:supported|permitted|allowed|recogni[sz]ed)|"
    r"does(?: not|n't) support|extra|forbidden|deprecated|instead|no such|must not be|cannot be (?:set|used)",
    re.IGNORECASE,
)
_NO_REFUSAL = (401, 429)
"""Of the statuses of a failure, those that are about something else than the fields, whatever they name."""
_INSTEAD = re.compile(
    r"(?:expected|must be|should be) one of|(?<!\w)(?<!not )(?:allowed|supported|valid|accepted)(?: \w+)?(?: are|:)",
    re.IGNORECASE,
)
"""What leads over from a field that is refused to those that are not."""
_TEXTS = re.compile(r"missing field\W+texts\b")
_BARE = re.compile(r"(?:internal server error)?\W*", re.IGNORECASE)


def first_options(dialect: Dialect, stream: bool = True, ignore_eos: bool = True) -> Options:
    """The most telling way to ask; `ignore_eos` False leaves it to the model when to stop."""
    stream, takes = stream and dialect.streams, dialect.takes
    if not dialect.limit or dialect.output_tokens is not None:
        return Options(stream, False, False, False, "")
    usage, full = stream and "include_usage" in takes, ignore_eos and "ignore_eos" in takes
    return Options(stream, usage, full, full, dialect.limit, running_usage=usage)


def next_options(tried: Tried) -> Options | None:
    """What to ask next, given what was asked and answered so far; None where there is no more to learn.

    A refusal that names a field drops that field alone. One that names none drops all that can be dropped, and once
    that is taken each field is tried again by itself. Ends after some ten requests at most.
    """
    options, answer = tried[-1]
    asked = [o for o, _ in tried]
    if answer.error:
        found = _without_named(options, answer) or (_plainer(options, answer) if _is_refusal(answer) else None)
        if found is not None and found not in asked:
            return found
    return _richer(tried)


def best_options(tried: Tried) -> tuple[Options, Exchange] | None:
    """The richest way of asking that was answered, the latest of equals; None where none was."""
    taken = [(o, x) for o, x in tried if not x.error]
    return max(reversed(taken), key=lambda pair: _worth(pair[0]), default=None)


def _worth(options: Options) -> int:
    return sum(getattr(options, name) for name in _OPTIONAL)


def _named(options: Options, answer: Exchange) -> list[str]:
    """The optional fields in `options` that the refusal names, the most particular first."""
    said = _complaint(answer)
    found = [
        name
        for name in _OPTIONAL
        if getattr(options, name) and re.search(rf"(?<![a-z_]){_group(name)}(?![a-z_])", said, re.IGNORECASE)
    ]
    if "running_usage" in found:  # it lies inside the other, which may well be taken without it
        found = [name for name in found if name != "include_usage"]
    return found


def _group(name: str) -> str:
    return f"(?:{_WIRE[name]})"


def _without_named(options: Options, answer: Exchange) -> Options | None:
    """`options` without what the refusal names, or with the limit in its other field; None where it names neither."""
    if answer.status in _NO_REFUSAL or not (answer.status == 200 or 400 <= answer.status < 600):
        return None
    changes: dict[str, Any] = dict.fromkeys(_named(options, answer), False)
    field, said = options.max_tokens_field, _complaint(answer)
    if not field and _TEXTS.search(said):
        changes["texts"] = True
    # Beside a field that can be left out the limit may be named for comparison: it is named again if it is refused.
    if not changes and field in _LIMITS and re.search(rf"(?<![a-z_]){field}(?![a-z_])", said) and _UNKNOWN.search(said):
        changes["max_tokens_field"] = _other(field)
    return msgspec.structs.replace(options, **changes) if changes else None


def _complaint(answer: Exchange) -> str:
    """What a refusal says of what was asked, without what it says could be asked instead."""
    head = _INSTEAD.split(answer.detail, maxsplit=1)[0]
    return head if re.search("|".join([*_WIRE.values(), *_LIMITS]), head, re.IGNORECASE) else answer.detail


def _other(field: str) -> str:
    return _LIMITS[1 - _LIMITS.index(field)]


def _is_refusal(answer: Exchange) -> bool:
    return answer.status in (400, 422) or (answer.status == 500 and _BARE.fullmatch(answer.detail) is not None)


def _plainer(options: Options, answer: Exchange) -> Options | None:
    """Without any optional field; then with the limit in its other field."""
    plain = msgspec.structs.replace(
        options, running_usage=False, ignore_eos=False, min_tokens=False, include_usage=False
    )
    if plain != options:
        return plain
    if options.max_tokens_field == _LIMITS[0]:
        return msgspec.structs.replace(plain, max_tokens_field=_LIMITS[1])
    return None


def _richer(tried: Tried) -> Options | None:
    """The best that was taken, with one more field that nobody refused by name and that was not tried with it."""
    taken = best_options(tried)
    if taken is None:
        return None
    best, asked = taken[0], [o for o, _ in tried]
    refused = {name for o, x in tried if x.error for name in _named(o, x)}
    first = tried[0][0]
    for name in reversed(_OPTIONAL):
        if not getattr(first, name) or getattr(best, name) or name in refused:
            continue
        if name == "running_usage" and not best.include_usage:
            continue
        more = msgspec.structs.replace(best, **{name: True})
        if more not in asked and not _failed_beside(tried, more):
            return more
    return None


def _failed_beside(tried: Tried, more: Options) -> bool:
    """Whether fewer fields than `more` were refused already, the limit in the same field."""
    return any(
        x.error
        and o.max_tokens_field == more.max_tokens_field
        and all(getattr(more, name) for name in _OPTIONAL if getattr(o, name))
        for o, x in tried
    )


def attempts(stream: bool, api: str = "chat") -> list[Options]:
    """Options from the most telling to the plainest, for who only goes down a ladder."""
    full = first_options(DIALECTS[api], stream)
    if not full.max_tokens_field:
        return [full]
    plain = msgspec.structs.replace(full, running_usage=False, ignore_eos=False, min_tokens=False)
    rich = msgspec.structs.replace(full, running_usage=False)
    return [
        *([full] if full.running_usage else []),
        rich,
        msgspec.structs.replace(plain, ignore_eos=True),
        plain,
        msgspec.structs.replace(plain, max_tokens_field=_LIMITS[1]),
        *([msgspec.structs.replace(plain, include_usage=False)] if stream else []),
    ]
