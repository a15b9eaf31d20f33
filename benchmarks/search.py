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
from dataclasses import dataclass
from functools import partial
from multiprocessing import Pool
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy import special

from pacemark.answers.search import find
from pacemark.budget import Budget, Limit
from pacemark.figures import metrics
from pacemark.figures.conditions import demands
from pacemark.figures.level import Measure
from pacemark.pace import Concurrency
from pacemark.runs.simulated import VirtualBench, virtual_measure
from pacemark.simulator import EngineSpec, Preset, simulate
from pacemark.simulator.engine.virtual import TokenCounts
from pacemark.summary import Figure

MOST = 1200
"""A case whose optimum is above this is taken to have none."""
STEEP = 0.005
"""A boundary is clear where a load 10% (and one stream) higher or lower changes the statistic by this much."""


@dataclass(frozen=True)
class Case:
    """An endpoint, what is asked of it, and a budget."""

    number: int
    preset: Preset
    input_tokens: int | tuple[float, float]
    output_tokens: int | tuple[float, float]
    budget: Budget

    def measure(self, seconds: float) -> VirtualBench:
        """The measuring step of this case."""
        return virtual_measure(
            self.preset,
            input_tokens=self.input_tokens,
            output_tokens=self.output_tokens,
            duration_s=seconds,
            seed=self.number,
        )

    def score(self, streams: int) -> float:
        """The budget's worst statistic over a long simulation, as a share of its limit; 0 where there is no load."""
        return max(_values(self, self.budget, streams)) if streams > 0 else 0.0


def _values(case: Case, budget: Budget, streams: int) -> list[float]:
    # At few streams one more makes a large difference, and fewer requests will show it; a rare quantile needs more.
    rare = 2 if any(limit.quantile == 0.99 for limit in budget.limits) else 1
    requests, ramp = rare * min(20_000, 2000 + 400 * streams), 6 * streams
    trace = simulate(
        Concurrency(streams),
        case.preset,
        input_tokens=_stratified(case.input_tokens),
        output_tokens=_stratified(case.output_tokens),
        requests=requests + ramp,
        seed=900_000 + case.number,
    )
    sample = np.arange(len(trace)) >= ramp
    return [
        float(np.quantile(c.scores, c.quantile) if c.quantile is not None else c.scores.mean())
        for c in demands(budget, trace, sample)[:-1]
    ]


def _stratified(lengths: int | tuple[float, float]) -> TokenCounts:
    """The same lengths, with the whole of their distribution in every block, so that less is left to chance."""
    if isinstance(lengths, int):
        return lengths
    mean, cv = lengths
    sigma = math.sqrt(math.log1p(cv**2))

    def block(rng: np.random.Generator, n: int) -> NDArray[np.int64]:
        at = special.ndtri((rng.permutation(n) + 0.5) / n)
        return np.maximum(1, np.rint(mean * np.exp(sigma * at - sigma**2 / 2))).astype(np.int64)

    return block


def draw(number: int) -> tuple[Case, int]:
    """Case `number`, with limits chosen such that its optimum is near the second value, somewhere up to 250 streams."""
    rng = np.random.default_rng([20260, number])

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


def optimum(case: Case, near: int) -> int:
    """The largest concurrency that meets the budget in a long simulation, looked for from `near` outwards."""
    low, high, reach = near, near + 1, 1
    if case.score(near) < 1:
        while high < MOST and case.score(high) < 1:
            low, high, reach = high, min(MOST, high + 2 * reach), 2 * reach
    else:
        while low > 0 and case.score(low) >= 1:
            low, high, reach = max(0, low - reach), low, 2 * reach
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if case.score(middle) < 1 else (low, middle)
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
            for c in demands(budget, result.trace, sample)
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


def close(answer: float, truth: float) -> bool:
    """Within max(1, 5%)."""
    return abs(answer - truth) <= max(1.0, 0.05 * truth)


class Truth(NamedTuple):
    """What does not depend on `find`: the optimum, how clear it is, and what the plain search makes of the case."""

    optimum: int
    below: float
    """The score at a load that is 10% (and one stream) lower."""
    above: float
    """The score at one that much higher."""
    plain: int
    plain_requests: int

    @property
    def clear(self) -> bool:
        """Whether there is a boundary to speak of."""
        return self.below < 1 - STEEP and self.above > 1 + STEEP


def truth_of(case: Case, near: int) -> Truth:
    best = optimum(case, near)
    below, above = case.score(math.ceil(0.9 * best) - 1), case.score(math.floor(1.1 * best) + 1)
    return Truth(best, below, above, *doubling_and_bisection(case.measure(10.0), case.budget))


@dataclass(frozen=True)
class Outcome:
    """One case: the truth, and what `find` made of it."""

    number: int
    budget: str
    truth: Truth
    answer: float
    low: float
    high: float
    resolved: bool
    levels: int
    requests: int

    @property
    def close(self) -> bool:
        """Whether the answer is within the tolerance."""
        return close(self.answer, self.truth.optimum)

    @property
    def holds(self) -> bool:
        """Whether the interval holds the optimum."""
        return self.low <= self.truth.optimum <= self.high

    def __str__(self) -> str:
        truth = self.truth
        return (
            f"{' ' if self.close else 'X'}{' ' if self.holds else 'I'}{' ' if truth.clear else 'u'}{self.number:4d} "
            f"N* {truth.optimum:4d} ({truth.below - 1:+.1%} {truth.above - 1:+.1%})  find {self.answer:5.0f} "
            f"({self.low:.0f} to {self.high:.0f}){' ' if self.resolved else '?'}  {self.levels:2d} levels "
            f"{self.requests:6d}  plain {truth.plain:4d} {truth.plain_requests:6d}  "
            f"x{truth.plain_requests / self.requests:5.1f}  {self.budget}"
        )


def outcome(number: int, kept: dict[str, Any]) -> Outcome:
    """Both searches on case `number`. `kept` holds the truths that are known already."""
    case, near = draw(number)
    key = f"{number} {case.budget}"
    truth = Truth(*kept[key]) if key in kept else truth_of(case, near)
    found = find(case.measure(10.0), case.budget)
    answer = found.answer or Figure(0.0, 0.0, 0.0)
    return Outcome(
        number,
        str(case.budget),
        truth,
        answer.value or 0.0,
        answer.low or 0.0,
        math.inf if answer.high is None else answer.high,
        found.resolved,
        len(found.probes),
        found.spent.requests,
    )


def table(outcomes: list[Outcome]) -> str:
    """The figures of both searches over `outcomes`."""

    def line(name: str, hits: list[bool], held: str, spent: list[int]) -> str:
        return f"{name:28}{np.mean(hits):17.1%}{held:>16}{np.median(spent):18.0f}{np.mean(spent):8.0f}\n"

    ratios = [o.truth.plain_requests / o.requests for o in outcomes]
    return (
        f"{'':28}{'within max(1, 5%)':>17}{'interval holds':>16}{'requests: median':>18}{'mean':>8}\n"
        + line(
            "pacemark find",
            [o.close for o in outcomes],
            f"{np.mean([o.holds for o in outcomes]):.1%}",
            [o.requests for o in outcomes],
        )
        + line(
            "doubling + bisection, 10 s",
            [close(o.truth.plain, o.truth.optimum) for o in outcomes],
            "-",
            [o.truth.plain_requests for o in outcomes],
        )
        + f"cheaper by a factor of {np.median(ratios):.1f} at the median of the cases; resolved "
        f"{np.mean([o.resolved for o in outcomes]):.1%}; "
        f"levels at the median {np.median([o.levels for o in outcomes]):.0f}"
    )


def main() -> None:
    """Run the cases and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--cases", type=int, default=200, help="how many with a known optimum")
    parser.add_argument("--first", type=int, default=0)
    parser.add_argument("--jobs", type=int, default=1, help="how many at a time")
    parser.add_argument("--verbose", action="store_true")
    parser.add_argument("--truth", type=Path, help="file that keeps the optima between runs")
    given = parser.parse_args()
    kept: dict[str, Any] = json.loads(given.truth.read_text()) if given.truth and given.truth.exists() else {}
    outcomes: list[Outcome] = []
    began = time.monotonic()
    with Pool(given.jobs) as pool:
        for one in pool.imap(partial(outcome, kept=kept), range(given.first, given.first + 2 * given.cases)):
            outcomes.append(one)
            kept[f"{one.number} {one.budget}"] = one.truth
            if given.truth:
                given.truth.write_text(json.dumps(kept, indent=0))
            if given.verbose:
                print(one, flush=True)
            if sum(o.truth.clear for o in outcomes) == given.cases:
                break
        pool.terminate()
    clear = [o for o in outcomes if o.truth.clear]
    print(f"{len(clear)} cases with a clear boundary, {time.monotonic() - began:.0f} s")
    print(table(clear))
    print(f"\nall {len(outcomes)} cases, with the {len(outcomes) - len(clear)} that have none")
    print(table(outcomes))


if __name__ == "__main__":
    main()
