"""A run as AIPerf stores its own: for each level a folder with its figures and with a record of each request.

The shapes are `JsonExportData`, schema 1.4, and `MetricRecordInfo` of aiperf 0.13.0 (aiperf/common/models); `aiperf
plot` reads the folders. The requests are those that began in the level's window; the rates are those of the window.
"""

from __future__ import annotations

import datetime
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from pacemark.figures import metrics
from pacemark.figures.level import LevelResult, started
from pacemark.figures.rates import Mask, Stretch
from pacemark.pace import Concurrency
from pacemark.runs.record import RunRecord
from pacemark.summary import Figure
from pacemark.trace import ABSENT, Trace
from pacemark.version import __version__

__all__ = ["write_folders"]

_QUANTILES = (1, 5, 10, 25, 50, 75, 90, 95, 99)
_UNITS = {
    "request_latency": "ms", "time_to_first_token": "ms", "inter_token_latency": "ms",
    "output_token_throughput_per_user": "tokens/sec/user", "input_sequence_length": "tokens",
    "output_sequence_length": "tokens",
}  # fmt: skip
"""What each request has, and in which unit."""
_APIS = ("chat", "completions", "embeddings", "responses")
"""Those that are called the same there."""

_Json = dict[str, Any]
_Values = dict[str, NDArray[np.float64]]


def write_folders(results: Sequence[LevelResult], record: RunRecord, path: Path) -> None:
    """Write a folder below `path` for each measurement of `results`; OSError where that cannot be done."""
    names = Counter[str]()
    for result in results:
        load = result.load
        kind = "concurrency" if isinstance(load, Concurrency) else "rate"
        names[name := f"{kind}_{load.value:g}"] += 1
        folder = path / (name if names[name] == 1 else f"{name}_{names[name]}")
        folder.mkdir(parents=True, exist_ok=True)
        sample, values = started(Stretch(result.trace, result.window)), _values(result.trace)
        whole = msgspec.json.encode(_figures(result, sample, values, record, folder.name))
        (folder / "profile_export_aiperf.json").write_bytes(msgspec.json.format(whole, indent=2))
        with (folder / "profile_export.jsonl").open("wb") as file:
            file.writelines(
                msgspec.json.encode(line) + b"\n" for line in _requests(result.trace, sample, values, record.ahead_ns)
            )


def _values(trace: Trace) -> _Values:
    """By name in `_UNITS`: a value for each request (n,), NaN where it has none."""
    tpot_ms = metrics.tpot_ms(trace)
    with np.errstate(divide="ignore"):
        pace = 1e3 / tpot_ms
    lengths = {"input_sequence_length": trace.input_tokens, "output_sequence_length": trace.output_tokens}
    return {
        "request_latency": metrics.latency_ms(trace),
        "time_to_first_token": metrics.ttft_ms(trace),
        "inter_token_latency": tpot_ms,
        "output_token_throughput_per_user": np.where(np.isfinite(pace), pace, np.nan),
    } | {name: np.where(tokens == ABSENT, np.nan, tokens) for name, tokens in lengths.items()}


def _figures(result: LevelResult, sample: Mask, values: _Values, record: RunRecord, name: str) -> _Json:
    """profile_export_aiperf.json of one level, whose requests (n,) of the window are the `sample`."""
    trace, window, level = result.trace, result.window, result.level
    good = sample & metrics.succeeded(trace)
    found: _Json = {"schema_version": "1.4", "aiperf_version": f"pacemark {__version__}"}
    for metric, each in values.items():
        known = each[good & np.isfinite(each)]
        if len(known):
            found[metric] = _spread(known, _UNITS[metric])
    rates = {
        "request_throughput": (level.requests_per_s, "requests/sec"),
        "output_token_throughput": (level.output_tokens_per_s, "tokens/sec"),
        "total_token_throughput": (level.total_tokens_per_s, "tokens/sec"),
        "goodput": (level.goodput.requests_per_s if level.goodput else Figure(), "requests/sec"),
        "request_count": (Figure(int(good.sum())), "requests"),
        "error_request_count": (Figure(int((sample & ~good).sum())), "requests"),
        "benchmark_duration": (Figure(window.seconds), "sec"),
    }
    found |= {n: {"unit": unit, "avg": figure.value} for n, (figure, unit) in rates.items() if figure.value is not None}
    failed = Counter(trace.error[sample & ~good].tolist())
    return found | {
        "input_config": _config(result, record),
        "run_info": {"run_label": name, "variation_label": name, "random_seed": record.scenario.workload.seed}
        | {"cli_command": record.command},
        "was_cancelled": level.ended_by == "interrupted",
        "error_summary": [{"error_details": _error(kind), "count": count} for kind, count in failed.items()],
        "start_time": _time(window.start_ns + record.ahead_ns),
        "end_time": _time(window.end_ns + record.ahead_ns),
        "pacemark": msgspec.to_builtins(level.verdict),
    }


def _spread(values: NDArray[np.float64], unit: str) -> _Json:
    quantiles = np.quantile(values, [q / 100 for q in _QUANTILES], method="inverted_cdf").tolist()
    return {
        "unit": unit,
        "avg": float(values.mean()),
        **{f"p{q}": value for q, value in zip(_QUANTILES, quantiles, strict=True)},
        "min": float(values.min()),
        "max": float(values.max()),
        "std": float(values.std()),
        "count": len(values),
        "sum": float(values.sum()),
    }


def _config(result: LevelResult, record: RunRecord) -> _Json:
    """What was asked for, as AIPerf would be asked for it. Arrivals that it does not know are called poisson."""
    load, settings, trace = result.load, record.scenario.settings, result.trace
    phase: _Json = {"name": "profiling", "duration": settings.duration_s}
    if isinstance(load, Concurrency):
        phase |= {"type": "concurrency", "concurrency": load.value}
    else:
        phase |= {"type": load.arrivals if load.arrivals != "trace" else "poisson", "rate": load.value}
    asked = {"isl": trace.asked_input[trace.asked_input > 0], "osl": trace.asked_tokens[trace.asked_tokens > 0]}
    lengths = {name: float(tokens.mean()) for name, tokens in asked.items() if len(tokens)}
    api = record.target.get("api")
    return {
        "models": {"items": [{"name": record.target.get("model") or "unknown"}]},
        "endpoint": {"urls": [record.target.get("url", "")], "streaming": settings.stream}
        | {"type": api if api in _APIS else "chat"},
        "datasets": [
            {"name": "main", "type": "synthetic", "prompts": {name: {"mean": mean} for name, mean in lengths.items()}}
        ],
        "phases": [phase],
    }


def _time(ns: int) -> str:
    return datetime.datetime.fromtimestamp(ns / 1e9, datetime.UTC).isoformat()


def _error(kind: str) -> _Json:
    code = kind.removeprefix("http_")
    return {"type": kind, "message": kind} | ({"code": int(code)} if code.isdigit() else {})


def _requests(trace: Trace, sample: Mask, values: _Values, zero_ns: int) -> Iterator[_Json]:
    """Lines of profile_export.jsonl."""
    for row in np.flatnonzero(sample).tolist():
        headers_ns, error = int(trace.headers_ns[row]), str(trace.error[row])
        about = {
            "session_num": int(trace.index[row]),
            "request_start_ns": int(trace.sent_ns[row]) + zero_ns,
            "request_ack_ns": headers_ns + zero_ns if headers_ns != ABSENT else None,
            "request_end_ns": int(trace.ended_ns[row]) + zero_ns,
            "worker_id": f"stream_{int(trace.stream[row])}",
            "record_processor_id": "pacemark",
            "benchmark_phase": "profiling",
        }
        known = {name: float(column[row]) for name, column in values.items() if np.isfinite(column[row])}
        yield {
            "metadata": about,
            "metrics": {name: {"value": value, "unit": _UNITS[name]} for name, value in known.items()},
            "error": _error(error) if error else None,
        }
