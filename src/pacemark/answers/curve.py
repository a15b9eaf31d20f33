"""The loads worth choosing from a throughput-latency curve."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from math import hypot

from pacemark.pace import Concurrency, Load, sought
from pacemark.summary import Figure, Level, OperatingPoint, OperatingPoints
from pacemark.units import duration, number

_SAME = 0.01
"""Throughputs this close (as a share of the larger) are one plateau, however narrow their intervals."""
_NOISE = 0.05
"""Beyond this share a level is never taken for the plateau, however wide its interval."""


def operating_points(
    levels: Sequence[Level], within: Callable[[Level], bool] | None = None, knee: float | None = None
) -> OperatingPoints:
    """Lowest latency, balanced, highest throughput and, where `within` judges a level by a budget, within it.

    Within the budget is the largest load that `within` judges to be. Only levels that are not invalid and let tokens
    through count. One such level makes no curve: then every
    point but `within_budget` is None. Balanced is the maximum of throughput / mean latency, which Kleinrock
    calls power ("Power and deterministic rules of thumb for probabilistic problems in computer
    communications", ICC 1979); `knee`, the streams at the knee of a fitted curve, is named beside it.
    """
    usable = sorted(
        (x for x in levels if x.verdict.status != "invalid" and x.output_tokens_per_s.value),
        key=lambda x: x.load.value,
    )
    inside = [x for x in usable if within is not None and within(x)]
    budget = _within_budget(inside, usable) if inside else None
    if len(usable) < 2:
        return OperatingPoints(within_budget=budget)
    timed = [x for x in usable if x.latency_ms.p50.value is not None]
    powered = [x for x in usable if x.latency_ms.mean.value]
    return OperatingPoints(
        lowest_latency=_lowest_latency(timed) if timed else None,
        balanced=_balanced(powered, usable, knee) if powered else None,
        within_budget=budget,
        highest_throughput=_highest_throughput(usable),
    )


def named(points: OperatingPoints) -> list[tuple[str, OperatingPoint]]:
    """The points there are, with their names as people read them, the recommended one first.

    Recommended is the point within the budget where there is one, else the balanced one.
    """
    order = [
        ("within budget", points.within_budget),
        ("balanced", points.balanced),
        ("highest throughput", points.highest_throughput),
        ("lowest latency", points.lowest_latency),
    ]
    return [(name, point) for name, point in order if point is not None]


def _lowest_latency(timed: Sequence[Level]) -> OperatingPoint:
    best = min(timed, key=_p50)
    return _point(best, f"No load answers sooner: the median latency is {duration(_p50(best))}.")


def _balanced(powered: Sequence[Level], usable: Sequence[Level], knee: float | None) -> OperatingPoint:
    best = max(powered, key=lambda x: _tokens(x) / _mean(x))
    share = _tokens(best) / max(_tokens(x) for x in usable)
    bend = "" if knee is None else f"; the fitted knee is at concurrency {number(knee)}"
    end = " and the end of the curve, so the peak may lie higher" if best is usable[-1] else ""
    why = f"Throughput / latency (Kleinrock's power) peaks here, at {share:.0%} of the highest throughput"
    return _point(best, f"{why}{end}{bend}.")


def _within_budget(inside: Sequence[Level], usable: Sequence[Level]) -> OperatingPoint:
    best = inside[-1]
    most = "The most load of the levels that meet the budget"
    return _point(best, f"{most}{_at_latency(best)}{_no_gain(best, usable)}.")


def _no_gain(best: Level, usable: Sequence[Level]) -> str:
    """Where throughput is flat up to `best`: from which load on."""
    start = flat_from([x for x in usable if x.load.value <= best.load.value])
    return "" if start is None else f"; throughput no longer rises from {number_of(start)} on"


def flat_from(levels: Sequence[Level]) -> Load | None:
    """The load from which on throughput no longer rises to that of the largest load; None where it still does.

    Only in the closed loop: an open one gives what it is offered.
    """
    usable = [x for x in levels if x.verdict.status != "invalid" and x.output_tokens_per_s.value]
    if not usable or not all(isinstance(x.load, Concurrency) for x in usable):
        return None
    first, _ = _plateau(usable)
    largest = max(x.load.value for x in usable)
    return first.load if first.load.value < largest else None


def no_longer_rises(levels: Sequence[Level]) -> str | None:
    """Whether throughput has stopped rising at the largest load of a search, in words."""
    rates = {sought(x.load): x.output_tokens_per_s.value for x in levels}
    loads = sorted(x for x, rate in rates.items() if rate)
    if len(loads) < 3:
        return None
    before, last = rates[loads[-2]] or 0.0, rates[loads[-1]] or 0.0
    if last > 1.05 * before:
        return None
    return (
        f"throughput no longer rises ({number(before)} output tokens/s at {loads[-2]:g}, {number(last)} at "
        f"{loads[-1]:g}), nor does what the budget limits: a higher load only waits longer"
    )


def number_of(load: Load) -> str:
    """A load as its number alone."""
    return f"{load.value:,g}"


def _highest_throughput(usable: Sequence[Level]) -> OperatingPoint:
    chosen, top = _plateau(usable)
    if chosen is not top:
        margin = f"{_gap(chosen, top):.1%} below the {number(_tokens(top))} output tokens/s of {top.load}"
        saved = f" instead of {duration(_p50(top))}" if _at_latency(chosen) and _at_latency(top) else ""
        return _point(chosen, f"The lowest load on the plateau: {margin}{_at_latency(chosen)}{saved}.")
    why = f"No load gave more than its {number(_tokens(top))} output tokens/s{_at_latency(top)}"
    below = [x for x in usable if type(x.load) is type(top.load) and x.load.value < top.load.value]
    if top is usable[-1] and below:
        gain = _tokens(top) / _tokens(below[-1]) - 1 if _tokens(below[-1]) else 1.0
        if gain > _NOISE:
            why += f"; it was still rising, by {gain:.0%} over {below[-1].load}, so a higher load may give more"
    return _point(top, why + ".")


def _plateau(levels: Sequence[Level]) -> tuple[Level, Level]:
    """The lowest load whose throughput is as good as the highest, and the highest."""
    top = max(levels, key=_tokens)
    alike = [x for x in levels if type(x.load) is type(top.load) and _as_good(x, top)]
    return min(alike, key=lambda x: x.load.value), top


def _as_good(level: Level, top: Level) -> bool:
    """Within 1% of `top`, or below by less than the 95% interval of a difference of independent figures."""
    a, b = level.output_tokens_per_s, top.output_tokens_per_s
    gap = _tokens(top) - _tokens(level)
    noise = hypot(a.high - _tokens(level), _tokens(top) - b.low) if a.high is not None and b.low is not None else 0.0
    return gap <= max(_SAME * _tokens(top), min(noise, _NOISE * _tokens(top)))


def _point(level: Level, why: str) -> OperatingPoint:
    return OperatingPoint(load=level.load, output_tokens_per_s=level.output_tokens_per_s, why=why)


def _known(figure: Figure) -> float:
    assert figure.value is not None  # the callers have set levels without this figure aside
    return figure.value


def _tokens(level: Level) -> float:
    return _known(level.output_tokens_per_s)


def _p50(level: Level) -> float:
    return _known(level.latency_ms.p50)


def _mean(level: Level) -> float:
    return _known(level.latency_ms.mean)


def _gap(level: Level, top: Level) -> float:
    return 1 - _tokens(level) / _tokens(top)


def _at_latency(level: Level) -> str:
    p50 = level.latency_ms.p50.value
    return "" if p50 is None else f", at a median latency of {duration(p50)}"
