"""A long run, and whether anything grows in it (`make soak`).

    python benchmarks/soak.py [--minutes 30] [--streams 256] [--rate 200] [--itl-ms 10]

For half of the time the embedded endpoint is asked by so many streams, for half of it by so many requests/s, with
lengths that change. Every second it looks at the coordinating process, at the worker and at its reader: memory,
descriptors, threads. Prints the most memory that each had, what it grew by between the second and the last but one
tenth of its time (the coordinating process keeps columns of what it measured: their size stands beside it), and how
late requests were sent and answers were read, by quarters.
"""

from __future__ import annotations

import argparse
import contextlib
import sqlite3
import sys
import tempfile
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

from pacemark.pace import Rate
from pacemark.runs.folder import RunFolder
from pacemark.simulator import serving
from support.soaking import Look, growth, soaked


def told(what: str, looks: dict[str, list[Look]], path: Path) -> None:
    """Print what grew in a run, and the lag."""
    with contextlib.closing(sqlite3.connect(path / "run.db")) as db:
        kind, requests, events = db.execute(
            "SELECT (SELECT load FROM level), count(*), sum(events) FROM request WHERE level = 0"
        ).fetchone()
        sound = db.execute("PRAGMA quick_check").fetchone()[0]
    folder = RunFolder.open(path)
    trace = folder.trace(0, open_loop="rate" in kind)
    window = folder.levels()[0].window
    open_loop = isinstance(folder.levels()[0].load, Rate)
    folder.close()
    columns = sum(getattr(trace, name).nbytes for name in trace.__slots__ if hasattr(getattr(trace, name), "nbytes"))
    print(f"{what}: {requests:,} requests and {events:,} events in {window.seconds:.0f} s; database: {sound}")
    for name, seen in looks.items():
        by = growth(seen)
        beside = f" (its columns are {0.8 * columns / 1e6:.0f} MB)" if name == "coordinator" else ""
        most = max(look.rss_kb for look in seen)
        print(f"  {name:12} {most / 1e3:7.1f} MB at most, {by.rss_kb / 1e3:+.1f} MB{beside}", end="")
        print(f", {by.descriptors:+} descriptors, {by.threads:+} threads")
    begun = trace.scheduled_ns if open_loop else trace.sent_ns
    late_ms = (trace.sent_ns - trace.scheduled_ns) / 1e6
    bounds = np.linspace(window.start_ns, window.end_ns, 5)
    late = [late_ms[(begun >= a) & (begun < b)] for a, b in pairwise(bounds)]
    print(f"  sent late by, p99 of each quarter: {_p99(late)} ms")
    print(
        f"  read late by, p99 of each quarter: {_p99([lags_ms(path, a, b) for a, b in pairwise(bounds)])} ms",
        flush=True,
    )


def lags_ms(path: Path, start_ns: float, end_ns: float) -> NDArray[np.float32]:
    """How long what was read lay in the kernel, of the requests sent in a part of the time."""
    with contextlib.closing(sqlite3.connect(path / "run.db")) as db:
        asked = "SELECT lag_ns FROM request WHERE level = 0 AND sent_ns BETWEEN ? AND ?"
        lags = b"".join(lag for (lag,) in db.execute(asked, (int(start_ns), int(end_ns))))
    return np.frombuffer(lags, "<i4").astype(np.float32) / np.float32(1e6)


def _p99(parts: Sequence[NDArray[Any]]) -> str:
    return ", ".join(f"{np.quantile(part, 0.99):.2f}" if len(part) else "-" for part in parts)


def main() -> None:
    words = argparse.ArgumentParser(description=__doc__)
    words.add_argument("--minutes", type=float, default=30.0)
    words.add_argument("--streams", type=int, default=256)
    words.add_argument("--rate", type=float, default=200.0)
    words.add_argument("--itl-ms", type=float, default=10.0, help="of the embedded endpoint")
    given = words.parse_args()
    loads = {
        f"{given.streams} streams": ("--concurrency", str(given.streams)),
        f"{given.rate:g} requests/s": ("--rate", str(given.rate)),
    }
    with serving("fixed", ttft_ms=50, itl_ms=given.itl_ms) as served, tempfile.TemporaryDirectory() as folder:
        for number, (what, load) in enumerate(loads.items()):
            out = Path(folder) / str(number)
            looks = soaked(served.url, load, given.minutes * 30, out)
            told(what, looks, next(out.iterdir()))


if __name__ == "__main__":
    main()
