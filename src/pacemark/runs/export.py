"""A run's requests as a file for other tools."""

from __future__ import annotations

import csv
from pathlib import Path

from pacemark.errors import BadInput
from pacemark.runs.folder import RunFolder
from pacemark.runs.tables import requests, to_arrow


def export(run: Path, format: str, output: Path | None = None) -> Path:
    """Write one row per request, with its metrics in ms, and return the file's path.

    A metric that a request does not have is an empty field (CSV) or null (Parquet). Raises BadInput for an unknown
    format, a missing extra or a path that cannot be written.
    """
    if format not in ("csv", "parquet"):
        raise BadInput(f"--format {format!r} is not known: use csv or parquet")
    folder = RunFolder.open(run)
    try:
        table = requests(folder)
        path = output or folder.path / f"requests.{format}"
        if format == "csv":
            with path.open("w", newline="", encoding="utf-8") as file:
                writer = csv.writer(file)
                writer.writerow(table.columns)
                writer.writerows(zip(*table.columns.values(), strict=True))
        else:
            rows = to_arrow(table)
            import pyarrow.parquet

            pyarrow.parquet.write_table(rows, path)
    except OSError as error:
        raise BadInput(f"cannot write {path}: {error.strerror or error}") from None
    finally:
        folder.close()
    return path
