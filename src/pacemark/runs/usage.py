"""A stored run beside what the service wrote down of it: usage and inference tables, exported as Parquet or CSV.

Tables of Databricks: `system.ai_gateway.usage`, `system.serving.endpoint_usage`, and inference tables. A row is one
request, found by the tag that pacemark sent with it, else by its user agent, and belongs to the level in whose window
its time lies.
"""

from __future__ import annotations

import contextlib
import csv
import datetime
import statistics
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import msgspec

from pacemark.endpoint.tags import request_id
from pacemark.errors import BadInput
from pacemark.figures.level import LevelResult
from pacemark.runs.conclude import stored
from pacemark.runs.folder import RunFolder
from pacemark.runs.record import read
from pacemark.units import number

__all__ = ["Beside", "ServiceSaid", "beside", "beside_in_words"]

_TIMES = ("event_time", "request_time", "timestamp_ms")
_FIRST = ("time_to_first_byte_ms",)
_LATENCIES = ("latency_ms", "execution_duration_ms", "execution_time_ms")
_INPUTS = ("input_tokens", "input_token_count")
_OUTPUTS = ("output_tokens", "output_token_count")
_TAGS = ("usage_context", "request_tags")
_COLUMNS = (
    *_TIMES,
    *_FIRST,
    *_LATENCIES,
    *_INPUTS,
    *_OUTPUTS,
    *_TAGS,
    "client_request_id",
    "user_agent",
    "status_code",
)


class ServiceSaid(msgspec.Struct, frozen=True, kw_only=True):
    """One level as the service wrote it down, and as it was measured; None for what the table does not have."""

    load: str
    requests: int
    measured_requests: int
    first_byte_ms_p50: float | None
    """The service's time to first byte."""
    ttft_ms_p50: float | None
    latency_ms_p50: float | None
    measured_latency_ms_p50: float | None
    input_tokens: float | None
    """Means of a request."""
    measured_input_tokens: float | None
    output_tokens: float | None
    measured_output_tokens: float | None


class Beside(msgspec.Struct, frozen=True):
    """A run beside a table of its service."""

    matched_by: Literal["tag", "user agent"]
    rows: int
    """Of the run, whether in a window or not."""
    levels: list[ServiceSaid]
    schema: str = "pacemark/beside/1"


def beside(path: Path, file: Path) -> Beside:
    """The levels of a stored run beside what `file` holds of it. Raises BadInput."""
    with contextlib.closing(RunFolder.open(path)) as folder:
        record, run = read(folder.run()), folder.path.name
        if record.began is None:
            raise BadInput(f"{run} does not know its wall clock, as runs of older versions do not: it cannot be joined")
        results = stored(folder, record)
    matched_by, own = _own(_read(file), run)
    if not own:
        raise BadInput(f"{file} holds no request of {run}: neither its tag nor pacemark's user agent is in it")
    times = [(_unix_s(_first(row, _TIMES)), row) for row in own]
    levels = []
    for result in results:
        start_s, end_s = ((ns + record.ahead_ns) / 1e9 for ns in (result.window.start_ns, result.window.end_ns))
        inside = [row for at, row in times if at is not None and start_s <= at <= end_s]
        levels.append(_level(result, [row for row in inside if str(row.get("status_code") or 200).startswith("2")]))
    return Beside(matched_by, len(own), levels)


def beside_in_words(found: Beside) -> Iterator[str]:
    """The same in words, the service's figure before the one that was measured."""
    yield f"{found.rows:,} rows of the run, found by {found.matched_by}; the service's figure, then the measured one:"
    for level in found.levels:
        pairs = {
            "requests": (level.requests, level.measured_requests),
            "first byte and TTFT p50, ms": (level.first_byte_ms_p50, level.ttft_ms_p50),
            "latency p50, ms": (level.latency_ms_p50, level.measured_latency_ms_p50),
            "tokens in": (level.input_tokens, level.measured_input_tokens),
            "tokens out": (level.output_tokens, level.measured_output_tokens),
        }
        told = [f"{name} {_shown(a)} / {_shown(b)}" for name, (a, b) in pairs.items() if a is not None]
        yield f"{level.load}: {', '.join(told)}"


def _shown(value: float | None) -> str:
    return "-" if value is None else f"{value:,}" if isinstance(value, int) else number(value)


def _level(result: LevelResult, rows: Sequence[Mapping[str, Any]]) -> ServiceSaid:
    level = result.level

    def told(names: Iterable[str], of: Callable[[list[float]], float]) -> float | None:
        found = [value for row in rows if (value := _number(_first(row, names))) is not None]
        return round(of(found), 3) if found else None

    return ServiceSaid(
        load=str(level.load),
        requests=len(rows),
        measured_requests=level.requests.in_window,
        first_byte_ms_p50=told(_FIRST, statistics.median),
        ttft_ms_p50=level.ttft_ms.p50.value,
        latency_ms_p50=told(_LATENCIES, statistics.median),
        measured_latency_ms_p50=level.latency_ms.p50.value,
        input_tokens=told(_INPUTS, statistics.fmean),
        measured_input_tokens=level.input_tokens,
        output_tokens=told(_OUTPUTS, statistics.fmean),
        measured_output_tokens=level.output_tokens,
    )


def _own(rows: list[dict[str, Any]], run: str) -> tuple[Literal["tag", "user agent"], list[dict[str, Any]]]:
    tagged = [
        row for row in rows
        if row.get("client_request_id") == request_id(run) or any(run in str(row.get(name) or "") for name in _TAGS)
    ]  # fmt: skip
    if tagged:
        return "tag", tagged
    return "user agent", [row for row in rows if str(row.get("user_agent") or "").startswith("pacemark")]


def _read(file: Path) -> list[dict[str, Any]]:
    if not file.is_file():
        raise BadInput(f"--join {file}: there is no such file")
    if file.suffix.lower() == ".csv":
        with file.open(encoding="utf-8-sig", newline="") as stream:
            return [dict(row) for row in csv.DictReader(stream)]
    try:
        from pyarrow import ArrowException, parquet
    except ImportError:
        raise BadInput("--join reads Parquet with a package: pip install pyarrow; or give it a .csv") from None
    try:
        names = set(parquet.read_schema(file).names)
        found: list[dict[str, Any]] = parquet.read_table(file, columns=[c for c in _COLUMNS if c in names]).to_pylist()
    except (ArrowException, OSError) as error:
        raise BadInput(f"--join {file} is no Parquet file: {str(error).partition(chr(10))[0]}") from None
    return found


def _first(row: Mapping[str, Any], names: Iterable[str]) -> Any:
    return next((row[name] for name in names if row.get(name) not in (None, "")), None)


def _number(value: Any) -> float | None:
    try:
        return float(value)
    except (TypeError, ValueError):
        return None


def _unix_s(value: Any) -> float | None:
    """Seconds since 1970 of a time as tables hold it: UTC, as a date, as text, or as milliseconds."""
    if isinstance(value, str) and _number(value) is None:
        try:
            value = datetime.datetime.fromisoformat(value.strip().replace(" UTC", "+00:00"))
        except ValueError:
            return None
    if isinstance(value, datetime.datetime):
        return (value if value.tzinfo else value.replace(tzinfo=datetime.UTC)).timestamp()
    ms = _number(value)
    return None if ms is None else ms / 1e3
