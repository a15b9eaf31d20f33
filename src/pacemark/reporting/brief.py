"""The answer of a run in one sentence for who decides and did not measure, and what can be said against it."""

from __future__ import annotations

import contextlib

from pacemark.answers.held import closest
from pacemark.budget import Budget, parse
from pacemark.errors import BadInput
from pacemark.pace import Rate
from pacemark.reporting.answer import answer, budget_answer, recommended
from pacemark.summary import Find, Level, Slopes, Summary
from pacemark.units import duration, number

__all__ = ["brief"]


def brief(summary: Summary) -> str:
    """One sentence, without a word that needs a glossary where that can be had."""
    if isinstance(summary.slopes, Slopes):
        return _whole(answer(summary)[0].text)
    with contextlib.suppress(BadInput):  # a budget of a later version
        if find := budget_answer(summary):
            return _within(summary, find)
    load = recommended(summary)
    level = next((x for x in summary.levels if x.load == load), None)
    if level is not None:
        return f"{_many(level)} at a time are the best balance of speed and throughput: {_gives(level)}."
    usable = [x for x in summary.levels if x.verdict.status != "invalid" and x.output_tokens_per_s.value]
    if len(usable) == 1:
        return f"With {_many(usable[0]).lower()} at a time the endpoint gives {_gives(usable[0])}."
    first = answer(summary)[0]
    return _whole(f"{first.name}: {first.text}")


def _within(summary: Summary, find: Find) -> str:
    budget = parse(find.budget)
    if find.answer is None or find.answer.value is None:
        near = closest(summary.levels)
        best = "" if near is None else f"; the closest was {_many(near).lower()} at a time"
        return f"No load that was measured keeps to what was asked: that {_promised(budget)}{best}."
    rated = find.load == "rate"
    most = f"{number(find.answer.value)} requests a second" if rated else f"{find.answer.value:,.0f} requests at a time"
    point = summary.operating_points.within_budget
    level = next((x for x in summary.levels if point is not None and x.load == point.load), None)
    gives = ""
    if level is not None and level.output_tokens_per_s.value:
        gives = (
            f"; at {_count(level)} the endpoint gives {number(level.output_tokens_per_s.value)} output tokens a second"
        )
    return f"With up to {most}, {_promised(budget)}{gives}."


_PROMISES = {
    "ttft": "get their first token within {}",
    "tpot": "get the others every {} or faster",
    "itl": "wait no longer than {} between two",
    "latency": "have the whole answer within {}",
}


def _promised(budget: Budget) -> str:
    """What a budget promises: `95% of the requests get their first token within 200 ms`."""
    shares: dict[str, list[str]] = {}
    for limit in sorted(budget.timed, key=lambda x: list(_PROMISES).index(x.metric)):
        share = budget.share if budget.share is not None else limit.quantile
        who = "on average they" if share is None else f"{100 * share:.6g}% of the requests"
        shares.setdefault(who, []).append(_PROMISES[limit.metric].format(_limit(limit.most)))
    said = [f"{who} {' and '.join(parts)}" for who, parts in shares.items()]
    return ", and ".join(said) or f"{str(budget).replace('errors', 'the failed')}"


def _limit(ms: float) -> str:
    return f"{ms:g} ms" if ms < 1000 else f"{ms / 1000:g} s"


def _count(level: Level) -> str:
    return f"{level.load.value:,g}"


def _many(level: Level) -> str:
    if isinstance(level.load, Rate):
        return f"{number(level.load.value)} requests a second"
    return f"{_count(level)} request{'' if level.load.value == 1 else 's'}"


def _gives(level: Level) -> str:
    parts = []
    if level.output_tokens_per_s.value:
        parts.append(f"{number(level.output_tokens_per_s.value)} output tokens a second")
    elif level.requests_per_s.value:
        parts.append(f"{number(level.requests_per_s.value)} answers a second")
    if level.latency_ms.p50.value is not None:
        parts.append(f"half of the answers done within {duration(level.latency_ms.p50.value)}")
    return ", ".join(parts) or "nothing that could be counted"


def _whole(text: str) -> str:
    return f"{text[:1].upper()}{text[1:].rstrip('.')}."
