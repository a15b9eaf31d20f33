"""What would mend a level that is not what it should be: how much longer it has to be, and what a client can do."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable

from pacemark.pace import Rate
from pacemark.summary import Level

__all__ = ["LEAST_REQUESTS", "keep_up", "longer", "needed"]

LEAST_REQUESTS = 10
"""With fewer requests than this nothing can be said of a level."""
SPARE = 0.1
"""Below this share of idle time a core has no room for a further worker."""
_MORE = re.compile(r"about ([\d,]+) more")


def keep_up(idle_share: float | None) -> str:
    """What a client does that cannot keep up, on cores that are so idle; None where nobody knows."""
    if idle_share is not None and idle_share < SPARE:
        return "load from a machine with free cores"
    return "use more --workers"


def needed(level: Level) -> int:
    """How many more requests its p50 and p95 need for an interval, about, and to be `LEAST_REQUESTS` at the least."""
    notes = [found for basis in level.basis.values() if basis.n and (found := _MORE.search(basis.note or ""))]
    most = max((int(found.group(1).replace(",", "")) for found in notes), default=0)
    return max(most, LEAST_REQUESTS - level.requests.in_window)


_FLAGS = {"requests": "--requests", "max_duration": "--max-duration"}


def longer(levels: Iterable[Level], ended_by: str = "duration") -> str:
    """The flag that makes each of these levels long enough: `--duration 60s`. Without a value where none is known.

    `ended_by` is what ended them. What is needed is an estimate, so a fifth is added.
    """
    if ended_by == "rows":
        traced = any(isinstance(level.load, Rate) and level.load.speed for level in levels)
        return "a longer trace" if traced else "more rows"
    flag = _FLAGS.get(ended_by, "--duration")
    spans = [
        (level.window_s / level.repeats, level.requests.in_window / level.repeats, _growth(level))
        for level in levels
        if level.window_s and level.requests.in_window
    ]
    if not spans:
        return f"a longer {flag}"
    if ended_by == "requests":
        return f"{flag} {math.ceil(max(requests * growth for _, requests, growth in spans) / 10) * 10}"
    return f"{flag} {_rounded(max(seconds * growth for seconds, _, growth in spans))}"


def _growth(level: Level) -> float:
    return 1 + 1.2 * max(0, needed(level)) / level.requests.in_window


def _rounded(seconds: float) -> str:
    """Up, to a time that people would give: 12s, 45s, 160s, 12m."""
    if seconds > 600:
        return f"{math.ceil(seconds / 60)}m"
    step = 1 if seconds <= 20 else 5 if seconds <= 100 else 10
    return f"{math.ceil(seconds / step) * step}s"
