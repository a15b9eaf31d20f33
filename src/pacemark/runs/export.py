"""A run as a file for other tools."""

from __future__ import annotations

import csv
from pathlib import Path

from pacemark.errors import BadInput
from pacemark.reporting import junit, markdown, openmetrics
from pacemark.reporting.answer import answer
from pacemark.runs.aiperf import write_folders
from pacemark.runs.conclude import stored
from pacemark.runs.folder import RunFolder
from pacemark.runs.guidellm import benchmarks_json
from pacemark.runs.record import read
from pacemark.runs.tables import Table, levels, requests, to_arrow
from pacemark.summary import Summary

NAMES = {"openmetrics": "metrics.txt", "junit": "junit.xml", "markdown": "summary.md"}
"""What a summary's file is called, by its format; tables are called after their rows."""
PEERS = {"guidellm": "benchmarks.json", "aiperf": "aiperf"}
"""Formats of other load testers, and what is written: a file, or a folder with one for each level."""


def export(run: Path, format: str, output: Path | None = None, rows: str = "requests") -> Path:
    """Write a run's `rows` as a table (`csv`, `parquet`), its levels as `openmetrics`, `junit` or `markdown`, or what
    `guidellm` or `aiperf` would have written of it, and return the path.

    A metric that a request does not have is an empty field (CSV) or null (Parquet). Raises BadInput for an unknown
    format, other rows, a missing extra or a path that cannot be written.
    """
    if format not in ("csv", "parquet", *NAMES, *PEERS):
        raise BadInput(f"--format {format!r} is not known: use csv, parquet, {', '.join((*NAMES, *PEERS))}")
    if rows not in ("levels", "requests"):
        raise BadInput(f"--rows {rows!r} is not known: use levels or requests")
    folder = RunFolder.open(run)
    try:
        path = output or folder.path / (NAMES | PEERS).get(format, f"{rows}.{format}")
        if format in PEERS:
            record = read(folder.run())
            results = stored(folder, record)
            if format == "aiperf":
                write_folders(results, record, path)
            else:
                path.write_bytes(benchmarks_json(results, record))
        elif format in NAMES:
            path.write_text(_told(folder.summary(), format), encoding="utf-8")
        else:
            table = requests(folder) if rows == "requests" else levels(folder.summary(), folder.path.name)
            _write(table, format, path)
    except OSError as error:
        raise BadInput(f"cannot write {path}: {error.strerror or error}") from None
    finally:
        folder.close()
    return path


def _told(summary: Summary, format: str) -> str:
    if format == "openmetrics":
        return openmetrics.openmetrics(summary)
    if format == "junit":
        return junit.of_run(summary)
    first = answer(summary)[0]
    return markdown.run_in_markdown(summary, f"{first.name}: {first.text}")


def _write(table: Table, format: str, path: Path) -> None:
    if format == "parquet":
        arrow = to_arrow(table)
        import pyarrow.parquet

        pyarrow.parquet.write_table(arrow, path)
        return
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(table.columns)
        writer.writerows(zip(*table.columns.values(), strict=True))
