"""What a large run costs: writing it as it comes, whether its database is sound, opening it, and summing it up anew.

    python benchmarks/summary.py [--requests 1000000] [--tokens 16] [--level 1000000] [--folder DIR]
    python benchmarks/summary.py --requests 1000000 10000000

Made up requests (as in events.py) of several levels go through the code that records every run, with its commits; then
the database is checked by SQLite, its summary is opened as `pacemark show` does, and the run is summed up from its
requests as `pacemark report` does, with its charts. Each size is written and read in processes of their own, whose peak
of resident memory is what is told.
"""

from __future__ import annotations

import argparse
import contextlib
import resource
import sqlite3
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import msgspec

from events import STREAMS, answered
from pacemark.pace import Concurrency
from pacemark.runs.folder import RunFolder
from pacemark.runs.ledger import Ledger
from pacemark.trace import Window

GB = 1e9


def write(path: Path, requests: int, tokens: int, level: int) -> dict[str, Any]:
    """A run with levels of so many requests; where it is, and what it took to write it."""
    record = {
        "schema": "pacemark/run/1",
        "target": {"url": "http://127.0.0.1:8000/v1", "model": "made-up", "api": "chat"},
        "workload": {"input_tokens": 256, "output_tokens": tokens, "seed": 1},
        "settings": {"duration_s": 60.0, "workers": 1},
        "loads": [{"kind": "concurrency", "value": STREAMS}] * -(-requests // level),
        "interrupted": False,
        "failure": None,
    }
    folder, ledger = RunFolder.create(path, "large", record), Ledger(str)
    ledger.folder = folder
    spent_s = 0.0
    for number in range(-(-requests // level)):
        ledger.open(number)
        first_ns = last_ns = 0
        for exchange in answered(min(level, requests - number * level), tokens, number):
            if not first_ns:
                first_ns = exchange.sent_ns
                folder.begin_level(number, Concurrency(STREAMS), first_ns)
            last_ns = exchange.sent_ns
            begun_s = time.process_time()
            ledger.add(exchange)
            folder.commit()
            spent_s += time.process_time() - begun_s
        folder.set_window(number, Window(first_ns + 5 * 10**9, last_ns), "duration")
        ledger.close(number)
    begun_s = time.monotonic()
    folder.close()
    return {"folder": str(folder.path), "add_us": 1e6 * spent_s / requests, "close_s": time.monotonic() - begun_s}


def check(path: Path) -> dict[str, Any]:
    """Have SQLite look at every page and index of the database."""
    begun_s = time.monotonic()
    with contextlib.closing(sqlite3.connect(path / "run.db")) as db:
        (said,), (rows,) = (
            db.execute(x).fetchone() for x in ("PRAGMA integrity_check", "SELECT count(*) FROM request")
        )
    return {"sound": said, "rows": rows, "check_s": time.monotonic() - begun_s}


def sum_up(path: Path) -> dict[str, Any]:
    """Sum the run up anew, report and all; then open it as it is."""
    import pacemark
    from pacemark.runs.listing import stored_runs

    begun_s = time.monotonic()
    run = pacemark.report(path)
    summed_s = time.monotonic() - begun_s
    begun_s = time.monotonic()
    stored_runs(path.parent)
    with contextlib.closing(RunFolder.open(path)) as folder:
        folder.summary()
    return {
        "in_window": sum(level.requests.in_window for level in run.levels),
        "summed_s": summed_s,
        "open_s": time.monotonic() - begun_s,
    }


def apart(*words: object) -> dict[str, Any]:
    """One of the steps, in a process of its own; what it found, and its most memory."""
    done = subprocess.run([sys.executable, __file__, *map(str, words)], check=True, capture_output=True)
    return msgspec.json.decode(done.stdout, type=dict[str, Any])


def main() -> None:
    """Write, check and sum up each size, and print a line."""
    words = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    words.add_argument("--requests", type=int, nargs="+", default=[1_000_000])
    words.add_argument("--tokens", type=int, default=16)
    words.add_argument("--level", type=int, default=1_000_000, help="requests of a level")
    words.add_argument("--folder", type=Path, help="where the runs are written; they are removed again")
    words.add_argument("--step", choices=("write", "check", "sum_up"), help=argparse.SUPPRESS)
    given = words.parse_args()
    if given.step is not None:
        more = (given.requests[0], given.tokens, given.level) if given.step == "write" else ()
        found = globals()[given.step](given.folder, *more)
        found["most"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
        return print(msgspec.json.encode(found).decode())
    for requests in given.requests:
        with tempfile.TemporaryDirectory(dir=given.folder) as scratch:
            sizes = ("--requests", requests, "--tokens", given.tokens, "--level", given.level)
            wrote = apart("--step", "write", *sizes, "--folder", scratch)
            path = Path(str(wrote["folder"]))
            checked, summed = (apart("--step", step, "--folder", path) for step in ("check", "sum_up"))
            size = (path / "run.db").stat().st_size
        print(
            f"{checked['rows']:,} requests, {size / GB:.2f} GB: {wrote['add_us']:.1f} us of CPU each to record "
            f"({wrote['most'] / GB:.2f} GB at most), {wrote['close_s']:.1f} s to close;\n  integrity_check says "
            f"{checked['sound']} in {checked['check_s']:.1f} s; summed up anew in {summed['summed_s']:.1f} s "
            f"({summed['most'] / GB:.2f} GB at most, {summed['in_window']:,} requests in windows), "
            f"opened in {1e3 * summed['open_s']:.0f} ms",
            flush=True,
        )


if __name__ == "__main__":
    main()
