"""The reasons of a whole run's verdicts, a line each: for which loads, what is wrong, and what helps.

A level's own reasons have the figures; the report has those.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from pacemark.figures.remedy import keep_up, longer
from pacemark.figures.verdict import NOTES
from pacemark.pace import Rate
from pacemark.reporting.words import errors, plain
from pacemark.summary import LATENCIES, Level, Summary

__all__ = ["counts", "grouped", "loads_of", "main_reason", "run_reasons"]

_MOST = 4
"""Lines that a run's reasons take; what is left over is in the report."""


def grouped(summary: Summary) -> list[tuple[str, str, str]]:
    """Every reason once: for which loads, what it is, and what it makes of them (`suspect`, `invalid` or `note`)."""
    found = _found(summary)
    return [
        (loads_of(some, summary.levels), _phrase(code, some), "note" if code in NOTES else _worst(some))
        for code, some in found.items()
    ]


def _worst(levels: Sequence[Level]) -> str:
    return "invalid" if any(level.verdict.status == "invalid" for level in levels) else "suspect"


def _found(summary: Summary) -> dict[str, list[Level]]:
    """The levels that have each reason, doubts first."""
    found: dict[str, list[Level]] = {}
    for level in summary.levels:
        for reason in level.verdict.reasons:
            found.setdefault(reason.code, []).append(level)
    if summary.find:  # a search measures a level for as long as its answer needs
        found.pop("no_interval", None)
    order = [*(code for code in found if code not in NOTES), *(code for code in found if code in NOTES)]
    return {code: found[code] for code in order}


def run_reasons(summary: Summary) -> list[str]:
    """One for each reason, doubts first; and what failed, and answers that were too short."""
    levels, found = summary.levels, _found(summary)
    order = list(found)
    said = [f"{loads_of(found[code], levels)}: {_phrase(code, found[code])}" for code in order]
    if summary.find:
        said = [line.partition("; --")[0] for line in said]
    if len(said) > _MOST:
        said[_MOST - 1 :] = [f"and {len(said) - _MOST + 1} more reasons: see the report, or pacemark show --detail"]
    return said + counts(summary)


def main_reason(level: Level) -> str:
    """Why a level is not valid, in few words; empty where it is."""
    codes = [reason.code for reason in level.verdict.reasons if reason.code not in NOTES]
    return "" if level.verdict.status == "valid" else _phrase(codes[0], [level]) if codes else level.verdict.status


def loads_of(some: Sequence[Level], levels: Sequence[Level]) -> str:
    """`concurrency 1 to 8` for neighbours among the levels of a run, else `concurrency 1, 4, 16`."""
    if len(some) == len(levels) > 2:
        return "all levels"
    if some[0].asked:
        return "; ".join(plain(level.asked) for level in some)
    before, after = ("", " requests/s") if isinstance(some[0].load, Rate) else ("concurrency ", "")
    values = [f"{level.load.value:,g}" for level in some]
    at = [n for n, level in enumerate(levels) if level in some]
    neighbours = len(at) > 2 and at[-1] - at[0] == len(at) - 1 == len(some) - 1
    return f"{before}{f'{values[0]} to {values[-1]}' if neighbours else ', '.join(values)}{after}"


def _phrase(code: str, levels: Sequence[Level]) -> str:
    """What a code stands for; one that nobody foresaw in the words of the first level."""
    if code in _SAID:
        said = _SAID[code]
        return said if isinstance(said, str) else said(levels)
    return next((plain(r.message).rstrip(".") for x in levels for r in x.verdict.reasons if r.code == code), code)


def _flag(levels: Sequence[Level]) -> str:
    by = {level.ended_by for level in levels}
    return longer(levels, next((way for way in ("max_duration", "requests", "rows") if way in by), "duration"))


def _few(levels: Sequence[Level]) -> str:
    fewest = min(level.requests.in_window for level in levels)
    return f"only {fewest} request{'' if fewest == 1 else 's'}; {_flag(levels)} would do"


def _no_interval(levels: Sequence[Level]) -> str:
    """The quantiles that have no interval, and of what where it is not of all."""
    lacking = {
        (statistic, called)
        for level in levels
        for name, called in LATENCIES.items()
        for statistic in ("p50", "p95")
        if name != "itl_ms" and (basis := level.basis.get(name)) and basis.n and basis.note
        if (figure := getattr(getattr(level, name), statistic)).low is None or figure.high is None
    }
    which = " and ".join(sorted({statistic for statistic, _ in lacking})) or "p95"
    called = [name for name in ("TTFT", "TPOT", "latency") if any(name == x for _, x in lacking)]
    of = f" of {' and '.join(called)}" if 0 < len(called) < 3 else ""
    return f"too few requests for an interval of {which}{of}; {_flag(levels)} would do"


def _failed(levels: Sequence[Level]) -> str:
    shares = [x.requests.failed / max(1, x.requests.failed + x.requests.completed) for x in levels]
    return f"up to {max(shares):.0%} of the requests failed, which leaves the rest more room; mend those errors first"


def _helped(what: str) -> Callable[[Sequence[Level]], str]:
    """What a client did, and what helps on the machine that it was."""

    def said(levels: Sequence[Level]) -> str:
        idle = [x.client.idle_share for x in levels if x.client.idle_share is not None]
        return f"{what}; {keep_up(min(idle, default=None))}"

    return said


_SAID: dict[str, str | Callable[[Sequence[Level]], str]] = {
    "no_window": "no request was answered in a steady window; a longer --duration would do",
    "interrupted": "stopped early, so long answers are missing",
    "events_missing": "a part file (events-*.bin) is missing or cut off: no ITL, no output tokens/s",
    "beyond_capacity": "requests arrive faster than they are answered; lower the rate",
    "errors": _failed,
    "rate_limited": "a rate limit turned requests away (429); stay below it, or have it raised",
    "few_requests": _few,
    "no_interval": _no_interval,
    "unsteady": "the token rate had not settled; a longer --duration would do",
    "step_change": "the endpoint's pace changed on the way; repeat once it is steady",
    "little": "two ways to count tokens/s disagree; a longer --duration would do",
    "short_answers": "answers are shorter than asked for; compare only with runs of their length",
    "client_starved": "this client had no core to itself; load from a machine with free cores",
    "client_throttled": "the container's CPU quota stopped this client; give it more CPU",
    "client_stalled": "this client stood still for a while; repeat it on a machine that runs on",
    "client_busy": _helped("a worker of this client was busy all the time"),
    "client_lag": _helped("this client read late"),
    "coalesced": "events arrived together, so ITL p99 is only known within bounds",
    "late_sends": _helped("requests were sent late"),
    "underfilled": "fewer requests were in flight than asked for",
    "other_traffic": "the server worked for another client too; measure while nobody else uses it",
    "counted_less": "the server's metrics tell of a part of it only; name those of each replica with --metrics",
    "held_back": "much of TTFT passes outside the server: a proxy or the network",
    "filter_batches": "a content filter passes text on in batches: ITL is that of the filter, not of the model",
    "clocks": "the clock of a node is known too loosely; measure over a quieter network",
    "niceness": "workers on a node stand back behind whatever else runs there; start Ray without nice",
    "one_machine": "nodes share a machine, its network and its ports; keep each on one of its own",
    "event_count": "events hold several tokens; the server's own count is used",
}


def counts(summary: Summary) -> list[str]:
    """What failed, by kind, and how many answers were shorter than asked for."""
    levels, said = summary.levels, []
    failed = [level for level in levels if level.requests.failed]
    if failed:
        loads = loads_of(failed, levels)
        said.append(f"{loads}: failed: {'; '.join(errors(level) for level in failed[:3])}")
        if len(failed) > 3:
            said[-1] += " ..."
    short = sum(level.requests.short for level in levels)
    if short:
        asked = sum(level.requests.in_window for level in levels)
        said.append(f"{short:,} of {asked:,} answers were shorter than asked for")
    return said
