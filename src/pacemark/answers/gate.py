"""A gate over two runs: conditions such as `ttft p95 > +5%` that must not hold, each judged with its uncertainty."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from typing import NamedTuple

import msgspec

from pacemark.answers.comparison import Compared, ComparedLevel, GateStatus, LevelOutcome, Outcome
from pacemark.errors import BadInput
from pacemark.summary import Figure

__all__ = ["Condition", "gated", "parse_condition"]

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


def gated(compared: Compared, conditions: Sequence[str]) -> Compared:
    """`compared` with what became of each of `conditions`. Raises BadInput for one of another form."""
    outcomes = [_outcome(compared, parse_condition(text)) for text in conditions]
    return msgspec.structs.replace(compared, conditions=outcomes)


def _outcome(compared: Compared, condition: Condition) -> Outcome:
    levels = [_at(level, condition) for level in compared.levels]
    statuses = {level.status for level in levels}
    status: GateStatus = (
        "failed" if "failed" in statuses else "passed" if statuses == {"passed"} and not compared.lost else "undecided"
    )
    needs = max((x.needs_requests or 0 for x in levels if x.status == "undecided"), default=0)
    why = "; ".join(_in_words(level) for level in levels if level.status == status or status == "passed")
    if status == "undecided" and compared.lost:
        why = "; ".join([*([why] if why else []), *compared.lost])
    return Outcome(condition.text, status, levels, needs or None, why or "; ".join(compared.left_out))


def _at(level: ComparedLevel, condition: Condition) -> LevelOutcome:
    """It surely holds where the whole interval of the ratio lies beyond the limit, and surely does not where none of
    it does."""
    ratio = level.metrics[condition.metric].ratio
    status = _status(ratio, condition)
    needs = _needs(level, ratio, condition) if status == "undecided" else None
    return LevelOutcome(level.load, ratio, status, needs, level.asked)


def _status(ratio: Figure, condition: Condition) -> GateStatus:
    if ratio.value is None or ratio.low is None or ratio.high is None:
        return "undecided"
    if ratio.low > condition.limit:
        return "failed" if condition.above else "passed"
    if ratio.high < condition.limit:
        return "passed" if condition.above else "failed"
    return "undecided"


def _needs(level: ComparedLevel, ratio: Figure, condition: Condition) -> int | None:
    """About how many more requests in each run decide it: an interval narrows with the root of their number."""
    n = level.requests.get(condition.metric, 0)
    if ratio.value is None or ratio.low is None or ratio.high is None or min(ratio.low, ratio.value) <= 0:
        least = level.enough.get(condition.metric, 2 * n)
        return _rounded(max(least - n, 1))
    distance = math.log(ratio.value / condition.limit)
    arm = math.log(ratio.value / ratio.low) if distance > 0 else math.log(ratio.high / ratio.value)
    return _rounded(max(1.0, n * ((arm / max(abs(distance), CLOSE)) ** 2 - 1)))


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
    more = level.needs_requests
    return f"{where}: {said}" + (f", {least}about {more:,} more requests in each run decide it" if more else "")
