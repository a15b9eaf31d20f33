"""What levels that were measured before say of a budget: a new answer without a new request."""

from __future__ import annotations

import contextlib
import math
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from pacemark.answers.boundary import Belief, Reading, believe, read
from pacemark.answers.search import in_words
from pacemark.budget import Budget
from pacemark.errors import BadInput
from pacemark.figures import metrics
from pacemark.figures.conditions import Condition, demands
from pacemark.figures.level import LevelResult
from pacemark.pace import Concurrency, Load, Rate
from pacemark.summary import Figure, Find, Level, Probe, Spent
from pacemark.units import number

__all__ = ["comparable", "conditions", "find_from", "meets", "weigh", "weighed"]

_SPOILT = {"no_window", "worker_died", "cached_prompts", "client_starved", "late_sends"}
"""What makes an invalid level useless; one that is invalid for its errors or its backlog tells of the endpoint."""


def comparable(results: Sequence[LevelResult], *, rate: bool = False) -> list[LevelResult]:
    """Those levels that one answer can rest on: one kind of load, one arrival process, nothing wrong with the client.

    Concurrency where there is any, unless `rate` is wanted. Raises BadInput where none is left.
    """
    sound = [r for r in results if _sound(r)]
    kind = Rate if rate or not any(isinstance(r.load, Concurrency) for r in sound) else Concurrency
    alike = [r for r in sound if isinstance(r.load, kind)]
    arrivals = Counter((r.load.arrivals, r.load.burstiness) for r in alike if isinstance(r.load, Rate))
    if arrivals:
        usual = arrivals.most_common(1)[0][0]
        alike = [r for r in alike if isinstance(r.load, Rate) and (r.load.arrivals, r.load.burstiness) == usual]
    if not alike:
        wanted = "an open-loop rate" if rate else "any load"
        raise BadInput(f"the run holds no level at {wanted} that can be relied on")
    return alike


def _sound(result: LevelResult) -> bool:
    reasons = {reason.code for reason in result.level.verdict.reasons}
    asked = len(result.trace) > 0 and result.level.requests.in_window > 0
    return asked and (result.level.verdict.status != "invalid" or not reasons & _SPOILT)


def weigh(results: Sequence[LevelResult], budget: Budget) -> dict[Load, Reading]:
    """What each load's levels, pooled, say of each condition of the budget.

    Raises BadInput where no request has what the budget limits.
    """
    return {load: _reading(load, same, budget) for load, same in _by_load(results).items()}


def _by_load(results: Sequence[LevelResult]) -> dict[Load, list[LevelResult]]:
    groups: dict[Load, list[LevelResult]] = {}
    for result in results:
        groups.setdefault(result.load, []).append(result)
    return groups


def conditions(results: Sequence[LevelResult], budget: Budget) -> list[Condition]:
    """What `budget` demands of the requests of `results`, levels of one load, together.

    Raises BadInput where no request has what it limits.
    """
    parts = [demands(budget, r.trace, metrics.started_in(r.trace, r.window.start_ns, r.window.end_ns)) for r in results]
    pooled = [
        Condition(same[0].name, np.concatenate([c.scores for c in same]), same[0].quantile, same[0].most)
        for same in zip(*parts, strict=True)
    ]
    for condition in pooled:
        if not len(condition.scores):
            raise BadInput(f"no request at {results[0].load} has what the budget limits: {condition.name}")
    return pooled


def _reading(load: Load, results: Sequence[LevelResult], budget: Budget) -> Reading:
    return read(float(load.value), conditions(results, budget), round(1000 * load.value))


def meets(results: Sequence[LevelResult], budget: Budget) -> Callable[[Level], bool]:
    """A judge of levels: whether their requests meet `budget`. No load beyond capacity does."""
    met = {load for load, reading in weighed(results, budget).items() if reading.holds}
    return lambda level: level.load in met


_LOST = 2.0
"""A rate beyond capacity waits longer the longer it lasts: over any limit in the end, by this much at the least."""


def weighed(results: Sequence[LevelResult], budget: Budget) -> dict[Load, Reading]:
    """As `weigh`, without the loads that have nothing of what the budget limits; none beyond capacity meets it."""
    found = {}
    for load, same in _by_load([r for r in results if r.level.requests.in_window]).items():
        with contextlib.suppress(BadInput):  # what is not known is not met
            found[load] = _reading(load, same, budget)
            if any(reason.code == "beyond_capacity" for r in same for reason in r.level.verdict.reasons):
                found[load] = _beyond(found[load])
    return found


def _beyond(reading: Reading) -> Reading:
    values, draws = reading.values.copy(), reading.draws.copy()
    values[0], draws[0] = max(values[0], _LOST), np.maximum(draws[0], _LOST)
    return replace(reading, values=values, draws=draws)


def find_from(results: Sequence[LevelResult], budget: Budget, *, precision: float = 0.05) -> Find:
    """The largest load that meets `budget`, as far as `results` tell, and the load that would tighten it most.

    There is one where a level meets it by its figures and more likely than not; it is no less than the least such
    level. The levels must be `comparable`. The interval is that of `answers.boundary` and grows with the gaps between
    the levels; above the largest of them the answer is open. `precision` is how narrow it must be to count as resolved.
    """
    readings = sorted(weighed(results, budget).items(), key=lambda pair: pair[0].value)
    if not readings:
        conditions(results[:1], budget)  # says what is missing
    loads, levels = [load for load, _ in readings], [reading for _, reading in readings]
    belief = _spread(believe(levels), np.array([float(load.value) for load in loads]))
    whole = isinstance(loads[0], Concurrency)
    low, middle, high = (_step(belief.at(p), whole) for p in (0.025, 0.5, 0.975))
    top = float(loads[-1].value)
    holding = [reading.load for reading in levels if reading.holds]
    met = bool(holding)
    if met:
        middle = max(middle, min(holding))
        high = max(high, middle)
    answer = Figure(min(middle, top), min(low, top), high if math.isfinite(high) else None) if met else None
    tolerance = max(precision * middle, 1.0 if whole else 0.0)
    resolved = met and middle <= top and max(high - middle, middle - low) <= tolerance
    following, gain = (None, "") if resolved else _next(belief, loads, met=met, whole=whole)
    kind: Literal["concurrency", "rate"] = "concurrency" if whole else "rate"
    return Find(
        budget=str(budget),
        load=kind,
        resolved=resolved,
        answer=answer,
        binds=belief.binds[0],
        probes=[Probe(load, _verdict(reading), in_words(reading)) for load, reading in readings],
        spent=Spent(0, 0.0),
        why=_why(loads, levels, met=met, open_ended=middle > top or not math.isfinite(high)),
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


def _step(x: float, whole: bool) -> float:
    return math.floor(x) if whole and math.isfinite(x) else x


def _verdict(reading: Reading) -> bool | None:
    return None if 0.1 < reading.within < 0.9 else reading.within > 0.5


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
        x = _step(belief.middle, whole)
        if whole and x < 1:
            return (Concurrency(1), "nothing lower was measured") if loads[0].value > 1 else (None, "")
        return _like(loads[0], x), "the boundary lies below the lowest stored level"
    low, high = belief.interval()
    top = float(loads[-1].value)
    if not math.isfinite(high):
        aim = belief.at(0.8)
        x = _step(min(aim, 2 * top), whole) if aim > top * 1.05 else 2 * top
        return _like(loads[-1], x), "it would show whether the boundary lies above the stored levels"
    candidates = np.unique(np.floor(np.linspace(low, high + 1, 41))) if whole else np.linspace(low, high, 41)[1:-1]
    candidates = candidates[candidates >= 1] if whole else candidates
    draws = np.minimum(belief.draws, 4 * top)
    widths = [_expected_width(draws, x) for x in candidates]
    best = int(np.argmin(widths))
    now, then = (number(width) for width in (high - low, widths[best]))
    return _like(loads[0], float(candidates[best])), f"it would narrow the interval from {now} to some {then} wide"


def _expected_width(draws: NDArray[np.float64], x: float) -> float:
    sides = (draws[draws < x], draws[draws >= x])
    widths = [np.subtract(*np.quantile(side, [0.975, 0.025])) if len(side) else 0.0 for side in sides]
    return float(sum(len(side) * width for side, width in zip(sides, widths, strict=True)) / len(draws))


def _like(load: Load, value: float) -> Load:
    return Concurrency(int(value)) if isinstance(load, Concurrency) else Rate(value, load.arrivals, load.burstiness)
