"""A long run, and whether anything grows in it (`make soak`).

    python benchmarks/soak.py [--minutes 30] [--streams 256] [--rate 200]

Half of the time the embedded endpoint is asked by so many streams, half of it by so many requests/s, with lengths that
change. Every second it looks at the coordinating process, at the worker and at its reader: memory, descriptors,
threads. Prints what each grew by between the second and the last but one tenth of its time (the coordinating process
keeps columns of what it measured: their size stands beside it), and how late requests were sent, by quarters.
"""

from __future__ import annotations

import argparse
import contextlib
import sqlite3
import sys
import tempfile
from itertools import pairwise
from pathlib import Path

import numpy as np

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
        print(f"  {name:12} {by.rss_kb / 1e3:+7.1f} MB{beside}, {by.descriptors:+} descriptors, {by.threads:+} threads")
    begun = trace.scheduled_ns if open_loop else trace.sent_ns
    late_ms = (trace.sent_ns - trace.scheduled_ns) / 1e6
    bounds = np.linspace(window.start_ns, window.end_ns, 5)
    quarters = [late_ms[(begun >= a) & (begun < b)] for a, b in pairwise(bounds)]
    p99 = ", ".join(f"{np.quantile(x, 0.99):.2f}" if len(x) else "-" for x in quarters)
    print(f"  sent late by, p99 of each quarter: {p99} ms", flush=True)


def main() -> None:
    words = argparse.ArgumentParser(description=__doc__)
    words.add_argument("--minutes", type=float, default=30.0)
    words.add_argument("--streams", type=int, default=256)
    words.add_argument("--rate", type=float, default=200.0)
    given = words.parse_args()
    loads = {
        f"{given.streams} streams": ("--concurrency", str(given.streams)),
        f"{given.rate:g} requests/s": ("--rate", str(given.rate)),
    }
    with serving("fixed", ttft_ms=50, itl_ms=10) as served, tempfile.TemporaryDirectory() as folder:
        for number, (what, load) in enumerate(loads.items()):
            out = Path(folder) / str(number)
            looks = soaked(served.url, load, given.minutes * 30, out)
            told(what, looks, next(out.iterdir()))


if __name__ == "__main__":
    main()
