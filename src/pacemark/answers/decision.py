"""When a level of run B has been measured for long enough to decide the conditions of a gate against run A."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from pacemark.answers.comparison import ComparedLevel, GateStatus, compared_level
from pacemark.answers.gate import Condition, more_requests, standing
from pacemark.figures import metrics
from pacemark.figures.health import Health
from pacemark.figures.level import Enough, sum_up
from pacemark.summary import Level
from pacemark.trace import Trace, Window

__all__ = ["deciding", "stands"]

STRETCH = 1.3
"""Of the intervals that may end a level early: who looks again and again must be surer at each look. benchmarks/gate.py
has how often that is wrong."""
FIRST = 60
"""Requests before the first look."""
GROWTH = 1.25
"""The next look is at so many times the requests, at least, and at twice as many at most."""
BEYOND_REACH = 3
"""A condition that needs so many times the requests that the rest of the level's time will bring is given up."""


def stands(a: Level, b: Level, conditions: Sequence[Condition]) -> list[GateStatus]:
    """How each condition stands at one load."""
    level = compared_level(a, b)
    return [standing(level.metrics[condition.metric].ratio, condition) for condition in conditions]


def deciding(a: Level, conditions: Sequence[Condition], longest_s: float) -> Enough:
    """A level has enough once it fails a condition, or passes all that it can pass within `longest_s`.

    Looks when as many requests are in as the last look said would decide it. A look leaves out the requests that
    began so late that longer ones are still under way.
    """
    due = FIRST

    def enough(trace: Trace, window: Window) -> bool:
        nonlocal due
        seen = _whole(trace, window)
        n = int(metrics.started_in(trace, seen.start_ns, seen.end_ns).sum())
        if n < due:
            return False
        b = sum_up(a.load, trace, seen, Health()).level
        level = compared_level(a, b)
        if b.verdict.status == "invalid":
            due = math.ceil(GROWTH * n)
            return False
        passed_s = (window.end_ns - window.start_ns) / 1e9
        reach = BEYOND_REACH * n * max(0.0, longest_s - passed_s) / passed_s
        needs = [_need(level, condition) for condition in conditions]
        if any(need is None for need in needs):
            return True
        useful = [need for need in needs if need and need <= reach] if n >= _most(a) else [x for x in needs if x]
        due = math.ceil(n + min(max(min(useful, default=0.0), (GROWTH - 1) * n), n))
        return not useful

    return enough


def _whole(trace: Trace, window: Window) -> Window:
    """The window without its end, where only the short requests have ended yet."""
    latency_ns = (trace.ended_ns - trace.sent_ns)[trace.sent_ns >= window.start_ns]
    longest_ns = int(np.max(latency_ns, initial=0))
    return Window(window.start_ns, max(window.start_ns, window.end_ns - longest_ns))


def _need(level: ComparedLevel, condition: Condition) -> float | None:
    """About how many more requests decide it: 0 where it has passed; None where it has failed."""
    found = level.metrics[condition.metric]
    status = standing(found.ratio, condition, STRETCH)
    if status != "undecided":
        return None if status == "failed" else 0.0
    n, enough = level.requests.get(condition.metric, 0), level.enough.get(condition.metric)
    return max(1.0, STRETCH**2 * more_requests(found, condition, n, enough, alone=True))


def _most(a: Level) -> int:
    """The requests of A: with fewer of B it is too soon to give anything up."""
    return a.requests.in_window
