"""A run's requests as a table for other tools."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

import msgspec

from pacemark import metrics
from pacemark.errors import BadInput
from pacemark.exchange import trace_of
from pacemark.pace import Rate
from pacemark.store import RunFolder


def export(run: Path, format: str, output: Path | None = None) -> Path:
    """Write one row per request, with its metrics in ms, and return the file's path.

    A metric that a request does not have is an empty field (CSV) or null (Parquet). Raises BadInput for an unknown
    format, a missing extra or a path that cannot be written.
    """
    if format not in ("csv", "parquet"):
        raise BadInput(f"--format {format!r} is not known: use csv or parquet")
    folder = RunFolder.open(run)
    try:
        columns = _columns(folder)
        path = output or folder.path / f"requests.{format}"
        if format == "csv":
            with path.open("w", newline="", encoding="utf-8") as file:
                writer = csv.writer(file)
                writer.writerow(columns)
                writer.writerows(zip(*columns.values(), strict=True))
        else:
            _write_parquet(columns, path)
    except OSError as error:
        raise BadInput(f"cannot write {path}: {error.strerror or error}") from None
    finally:
        folder.close()
    return path


def _columns(folder: RunFolder) -> dict[str, list[Any]]:
    columns: dict[str, list[Any]] = {}
    for level, load, window, *_ in folder.levels():
        rows = sorted(folder.exchanges(level), key=lambda x: x.sent_ns)
        trace = trace_of(rows, isinstance(load, Rate))
        inside = metrics.started_in(trace, window.start_ns, window.end_ns).tolist()
        fields: dict[str, list[Any]] = {
            "level": [level] * len(rows),
            "load_kind": [msgspec.to_builtins(load)["kind"]] * len(rows),
            "load_value": [load.value] * len(rows),
            "in_window": inside,
            **{
                name: [getattr(x, name) for x in rows]
                for name in ("index", "stream", "scheduled_ns", "sent_ns", "status", "error", "finish_reason")
            },
            **{
                name: [None if getattr(x, name) < 0 else getattr(x, name) for x in rows]
                for name in ("asked_tokens", "input_tokens", "cached_tokens", "output_tokens")
            },
            "events": [len(x.hi_ns) for x in rows],
            **{
                name: [None if v != v else v for v in getattr(metrics, name)(trace).tolist()]
                for name in ("ttft_ms", "ttfa_ms", "ttfb_ms", "tpot_ms", "latency_ms", "send_delay_ms")
            },
        }
        for name, values in fields.items():
            columns.setdefault(name, []).extend(values)
    return columns


def _write_parquet(columns: dict[str, list[Any]], path: Path) -> None:
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError:
        raise BadInput("--format parquet needs the extra: pip install 'pacemark[arrow]'") from None
    pyarrow.parquet.write_table(pyarrow.table(columns), path)
