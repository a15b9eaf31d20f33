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
from pacemark.figures import metrics, stats
from pacemark.figures.conditions import misses
from pacemark.figures.health import Health, spread_ms
from pacemark.figures.verdict import Evidence, judge
from pacemark.figures.window import Growth, Step, backlog_growth, steady_start, step_change
from pacemark.pace import Concurrency, Load, Rate
from pacemark.summary import (
    Basis,
    Client,
    Distribution,
    EndedBy,
    Experience,
    Figure,
    Goodput,
    Level,
    Requests,
    Spread,
    Verdict,
)
from pacemark.trace import ABSENT, Trace, Watch, Window

Floats = NDArray[np.float64]
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
) -> LevelResult:
    """Figures of one level from its trace.

    Latency figures stand on the requests that started inside the window; throughput stands on the tokens that
    arrived inside it. The window given is where the ramp was seen to end; it is shortened where the token rate
    settled later.
    """
    steady = settled(trace, window) if isinstance(load, Concurrency) else window
    step = step_of(load, trace, window)  # before it is shortened, lest a step should pass for the end of a ramp
    window = steady or window
    sample = metrics.started_in(trace, window.start_ns, window.end_ns)
    good = sample & metrics.succeeded(trace)
    growth = growth_of(trace, sample) if isinstance(load, Rate) else None
    beyond = growth is not None and growth.beyond
    columns = {
        "ttft_ms": metrics.ttft_ms(trace),
        "tpot_ms": metrics.tpot_ms(trace),
        "latency_ms": metrics.latency_ms(trace),
    }
    known = {name: _finite(values[sample]) for name, values in columns.items()}
    estimates = {name: _estimates(values) for name, values in known.items()}
    latencies = {
        name: _distribution(values, estimates[name]) if not beyond else Distribution() for name, values in known.items()
    }
    basis = {name: _basis(values, estimates[name]) for name, values in known.items()}
    ended = trace.ended_ns[metrics.succeeded(trace)]
    output = _token_rate(trace, window)
    by_cycle = _by_cycle(load, trace, window)
    itl, gaps = _bounded(trace, good)
    evidence = Evidence(
        load=load,
        trace=trace,
        window=window,
        health=health,
        sample=sample,
        good=good,
        itl=itl,
        output=output,
        by_cycle=by_cycle,
        settled=steady is not None,
        step=step,
        beyond=beyond,
        ended_by=ended_by,
        gaps=gaps,
        lacking={_NAMES[name]: b.note for name, b in basis.items() if b.n and b.note and not beyond},
        watch=watch or Watch(),
        known_prompts=known_prompts,
    )
    return LevelResult(
        load=load,
        level=Level(
            load=load,
            window_s=window.seconds if window.seconds > 0 else None,
            requests=Requests(
                completed=int(metrics.succeeded(trace).sum()),
                failed=int((trace.error != "").sum()),
                in_window=int(sample.sum()),
                short=int((good & (trace.output_tokens < trace.asked_tokens)).sum()),
            ),
            errors=dict(sorted(Counter(trace.error[trace.error != ""].tolist()).items())),
            output_tokens_per_s=output,
            total_tokens_per_s=_total(trace, good, output, window),
            requests_per_s=_rate(ended, np.ones(len(ended)), window),
            input_tokens=_mean(trace.input_tokens[good & trace.tokens_from_usage & (trace.input_tokens >= 0)]),
            output_tokens=_mean(trace.output_tokens[good]),
            ttft_ms=latencies["ttft_ms"],
            tpot_ms=latencies["tpot_ms"],
            itl_ms=itl,
            latency_ms=latencies["latency_ms"],
            client=_client(load, trace, good, health),
            verdict=judge(evidence),
            ended_by=ended_by,
            basis=basis,
            output_tokens_per_s_by_cycle=by_cycle,
            ttft_views_ms=_views(trace, good),
            experience=_experience(trace, good, latencies["tpot_ms"], latencies["ttft_ms"]),
            goodput=_goodput(budget, trace, sample, window) if budget is not None else None,
        ),
        trace=trace,
        window=window,
        health=health,
    )


# --- the window

_BINS = 200
_LEAST_CYCLES = 5


def settled(trace: Trace, window: Window) -> Window | None:
    """`window` from where the token rate has settled (`window.steady_start`); None where it did not.

    A window of fewer than five requests per stream is left as it is: the bins would show single answers.
    """
    streams = len(np.unique(trace.stream))
    inside = metrics.started_in(trace, window.start_ns, window.end_ns)
    if window.seconds <= 0 or inside.sum() < _LEAST_CYCLES * streams or inside.sum() < 40:
        return window
    cut = steady_start(_binned_tokens(trace, window, _BINS))
    if cut is None:
        return None
    return Window(window.start_ns + (window.end_ns - window.start_ns) * cut // _BINS, window.end_ns)


def step_of(load: Load, trace: Trace, window: Window) -> Step | None:
    """A change of pace inside the window, in TPOT or in a closed loop's token rate; None where none can be seen.

    The token rate of an open loop follows the arrivals and says nothing of the service.
    """
    sample = metrics.started_in(trace, window.start_ns, window.end_ns)
    if window.seconds <= 0 or sample.sum() < 40:
        return None
    step = step_change(metrics.tpot_ms(trace)[sample])
    if step is not None or not isinstance(load, Concurrency):
        return step
    return step_change(_binned_tokens(trace, window, _BINS // 2))


def growth_of(trace: Trace, sample: Mask) -> Growth | None:
    """How the backlog moved, in open loop."""
    begun = trace.scheduled_ns if trace.open_loop else trace.sent_ns
    return backlog_growth(begun[sample], metrics.in_flight(trace)[sample], metrics.ttft_ms(trace)[sample])


def precise(target: float, looks: int = 8, first: int = 60) -> Enough:
    """A level has enough once the intervals of throughput, TTFT and TPOT are within `target` of their figures.

    Looks only when the number of requests has doubled, at a confidence that pays for all the looks.
    """
    confidence = stats.look_confidence(looks)
    due = first

    def enough(trace: Trace, window: Window) -> bool:
        nonlocal due
        sample = metrics.started_in(trace, window.start_ns, window.end_ns)
        if sample.sum() < due:
            return False
        due = 2 * int(sample.sum())
        times, tokens = metrics.tokens_in(trace, window.start_ns, window.end_ns)
        estimates = [stats.rate_interval(times, tokens, window.start_ns, window.end_ns, confidence=confidence)]
        for values in (metrics.ttft_ms(trace)[sample], metrics.tpot_ms(trace)[sample]):
            if np.isfinite(values).any():
                estimates += stats.quantile_intervals(values, (0.50, 0.95), confidence=confidence)
        return stats.precise_enough(estimates, target)

    return enough


# --- figures

_NAMES = {"ttft_ms": "TTFT", "tpot_ms": "TPOT", "latency_ms": "latency"}


def _binned_tokens(trace: Trace, window: Window, bins: int) -> Floats:
    """Tokens that arrived in each of `bins` equal parts of the window."""
    total = np.zeros(bins)
    for _, part in metrics.parts(trace):
        times, tokens = metrics.tokens_in(part, window.start_ns, window.end_ns)
        total += stats.binned(times, tokens, window.start_ns, window.end_ns, bins)
    return total


def _token_rate(trace: Trace, window: Window) -> Figure:
    if window.seconds <= 0:
        return Figure()
    return stats.binned_rate(_binned_tokens(trace, window, stats.RATE_BINS), window.seconds).figure


def _rate(times_ns: NDArray[np.int64], weights: Floats, window: Window) -> Figure:
    if window.seconds <= 0:
        return Figure()
    return stats.rate_interval(times_ns, weights, window.start_ns, window.end_ns).figure


def _total(trace: Trace, good: Mask, output: Figure, window: Window) -> Figure:
    """Output and input tokens per second; input counts where its answer's first token came."""
    if output.value is None or not (trace.input_tokens[good] >= 0).any():
        return Figure()
    answered = np.diff(trace.offsets) > 0
    first = trace.hi_ns[trace.offsets[:-1][answered]]
    taken_in = _rate(first, np.maximum(trace.input_tokens[answered], 0).astype(np.float64), window)
    return Figure(output.value + (taken_in.value or 0.0))


def _by_cycle(load: Load, trace: Trace, window: Window) -> Figure:
    if not isinstance(load, Concurrency):
        return Figure()
    cycles, tokens = metrics.cycles_ms(trace, window)
    return _scaled(stats.ratio_interval(tokens, cycles).figure, 1e3 * load.value) if cycles.sum() > 0 else Figure()


def _mean(values: NDArray[np.int64]) -> float | None:
    return float(values.mean()) if len(values) else None


_QUANTILES = {"p50": 0.50, "p90": 0.90, "p95": 0.95, "p99": 0.99}


def _finite(values: Floats) -> Floats:
    return values[np.isfinite(values)]


def _estimates(known: Floats) -> dict[str, stats.Estimate]:
    """The mean and the quantiles of a metric, by the names they have in a `Distribution`."""
    quantiles = stats.quantile_intervals(known, list(_QUANTILES.values()))
    return {"mean": stats.mean_interval(known), **dict(zip(_QUANTILES, quantiles, strict=True))}


def _distribution(known: Floats, estimates: dict[str, stats.Estimate]) -> Distribution:
    points = {name: _pointed(known, q, estimates[name].figure) for name, q in _QUANTILES.items()}
    return Distribution(estimates["mean"].figure, **points)


def _basis(known: Floats, estimates: dict[str, stats.Estimate]) -> Basis:
    if not len(known):
        return Basis(note="insufficient: no values")
    median, high = estimates["p50"], estimates["p95"]
    phi = max(1.0, len(known) / max(high.n_eff, 1e-9))
    certified = {name: stats.certified_quantile(known, q, phi=phi) for name, q in _QUANTILES.items() if q > 0.5}
    scatter = {name: e.scatter for name, e in estimates.items() if e.scatter is not None}
    return Basis(len(known), high.n_eff, certified, median.message() or high.message(), scatter)


def _pointed(known: Floats, q: float, figure: Figure) -> Figure:
    """A quantile with at least one request beyond it has a point, if no upper limit; with none it has but a bound."""
    if figure.value is not None or len(known) * (1 - q) < 1:
        return figure
    return Figure(float(np.quantile(known, q, method="inverted_cdf")), figure.low, None)


def _bounded(trace: Trace, good: Mask) -> tuple[Distribution, int]:
    """Mean and quantiles of pooled gaps, and how many gaps there are. Their low and high are no confidence interval but
    what the true figure lies between, given that events which were read together have one stamp."""
    count = int(np.maximum(np.diff(trace.offsets)[good] - 1, 0).sum())
    if not count:
        return Distribution(), 0
    exact = trace.lo_ns is trace.hi_ns
    kinds = (metrics.STAMPED,) if exact else (metrics.STAMPED, metrics.LEAST, metrics.MOST)
    rows = [_pooled(trace, good, which, count) for which in kinds]
    values, lows, highs = rows * 3 if exact else rows
    mean, p50, p90, p95, p99 = (Figure(*three) for three in zip(values, lows, highs, strict=True))
    return Distribution(mean, p50, p90, p95, p99), count


def _pooled(trace: Trace, good: Mask, which: int, count: int) -> tuple[float, ...]:
    """Mean and quantiles of one of the three kinds of gaps. A float32 holds a gap to the nanosecond up to 16 ms, and
    to the ten-millionth part above."""
    pooled, filled = np.empty(count, np.float32), 0
    for rows, part in metrics.parts(trace):
        some = metrics.gap(part, good[rows], which)
        pooled[filled : filled + len(some)] = some
        filled += len(some)
    mean = float(pooled.mean(dtype=np.float64))
    quantiles = np.quantile(pooled, list(_QUANTILES.values()), overwrite_input=True)
    return mean, *(float(value) for value in quantiles)


def _views(trace: Trace, good: Mask) -> dict[str, Spread]:
    views = {
        "headers": metrics.ttfb_ms(trace),
        "first_event": metrics.ttfe_ms(trace),
        "first_token": metrics.ttft_ms(trace),
        "first_answer_token": metrics.ttfa_ms(trace),
        "first_token_from_schedule": metrics.ttft_ms(trace) + (not trace.open_loop) * metrics.send_delay_ms(trace),
    }
    return {name: spread_ms(values[good & np.isfinite(values)] * 1e6) for name, values in views.items()}


_WORDS_PER_TOKEN = 0.75
_FLUIDITY_SAMPLE = 2000


def _experience(trace: Trace, good: Mask, tpot: Distribution, ttft: Distribution) -> Experience:
    streamed = good & (trace.first_event_ns != ABSENT)
    if not streamed.any() or tpot.p50.value is None or ttft.p50.value is None:
        return Experience()
    pace = tpot.p50
    per_user = Figure(*(1e3 / v if v else None for v in (pace.value, pace.high, pace.low)))
    judged = streamed.copy()
    judged[np.flatnonzero(streamed)[_FLUIDITY_SAMPLE:]] = False
    fluid = metrics.fluidity(trace, judged, 1.25 * ttft.p50.value, 1.25 * pace.value) if pace.value else np.zeros(0)
    stalls, idle = _finite(metrics.longest_stall_ms(trace)[good]), _finite(metrics.reading_idle_ms(trace)[good])
    return Experience(
        longest_stall_ms=_distribution(stalls, _estimates(stalls)),
        reading_idle_ms=_distribution(idle, _estimates(idle)),
        fluidity=stats.mean_interval(fluid).figure,
        tokens_per_s_per_user=per_user,
        words_per_minute=_scaled(per_user, 60 * _WORDS_PER_TOKEN),
    )


def _scaled(figure: Figure, factor: float) -> Figure:
    return Figure(*(None if part is None else part * factor for part in (figure.value, figure.low, figure.high)))


def _goodput(budget: Budget, trace: Trace, sample: Mask, window: Window) -> Goodput:
    met = ~misses(budget, trace)
    share = stats.share_interval(met[sample]).figure
    ended = trace.ended_ns[met]
    return Goodput(str(budget), share, _rate(ended, np.ones(len(ended)), window))


# --- replications


def replicated(levels: Sequence[Level]) -> Level:
    """One level from several measurements of the same load: every figure with the interval over the repetitions.

    Figures of one run say how sure that run is of itself; over repetitions they also hold what changes between runs.
    """
    if len(levels) == 1:
        return levels[0]
    whole = msgspec.structs.replace(
        levels[0],
        **{name: _over(levels, name) for name in ("output_tokens_per_s", "total_tokens_per_s", "requests_per_s")},
        **{name: _each(levels, name) for name in ("ttft_ms", "tpot_ms", "itl_ms", "latency_ms")},
        window_s=sum(level.window_s or 0.0 for level in levels) or None,
        requests=Requests(*(sum(getattr(x.requests, n) for x in levels) for n in Requests.__struct_fields__)),
        errors=dict(sum((Counter(level.errors) for level in levels), Counter())),
        verdict=_worst([level.verdict for level in levels]),
        basis={name: msgspec.structs.replace(one, scatter={}) for name, one in levels[0].basis.items()},
        repeats=len(levels),
    )
    return whole


def _over(items: Sequence[Level] | Sequence[Distribution], name: str) -> Figure:
    return stats.replicated([getattr(item, name) for item in items]).figure


def _each(levels: Sequence[Level], name: str) -> Distribution:
    parts: list[Distribution] = [getattr(level, name) for level in levels]
    mean, p50, p90, p95, p99 = (_over(parts, quantile) for quantile in ("mean", "p50", "p90", "p95", "p99"))
    return Distribution(mean, p50, p90, p95, p99)


def _worst(verdicts: Sequence[Verdict]) -> Verdict:
    ranked = sorted(verdicts, key=lambda v: ("valid", "suspect", "invalid").index(v.status))
    reasons = {reason.code: reason for verdict in ranked for reason in verdict.reasons}
    return Verdict(ranked[-1].status, list(reasons.values()))


# --- the client


def _client(load: Load, trace: Trace, good: Mask, health: Health) -> Client:
    bound_ms = _bound_ms(trace, good, health)
    return Client(
        clock=health.clock,
        lag_ms=spread_ms(health.lag_ns),
        cpu_us_per_event=health.cpu_ns / 1e3 / health.reads if health.reads and health.cpu_ns else None,
        coalesced_share=health.coalesced_reads / health.reads if health.reads else None,
        stall_ms=health.stall_ns / 1e6 if health.reads else None,
        cpu_share=[round(share, 4) for share in health.worker_cpu_share],
        wait_share=[round(share, 4) for share in health.worker_wait_share],
        idle_share=health.idle_share,
        reconnects=health.reconnects,
        bound_ms=bound_ms,
        bound=None if bound_ms is None else f"TTFT p99 may be overstated by at most {bound_ms:.1f} ms by this client",
        lateness_ms=spread_ms(trace.sent_ns - trace.scheduled_ns) if isinstance(load, Rate) else None,
    )


STAMP_ERROR_MS = 0.1
"""How far a kernel stamp can be from the arrival on a quiet machine; measured on loopback (docs/accuracy.md)."""


def _bound_ms(trace: Trace, good: Mask, health: Health) -> float | None:
    """The most that the client can have added to the TTFT tail: what coalesced reads leave open, how long sending
    took, and, without kernel stamps, the event loop's own absence."""
    ttft = metrics.ttft_ms(trace)
    known = good & np.isfinite(ttft)
    if health.clock == "virtual" or not known.any():
        return None
    first = trace.offsets[:-1][known]
    slack = (trace.hi_ns[first] - trace.lo_ns[first]) / 1e6
    over = float(np.quantile(ttft[known], 0.99) - np.quantile(ttft[known] - slack, 0.99)) + STAMP_ERROR_MS
    if len(health.send_ns):
        over += float(np.quantile(health.send_ns, 0.99)) / 1e6
    if health.clock == "user":
        over += health.stall_ns / 1e6
    return over
