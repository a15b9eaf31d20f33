"""How good the replica counts of `pacemark plan` are, against simulated fleets in virtual time.

    python benchmarks/planning.py
    python benchmarks/planning.py --intervals 50

One replica is swept in a closed loop; the plan says how many replicas a demand needs. Fleets with that many replicas,
and with fewer and more, then serve the demand behind a router that sends a request to the replica with the fewest.
With `--intervals` that many short sweeps of one replica are each planned with, and their intervals held against the
number that levels of ten times the length give.
"""

from __future__ import annotations

import argparse
import itertools

import msgspec
import numpy as np

from pacemark.answers.planning import Demand, plan_for
from pacemark.budget import Budget, parse
from pacemark.figures import metrics
from pacemark.figures.conditions import demands
from pacemark.figures.level import LevelResult
from pacemark.pace import Concurrency, Rate
from pacemark.runs.simulated import virtual_measure
from pacemark.simulator import Preset, named, simulate
from pacemark.trace import Trace

Lengths = int | tuple[float, float]

CASES: list[tuple[str, Lengths, Lengths, str]] = [
    ("demo", 256, 64, "tpot p95 < 12ms"),
    ("demo", 256, 64, "ttft p95 < 60ms, latency p95 < 1s"),
    ("demo", (256, 0.5), (64, 0.5), "95% of requests: ttft < 100ms, tpot < 13ms"),
    ("llama-8b-h100", (512, 0.5), (128, 0.5), "tpot p95 < 20ms, ttft p95 < 200ms"),
    ("llama-8b-h100", 512, 128, "tpot mean < 15ms"),
    ("llama-70b-8xh100", (800, 0.5), (100, 0.3), "latency p90 < 4s"),
]
STREAMS = (1, 2, 4, 8, 12, 16, 24, 32, 48, 64, 96, 128)


def sweep(preset: str, prompt: Lengths, output: Lengths, budget: Budget) -> list[LevelResult]:
    """One replica, up to the first load that clearly misses the budget."""
    measure = virtual_measure(preset, input_tokens=prompt, output_tokens=output, duration_s=30.0, seed=3)
    results: list[LevelResult] = []
    for streams in STREAMS:
        results.append(measure(Concurrency(streams)))
        if score(results[-1].trace, np.arange(len(results[-1].trace)) > streams, budget) > 1.5:
            break
    return results


def score(trace: Trace, sample: np.ndarray[tuple[int], np.dtype[np.bool_]], budget: Budget) -> float:
    """The worst condition: its share of misses over what is allowed, or its mean over the limit."""
    return max(
        float(c.scores.mean() if c.quantile is None else (c.scores >= 1).mean() / (1 - c.quantile))
        for c in demands(budget, trace, sample)
    )


def served(preset: Preset, replicas: int, rate: float, cv: float, case: tuple[str, Lengths, Lengths, str]) -> float:
    """The worst condition of a fleet under open-loop load; infinite where its backlog grows."""
    requests = 12_000
    trace = simulate(
        Rate(rate, "gamma" if cv != 1 else "poisson", cv),
        msgspec.structs.replace(preset, replicas=replicas),
        input_tokens=case[1],
        output_tokens=case[2],
        requests=requests,
        seed=17,
    )
    late = metrics.ttft_ms(trace)
    if np.median(late[-requests // 5 :]) > 3 * np.median(late[requests // 5 : 2 * requests // 5]) + 50:
        return float("inf")
    return score(trace, np.arange(len(trace)) > requests // 10, parse(case[3]))


INTERVALS: list[tuple[str, Lengths, Lengths, str, tuple[int, ...]]] = [
    ("demo", (256, 0.5), (64, 0.5), "ttft p95 < 100ms, latency p95 < 2s", (1, 4, 8, 16, 32, 48)),
    ("demo", (256, 0.5), (64, 0.5), "tpot p95 < 13ms", (1, 4, 8, 12, 16, 24)),
    ("llama-8b-h100", (512, 0.5), (128, 0.5), "tpot p95 < 20ms, ttft p95 < 200ms", (8, 16, 32, 48, 64, 96)),
]
SHORT_S = 15.0


def intervals(sweeps: int) -> None:
    """Print how often the interval of a plan holds what a long measurement of the same replica gives."""
    print("| endpoint | budget | demand | CV | replicas | short sweeps gave | interval holds it | safe was enough "
          "| no safe number | safe, over what is needed |")  # fmt: skip
    print("| --- | --- | --- | ---: | ---: | --- | ---: | ---: | ---: | ---: |")
    for preset, prompt, output, text, streams in INTERVALS:
        budget = parse(text)
        long, *short = (
            [
                virtual_measure(preset, input_tokens=prompt, output_tokens=output, duration_s=window_s, seed=seed)(
                    Concurrency(n)
                )
                for n in streams
            ]
            for seed, window_s in [(999, 10 * SHORT_S), *((seed, SHORT_S) for seed in range(sweeps))]
        )
        one = plan_for(long, Demand(1.0, "requests/s"), budget).per_replica.value or 0.0
        for factor, cv in itertools.product((4.5, 20.0), (1.0, 2.0)):
            demand = Demand(factor * one, "requests/s")
            truth = plan_for(long, demand, budget, burstiness=cv).fleets[0].replicas
            found = [plan_for(results, demand, budget, burstiness=cv).fleets[0] for results in short]
            held = [(f.replicas_low or 0) <= truth <= (f.replicas_high or 10**9) for f in found]
            safe = [f.replicas_high for f in found if f.replicas_high is not None]
            extra = f"{np.median([n / truth for n in safe]) - 1:+.0%}" if safe else "-"
            gave = sorted(f.replicas for f in found)
            print(
                f"| {preset} | {text} | {demand.value:.0f}/s | {cv:g} | {truth} | {gave[0]} to {gave[-1]} "
                f"| {np.mean(held):.0%} | {np.mean([n >= truth for n in safe]):.0%} "
                f"| {1 - len(safe) / len(found):.0%} | {extra} |",
                flush=True,
            )


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--intervals", type=int, default=0, help="short sweeps to plan with")
    parser.add_argument("--factors", default="1.5,4.5", help="demands, over what one replica gives in the budget")
    options = parser.parse_args()
    if options.intervals:
        return intervals(options.intervals)
    factors = [float(x) for x in options.factors.split(",")]
    print("| endpoint | budget | demand | CV | even | plan | expected | served | fewest |")
    print("| --- | --- | --- | --- | --- | --- | --- | --- | --- |")
    met, spare, plain = [], [], []
    for case in CASES:
        preset, budget = named(case[0]), parse(case[3])
        results = sweep(*case[:3], budget)
        for factor, cv in itertools.product(factors, (1.0, 2.0)):
            one = plan_for(results, Demand(1.0, "requests/s"), budget).per_replica.value or 0.0
            rate = factor * one
            plan = plan_for(results, Demand(rate, "requests/s"), budget, burstiness=cv)
            fleet = plan.fleets[0]
            here = served(preset, fleet.replicas, rate, cv, case)
            fewest = fleet.replicas
            while served(preset, fewest, rate, cv, case) > 1:
                fewest += 1
            while fewest > 1 and served(preset, fewest - 1, rate, cv, case) <= 1:
                fewest -= 1
            met.append(here <= 1)
            spare.append(fleet.replicas - fewest)
            plain.append(served(preset, plan.replicas_without_headroom, rate, cv, case) <= 1)
            print(
                f"| {case[0]} | {case[3]} | {rate:.0f}/s | {cv:g} | {plan.replicas_without_headroom} "
                f"| {fleet.replicas} | {fleet.missing or 0:.2f} | {here:.2f} | {fewest} |",
                flush=True,
            )
    print(
        f"\nThe plan met the budget in {sum(met)} of {len(met)} fleets (without headroom {sum(plain)}); it was the "
        f"fewest in {sum(s == 0 for s in spare)}, one more in {sum(s == 1 for s in spare)}, more than that in "
        f"{sum(s > 1 for s in spare)}, too few in {sum(s < 0 for s in spare)}."
    )


if __name__ == "__main__":
    main()
