"""What the requests of a level asked and what their answers held, as a summary tells it."""

from __future__ import annotations

from typing import Literal

import msgspec

from pacemark.quantities import Distribution


class Sizes(msgspec.Struct, frozen=True):
    """Lengths in tokens."""

    mean: float | None = None
    p95: float | None = None


class Cached(msgspec.Struct, frozen=True):
    """What of the input was in the server's prompt cache, as shares of it: what should have been, and what is told."""

    state: Literal["cold", "warm", "mixed"]
    """Of what the requests share with earlier ones: none, (nearly) all or a part was known when they were sent."""
    expected: float
    """By a cache without an end, from what was sent."""
    usage: float | None = None
    """By `cached_tokens` in the answers; None where the server does not tell, which is not 0."""
    server: float | None = None
    """By the counters that the server exports."""


class Turns(msgspec.Struct, frozen=True):
    """The requests of a window that opened a conversation, or that went on with one."""

    which: Literal["first", "later"]
    requests: int
    ttft_ms: Distribution
    latency_ms: Distribution
    input_tokens: float | None
    """Mean, as the server counted them."""


class Traffic(msgspec.Struct, frozen=True):
    """What the requests of a level's window were like: as they were made, and as the server counted them."""

    asked_input: Sizes = Sizes()
    counted_input: Sizes = Sizes()
    asked_output: Sizes = Sizes()
    counted_output: Sizes = Sizes()
    """What was streamed and what was hidden."""
    cached: Cached | msgspec.UnsetType = msgspec.UNSET
    """There where requests were made to share their beginnings."""
    turns: list[Turns] | msgspec.UnsetType = msgspec.UNSET
    """There where requests were turns of conversations."""


class Upload(msgspec.Struct, frozen=True):
    """How the requests of a window were sent, where they are large."""

    bytes: float
    """Mean size of a request."""
    time_ms: Distribution
    """From its first byte to its last, as they were handed to the kernel. A latency begins with the last."""


class Reasoning(msgspec.Struct, frozen=True):
    """The answers of a window that the model thought before, as far as that is known."""

    requests: int
    disclosed: dict[Literal["verbatim", "summary", "hidden"], int]
    """How many of them showed their reasoning, a shorter text in its place, or nothing."""
    tokens: float | None
    """Mean: as the server counted them, or those of the events that held it."""
    time_ms: Distribution
    """From the first token of reasoning to the first of the answer; of reasoning that is hidden nobody can tell."""
    first_answer_ms: Distribution
    """From the request to the first token of the answer."""


class ToolCalls(msgspec.Struct, frozen=True):
    """The answers of a window that called tools."""

    requests: int
    calls: int
    malformed: int
    """Calls whose arguments are no JSON."""
    cut_off: int
    """Such calls in answers that were cut off at their longest length."""
    first_byte_ms: Distribution
    """From the request to the first event of its first call."""
    complete_ms: Distribution
    """To the event that made this call whole."""


class JsonAnswers(msgspec.Struct, frozen=True):
    """The answers of a window that were to be JSON."""

    checked: int
    malformed: int
    """No JSON. Whether JSON is of the schema is not looked at."""
    cut_off: int
    """Of those, answers that were cut off at their longest length."""
