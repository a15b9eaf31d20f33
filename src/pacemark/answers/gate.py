"""A gate over two runs: conditions such as `ttft p95 > +5%` that must not hold, each judged with its uncertainty."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from typing import NamedTuple

import msgspec

from pacemark.answers.comparison import (
    Compared,
    ComparedLevel,
    Comparison,
    GateStatus,
    LevelOutcome,
    Outcome,
)
from pacemark.answers.versus import FIGURES, Contest
from pacemark.errors import BadInput
from pacemark.pace import Load, Rate
from pacemark.summary import Figure

__all__ = [
    "Condition",
    "gated",
    "gated_contest",
    "more_requests",
    "parse_condition",
    "refuse_condition",
    "standing",
]

_CONDITION = re.compile(r"\s*(\w+)(?:\s+(mean|p50|p90|p95|p99))?\s*([<>])\s*([+-]?\d+(?:\.\d+)?)\s*%\s*")
_NAMES = {"ttft": "ttft_ms", "tpot": "tpot_ms", "latency": "latency_ms"}
_NAMES |= {"throughput": "output_tokens_per_s", "requests": "requests_per_s"}

CLOSE = 0.005
"""A ratio this close to the limit (on the logarithmic scale) needs no fewer requests than one that far from it."""


class Condition(NamedTuple):
    """What must not be: a metric that changed by more, or by less, than so much."""

    text: str
    metric: str
    """Such as `ttft_ms.p95`."""
    above: bool
    limit: float
    """As a ratio of B over A."""


def parse_condition(text: str) -> Condition:
    """`ttft p95 > +5%` or `throughput < -3%`. Raises BadInput for a condition of another form."""
    match = _CONDITION.fullmatch(text)
    name = _NAMES.get(match[1].lower()) if match else None
    if match is None or name is None or (match[2] is None) == name.endswith("_ms"):
        raise BadInput(f"--fail-if {text!r} is not understood: write for example 'ttft p95 > +5%'")
    limit = 1 + float(match[4]) / 100
    if limit <= 0:
        raise BadInput(f"--fail-if {text!r}: nothing falls by 100% or more")
    return Condition(" ".join(text.split()), f"{name}.{match[2]}" if match[2] else name, match[3] == ">", limit)


def gated(compared: Compared, conditions: Sequence[str], *, alone: bool = False) -> Compared:
    """`compared` with what became of each of `conditions`; with `alone` only B can be measured for longer.

    Raises BadInput for a condition of another form.
    """
    outcomes = [_outcome(compared, parse_condition(text), alone) for text in conditions]
    return msgspec.structs.replace(compared, conditions=outcomes)


def refuse_condition(text: str, loads: Sequence[Load]) -> None:
    """Raises BadInput for a condition that targets under these loads are not compared by, or of another form."""
    metric = parse_condition(text).metric
    open_loop = any(isinstance(load, Rate) for load in loads)
    if metric not in FIGURES or (open_loop and "." not in metric):
        known = "ttft, tpot and latency p50, ttft and latency p95, and in a closed loop throughput"
        raise BadInput(f"--fail-if {text!r}: versus compares {known}")


def gated_contest(contest: Contest, conditions: Sequence[str]) -> Contest:
    """`contest` with what became of each of `conditions`, for every other target against the first."""
    outcomes = [_of_contest(contest, parse_condition(text)) for text in conditions]
    return msgspec.structs.replace(contest, conditions=outcomes)


def _of_contest(contest: Contest, condition: Condition) -> Outcome:
    first, *others = (one.name for one in contest.targets)
    levels, said = [], []
    for load in contest.loads:
        for pair in (pair for pair in load.pairs if pair.a == first):
            found = pair.metrics.get(condition.metric)
            ratio = found.ratio if found is not None else Figure()
            levels.append(LevelOutcome(load.load, ratio, standing(ratio, condition)))
            said.append(f"{f'{pair.b} at ' if len(others) > 1 else ''}{_in_words(levels[-1])}")
    status = _of_all(levels)
    why = "; ".join(x for x, level in zip(said, levels, strict=True) if status == "passed" or level.status == status)
    return Outcome(condition.text, status, levels, why=f"{why}; more --rounds" if status == "undecided" else why)


def _outcome(compared: Compared, condition: Condition, alone: bool) -> Outcome:
    levels = [_at(level, condition, alone) for level in compared.levels]
    status = _of_all(levels, whole=not compared.lost)
    needs = max((x.needs_requests or 0 for x in levels if x.status == "undecided"), default=0)
    why = "; ".join(_in_words(level) for level in levels if level.status == status or status == "passed")
    if status == "undecided" and compared.lost:
        why = "; ".join([*([why] if why else []), *compared.lost])
    return Outcome(condition.text, status, levels, needs or None, why or "; ".join(compared.left_out))


def _of_all(levels: Sequence[LevelOutcome], *, whole: bool = True) -> GateStatus:
    """One failed level fails a condition; it passes where every level does and the levels are the `whole` of them."""
    statuses = {level.status for level in levels}
    return "failed" if "failed" in statuses else "passed" if statuses == {"passed"} and whole else "undecided"


def _at(level: ComparedLevel, condition: Condition, alone: bool) -> LevelOutcome:
    """It surely holds where the whole interval of the ratio lies beyond the limit, and surely does not where none of
    it does."""
    found = level.metrics[condition.metric]
    status = standing(found.ratio, condition)
    if status != "undecided":
        return LevelOutcome(level.load, found.ratio, status, asked=level.asked)
    n, enough = level.requests.get(condition.metric, 0), level.enough.get(condition.metric)
    more, needs_of = more_requests(found, condition, n, enough), "each run"
    if alone:
        in_b = more_requests(found, condition, n, enough, alone=True)
        more, needs_of = (in_b, "B") if math.isfinite(in_b) else (more, "each run, A too,")
    return LevelOutcome(level.load, found.ratio, status, _rounded(max(1.0, more)), level.asked, needs_of)


def standing(ratio: Figure, condition: Condition, stretch: float = 1.0) -> GateStatus:
    """Whether a ratio with this interval fails the condition, passes it, or cannot tell; `stretch` makes the interval
    so many times as long, on the logarithmic scale."""
    if ratio.value is None or ratio.low is None or ratio.high is None:
        return "undecided"
    low, high = ratio.low, ratio.high
    if stretch != 1.0 and low > 0:
        low, high = (ratio.value * (end / ratio.value) ** stretch for end in (low, high))
    if low > condition.limit:
        return "failed" if condition.above else "passed"
    if high < condition.limit:
        return "passed" if condition.above else "failed"
    return "undecided"


def more_requests(
    found: Comparison, condition: Condition, n: int, enough: int | None = None, *, alone: bool = False
) -> float:
    """About how many more requests in each run decide the condition if the ratio stays as it is, or with `alone` in
    run B; infinite where A is known too roughly for that.

    An interval narrows with the root of the requests, `n` in the run that has fewer; `enough` are about those that
    give a figure without an interval one.
    """
    ratio = found.ratio
    if ratio.value is None or ratio.low is None or ratio.high is None or min(ratio.low, ratio.value) <= 0:
        return math.inf if alone and found.a.high is None else max((enough or 2 * n) - n, 1)
    distance = math.log(ratio.value / condition.limit)
    arm = math.log(ratio.value / ratio.low) if distance > 0 else math.log(ratio.high / ratio.value)
    wanted, of_a = max(abs(distance), CLOSE) ** 2, _share_of_a(found) if alone else 0.0
    if wanted <= of_a * arm**2:
        return math.inf
    return n * ((1 - of_a) * arm**2 / (wanted - of_a * arm**2) - 1)


def _share_of_a(found: Comparison) -> float:
    """How much of the ratio's squared error is run A's, by the lengths of both intervals."""
    lengths = [
        math.log(x.high / x.low) ** 2 if x.low is not None and x.high is not None and x.low > 0 else math.inf
        for x in (found.a, found.b)
    ]
    a, b = lengths
    return 1.0 if math.isinf(a) else 0.0 if a == 0 or math.isinf(b) else a / (a + b)


def _rounded(count: float) -> int:
    """Up to two digits."""
    step = 10.0 ** max(0, math.floor(math.log10(count)) - 1)
    return int(math.ceil(count / step) * step)


def _in_words(level: LevelOutcome) -> str:
    where, ratio, least = level.asked or level.load, level.ratio, ""
    if ratio.value is None:
        said = "not known in both runs"
    elif ratio.low is None or ratio.high is None:
        said, least = f"{ratio.value - 1:+.1%}, without an interval", "at least "
    else:
        said = f"{ratio.value - 1:+.1%} ({100 * (ratio.low - 1):+.1f} to {100 * (ratio.high - 1):+.1f})"
    more, of = level.needs_requests, level.needs_of
    return f"{where}: {said}" + (f", {least}about {more:,} more requests in {of} decide it" if more else "")
