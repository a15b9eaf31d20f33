"""Answers that an endpoint cuts short under load: sooner than others, for there is less of them, and not what was asked
for.

One level alone cannot tell them from answers that end where the model does. Beside lower loads whose answers came whole
it can.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import msgspec
import numpy as np
from numpy.typing import NDArray

from pacemark.figures import metrics
from pacemark.figures.level import LevelResult
from pacemark.figures.tokens import FEW_SHORT, stopped_early
from pacemark.pace import sought

__all__ = ["CUT_SHORT", "bound_by", "with_cut_answers"]

CUT_SHORT = "cut_short"
"""The kind of failure that such an answer counts as under a budget."""
BY_CHANCE = 1e-4
"""How likely chance alone may make so many short answers of those that all loads had."""


def with_cut_answers(results: Sequence[LevelResult]) -> list[LevelResult]:
    """`results` where the answers that a load cut short count as failed, so that they miss every limit: of each load
    that has more of them than the lower ones, where next to all came whole, and more than chance gives."""
    by_load: dict[float, list[LevelResult]] = {}
    for result in results:
        by_load.setdefault(float(sought(result.load)), []).append(result)
    whole, below = 0, 0
    marked: set[float] = set()
    for load, same in sorted(by_load.items()):
        early = np.concatenate([stopped_early(r.trace)[_answered(r)] for r in same])
        short, n = int(early.sum()), len(early)
        if below and whole >= (1 - FEW_SHORT) * below and short > FEW_SHORT * n:
            from scipy import stats  # half a second to load, and most runs do without

            so_many = stats.hypergeom.sf(short - 1, below + n, below - whole + short, n)
            if so_many < BY_CHANCE:
                marked.add(load)
                continue
        whole, below = whole + n - short, below + n
    return [_marked(r) if sought(r.load) in marked else r for r in results]


def bound_by(condition: str, results: Sequence[LevelResult]) -> str:
    """What sets a boundary, by the name of its `condition`: errors that are cut answers are called what they are."""
    cut = any(CUT_SHORT in result.level.errors for result in results)
    return "answers cut short" if condition == "errors" and cut else condition


def _answered(result: LevelResult) -> NDArray[np.bool_]:
    trace, window = result.trace, result.window
    answered = metrics.succeeded(trace) | (trace.error == CUT_SHORT)
    return np.asarray(metrics.started_in(trace, window.start_ns, window.end_ns) & answered, dtype=np.bool_)


def _marked(result: LevelResult) -> LevelResult:
    cut = metrics.succeeded(result.trace) & stopped_early(result.trace)
    errors = dict(result.level.errors)
    errors[CUT_SHORT] = errors.get(CUT_SHORT, 0) + int(cut.sum())
    trace = replace(result.trace, error=np.where(cut, CUT_SHORT, result.trace.error))
    return replace(result, trace=trace, level=msgspec.structs.replace(result.level, errors=errors))
