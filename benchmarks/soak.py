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
import os
import sqlite3
import subprocess
import sys
import tempfile
import time
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

from pacemark.pace import Rate
from pacemark.runs.folder import RunFolder
from pacemark.simulator import serving
from support.processes import family

LENGTHS = ("--input-tokens", "lognormal(200, cv=1)", "--output-tokens", "uniform(4, 60)")
NAMES = ("coordinator", "worker", "reader")


class Look(NamedTuple):
    """One process at one moment."""

    rss_kb: int
    descriptors: int
    threads: int


def looked(pid: int) -> Look:
    """A process as it is. Raises OSError where it has ended."""
    status = Path(f"/proc/{pid}/status").read_text()
    fields = dict(line.split(":", 1) for line in status.splitlines())
    descriptors = len(os.listdir(f"/proc/{pid}/fd"))
    return Look(int(fields["VmRSS"].split()[0]), descriptors, int(fields["Threads"]))


def run(url: str, load: tuple[str, ...], seconds: float, out: Path) -> dict[str, list[Look]]:
    """Measure for so long; the looks at each process."""
    words = ["sweep", url, *load, "--duration", f"{seconds:g}", *LENGTHS, "--workers", "1", "--out", str(out)]
    command = [sys.executable, "-m", "pacemark.cli", *words]
    looks: dict[str, list[Look]] = {name: [] for name in NAMES}
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        while process.poll() is None:
            with contextlib.suppress(OSError):
                ours = [
                    p for p in family(process.pid) if b"instrument.worker" in Path(f"/proc/{p}/cmdline").read_bytes()
                ]
                for name, pid in zip(NAMES, [process.pid, *sorted(ours)], strict=False):
                    looks[name].append(looked(pid))
            time.sleep(1.0)
    assert process.returncode in (0, 3), process.returncode
    return looks


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
        tenth = max(1, len(seen) // 10)
        first, last = seen[tenth : 2 * tenth], seen[-2 * tenth : -tenth]  # without the start and the report
        grown = [np.median([x[k] for x in last]) - np.median([x[k] for x in first]) for k in range(3)]
        beside = f" (its columns are {0.8 * columns / 1e6:.0f} MB)" if name == "coordinator" else ""
        print(f"  {name:12} {grown[0] / 1e3:+7.1f} MB{beside}, {grown[1]:+.0f} descriptors, {grown[2]:+.0f} threads")
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
            looks = run(served.url, load, given.minutes * 30, out)
            told(what, looks, next(out.iterdir()))


if __name__ == "__main__":
    main()
