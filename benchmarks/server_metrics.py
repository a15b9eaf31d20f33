"""What reading a server's metrics costs the client that is measured.

    python benchmarks/server_metrics.py [--streams 64] [--seconds 5] [--pairs 4]

The embedded fixed timeline (TTFT 200 ms, ITL 20 ms), with its metrics read each second and without, in turns. Prints
the differences within each pair, the median over the pairs: the workers' CPU, as a share of a core, and what they read
late; beside them what the process that reads spends, and how late the endpoint itself was, which has to write them.
"""

from __future__ import annotations

import argparse
import statistics
import urllib.request
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple

import msgspec

from pacemark.endpoint.scraping import Scraper, exporters
from pacemark.endpoint.target import target
from pacemark.pace import Concurrency
from pacemark.runs.bench import Bench
from pacemark.runs.folder import RunFolder
from pacemark.scenario import Settings
from pacemark.simulator import Served, serving
from pacemark.workload.words import Workload


class Cost(NamedTuple):
    """Of one level."""

    worker_share: float
    """Of a core, in percent."""
    lag_p50_ms: float
    lag_p99_ms: float
    ttft_p50_ms: float
    endpoint_late_p99_ms: float
    reader_share: float
    """What the process spends that reads the metrics, of a core, in percent."""


def spent_s(pid: int) -> float:
    """CPU time of a process so far."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / 100


def lateness(served: Served, path: str = "") -> Any:
    """How late the endpoint was, by its own account."""
    request = urllib.request.Request(
        f"{served.url.removesuffix('/v1')}/lateness{path}", method="POST" if path else "GET"
    )
    with urllib.request.urlopen(request) as answer:
        return msgspec.json.decode(answer.read())


def measured(served: Served, streams: int, seconds: float, *, read: bool) -> Cost:
    """One level."""
    place = target(served.url, model=served.model)
    scraper = Scraper(exporters(place, ["auto"])) if read else None
    with TemporaryDirectory() as folder:
        settings = Settings(duration_s=seconds)
        with Bench(place, Workload(64, 64, 1), settings) as bench:
            bench.folder = RunFolder.create(Path(folder), "cost", {})
            bench.prepare()
            bench.read_metrics(scraper)
            lateness(served, "/reset")
            before = spent_s(scraper._process.pid) if scraper else 0.0
            level = bench.measure(Concurrency(streams)).level
            after = spent_s(scraper._process.pid) if scraper else 0.0
            bench.finish()
            bench.folder.close()
        if scraper:
            scraper.close()
    lag = level.client.lag_ms
    return Cost(
        100 * sum(level.client.cpu_share),
        lag.p50 or 0.0,
        lag.p99 or 0.0,
        level.ttft_ms.p50.value or 0.0,
        lateness(served)["p99_ms"],
        100 * (after - before) / (level.window_s or seconds),
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--streams", type=int, default=64)
    parser.add_argument("--seconds", type=float, default=5.0)
    parser.add_argument("--pairs", type=int, default=4)
    options = parser.parse_args()
    pairs = []
    with serving("fixed", ttft_ms=200.0, itl_ms=20.0) as served:
        for turn in range(options.pairs):
            both = {
                r: measured(served, options.streams, options.seconds, read=r) for r in (bool(turn % 2), not turn % 2)
            }
            pairs.append((both[True], both[False]))
    print(f"{options.streams} streams, {options.pairs} pairs of {options.seconds:g} s; with metrics read, less without")
    names = {
        "worker_share": "%",
        "lag_p50_ms": "ms",
        "lag_p99_ms": "ms",
        "ttft_p50_ms": "ms",
        "endpoint_late_p99_ms": "ms",
    }
    for name, unit in names.items():
        with_, without = ([getattr(pair[side], name) for pair in pairs] for side in (0, 1))
        off = statistics.median(a - b for a, b in zip(with_, without, strict=True))
        print(f"{name:22} {statistics.median(without):8.3f} -> {statistics.median(with_):8.3f} {unit}  {off:+.3f}")
    print(f"reading process        {statistics.median(pair[0].reader_share for pair in pairs):8.3f} % of a core")


if __name__ == "__main__":
    main()
