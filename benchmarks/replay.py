"""How punctually a trace is replayed whose arrivals come in bursts, at several speeds, beside Poisson arrivals.

    python benchmarks/replay.py [--rows 2000] [--per-s 40] [--speeds 1,4]

A trace with the gaps of Azure's of 2023 (lognormal, coefficient of variation 13) and prompts of 1,000 tokens on average
goes to the embedded fixed timeline. Prints how late requests were sent against their schedule, how far the gaps are
from the file's, and the same lateness of Poisson arrivals at the highest of these rates, in the same run.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from pathlib import Path

import numpy as np

from pacemark.endpoint.target import target
from pacemark.figures import metrics
from pacemark.figures.level import LevelResult
from pacemark.pace import Rate
from pacemark.runs.bench import Bench
from pacemark.runs.recording import rows_of
from pacemark.scenario import Levels, Recording, Scenario, Settings, Workload
from pacemark.simulator import serving


def made(path: Path, rows: int, per_s: float) -> float:
    """A trace of Mooncake's format; gives the CV of its gaps."""
    rng = np.random.default_rng(19)  # of whose draws the CV is that of the distribution
    sigma = np.sqrt(np.log1p(13.0**2))
    gaps_s = rng.lognormal(0.0, sigma, rows)
    gaps_s *= rows / per_s / gaps_s.sum()
    at_ms = np.cumsum(gaps_s) * 1e3
    lengths = np.maximum(8, rng.lognormal(np.log(1000) - 0.35, 0.83, rows)).astype(int)
    lines = (
        json.dumps({"timestamp": round(t, 3), "input_length": n, "output_length": 16})
        for t, n in zip(at_ms.tolist(), lengths.tolist(), strict=True)
    )
    path.write_text("\n".join(lines) + "\n")
    return float(gaps_s[1:].std() / gaps_s[1:].mean())


def told(name: str, result: LevelResult, gaps: str = "") -> None:
    late_ms = metrics.send_delay_ms(result.trace)
    p50, p99 = np.quantile(late_ms, [0.5, 0.99])
    print(f"{name:24} {len(late_ms):8,} {p50:11.3f} {p99:11.3f} {late_ms.max():11.2f}   {gaps}", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=2000)
    parser.add_argument("--per-s", type=float, default=40.0)
    parser.add_argument("--speeds", default="1,4")
    given = parser.parse_args()
    speeds = [float(x) for x in given.speeds.split(",")]
    with tempfile.TemporaryDirectory() as folder, serving("fixed", ttft_ms=100.0, itl_ms=10.0) as served:
        path = Path(folder) / "trace.jsonl"
        cv = made(path, given.rows, given.per_s)
        print(f"{given.rows} rows, {given.per_s:g} a second, CV of the gaps {cv:.1f}")
        print(f"{'':24} {'requests':>8} {'late p50 ms':>11} {'late p99 ms':>11} {'late max ms':>11}   gaps off by, p99")
        place = target(served.url, model=served.model)
        loads = tuple(Rate(x, "trace", speed=x) for x in speeds)
        recording = Recording(str(path), replay=True, unit="ms")
        order = Scenario(served.url, Levels(loads), Workload(output_tokens=16, seed=1, recording=recording))
        rows = rows_of(order, None)
        assert rows is not None
        with Bench(place, order.workload, Settings(timed=False), rows=rows) as bench:
            bench.prepare()
            for load in loads:
                result = bench.measure(load)
                by_row = np.argsort(result.trace.index)
                wanted_ms = np.diff(rows.times_ms()) / (load.speed or 1.0)
                off_ms = np.abs(np.diff(result.trace.sent_ns[by_row]) / 1e6 - wanted_ms)
                told(f"trace at speed {load.speed:g}", result, f"{np.quantile(off_ms, 0.99):.3f} ms")
            bench.finish()
        rate = given.per_s * max(speeds)
        with Bench(place, Workload(1000, 16, 1), Settings(duration_s=given.rows / rate)) as bench:
            bench.prepare()
            told(f"Poisson, {rate:g}/s", bench.measure(Rate(rate)))
            bench.finish()


if __name__ == "__main__":
    main()
