"""When a level cannot come to anything, and how to say so: rules on what has come back, without a process in sight.

Each gives a line for the user, or None while there is hope.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from time import monotonic_ns

import numpy as np

from pacemark.endpoint.contact import may_be_ignore_eos
from pacemark.pace import Concurrency, Load
from pacemark.runs.ledger import Page
from pacemark.trace import ABSENT, Beat, Trace, Window

HOPELESS = 12
"""A level whose first requests all fail is given up after this many (or one per stream, if that is more)."""
GONE_NS = 5_000_000_000
"""An endpoint that has refused every connection for so long is gone."""
SILENT_NS = 10_000_000_000
"""An endpoint that has answered nothing for so long, and for ten times as long as any request took, is gone too."""
STUCK_NS = 5_000_000_000
LEAST_STALL_S = 10.0
LEAST_UNANSWERED_S = 60.0
_UNREACHED = {"refused", "connect", "connect_timeout"}
_OTHER_CAUSE = re.compile(
    "filter|policy|moderation|safety|cuda|memory|context|too long|quota|balance|web page", re.IGNORECASE
)
"""Words in a failure that name its cause."""
IGNORE_EOS = "ignore_eos may be the cause: try --no-ignore-eos"


def answered(beats: Sequence[Beat], end_ns: int) -> bool:
    """Whether every request begun by `end_ns` has ended and has been reported."""
    return all(b.now_ns > end_ns and not ABSENT < b.oldest_ns <= end_ns for b in beats)


class Doubts:
    """Watches over one level."""

    def __init__(
        self,
        load: Load,
        page: Page,
        *,
        usual_s: float = 0.0,
        ignore_eos: bool = False,
        fresh_connections: bool = False,
    ) -> None:
        """`usual_s` is what a request took before; `ignore_eos` and `fresh_connections` tell how it is asked."""
        self._load = load
        self._page = page
        self._usual_ns = int(usual_s * 1e9)
        self._ignore_eos = ignore_eos
        self._fresh = fresh_connections
        self._begun_ns = monotonic_ns()
        self._hopeless_ns = 0
        self._turned = 0
        self._turned_ns = self._begun_ns
        self._done_then = 0

    def hopeless(self, beats: Sequence[Beat]) -> str | None:
        """Every request failed: those that had failed first, and all that were in flight meanwhile.

        Refusals end sooner than answers do, so a server with a limit says no many times before its first yes.
        """
        page = self._page
        enough = max(HOPELESS, self._load.value if isinstance(self._load, Concurrency) else 0)
        if page.completed or page.failed < enough:
            return None
        self._hopeless_ns = self._hopeless_ns or monotonic_ns()
        if not answered(beats, self._hopeless_ns):
            return None
        kind = page.kinds.most_common(1)[0][0]
        hint = self._hint(kind) if self._ignore_eos and may_be_ignore_eos(kind) else ""
        hint = "; allow more with --timeout" if kind == "timeout" else hint
        return f"all of the first {page.failed} requests at {self._load} failed ({kind}): {page.said[kind]}{hint}"

    def gone(self, beats: Sequence[Beat], now_ns: int | None = None) -> str | None:
        """It answered, and answers no more: connections are refused, or nothing comes at all, or it says to come back
        much later."""
        page, now = self._page, monotonic_ns() if now_ns is None else now_ns
        if self._sent_away:
            kind = page.away_kind
            text = f"the endpoint turned each of the last {page.sent_away} requests away ({kind})"
            return f"{text} and says to come back in {page.away_s:,.0f} s: {page.said[kind]}"
        if not page.completed:
            return None
        silent_ns, failures = now - page.reached_ns, sum(page.in_a_row.values())
        kind, count = page.in_a_row.most_common(1)[0] if failures else ("", 0)
        if silent_ns > GONE_NS and count >= HOPELESS and kind in _UNREACHED:
            return f"the endpoint is gone: each of the last {failures} requests failed ({kind}), for {_s(silent_ns)}"
        in_flight = sum(b.in_flight for b in beats)
        slowest_ns = max(self._usual_ns, page.slowest_ns)
        # After a pause of the arrivals nobody is silent who has not been asked for so long.
        asked_ns = min((b.oldest_ns for b in beats if b.oldest_ns != ABSENT), default=now)
        if now - max(page.last_ns, asked_ns) > max(SILENT_NS, 10 * slowest_ns) and in_flight:
            longest = f"none took longer than {slowest_ns / 1e9:.1f} s before"
            return f"the endpoint went silent: {in_flight} requests wait, none has ended for {_s(silent_ns)}, {longest}"
        return None

    @property
    def unreachable(self) -> bool:
        """Whether no connection to the endpoint has come about since it last answered, or it wants none for long."""
        return self._sent_away or (bool(self._page.in_a_row) and self._page.in_a_row.keys() <= _UNREACHED)

    @property
    def _sent_away(self) -> bool:
        """Whether it turned each stream away, or as many requests of an open loop as settle it, and for long."""
        return self._page.sent_away >= (self._load.value if isinstance(self._load, Concurrency) else HOPELESS)

    def one_at_a_time(self, beats: Sequence[Beat], now_ns: int | None = None) -> str | None:
        """Some streams never get an answer while others get one after the other: closed loop, in the ramp."""
        if not isinstance(self._load, Concurrency):
            return None
        page, now = self._page, monotonic_ns() if now_ns is None else now_ns
        turned = sum(b.turned for b in beats)
        if turned != self._turned:
            self._turned, self._turned_ns, self._done_then = turned, now, page.completed
        since = page.completed - self._done_then
        if not turned or turned >= self._load.value or since < max(6, 2 * turned):
            return None
        if now - self._turned_ns < max(STUCK_NS, 10 * max(self._usual_ns, page.slowest_ns)):
            return None
        waiting = self._load.value - turned
        text = f"{waiting} of {self._load.value} streams get no answer while the others had {page.completed}"
        advice = "" if self._fresh else "; if the server looks at one connection at a time: --fresh-connections"
        return f"{text}: connections beyond the first {turned} are not served{advice}"

    def afterthought(self, reconnects: int = 0) -> str | None:
        """What to say of a level that came to its end: of its failures, and of kept connections that were closed."""
        page = self._page
        total = page.completed + page.failed
        kinds = [kind for kind, count in page.kinds.items() if may_be_ignore_eos(kind) and count >= 2]
        if not self._ignore_eos or not kinds:
            return _closed(reconnects, total)
        worst = max(kinds, key=lambda kind: page.kinds[kind])
        return f"{page.kinds[worst]} of {total} requests failed ({worst}): {page.said[worst]}{self._hint(worst)}"

    def _hint(self, kind: str) -> str:
        """That ignore_eos may be the cause, unless what was said names another."""
        return "" if _OTHER_CAUSE.search(self._page.said[kind]) else f"; {IGNORE_EOS}"


def away_share(trace: Trace, window: Window) -> float:
    """For what share of a window the endpoint was away: connections to it failed, and no request was with it.

    What refuses some under load answers others meanwhile, and is not away.
    """
    unreached = np.isin(trace.error, sorted(_UNREACHED))
    failed_ns = np.sort(trace.ended_ns[unreached])
    there = ~unreached & (trace.sent_ns != ABSENT)
    order = np.argsort(trace.sent_ns[there])
    sent_ns, ended_ns = trace.sent_ns[there][order], np.maximum.accumulate(trace.ended_ns[there][order])
    start, end = np.int64(window.start_ns), np.int64(window.end_ns)
    from_ns = np.clip(np.append(start, ended_ns), start, end)
    to_ns = np.clip(np.append(sent_ns, end), start, end)
    away = (to_ns > from_ns) & (np.searchsorted(failed_ns, to_ns) > np.searchsorted(failed_ns, from_ns))
    return float((to_ns - from_ns)[away].sum() / max(1, end - start))


def stall_limit_s(gap_ns: int, slowest_ns: int) -> float:
    """How long an answer may be silent once it has begun: 20 times the longest gap seen so far, twice the longest
    answer, and never less than what a busy server may need."""
    return max(LEAST_STALL_S, 20 * gap_ns / 1e9, 2 * slowest_ns / 1e9)


def unanswered_s(stall_s: float, slowest_ns: int) -> float:
    """How long a request may wait for its answer to begin: ten times the longest that any took so far. In a queue that
    grows the longest grows with it; a request that is lost does not end, and would hold its level up."""
    return max(LEAST_UNANSWERED_S, stall_s, 10 * slowest_ns / 1e9)


def _closed(reconnects: int, total: int) -> str | None:
    if reconnects <= 0.01 * total:
        return None
    what = f"the server closed {reconnects} kept connections in {total} requests"
    return f"{what}; those cut off unanswered were sent again, which is part of their TTFT"


def _s(ns: int) -> str:
    return f"{ns / 1e9:.0f} s"
