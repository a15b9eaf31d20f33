"""How punctually an open loop sends, and whether its gaps are exponential.

    python benchmarks/open_loop.py [--rate 50] [--seconds 30]

Poisson arrivals against the embedded fixed timeline. Prints how late the requests were sent against their schedule,
and the Kolmogorov-Smirnov test of the gaps between sends against the exponential distribution.
"""

from __future__ import annotations

import argparse

import numpy as np
from scipy import stats

from pacemark.endpoint.target import target
from pacemark.figures import metrics
from pacemark.pace import Rate
from pacemark.runs.bench import Bench
from pacemark.scenario import Settings
from pacemark.simulator import serving
from pacemark.workload.words import Workload


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rate", type=float, default=50.0)
    parser.add_argument("--seconds", type=float, default=30.0)
    options = parser.parse_args()
    with serving("fixed", ttft_ms=200.0, itl_ms=20.0) as served:
        place = target(served.url, model=served.model)
        with Bench(place, Workload(32, 128, 1), Settings(duration_s=options.seconds)) as bench:
            bench.prepare()
            result = bench.measure(Rate(options.rate))
            bench.finish()
    late_ms = metrics.send_delay_ms(result.trace)
    gaps_s = np.diff(np.sort(result.trace.sent_ns).astype(np.float64)) / 1e9
    test = stats.kstest(gaps_s, "expon", args=(0, 1 / options.rate))
    p50, p99 = np.quantile(late_ms, [0.5, 0.99])
    print(f"{len(late_ms)} requests at {options.rate:g}/s")
    print(f"sent late: p50 {p50:.3f} ms, p99 {p99:.3f} ms, max {late_ms.max():.2f} ms")
    print(f"gaps against the exponential: D = {test.statistic:.4f}, p = {test.pvalue:.2f}")


if __name__ == "__main__":
    main()
