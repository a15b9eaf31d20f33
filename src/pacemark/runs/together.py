"""Pages of several runs: those that are named, side by side, and those of a folder, over time."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Sequence
from pathlib import Path

from pacemark.answers.comparison import Compared, compare_runs
from pacemark.answers.family import corrected
from pacemark.errors import BadInput
from pacemark.files import write_whole
from pacemark.runs.folder import RunFolder
from pacemark.summary import Summary

__all__ = ["MOST", "write_index", "write_together"]

MOST = 8
"""Runs that one chart can tell apart."""


def write_together(paths: Sequence[Path], page: Path) -> Path:
    """Write the page of 2 to `MOST` runs, each held against the first. Raises BadInput."""
    from pacemark.reporting.together import RunOnPage, together_page

    if not 2 <= len(paths) <= MOST:
        raise BadInput(f"one page holds 2 to {MOST} runs, not {len(paths)}")
    runs = [
        RunOnPage(chr(ord("A") + n), summary, _link(folder, page))
        for n, (summary, folder) in enumerate(map(_read, paths))
    ]
    found: list[tuple[str, Compared | str]] = []
    for run in runs[1:]:
        try:
            both = runs[0].summary, run.summary
            found.append((run.name, corrected(compare_runs(*both), *(x.levels for x in both))))
        except BadInput as error:
            found.append((run.name, f"{error}."))
    return _written(page, together_page(runs, found))


def write_index(folder: Path, page: Path) -> Path:
    """Write the page of the runs in `folder`. Raises BadInput where there is none."""
    from pacemark.reporting.together import RunOnPage, index_page

    runs, unread = [], []
    for path in sorted(p.parent for p in folder.glob("*/run.json")):
        try:
            summary, where = _read(path)
            runs.append(RunOnPage(path.name, summary, _link(where, page)))
        except BadInput as error:
            unread.append((path.name, str(error)))
    if not runs:
        raise BadInput(f"{folder} holds no run with a summary: runs are stored below ./runs")
    return _written(page, index_page(runs, unread))


def _read(path: Path) -> tuple[Summary, Path]:
    with contextlib.closing(RunFolder.open(path)) as folder:
        return folder.summary(), folder.path


def _link(folder: Path, page: Path) -> str:
    """The way from a page to the report of a run."""
    return Path(os.path.relpath(folder / "report.html", page.parent)).as_posix()


def _written(page: Path, text: str) -> Path:
    try:
        page.parent.mkdir(parents=True, exist_ok=True)
        write_whole(page, text.encode())
    except OSError as error:
        raise BadInput(f"{page} cannot be written ({error.strerror})") from None
    return page
