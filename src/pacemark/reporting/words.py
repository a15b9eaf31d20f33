"""The words that every face of a result shares: the answer, errors, verdicts, and the client's health."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from pacemark.curve import named
from pacemark.pace import Load, Rate
from pacemark.summary import Figure, Level, Summary
from pacemark.units import duration, number


@dataclass(frozen=True, slots=True)
class Statement:
    """One sentence of the answer: what it is about, what it says, and why."""

    name: str
    text: str
    why: str
    recommended: bool = False


def plain(text: object) -> str:
    """`text` on one line and without control characters, fit for a terminal whoever wrote it."""
    return " ".join("".join(c if c.isprintable() else " " for c in str(text)).split())


def title(summary: Summary) -> str:
    """What was measured: the model and where it is served."""
    model, url = summary.target.get("model"), summary.target.get("url")
    return plain(" at ".join(str(x) for x in (model, url) if x)) or "an unnamed endpoint"


def answer(summary: Summary) -> list[Statement]:
    """The answer, most important first; never empty. The first statement is the recommendation, or why there is none.

    Points that fall on the same load are one statement. After a budget search only its result is recommended.
    """
    said = [_found(summary.find)] if isinstance(summary.find, dict) else []
    chosen = None if said else recommended(summary)
    loads: dict[Load, Statement] = {}
    doubted = {level.load for level in summary.levels if level.verdict.status == "suspect"}
    for name, point in named(summary.operating_points):
        before = loads.get(point.load)
        rate = f"{plain(point.load)}, {with_interval(point.output_tokens_per_s)} output tokens/s"
        loads[point.load] = (
            Statement(f"{before.name}, {name}", rate, f"{before.why} {plain(point.why)}", before.recommended)
            if before
            else Statement(name, rate, plain(point.why), point.load == chosen)
        )
    for load, statement in loads.items():
        doubt = " The level is suspect: its reasons stand with it." if load in doubted else ""
        said.append(replace(statement, why=statement.why + doubt))
    return said or [_no_answer(summary)]


def recommended(summary: Summary) -> Load | None:
    """The measured load to choose: within the budget where one was searched for, else the first of the points."""
    points = summary.operating_points
    if isinstance(summary.find, dict):
        return points.within_budget.load if points.within_budget else None
    return next((point.load for _, point in named(points)), None)


def level_in_words(level: Level) -> str:
    """One level's headline figures, those that there are."""
    parts = [str(level.load)]
    if level.output_tokens_per_s.value is not None:
        parts.append(f"{with_interval(level.output_tokens_per_s)} output tokens/s")
    for name, spread in (("TTFT", level.ttft_ms), ("TPOT", level.tpot_ms), ("latency", level.latency_ms)):
        if spread.p50.value is not None:
            parts.append(f"median {name} {duration(spread.p50.value)}")
    return plain(", ".join(parts))


def with_interval(figure: Figure) -> str:
    """The figure and its 95% interval where it has one, for example `1,495 (1,490 to 1,500)`."""
    if figure.value is None:
        return "unknown"
    if figure.low is None or figure.high is None:
        return number(figure.value)
    return f"{number(figure.value)} ({number(figure.low)} to {number(figure.high)})"


def errors(level: Level) -> str:
    """Failed requests by kind, most first, for example `180 http_429, 11 timeout`; `0` where there were none."""
    kinds = sorted(level.errors.items(), key=lambda kind: -kind[1])
    counted = ", ".join(f"{count:,} {plain(kind)}" for kind, count in kinds if count)
    return counted or f"{level.requests.failed:,}"


def open_loop(levels: Sequence[Level]) -> bool:
    """Whether these levels were offered a rate; without any, no."""
    return any(isinstance(level.load, Rate) for level in levels[:1])


def load_axis(levels: Sequence[Level]) -> str:
    """What the load of these levels is, with its unit."""
    return "Arrivals/s" if open_loop(levels) else "Concurrency"


def client_in_words(summary: Summary) -> str:
    """What the client's own lag means for the figures."""
    clocks = {level.client.clock for level in summary.levels}
    lags = [x.client.lag_ms.p99 for x in summary.levels if x.client.lag_ms.p99 is not None]
    worst = f" Its lag at p99 was at most {duration(max(lags))}" if lags else ""
    if clocks == {"virtual"}:
        return "Measured in virtual time: there was no client and no network that could have been late."
    if clocks == {"kernel"}:
        ending = f"{worst}; it is measured at every read and is not in the figures." if worst else ""
        return f"Arrival times are the kernel's own stamps, not the moment the client got round to reading.{ending}"
    if clocks:
        ending = f"{worst}." if worst else ""
        return f"Arrival times were taken by the client itself: what it was late by is in the figures.{ending}"
    return "No level finished, so nothing is known of the client."


def _found(find: dict[str, Any]) -> Statement:
    """The result of a budget search."""
    unit = "requests/s" if find.get("load") == "rate" else "concurrency"
    budget, best = plain(find.get("budget", "the budget")), find.get("answer")
    why = plain(find.get("why") or "")
    if not best:
        return Statement("budget search", f"no {unit} was found that meets {budget}", why)
    low, high = best.get("low"), best.get("high")
    between = "" if low is None or high is None else f" (95% interval {low:,g} to {high:,g})"
    value = f"{best['value']:,g}"
    most = f"{value} {unit}" if unit == "requests/s" else f"{unit} {value}"
    binds = f"; {plain(find['binds'])} binds" if find.get("binds") else ""
    open_end = "" if find.get("resolved", True) else "; the search ended before this was certain"
    text = f"{most}{between} is the most that meets {budget}{binds}{open_end}"
    return Statement("budget search", text, why, recommended=True)


def _no_answer(summary: Summary) -> Statement:
    usable = [x for x in summary.levels if x.verdict.status != "invalid" and x.output_tokens_per_s.value]
    if len(usable) == 1:
        others = "the only valid level" if len(summary.levels) > 1 else "the only level"
        why = f"It is {others}, and one level makes no curve: sweep several to choose between them."
        return Statement("measured", level_in_words(usable[0]), why)
    if not summary.levels:
        return Statement("no answer", "no level finished", "There is nothing to choose from.")
    reasons = [plain(reason.message) for x in summary.levels for reason in x.verdict.reasons]
    return Statement("no answer", "no level gave figures to rely on", " ".join(dict.fromkeys(reasons[:2])))
