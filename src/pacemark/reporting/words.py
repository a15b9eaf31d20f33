"""How every face of a result writes figures, loads, errors, verdicts, and the client's health."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

from pacemark.figures.verdict import NOTES
from pacemark.pace import Rate
from pacemark.summary import Figure, Level, Summary
from pacemark.units import duration, number


def plain(text: object) -> str:
    """`text` on one line and without control characters, fit for a terminal whoever wrote it."""
    return " ".join("".join(c if c.isprintable() else " " for c in str(text)).split())


def title(summary: Summary) -> str:
    """What was measured: the model and where it is served."""
    model, url = summary.target.get("model"), summary.target.get("url")
    return plain(" at ".join(str(x) for x in (model, url) if x)) or "an unnamed endpoint"


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
    if not interval(figure) or figure.high is None:
        return number(figure.value)
    return f"{number(figure.value)} ({interval(figure)})"


def between(figure: Figure, times: int = 1) -> str:
    """A time in ms that has a value, `times` over, with its 95% interval: `31 ms (95% interval 30 ms to 32 ms)`."""
    value, low, high = (None if x is None else x * times for x in (figure.value, figure.low, figure.high))
    assert value is not None
    if low is None or high is None:
        return f"{duration(value)} (no interval: too few levels)"
    return f"{duration(value)} (95% interval {duration(low)} to {duration(high)})"


def value(figure: Figure) -> str:
    """The figure without its interval; where only a bound can be given, that: `> 640`."""
    if figure.value is not None:
        return number(figure.value)
    return "-" if figure.low is None else f"> {number(figure.low)}"


def interval(figure: Figure) -> str:
    """A figure's interval, as far as it has one: `1,490 to 1,500`, or `above 640` where it has no upper end. Where its
    digits are those of the figure it says no more than that."""
    if figure.value is None or figure.low is None:
        return ""
    if figure.high is None:
        return f"above {number(figure.low)}"
    low, high = number(figure.low), number(figure.high)
    return "" if low == high == number(figure.value) else f"{low} to {high}"


def reasons(level: Level) -> list[str]:
    """The reasons of a level's verdict, each with what it makes of the level; a note casts no doubt."""
    status = level.verdict.status
    return [f"{'note' if r.code in NOTES else status}: {plain(r.message)}" for r in level.verdict.reasons]


def ended(level: Level) -> str:
    """What ended a level, in words."""
    return {
        "duration": "its duration",
        "requests": "its number of requests",
        "rows": "the rows of its file having run out",
        "precision": "its precision: its figures are as sure as was asked for",
        "max_duration": "its longest duration, before the intervals were as tight as asked for",
        "allowance": "what the run was allowed to spend",
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


def when(started: str) -> str:
    """A time of ISO 8601 as people read it; any other text as it is."""
    try:
        return datetime.fromisoformat(started).strftime("%Y-%m-%d %H:%M:%S %Z").strip()
    except (TypeError, ValueError):
        return plain(started)
