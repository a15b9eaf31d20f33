"""How often pacemark's 95% intervals hold the truth, beside what plain order statistics would have held.

    python benchmarks/coverage.py --repeats 500 --out coverage        every condition, two hours of one core
    python benchmarks/coverage.py --repeats 500 --jobs 16             the same on sixteen
    python benchmarks/coverage.py --only u70,C128 --repeats 50        some of them, roughly
    python benchmarks/coverage.py --out coverage --table              the tables from what is there

Engine conditions go through the whole measuring step in virtual time, as a user's run does: ramp, window, sample,
interval. Their truth is a simulation many times as long as one run. AR(1) series and the time in an M/M/1 queue have
known means and quantiles. A repeat has a seed of its own, so the table is the same whatever the number of jobs;
results are written condition by condition, so that a part can be run again.
"""

from __future__ import annotations

import argparse
import json
import math
import multiprocessing
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Literal

import msgspec
import numpy as np
from numpy.typing import NDArray
from scipy import signal, special

from pacemark.figures import metrics, quantiles, stats
from pacemark.pace import Concurrency, Load, Rate
from pacemark.runs.simulated import virtual_measure
from pacemark.simulator import EngineSpec, Preset, named, simulate
from pacemark.simulator.engine.virtual import TokenCounts
from pacemark.summary import Figure
from pacemark.trace import Trace

Floats = NDArray[np.float64]
Interval = tuple[float | None, float | None]
Repeat = dict[str, tuple[Interval, Interval]]
"""Per figure: pacemark's interval, and the one that takes requests for independent."""

Part = tuple[float, Floats, Floats]

_LATENCIES: dict[str, tuple[Literal[1, 2], Callable[[Floats], Any]]] = {
    "TTFT mean": (1, np.mean),
    "TTFT p50": (1, np.median),
    "TTFT p95": (1, lambda x: np.quantile(x, 0.95)),
    "TTFT p99": (1, lambda x: np.quantile(x, 0.99)),
    "TPOT p50": (2, np.median),
}
"""Which part of a `Part` a figure is of, and what of it."""

Z = float(special.ndtri(0.975))
PART = 50_000
"""Requests in one of the simulations that a truth is made of."""


@cache
def _cached(preset: str) -> Preset:
    """The preset with a prefix cache."""
    known = named(preset)
    assert isinstance(known.timeline, EngineSpec)
    return msgspec.structs.replace(known, timeline=msgspec.structs.replace(known.timeline, prefix_cache=True))


@cache
def _capacity(
    preset: str,
    input_tokens: tuple[float, float],
    output_tokens: tuple[float, float],
    traffic: tuple[tuple[str, Any], ...],
) -> float:
    batch: int = getattr(named(preset).timeline, "max_batch")  # noqa: B009 (a fixed timeline has none)
    trace = _simulate(Concurrency(batch), preset, input_tokens, output_tokens, 60_000, 10**8, **dict(traffic))
    ended = np.sort(trace.ended_ns[trace.ended_ns <= trace.sent_ns[-1]])
    return float((len(ended) - 10 * batch) / ((ended[-1] - ended[10 * batch - 1]) / 1e9))


def _simulate(
    load: Load, preset: str, inputs: TokenCounts, outputs: TokenCounts, requests: int, seed: int, **traffic: Any
) -> Trace:
    chosen = _cached(preset) if traffic else preset
    return simulate(load, chosen, input_tokens=inputs, output_tokens=outputs, requests=requests, seed=seed, **traffic)


@dataclass(frozen=True)
class Engine:
    """A load on a simulated endpoint with random lengths, (mean, coefficient of variation)."""

    preset: str
    input_tokens: tuple[float, float]
    output_tokens: tuple[float, float]
    level: float
    """Up to 1: utilisation, an open loop at that share of the endpoint's capacity. Above: requests in parallel."""
    window_s: float
    truth_requests: int
    traffic: tuple[tuple[str, Any], ...] = ()
    """What prompts share, and turns, as `simulate` has them; the endpoint then has a prefix cache."""

    def load(self) -> Load:
        """Capacity is what a closed loop at the batch limit is served."""
        if self.level > 1:
            return Concurrency(int(self.level))
        return Rate(self.level * _capacity(self.preset, self.input_tokens, self.output_tokens, self.traffic))

    @property
    def parts(self) -> int:
        """Into how many simulations the truth is divided."""
        return max(4, self.truth_requests // PART)

    def part(self, number: int) -> Part:
        """One of the long simulations: output tokens per second, TTFT and TPOT in ms of its requests."""
        trace = _simulate(
            self.load(),
            self.preset,
            self.input_tokens,
            self.output_tokens,
            PART,
            10**8 + 1 + number,
            **dict(self.traffic),
        )
        skip = 3000
        start, end = int(trace.sent_ns[skip]), int(trace.sent_ns[-1])
        _, tokens = metrics.tokens_in(trace, start, end)
        ttft, tpot = metrics.ttft_ms(trace)[skip:], metrics.tpot_ms(trace)[skip:]
        return float(tokens.sum()) / ((end - start) / 1e9), ttft, tpot[np.isfinite(tpot)]

    def truth(self, parts: list[Part]) -> dict[str, tuple[float, float]]:
        """Per figure its value over the long simulation, and the standard error of that over the simulation's parts."""
        rates = [part[0] for part in parts]
        found = {"throughput": (float(np.mean(rates)), rates)}
        for name, (column, statistic) in _LATENCIES.items():
            series = [part[column] for part in parts]
            found[name] = float(statistic(np.concatenate(series))), [float(statistic(x)) for x in series]
        return {k: (v, float(np.std(spread, ddof=1) / math.sqrt(len(parts)))) for k, (v, spread) in found.items()}

    def repeats(self, seeds: range) -> Iterator[tuple[int, Repeat]]:
        """Requests in the window, and the intervals, of one run after the other."""
        load = self.load()
        for seed in seeds:
            measure = virtual_measure(
                _cached(self.preset) if self.traffic else self.preset,
                input_tokens=self.input_tokens,
                output_tokens=self.output_tokens,
                duration_s=self.window_s,
                seed=seed,
                **dict(self.traffic),
            )
            result = measure(load)
            level, window = result.level, result.window
            inside = metrics.started_in(result.trace, window.start_ns, window.end_ns)
            ttft, tpot = metrics.ttft_ms(result.trace)[inside], metrics.tpot_ms(result.trace)[inside]
            times, tokens = metrics.tokens_in(result.trace, window.start_ns, window.end_ns)
            seconds = stats.binned(times, tokens, window.start_ns, window.end_ns, round(window.seconds))
            yield (
                int(inside.sum()),
                {
                    "throughput": (_both(level.output_tokens_per_s), independent_mean(seconds)),
                    "TTFT mean": (_both(level.ttft_ms.mean), independent_mean(ttft)),
                    "TTFT p50": (_both(level.ttft_ms.p50), independent_quantile(ttft, 0.50)),
                    "TTFT p95": (_both(level.ttft_ms.p95), independent_quantile(ttft, 0.95)),
                    "TTFT p99": (_both(level.ttft_ms.p99), independent_quantile(ttft, 0.99)),
                    "TPOT p50": (_both(level.tpot_ms.p50), independent_quantile(tpot, 0.50)),
                },
            )


@dataclass(frozen=True)
class Autoregressive:
    """x = f(z) of a Gaussian AR(1) series z with unit variance; f is exp where `lognormal`, else 10 + z."""

    correlation: float
    n: int
    lognormal: bool
    parts = 0

    def truth(self, parts: list[Part]) -> dict[str, tuple[float, float]]:
        """Exact."""
        z95 = float(special.ndtri(0.95))
        if self.lognormal:
            return {"mean": (math.exp(0.5), 0.0), "p50": (1.0, 0.0), "p95": (math.exp(z95), 0.0)}
        return {"mean": (10.0, 0.0), "p50": (10.0, 0.0), "p95": (10.0 + z95, 0.0)}

    def repeats(self, seeds: range) -> Iterator[tuple[int, Repeat]]:
        """Length and intervals of one series after the other."""
        for seed in seeds:
            noise = np.random.default_rng([seed, self.n]).standard_normal(self.n)
            noise[1:] *= math.sqrt(1 - self.correlation**2)
            z = signal.lfilter([1.0], [1.0, -self.correlation], noise)
            yield self.n, _of_series(np.exp(z) if self.lognormal else 10 + z, {"p50": 0.50, "p95": 0.95})


@dataclass(frozen=True)
class Queue:
    """Times in an M/M/1 queue, which are exponential with mean 1 / (1 - utilisation) where service takes 1."""

    utilisation: float
    n: int
    parts = 0

    def truth(self, parts: list[Part]) -> dict[str, tuple[float, float]]:
        """Exact."""
        mean = 1 / (1 - self.utilisation)
        return {"mean": (mean, 0.0)} | {f"p{q:.0f}": (-mean * math.log(1 - q / 100), 0.0) for q in (50, 95, 99)}

    def repeats(self, seeds: range) -> Iterator[tuple[int, Repeat]]:
        """Length and intervals of one series after the other, by Lindley's recursion from the stationary state."""
        for seed in seeds:
            rng = np.random.default_rng([seed, self.n])
            gap, service = rng.exponential(1 / self.utilisation, self.n), rng.exponential(1.0, self.n)
            first = rng.exponential(1 / (1 - self.utilisation)) * (rng.random() < self.utilisation)
            walk = np.cumsum(np.concatenate([[first], service[:-1] - gap[1:]]))
            waits = walk - np.minimum(0.0, np.minimum.accumulate(walk))
            yield self.n, _of_series(waits + service, {"p50": 0.50, "p95": 0.95, "p99": 0.99})


def _of_series(x: Floats, wanted: dict[str, float]) -> Repeat:
    estimates = quantiles.quantile_intervals(x, tuple(wanted.values()))
    named = zip(wanted.items(), estimates, strict=True)
    return {"mean": (_both(stats.mean_interval(x).figure), independent_mean(x))} | {
        name: (_both(estimate.figure), independent_quantile(x, q)) for (name, q), estimate in named
    }


def _both(figure: Figure) -> Interval:
    return (figure.low, figure.high) if figure.low is not None and figure.high is not None else (None, None)


def independent_mean(x: Floats) -> Interval:
    """Mean +- 1.96 standard errors."""
    half = Z * float(x.std(ddof=1)) / math.sqrt(len(x))
    return float(x.mean()) - half, float(x.mean()) + half


def independent_quantile(x: Floats, q: float) -> Interval:
    """Order statistics at the normal ranks of a binomial count."""
    ordered = np.sort(x[np.isfinite(x)])
    n = len(ordered)
    spread = Z * math.sqrt(n * q * (1 - q))
    low, high = math.floor(n * q - spread), math.ceil(n * q + spread)
    return float(ordered[max(0, low - 1)]), float(ordered[min(n, high) - 1])


CHAT: dict[str, Any] = {"preset": "llama-8b-h100", "input_tokens": (512, 0.5), "output_tokens": (128, 0.66)}
SMALL: dict[str, Any] = {"preset": "demo", "input_tokens": (256, 0.5), "output_tokens": (64, 0.66)}

UNEVEN: dict[str, Any] = {"preset": "demo", "input_tokens": (256, 1.0), "output_tokens": (64, 1.0)}
PREFIXES = UNEVEN | {"traffic": (("shared_tokens", 192), ("groups", 10), ("zipf", 1.0))}
SESSIONS = UNEVEN | {"input_tokens": (128, 1.0), "traffic": (("turns", 4), ("think_s", 1.0))}

CONDITIONS: dict[str, Engine | Autoregressive | Queue] = {
    "C128": Engine(**CHAT, level=128, window_s=90, truth_requests=1_000_000),
    "C192": Engine(**CHAT, level=192, window_s=110, truth_requests=1_000_000),
    "C256": Engine(**CHAT, level=256, window_s=120, truth_requests=1_000_000),
    "u50": Engine(**CHAT, level=0.50, window_s=100, truth_requests=1_000_000),
    "u70": Engine(**CHAT, level=0.70, window_s=145, truth_requests=1_000_000),
    "u85": Engine(**CHAT, level=0.85, window_s=240, truth_requests=2_000_000),
    "u92": Engine(**CHAT, level=0.92, window_s=330, truth_requests=12_000_000),
    "small-C16": Engine(**SMALL, level=16, window_s=45, truth_requests=1_000_000),
    "small-C32": Engine(**SMALL, level=32, window_s=45, truth_requests=1_000_000),
    "small-u50": Engine(**SMALL, level=0.50, window_s=60, truth_requests=1_000_000),
    "small-u70": Engine(**SMALL, level=0.70, window_s=120, truth_requests=2_000_000),
    "small-u85": Engine(**SMALL, level=0.85, window_s=120, truth_requests=2_000_000),
    "small-u92": Engine(**SMALL, level=0.92, window_s=120, truth_requests=3_000_000),
    "uneven-C16": Engine(**UNEVEN, level=16, window_s=90, truth_requests=500_000),
    "uneven-u70": Engine(**UNEVEN, level=0.70, window_s=240, truth_requests=1_000_000),
    "prefixes-C16": Engine(**PREFIXES, level=16, window_s=90, truth_requests=500_000),
    "prefixes-u70": Engine(**PREFIXES, level=0.70, window_s=240, truth_requests=1_000_000),
    "sessions-C16": Engine(**SESSIONS, level=16, window_s=90, truth_requests=500_000),
    "sessions-u70": Engine(**SESSIONS, level=0.70, window_s=240, truth_requests=1_000_000),
    "ar-0": Autoregressive(0.0, 1000, lognormal=True),
    "ar-50": Autoregressive(0.5, 1000, lognormal=True),
    "ar-90": Autoregressive(0.9, 2000, lognormal=True),
    "ar-97": Autoregressive(0.97, 6000, lognormal=True),
    "ar-90-normal": Autoregressive(0.9, 2000, lognormal=False),
    "ar-97-normal": Autoregressive(0.97, 6000, lognormal=False),
    "queue-50": Queue(0.50, 1000),
    "queue-70": Queue(0.70, 2000),
    "queue-85": Queue(0.85, 4000),
    "queue-92": Queue(0.92, 16000),
}


Task = tuple[str, str, int, int]
"""Condition, "part" of its truth or "repeats", and which of them: from, to."""
BATCH = 10


def tasks(name: str, repeats: int) -> list[Task]:
    """What a condition consists of, in pieces of some seconds."""
    parts: list[Task] = [(name, "part", i, i + 1) for i in range(CONDITIONS[name].parts)]
    return parts + [(name, "repeats", i, min(i + BATCH, repeats)) for i in range(0, repeats, BATCH)]


def work(task: Task) -> tuple[Task, Any]:
    """Do one piece; picklable, for it runs in a process of its own."""
    name, what, first, end = task
    condition = CONDITIONS[name]
    if what == "part":
        assert isinstance(condition, Engine)
        return task, condition.part(first)
    return task, list(condition.repeats(range(first, end)))


def judge(truth: dict[str, tuple[float, float]], repeats: list[tuple[int, Repeat]]) -> dict[str, Any]:
    """Per figure the counts of covered, missed below and above, and refused."""
    counts: dict[str, dict[str, Any]] = {
        name: {"truth": value, "truth_error": error, "given": 0, "below": 0, "above": 0, "half": 0.0, "plain": 0}
        for name, (value, error) in truth.items()
    }
    for _, figures in repeats:
        for name, ((low, high), (plain_low, plain_high)) in figures.items():
            row, true = counts[name], truth[name][0]
            assert plain_low is not None
            assert plain_high is not None
            row["plain"] += plain_low <= true <= plain_high
            if low is None or high is None:
                continue
            row["given"] += 1
            row["below"] += true < low
            row["above"] += true > high
            row["half"] += (high - low) / 2 / true
    return {"repeats": len(repeats), "n": float(np.mean([n for n, _ in repeats])), "figures": counts}


def table(results: dict[str, dict[str, Any]]) -> str:
    """The results as a Markdown table."""
    lines = [
        "| condition | requests | figure | interval | refused | coverage | truth below / above | plain covers |",
        "| --- | ---: | --- | ---: | ---: | ---: | ---: | ---: |",
    ]
    for name, result in results.items():
        for figure, row in result["figures"].items():
            given = row["given"]
            covered = f"{100 - 100 * (row['below'] + row['above']) / given:.1f}%" if given else "-"
            width = f"±{100 * row['half'] / given:.1f}%" if given else "-"
            sides = f"{100 * row['below'] / given:.1f} / {100 * row['above'] / given:.1f}" if given else "-"
            refused = 100 * (1 - given / result["repeats"])
            plain = 100 * row["plain"] / result["repeats"]
            cells = (name, f"{result['n']:.0f}", figure, width, f"{refused:.1f}%", covered, sides, f"{plain:.0f}%")
            lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=500)
    parser.add_argument("--jobs", type=int, default=1)
    parser.add_argument("--only", help="conditions, separated by commas")
    parser.add_argument("--out", type=Path, help="folder for one JSON file per condition")
    parser.add_argument("--table", action="store_true", help="only print what --out already holds")
    options = parser.parse_args()
    names = options.only.split(",") if options.only else list(CONDITIONS)
    results: dict[str, dict[str, Any]] = {}
    if options.table:
        for name in names:
            path = options.out / f"{name}.json"
            if path.exists():
                results[name] = json.loads(path.read_text())
    else:
        for name, result in run(names, options.repeats, options.jobs):
            results[name] = result
            if options.out:
                options.out.mkdir(parents=True, exist_ok=True)
                (options.out / f"{name}.json").write_text(json.dumps(result, indent=1))
    print(table({name: results[name] for name in names if name in results}))


def run(names: list[str], repeats: int, jobs: int) -> Iterator[tuple[str, dict[str, Any]]]:
    """The conditions as they are done."""
    begun = time.monotonic()
    for name in names:  # before the processes fork, so that each has the capacities
        condition = CONDITIONS[name]
        if isinstance(condition, Engine):
            condition.load()
    left = {name: tasks(name, repeats) for name in names}
    done: dict[str, dict[Task, Any]] = {name: {} for name in names}
    with multiprocessing.get_context("fork").Pool(jobs) as pool:
        for task, outcome in pool.imap_unordered(work, [task for name in names for task in left[name]]):
            name = task[0]
            done[name][task] = outcome
            if len(done[name]) < len(left[name]):
                continue
            parts = [done[name][t] for t in left[name] if t[1] == "part"]
            runs = [repeat for t in left[name] if t[1] == "repeats" for repeat in done[name][t]]
            del done[name]
            print(f"{name} after {time.monotonic() - begun:.0f} s", file=sys.stderr, flush=True)
            yield name, judge(CONDITIONS[name].truth(parts), runs)


if __name__ == "__main__":
    main()
