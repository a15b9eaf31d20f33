"""How long the report of a run takes to write, from its summary to the file: `python benchmarks/report.py`.

A sweep in virtual time gives the run. The first report makes the script that draws, unless one is kept; what draws is
loaded beforehand, as a run does while its last requests end.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from pathlib import Path

from pacemark.answers.curve import operating_points
from pacemark.answers.fit import fits
from pacemark.pace import Concurrency
from pacemark.reporting import warmup
from pacemark.runs.simulated import virtual_measure
from pacemark.summary import Level, Summary

LOADS = (1, 2, 4, 8, 16, 32, 64)


def measured(requests: int) -> Summary:
    """A run of seven levels and about so many requests."""
    levels: list[Level] = []
    seconds = 1.0
    while sum(level.requests.completed for level in levels) < requests:
        measure = virtual_measure("demo", duration_s=seconds)
        levels, seconds = [measure(Concurrency(n)).level for n in LOADS], 1.5 * seconds
    return Summary(target={}, workload={}, levels=levels, operating_points=operating_points(levels), fits=fits(levels))


def main() -> None:
    """Print the seconds of each report."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--requests", type=int, default=500)
    parser.add_argument("--repeats", type=int, default=5)
    options = parser.parse_args()
    summary = measured(options.requests)
    print(f"{sum(level.requests.completed for level in summary.levels)} requests, {len(summary.levels)} levels")
    begun = time.perf_counter()
    warmup._started()
    print(f"loading what draws: {time.perf_counter() - begun:.2f} s")
    from pacemark.reporting.html import write_html

    took, cpu = [], []
    with tempfile.TemporaryDirectory() as folder:
        for _ in range(options.repeats):
            begun, busy = time.perf_counter(), time.process_time()
            write_html(summary, Path(folder) / "report.html")
            took.append(time.perf_counter() - begun)
            cpu.append(time.process_time() - busy)
    print(f"CPU of a report, on up to two cores: {statistics.median(cpu):.2f} s")
    print("a report, s:", " ".join(f"{s:.2f}" for s in took), f"(median {statistics.median(took):.2f})")


if __name__ == "__main__":
    main()
