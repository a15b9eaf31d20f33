"""What a run may spend, and what it has."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from pacemark.errors import BadInput
from pacemark.figures.level import LevelResult
from pacemark.pace import Concurrency, Load, Rate, sought
from pacemark.summary import Spent
from pacemark.trace import Trace, Window
from pacemark.values import at_least, positive

__all__ = ["FEW", "Allowance", "added", "allowed", "cost_of_level", "spent_on", "will_have_spent"]

FEW = 12
"""Requests that a level needs at the least."""
SEARCH_S = 900.0
"""What a search may take where nothing is said of it."""


@dataclass(frozen=True, slots=True)
class Allowance:
    """What a run may spend; None: as much as it takes."""

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
        return next((said for most, value, said in self._parts(spent) if value is not None and value > most), None)

    def parts(self) -> str:
        """All that it limits, in words."""
        return " and ".join(said for *_, said in self._parts(Spent(0, 0.0)))

    def _parts(self, spent: Spent) -> list[tuple[float, float | None, str]]:
        """What it limits: the most, what of it is spent, and the most in words."""
        parts = [
            (self.seconds, spent.seconds, "s"),
            (self.requests, spent.requests, "requests"),
            (self.tokens, spent.tokens, "tokens"),
            (self.cost, self.cost_of(spent), "of cost"),
        ]
        return [(most, value, f"{most:,.10g} {unit}") for most, value, unit in parts if most is not None]


def allowed(words: Mapping[str, Any], allowance: Allowance | None = None) -> Allowance | None:
    """What the user's `words` let a run spend beside what `allowance` says already; None where nothing is said.

    Raises BadInput for what cannot be, and for a cost without a price.
    """
    given = {name: words.get(name) for name in ("max_requests", "max_tokens", "max_cost", *_PRICES)}
    for name, value in given.items():
        if value is not None:
            flag = f"--{name.replace('_', '-')}"
            at_least(flag, value, 1) if name in ("max_requests", "max_tokens") else positive(flag, value)
    if given["max_cost"] is not None and not any(given[price] for price in _PRICES):
        raise BadInput("--max-cost needs a price: --price-per-hour or --price-per-million")
    told = {_NAMES.get(name, name.removeprefix("max_")): value for name, value in given.items() if value is not None}
    return replace(allowance or Allowance(), **told) if told else allowance


_PRICES = ("price_per_hour", "price_per_million")
_NAMES = {"price_per_million": "price_per_million_tokens"}


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


def cost_of_level(x: float, results: Sequence[LevelResult], few: int | None = None) -> Spent:
    """What a level at load `x` will cost: its ramp, its window and its end, as the levels so far, `results`, suggest.

    `few`: with a window of no more than so many requests, the least that says anything at all.
    """
    known = [(sought(r.load), r.level.latency_ms.mean.value) for r in results]
    of_load = {float(load): latency / 1e3 for load, latency in known if latency}
    if not of_load:
        return Spent(0, 0.0)
    last = results[-1]
    loads, latencies = np.array(sorted(of_load.items())).T
    latency = float(np.interp(x, loads, latencies))
    if x > loads[-1] > loads[0]:  # a queue that has begun grows on
        latency += (x - loads[-1]) * max(0.0, float(np.polyfit(loads[-2:], latencies[-2:], 1)[0]))
    tokens = (last.level.input_tokens or 0.0) + (last.level.output_tokens or 0.0)
    if isinstance(last.load, Concurrency):
        requests, cycles = (6 * x, 6.0) if few is None else (4 * x + few, 3 + few / x)
        seconds = cycles * latency
    else:
        seconds = 6 * latency + FEW / x if few is None else 3 * latency + few / x
        requests = seconds * x
    if isinstance(last.load, Rate) and last.load.speed:  # the same rows of a trace again
        seconds = latency + (last.level.window_s or 0.0) * last.load.speed / x
        requests = last.level.requests.in_window
    return Spent(round(requests), seconds, round(requests * tokens))


def added(a: Spent, b: Spent) -> Spent:
    """Both together."""
    return Spent(a.requests + b.requests, a.seconds + b.seconds, a.tokens + b.tokens)
