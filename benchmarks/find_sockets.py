"""`pacemark find` over real sockets against the embedded 8B preset, beside the truth in virtual time.

    python benchmarks/find_sockets.py --seeds 5

Each seed is a search of its own, against an endpoint in a process of its own. The truth is the largest concurrency
whose long simulation in virtual time meets the budget: the same model, with no network and no client.
"""

from __future__ import annotations

import argparse
import tempfile
import time

import msgspec
import numpy as np

import pacemark
from pacemark.budget import Budget, parse
from pacemark.figures.conditions import demands
from pacemark.pace import Concurrency
from pacemark.simulator import simulate
from pacemark.summary import Find

INPUT_TOKENS, OUTPUT_TOKENS = 256, 64


def meets(streams: int, preset: str, budget: Budget, requests: int = 4000) -> bool:
    """Whether a long simulation meets `budget`."""
    ramp = 6 * streams
    trace = simulate(
        Concurrency(streams),
        preset,
        input_tokens=INPUT_TOKENS,
        output_tokens=OUTPUT_TOKENS,
        requests=requests + ramp,
        seed=7,
    )
    conditions = demands(budget, trace, np.arange(len(trace)) >= ramp)[:-1]
    return all((np.quantile(c.scores, c.quantile) if c.quantile else c.scores.mean()) < 1 for c in conditions)


def optimum(preset: str, budget: Budget) -> int:
    """The largest concurrency that meets `budget` in virtual time; 0 for none."""
    low, high = 0, 1
    while high < 4096 and meets(high, preset, budget):
        low, high = high, 2 * high
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if meets(middle, preset, budget) else (low, middle)
    return low


def main() -> None:
    """Run the searches and print each."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--preset", default="llama-8b-h100")
    parser.add_argument("--budget", default="ttft p95 < 200ms, tpot p95 < 12ms")
    given = parser.parse_args()
    truth = optimum(given.preset, parse(given.budget))
    print(f"{given.preset}, {given.budget}: N* = {truth} in virtual time")
    near = 0
    for seed in range(given.seeds):
        began = time.monotonic()
        with tempfile.TemporaryDirectory() as folder:
            run = pacemark.find(
                f"sim:{given.preset}",
                budget=given.budget,
                input_tokens=INPUT_TOKENS,
                output_tokens=OUTPUT_TOKENS,
                seed=seed,
                out=folder,
            )
        found, seconds = msgspec.convert(run.summary.find, Find), time.monotonic() - began
        if found.answer is None or found.answer.value is None:
            print(f"seed {seed}: no answer in {seconds:.0f} s: {found.why}", flush=True)
            continue
        off = found.answer.value - truth
        near += abs(off) <= max(1, 0.07 * truth)
        print(
            f"seed {seed}: {found.answer.value:.0f} ({found.answer.low} to {found.answer.high}), {off:+.0f}, "
            f"{found.binds} binds; {len(found.probes)} levels, {found.spent.requests} requests, {seconds:.0f} s",
            flush=True,
        )
    print(f"within max(1, 7%) of N*: {near} of {given.seeds}")


if __name__ == "__main__":
    main()
