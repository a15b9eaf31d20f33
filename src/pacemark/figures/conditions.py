"""A budget held against the requests of a level: what each of its limits demands, and who misses it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pacemark.budget import Budget, Limit
from pacemark.figures import metrics
from pacemark.trace import Trace

__all__ = ["Condition", "demands", "all_known", "misses", "misses_by_limit"]

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]

_TIMED = {"ttft": metrics.ttft_ms, "tpot": metrics.tpot_ms, "latency": metrics.latency_ms}


@dataclass(frozen=True, slots=True)
class Condition:
    """One thing that a budget demands, held against some requests: a statistic of their scores must be below 1."""

    name: str
    scores: Floats
    """(n,) metric over limit, of each request in the order sent (of each gap for `itl`). Infinite where the request
    failed; requests without the metric are left out."""
    quantile: float | None
    """Which quantile of the scores; None: their mean."""
    most: float
    """The limit itself, in ms, or as a share of the requests: what turns a score back into a figure."""


def all_known(budget: Budget, trace: Trace) -> bool:
    """Whether all is known that the budget is about: a limit on `itl` needs every event."""
    return not (trace.outlined.any() and any(limit.metric == "itl" for limit in budget.timed))


def misses(budget: Budget, trace: Trace) -> Bools:
    """Which requests (n,) miss a limit, in either form; the others are goodput.

    A request misses an `itl` limit where its longest gap does. A failed request misses every limit.
    """
    return np.asarray(np.any([*misses_by_limit(budget, trace).values()], axis=0), dtype=np.bool_)


def misses_by_limit(budget: Budget, trace: Trace) -> dict[str, Bools]:
    """Which answered requests (n,) miss each limit, and which failed, under `errors`."""
    with np.errstate(invalid="ignore"):
        slow = {limit.name: _per_request(limit, trace) >= limit.most for limit in budget.timed}
    return slow | {"errors": ~metrics.succeeded(trace)}


def demands(budget: Budget, trace: Trace, sample: Bools) -> list[Condition]:
    """What the budget demands of the requests `sample` (n,) of a level. The last condition is on errors."""
    failed = ~metrics.succeeded(trace)
    errors = Condition("errors", failed[sample] / budget.errors, None, budget.errors)
    if budget.share is None:
        return [*(_condition(limit, trace, sample, failed) for limit in budget.timed), errors]
    worst = np.full(len(trace), np.nan)
    if all_known(budget, trace):
        for limit in budget.timed:
            worst = np.fmax(worst, _per_request(limit, trace) / limit.most)
        worst[failed] = np.inf
    return [Condition(f"{budget.share * 100:.6g}% of requests", _known(worst[sample]), budget.share, 1.0), errors]


def _condition(limit: Limit, trace: Trace, sample: Bools, failed: Bools) -> Condition:
    if limit.metric == "itl":
        stamped, _, _ = metrics.gaps(trace, sample & ~failed)
        return Condition(limit.name, stamped / limit.most, limit.quantile, limit.most)
    scores = _per_request(limit, trace) / limit.most
    if limit.quantile is not None:  # a mean has no place for a request that was never answered; `errors` counts it
        scores[failed] = np.inf
    return Condition(limit.name, _known(scores[sample]), limit.quantile, limit.most)


def _per_request(limit: Limit, trace: Trace) -> Floats:
    """The metric (n,) in ms, NaN where a request does not have it; of `itl` the longest gap."""
    if limit.metric != "itl":
        return _TIMED[limit.metric](trace)
    return metrics.longest_stall_ms(trace)


def _known(scores: Floats) -> Floats:
    return scores[~np.isnan(scores)]
