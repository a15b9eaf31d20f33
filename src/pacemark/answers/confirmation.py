"""A closed loop's answer, tried in the open loop: can the endpoint take that rate from requests that do not wait?

In a closed loop a slow answer holds back the next request, so no queue can grow; in production it can. The rate that
the answer implies is therefore offered as Poisson arrivals and as bursts, and the backlog is tested for growth.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from pacemark.answers.weighing import in_words, weigh
from pacemark.budget import Budget
from pacemark.figures import metrics
from pacemark.figures.level import Enough, LevelResult
from pacemark.figures.steadiness import growth_of
from pacemark.pace import Concurrency, Rate
from pacemark.summary import Confirmation, Spent
from pacemark.trace import Trace, Window
from pacemark.units import number

__all__ = ["BURSTY", "confirmed", "forecast", "implied_rate", "long_enough", "ways"]

BURSTY = 2.0
"""Coefficient of variation of the burstier arrivals."""
_REQUESTS = 400
_TURNS = 20
"""A backlog is judged over so many mean latencies: it drifts within a few of them by chance alone."""


def implied_rate(results: Sequence[LevelResult], streams: float) -> float | None:
    """Requests per second of a closed loop with so many `streams`, between the levels around it; None if unknown."""
    known: dict[float, list[float]] = {}
    for result in results:
        rate = result.level.requests_per_s.value
        if isinstance(result.load, Concurrency) and rate:
            known.setdefault(float(result.load.value), []).append(rate)
    if not known:
        return None
    loads = sorted(known)
    return float(np.interp(streams, loads, [float(np.mean(known[x])) for x in loads]))


def ways(rate: float) -> tuple[Rate, ...]:
    """How requests arrive at that rate: as a Poisson process, and in bursts."""
    return Rate(rate, "poisson", 1.0), Rate(rate, "gamma", BURSTY)


def long_enough() -> Enough:
    """A level has enough once its backlog can be judged. It looks at lengths alone, so looking often costs nothing."""

    def enough(trace: Trace, window: Window) -> bool:
        latencies = metrics.latency_ms(trace)
        known = latencies[np.isfinite(latencies)]
        inside = metrics.started_in(trace, window.start_ns, window.end_ns).sum()
        return bool(len(known)) and inside >= _REQUESTS and window.seconds * 1e3 >= _TURNS * float(known.mean())

    return enough


def forecast(load: Rate, results: Sequence[LevelResult]) -> Spent:
    """What trying `load` will cost, as the levels so far suggest."""
    last = results[-1].level
    latency = (last.latency_ms.mean.value or 0.0) / 1e3
    seconds = max(_REQUESTS / load.value, _TURNS * latency) + 3 * latency
    requests = round(load.value * seconds)
    return Spent(requests, seconds, round(requests * ((last.input_tokens or 0.0) + (last.output_tokens or 0.0))))


def confirmed(results: Sequence[LevelResult], budget: Budget) -> list[Confirmation]:
    """What the open-loop levels among `results` say of `budget`."""
    return [_judged(r, budget) for r in results if isinstance(r.load, Rate)]


def _judged(result: LevelResult, budget: Budget) -> Confirmation:
    assert isinstance(result.load, Rate)
    sample = metrics.started_in(result.trace, result.window.start_ns, result.window.end_ns)
    growth = growth_of(result.trace, sample) if len(result.trace) else None
    if growth is None:
        why = f"too few requests ({int(sample.sum())}) to tell whether the backlog grows"
        return Confirmation(result.load, None, None, why, result.level)
    if growth.beyond:
        why = (
            f"the requests in flight grew by {number(growth.in_flight_per_s)} every second "
            f"({number(growth.in_flight_low)} to {number(growth.in_flight_high)}), and the TTFT with them: "
            "no percentile of it means anything"
        )
        return Confirmation(result.load, False, None, why, result.level)
    reading = weigh([result], budget)[result.load]
    return Confirmation(
        result.load, True, reading.verdict, f"{in_words(reading)}; the backlog did not grow", result.level
    )
