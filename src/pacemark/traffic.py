"""What is asked, as it was ordered: lengths, what prompts share, and the seed that every prompt hangs on."""

from __future__ import annotations

import secrets
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, TypedDict, get_args

import msgspec

from pacemark.errors import BadInput
from pacemark.lengths import Lengths, lengths
from pacemark.media import audio_s, images
from pacemark.summary import Asked
from pacemark.tools import refuse_choice, schema_in, tools_in
from pacemark.values import at_least, one_of, positive, seconds, share, text_of

__all__ = ["Language", "Recording", "TrafficWords", "Workload", "given", "refuse_several", "seed_of", "workload_of"]

Language = Literal["latin", "cyrillic", "arabic", "devanagari", "cjk"]


class TrafficWords(TypedDict, total=False):
    """What may be said of the requests. The flags of the CLI have these names."""

    input_tokens: int | str | Sequence[int]
    output_tokens: int | str | Sequence[int]
    """A length or a distribution, such as `lognormal(1000, cv=0.8)` (`pacemark.lengths`). Several lengths of either
    make a sweep a length grid: every pair of them, at one concurrency."""
    documents: int
    """Documents that a request has judged, with the APIs rerank and score."""
    language: str
    """The script of made up prompts: latin, cyrillic, arabic, devanagari or cjk."""
    prefix_tokens: int
    """Tokens that prompts of a group share, before those of `input_tokens`."""
    prefix_groups: int
    prefix_zipf: float
    """How unevenly the groups are asked for: group k as often as 1 / k to this power; 0 is evenly."""
    prime: bool
    """Send each prefix once before the first level, so that none is measured cold."""
    system_prompt: str | Path
    """A file whose text opens every request."""
    turns: int | str
    """Turns of a conversation: 1 is none; a number, or a distribution as of lengths."""
    think_time: float | str
    """How long a user thinks between an answer and the next turn, such as "2s"."""
    history: str
    """Whose answers a conversation goes on with: served or recorded."""
    concurrency_of: str
    """What concurrency counts in conversations: requests or sessions."""
    data: Any
    """A file of requests, or a data frame, whose rows are sent instead of prompts that are made up."""
    trace: Any
    """A trace, as a file or data frame, whose rows are sent once each, at their times."""
    speed: float | Sequence[float]
    """How many times as fast as `trace` was recorded; several are levels of a sweep."""
    jitter: bool
    """Spread the times of `trace` over the step to which they are rounded."""
    once: bool
    """End a level when the rows of `data` have run out; else they come again."""
    sample: float | str
    """This share of the file's sessions: 0.1 or "10%"."""
    key: str
    """Which key holds the prompt."""
    unit: str
    """The unit of times that do not tell it: ns, us, ms, s."""
    block_tokens: int
    """Tokens of a recorded block, where it is not what the format has."""
    spans: str
    """Which requests of an agent's traces are meant: root or model."""
    images: str
    """Images of every request: `2x512x512`, or `2x512x512:jpeg`; drawn, and no two alike."""
    audio: str | float
    """Audio of every request: "10s"; synthesised, and no two alike."""
    tools: str | Path
    """A file of tools that answers may call, a JSON list as OpenAI's chat takes it."""
    tool_choice: str
    """Whether they are to: auto, none, required, or the name of one."""
    response_format: str | Path
    """A file with the JSON schema of the answers."""
    seed: int | None
    extra_body: Mapping[str, Any]
    """Further fields of every request. Those that pacemark sets itself are refused."""


class Recording(msgspec.Struct, frozen=True):
    """A file of the user's own traffic: how to read it, and how it is sent."""

    path: str = ""
    """Empty for a data frame."""
    replay: bool = False
    """It is a trace: every row is sent once, at its time."""
    jitter: bool = False
    once: bool = False
    sample: float = 1.0
    """The share of its sessions that is taken."""
    key: str = ""
    unit: str = ""
    block_tokens: int = 0
    spans: str = ""


class Workload(msgspec.Struct, frozen=True):
    """Lengths and the seed that every prompt hangs on."""

    input_tokens: int | str = 256
    output_tokens: int | str = 128
    """A length, or a distribution of lengths as `pacemark.lengths` reads it."""
    seed: int = 0
    draw_seed: int | None = None
    """Of lengths and arrivals, where they are to be those of another run with other prompts; None: `seed`."""
    extra: dict[str, Any] = {}
    """Further fields of every request body."""
    language: Language = "latin"
    """The script that made up prompts are written in."""
    documents: int | msgspec.UnsetType = msgspec.UNSET
    """Of a request to rerank or score, where they were given; each counts as one token of output."""
    prefix_tokens: int = 0
    """Tokens that open a prompt before those of `input_tokens`, the same in all of a group."""
    prefix_groups: int = 1
    prefix_zipf: float = 0.0
    """Group k is asked for as often as 1 / k to this power says; 0: all alike."""
    prime: bool = False
    """Send each prefix once before the first level."""
    system_prompt: str = ""
    """File of a system prompt, which opens every request."""
    turns: int | str = 1
    """Turns of a conversation: a number, or a distribution of them."""
    think_time_s: float = 0.0
    """How long a user thinks between an answer and the next turn."""
    history: Literal["served", "recorded"] = "served"
    """Whose answers a conversation goes on with: the server's own, or those made up beforehand."""
    concurrency_of: Literal["requests", "sessions"] = "requests"
    """What a stream of the closed loop is: a request in flight, or a session, which is silent while its user thinks."""
    images: str = ""
    """Those of each request, such as 2x512x512:png."""
    audio: str = ""
    """Of each request, such as 10s."""
    tools: str = ""
    """File of tools that answers may call."""
    tool_choice: str = ""
    response_format: str = ""
    """File of the JSON schema of the answers."""
    recording: Recording | None = None
    """The file that requests are taken from; None where they are made up."""

    @property
    def drawn_by(self) -> int:
        """The seed of lengths and arrivals."""
        return self.seed if self.draw_seed is None else self.draw_seed

    @property
    def input(self) -> Lengths:
        """The lengths of the prompts."""
        return lengths("--input-tokens", self.input_tokens)

    @property
    def output(self) -> Lengths:
        """The lengths of the answers."""
        return lengths("--output-tokens", self.output_tokens)


def seed_of(given: int | None) -> int:
    """The seed that was given, which a record must be able to hold, or one that is drawn. Raises BadInput."""
    return secrets.randbits(32) if given is None else at_least("--seed", given, 0, 2**63 - 1)


def workload_of(words: TrafficWords, asked: Asked | None = None) -> Workload:
    """The workload that `words` order, with the lengths `asked` where they are a grid's. Raises BadInput."""
    return Workload(
        input_tokens=asked.input_tokens if asked else _length(words, "input_tokens"),
        output_tokens=asked.output_tokens if asked else _length(words, "output_tokens"),
        seed=seed_of(words.get("seed")),
        documents=at_least("--documents", words["documents"], 1) if "documents" in words else msgspec.UNSET,
        extra=_extra(words.get("extra_body", {})),
        language=one_of("--language", words.get("language", "latin"), get_args(Language)),
        **_prefixes(words),
        **_sessions(words),
        **_media(words),
        **_answers(words),
        recording=_recording(words),
    )


def given(source: Any) -> bool:
    """Whether a file or a data frame was given; the latter has no one truth value."""
    return source is not None and not (isinstance(source, str) and not source)


def _recording(words: TrafficWords) -> Recording | None:
    """The file that requests are taken from. Raises BadInput for flags that make no sense with it, or without."""
    replay, data = given(words.get("trace")), given(words.get("data"))
    if replay and data:
        raise BadInput("--data and --trace are two ways to send a file: give one of them")
    source = words.get("trace" if replay else "data")
    unfit = ("once",) if replay else ("jitter", "speed") if data else ("once", "sample", *_HOW, "jitter", "speed")
    for name in unfit:
        if words.get(name):
            needed = "--trace" if name in ("jitter", "speed") else "--data" if name == "once" else "--data or --trace"
            raise BadInput(f"--{name.replace('_', '-')} is of a file: give {needed} FILE")
    if not (replay or data):
        return None
    made_up = Workload()
    for name in ("input_tokens", "prefix_tokens", "turns", "images", "audio", *(() if replay else ("language",))):
        value = words.get(name, getattr(made_up, name))
        if str(value) not in (str(getattr(made_up, name)), f"[{getattr(made_up, name)}]"):
            raise BadInput(f"--{name.replace('_', '-')} is of prompts that are made up: the file has its own")
    return Recording(
        path=str(source) if isinstance(source, (str, Path)) else "",
        replay=replay,
        jitter=words.get("jitter", False),
        once=words.get("once", False),
        sample=share("--sample", words.get("sample")) or 1.0,
        key=words.get("key", ""),
        unit=words.get("unit", ""),
        block_tokens=at_least("--block-tokens", words.get("block_tokens", 0), 0),
        spans=words.get("spans", ""),
    )


_HOW = ("key", "unit", "block_tokens", "spans")
"""How a file is to be read."""


def _prefixes(words: TrafficWords) -> dict[str, Any]:
    """What the prompts share. Raises BadInput."""
    tokens = at_least("--prefix-tokens", words.get("prefix_tokens", 0), 0)
    groups = at_least("--prefix-groups", words.get("prefix_groups", 1), 1)
    zipf = words.get("prefix_zipf", 0.0)
    for flag, given in (("--prefix-groups", groups > 1), ("--prefix-zipf", zipf), ("--prime", words.get("prime"))):
        if given and not tokens:
            raise BadInput(f"{flag} needs a prefix: give its length with --prefix-tokens")
    path = words.get("system_prompt") or ""
    if path and not text_of("--system-prompt", Path(path)).strip():
        raise BadInput(f"--system-prompt {path}: there is nothing in it")
    return {
        "prefix_tokens": tokens,
        "prefix_groups": groups,
        "prefix_zipf": positive("--prefix-zipf", zipf) if zipf else 0.0,
        "prime": words.get("prime", False),
        "system_prompt": str(path),
    }


def _sessions(words: TrafficWords) -> dict[str, Any]:
    """What the conversations are. Raises BadInput."""
    turns = words.get("turns", 1)
    each = lengths("--turns", turns)
    from_file = given(words.get("data")) or given(words.get("trace"))
    history = one_of(
        "--history", words.get("history") or ("recorded" if from_file else "served"), ("served", "recorded")
    )
    if words.get("tools") and history == "served" and (each.fixed != 1 or from_file):
        raise BadInput("--tools: nobody carries out what an answer calls, to go on with: give --history recorded")
    counted = one_of("--concurrency-of", words.get("concurrency_of", "requests"), ("requests", "sessions"))
    think_s = seconds("--think-time", words.get("think_time", 0.0))
    if each.fixed == 1 and not from_file and (think_s or words.get("history") or counted != "requests"):
        raise BadInput("--think-time, --history and --concurrency-of are of conversations: give their --turns")
    return {
        "turns": str(turns) if each.fixed is None else each.fixed,
        "think_time_s": think_s,
        "history": history,
        "concurrency_of": counted,
    }


def _media(words: TrafficWords) -> dict[str, Any]:
    """What goes with a prompt beside its text. Raises BadInput."""
    pictures, sound = words.get("images") or "", words.get("audio") or ""
    if (images(pictures) or audio_s(sound)) and lengths("--turns", words.get("turns", 1)).fixed != 1:
        raise BadInput("--images and --audio go with single requests: leave --turns out")
    return {"images": pictures, "audio": str(sound)}


def _answers(words: TrafficWords) -> dict[str, Any]:
    """What answers may call, and what form they are to have. Raises BadInput."""
    tools, choice, form = words.get("tools") or "", words.get("tool_choice") or "", words.get("response_format") or ""
    if tools:
        refuse_choice(choice, tools_in(Path(tools)))
    elif choice:
        raise BadInput("--tool-choice is of tools: give them with --tools FILE")
    if form:
        schema_in(Path(form))
    return {"tools": str(tools), "tool_choice": choice, "response_format": str(form)}


def _length(words: TrafficWords, name: Literal["input_tokens", "output_tokens"]) -> int | str:
    """The one length that is given, or the distribution as it is written. Raises BadInput for several, and for none."""
    value: Any = words.get(name, getattr(Workload(), name))
    if isinstance(value, Sequence) and not isinstance(value, str) and len(value) == 1:
        value = value[0]
    found = lengths(f"--{name.replace('_', '-')}", value)
    return str(value).strip() if found.fixed is None else found.fixed


_OWN = {
    "model": "use --model",
    **dict.fromkeys(
        ("messages", "prompt", "input", "inputs", "contents"),
        "the prompts are pacemark's; choose their length: --input-tokens",
    ),
    "stream": "use --stream or --no-stream",
    **dict.fromkeys(
        ("max_tokens", "max_completion_tokens", "max_output_tokens", "max_new_tokens", "n_predict", "min_tokens"),
        "use --output-tokens",
    ),
    "ignore_eos": "use --ignore-eos or --no-ignore-eos",
}
"""Fields of a request that pacemark sets, by whatever name servers know them, and what to use instead."""


def refuse_several(fields: Mapping[str, Any], where: str = "") -> None:
    """Raises BadInput where the `fields` of a request ask for more than one answer."""
    if fields.get("n", 1) not in (1, None):
        text = (
            f"{where}n = {fields['n']!r} asks for several answers to a request, which have no one time to first token"
        )
        raise BadInput(f"{text}; leave n out, and raise the load instead")


def _extra(fields: Mapping[str, Any]) -> dict[str, Any]:
    """Further fields of every request, as JSON holds them. Raises BadInput for those that would change what a run
    says of itself: its model, prompts, lengths, streaming, or how many answers a request has."""
    if not isinstance(fields, Mapping):
        raise BadInput("--extra-body is not a JSON object: give fields such as '{\"temperature\": 0}'")
    for name, instead in _OWN.items():
        if name in fields:
            raise BadInput(f"--extra-body: {name} is set by pacemark; {instead}")
    refuse_several(fields, "--extra-body: ")
    try:
        plain: dict[str, Any] = msgspec.json.decode(msgspec.json.encode(dict(fields)))
    except (TypeError, ValueError) as error:
        raise BadInput(f"--extra-body cannot be written as JSON: {error}") from None
    return plain
