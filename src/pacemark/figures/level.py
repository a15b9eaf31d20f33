"""One level, summed up: columns and a window in, figures and a verdict out.

This is the one place where measured and simulated traces become results, so that what is proven of the one
holds for the other.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

import msgspec
import numpy as np
from numpy.typing import NDArray

from pacemark.budget import Budget
from pacemark.figures import content, metrics, quantiles, rates, stats
from pacemark.figures.client import client
from pacemark.figures.connections import connections
from pacemark.figures.distributions import basis, between_events, distribution, estimates_of, experience, finite, views
from pacemark.figures.evidence import Evidence
from pacemark.figures.health import Health
from pacemark.figures.nodes import by_node
from pacemark.figures.rates import Stretch
from pacemark.figures.split import by_model
from pacemark.figures.steadiness import change_of, growth_of, settled
from pacemark.figures.traffic import traffic_of, upload_of, with_counters
from pacemark.figures.verdict import judge
from pacemark.pace import Concurrency, Load, Rate
from pacemark.summary import LATENCIES, Basis, Distribution, EndedBy, Level, Requests, Verdict
from pacemark.trace import Trace, Watch, Window

Mask = NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class LevelResult:
    """A level's summary together with the columns it was computed from."""

    load: Load
    level: Level
    trace: Trace
    window: Window
    health: Health


Enough = Callable[[Trace, Window], bool]
"""Looks at a level as it stands, now and then, and says whether it may end. The trace holds the requests that have
ended so far."""


class Measure(Protocol):
    """The measuring step. A network and a simulator each give one; sweep, search and statistics know no more."""

    def __call__(self, load: Load, enough: Enough | None = None) -> LevelResult:
        """Measure `load`: for the time that was set, or until `enough` says so."""


def sum_up(
    load: Load,
    trace: Trace,
    window: Window,
    health: Health,
    *,
    budget: Budget | None = None,
    ended_by: EndedBy = "duration",
    watch: Watch | None = None,
    known_prompts: float | None = None,
    asked_input: float | None = None,
    template_tokens: float | None = None,
    max_in_flight: int = 0,
) -> LevelResult:
    """Figures of one level from its trace.

    Latency figures stand on the requests that started inside the window; throughput stands on the tokens that
    arrived inside it. The window given is where the ramp was seen to end; it is shortened where the token rate
    settled later.
    """
    steady = settled(trace, window) if isinstance(load, Concurrency) else window
    # Before it is shortened, lest a change should pass for the end of a ramp. A trace changes by itself.
    replayed = isinstance(load, Rate) and bool(load.speed)
    change = None if replayed else change_of(load, trace, window)
    window = steady or window
    stretch = Stretch(trace, window)
    growth = growth_of(trace, started(stretch)) if isinstance(load, Rate) and not replayed else None
    beyond = growth is not None and growth.beyond
    level, gaps = figures_of(load, [stretch], health, beyond=beyond, budget=budget)
    level = with_counters(level, (watch or Watch()).during(window))
    evidence = Evidence(
        level=level,
        trace=trace,
        window=window,
        health=health,
        sample=started(stretch),
        good=started(stretch) & metrics.succeeded(trace),
        settled=steady is not None,
        change=change,
        beyond=beyond,
        ended_by=ended_by,
        gaps=gaps,
        watch=watch or Watch(),
        known_prompts=known_prompts,
        asked_input=asked_input,
        template_tokens=template_tokens,
        max_in_flight=max_in_flight,
    )
    machines = by_node(evidence) or msgspec.UNSET
    level = msgspec.structs.replace(level, verdict=judge(evidence), ended_by=ended_by, nodes=machines)
    return LevelResult(load=load, level=level, trace=trace, window=window, health=health)


def started(stretch: Stretch) -> Mask:
    """The requests (n,) that began in the window: the sample of the latency figures."""
    return metrics.started_in(stretch.trace, stretch.window.start_ns, stretch.window.end_ns)


def figures_of(
    load: Load, stretches: Sequence[Stretch], health: Health, *, beyond: bool, budget: Budget | None
) -> tuple[Level, int]:
    """The figures of one load over all its `stretches`, without a verdict yet; and how many gaps the ITL stands on.

    `beyond`: the load is beyond capacity, so it has no latency.
    """
    trace = Trace.joined([stretch.trace for stretch in stretches])
    sample = np.concatenate([started(stretch) for stretch in stretches])
    done = metrics.succeeded(trace)
    good = sample & done
    latencies, bases = _latencies(trace, sample, beyond=beyond)
    output = rates.token_rate(stretches)
    ended = [t.ended_ns[metrics.succeeded(t)] for t, _ in stretches]
    itl, gaps = between_events(trace, good)
    level = Level(
        load=load,
        window_s=rates.seconds_of(stretches) or None,
        requests=Requests(
            completed=int(done.sum()),
            failed=int((~done).sum()),
            in_window=int(sample.sum()),
            short=int((good & (trace.output_tokens + trace.hidden_tokens < trace.asked_tokens)).sum()),
        ),
        errors=dict(sorted(Counter(trace.error[~done].tolist()).items())),
        output_tokens_per_s=output,
        total_tokens_per_s=rates.total_rate(stretches, output),
        requests_per_s=rates.rate(stretches, ended),
        input_tokens=_mean(trace.input_tokens[good & trace.tokens_from_usage & (trace.input_tokens >= 0)]),
        output_tokens=_mean(trace.output_tokens[good]),
        ttft_ms=latencies["ttft_ms"],
        tpot_ms=latencies["tpot_ms"],
        itl_ms=itl,
        latency_ms=latencies["latency_ms"],
        client=client(load, trace, good, health),
        verdict=Verdict("valid"),
        basis=bases,
        output_tokens_per_s_by_cycle=rates.by_cycle(load, stretches),
        ttft_views_ms=views(trace, good),
        experience=experience(trace, good, latencies["tpot_ms"], latencies["ttft_ms"]),
        goodput=rates.goodput(budget, stretches) if budget is not None else None,
        unread_events=int(trace.unread_events[good].sum()) or msgspec.UNSET,
        traffic=traffic_of(trace, good) or msgspec.UNSET,
        upload=upload_of(trace, good) or msgspec.UNSET,
        connections=connections(trace, good),
        served=by_model(trace, good) or msgspec.UNSET,
        reasoning=content.reasoning(trace, good) or msgspec.UNSET,
        tool_calls=content.tool_calls(trace, good) or msgspec.UNSET,
        json_answers=content.json_answers(trace, good) or msgspec.UNSET,
    )
    return level, gaps


def _latencies(trace: Trace, sample: Mask, *, beyond: bool) -> tuple[dict[str, Distribution], dict[str, Basis]]:
    """The latencies of the requests `sample` (n,), by their names in a `Level`, and what each stands on."""
    found, bases = {}, {}
    for name, metric in _TIMED.items():
        known = finite(metric(trace)[sample])
        estimates = estimates_of(known)
        found[name] = Distribution() if beyond else distribution(known, estimates)
        bases[name] = basis(known, estimates)
    return found, bases


_TIMED: dict[str, Callable[[Trace], NDArray[np.float64]]] = {
    name: getattr(metrics, name) for name in LATENCIES if name != "itl_ms"
}


def _mean(values: NDArray[np.int64]) -> float | None:
    return float(values.mean()) if len(values) else None


def precise(target: float, least_s: float = 0.0, looks: int = 8, first: int = 60) -> Enough:
    """A level has enough once the intervals of throughput, TTFT and TPOT are within `target` of their figures,
    and not before `least_s`.

    Looks only when the number of requests has doubled, at a confidence that pays for all the looks.
    """
    confidence = stats.look_confidence(looks)
    due = first

    def enough(trace: Trace, window: Window) -> bool:
        nonlocal due
        sample = metrics.started_in(trace, window.start_ns, window.end_ns)
        if sample.sum() < due or window.end_ns - window.start_ns < least_s * 1e9:
            return False
        due = 2 * int(sample.sum())
        times, tokens = metrics.tokens_in(trace, window.start_ns, window.end_ns)
        estimates = [stats.rate_interval(times, tokens, window.start_ns, window.end_ns, confidence=confidence)]
        for values in (metrics.ttft_ms(trace)[sample], metrics.tpot_ms(trace)[sample]):
            if np.isfinite(values).any():
                estimates += quantiles.quantile_intervals(values, (0.50, 0.95), confidence=confidence)
        return stats.precise_enough(estimates, target)

    return enough
