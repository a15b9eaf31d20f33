"""What levels that were measured before say of a budget: a new answer without a new request."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from pacemark.answers.boundary import Belief, Reading, believe, most_met, offered
from pacemark.answers.cut import bound_by
from pacemark.answers.weighing import conditions, in_words, weighed_with_scatter
from pacemark.budget import Budget
from pacemark.figures.level import LevelResult
from pacemark.pace import Concurrency, Load, Rate, like, sought
from pacemark.summary import Figure, Find, Probe, Spent
from pacemark.units import number

__all__ = ["find_from"]


def find_from(results: Sequence[LevelResult], budget: Budget, *, precision: float = 0.05) -> Find:
    """The largest load that meets `budget`, as far as `results` tell, and the load that would tighten it most.

    There is one where a level meets it by its figures and more likely than not; it is no less than the least such
    level. The levels must be `comparable`. The interval is that of `answers.boundary` and grows with the gaps between
    the levels; above the largest of them the answer is open. `precision` is how narrow it must be to count as resolved.
    """
    weighed, scatter = weighed_with_scatter(results, budget)
    readings = sorted(weighed.items(), key=lambda pair: sought(pair[0]))
    if not readings:
        conditions(results[:1], budget)  # says what is missing
    loads, levels = [load for load, _ in readings], [reading for _, reading in readings]
    belief = _spread(believe(levels), np.array([float(sought(load)) for load in loads]))
    whole = isinstance(loads[0], Concurrency)
    low, middle, high = (offered(belief.at(p), whole) for p in (0.025, 0.5, 0.975))
    top = float(sought(loads[-1]))
    holding = [reading.load for reading in levels if reading.holds]
    met = bool(holding)
    if met:
        middle, high = max(middle, min(holding)), max(high, min(holding))
    most = most_met(levels, min(middle, top), whole=whole)
    answer = Figure(most, min(low, most), high if math.isfinite(high) else None) if met else None
    tolerance = max(precision * middle, 1.0 if whole else 0.0)
    resolved = met and middle <= top and max(high - middle, middle - low) <= tolerance
    why = _why(loads, levels, met=met, open_ended=middle > top or not math.isfinite(high))
    following, gain = (None, "") if resolved else _next(belief, loads, met=met, whole=whole)
    rated: Literal["rate", "speed"] = "speed" if isinstance(loads[0], Rate) and loads[0].speed else "rate"
    return Find(
        budget=str(budget),
        load="concurrency" if whole else rated,
        resolved=resolved,
        answer=answer,
        binds=bound_by(belief.binds[0], results),
        probes=[Probe(load, reading.verdict, in_words(reading)) for load, reading in readings],
        spent=Spent(0, 0.0),
        why=f"{why}; {scatter.in_words(interval=met)}" if scatter else why,
        scatter=scatter.sd,
        next=following,
        next_why=gain,
    )


_LOOSE = 5
"""One draw in so many knows nothing but the two levels around it: a curve that bends more than once is not ruled out.
With it 72 of 74 intervals from levels that double held the truth, without it 131 of 148 (docs/search.md)."""


def _spread(belief: Belief, loads: NDArray[np.float64]) -> Belief:
    """`belief` with a part of its draws anywhere between the measured `loads` around them."""
    above = np.searchsorted(loads, belief.draws, side="right")
    loose = (above > 0) & (above < len(loads)) & (np.arange(len(belief.draws)) % _LOOSE == 0)
    draws = belief.draws.copy()
    draws[loose] = np.random.default_rng(5).uniform(loads[above[loose] - 1], loads[above[loose]])
    return Belief(draws, belief.binds)


def _why(loads: Sequence[Load], levels: Sequence[Reading], *, met: bool, open_ended: bool) -> str:
    if not met:
        least = "one request at a time" if loads[0] == Concurrency(1) else str(loads[0])
        return f"not even {least} meets it: {in_words(levels[0])}"
    if open_ended:
        return f"the levels end at {loads[-1]}, and the boundary may lie higher"
    if len(loads) == 1:
        return f"it rests on one level, {loads[0]}"
    return f"it rests on {len(loads)} levels from {loads[0]} to {loads[-1]}"


def _next(belief: Belief, loads: Sequence[Load], *, met: bool, whole: bool) -> tuple[Load | None, str]:
    """The load to measure next, and why: where the interval that is left can be expected to be narrowest.

    A measurement at x tells on which side of x the boundary lies; the intervals of the two sides are weighed by their
    probabilities.
    """
    if not met:
        x = offered(belief.middle, whole)
        if whole and x < 1:
            return (Concurrency(1), "nothing lower was measured") if loads[0].value > 1 else (None, "")
        return like(loads[0], x), "the boundary lies below the lowest stored level"
    low, high = belief.interval()
    top = float(sought(loads[-1]))
    if high > 4 * top:  # whatever is said of loads so far above the levels is a guess
        aim = belief.at(0.8)
        x = offered(min(aim, 2 * top) if aim > top * 1.05 else 2 * top, whole)
        return like(loads[-1], x), "it would show whether the boundary lies above the stored levels"
    candidates = np.unique(np.floor(np.linspace(low, high + 1, 41))) if whole else np.linspace(low, high, 41)[1:-1]
    candidates = candidates[candidates >= 1] if whole else candidates
    draws = np.minimum(belief.draws, 4 * top)
    widths = [_expected_width(draws, x) for x in candidates]
    best = int(np.argmin(widths))
    now, then = (number(math.ceil(width) if whole else width) for width in (high - low, widths[best]))
    gain = f"it would narrow the interval from {now} to some {then} wide"
    return like(loads[0], offered(candidates[best], whole)), gain


def _expected_width(draws: NDArray[np.float64], x: float) -> float:
    sides = (draws[draws < x], draws[draws >= x])
    widths = [np.subtract(*np.quantile(side, [0.975, 0.025])) if len(side) else 0.0 for side in sides]
    return float(sum(len(side) * width for side, width in zip(sides, widths, strict=True)) / len(draws))
