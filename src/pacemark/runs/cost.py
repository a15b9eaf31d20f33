"""What a planned run will about cost, said before its first level, and what to do where that is much."""

from __future__ import annotations

from pacemark.answers.allowance import Allowance
from pacemark.endpoint.proxy import is_loopback
from pacemark.errors import BadInput
from pacemark.pace import Concurrency, Load
from pacemark.scenario import Scenario, Words, steps
from pacemark.summary import Asked, Spent
from pacemark.trace import ABSENT, Exchange
from pacemark.units import number

__all__ = ["planned_spending", "say_cost"]

ASK_ABOVE = 10.0
"""A run that is likely to cost more is not begun unasked."""


def say_cost(scenario: Scenario, allowance: Allowance | None, first: Exchange, host: str, words: Words) -> str:
    """What the run will about cost, in words; empty where no price is known. `first` is a request as they will be.

    Raises BadInput where it is more than `ask_above` on a target that is not this machine, unless the user has said
    `yes` or has given a `max_cost`.
    """
    if allowance is None or (allowance.price_per_hour is None and allowance.price_per_million_tokens is None):
        return ""
    spent = planned_spending(scenario, allowance, first)
    cost = None if spent is None else allowance.cost_of(spent)
    asked = (
        words.get("yes", False) or allowance.cost is not None or scenario.target.startswith("sim:") or is_loopback(host)
    )
    above = words.get("ask_above", ASK_ABOVE)
    if spent is None or cost is None:
        if not asked:
            raise BadInput("what a search costs by the token is not known beforehand: give --max-cost, or --yes")
        return "what this search costs is not known beforehand"
    line = f"about {spent.requests:,} requests, {spent.tokens:,} tokens and {spent.seconds:.0f} s, which cost"
    if not spent.requests:
        line = f"a search of at most {spent.seconds:.0f} s, which costs"
    if cost > above and not asked:
        raise BadInput(f"{line} {number(cost)}; above {above:g} say so with --yes, or give --max-cost or --ask-above")
    return f"{line} {number(cost)}"


def planned_spending(scenario: Scenario, allowance: Allowance, first: Exchange) -> Spent | None:
    """Requests, seconds and tokens of all levels, by how long the `first` request took: under load each takes longer,
    so that there are rather fewer. Of a search its longest time; None where its tokens matter, which nobody knows."""
    levels = steps(scenario.goal)
    if not levels:
        known = allowance.seconds is not None and allowance.price_per_million_tokens is None
        return Spent(0, allowance.seconds or 0.0) if known else None
    each = [_of_level(load, asked, scenario, first) for load, asked in levels]
    return Spent(sum(x.requests for x in each), sum(x.seconds for x in each), sum(x.tokens for x in each))


def _of_level(load: Load, asked: Asked | None, scenario: Scenario, first: Exchange) -> Spent:
    workload, settings = scenario.workload, scenario.settings
    output = asked.output_tokens if asked else workload.output.mean
    tokens = (asked.input_tokens if asked else workload.input.mean) + workload.prefix_tokens + output
    answer_s = _seconds(first, output)
    window_s = settings.duration_s if settings.precision is None else settings.max_duration_s
    a_second = load.value / answer_s if isinstance(load, Concurrency) else load.value
    if settings.requests is not None:
        counted_s = settings.requests / a_second
        window_s = min(window_s, counted_s) if settings.timed else counted_s
    seconds = window_s + 2 * answer_s  # a ramp and a tail
    return Spent(round(seconds * a_second), seconds, round(seconds * a_second * tokens))


def _seconds(first: Exchange, output: float) -> float:
    """How long an answer of so many tokens takes by itself."""
    whole_s = max(1e-3, (first.ended_ns - first.sent_ns) / 1e9)
    if first.first_event_ns == ABSENT or first.output_tokens < 2:
        return whole_s
    start_s = (first.first_event_ns - first.sent_ns) / 1e9
    return max(1e-3, start_s + (whole_s - start_s) * (output - 1) / (first.output_tokens - 1))
