"""A run as GuideLLM's benchmarks.json, for tools that read that.

The shape is `GenerativeBenchmarksReport`, version 2, of guidellm 0.8.1 (guidellm/benchmark/schemas): a benchmark for
each level, its single requests left out. Its figures stand on the requests that began in the level's window.
"""

from __future__ import annotations

import platform
from collections.abc import Sequence
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from pacemark.figures import metrics
from pacemark.figures.level import LevelResult, started
from pacemark.figures.rates import Stretch
from pacemark.pace import Concurrency, Load
from pacemark.runs.record import RunRecord
from pacemark.summary import Distribution, Figure
from pacemark.trace import ABSENT, Int64
from pacemark.version import __version__

__all__ = ["benchmarks_json"]

_SHARES = {
    "p001": 0.001, "p01": 0.01, "p05": 0.05, "p10": 0.1, "p25": 0.25, "p50": 0.5, "p75": 0.75, "p90": 0.9, "p95": 0.95,
    "p99": 0.99, "p999": 0.999,
}  # fmt: skip
_NOT_MEASURED = ("time_to_last_round_trip_ms", "avg_round_trip_time_ms")
"""Of WebSockets."""
_MOMENTS = 1000
"""At so many moments of a window it is counted how many requests are in flight."""

_Json = dict[str, Any]
Floats = NDArray[np.floating[Any]] | Int64


def benchmarks_json(results: Sequence[LevelResult], record: RunRecord) -> bytes:
    """The measurements `results` of a run as the text of a benchmarks.json."""
    benchmarks = [_benchmark(n, result, record, record.ahead_ns / 1e9) for n, result in enumerate(results)]
    about = {"version": 2, "guidellm_version": f"pacemark {__version__}", "python_version": platform.python_version()}
    return msgspec.json.encode(
        {
            "metadata": about | {"platform": str(record.host.get("system", ""))},
            "config": {"metadata": {"labels": record.labels}, "spec": _spec(results, record), "benchmarks": [None]},
            "benchmarks": benchmarks,
        }
    )


def _spec(results: Sequence[LevelResult], record: RunRecord) -> _Json:
    """What was asked for, as GuideLLM would be asked for it."""
    loads = [result.load for result in results]
    streams = [load.value for load in loads if isinstance(load, Concurrency)]
    profile = {"kind": "concurrent", "streams": streams}
    if not streams:
        profile = {"kind": _strategy(loads[0])["type_"], "rate": [load.value for load in loads]}
    workload = record.scenario.workload
    lengths = {"prompt_tokens": round(workload.input.mean), "output_tokens": round(workload.output.mean)}
    return {
        "backend": {"kind": "openai_http", "target": record.target.get("url"), "model": record.target.get("model")},
        "profile": profile,
        "data": [{"kind": "synthetic_text"} | lengths],
        "outputs": [{"kind": "json"}],
    }


def _strategy(load: Load) -> _Json:
    """Any other arrivals than constant ones are called poisson there; `environment` has the load in words."""
    if isinstance(load, Concurrency):
        return {"type_": "concurrent", "streams": load.value}
    return {"type_": "constant" if load.arrivals == "constant" else "poisson", "rate": load.value}


def _benchmark(n: int, result: LevelResult, record: RunRecord, zero_s: float) -> _Json:
    """One level; `zero_s` is the time of day at zero of the monotonic clock."""
    trace, window = result.trace, result.window
    ends = {
        "request_start_time": _at(trace.sent_ns.min() if len(trace) else window.start_ns, zero_s),
        "measure_start_time": _at(window.start_ns, zero_s),
        "measure_end_time": _at(window.end_ns, zero_s),
        "request_end_time": _at(trace.ended_ns.max() if len(trace) else window.end_ns, zero_s),
    }
    sample = started(Stretch(trace, window))
    answered, asked = int((sample & metrics.succeeded(trace)).sum()), int(sample.sum())
    counts = {"successful": answered, "errored": asked - answered, "incomplete": 0, "total": asked}
    delay_s, took_s = (
        float(x[sample].mean()) if sample.any() else 0.0
        for x in (metrics.send_delay_ms(trace) / 1e3, (trace.ended_ns - trace.sent_ns) / 1e9)
    )
    strategy = _strategy(result.load)
    return {
        "type_": "generative_benchmark",
        "config": {
            "run_id": record.command or record.started,
            "run_index": n,
            "strategy": strategy,
            "constraints": {},
            "profile": {"kind": strategy["type_"]},
            "requests": msgspec.to_builtins(record.scenario.workload),
            "backend": record.target,
            "environment": {"pacemark": __version__, "load": str(result.load), "labels": record.labels} | record.host,
        },
        "scheduler_state": {
            "start_time": ends["request_start_time"],
            "end_time": ends["request_end_time"],
            "processed_requests": counts["total"],
            "successful_requests": counts["successful"],
            "errored_requests": counts["errored"],
        },
        "scheduler_metrics": ends
        | {"start_time": ends["request_start_time"], "end_time": ends["request_end_time"], "requests_made": counts}
        | dict.fromkeys(("queued_time_avg", "resolve_start_delay_avg", "resolve_targeted_start_delay_avg"), delay_s)
        | dict.fromkeys(("request_start_delay_avg", "request_targeted_start_delay_avg"), delay_s)
        | dict.fromkeys(("request_time_avg", "resolve_time_avg"), took_s)
        | dict.fromkeys(("resolve_end_delay_avg", "finalized_delay_avg", "processed_delay_avg"), 0.0)
        | {"strategy_type": strategy["type_"]},
        "metrics": _metrics(result, sample, counts),
        "requests": {"successful": [], "errored": [], "incomplete": [], "total": None},
        "warnings": [],
        "pacemark": msgspec.to_builtins(result.level.verdict),
    }


def _at(ns: int, zero_s: float) -> float:
    return float(ns / 1e9 + zero_s)


def _metrics(result: LevelResult, sample: NDArray[np.bool_], counts: _Json) -> _Json:
    """The figures of the requests `sample` (n,), of which those that were answered count."""
    trace, level = result.trace, result.level
    good = sample & metrics.succeeded(trace)
    inputs, outputs = trace.input_tokens[good & (trace.input_tokens != ABSENT)], trace.output_tokens[good]
    events, latency_ms = np.diff(trace.offsets)[good], metrics.latency_ms(trace)[good]
    rates = {name: _status(_rates(result, name)) for name in ("requests", "input", "output", "total")}
    timed = {
        "time_to_first_token_ms": (metrics.ttft_ms(trace)[good], level.ttft_ms),
        "time_to_first_output_token_ms": (metrics.ttfa_ms(trace)[good], Distribution()),
        "time_per_output_token_ms": (latency_ms / np.maximum(1, outputs), Distribution()),
        "inter_token_latency_ms": (metrics.tpot_ms(trace)[good], level.tpot_ms),
    }
    return {
        "request_totals": counts,
        "requests_per_second": rates["requests"],
        "request_concurrency": _status(_in_flight(result)),
        "request_latency": _status(latency_ms / 1e3, level.latency_ms, unit=1e-3),
        "request_streaming_iterations_count": _status(events),
        "prompt_token_count": _status(inputs),
        "output_token_count": _status(outputs),
        "total_token_count": _status((trace.input_tokens + trace.output_tokens)[good & (trace.input_tokens != ABSENT)]),
        "prompt_tokens_per_second": rates["input"],
        "output_tokens_per_second": rates["output"],
        "tokens_per_second": rates["total"],
        "output_tokens_per_iteration": _status(outputs / np.maximum(1, events)),
        "iter_tokens_per_iteration": _status((outputs - 1)[events > 1] / (events - 1)[events > 1]),
        **{name: _status(values, figures) for name, (values, figures) in timed.items()},
        **dict.fromkeys(_NOT_MEASURED, _status(np.zeros(0))),
        "text": {
            "tokens": _text_tokens(inputs, outputs, rates),
            **dict.fromkeys(("words", "characters")),
        },
        "image": dict.fromkeys(("tokens", "images", "pixels", "bytes")),
        "video": dict.fromkeys(("tokens", "frames", "seconds", "bytes")),
        "audio": dict.fromkeys(("tokens", "samples", "seconds", "bytes")),
        "tool_call": dict.fromkeys(("tokens", "mixed_tokens", "count")),
    }


def _text_tokens(inputs: Int64, outputs: Int64, rates: _Json) -> _Json:
    values = {"input": inputs, "output": outputs, "total": np.concatenate([inputs, outputs])}
    found: _Json = {}
    for name, tokens in values.items():
        found |= {name: _status(tokens), f"{name}_per_second": rates[name], f"{name}_concurrency": None}
    return found


def _rates(result: LevelResult, of: str) -> Floats:
    """By whole seconds of the window, or over all of it where it is shorter: ends of requests, or tokens."""
    trace, window = result.trace, result.window
    steps = max(1, int(window.seconds))
    edges = np.linspace(window.start_ns, max(window.end_ns, window.start_ns + 1), steps + 1)
    done = metrics.succeeded(trace)
    weights = None if of == "requests" else np.maximum(trace.input_tokens, 0)[done]
    found = np.zeros(steps)
    if of != "output":
        found += np.histogram(trace.ended_ns[done], edges, weights=weights)[0]
    if of in ("output", "total") and trace.outlined.any():
        return np.zeros(0)  # nobody knows when they came
    if of in ("output", "total"):
        times, tokens = metrics.tokens_in(trace, window.start_ns, window.end_ns)
        found += np.histogram(times, edges, weights=tokens)[0]
    per_step: Floats = found / ((edges[1] - edges[0]) / 1e9)
    return per_step


def _in_flight(result: LevelResult) -> Floats:
    """Requests in flight, at moments all over the window."""
    trace, window = result.trace, result.window
    moments = np.linspace(window.start_ns, window.end_ns, _MOMENTS)
    begun, over = (np.searchsorted(np.sort(times), moments) for times in (trace.sent_ns, trace.ended_ns))
    return np.asarray(begun - over, np.int64)


def _status(values: Floats, figures: Distribution | None = None, unit: float = 1.0) -> _Json:
    """The distribution of the answered requests, which are all that have figures; and of the others, which is empty."""
    there, none = _spread(values, figures or Distribution(), unit), _spread(np.zeros(0), Distribution(), unit)
    return {"successful": there, "errored": none, "incomplete": none, "total": there}


def _spread(values: Floats, figures: Distribution, unit: float) -> _Json:
    """A distribution in full, zeros for an empty one, with those intervals of `figures` that are known."""
    known = values[np.isfinite(values)]
    found = known if len(known) else np.zeros(1)
    quantiles = np.quantile(found, list(_SHARES.values()), method="inverted_cdf").tolist()
    kinds, often = np.unique(found, return_counts=True)
    intervals = {name: _interval(getattr(figures, name, Figure()), unit) for name in _SHARES}
    return {
        "mean": float(found.mean()),
        "median": quantiles[list(_SHARES).index("p50")],
        "mode": float(kinds[often.argmax()]),
        "variance": float(found.var()),
        "std_dev": float(found.std()),
        "min": float(found.min()),
        "max": float(found.max()),
        "count": len(known),
        "total_sum": float(found.sum()),
        "percentiles": dict(zip(_SHARES, quantiles, strict=True)),
        "mean_ci": _interval(figures.mean, unit),
        "percentile_cis": intervals if any(intervals.values()) else None,
    }


def _interval(figure: Figure, unit: float) -> _Json | None:
    if figure.low is None or figure.high is None:
        return None
    return {"lower": figure.low * unit, "upper": figure.high * unit}
