"""What a search may spend, and what it has."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from pacemark.figures.level import LevelResult
from pacemark.pace import Concurrency, Load
from pacemark.summary import Spent
from pacemark.trace import Trace, Window

__all__ = ["Allowance", "added", "spent_on", "will_have_spent"]


SEARCH_S = 900.0
"""What a search may take where nothing is said of it."""


@dataclass(frozen=True, slots=True)
class Allowance:
    """What a search may spend; None: as much as it takes."""

    seconds: float | None = None
    requests: int | None = None
    tokens: int | None = None
    """Input and output."""
    cost: float | None = None
    price_per_hour: float | None = None
    price_per_million_tokens: float | None = None

    def cost_of(self, spent: Spent) -> float | None:
        """What `spent` costs, where a price is known."""
        if self.price_per_hour is None and self.price_per_million_tokens is None:
            return None
        by_time = (self.price_per_hour or 0.0) * spent.seconds / 3600
        return by_time + (self.price_per_million_tokens or 0.0) * spent.tokens / 1e6

    def exceeded(self, spent: Spent) -> str | None:
        """Which part of it `spent` is over, in words."""
        cost = self.cost_of(spent)
        parts = [
            (self.seconds, spent.seconds, "s"),
            (self.requests, spent.requests, "requests"),
            (self.tokens, spent.tokens, "tokens"),
            (self.cost, cost, "of cost"),
        ]
        for most, value, unit in parts:
            if most is not None and value is not None and value > most:
                return f"{most:,.10g} {unit}"
        return None


def spent_on(result: LevelResult) -> Spent:
    """What a level cost."""
    trace, requests = result.trace, result.level.requests
    if not len(trace):
        return Spent(requests.completed + requests.failed, 0.0)
    seconds = (int(trace.ended_ns.max()) - int(trace.scheduled_ns.min())) / 1e9
    tokens = int(np.maximum(trace.input_tokens, 0).sum() + np.maximum(trace.output_tokens, 0).sum())
    return Spent(requests.completed + requests.failed, seconds, tokens)


def will_have_spent(trace: Trace, window: Window, load: Load) -> Spent:
    """What a level under way will have cost if it ends at the next look.

    `trace` holds what has ended. Of that which has not, the last takes as long as the longest so far, and in closed
    loop every stream sends once more until then.
    """
    look_s = max(0.2, window.seconds / 10)
    if not len(trace):
        return Spent(0, window.seconds + look_s)
    begun_ns, longest_ns = int(trace.scheduled_ns.min()), int((trace.ended_ns - trace.scheduled_ns).max())
    so_far_s, tail_s = (window.end_ns - begun_ns) / 1e9, longest_ns / 1e9
    requests = len(trace) * (1 + look_s / so_far_s)
    requests += 2 * load.value if isinstance(load, Concurrency) else 2 * load.value * tail_s
    tokens = float(np.maximum(trace.input_tokens, 0).mean() + np.maximum(trace.output_tokens, 0).mean())
    return Spent(round(requests), so_far_s + look_s + tail_s, round(requests * tokens))


def added(a: Spent, b: Spent) -> Spent:
    """Both together."""
    return Spent(a.requests + b.requests, a.seconds + b.seconds, a.tokens + b.tokens)
