"""How often a comparison of two runs cries wolf, and how often it finds what is there.

    python benchmarks/compare_power.py --pairs 500 --jobs 2

A/A: two runs of the same endpoint under the same load, different seeds; any verdict of a difference is false.
A/B: the second endpoint takes 10% more time for everything, so every latency is 10% higher and every rate lower by
as much. Both go through the whole measuring step in virtual time with random lengths; the window holds about 400
requests. "Together" is the verdict of `compare`, which judges all figures by Holm's procedure; the other columns judge
each by itself. "At best" is what a z test would find that knew the standard error of the difference, the standard
deviation over all pairs: no comparison of single runs can do better.
"""

from __future__ import annotations

import argparse
import multiprocessing
from collections import Counter
from dataclasses import dataclass

import msgspec
import numpy as np
from scipy import special

from pacemark.answers.comparison import SAME, Compared, compared_level
from pacemark.answers.family import corrected
from pacemark.pace import Concurrency, Load, Rate
from pacemark.runs.simulated import virtual_measure
from pacemark.simulator import EngineSpec, Preset, customised, named
from pacemark.summary import Level

REQUESTS = 400
SLOWER = 1.1

FIGURES = {
    "throughput": "output_tokens_per_s",
    "TTFT mean": "ttft_ms.mean",
    "TTFT p50": "ttft_ms.p50",
    "TTFT p95": "ttft_ms.p95",
    "TPOT mean": "tpot_ms.mean",
    "TPOT p50": "tpot_ms.p50",
}


@dataclass(frozen=True)
class Condition:
    """A load on the demo endpoint, and how long it takes to serve 400 requests."""

    load: Load
    requests_per_s: float

    def pair(self, number: int, slower: float) -> tuple[Level, Level]:
        """The levels of run A and run B."""
        window_s = REQUESTS / self.requests_per_s
        return (
            _level(named("demo"), self.load, window_s, seed=2 * number),
            _level(_slowed(slower), _slowed_load(self.load, slower), window_s * slower, seed=2 * number + 1),
        )


def _slowed(factor: float) -> Preset:
    preset = named("demo")
    spec = preset.timeline
    assert isinstance(spec, EngineSpec)
    costs = ("base_ms", "per_decode_ms", "per_prefill_token_ms", "per_kv_token_ms")
    return customised(preset, {cost: getattr(spec, cost) * factor for cost in costs})


def _slowed_load(load: Load, factor: float) -> Load:
    """The same utilisation: only then are all figures of the slower endpoint the faster one's times the factor."""
    return load if isinstance(load, Concurrency) else Rate(load.value / factor)


def _level(preset: Preset, load: Load, window_s: float, seed: int) -> Level:
    lengths = {"input_tokens": (256.0, 0.5), "output_tokens": (64.0, 0.66)}
    return virtual_measure(preset, **lengths, duration_s=window_s, seed=seed)(load).level  # type: ignore[arg-type]


Task = tuple[str, float, range]
Outcome = dict[str, list[tuple[str, str, float]]]
"""Per figure and pair, the verdict by itself and together, and the difference as a share of A; of `ANY`, if any."""
ANY = "any of all"


def work(task: Task) -> tuple[str, float, Outcome]:
    """Compare some pairs; picklable, for it runs in a process of its own."""
    name, slower, numbers = task
    found: Outcome = {figure: [] for figure in [*FIGURES, ANY]}
    for number in numbers:
        a, b = CONDITIONS[name].pair(number, slower)
        b = msgspec.structs.replace(b, load=a.load)  # of the same utilisation, which is what is compared here
        alone = Compared([compared_level(a, b)])
        each, together = (x.levels[0].metrics for x in (alone, corrected(alone, [a], [b])))
        for figure, metric in FIGURES.items():
            one, ratio = each[metric], each[metric].ratio.value
            found[figure].append((one.verdict, together[metric].verdict, ratio - 1 if ratio else np.nan))
        some = [any(x.verdict not in (SAME, "undecidable") for x in judged.values()) for judged in (each, together)]
        found[ANY].append((str(some[0]), str(some[1]), np.nan))
    return name, slower, found


CONDITIONS = {
    "8 in parallel": Condition(Concurrency(8), 12.2),
    "16 in parallel": Condition(Concurrency(16), 20.9),
    "32 in parallel": Condition(Concurrency(32), 33.5),
    "open loop at 0.5": Condition(Rate(17.0), 17.0),
    "open loop at 0.85": Condition(Rate(28.5), 28.5),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pairs", type=int, default=500)
    parser.add_argument("--jobs", type=int, default=1)
    options = parser.parse_args()
    tasks: list[Task] = [
        (name, slower, range(first, min(first + 20, options.pairs)))
        for name in CONDITIONS
        for slower in (1.0, SLOWER)
        for first in range(0, options.pairs, 20)
    ]
    results: dict[tuple[str, float], Outcome] = {}
    with multiprocessing.get_context("fork").Pool(options.jobs) as pool:
        for name, slower, found in pool.imap(work, tasks):
            kept = results.setdefault((name, slower), {figure: [] for figure in [*FIGURES, ANY]})
            for figure, outcomes in found.items():
                kept[figure] += outcomes
    print("| load | figure | A/A: false | together | A/B: found | together | at best | wrong way | undecidable |")
    print("| --- | --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: |")
    for name in CONDITIONS:
        for figure in FIGURES:
            right, wrong = ("lower", "higher") if figure == "throughput" else ("slower", "faster")
            same, same_together = (Counter(x[n] for x in results[name, 1.0][figure]) for n in (0, 1))
            other, together = (Counter(x[n] for x in results[name, SLOWER][figure]) for n in (0, 1))
            ratios = np.array([ratio for *_, ratio in results[name, SLOWER][figure]])
            best = special.ndtr(abs(np.nanmean(ratios)) / np.nanstd(ratios) - special.ndtri(0.975)) * options.pairs
            shares = [same[right] + same[wrong], same_together[right] + same_together[wrong]]
            shares += [other[right], together[right], best, other[wrong], other["undecidable"]]
            cells = " | ".join(f"{100 * share / options.pairs:.1f}%" for share in shares)
            print(f"| {name} | {figure} | {cells} |", flush=True)
        alone, both = ([x[n] for x in results[name, 1.0][ANY]].count("True") / options.pairs for n in (0, 1))
        print(f"| {name} | {ANY} | {alone:.1%} | {both:.1%} | | | | | |", flush=True)


if __name__ == "__main__":
    main()
