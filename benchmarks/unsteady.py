"""How often the interval of `pacemark find` holds the long-run answer of an endpoint whose speed changes by itself.

    python benchmarks/unsteady.py --cases 30

The endpoints are those of benchmarks/search.py that have a clear boundary and take a minute or more to search: each as
it is; with a speed that wanders by 20% over 1 to 4 minutes; that jumps once while it is searched, to a third slower or
faster; and with a neighbour that makes it 30% slower for a third of the time, once in half a minute to 2 minutes. The
long-run answer is the largest concurrency whose requests of many hours (after the jump) meet the budget.
"""

from __future__ import annotations

import argparse
import math
import time
from dataclasses import dataclass, replace
from functools import cache
from typing import Literal, NamedTuple

import msgspec
import numpy as np
from numpy.typing import NDArray

from pacemark.answers.allowance import SEARCH_S, Allowance
from pacemark.answers.search import find
from pacemark.figures.conditions import demands
from pacemark.pace import Concurrency
from pacemark.simulator import Unsteady, simulate
from pacemark.summary import Figure, Find
from search import MOST, Case, draw, truth_of

Floats = NDArray[np.float64]
Kind = Literal["steady", "wanders", "jumps", "neighbour"]

KINDS: tuple[Kind, ...] = ("steady", "wanders", "jumps", "neighbour")
SWINGS = 24
"""Swings of the speed, or stays of the neighbour, that make the long run."""
LEAST_S = 60.0
"""A search that is over sooner sees nothing of what takes minutes: such endpoints are left out."""


def unsteady(case: Case, kind: Kind, period_s: tuple[float, float]) -> Case:
    """The case with a speed of that kind, in swings of such a length; a neighbour comes twice as often.

    A jump is somewhere in the time that a search of the steady one takes.
    """
    rng = np.random.default_rng([31, case.number, KINDS.index(kind)])
    if kind == "steady":
        return case
    if kind == "jumps":
        when_s = searched(case).spent.seconds * float(rng.uniform(0.2, 0.8))
        change = Unsteady(kind=kind, by=float(rng.choice([-0.25, 0.33])), period_s=when_s)
    else:
        by, times = (0.2, 1.0) if kind == "wanders" else (0.3, 0.5)
        change = Unsteady(kind=kind, by=by, period_s=times * float(rng.uniform(*period_s)), seed=case.number)
    return replace(case, preset=msgspec.structs.replace(case.preset, unsteady=change))


@dataclass(frozen=True)
class LongRun:
    """What an unsteady endpoint comes to in the long run.

    A closed loop whose steps all take s times as long runs the same course s times as slowly. So one course, stretched
    by the speeds of many moments, is the long run of a speed that changes over minutes.
    """

    case: Case
    slowness: Floats
    """Of the moments that requests are served at: a slow minute serves fewer."""

    @staticmethod
    def of(case: Case) -> LongRun:
        """The moments of many swings."""
        change = case.preset.unsteady
        assert change is not None
        if change.kind == "jumps":
            return LongRun(case, np.array([1 + change.by]))
        moments = np.linspace(0, SWINGS * change.period_s, 2000, endpoint=False)
        slow = np.array([change.slowness(at_s) for at_s in moments])
        chosen = np.random.default_rng(3).choice(slow, 200, p=(1 / slow) / (1 / slow).sum())
        return LongRun(case, chosen)

    def score(self, streams: int) -> float:
        """The budget's worst statistic, as a share of its limit."""
        if streams < 1:
            return 0.0
        trace = simulate(
            Concurrency(streams),
            msgspec.structs.replace(self.case.preset, unsteady=None),
            input_tokens=self.case.input_tokens,
            output_tokens=self.case.output_tokens,
            requests=min(6000, 600 + 60 * streams),
            seed=700_000 + self.case.number,
        )
        conditions = demands(self.case.budget, trace, np.arange(len(trace)) >= 4 * streams)[:-1]
        mixed = [(c, np.outer(self.slowness, c.scores).ravel()) for c in conditions]
        return max(float(np.quantile(m, c.quantile) if c.quantile is not None else m.mean()) for c, m in mixed)


def optimum(case: Case, near: int) -> int:
    """The largest concurrency within the budget in the long run."""
    score = cache(LongRun.of(case).score)
    low, high, reach = near, near + 1, max(1, near // 8)
    if score(low) < 1:
        while high < MOST and score(high) < 1:
            low, high, reach = high, min(MOST, high + 2 * reach), 2 * reach
    else:
        while low > 0 and score(low) >= 1:
            low, high, reach = max(0, low - reach), low, 2 * reach
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if score(middle) < 1 else (low, middle)
    return low


@cache
def searched(case: Case) -> Find:
    """What `pacemark find` says, within the time that it may take by itself."""
    measure = case.measure(10.0)
    return find(measure, case.budget, allowance=Allowance(SEARCH_S), rest=measure.rest)


class Row(NamedTuple):
    """One search."""

    truth: int
    found: Find

    @property
    def interval(self) -> tuple[float, float]:
        """Its ends; one may be open."""
        answer = self.found.answer or Figure(0.0, 0.0, 0.0)
        return answer.low or 0.0, math.inf if answer.high is None else answer.high

    @property
    def holds(self) -> bool:
        """Whether the long-run answer is in the interval."""
        low, high = self.interval
        return low <= self.truth <= high

    @property
    def width(self) -> float:
        """As a share of the answer."""
        low, high = self.interval
        return (high - low) / max(1.0, (self.found.answer or Figure(0.0)).value or 0.0)

    def __str__(self) -> str:
        low, high = self.interval
        answer, spent = (self.found.answer or Figure(0.0)).value or 0.0, self.found.spent
        return (
            f"{' ' if self.holds else 'X'} {self.truth:4d}: {answer:.0f} ({low:.0f} to {high:.0f})"
            f"{'' if self.found.resolved else '?'} {self.found.scatter:.0%}, {spent.requests} requests, "
            f"{spent.seconds:.0f} s, {len(self.found.probes)} levels, {self.found.budget}: {self.found.why}"
        )


def main() -> None:
    """Run the cases and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--cases", type=int, default=30, help="of each kind")
    parser.add_argument("--first", type=int, default=0)
    parser.add_argument("--minutes", type=float, nargs=2, default=(1, 4), help="shortest and longest swing")
    parser.add_argument("--verbose", action="store_true")
    given = parser.parse_args()
    began = time.monotonic()
    rows: dict[Kind, list[Row]] = {kind: [] for kind in KINDS}
    number = given.first - 1
    while len(rows["steady"]) < given.cases:
        number += 1
        case, near = draw(number)
        if searched(case).spent.seconds < LEAST_S or not (steady := truth_of(case, near)).clear:
            continue
        for kind, row in rows.items():
            changed = unsteady(case, kind, (60 * given.minutes[0], 60 * given.minutes[1]))
            row.append(Row(steady.optimum if kind == "steady" else optimum(changed, near), searched(changed)))
            if given.verbose:
                print(f"{number:4d} {kind:9} {row[-1]}", flush=True)
    print(f"{given.cases} endpoints, {time.monotonic() - began:.0f} s")
    print(f"{'':10}{'interval holds':>16}{'median width':>14}{'said unsteady':>15}{'requests':>10}{'seconds':>9}")
    for kind, row in rows.items():
        held, said = np.mean([r.holds for r in row]), np.mean([r.found.scatter > 0 for r in row])
        requests, seconds = (np.median([getattr(r.found.spent, name) for r in row]) for name in ("requests", "seconds"))
        print(
            f"{kind:10}{held:16.0%}{np.median([r.width for r in row]):14.0%}{said:15.0%}{requests:10.0f}{seconds:9.0f}"
        )


if __name__ == "__main__":
    main()
