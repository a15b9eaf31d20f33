"""The words that every face of a result shares: the answer, errors, verdicts, and the client's health."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from pacemark.answers.curve import named
from pacemark.figures.verdict import NOTES
from pacemark.pace import Load, Rate
from pacemark.summary import Figure, Fits, Level, Slopes, Summary
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
    if isinstance(summary.slopes, Slopes):
        from pacemark.reporting.charts.lengths import sentences

        return [Statement(*parts) for parts in sentences(summary)] or [_no_answer(summary)]
    said = [_found(summary.find), *_beside(summary.find)] if isinstance(summary.find, dict) else []
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
    return [*(said or [_no_answer(summary)]), *_fitted(summary.fits)]


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


def value(figure: Figure) -> str:
    """The figure without its interval; where only a bound can be given, that: `> 640`."""
    if figure.value is not None:
        return number(figure.value)
    return "-" if figure.low is None else f"> {number(figure.low)}"


def interval(figure: Figure) -> str:
    """A figure's interval, as far as it has one: `1,490 to 1,500`, or `above 640` where it has no upper end."""
    if figure.value is None or figure.low is None:
        return ""
    return f"above {number(figure.low)}" if figure.high is None else f"{number(figure.low)} to {number(figure.high)}"


def reasons(level: Level) -> list[str]:
    """The reasons of a level's verdict, each with what it makes of the level; a note casts no doubt."""
    status = level.verdict.status
    return [f"{'note' if r.code in NOTES else status}: {plain(r.message)}" for r in level.verdict.reasons]


def ended(level: Level) -> str:
    """What ended a level, in words."""
    return {
        "duration": "its duration",
        "precision": "its precision: the intervals are as tight as asked for",
        "max_duration": "its longest duration, before the intervals were as tight as asked for",
        "interrupted": "an interruption",
    }[level.ended_by]


def errors(level: Level) -> str:
    """Failed requests by kind, most first, for example `180 http_429, 11 timeout`; `0` where there were none."""
    kinds = sorted(level.errors.items(), key=lambda kind: -kind[1])
    counted = ", ".join(f"{count:,} {plain(kind)}" for kind, count in kinds if count)
    return counted or f"{level.requests.failed:,}"


def open_loop(levels: Sequence[Level]) -> bool:
    """Whether these levels were offered a rate; without any, no."""
    return any(isinstance(level.load, Rate) for level in levels[:1])


def load_axis(levels: Sequence[Level]) -> str:
    """What the load of these levels is, with its unit; of a length grid, its lengths."""
    if any(level.asked for level in levels):
        return "Tokens in / out"
    return "Arrivals/s" if open_loop(levels) else "Concurrency"


def load_cell(level: Level) -> str:
    """A level's place on `load_axis`."""
    if level.asked is not None:
        return f"{level.asked.input_tokens:,} / {level.asked.output_tokens:,}"
    return f"{level.load.value:,g}"


def client_in_words(summary: Summary) -> str:
    """What the client's own lag means for the figures."""
    clocks = {level.client.clock for level in summary.levels}
    lags = [x.client.lag_ms.p99 for x in summary.levels if x.client.lag_ms.p99 is not None]
    worst = f" Its lag at p99 was at most {duration(max(lags))}" if lags else ""
    bounded = [x.client for x in summary.levels if x.client.bound_ms is not None]
    bound = f" {plain(max(bounded, key=lambda c: c.bound_ms or 0.0).bound or '')}." if bounded else ""
    if clocks == {"virtual"}:
        return "Measured in virtual time: there was no client and no network that could have been late."
    if clocks == {"kernel"}:
        ending = f"{worst}; it is measured at every read and is not in the figures." if worst else ""
        stamps = "Arrival times are the kernel's own stamps, not the moment the client got round to reading."
        return f"{stamps}{ending}{bound}"
    if clocks:
        ending = f"{worst}." if worst else ""
        return f"Arrival times were taken by the client itself: what it was late by is in the figures.{ending}{bound}"
    return "No level finished, so nothing is known of the client."


def _found(find: dict[str, Any]) -> Statement:
    """The result of a budget search, with the way of arriving that it holds for."""
    rated = find.get("load") == "rate"
    unit = "requests/s" if rated else "concurrency"
    budget, best = plain(find.get("budget", "the budget")), find.get("answer")
    stored = not (find.get("spent") or {}).get("requests", True)
    name = "stored levels" if stored else "budget search"
    why = plain(find.get("why") or "")
    why = f"{_sentence(why)}." if why and not why.endswith(".") else why
    if not best:
        return Statement(name, f"no {unit} was found that meets {budget}", why)
    low, high = best.get("low"), best.get("high")
    between = (
        "" if low is None else f" (95% interval {_load_number(low, rated)} {'up' if high is None else 'to'} "
        f"{'' if high is None else _load_number(high, rated)}".rstrip() + ")"
    )  # fmt: skip
    value = _load_number(best["value"], rated)
    most = f"{value} requests/s with {_arriving(find)} arrivals" if rated else f"concurrency {value}"
    binds = f"; {plain(find['binds'])} binds" if find.get("binds") else ""
    open_end = "" if find.get("resolved", True) or stored else "; the search ended before this was certain"
    text = f"{most}{between} is the most that meets {budget}{binds}{open_end}"
    if not rated and not find.get("confirmations") and not stored and find.get("spent"):
        why += " It is a closed loop's, where an answer starts the next request; --confirm tries it in an open one."
    return Statement(name, text, why.strip(), recommended=True)


def _beside(find: dict[str, Any]) -> list[Statement]:
    """What follows from a search: the answer in the open loop, and what to measure next."""
    said = []
    for tried in find.get("confirmations") or []:
        load = tried["load"]
        arrivals = "Poisson" if load["arrivals"] == "poisson" else f"{load['arrivals']}, CV {load['burstiness']:g}"
        name = f"open loop, {arrivals}"
        rate = f"{number(load['value'])} requests/s"
        verdict = {True: "meets the budget", False: "misses the budget", None: "may or may not meet the budget"}
        text = f"{rate} {verdict[tried['within']]}" if tried["stable"] else f"{rate} is unbounded"
        if tried["stable"] is None:
            text = f"{rate}: not known"
        why = f"{plain(tried['why'])}."
        if tried["stable"] is False or tried["within"] is False:
            why += " pacemark find --rate finds the most that arrivals of this kind can have."
        said.append(Statement(name, text, _sentence(why)))
    if following := find.get("next"):
        rated = following["kind"] == "rate"
        load = f"{_load_number(following['value'], rated)} requests/s" if rated else f"concurrency {following['value']}"
        why = plain(find.get("next_why", ""))
        said.append(Statement("measure next", load, f"{_sentence(why)}."))
    return said


def _sentence(text: str) -> str:
    """With a capital, unless it opens with the name of a metric."""
    return text if text.startswith(("ttft", "tpot", "itl")) else f"{text[:1].upper()}{text[1:]}"


def _load_number(value: float, rated: bool) -> str:
    return number(value) if rated else f"{value:,g}"


def _arriving(find: dict[str, Any]) -> str:
    """How requests arrived in an open-loop search."""
    load: dict[str, Any] = next((probe["load"] for probe in find.get("probes") or []), {})
    kind = load.get("arrivals", "poisson")
    return {"poisson": "Poisson", "constant": "constant"}.get(kind, f"{plain(kind)} (CV {load.get('burstiness', 1):g})")


def _fitted(fits: Fits) -> list[Statement]:
    """The laws fitted to the curve, each with its error."""
    law, step, said = fits.scalability, fits.step_time, []
    if law is not None:
        most = "" if law.most is None else f", {number(law.most)} at most"
        text = f"{number(law.rate)} output tokens/s for one stream{most}"
        said.append(f"{text} (universal scalability law, off by {law.error:.1%})")
    if step is not None:
        prefill = "" if step.prefill_ms is None else f", a prefill adds {duration(step.prefill_ms)} to a step"
        text = f"TPOT = {duration(step.base_ms)} + {duration(step.per_stream_ms)} x streams{prefill}"
        said.append(f"{text} (off by {step.error:.1%})")
    warning = fits.warning or ""
    why = f"{_sentence(warning)}." if warning else ""
    return [Statement("fitted", "; ".join(said), why)] if said else []


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
