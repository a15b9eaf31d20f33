"""How good `pacemark find` is, and what it costs, against doubling and bisection with 10 s per level.

    python benchmarks/search.py --cases 200

Each case is an endpoint of random speed, batch limit and memory, with random lengths and a random budget, in virtual
time. The truth is the largest concurrency whose statistic over a long simulation meets the budget. Both searches
see the same endpoint under the same seed.
"""

from __future__ import annotations

import argparse
import json
import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from pacemark import metrics
from pacemark.budget import Budget, Limit
from pacemark.level import Measure
from pacemark.pace import Concurrency
from pacemark.search import find
from pacemark.simulator import EngineSpec, Preset, simulate
from pacemark.simulator.measured import virtual_measure

LONG = 40_000
"""Requests of the simulations that the truth rests on."""


@dataclass(frozen=True)
class Case:
    """An endpoint, what is asked of it, and a budget."""

    number: int
    preset: Preset
    input_tokens: int | tuple[float, float]
    output_tokens: int | tuple[float, float]
    budget: Budget

    def measure(self, seconds: float) -> Measure:
        """The measuring step of this case."""
        return virtual_measure(
            self.preset,
            input_tokens=self.input_tokens,
            output_tokens=self.output_tokens,
            duration_s=seconds,
            seed=self.number,
        )

    def score(self, streams: int, requests: int = 6000) -> float:
        """The budget's worst statistic over a long simulation, as a share of its limit."""
        return max(_values(self, self.budget, streams, requests))


def _values(case: Case, budget: Budget, streams: int, requests: int = 6000) -> list[float]:
    ramp = 6 * streams
    trace = simulate(
        Concurrency(streams),
        case.preset,
        input_tokens=case.input_tokens,
        output_tokens=case.output_tokens,
        requests=requests + ramp,
        seed=900_000 + case.number,
    )
    sample = np.arange(len(trace)) >= ramp
    return [
        float(np.quantile(c.scores, c.quantile) if c.quantile is not None else c.scores.mean())
        for c in budget.conditions(trace, sample)[:-1]
    ]


def draw(number: int) -> Case:
    """Case `number`: the first of its random numbers to have an optimum.

    Where 15% more load raises the statistic by less than 2%, there is no boundary to speak of, and no experiment of
    any length would find it.
    """
    rng = np.random.default_rng([20260, number])
    while True:
        case, target = _draw(number, rng)
        if case.score(1 + round(1.15 * target)) > 1.02 * case.score(target):
            return case


def _draw(number: int, rng: np.random.Generator) -> tuple[Case, int]:
    """A case, with limits chosen such that its optimum is near the second value, somewhere up to 250 streams."""

    def between(low: float, high: float) -> float:
        return float(np.exp(rng.uniform(np.log(low), np.log(high))))

    slots = int(between(8, 160))
    spec = EngineSpec(
        base_ms=between(4, 25),
        per_decode_ms=between(0.03, 0.5),
        per_prefill_token_ms=between(0.005, 0.08),
        per_kv_token_ms=float(rng.choice([0.0, 0.00005, 0.0002])),
        max_batch=slots,
        token_budget=int(slots + between(256, 4096)),
        kv_blocks=int(rng.choice([100_000, max(64, slots * 20)])),
    )
    preset = Preset(name="random", summary="", model="random", timeline=spec)
    lengths = [
        (mean, float(cv)) if (cv := rng.choice(spread)) else round(mean)
        for mean, spread in ((between(24, 400), (0.0, 0.2, 0.5)), (between(12, 64), (0.0, 0.1, 0.3)))
    ]
    forms: list[tuple[tuple[tuple[str, float], ...], bool]] = [
        ((("tpot", 0.95),), False),
        ((("tpot", 0.5),), False),
        ((("tpot", 0.0),), False),
        ((("ttft", 0.95),), False),
        ((("ttft", 0.9),), False),
        ((("ttft", 0.99),), False),
        ((("latency", 0.95),), False),
        ((("latency", 0.0),), False),
        ((("ttft", 0.95), ("tpot", 0.95)), False),
        ((("ttft", 0.95), ("tpot", 0.95)), True),
        ((("ttft", 0.95), ("latency", 0.95)), True),
    ]
    form, each = forms[int(rng.integers(len(forms)))]
    plain = Budget(tuple(Limit(metric, 1.0, q or None, mean=not q) for metric, q in form))
    case = Case(number, preset, lengths[0], lengths[1], plain)
    target = int(between(1.5, min(250.0, 2.5 * slots)))
    here, there = _values(case, plain, target), _values(case, plain, target + 1)
    slack = [0.0] + [float(rng.choice([0.0, 0.3])) for _ in form[1:]]
    rng.shuffle(slack)
    share = float(rng.uniform(0.2, 0.8))
    limits = tuple(
        Limit(metric, (a + share * abs(b - a)) * (1 + more), None if each else q or None, mean=not each and not q)
        for (metric, q), a, b, more in zip(form, here, there, slack, strict=True)
    )
    return Case(number, preset, lengths[0], lengths[1], Budget(limits, 0.95 if each else None)), target


def optimum(case: Case, highest: int = 1200) -> int:
    """The largest concurrency that meets the budget in the long run; 0 for none, `highest` where none misses it."""
    low, high = 0, 1
    while case.score(high, 3000) < 1:
        low, high = high, 2 * high
        if high > highest:
            return highest
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if case.score(middle, 3000) < 1 else (low, middle)
    # Found in haste; from here on with care.
    while case.score(low + 1, LONG) < 1:
        low += 1
    while low and case.score(low, LONG) >= 1:
        low -= 1
    return low


def doubling_and_bisection(measure: Measure, budget: Budget, highest: int = 1200) -> tuple[int, int]:
    """What tools without a model do: the answer and the requests that it took. It stops at max(1, 5%)."""
    spent = 0

    def meets(n: int) -> bool:
        nonlocal spent
        result = measure(Concurrency(n))
        spent += len(result.trace)
        sample = metrics.started_in(result.trace, result.window.start_ns, result.window.end_ns)
        return all(
            (np.quantile(c.scores, c.quantile) if c.quantile is not None else c.scores.mean()) < 1
            for c in budget.conditions(result.trace, sample)
        )

    if not meets(1):
        return 0, spent
    low, high = 1, 2
    while meets(high):
        low, high = high, 2 * high
        if high > highest:
            return highest, spent
    while high - low > max(1, 0.05 * low):
        middle = (low + high) // 2
        low, high = (middle, high) if meets(middle) else (low, middle)
    return low, spent


def close(answer: float, truth: int) -> bool:
    """Within max(1, 5%)."""
    return abs(answer - truth) <= max(1.0, 0.05 * truth)


def main() -> None:
    """Run the cases and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--cases", type=int, default=200)
    parser.add_argument("--first", type=int, default=0)
    parser.add_argument("--verbose", action="store_true")
    parser.add_argument("--truth", type=Path, help="file that keeps the optima between runs")
    given = parser.parse_args()
    kept: dict[str, int] = json.loads(given.truth.read_text()) if given.truth and given.truth.exists() else {}
    rows = []
    began = time.monotonic()
    for number in range(given.first, given.first + given.cases):
        case = draw(number)
        key = f"{number} {case.budget}"
        truth = kept[key] if key in kept else kept.setdefault(key, optimum(case))
        found = find(case.measure(10.0), case.budget)
        naive, cost = doubling_and_bisection(case.measure(10.0), case.budget)
        value = found.answer.value if found.answer and found.answer.value is not None else 0.0
        low = found.answer.low if found.answer and found.answer.low is not None else 0.0
        high = found.answer.high if found.answer and found.answer.high is not None else (math.inf if value else 0.0)
        rows.append(
            (truth, value, low <= truth <= high, found.spent.requests, naive, cost, found.resolved, len(found.probes))
        )
        if given.verbose:
            mark = ("  " if close(value, truth) else "X ") + ("  " if low <= truth <= high else "I ")
            print(
                f"{mark}{number:4d} N* {truth:4d}  find {value:5.0f} ({low:.0f} to {high:.0f})"
                f"{'' if found.resolved else '?'}  {len(found.probes):2d} levels {found.spent.requests:6d}"
                f"  naive {naive:4d} {cost:6d}  x{cost / found.spent.requests:5.1f}  {case.budget}",
                flush=True,
            )
        if given.truth:
            given.truth.write_text(json.dumps(kept, indent=0))
    table = np.array(rows, dtype=float)
    ours, theirs = table[:, 3], table[:, 5]
    share: Callable[[list[bool]], str] = lambda hits: f"{np.mean(hits):7.1%}"  # noqa: E731
    print(f"{len(rows)} cases, {time.monotonic() - began:.0f} s")
    print("                            within max(1, 5%)  interval holds  requests: median   mean")
    print(
        f"pacemark find               {share([close(r[1], r[0]) for r in rows])}            "
        f"{share([r[2] for r in rows])}         {np.median(ours):8.0f}  {ours.mean():8.0f}"
    )
    print(
        f"doubling + bisection, 10 s  {share([close(r[4], r[0]) for r in rows])}                  -         "
        f"{np.median(theirs):8.0f}  {theirs.mean():8.0f}"
    )
    print(f"cheaper by a factor of {np.median(theirs / ours):.1f} at the median of the cases")
    print(f"resolved: {np.mean(table[:, 6]):.1%}; levels at the median: {np.median(table[:, 7]):.0f}")


if __name__ == "__main__":
    main()
