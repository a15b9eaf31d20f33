"""What a gate says of an endpoint that is 10% slower, and of one that is not.

    python benchmarks/gate.py --pairs 200 --jobs 2

Both runs of a pair go through the whole measuring step in virtual time with random lengths, about 400 requests in each.
In `slower` everything takes the second endpoint 10% longer, so each condition truly holds; to pass is wrong. In `same`
it truly does not; to fail is wrong. `at the limit` is 5% slower: to decide is wrong either way. With `--sequential` the
second run is not as long as the first: the target is measured until the conditions are decided, for six times as long
at most.
"""

from __future__ import annotations

import argparse
import multiprocessing
import statistics
from collections import Counter
from dataclasses import dataclass

from pacemark.answers.comparison import compare_runs
from pacemark.answers.decision import deciding
from pacemark.answers.gate import gated, parse_condition
from pacemark.figures.level import Measure
from pacemark.pace import Concurrency
from pacemark.runs.simulated import virtual_measure
from pacemark.simulator import EngineSpec, Preset, customised, named
from pacemark.summary import Level, Summary

REQUESTS = 400
GATE = ("ttft p95 > +5%", "ttft p50 > +5%", "tpot p50 > +5%", "latency p95 > +5%", "throughput < -5%")
SEQUENTIAL = ("ttft p95 > +5%", "ttft p50 > +5%")
"""Each has a target of its own, so there are fewer of them."""
FACTORS = {"slower": 1.1, "at the limit": 1.05, "same": 1.0}
LOADS = {8: 12.2, 32: 33.5}
"""Parallel requests on the demo endpoint, and how many it serves in a second."""
LONGEST = 6.0
"""Times the baseline's window: as long as a target may be measured."""


@dataclass(frozen=True)
class Tried:
    """What became of one condition, and how many requests of B it took."""

    condition: str
    status: str
    silent: bool
    requests: int


def stored(streams: int, factor: float, number: int) -> list[Tried]:
    """Both runs as long as each other; all conditions on the one pair."""
    window_s = REQUESTS / LOADS[streams]
    a, b = (
        lasting(slowed(by), window_s * by, 2 * number + n)(Concurrency(streams)).level
        for n, by in enumerate((1.0, factor))
    )
    return [tried(a, b, condition, alone=False) for condition in GATE]


def decided(streams: int, factor: float, number: int) -> list[Tried]:
    """The second run until the condition is decided."""
    window_s = REQUESTS / LOADS[streams]
    a = lasting(slowed(1.0), window_s, 2 * number)(Concurrency(streams)).level
    found = []
    for condition in SEQUENTIAL:
        longest_s = LONGEST * window_s * factor
        measure = lasting(slowed(factor), longest_s, 2 * number + 1)
        b = measure(a.load, deciding(a, [parse_condition(condition)], longest_s)).level
        found.append(tried(a, b, condition, alone=True))
    return found


def slowed(factor: float) -> Preset:
    """The demo endpoint, taking `factor` times as long for everything."""
    preset = named("demo")
    spec = preset.timeline
    assert isinstance(spec, EngineSpec)
    costs = ("base_ms", "per_decode_ms", "per_prefill_token_ms", "per_kv_token_ms")
    return customised(preset, {cost: getattr(spec, cost) * factor for cost in costs})


def lasting(preset: Preset, window_s: float, seed: int) -> Measure:
    """The measuring step on `preset` with lengths that vary."""
    return virtual_measure(
        preset, input_tokens=(256.0, 0.5), output_tokens=(64.0, 0.66), duration_s=window_s, max_duration_s=window_s,
        seed=seed,
    )  # fmt: skip


def tried(a: Level, b: Level, condition: str, *, alone: bool) -> Tried:
    """One condition on a pair of levels."""
    runs = [Summary(target={}, workload={}, levels=[level]) for level in (a, b)]
    found = gated(compare_runs(*runs), [condition], alone=alone).conditions[0]
    silent = found.status == "undecided" and found.needs_requests is None
    return Tried(condition, found.status, silent, b.requests.in_window)


Task = tuple[bool, int, str, range]


def work(task: Task) -> tuple[Task, list[Tried]]:
    """Some pairs; picklable, for it runs in a process of its own."""
    sequential, streams, truth, numbers = task
    kind = decided if sequential else stored
    return task, [one for number in numbers for one in kind(streams, FACTORS[truth], number)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pairs", type=int, default=200)
    parser.add_argument("--jobs", type=int, default=1)
    parser.add_argument("--sequential", action="store_true")
    parser.add_argument("--endpoints", nargs="+", choices=FACTORS, default=list(FACTORS))
    options = parser.parse_args()
    tasks: list[Task] = [
        (options.sequential, streams, truth, range(first, min(first + 10, options.pairs)))
        for streams in LOADS
        for truth in options.endpoints
        for first in range(0, options.pairs, 10)
    ]
    found: dict[tuple[int, str, str], list[Tried]] = {}
    with multiprocessing.get_context("fork").Pool(options.jobs) as pool:
        for (_, streams, truth, _), outcomes in pool.imap(work, tasks):
            for one in outcomes:
                found.setdefault((streams, truth, one.condition), []).append(one)
    print("| in parallel | endpoint | condition | failed | passed | undecided | silent | requests of B, median |")
    print("| ---: | --- | --- | ---: | ---: | ---: | ---: | ---: |")
    for (streams, truth, condition), outcomes in found.items():
        counts = Counter(one.status for one in outcomes)
        shares = [counts[status] for status in ("failed", "passed", "undecided")]
        shares.append(sum(one.silent for one in outcomes))
        cells = " | ".join(f"{share / len(outcomes):.1%}" for share in shares)
        requests = statistics.median(one.requests for one in outcomes)
        print(f"| {streams} | {truth} | {condition} | {cells} | {requests:,.0f} |", flush=True)


if __name__ == "__main__":
    main()
