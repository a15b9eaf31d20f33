"""How often targets measured in turns are told apart wrongly, and how often rightly, beside two runs in a row.

    python benchmarks/versus.py --pairs 100 --jobs 2

A/A: the same endpoint twice; any difference that is reported is false. A/B: everything takes the second endpoint 5%
longer; it is found where the first is named the winner. Both in virtual time, with random lengths, in 10 rounds of
about 60 requests for each. "Alike": lengths and arrivals are those of both in a round, as `pacemark versus` has them;
"apart": they are not, which is all the noise that there is in virtual time, and so A/A is apart. "Drift": everything
gets 30% slower from the first slice to the last, for both. "Compare" is the comparison of the same slices, pooled, each
figure by itself and without regard to the rounds; "in a row" the same of as many slices, first all of A and then all of
B, as two runs would be, in every fifth pair.
"""

from __future__ import annotations

import argparse
import multiprocessing
from collections import Counter
from collections.abc import Callable, Sequence

from pacemark.answers.comparison import SAME, compare_levels
from pacemark.answers.versus import FIGURES, Entrant, Slice, contest, orders, slices
from pacemark.figures.level import Enough, LevelResult, Measure
from pacemark.figures.pooling import pooled
from pacemark.pace import Concurrency, Load, Rate
from pacemark.runs.simulated import virtual_measure
from pacemark.simulator import EngineSpec, Preset, customised, named

ROUNDS, REQUESTS, SLOWER, SELDOM = 10, 60, 1.05, 5
LENGTHS = {"input_tokens": (256.0, 0.5), "output_tokens": (64.0, 0.66)}
LOADS: dict[str, tuple[Load, float]] = {
    "8 in parallel": (Concurrency(8), 12.2),
    "open loop at 0.5": (Rate(17.0), 17.0),
}
"""Each with the requests/s that the demo endpoint serves under it."""
DRIFTS: dict[str, Callable[[float], float]] = {
    "steady": lambda t: 1.0,
    "drift": lambda t: 1.0 + 0.3 * t,
}
"""What everything takes longer by, from the beginning (0) to the end (1)."""
TARGETS = [Entrant(name="A", target="a"), Entrant(name="B", target="b")]


def slowed(factor: float) -> Preset:
    """The demo preset with everything `factor` times as long."""
    preset = named("demo")
    spec = preset.timeline
    assert isinstance(spec, EngineSpec)
    costs = ("base_ms", "per_decode_ms", "per_prefill_token_ms", "per_kv_token_ms")
    return customised(preset, {cost: getattr(spec, cost) * factor for cost in costs})


class Hour:
    """Two endpoints over an hour: every slice takes a part of it, and meets them as slow as they are then."""

    def __init__(
        self, seed: int, window_s: float, slower: float, drift: Callable[[float], float], alike: bool = False
    ) -> None:
        self._alike = alike
        self._seed, self._window_s, self._drift, self._taken = seed, window_s, drift, 0
        self.results: tuple[list[LevelResult], list[LevelResult]] = ([], [])
        self.measures: list[Measure] = [self._of(0, 1.0), self._of(1, slower)]

    def _of(self, target: int, factor: float) -> Measure:
        def measure(load: Load, enough: Enough | None = None) -> LevelResult:
            preset = slowed(factor * self._drift(self._taken / (2 * ROUNDS - 1)))
            seed = 1000 * self._seed + (self._taken // 2 if self._alike else 500 + self._taken)
            self._taken += 1
            found = virtual_measure(preset, **LENGTHS, duration_s=self._window_s, seed=seed)(load)  # type: ignore[arg-type]
            self.results[target].append(found)
            return found

        return measure

    def differs(self) -> bool:
        """Whether `compare` of all the slices, pooled, reports a difference in any of the figures."""
        found = compare_levels(*(pooled(results) for results in self.results))
        return any(found[name].verdict not in (SAME, "undecidable") for name in FIGURES)


Task = tuple[str, str, float, bool, range]


def work(task: Task) -> tuple[Task, Counter[str]]:
    """Some pairs of one condition; picklable, for it runs in a process of its own."""
    load_name, drift, slower, alike, numbers = task
    load, per_s = LOADS[load_name]
    found: Counter[str] = Counter()
    for number in numbers:
        window_s = REQUESTS / per_s
        in_turns = Hour(2 * number, window_s, slower, DRIFTS[drift], alike)
        in_a_row = Hour(2 * number + 1, window_s, slower, DRIFTS[drift])
        taken: Sequence[Slice] = list(slices(in_turns.measures, [load], orders(2, ROUNDS, number)))
        result = contest(taken, TARGETS)
        (pair,) = result.loads[0].pairs
        found["won"] += result.winner == "A"
        found["lost"] += result.winner == "B"
        found["paired"] += any(x.verdict != SAME for x in pair.metrics.values())
        found["compare"] += in_turns.differs()
        if number % SELDOM or alike:
            continue
        for measure in in_a_row.measures:
            for _ in range(ROUNDS):
                measure(load)
        found["in a row"] += SELDOM * in_a_row.differs()
    return task, found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pairs", type=int, default=100)
    parser.add_argument("--jobs", type=int, default=1)
    options = parser.parse_args()
    tasks: list[Task] = [
        (load, drift, slower, alike, range(first, min(first + 10, options.pairs)))
        for load in LOADS
        for drift in DRIFTS
        for slower, alike in ((1.0, False), (SLOWER, False), (SLOWER, True))
        for first in range(0, options.pairs, 10)
    ]
    totals: dict[tuple[str, str, float, bool], Counter[str]] = {}
    with multiprocessing.get_context("fork").Pool(options.jobs) as pool:
        for (*condition, _), found in pool.imap(work, tasks):
            totals.setdefault(tuple(condition), Counter()).update(found)  # type: ignore[arg-type]
    print("| load | meanwhile | A/A: false | compare | in a row | A/B: found, alike | apart | compare | in a row |")
    print("| --- | --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: |")
    for load in LOADS:
        for drift in DRIFTS:
            same, other, alike = (totals[load, drift, *x] for x in ((1.0, False), (SLOWER, False), (SLOWER, True)))
            counts = [same["paired"], same["compare"], same["in a row"]]
            counts += [alike["won"], other["won"], other["compare"], other["in a row"]]
            assert other["lost"] + alike["lost"] == 0, "the wrong one was named"
            print(f"| {load} | {drift} | {' | '.join(f'{count / options.pairs:.0%}' for count in counts)} |")


if __name__ == "__main__":
    main()
