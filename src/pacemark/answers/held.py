"""The one answer to a budget, from a run's levels: the most load that meets it, and how every level stands to it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import msgspec

from pacemark.answers.boundary import Reading
from pacemark.answers.stored import find_from
from pacemark.answers.weighing import comparable, in_words, weighed
from pacemark.budget import Budget
from pacemark.errors import BadInput
from pacemark.figures.level import LevelResult
from pacemark.pace import Load, sought
from pacemark.summary import Find, Held, Level

__all__ = ["Answered", "answer_of", "closest", "marked"]

SURE = 0.9
"""How likely it must be for a level to count as met, or as missed."""


class Answered(NamedTuple):
    """What levels say of a budget."""

    find: Find | None = None
    """None where no level can tell."""
    held: Mapping[Load, Held] = {}
    chosen: Load | None = None
    """The measured load that stands for the answer: the largest up to it that meets the budget itself."""


def answer_of(results: Sequence[LevelResult], budget: Budget, *, find: Find | None = None) -> Answered:
    """What the levels say of `budget`: the same whether a sweep, a report, a plan or `find --from` asks.

    `find` is the answer where a search has given it.
    """
    try:
        alike = comparable(results, rate=find is not None and find.load != "concurrency")
        readings = weighed(alike, budget)
        find = find or find_from(alike, budget)
    except BadInput:  # no level can be relied on, or none has what the budget limits
        return Answered(find)
    most = find.answer.value if find.answer and find.answer.value is not None else 0.0
    met = [load for load, reading in readings.items() if reading.holds and sought(load) <= most]
    last = {result.load: result for result in alike}
    held = {load: _held(reading, last[load]) for load, reading in readings.items()}
    return Answered(find, held, max(met, key=lambda load: load.value, default=None))


def marked(level: Level, results: Sequence[LevelResult], budget: Budget) -> Level:
    """A level of a length grid with how it stands to `budget`, by its `results` alone; as it is where they tell
    nothing."""
    held = answer_of(results, budget).held.get(level.load)
    return level if held is None else msgspec.structs.replace(level, budget=held)


def _held(reading: Reading, result: LevelResult) -> Held:
    under, share = bool((reading.values < 1).all()), float(reading.values[reading.worst])
    met, missed = under and reading.within >= SURE, not under and reading.within <= 1 - SURE
    return Held(
        status="met" if met else "missed" if missed else "open",
        binds=reading.names[reading.worst],
        share=share if share < 1e6 else None,
        why=in_words(reading, result),
    )


def closest(levels: Sequence[Level]) -> Level | None:
    """The level that misses the budget by least; None where no level tells."""
    known = [x for x in levels if isinstance(x.budget, Held)]
    return min(known, key=lambda x: (_missed_by(x), x.load.value), default=None)


def _missed_by(level: Level) -> float:
    assert isinstance(level.budget, Held)
    return float("inf") if level.budget.share is None else level.budget.share
