"""Many comparisons at once: of twenty figures that do not differ one seems to, unless they are judged together."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import msgspec
from scipy import special

from pacemark.answers.comparison import SAME, Compared, Comparison
from pacemark.summary import Basis, Figure, Level

__all__ = ["ALPHA", "Judged", "corrected", "holm"]

ALPHA = 0.05
"""How often any difference at all is reported where there is none."""
_DOF = 8.0
"""Degrees of freedom of an interval that does not say: a rate's, which is of eight cosines at the most."""


class Judged(NamedTuple):
    """What becomes of one test of a family."""

    differs: bool
    adjusted: float
    """Its p, by Holm."""
    divisor: int
    """An interval has the confidence 1 - ALPHA / divisor, and leaves out no difference exactly where it `differs`."""


def holm(ps: Sequence[float]) -> list[Judged]:
    """Tests of the two-sided p values `ps`, by S. Holm, A simple sequentially rejective multiple test procedure,
    Scandinavian J. Statistics 6 (1979) 65-70: the smallest p against ALPHA / m, the next against ALPHA / (m - 1), until
    one fails; the divisor stays at that step's from there on."""
    found: dict[int, Judged] = {}
    differs, adjusted, divisor = True, 0.0, 1
    for n, place in enumerate(sorted(range(len(ps)), key=ps.__getitem__)):
        if differs:
            divisor = len(ps) - n
            differs = ps[place] < ALPHA / divisor
        adjusted = max(adjusted, min(1.0, ps[place] * (len(ps) - n)))
        found[place] = Judged(differs, adjusted, divisor)
    return [found[place] for place in range(len(ps))]


def corrected(compared: Compared, a: Sequence[Level], b: Sequence[Level]) -> Compared:
    """All figures at all loads of two runs with the levels `a` and `b` judged together; the conditions of a gate, which
    were asked for one by one, stay as they are."""
    in_a, in_b = ({(level.load, level.asked): level for level in levels} for levels in (a, b))
    tests = {
        (n, name): (found, _dof(in_a[level.load, level.asked], in_b[level.load, level.asked], name))
        for n, level in enumerate(compared.levels)
        for name, found in level.metrics.items()
        if found.verdict != "undecidable"
    }
    judged = dict(zip(tests, holm([_p(*test) for test in tests.values()]), strict=True))
    levels = [
        msgspec.structs.replace(
            level,
            metrics={
                name: _as_judged(*tests[n, name], judged[n, name]) if (n, name) in tests else found
                for name, found in level.metrics.items()
            },
        )
        for n, level in enumerate(compared.levels)
    ]
    return msgspec.structs.replace(compared, levels=levels)


def _dof(a: Level, b: Level, name: str) -> float:
    metric, _, statistic = name.partition(".")
    known = [level.basis.get(metric, Basis()).scatter.get(statistic) for level in (a, b)]
    return min((x.dof if x is not None else _DOF for x in known), default=_DOF)


def _p(found: Comparison, dof: float) -> float:
    """Two-sided, from a 95% interval: of the ratio on the logarithmic scale, as verdicts are, or of the difference."""
    ratio, low, high = found.ratio.value, found.ratio.low, found.ratio.high
    if ratio is not None and low is not None and high is not None and min(low, ratio) > 0:
        change, arm = math.log(ratio), math.log(ratio / low) if ratio > 1 else math.log(high / ratio)
    else:
        change, low, high = (x or 0.0 for x in (found.difference.value, found.difference.low, found.difference.high))
        arm = change - low if change > 0 else high - change
    if arm <= 1e-12:
        return 0.0 if abs(change) > 1e-12 else 1.0
    return float(2 * special.stdtr(dof, -abs(change) / arm * float(special.stdtrit(dof, 0.975))))


def _as_judged(found: Comparison, dof: float, judged: Judged) -> Comparison:
    """With the intervals of its step, and without the verdict that these do not bear."""
    by = float(special.stdtrit(dof, 1 - ALPHA / judged.divisor / 2) / special.stdtrit(dof, 0.975))
    ratio, difference = found.ratio, found.difference
    if ratio.value and ratio.low and ratio.high:
        ratio = Figure(ratio.value, *(ratio.value * (end / ratio.value) ** by for end in (ratio.low, ratio.high)))
    if difference.value is not None and difference.low is not None and difference.high is not None:
        at = difference.value
        difference = Figure(at, *(at + (end - at) * by for end in (difference.low, difference.high)))
    verdict = found.verdict if judged.differs else SAME
    return Comparison(found.a, found.b, difference, ratio, verdict)
