"""What a server counted, in the shapes of OpenAI and of those who vary it.

DeepSeek and Moonshot name cached tokens in their own way, gateways to other APIs keep the names of those. Counts may
come in pieces, with noughts before or after the real ones.
"""

from __future__ import annotations

from typing import Any

import msgspec

from pacemark.dialects.said import MOST_COUNTED, NOTHING, Said, tally


class PromptDetails(msgspec.Struct):
    """Of what the prompt's tokens were."""

    cached_tokens: int | None = None


class CompletionDetails(msgspec.Struct):
    """Of what the answer's tokens were."""

    reasoning_tokens: int | None = None


class CountedUsage(msgspec.Struct):
    """Every count that pacemark knows a name for; others are passed over."""

    prompt_tokens: int | None = None
    completion_tokens: int | None = None
    total_tokens: int | None = None
    prompt_tokens_details: PromptDetails | None = None
    completion_tokens_details: CompletionDetails | None = None
    input_tokens: int | None = None
    output_tokens: int | None = None
    reasoning_tokens: int | None = None
    cached_tokens: int | None = None
    """Moonshot's name."""
    prompt_cache_hit_tokens: int | None = None
    """DeepSeek's."""


_COUNTS = tuple(name for name in CountedUsage.__struct_fields__ if not name.endswith("_details"))


def usage_in(usage: Any) -> CountedUsage | None:
    """The counts in `usage`, of any type; None where it is no object."""
    if not isinstance(usage, dict):
        return None

    def within(name: str, field: str) -> int | None:
        inner = usage.get(name)
        return tally(inner.get(field)) if isinstance(inner, dict) else None

    return CountedUsage(
        prompt_tokens_details=PromptDetails(within("prompt_tokens_details", "cached_tokens")),
        completion_tokens_details=CompletionDetails(within("completion_tokens_details", "reasoning_tokens")),
        **{name: tally(usage.get(name)) for name in _COUNTS},
    )


def take_usage(said: Said, usage: CountedUsage, kind: int) -> None:
    """Take what was counted beside an event of this `kind`. A nought takes no count back."""
    asked = _first(usage.prompt_tokens, usage.input_tokens)
    if asked is not None and asked >= 0 and (asked or not said.prompt_tokens):
        said.prompt_tokens = asked
    told = _first(usage.completion_tokens, usage.output_tokens)
    if told is None or told < 0 or (not told and said.completion_tokens):
        return
    said.completion_tokens, said.total_tokens = told, _first(usage.total_tokens)
    details, thought = usage.prompt_tokens_details, usage.completion_tokens_details
    cached = _first(details.cached_tokens if details else None, usage.cached_tokens, usage.prompt_cache_hit_tokens)
    if cached is not None:
        said.cached_tokens = cached
    reasoning = _first(thought.reasoning_tokens if thought else None, usage.reasoning_tokens)
    if reasoning is not None:
        said.reasoning_tokens = reasoning
    _add_cached(said, cached or 0)
    if kind > NOTHING:
        said.running.append((len(said.kinds) - 1, told))


def _add_cached(said: Said, cached: int) -> None:
    """Gateways to APIs that count what was cached apart may leave it out of the prompt's tokens: seen where it is more
    than those, or makes the total come out."""
    if (prompt := said.prompt_tokens) is None:
        return
    lacking = None if said.total_tokens is None else said.total_tokens - prompt - (said.completion_tokens or 0)
    if cached > prompt or (cached and lacking == cached and not said.reasoning_tokens):
        said.prompt_tokens = prompt + cached


def _first(*counts: int | None) -> int | None:
    """The first that is a count: one below nought, or that no database can hold, is none."""
    return next((number for number in counts if number is not None and 0 <= number < MOST_COUNTED), None)
