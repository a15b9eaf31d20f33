"""Whether to believe a level: was it the endpoint or the client, steady or not, counted right or not.

Each check is a function from the evidence to a finding or None, and says what to do about it.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from typing import Literal

import numpy as np

from pacemark.figures import caching, client, nodes, tokens
from pacemark.figures.connections import uneven_connections
from pacemark.figures.evidence import Evidence, Finding
from pacemark.figures.remedy import LEAST_REQUESTS, longer
from pacemark.pace import Rate
from pacemark.summary import LATENCIES, Level, Reason, Verdict
from pacemark.trace import RATE_LIMITS

NOTES = frozenset(
    {
        "no_interval",
        "event_count",
        "endpoint_unseen",
        "endpoint_may_burst",
        "cached_template",
        "filter_batches",
        "hidden_tokens",
        "counted_less",
        "held_back",
        "uneven_connections",
        "cache",
        "one_machine",
    }
)
"""Codes of what is worth knowing of a level and casts no doubt on it."""
COUNTS = frozenset({"no_interval", "few_requests"})
"""Codes of what more requests would mend."""


def judge(evidence: Evidence) -> Verdict:
    """All findings as one verdict; the worst decides the status."""
    return verdict_of([f for f in (check(evidence) for check in CHECKS) if f is not None])


def verdict_of(findings: Sequence[Finding], before: Verdict | None = None) -> Verdict:
    """Findings as a verdict, with what was found `before`; what makes it what it is comes first."""
    statuses = {*(f.status for f in findings), before.status if before else "valid"}
    status: Literal["valid", "suspect", "invalid"] = (
        "invalid" if "invalid" in statuses else "suspect" if "suspect" in statuses else "valid"
    )
    old = before.reasons if before else []
    new = [Reason(f.code, f.message) for f in sorted(findings, key=lambda f: _WORST_FIRST.index(f.status))]
    return Verdict(status, [*old, *new] if before and before.status == status else [*new, *old])


_WORST_FIRST = ("invalid", "suspect", "note")


def no_window(e: Evidence) -> Finding | None:
    """Nothing to measure: the load ended before it was steady."""
    if e.window.seconds > 0 and e.good.any():
        return None
    text = "no request was sent and answered in a steady window"
    if 2 * (failed := e.trace.error != "").sum() < len(e.trace) or not failed.any():
        return Finding("invalid", "no_window", f"{text}; give it longer")
    kinds, counts = np.unique(e.trace.error[failed], return_counts=True)
    text += f": {failed.sum()} of {len(e.trace)} requests failed (most by {kinds[counts.argmax()]})"
    return Finding("invalid", "no_window", f"{text}; see which errors they are, and mend those or lower the load")


def worker_died(e: Evidence) -> Finding | None:
    """A worker that ended took its share of the load with it."""
    if not e.health.died:
        return None
    text = f"{'; '.join(e.health.died)}, so the load was not what it says; run again, with fewer requests in flight"
    return Finding("invalid", "worker_died", text)


def errors(e: Evidence) -> Finding | None:
    """Failed requests free capacity for the others, so the figures flatter the endpoint."""
    share, limited = _failures(e)
    if share - limited <= 0.01:
        return None
    kinds, counts = np.unique(e.trace.error[e.sample & ~e.good], return_counts=True)
    others = ~np.isin(kinds, RATE_LIMITS)
    worst = kinds[others][counts[others].argmax()]
    text = (
        f"{share - limited:.1%} of {e.sample.sum()} requests in the window failed (most by {worst}), and the rest had "
        "the endpoint to themselves; see which errors they are, and mend those or lower the load"
    )
    return Finding("invalid" if share > 0.1 else "suspect", "errors", text)


def rate_limited(e: Evidence) -> Finding | None:
    """A limit that somebody set was reached: what is measured is the limit and not the endpoint."""
    share, limited = _failures(e)
    if limited <= 0.01:
        return None
    which = f" on {e.watch.limits[0]}" if e.watch.limits else ""
    text = (
        f"{limited:.1%} of {e.sample.sum()} requests in the window were turned away by a rate limit{which} (429); ask "
        "for a higher limit, or stay below it"
    )
    return Finding("invalid" if share > 0.1 else "suspect", "rate_limited", text)


def _failures(e: Evidence) -> tuple[float, float]:
    """Shares of the window's requests that failed, and that failed by a rate limit."""
    total = max(1, int(e.sample.sum()))
    limited = int(np.isin(e.trace.error[e.sample], RATE_LIMITS).sum())
    return int(e.sample.sum() - e.good.sum()) / total, limited / total


def few_requests(e: Evidence) -> Finding | None:
    """Too few for intervals; far too few for any quantile."""
    return too_few(e.level, int(e.good.sum()), beyond=e.beyond, ended_by=e.ended_by)


def too_few(level: Level, count: int, *, beyond: bool, ended_by: str) -> Finding | None:
    """The same of a level whose figures stand on `count` answers; `beyond` capacity it has no latency."""
    lacking = {} if beyond else {LATENCIES[n]: b.note for n, b in level.basis.items() if b.n and b.note}
    if count == 0 or (count >= LEAST_REQUESTS and not lacking):
        return None
    remedy = longer([level], ended_by)
    if count < LEAST_REQUESTS:
        text = f"only {count} request{'' if count == 1 else 's'} in the window; {remedy} would do"
        return Finding("suspect", "few_requests", text)
    text = ", ".join(f"{metric} {note}" for metric, note in lacking.items())
    return Finding("note", "no_interval", f"no interval yet: {text}; {remedy} would do")


def interrupted(e: Evidence) -> Finding | None:
    """Requests cut off by the interruption are missing, and the long ones first."""
    if e.ended_by != "interrupted":
        return None
    text = "the level was stopped early, so long answers are missing from its figures; let it run to its end"
    return Finding("suspect", "interrupted", text)


def unsteady(e: Evidence) -> Finding | None:
    """A level that never settled has no average."""
    if e.settled:
        return None
    return Finding("suspect", "unsteady", "the token rate had not settled by the middle of the window; run longer")


def step_change(e: Evidence) -> Finding | None:
    """The endpoint changed under the measurement."""
    if e.change is None:
        return None
    change = e.change.after / e.change.before - 1 if e.change.before else float("inf")
    return Finding(
        "suspect",
        "step_change",
        f"the pace changed by {change:+.0%} within the window: the endpoint scaled, or a neighbour came or went; "
        "repeat the level once it is steady",
    )


def endpoint_changed(e: Evidence) -> Finding | None:
    """The endpoint itself says that it scaled, was changed, or was not ready."""
    seen = [s for s in e.watch.during(e.window) if s.ready is not None]
    for before, after in itertools.pairwise(seen):
        at = f"{max(0.0, (after.now_ns - e.window.start_ns) / 1e9):.0f} s into the window"
        if not after.ready:
            return Finding("suspect", "endpoint_not_ready", f"the endpoint said {at} that it is {after.state}")
        if before.version != after.version:
            return Finding("suspect", "endpoint_updated", f"the endpoint's configuration was changed, seen {at}")
        if before.capacity is not None and after.capacity is not None and before.capacity != after.capacity:
            return Finding(
                "suspect",
                "endpoint_scaled",
                f"the endpoint scaled from {before.capacity:g} to {after.capacity:g} provisioned requests in parallel, "
                f"seen {at}: the figures mix two sizes of it; repeat the level once it is steady",
            )
    return None


def endpoint_unseen(e: Evidence) -> Finding | None:
    """What could not be asked of the endpoint while the level ran."""
    said = {s.problem for s in e.watch.during(e.window) if s.problem}
    return Finding("note", "endpoint_unseen", f"while the level ran: {'; '.join(sorted(said))}") if said else None


def endpoint_may_burst(e: Evidence) -> Finding | None:
    """The endpoint may have served with more than was bought: a curve on that makes people buy too little."""
    if not any(s.bursts for s in e.watch.during(e.window)):
        return None
    text = "the endpoint may burst beyond what was bought, so this level need not be that size's own"
    return Finding("note", "endpoint_may_burst", text)


def events_missing(e: Evidence) -> Finding | None:
    """Figures that need the time of every event are not there; nothing stands in for them."""
    missing = e.trace.outlined
    if not missing.any():
        return None
    machines = [part.name for part, _ in e.health.nodes]
    which = {machines[n] for n in (e.trace.index[missing] % len(machines)).tolist()} if machines else set[str]()
    of = f" ({', '.join(sorted(which))})" if which else ""
    return Finding(
        "suspect",
        "events_missing",
        f"of {missing.sum():,} of {len(missing):,} requests{of} the events "
        "between the first and the last are not there, for a part file (events-*.bin) in the run folder is missing or "
        "cut off, or its node was lost: ITL, stalls and output tokens/s are not given; TTFT, TPOT and latency stand; "
        "put the file back and run pacemark report",
    )


def beyond_capacity(e: Evidence) -> Finding | None:
    """An open loop that outruns its server has no latency: it grows for as long as one looks."""
    if not e.beyond:
        return None
    return Finding(
        "invalid",
        "beyond_capacity",
        "requests arrive faster than they are answered: the backlog and the TTFT grow without bound, so no latency "
        "is given; lower the rate",
    )


def little(e: Evidence) -> Finding | None:
    """Two ways to count throughput must agree (Little's law); where they do not, the level was not in balance."""
    if e.level.output_tokens_per_s_by_cycle.value is None or not e.level.output_tokens_per_s.value:
        return None
    off = e.level.output_tokens_per_s_by_cycle.value / e.level.output_tokens_per_s.value - 1
    low, high = e.level.output_tokens_per_s.low, e.level.output_tokens_per_s.high
    width = (high - low) / 2 / e.level.output_tokens_per_s.value if low is not None and high is not None else 0.0
    if abs(off) <= 0.03 + width or e.good.sum() < 20:
        return None
    return Finding(
        "suspect",
        "little",
        f"tokens per second and concurrency x tokens / cycle time differ by {off:+.1%}: the window is too short or the "
        "load was not in balance; run longer",
    )


def in_one_piece(e: Evidence) -> Finding | None:
    """Streaming in name only: nothing is known of when the first token was ready."""
    several = e.good & (e.trace.output_tokens > 1) & (e.trace.calls == 0)
    streamed = several & (e.trace.first_event_ns >= 0)
    share = 1 - float((streamed & ~e.trace.in_one_piece).sum()) / max(1, int(several.sum()))
    if share <= tokens.OFF or not streamed.any():
        return None
    return Finding(
        "suspect",
        "in_one_piece",
        f"{share:.0%} of the answers came whole, in one event or one read: the server or a proxy streams in name only, "
        "so TTFT is not a time to first token here; find what buffers, or use --no-stream and read the latency",
    )


def held_open(e: Evidence) -> Finding | None:
    """A stream of the closed loop waits for the end of the body, which may come long after the end of the answer."""
    told = e.good & (e.trace.done_ns >= 0)
    if not told.any() or isinstance(e.level.load, Rate):
        return None
    held = (e.trace.ended_ns - e.trace.done_ns)[told].mean() / 1e6
    took = (e.trace.ended_ns - e.trace.sent_ns)[told].mean() / 1e6
    if held <= HELD * took:
        return None
    return Finding(
        "suspect",
        "held_open",
        f"the server or a proxy ends the body {held:.0f} ms after the answer is complete, {held / took:.0%} of the "
        "time of a request: no latency counts that, but each stream waits for it, so throughput is that of fewer in "
        "flight; find what holds it",
    )


def several_models(e: Evidence) -> Finding | None:
    """A router that splits the load, or falls back to another model, makes figures that are of neither. What an
    endpoint that is watched splits is told of beforehand."""
    names, counts = np.unique(e.trace.served_by[e.good & (e.trace.served_by != "")], return_counts=True)
    if len(names) < 2 or e.watch.during(e.window) or (share := 1 - counts.max() / counts.sum()) <= 0.01:
        return None
    most = names[counts.argmax()]
    others = ", ".join(name for name in names.tolist()[:4] if name != most) + ", ..." * (len(names) > 4)
    return Finding(
        "suspect",
        "several_models",
        f"{share:.0%} of the answers came from another model ({others}) than the rest ({most}): a gateway splits the "
        "load or falls back, and the figures are those of the mixture; pacemark show --detail takes them apart",
    )


HELD = 0.05
"""What share of a request may pass after its answer is complete."""


CHECKS: tuple[Callable[[Evidence], Finding | None], ...] = (
    no_window,
    worker_died,
    interrupted,
    events_missing,
    beyond_capacity,
    errors,
    rate_limited,
    few_requests,
    unsteady,
    step_change,
    endpoint_changed,
    little,
    tokens.short_answers,
    tokens.longer_than_asked,
    tokens.input_length,
    in_one_piece,
    held_open,
    several_models,
    tokens.tokens_uneven,
    tokens.token_count,
    caching.cached_prompts,
    caching.suspected_cache,
    caching.mixed_cache,
    caching.rows_again,
    *nodes.NODE_CHECKS,
    nodes.clocks,
    nodes.slowed,
    client.coalesced,
    client.late_sends,
    client.underfilled,
    tokens.event_count,
    tokens.filter_batches,
    tokens.hidden_tokens,
    uneven_connections,
    nodes.on_one_machine,
    caching.cache_told,
    endpoint_unseen,
    endpoint_may_burst,
)
