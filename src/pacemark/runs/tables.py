"""A run as a table, with the same columns whatever the run: for pandas, Arrow and Spark."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import msgspec
import numpy as np

from pacemark.errors import BadInput
from pacemark.figures import metrics
from pacemark.pace import Rate
from pacemark.runs.folder import RunFolder
from pacemark.summary import LATENCIES, RATES, STATISTICS, Figure, Level, Summary

if TYPE_CHECKING:
    import pandas
    import pyarrow
    from pyspark.sql import DataFrame, SparkSession

__all__ = ["RowsOf", "Table", "levels", "requests", "table", "to_arrow", "to_pandas", "to_spark"]

RowsOf = Literal["levels", "requests"]
"""What a row is: a load level with its figures, or one request with its times."""


class Table(NamedTuple):
    """Columns by name. Every value is None or of its column's type, where a whole number may stand for a float."""

    types: dict[str, type]
    columns: dict[str, list[Any]]


def table(summary: Summary, path: Path, rows: RowsOf) -> Table:
    """The run's levels, or the requests in its folder. Raises BadInput for other rows, or where the folder is gone."""
    if rows == "levels":
        return levels(summary, path.name)
    if rows != "requests":
        raise BadInput(f"rows {rows!r} is not known: use levels or requests")
    folder = RunFolder.open(path)
    try:
        return requests(folder)
    finally:
        folder.close()


# --- rows


def levels(summary: Summary, name: str) -> Table:
    """One row per level: what was offered, every figure with the ends of its interval, and the verdict.

    `name` is that of the run. A figure is a column such as `ttft_ms_p95`, beside `ttft_ms_p95_low` and `_high`.
    """
    rows = [_level(level, summary, name) for level in summary.levels]
    types = {column: kind for column, (kind, _) in _level(None, summary, name).items()}
    return Table(types, {column: [_as(kind, row[column][1]) for row in rows] for column, kind in types.items()})


def _as(kind: type, value: Any) -> Any:
    """`value` in its column's type: a whole number in a column of floats would be refused by Spark."""
    return float(value) if kind is float and value is not None else value


def _level(level: Level | None, summary: Summary, name: str) -> dict[str, tuple[type, Any]]:
    """A row's columns with their types; without a level the types are all that counts."""

    def of(path: str) -> Any:
        value: Any = level
        for part in path.split("."):
            value = getattr(value, part, None)
        return value

    def asked(field: str) -> Any:
        return of(f"asked.{field}") or summary.workload.get(field)

    load = level.load if level else None
    found: dict[str, tuple[type, Any]] = {
        "run": (str, name),
        "started": (str, summary.run.get("started")),
        "url": (str, summary.target.get("url")),
        "model": (str, summary.target.get("model")),
        "asked_input_tokens": (int, asked("input_tokens")),
        "asked_output_tokens": (int, asked("output_tokens")),
        "load_kind": (str, "rate" if isinstance(load, Rate) else "concurrency"),
        "load_value": (float, float(load.value) if load else None),
        "arrivals": (str, load.arrivals if isinstance(load, Rate) else None),
        "burstiness": (float, load.burstiness if isinstance(load, Rate) else None),
        "window_s": (float, of("window_s")),
        **{field: (int, of(f"requests.{field}")) for field in ("completed", "failed", "in_window", "short")},
        "errors": (str, msgspec.json.encode(of("errors") or {}).decode()),
        "input_tokens": (float, of("input_tokens")),
        "output_tokens": (float, of("output_tokens")),
    }
    for rate in RATES:
        found |= _figure(rate, of(rate))
    for metric in LATENCIES:
        for statistic in STATISTICS:
            found |= _figure(f"{metric}_{statistic}", of(f"{metric}.{statistic}"))
    found |= _figure("goodput_share", of("goodput.share"))
    found |= _figure("goodput_requests_per_s", of("goodput.requests_per_s"))
    verdict = level.verdict if level else None
    return found | {
        "clock": (str, of("client.clock")),
        "lag_ms_p99": (float, of("client.lag_ms.p99")),
        "bound_ms": (float, of("client.bound_ms")),
        "budget": (str, of("budget.status")),
        "verdict": (str, of("verdict.status")),
        "reasons": (str, "; ".join(reason.message for reason in verdict.reasons) if verdict else None),
        "ended_by": (str, of("ended_by")),
        "repeats": (int, of("repeats")),
    }


def _figure(name: str, figure: Figure | None) -> dict[str, tuple[type, Any]]:
    value, low, high = (figure.value, figure.low, figure.high) if figure else (None, None, None)
    return {name: (float, value), f"{name}_low": (float, low), f"{name}_high": (float, high)}


_TIMES = (
    *("ttft_ms", "ttfa_ms", "ttfb_ms", "tpot_ms", "latency_ms", "send_delay_ms"),
    *("upload_ms", "reasoning_ms", "call_ms", "complete_call_ms"),
)
_COUNTS = (
    *("asked_tokens", "input_tokens", "cached_tokens", "output_tokens", "reasoning_tokens"),
    *("calls", "malformed_calls", "json_answer", "sent_bytes"),
)
_REQUEST: dict[str, type] = {
    "level": int, "load_kind": str, "load_value": float, "in_window": bool, "index": int, "stream": int,
    "scheduled_ns": int, "sent_ns": int, "status": int, "error": str, "finish_reason": str, "disclosed": str,
    **dict.fromkeys(_COUNTS, int), "events": int, **dict.fromkeys(_TIMES, float),
}  # fmt: skip


def requests(folder: RunFolder) -> Table:
    """One row per request, in the order sent: its level, how it ended, its tokens, and its metrics in ms."""
    columns: dict[str, list[Any]] = {name: [] for name in _REQUEST}
    for level, load, window, *_ in folder.levels():
        trace = folder.trace(level, open_loop=isinstance(load, Rate))
        fields: dict[str, list[Any]] = {
            "level": [level] * len(trace),
            "load_kind": [msgspec.to_builtins(load)["kind"]] * len(trace),
            "load_value": [load.value] * len(trace),
            "in_window": metrics.started_in(trace, window.start_ns, window.end_ns).tolist(),
            "events": np.diff(trace.offsets).tolist(),
        }
        for name in ("index", "stream", "scheduled_ns", "sent_ns", "status", "error", "finish_reason", "disclosed"):
            fields[name] = getattr(trace, name).tolist()
        for name in _COUNTS:
            fields[name] = [None if v < 0 else v for v in getattr(trace, name).tolist()]
        for name in _TIMES:
            fields[name] = [None if v != v else v for v in getattr(metrics, name)(trace).tolist()]
        for name, values in fields.items():
            columns[name] += values
    return Table(_REQUEST, columns)


# --- forms


def to_pandas(table: Table) -> pandas.DataFrame:
    """The table as a data frame; raises BadInput where pandas is missing."""
    try:
        import pandas
    except ImportError:
        raise BadInput("a data frame needs pandas: pip install pandas") from None
    kinds: dict[type, Any] = {str: "object", float: "float64", bool: "bool", int: "Int64"}
    return pandas.DataFrame({n: pandas.Series(v, dtype=kinds[table.types[n]]) for n, v in table.columns.items()})


def to_arrow(table: Table) -> pyarrow.Table:
    """The table for Arrow; raises BadInput where pyarrow is missing."""
    try:
        import pyarrow
    except ImportError:
        raise BadInput("Arrow and Parquet need a package: pip install pyarrow") from None
    kinds = {str: pyarrow.string(), float: pyarrow.float64(), bool: pyarrow.bool_(), int: pyarrow.int64()}
    schema = pyarrow.schema([(name, kinds[kind]) for name, kind in table.types.items()])
    return pyarrow.table(table.columns, schema=schema)


_SPARK = {str: "string", float: "double", bool: "boolean", int: "bigint"}


def to_spark(table: Table, session: SparkSession | None = None) -> DataFrame:
    """The table as a Spark data frame, in `session` or the one there is, as there is in a Databricks notebook.

    Raises BadInput where there is none. `getOrCreate` finds it from any thread, where `getActiveSession` does not.
    """
    if session is None:
        try:
            from pyspark.sql import SparkSession
        except ImportError:
            raise BadInput("a Spark data frame needs pyspark, which a Databricks notebook has") from None
        try:
            session = SparkSession.builder.getOrCreate()
        except Exception as error:  # no Java, no cluster: Spark raises errors of its own kinds
            raise BadInput(f"no Spark session: {str(error).partition(chr(10))[0]}; give one") from None
    schema = ", ".join(f"`{name}` {_SPARK[kind]}" for name, kind in table.types.items())
    columns = ([_as(kind, value) for value in table.columns[name]] for name, kind in table.types.items())
    rows = list(zip(*columns, strict=True))
    return session.createDataFrame(rows, schema=schema)
