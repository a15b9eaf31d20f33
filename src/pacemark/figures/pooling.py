"""One load, measured several times: the requests of all its runs together, and how much the runs differ.

Figures of one run say how sure that run is of itself. What changes from run to run no single run can see, so where
the runs differ by more than each says of itself, the intervals of the whole are widened by it.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Sequence

import msgspec

from pacemark.budget import Budget, parse
from pacemark.figures import health, metrics, stats
from pacemark.figures.distributions import as_share
from pacemark.figures.estimate import CONFIDENCE, t_quantile
from pacemark.figures.level import LevelResult, figures_of, started
from pacemark.figures.nodes import nodes_of_all
from pacemark.figures.rates import Stretch
from pacemark.figures.servers import server_over
from pacemark.figures.verdict import COUNTS, NOTES, too_few
from pacemark.summary import (
    LATENCIES,
    RATES,
    STATISTICS,
    VERDICTS,
    Basis,
    Between,
    Distribution,
    EndedBy,
    Experience,
    Figure,
    Goodput,
    Level,
    Reason,
    Requests,
    Scatter,
    Verdict,
)

__all__ = ["pooled"]


def pooled(results: Sequence[LevelResult], budget: Budget | None = None) -> Level:
    """One level from all measurements of the same load: their requests together, summed up once.

    A rate is what came in total over the time of all windows in total. `between_runs` has each run's own figures. An
    interval of the whole is widened where the runs differ by more than their own intervals say (`widened`).
    `budget` is that of goodput; without one that of the levels counts.
    """
    if len(results) == 1:
        return results[0].level
    levels = [result.level for result in results]
    said = next((level.goodput.budget for level in levels if level.goodput is not None), None)
    budget = budget or (parse(said) if said else None)
    beyond = any(reason.code == "beyond_capacity" for level in levels for reason in level.verdict.reasons)
    stretches = [Stretch(result.trace, result.window) for result in results]
    whole, _ = figures_of(
        results[0].load, stretches, health.joined([r.health for r in results]), beyond=beyond, budget=budget
    )
    return msgspec.structs.replace(
        whole,
        **{name: widened(getattr(whole, name), [getattr(x, name) for x in levels]) for name in _FIGURES},
        **{name: _each(getattr(whole, name), [getattr(x, name) for x in levels]) for name in _TIMED},
        basis={name: _basis(one, name, levels) for name, one in whole.basis.items()},
        experience=_experience(whole, levels),
        goodput=_goodput(whole, levels),
        # Requests that ended after their level did are counted in its totals, and are in no trace.
        requests=Requests(*(sum(getattr(x.requests, n) for x in levels) for n in Requests.__struct_fields__)),
        errors=dict(sorted(sum((Counter(x.errors) for x in levels), Counter()).items())),
        verdict=_verdict(whole, levels, _answered(results), beyond=beyond),
        ended_by=_ended_by(levels),
        repeats=len(levels),
        between_runs=_between(levels),
        server=server_over(levels) or msgspec.UNSET,
        nodes=nodes_of_all(levels) or msgspec.UNSET,
    )


_FIGURES = (*RATES, "output_tokens_per_s_by_cycle")
_TIMED = [name for name in LATENCIES if name != "itl_ms"]  # whose ends are bounds and no interval


def widened(whole: Figure, runs: Sequence[Figure]) -> Figure:
    """The interval of the pooled figure with what the runs scatter by beyond their own intervals.

    Where the values of R runs vary by more than their own intervals explain, a share 1 / R of that variance is added
    to the pooled one, with Satterthwaite's degrees of freedom (1946, Biometrics Bulletin 2): R - 1 for that part. Few
    runs know it badly: of three whose values scatter by three times their own error, some 89% are held. A pooled
    figure without an interval gets the t interval of the runs' values, from three runs on.
    """
    if whole.value is None:
        return whole
    if whole.low is None or whole.high is None:
        alone = stats.replicated(runs).figure
        if alone.low is None or alone.high is None:
            return whole
        return Figure(whole.value, min(whole.value, alone.low), max(whole.value, alone.high))
    half = (whole.high - whole.low) / 2
    grown = _growth(half / _NORMAL, math.inf, _beyond_within(runs), len(runs))
    if grown is None:
        return whole
    error, dof = grown
    wide = error * t_quantile(dof, CONFIDENCE)
    if half == 0:
        return Figure(whole.value, max(0.0, whole.value - wide), whole.value + wide)
    factor = max(1.0, wide / half)
    return Figure(
        whole.value,
        max(0.0, whole.value - factor * (whole.value - whole.low)),
        whole.value + factor * (whole.high - whole.value),
    )


_NORMAL = 1.959964


def _beyond_within(runs: Sequence[Figure]) -> float:
    """Variance between runs, where it is more than their own intervals explain; else 0."""
    found = stats.replicated(runs)
    if found.between is None:
        return 0.0
    return found.between**2 if found.between > (found.within or 0.0) else 0.0


def _growth(error: float, dof: float, between: float, runs: int) -> tuple[float, float] | None:
    """Standard error and degrees of freedom of a pooled figure with the variance `between` runs; None without any."""
    if between <= 0:
        return None
    inner, outer = error**2, between / runs
    share = outer / (inner + outer)
    return math.sqrt(inner + outer), 1 / ((1 - share) ** 2 / dof + share**2 / (runs - 1))


def _each(whole: Distribution, runs: Sequence[Distribution]) -> Distribution:
    return Distribution(*(widened(getattr(whole, s), [getattr(run, s) for run in runs]) for s in STATISTICS))


def _basis(basis: Basis, name: str, levels: Sequence[Level]) -> Basis:
    """What a comparison needs to know grows as the intervals do."""
    scatter = {}
    for statistic, one in basis.scatter.items():
        between = _beyond_within([getattr(getattr(level, name), statistic) for level in levels])
        grown = _growth(one.error, one.dof, between, len(levels))
        scatter[statistic] = one if grown is None else Scatter(*grown)
    return msgspec.structs.replace(basis, scatter=scatter)


def _experience(whole: Level, levels: Sequence[Level]) -> Experience:
    felt = whole.experience
    runs = [level.experience for level in levels]
    return msgspec.structs.replace(
        felt,
        fluidity=as_share(widened(felt.fluidity, [run.fluidity for run in runs])),
        **{
            name: widened(getattr(felt, name), [getattr(run, name) for run in runs])
            for name in ("tokens_per_s_per_user", "words_per_minute")
        },
        **{
            name: _each(getattr(felt, name), [getattr(run, name) for run in runs])
            for name in ("longest_stall_ms", "reading_idle_ms")
        },
    )


def _goodput(whole: Level, levels: Sequence[Level]) -> Goodput | None:
    good = [level.goodput for level in levels if level.goodput is not None]
    if whole.goodput is None or len(good) < len(levels):
        return whole.goodput
    return msgspec.structs.replace(
        whole.goodput,
        share=_capped(widened(whole.goodput.share, [run.share for run in good])),
        requests_per_s=widened(whole.goodput.requests_per_s, [run.requests_per_s for run in good]),
    )


def _capped(share: Figure) -> Figure:
    return share if share.high is None else msgspec.structs.replace(share, high=min(1.0, share.high))


def _between(levels: Sequence[Level]) -> dict[str, Between]:
    wanted: dict[str, Callable[[Level], Figure]] = {name: _figure_at(name) for name in RATES}
    wanted |= {f"{name}.{s}": _figure_at(name, s) for name in LATENCIES for s in STATISTICS}
    found = {name: [of(level) for level in levels] for name, of in wanted.items()}
    return {
        name: Between([figure.value for figure in figures], stats.replicated(figures).between)
        for name, figures in found.items()
        if any(figure.value is not None for figure in figures)
    }


def _figure_at(name: str, statistic: str = "") -> Callable[[Level], Figure]:
    def of(level: Level) -> Figure:
        found = getattr(level, name)
        figure: Figure = getattr(found, statistic) if statistic else found
        return figure

    return of


def _answered(results: Sequence[LevelResult]) -> int:
    """Requests that began in one of the windows and were answered."""
    stretches = [Stretch(result.trace, result.window) for result in results]
    return sum(int((started(one) & metrics.succeeded(one.trace)).sum()) for one in stretches)


def _ended_by(levels: Sequence[Level]) -> EndedBy:
    worst: tuple[EndedBy, ...] = (
        *("interrupted", "allowance", "max_duration", "duration"),
        *("requests", "rows", "precision"),
    )
    return next(way for way in worst if any(level.ended_by == way for level in levels))


def _verdict(whole: Level, levels: Sequence[Level], good: int, *, beyond: bool) -> Verdict:
    """The worst of the runs' verdicts. Whether there are enough requests is asked of all of them together."""
    statuses = [
        "valid" if {r.code for r in level.verdict.reasons} <= NOTES | COUNTS else level.verdict.status
        for level in levels
    ]
    reasons = {r.code: r for level in levels for r in level.verdict.reasons if r.code not in COUNTS}
    whole = msgspec.structs.replace(whole, repeats=len(levels))
    few = too_few(whole, good, beyond=beyond, ended_by=_ended_by(levels))
    if few is not None:
        reasons[few.code] = Reason(few.code, few.message)
        statuses.append("suspect" if few.status == "suspect" else "valid")
    return Verdict(max(statuses, key=VERDICTS.index), list(reasons.values()))
