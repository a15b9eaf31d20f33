"""Whether two runs of the same load differ: difference and ratio with intervals, and a verdict that does not cry wolf.

It needs the figures of the two summaries and what they scatter by, no more, so stored runs can be compared.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from typing import Literal

import msgspec
from scipy import special

from pacemark.errors import BadInput
from pacemark.pace import Load
from pacemark.summary import LATENCIES, STATISTICS, Asked, Basis, Figure, Level, Scatter, Summary

__all__ = [
    "SAME",
    "Compared",
    "Comparison",
    "Kind",
    "Verdict",
    "compare",
    "compared_level",
    "compare_levels",
    "compare_runs",
    "LevelOutcome",
    "Outcome",
    "refuse_if_other",
]

Kind = Literal["latency", "rate"]
GateStatus = Literal["passed", "failed", "undecided"]
Verdict = Literal["faster", "slower", "higher", "lower", "no difference shown", "undecidable"]

SAME: Verdict = "no difference shown"
_WORDS: dict[Kind, tuple[Verdict, Verdict]] = {"latency": ("slower", "faster"), "rate": ("higher", "lower")}


class Comparison(msgspec.Struct, frozen=True):
    """One metric of run B against run A."""

    a: Figure
    b: Figure
    difference: Figure
    """B minus A, in the metric's unit. Of two whole runs its interval, and that of the ratio, is as long as Holm's step
    over all figures asks for, 95% or more."""
    ratio: Figure
    """B over A."""
    verdict: Verdict


def compare(
    a: Figure,
    b: Figure,
    kind: Kind,
    *,
    scatter: tuple[Scatter, Scatter] | None = None,
    client_error: float = 0.0,
) -> Comparison:
    """B against A, one metric, both with 95% intervals.

    With the `scatter` of both, difference and ratio have a t interval with the fewer degrees of freedom of the two, the
    ratio on the logarithmic scale. Skewness widens the interval of one run; in the difference of two it cancels, so
    this finds more than the two intervals would. Without, the intervals of difference and ratio are recovered from
    those of the figures (MOVER: Zou and Donner 2008, Statistics in Medicine 27). The verdict is read off the interval
    of the ratio, which is what people are shown: "undecidable" where there is none, "no difference shown" where it
    holds 1. It is made to hold 1 where the difference is within `client_error`, what the two clients say they may be
    wrong by, in the metric's unit. Figures that are not positive have no ratio; then the difference decides.
    """
    if scatter is not None and _whole(a) and _whole(b):
        difference = _by_scatter(a, b, *scatter)
        ratio = _exp(_by_scatter(_log(a), _log(b), *map(_relative, (a, b), scatter)))
    else:
        difference, ratio = _by_intervals(a, b), _exp(_by_intervals(_log(a), _log(b)))
    if difference.value is None or not _whole(difference):
        return Comparison(a, b, difference, ratio, "undecidable")
    if ratio.low is not None and ratio.high is not None and abs(difference.value) <= client_error:
        ratio = Figure(ratio.value, min(ratio.low, 1.0), max(ratio.high, 1.0))
    shown, same = (ratio, 1.0) if _whole(ratio) else (difference, 0.0)
    more, less = _WORDS[kind]
    verdict: Verdict = SAME
    if shown.low is not None and shown.low > same:
        verdict = more
    elif shown.high is not None and shown.high < same:
        verdict = less
    return Comparison(a, b, difference, ratio, verdict)


def _whole(figure: Figure) -> bool:
    return figure.value is not None and figure.low is not None and figure.high is not None


def _relative(figure: Figure, scatter: Scatter) -> Scatter:
    """What the logarithm of a figure scatters by, to first order."""
    return Scatter(scatter.error / figure.value if figure.value else 0.0, scatter.dof)


def _by_scatter(a: Figure, b: Figure, one: Scatter, two: Scatter) -> Figure:
    if a.value is None or b.value is None:
        return Figure()
    value, x, y = b.value - a.value, one.error**2, two.error**2
    if x + y == 0:
        return Figure(value, value, value)
    # Welch's degrees of freedom, up to the sum of both, were too many: 7% of the pairs without a difference had one.
    half = float(special.stdtrit(min(one.dof, two.dof), 0.975)) * math.sqrt(x + y)
    return Figure(value, value - half, value + half)


def _by_intervals(a: Figure, b: Figure) -> Figure:
    if a.value is None or b.value is None:
        return Figure()
    value = b.value - a.value
    if a.low is None or a.high is None or b.low is None or b.high is None:
        return Figure(value)
    low = value - math.hypot(b.value - b.low, a.high - a.value)
    high = value + math.hypot(b.high - b.value, a.value - a.low)
    return Figure(value, low, high)


def _log(figure: Figure) -> Figure:
    """Logarithms; a part that is not positive has none."""
    parts = (figure.value, figure.low, figure.high)
    return Figure(*(math.log(part) if part is not None and part > 0 else None for part in parts))


def _exp(figure: Figure) -> Figure:
    parts = (figure.value, figure.low, figure.high)
    return Figure(*(math.exp(part) if part is not None else None for part in parts))


# --- whole runs


class ComparedLevel(msgspec.Struct, frozen=True):
    """One load that both runs measured; metrics by names such as `ttft_ms.p95`."""

    load: Load
    metrics: dict[str, Comparison]
    asked: Asked | None = None
    """In a length grid: the lengths that both asked for."""
    requests: dict[str, int] = {}
    """By metric such as `ttft_ms.p95`: what it stands on, in the run that has less of it."""
    enough: dict[str, int] = {}
    """By the same names, where a figure has no interval: about how many requests would give it one."""


class Side(msgspec.Struct, frozen=True):
    """Which run is meant by A, or by B."""

    model: str
    url: str
    started: str
    run: str = ""
    """Its folder, where it is known."""
    ended: str = ""
    """How it ended: completed, interrupted or failed."""


class Difference(msgspec.Struct, frozen=True):
    """One thing in which two runs differ."""

    what: str
    """model, server, API, input tokens, output tokens, streaming, nodes or workload."""
    a: str
    b: str
    blocks: bool
    """The figures then say nothing of one server against another; another model or server is often the purpose."""

    def __str__(self) -> str:
        return f"{self.what}: {self.a} against {self.b}"


_ASIDE = {
    "seed",
    "draw_seed",
    "prompts",
    "options",
    "known_prompts",
    "input_tokens",
    "output_tokens",
    "streaming",
    "cache",
}
"""Of a workload: what has a name of its own here, or changes from run to run."""


def differences(a: Summary, b: Summary) -> list[Difference]:
    """What the two runs differ in; of what a run does not say nothing is known, and it counts as the same."""

    def streaming(run: Summary) -> object:
        return run.workload.get("streaming", run.run.get("settings", {}).get("stream"))

    def nodes(run: Summary) -> object:
        return run.run.get("settings", {}).get("nodes", 0)

    pairs: list[tuple[str, object, object, bool]] = [
        ("model", a.target.get("model"), b.target.get("model"), False),
        ("server", a.target.get("url"), b.target.get("url"), False),
        ("API", a.target.get("api"), b.target.get("api"), True),
        ("input tokens", a.workload.get("input_tokens"), b.workload.get("input_tokens"), True),
        ("output tokens", a.workload.get("output_tokens"), b.workload.get("output_tokens"), True),
        ("streaming", streaming(a), streaming(b), True),
        ("nodes that sent the load", nodes(a), nodes(b), False),
    ]
    names = sorted((a.workload.keys() & b.workload.keys()) - _ASIDE)
    pairs += [(f"workload ({n})", a.workload[n], b.workload[n], True) for n in names]
    return [Difference(what, _said(x), _said(y), blocks) for what, x, y, blocks in pairs if _differ(x, y)]


def _differ(x: object, y: object) -> bool:
    return x is not None and y is not None and x != y


def _said(value: object) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    return ",".join(map(str, value)) if isinstance(value, list) else str(value)


def refuse_if_other(compared: Compared) -> None:
    """A gate over runs that did other work says nothing: raises BadInput."""
    blocking = [str(d) for d in compared.differences if d.blocks]
    if blocking:
        raise BadInput(
            f"the runs differ in {'; '.join(blocking)}, so --fail-if would judge the work and not the endpoint; "
            "measure alike, or add --even-if-different"
        )


class LevelOutcome(msgspec.Struct, frozen=True):
    """A condition of a gate at one load."""

    load: Load
    ratio: Figure
    """B over A, with the interval that decides."""
    status: GateStatus
    needs_requests: int | None = None
    """About how many more requests in `needs_of` decide it, if the ratio stays as it is."""
    asked: Asked | None = None
    needs_of: str = "each run"
    """Where A stands and B was measured against it: B, or both, where A is known too roughly for B to decide it."""


class Outcome(msgspec.Struct, frozen=True):
    """A condition of a gate, such as `ttft p95 > +5%`."""

    condition: str
    status: GateStatus
    """failed: it surely holds at some level, and the gate with it; passed: it surely holds at none."""
    levels: list[LevelOutcome]
    needs_requests: int | None = None
    """The most that one of the undecided levels needs."""
    why: str = ""
    """The same in words."""


class Compared(msgspec.Struct, frozen=True):
    """The result of comparing two runs, schema `pacemark/compare/1`."""

    levels: list[ComparedLevel]
    schema: str = "pacemark/compare/1"
    differences: list[Difference] = []
    """What the two runs did not do alike, beside their figures."""
    left_out: list[str] = []
    """Levels of both that were not compared, and why."""
    lost: list[str] = []
    """Those of them that A could measure and B could not, and where B did less of the work than A."""
    a: Side | None = None
    b: Side | None = None
    conditions: list[Outcome] = []
    """What became of the conditions of a gate, where there are some."""


_RATES = ("output_tokens_per_s", "requests_per_s")
_TIMED = [name for name in LATENCIES if name != "itl_ms"]


def compare_runs(a: Summary, b: Summary, *, wanted: Sequence[Level] = ()) -> Compared:
    """B against A at every load, and lengths in a grid, that both measured; what B lacks of the levels of A that are
    `wanted` of it counts as lost. Raises BadInput where they have none in common."""
    others = {(level.load, level.asked): level for level in b.levels}
    pairs = [(level, other) for level in a.levels if (other := others.get((level.load, level.asked))) is not None]
    if not pairs:
        raise BadInput("the two runs have no load level in common")
    absent = [f"{x.asked or x.load}: not measured in B" for x in wanted if (x.load, x.asked) not in others]
    sound = [(x, y) for x, y in pairs if "invalid" not in (x.verdict.status, y.verdict.status)]
    return Compared(
        [compared_level(one, two) for one, two in sound],
        differences=differences(a, b),
        left_out=[_invalid(one, two) for one, two in pairs if (one, two) not in sound] + absent,
        lost=[_invalid(x, y) for x, y in pairs if (x.verdict.status == "invalid") < (y.verdict.status == "invalid")]
        + absent
        + [text for x, y in sound if (text := _flattered(x, y))],
        a=_side(a),
        b=_side(b),
    )


_LESS = ("errors", "rate_limited", "short_answers")
"""Codes of what makes figures look better than they are: work that was not done."""


def _flattered(a: Level, b: Level) -> str:
    """Why B may look better than it is at a load: it failed, or ended early, what A did not; in words."""
    before = {reason.code for reason in a.verdict.reasons}
    why = [reason.message for reason in b.verdict.reasons if reason.code in _LESS and reason.code not in before]
    return f"{a.asked or a.load}, in B and not in A: {'; '.join(why)}" if why else ""


def _side(run: Summary) -> Side:
    model, url, started = run.target.get("model"), run.target.get("url"), run.run.get("started")
    return Side(str(model or ""), str(url or ""), str(started or ""), ended=str(run.run.get("ended") or ""))


def compared_level(a: Level, b: Level) -> ComparedLevel:
    """One load of both: every metric, and the requests that it stands on."""
    metrics = compare_levels(a, b)
    requests, enough = {}, {}
    for name in metrics:
        sizes = [_size(level, name) for level in (a, b)]
        requests[name] = min(sizes)
        if metrics[name].verdict == "undecidable":
            enough[name] = max(_enough(level, name) for level in (a, b))
    return ComparedLevel(a.load, metrics, a.asked, requests, enough)


def _size(level: Level, name: str) -> int:
    """How many requests a figure of a level stands on."""
    basis = level.basis.get(name.partition(".")[0])
    return basis.n if basis is not None and basis.n else level.requests.in_window


_BEYOND = 10
"""Independent requests beyond a quantile that an interval of it takes, about."""
_NEEDED = re.compile(r"about (\d+) more requests")


def _enough(level: Level, name: str) -> int:
    """About how many requests give a figure its interval."""
    metric, _, statistic = name.partition(".")
    n, basis = _size(level, name), level.basis.get(metric, Basis())
    said = _NEEDED.search(basis.note or "") if statistic != "p99" else None
    if said is not None:
        return n + int(said[1])
    beyond = 1 - float(statistic[1:]) / 100 if statistic.startswith("p") else 0.5
    spread = max(1.0, n / basis.n_eff) if basis.n_eff else 1.0
    return max(n, math.ceil(_BEYOND * spread / beyond))


def _invalid(a: Level, b: Level) -> str:
    """Which level was left out, and why, in words."""
    bad = [(name, level) for name, level in (("A", a), ("B", b)) if level.verdict.status == "invalid"]
    why = "; ".join(f"invalid in {name} ({', '.join(r.code for r in level.verdict.reasons)})" for name, level in bad)
    return f"{a.asked or a.load}: {why}"


def compare_levels(a: Level, b: Level) -> dict[str, Comparison]:
    """B against A in every metric, by names such as `ttft_ms.p95`."""
    # What either client may have got wrong is no difference between the endpoints.
    error_ms = max(level.client.bound_ms or 0.0 for level in (a, b))
    found = {name: compare(getattr(a, name), getattr(b, name), "rate") for name in _RATES}
    for name in _TIMED:
        error = error_ms / max(b.output_tokens or 1.0, 1.0) if name == "tpot_ms" else error_ms
        for statistic in STATISTICS:
            one, two = (getattr(getattr(level, name), statistic) for level in (a, b))
            x, y = (level.basis.get(name, Basis()).scatter.get(statistic) for level in (a, b))
            scatter = (x, y) if x is not None and y is not None else None
            found[f"{name}.{statistic}"] = compare(one, two, "latency", scatter=scatter, client_error=error)
    return found
