"""Which of several endpoints is better, where each was measured in turn, in short slices of the same hour.

A round is a slice of every target. What drifts over the hour drifts for all of a round alike, so a figure of one
target is held against that of another within each round, and the rounds say how sure the difference is. Every second
round has the order of the one before it turned round: what drifts within a round then leaves the difference alone.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

import msgspec
import numpy as np
from scipy import special

from pacemark.answers.comparison import SAME, Outcome
from pacemark.answers.family import ALPHA, holm
from pacemark.figures.level import Measure
from pacemark.figures.verdict import COUNTS, NOTES
from pacemark.pace import Concurrency, Load, Rate
from pacemark.summary import Figure, Level

__all__ = [
    "Contest",
    "Contested",
    "Entrant",
    "LoadContest",
    "Pair",
    "Paired",
    "Slice",
    "contest",
    "orders",
    "slices",
    "wins",
]

LEAST_ROUNDS = 4
"""Fewer give no interval: two of the degrees of freedom go to the difference and to the drift within a round."""

TOKENS, REQUESTS, COST = "output_tokens_per_s", "requests_per_s", "cost_per_million_tokens"
FIGURES = (TOKENS, REQUESTS, "ttft_ms.p50", "ttft_ms.p95", "tpot_ms.p50", "latency_ms.p50", "latency_ms.p95")
"""What is compared, of what a level has; requests/s only where there are no output tokens. Rates of an open loop are
those of its arrivals, and say nothing of the endpoint."""
_BETTER = ("higher", "faster", "cheaper")


class Slice(NamedTuple):
    """One target's turn at one load."""

    round: int
    place: int
    """Which of the round's turns it was, from 0."""
    target: int
    level: Level


class Entrant(msgspec.Struct, frozen=True, kw_only=True):
    """A target of a contest."""

    name: str
    """A, B, C or D."""
    target: str
    model: str = ""
    run: str = ""
    """Folder of its slices, which is a run like any other."""
    price_per_hour: float | None = None


class Contested(msgspec.Struct, frozen=True):
    """How a target did at one load: geometric means over the rounds, of the figures in `FIGURES` that it has."""

    name: str
    figures: dict[str, float]
    cost_per_million_tokens: float | None = None
    """Of output, by the price per hour and the output tokens/s."""


class Paired(msgspec.Struct, frozen=True):
    """One figure of two targets, round by round."""

    ratio: Figure
    """B over A. Its interval is as long as Holm's step asks for, so it leaves out 1 where there is a verdict."""
    p: float
    """Two-sided, of this figure alone."""
    p_adjusted: float
    """By Holm (1979) over all figures, loads and pairs of the contest."""
    rounds: int
    """On how many it stands."""
    verdict: str
    """Of B: faster, slower, higher, lower, cheaper, dearer, or no difference shown."""


class Pair(msgspec.Struct, frozen=True):
    """Two targets at one load; figures by names such as `ttft_ms.p95`."""

    a: str
    b: str
    metrics: dict[str, Paired]


class LoadContest(msgspec.Struct, frozen=True):
    """One load that all targets were put under."""

    load: Load
    targets: list[Contested]
    pairs: list[Pair]


class Contest(msgspec.Struct, frozen=True, kw_only=True):
    """The result of a contest, schema `pacemark/versus/1`."""

    schema: str = "pacemark/versus/1"
    targets: list[Entrant]
    loads: list[LoadContest]
    winner: str | None = None
    """The target that is better than every other in some figure at some load, and worse in none."""
    cheapest: str | None = None
    """The target whose tokens surely cost less than every other's, at every load."""
    rounds: int = 0
    seed: int = 0
    left_out: list[str] = []
    """Slices that could not be relied on, and why."""
    doubts: list[str] = []
    """What makes the figures of a target doubtful in some of its slices."""
    folder: str = ""
    """Where it is kept, with the runs of the targets in it."""
    interrupted: bool = False
    conditions: list[Outcome] = []
    """What became of the conditions of a gate, where there are some."""


def orders(targets: int, rounds: int, seed: int) -> list[tuple[int, ...]]:
    """In which order the targets take their turns, round by round: any order, and then the same turned round."""
    rng = np.random.default_rng([seed, targets])
    found: list[tuple[int, ...]] = []
    for _ in range((rounds + 1) // 2):
        order = tuple(int(x) for x in rng.permutation(targets))
        found += [order, order[::-1]]
    return found[:rounds]


def slices(measures: Sequence[Measure], loads: Sequence[Load], turns: Sequence[Sequence[int]]) -> Iterator[Slice]:
    """Measure round by round: every load in each, with the targets in the order of that round's `turns`."""
    for number, order in enumerate(turns):
        for load in loads:
            for place, target in enumerate(order):
                yield Slice(number, place, target, measures[target](load).level)


def contest(taken: Sequence[Slice], targets: Sequence[Entrant], *, rounds: int = 0, seed: int = 0) -> Contest:
    """What the slices `taken` of `targets` say, all loads, figures and pairs together.

    A slice that is invalid is left out, and its round with it for the pairs of that target.
    """
    sound = [x for x in taken if x.level.verdict.status != "invalid"]
    loads = list(dict.fromkeys(x.level.load for x in taken))
    judged = _judged(list(_tests(sound, targets)))
    found = [_at(load, [x for x in sound if x.level.load == load], targets, judged) for load in loads]
    served = {(x.target, x.level.load) for x in sound}
    wanted = {load for _, load in served}  # what nobody could do tells them not apart
    able = [one for n, one in enumerate(targets) if all((n, load) in served for load in wanted)]
    return Contest(
        targets=list(targets),
        loads=found,
        winner=_best(able, targets, [pair for one in found for pair in one.pairs]),
        cheapest=_cheapest(targets, found),
        rounds=rounds,
        seed=seed,
        left_out=[_unsound(x, targets) for x in taken if x.level.verdict.status == "invalid"],
        doubts=[
            line for n, one in enumerate(targets) for line in _doubts(one.name, [x for x in sound if x.target == n])
        ],
    )


# --- one figure of two targets


class _Test(NamedTuple):
    """A figure of two targets at a load: the mean of log(B / A), and how sure it is."""

    load: Load
    pair: tuple[int, int]
    name: str
    log: float
    error: float
    rounds: int
    dof: int
    floor: float = 0.0
    """The least difference, on the same scale, that the client's own error cannot make."""

    @property
    def p(self) -> float:
        """Two-sided; without any scatter a difference is certain."""
        if self.error <= 1e-12:
            return 0.0 if abs(self.log) > 1e-12 else 1.0
        return float(2 * special.stdtr(self.dof, -abs(self.log) / self.error))


def _tests(taken: Sequence[Slice], targets: Sequence[Entrant]) -> Iterator[_Test]:
    """Every figure of every pair that enough rounds have."""
    for load in dict.fromkeys(x.level.load for x in taken):
        for pair in itertools.combinations(range(len(targets)), 2):
            a, b = ({x.round: x for x in taken if x.target == who and x.level.load == load} for who in pair)
            both = [(a[n], b[n]) for n in sorted(a.keys() & b.keys())]
            for name in _figures([x.level for sides in both for x in sides]):
                if test := _test(load, pair, name, both):
                    yield test
            prices = [targets[who].price_per_hour for who in pair] if isinstance(load, Concurrency) else [None, None]
            if prices[0] and prices[1] and (test := _test(load, pair, TOKENS, both)):
                yield test._replace(name=COST, log=math.log(prices[1] / prices[0]) - test.log)


def _figures(levels: Sequence[Level]) -> list[str]:
    """The figures that these levels are compared by."""
    if any(isinstance(level.load, Rate) for level in levels):
        return [name for name in FIGURES if name not in (TOKENS, REQUESTS)]
    generates = any(level.output_tokens_per_s.value for level in levels)
    return [name for name in FIGURES if name != (REQUESTS if generates else TOKENS)]


def _value(level: Level, name: str) -> float | None:
    metric, _, statistic = name.partition(".")
    figure = getattr(level, metric)
    value: float | None = getattr(figure, statistic).value if statistic else figure.value
    return value if value and value > 0 else None


def _test(load: Load, pair: tuple[int, int], name: str, both: Sequence[tuple[Slice, Slice]]) -> _Test | None:
    """Of the slices of two targets, round by round; None where fewer than `LEAST_ROUNDS` have the figure.

    The difference of a round is `mean + drift x (place of B - place of A)`, by least squares, so what drifts within a
    round is no part of the mean: the analysis of a crossover of two treatments in two periods (M. Hills and
    P. Armitage, The two-period cross-over clinical trial, British J. Clinical Pharmacology 8 (1979) 7-20).
    """
    known = [(y.place - x.place, _value(x.level, name), _value(y.level, name)) for x, y in both]
    rows = [(gap, a, b) for gap, a, b in known if a is not None and b is not None]
    if len(rows) < LEAST_ROUNDS:
        return None
    gaps, logs = (
        np.array(column) for column in zip(*((float(gap), math.log(b / a)) for gap, a, b in rows), strict=True)
    )
    design = np.column_stack([np.ones_like(gaps), gaps]) if np.ptp(gaps) else np.ones((len(gaps), 1))
    inverse = np.linalg.inv(design.T @ design)
    fitted = inverse @ design.T @ logs
    dof = len(rows) - design.shape[1]
    variance = float(np.sum((logs - design @ fitted) ** 2)) / dof
    wrong = max(_client_error(x.level, y.level, name) for x, y in both) / min(min(a, b) for _, a, b in rows)
    error = math.sqrt(variance * float(inverse[0, 0]))
    return _Test(load, pair, name, float(fitted[0]), error, len(rows), dof, math.log1p(wrong))


def _client_error(a: Level, b: Level, name: str) -> float:
    """What the client of either may have got wrong of a time, in ms; rates it does not get wrong."""
    error_ms = max(level.client.bound_ms or 0.0 for level in (a, b))
    per_token = max(b.output_tokens or 1.0, 1.0) if name.startswith("tpot") else 1.0
    return 0.0 if name.endswith("per_s") else error_ms / per_token


# --- all of them together


def _judged(tests: Sequence[_Test]) -> dict[tuple[Load, tuple[int, int], str], Paired]:
    """Each test with its verdict, and an interval as long as its step asks for."""
    found = {}
    for test, judged in zip(tests, holm([test.p for test in tests]), strict=True):
        half = float(special.stdtrit(test.dof, 1 - ALPHA / judged.divisor / 2)) * test.error
        low, high = test.log - half, test.log + half
        if abs(test.log) <= test.floor:
            low, high = min(low, 0.0), max(high, 0.0)
        ratio = Figure(math.exp(test.log), math.exp(low), math.exp(high))
        differs = judged.differs and not low <= 0.0 <= high
        verdict = _verdict(test.name, test.log) if differs else SAME
        found[test.load, test.pair, test.name] = Paired(ratio, test.p, judged.adjusted, test.rounds, verdict)
    return found


def _verdict(name: str, log: float) -> str:
    if name == COST:
        return "dearer" if log > 0 else "cheaper"
    if name in (TOKENS, REQUESTS):
        return "higher" if log > 0 else "lower"
    return "slower" if log > 0 else "faster"


def _at(
    load: Load,
    taken: Sequence[Slice],
    targets: Sequence[Entrant],
    judged: Mapping[tuple[Load, tuple[int, int], str], Paired],
) -> LoadContest:
    pairs = []
    for a, b in itertools.combinations(range(len(targets)), 2):
        found = {name: judged[load, (a, b), name] for name in (*FIGURES, COST) if (load, (a, b), name) in judged}
        pairs.append(Pair(targets[a].name, targets[b].name, found))
    did = [_did(one, [x.level for x in taken if x.target == n]) for n, one in enumerate(targets)]
    return LoadContest(load, did, pairs)


def _did(target: Entrant, levels: Sequence[Level]) -> Contested:
    figures = {}
    for name in _figures(levels):
        values = [value for level in levels if (value := _value(level, name)) is not None]
        if values:
            figures[name] = math.exp(math.fsum(map(math.log, values)) / len(values))
    price, tokens = target.price_per_hour, figures.get(TOKENS)
    return Contested(target.name, figures, price / (tokens * 3600) * 1e6 if price and tokens else None)


def _best(able: Sequence[Entrant], targets: Sequence[Entrant], pairs: Sequence[Pair]) -> str | None:
    """Who of those that served every load is better than every other in something and worse in nothing; what a token
    costs is another question."""
    for one in able:
        against = {other.name: wins(pairs, one.name, other.name) for other in targets if other is not one}
        if all(better and not worse for better, worse in against.values()):
            return one.name
    return None


def wins(pairs: Sequence[Pair], one: str, other: str) -> tuple[list[str], list[str]]:
    """In which figures `one` is better than `other`, and in which worse."""
    better: list[str] = []
    worse: list[str] = []
    for pair in pairs:
        if {pair.a, pair.b} == {one, other}:
            for name, found in pair.metrics.items():
                if name != COST and found.verdict != SAME:
                    (better if (found.verdict in _BETTER) == (pair.b == one) else worse).append(name)
    return better, worse


def _cheapest(targets: Sequence[Entrant], loads: Sequence[LoadContest]) -> str | None:
    for one in targets:
        said = [
            (pair.metrics[COST].verdict == "cheaper") == (pair.b == one.name)
            for load in loads
            for pair in load.pairs
            if one.name in (pair.a, pair.b) and COST in pair.metrics and pair.metrics[COST].verdict != SAME
        ]
        if len(said) == len(loads) * (len(targets) - 1) and said and all(said):
            return one.name
    return None


def _unsound(one: Slice, targets: Sequence[Entrant]) -> str:
    why = ", ".join(reason.code for reason in one.level.verdict.reasons)
    return f"round {one.round + 1} of {targets[one.target].name} at {one.level.load}: invalid ({why})"


def _doubts(name: str, taken: Sequence[Slice]) -> list[str]:
    """Why slices are suspect; not that they are short, for that they are meant to be."""
    said: dict[str, list[str]] = {}
    for one in taken:
        for reason in one.level.verdict.reasons if one.level.verdict.status == "suspect" else ():
            if reason.code not in NOTES | COUNTS:
                said.setdefault(reason.code, []).append(reason.message)
    return [f"{name}, {len(lines)} of {len(taken)} slices: {lines[0]}" for lines in said.values()]
