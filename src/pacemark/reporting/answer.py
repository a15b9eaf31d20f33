"""The answer of a run in sentences: what to choose, why, and what it rests on."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from pacemark.answers.curve import flat_from, named, number_of
from pacemark.answers.fit import TRUSTED
from pacemark.answers.held import closest
from pacemark.answers.lengths import counted
from pacemark.pace import Load, Rate
from pacemark.reporting.reasons import main_reason
from pacemark.reporting.words import between, level_in_words, plain, with_interval
from pacemark.summary import Confirmation, Figure, Find, Fits, Held, Level, Line, Slopes, Summary
from pacemark.units import duration, number

__all__ = ["Statement", "answer", "budget_answer", "recommended", "search_of", "unmet"]


@dataclass(frozen=True, slots=True)
class Statement:
    """One sentence of the answer: what it is about, what it says, and why."""

    name: str
    text: str
    why: str
    recommended: bool = False
    doubt: str = ""
    """The main reason why what is recommended is suspect."""


def answer(summary: Summary) -> list[Statement]:
    """The answer, most important first; never empty. The first statement is the recommendation, or why there is none.

    Points that fall on the same load are one statement. After a budget search only its result is recommended.
    """
    if isinstance(summary.slopes, Slopes):
        return list(_of_lengths(summary)) or [_no_answer(summary)]
    find = budget_answer(summary)
    said = [_of_budget(summary, find), *_beside(find)] if find else _unknown(summary)
    chosen = None if said else recommended(summary)
    loads: dict[Load, Statement] = {}
    suspect = {level.load: doubt for level in summary.levels if (doubt := _doubt(level))}
    for name, point in named(summary.operating_points):
        if find and point is summary.operating_points.within_budget:
            continue  # its figures stand in the answer
        before = loads.get(point.load)
        rate = f"{plain(point.load)}, {with_interval(point.output_tokens_per_s)} output tokens/s"
        first = point.load == chosen
        doubt = suspect.get(point.load, "") if first else ""
        loads[point.load] = (
            replace(before, name=f"{before.name}, {name}", why=f"{before.why} {plain(point.why)}")
            if before
            else Statement(
                name, rate, _reasoned(summary, name, point.why), first, suspect.get(point.load, "") if first else ""
            )
        )
    for load, statement in loads.items():
        doubt = " The level is suspect: its reasons stand with it." if load in suspect and not statement.doubt else ""
        said.append(replace(statement, why=statement.why + doubt))
    return [*(said or [_no_answer(summary)]), *_fitted(summary.fits)]


def _reasoned(summary: Summary, name: str, why: str) -> str:
    """Why a point is worth choosing; to those who have it, in the words of their platform too."""
    theirs = name == "balanced" and summary.run.get("endpoint")
    return plain(why) + (" It is the counterpart of Databricks' balanced scaling strategy." if theirs else "")


def _doubt(level: Level) -> str:
    """The main reason why a level is suspect; empty where it is not."""
    return main_reason(level) if level.verdict.status == "suspect" else ""


def recommended(summary: Summary) -> Load | None:
    """The measured load to choose: within the budget where there was one, none where no level meets it; else the first
    of the points."""
    points = summary.operating_points
    if budget_answer(summary) or _unknown(summary):
        return points.within_budget.load if points.within_budget else None
    return next((point.load for _, point in named(points)), None)


def search_of(summary: Summary) -> Find | None:
    """What a search found; None after any other run."""
    return summary.find or None


def budget_answer(summary: Summary) -> Find | None:
    """The answer to the run's budget, whoever gave it; None without one."""
    return search_of(summary) or summary.answer or None


def unmet(summary: Summary) -> str:
    """That no level meets the budget, the closest one, what binds there and by how much; empty where one does, and
    where there was no budget."""
    find = budget_answer(summary)
    if find is None:
        return next((f"{said.name}: {said.text}" for said in _unknown(summary)), "")
    if find.answer is not None and find.answer.value is not None:
        return ""
    said = _of_budget(summary, find)
    return f"{said.name}: {said.text}"


def _unknown(summary: Summary) -> list[Statement]:
    """What is said of a budget of which no level can tell; nothing where there was none."""
    budget = (summary.run.get("settings") or {}).get("budget") if summary.levels and not summary.slopes else None
    if not budget or summary.operating_points.within_budget:
        return []
    why = "No level can be relied on, or no request has what the budget limits."
    return [Statement("budget unknown", f"no level is known to meet {plain(budget)}", why)]


def _of_budget(summary: Summary, find: Find) -> Statement:
    """The answer to a budget with the figures of its level, or the closest level where none meets it."""
    said = _found(find)
    if find is not search_of(summary):
        said = replace(said, name="within budget")
    if not said.recommended:
        near = closest(summary.levels)
        if near is None or not isinstance(near.budget, Held):
            return said
        close = " (too close to tell)" if near.budget.status == "open" else ""
        text = f"the closest is {plain(near.load)}, where {plain(near.budget.why)}{close}"
        why = "" if find.why.startswith("not even") else said.why  # the closest level has said as much
        return replace(said, name=f"no level meets {plain(find.budget)}", text=text, why=why)
    point = summary.operating_points.within_budget
    level = next((x for x in summary.levels if point is not None and x.load == point.load), None)
    if level is None:
        return said
    start = flat_from([x for x in summary.levels if x.load.value <= level.load.value])
    flat = "" if start is None else f"Throughput no longer rises from {number_of(start)} on. "
    if fallen := _fallen_from(level, summary.levels):
        flat = f"Throughput falls: {plain(fallen.load)} gives {with_interval(fallen.output_tokens_per_s)} tokens/s. "
    open_ = ""
    if isinstance(level.budget, Held) and level.budget.status == "open":
        open_ = f"Whether {plain(level.load)} meets it is too close to tell: {plain(level.budget.why)}. "
    why = f"Measured at {_figures(level)}. {flat}{open_}{said.why}"
    return replace(said, why=why.strip(), doubt=_doubt(level))


def _fallen_from(level: Level, levels: Sequence[Level]) -> Level | None:
    """A lower load that surely gives more tokens a second than `level`, by a tenth or more; None where none does."""
    most = level.output_tokens_per_s.high
    more = [
        x
        for x in levels
        if most and x.load.value < level.load.value and (x.output_tokens_per_s.low or 0.0) > FALLEN * most
    ]
    return max(more, key=lambda x: x.output_tokens_per_s.value or 0.0, default=None)


FALLEN = 1.1
"""So many times as much is worth saying."""


def _figures(level: Level) -> str:
    """A level's rates and the latencies that budgets speak of."""
    parts = [f"{with_interval(level.output_tokens_per_s)} output tokens/s"]
    if level.requests_per_s.value is not None:
        parts.append(f"{number(level.requests_per_s.value)} requests/s")
    for name, spread in (("TTFT", level.ttft_ms), ("TPOT", level.tpot_ms)):
        if spread.p95.value is not None:
            parts.append(f"{name} p95 {duration(spread.p95.value)}")
    return f"{plain(level.load)}: {', '.join(parts)}"


def _found(find: Find) -> Statement:
    """The result of a budget search, with the way of arriving that it holds for."""
    rated, best = find.load != "concurrency", find.answer
    unit = {"rate": "requests/s", "speed": "speed of the trace"}.get(find.load, "concurrency")
    budget, stored = plain(find.budget), not find.spent.requests
    name = "stored levels" if stored else "budget search"
    why = plain(find.why)
    why = f"{_sentence(why)}." if why and not why.endswith(".") else why
    if best is None or best.value is None:
        return Statement(name, f"no {unit} was found that meets {budget}", why)
    value = _load_number(best.value, rated)
    most = f"{value} requests/s with {_arriving(find)} arrivals" if rated else f"concurrency {value}"
    if find.load == "speed":
        most = f"speed {value} of the trace{_per_s(find, best.value)}"
    binds = f"; {plain(find.binds)} binds" if find.binds else ""
    open_end = "" if find.resolved or stored else "; the search ended before this was certain"
    text = f"{most}{_between_loads(best, rated)} is the most that meets {budget}{binds}{open_end}"
    if not rated and not find.confirmations and not stored:
        why += " It is a closed loop's, where an answer starts the next request; --confirm tries it in an open one."
    return Statement(name, text, why.strip(), recommended=True)


def _per_s(find: Find, speed: float) -> str:
    """How many requests a second that speed is."""
    known = next((x.load for x in find.probes if isinstance(x.load, Rate) and x.load.speed), None)
    return f" ({number(known.value * speed / (known.speed or 1.0))} requests/s)" if known else ""


def _between_loads(best: Figure, rated: bool) -> str:
    """The interval of the load found, in brackets; an end may be open."""
    if best.low is None:
        return ""
    low = _load_number(best.low, rated)
    if best.high is None:
        return f" (95% interval {low} up)"
    high = _load_number(best.high, rated)
    return f" (95% interval {low} to {high})" if low != high else ""


def _beside(find: Find) -> list[Statement]:
    """What follows from a search: the answer in the open loop, and what to measure next."""
    said = [_confirmed(tried) for tried in find.confirmations]
    if following := find.next:
        rated = isinstance(following, Rate)
        load = f"{_load_number(following.value, rated)} requests/s" if rated else f"concurrency {following.value}"
        load = str(following) if isinstance(following, Rate) and following.speed else load
        said.append(Statement("measure next", load, f"{_sentence(plain(find.next_why))}."))
    return said


def _confirmed(tried: Confirmation) -> Statement:
    """What became of the answer in the open loop, with arrivals of one kind."""
    load = tried.load
    arrivals = "Poisson" if load.arrivals == "poisson" else f"{load.arrivals}, CV {load.burstiness:g}"
    rate = f"{number(load.value)} requests/s"
    if tried.stable is None:
        text = f"{rate}: not known"
    elif not tried.stable:
        text = f"{rate} is unbounded"
    else:
        verdict = {True: "meets the budget", False: "misses the budget", None: "may or may not meet the budget"}
        text = f"{rate} {verdict[tried.within]}"
    why = f"{plain(tried.why)}."
    if tried.stable is False or tried.within is False:
        why += " pacemark find --rate finds the most that arrivals of this kind can have."
    return Statement(f"open loop, {arrivals}", text, _sentence(why))


def _sentence(text: str) -> str:
    """With a capital, unless it opens with the name of a metric."""
    return text if text.startswith(("ttft", "tpot", "itl")) else f"{text[:1].upper()}{text[1:]}"


def _load_number(value: float, rated: bool) -> str:
    return number(value) if rated else f"{value:,g}"


def _arriving(find: Find) -> str:
    """How requests arrived in an open-loop search."""
    load = next((probe.load for probe in find.probes), None)
    if not isinstance(load, Rate) or load.arrivals == "poisson":
        return "Poisson"
    return "constant" if load.arrivals == "constant" else f"{plain(load.arrivals)} (CV {load.burstiness:g})"


def _fitted(fits: Fits) -> list[Statement]:
    """The laws fitted to the curve, each with its error; one that misses the levels by more than a tenth says nothing
    of the endpoint."""
    law, step, said = fits.scalability, fits.step_time, []
    if law is not None and law.error <= TRUSTED:
        most = "" if law.most is None else f", {number(law.most)} at most"
        text = f"{number(law.rate)} output tokens/s at concurrency 1{most}"
        said.append(f"{text} (universal scalability law, off by {law.error:.1%})")
    if step is not None and step.error <= TRUSTED:
        prefill = "" if step.prefill_ms is None else f", a prefill adds {duration(step.prefill_ms)} to a step"
        text = f"TPOT = {duration(step.base_ms)} + {duration(step.per_stream_ms)} x requests being decoded{prefill}"
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


def _of_lengths(summary: Summary) -> Iterator[Statement]:
    """What input and output tokens cost: a name, what it comes to, and what that rests on."""
    slopes = summary.slopes
    assert isinstance(slopes, Slopes)
    load = summary.levels[0].load if summary.levels else "no load"
    prefill = slopes.ttft_ms.per_input_token_ms if slopes.ttft_ms else Figure()
    if slopes.ttft_ms and prefill.value is not None:
        speed = f", a prefill of {number(1e3 / prefill.value)} tokens/s" if _surely_positive(prefill) else ""
        text = f"1,000 more input tokens add {between(prefill, 1000)} to TTFT{speed}"
        yield Statement("input tokens", text, f"At {load}. {_stands_on(slopes.ttft_ms)}")
    line = slopes.latency_ms
    decode = line.per_output_token_ms if line else Figure()
    if line is None or decode.value is None:
        return
    text, inputs = f"each more output token adds {between(decode)} to latency", line.per_input_token_ms
    if inputs.value is not None and _surely_positive(inputs) and decode.value > 0:
        text += f", as much as {number(decode.value / inputs.value)} input tokens"
    shares = [share for x in summary.levels if (share := _decode_share(x, line)) is not None]
    dominates = f"The answer's tokens make up {min(shares):.0%} to {max(shares):.0%} of the latency. " if shares else ""
    yield Statement("output tokens", text, f"{dominates}At {load}. {_stands_on(line)}")


def _surely_positive(figure: Figure) -> bool:
    return (figure.value or 0.0) > 0 and (figure.low is None or figure.low > 0)


def _stands_on(line: Line) -> str:
    off = duration(line.residual_ms)
    return f"A straight line through the medians of {line.cells} levels; the farthest is {off} off."


def _decode_share(level: Level, line: Line) -> float | None:
    """The share of a level's median latency that its output tokens account for."""
    latency, slope = level.latency_ms.p50.value, line.per_output_token_ms.value
    if level.asked is None or level.verdict.status == "invalid" or not latency or slope is None:
        return None
    return min(1.0, max(0.0, counted(level)[1] * slope / latency))
