"""What the requests of a load, from all levels that measured it, say of a budget."""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

import numpy as np

from pacemark.answers.boundary import Reading, read
from pacemark.answers.cut import with_cut_answers
from pacemark.answers.drift import STEADY, VisitScatter, scatter_of, visits_of
from pacemark.budget import Budget
from pacemark.errors import BadInput
from pacemark.figures import metrics
from pacemark.figures.conditions import Condition, demands
from pacemark.figures.level import LevelResult
from pacemark.pace import Concurrency, Load, Rate, sought
from pacemark.summary import Level
from pacemark.trace import RATE_LIMITS
from pacemark.units import duration

__all__ = [
    "comparable",
    "conditions",
    "demanded",
    "in_words",
    "meets",
    "turned_away",
    "untimed",
    "side_of_limit",
    "spared",
    "together",
    "weigh",
    "weighed",
    "weighed_with_scatter",
]

_SPOILT = {"worker_died", "cached_prompts", "client_starved", "late_sends"}
"""What makes an invalid level useless; one that is invalid for its errors or its backlog tells of the endpoint."""


def comparable(results: Sequence[LevelResult], *, rate: bool = False) -> list[LevelResult]:
    """Those levels that one answer can rest on: one kind of load, one arrival process, nothing wrong with the client.
    Answers that a load cut short count as failed.

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
    return with_cut_answers(alike)


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

    Raises BadInput where no request has what it limits, unless all failed.
    """
    pooled = together([demanded(r, budget) for r in results])
    if missing := untimed(pooled):
        raise BadInput(f"no request at {results[0].load} has what the budget limits: {missing.name}")
    return pooled


def untimed(conditions: Sequence[Condition]) -> Condition | None:
    """The first of a budget's `conditions`, errors last, that no request has the figure of; None where each has one
    that does, or all failed."""
    failed = conditions[-1].scores
    if failed.size and failed.all():
        return None
    return next((condition for condition in conditions if not condition.scores.size), None)


def demanded(result: LevelResult, budget: Budget) -> list[Condition]:
    """What `budget` demands of the requests begun in the window of `result`."""
    return demands(budget, result.trace, metrics.started_in(result.trace, result.window.start_ns, result.window.end_ns))


def together(parts: Sequence[Sequence[Condition]]) -> list[Condition]:
    """The same conditions of several samples, as those of one sample."""
    return [
        Condition(same[0].name, np.concatenate([c.scores for c in same]), same[0].quantile, same[0].most)
        for same in zip(*parts, strict=True)
    ]


def _reading(load: Load, results: Sequence[LevelResult], budget: Budget, scatter: VisitScatter = STEADY) -> Reading:
    x = float(sought(load))
    return read(x, conditions(results, budget), round(1000 * x), scatter.unrest(x))


def meets(results: Sequence[LevelResult], budget: Budget) -> Callable[[Level], bool]:
    """A judge of levels: whether their requests meet `budget`. No load beyond capacity does."""
    met = {load for load, reading in weighed(results, budget).items() if reading.holds}
    return lambda level: level.load in met


_LOST = 2.0
"""A rate beyond capacity waits longer the longer it lasts: over any limit in the end, by this much at the least."""


def weighed(results: Sequence[LevelResult], budget: Budget) -> dict[Load, Reading]:
    """As `weigh`, without the loads that have nothing of what the budget limits; none beyond capacity meets it.

    An endpoint that was not steady is in what each reading leaves open.
    """
    return weighed_with_scatter(results, budget)[0]


def weighed_with_scatter(results: Sequence[LevelResult], budget: Budget) -> tuple[dict[Load, Reading], VisitScatter]:
    """As `weighed`, and how unsteady the endpoint was. `results` in the order they were measured."""
    known = [r for r in results if r.level.requests.in_window]
    readings = _weighed(known, budget, STEADY)
    scatter = scatter_of([visit for result in known for visit in visits_of(result)], readings.values())
    return _weighed(known, budget, scatter) if scatter else readings, scatter


def _weighed(results: Sequence[LevelResult], budget: Budget, scatter: VisitScatter) -> dict[Load, Reading]:
    found = {}
    for load, same in _by_load(results).items():
        with contextlib.suppress(BadInput):  # what is not known is not met
            found[load] = _reading(load, same, budget, scatter)
            if any(reason.code == "beyond_capacity" for r in same for reason in r.level.verdict.reasons):
                found[load] = _beyond(found[load])
    return found


def _beyond(reading: Reading) -> Reading:
    values, draws = reading.values.copy(), reading.draws.copy()
    values[0], draws[0] = max(values[0], _LOST), np.maximum(draws[0], _LOST)
    return replace(reading, values=values, draws=draws)


def in_words(reading: Reading, result: LevelResult | None = None) -> str:
    """What decides at a level, and how far it is from its limit; with the kind of its errors, if it is those."""
    text = side_of_limit(reading, reading.worst)
    if result and (reading.names[reading.worst] == "errors" or reading.values[reading.worst] > 1e6):
        kinds = Counter(result.level.errors).most_common(1)
        text += f" ({kinds[0][0]})" if kinds else ""
    return f"{text} ({reading.n} requests)"


def turned_away(results: Sequence[LevelResult], readings: Mapping[float, Reading], x: float, budget: Budget) -> bool:
    """Whether the level next above load `x` failed for a rate limit: the endpoint's rule, not its capacity."""
    above = [r for r in results if sought(r.load) > x and readings[sought(r.load)].within < 0.5]
    if not above:
        return False
    nearest = min(above, key=lambda r: sought(r.load)).level
    refused = sum(nearest.errors.get(kind, 0) for kind in RATE_LIMITS)
    share = refused / max(1, nearest.requests.completed + nearest.requests.failed)
    return share > budget.errors and 2 * refused > nearest.requests.failed


LASTS_S = 60.0
"""Limits are most often of a minute."""


def spared(results: Sequence[LevelResult], x: float) -> bool:
    """Whether a limit that refused a higher load may only not have been reached yet at load `x`: that lasted less than
    a minute, and answered more a second than the higher one, of which a limit on what is in flight takes nothing."""
    here = [r.level for r in results if sought(r.load) == x]
    above = [r.level for r in results if sought(r.load) > x and any(r.level.errors.get(k) for k in RATE_LIMITS)]
    if not here or not above or sum(level.window_s or 0.0 for level in here) >= LASTS_S:
        return False
    after = min(above, key=lambda level: level.load.value).requests_per_s.value or 0.0
    return after < SPARED * max(level.requests_per_s.value or 0.0 for level in here)


SPARED = 0.8
"""A limit on what is in flight leaves the throughput of the higher load no lower than this share."""


def side_of_limit(reading: Reading, k: int) -> str:
    """`tpot p95 is 52.1 ms, 4% over its limit`."""
    name, value, most = reading.names[k], float(reading.values[k]), float(reading.most[k])
    share = abs(value - 1)
    side = "over" if value >= 1 else "under"
    if name == "errors":
        return f"{value * most:.1%} of the requests failed, where {most:.3g} is allowed"
    if value > 1e6:
        return f"{name} is unbounded: too many requests were not answered"
    if name.endswith("of requests"):
        return f"{name} stay {share:.0%} {side} the tightest limit"
    return f"{name} is {duration(value * most)}, {share:.0%} {side} its limit"
