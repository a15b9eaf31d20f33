"""How long the report of a stored run takes, and how large it is: `python benchmarks/report.py`.

The runs are made up (benchmarks/events.py): ten levels of 32 tokens a request, 100,000 requests in all and then a
million. Each is read, summed up and drawn in a process of its own, as `pacemark report RUN` does it. Beside it stand,
from the same minutes, what sqlite3 alone takes to hand out the same rows, and the size of a report of 500 requests:
most of that is the script that draws.
"""

from __future__ import annotations

import argparse
import resource
import sqlite3
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from events import answered
from pacemark.pace import Concurrency
from pacemark.runs.folder import RunFolder
from pacemark.trace import Window

LEVELS, TOKENS = 10, 32


def write(path: Path, requests: int) -> Path:
    """A run of so many requests in all, in levels of 1 to 512 streams; returns its folder."""
    loads = [Concurrency(2**n) for n in range(LEVELS)]
    record = {
        "schema": "pacemark/run/1",
        "target": {"url": "http://127.0.0.1:8000/v1", "model": "made-up", "api": "chat"},
        "workload": {"input_tokens": 256, "output_tokens": TOKENS, "seed": 1},
        "settings": {"duration_s": 60.0, "workers": 1},
        "loads": [{"kind": "concurrency", "value": load.value} for load in loads],
        "interrupted": False,
        "failure": None,
    }
    folder = RunFolder.create(path, "report", record)
    end_ns = 10**15
    for level, load in enumerate(loads):
        sent: list[int] = []
        for exchange in answered(requests // LEVELS, TOKENS, level, load.value, end_ns):
            if not sent:
                folder.begin_level(level, load, exchange.sent_ns)
            sent.append(exchange.sent_ns)
            folder.add(exchange)
            folder.commit()
            end_ns = max(end_ns, exchange.ended_ns)
        folder.set_window(level, Window(sent[len(sent) // 10], sent[-1]), "duration")
    folder.close()
    return folder.path


def read_s(folder: Path) -> float:
    """Seconds that reading every row takes."""
    begun = time.monotonic()
    database = sqlite3.connect(f"file:{folder / 'run.db'}?mode=ro", uri=True)
    for _ in database.execute("SELECT * FROM request"):
        pass
    database.close()
    return time.monotonic() - begun


def report_s(folder: Path) -> tuple[float, float]:
    """Seconds that the command takes from its start to its end, and seconds of CPU."""
    begun, before = time.monotonic(), resource.getrusage(resource.RUSAGE_CHILDREN)
    command = [sys.executable, "-m", "pacemark.cli", "report", str(folder)]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    spent = resource.getrusage(resource.RUSAGE_CHILDREN)
    return time.monotonic() - begun, spent.ru_utime + spent.ru_stime - before.ru_utime - before.ru_stime


def main() -> None:
    """Print a line for each run."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--requests", type=int, nargs="+", default=[500, 100_000, 1_000_000])
    print("requests in ten levels    run.db  rows read    report     of CPU  report.html")
    for requests in parser.parse_args().requests:
        with tempfile.TemporaryDirectory() as out:
            folder = write(Path(out), requests)
            alone, (took, cpu) = read_s(folder), report_s(folder)
            stored, page = ((folder / name).stat().st_size / 1e6 for name in ("run.db", "report.html"))
        print(f"{requests:22,} {stored:6,.0f} MB {alone:8.1f} s {took:7.1f} s {cpu:8.1f} s {page:9.2f} MB", flush=True)


if __name__ == "__main__":
    main()
