"""How often a comparison of two runs cries wolf, and how often it finds what is there.

    python benchmarks/compare_power.py --pairs 500

A/A: two runs of the same endpoint under the same load, different seeds; any verdict of a difference is false.
A/B: the second endpoint takes 10% more time for everything, so every latency is 10% higher and every rate lower by
as much. Both go through the whole measuring step in virtual time with random lengths; the window holds about 400
requests.
"""

from __future__ import annotations

import argparse
import sys
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass

from pacemark.comparison import Kind, compare
from pacemark.pace import Concurrency, Load, Rate
from pacemark.simulator import EngineSpec, Preset, customised, named
from pacemark.simulator.measured import virtual_measure
from pacemark.summary import Figure, Level

REQUESTS = 400
SLOWER = 1.1

FIGURES: dict[str, Kind] = {
    "throughput": "rate",
    "TTFT mean": "latency",
    "TTFT p50": "latency",
    "TTFT p95": "latency",
    "TPOT mean": "latency",
    "TPOT p50": "latency",
}


@dataclass(frozen=True)
class Condition:
    """A load on the demo endpoint, and how long it takes to serve 400 requests."""

    load: Load
    requests_per_s: float

    def pairs(self, count: int, slower: float) -> Iterator[tuple[Level, Level]]:
        """The levels of run A and run B, pair by pair."""
        window_s = REQUESTS / self.requests_per_s
        for pair in range(count):
            yield (
                _level(named("demo"), self.load, window_s, seed=2 * pair),
                _level(_slowed(slower), _slowed_load(self.load, slower), window_s * slower, seed=2 * pair + 1),
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


def _figures(level: Level) -> dict[str, Figure]:
    return {
        "throughput": level.output_tokens_per_s,
        "TTFT mean": level.ttft_ms.mean,
        "TTFT p50": level.ttft_ms.p50,
        "TTFT p95": level.ttft_ms.p95,
        "TPOT mean": level.tpot_ms.mean,
        "TPOT p50": level.tpot_ms.p50,
    }


def verdicts(condition: Condition, pairs: int, slower: float) -> dict[str, Counter[str]]:
    """Per figure, how often each verdict was given."""
    counts: dict[str, Counter[str]] = {name: Counter() for name in FIGURES}
    for a, b in condition.pairs(pairs, slower):
        first, second = _figures(a), _figures(b)
        for name, kind in FIGURES.items():
            counts[name][compare(first[name], second[name], kind).verdict] += 1
    return counts


CONDITIONS = {
    "8 in parallel": Condition(Concurrency(8), 12.2),
    "16 in parallel": Condition(Concurrency(16), 20.9),
    "32 in parallel": Condition(Concurrency(32), 33.5),
    "open loop at 0.5": Condition(Rate(17.0), 17.0),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pairs", type=int, default=500)
    options = parser.parse_args()
    print("| load | figure | A/A: false differences | A/B: found | A/B: wrong way | A/B: undecidable |")
    print("| --- | --- | ---: | ---: | ---: | ---: |")
    for name, condition in CONDITIONS.items():
        print(name, file=sys.stderr)
        same = verdicts(condition, options.pairs, 1.0)
        other = verdicts(condition, options.pairs, SLOWER)
        for figure, kind in FIGURES.items():
            right, wrong = ("lower", "higher") if kind == "rate" else ("slower", "faster")
            false = sum(same[figure][v] for v in (right, wrong))
            counts = [false, other[figure][right], other[figure][wrong], other[figure]["undecidable"]]
            shares = " | ".join(f"{100 * count / options.pairs:.1f}%" for count in counts)
            print(f"| {name} | {figure} | {shares} |", flush=True)


if __name__ == "__main__":
    main()
