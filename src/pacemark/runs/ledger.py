"""What has come back so far: the trace of each level as it grows.

Columns of what is on a page already are kept, and only what came since the last look is put into columns and sorted
in: a look costs a copy, not an object for each request. Requests themselves are let go of.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from time import monotonic_ns
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from pacemark.endpoint.watch import watch_from
from pacemark.figures.health import Health, health_from
from pacemark.instrument.commands import PROBE_LEVEL
from pacemark.runs.folder import RunFolder
from pacemark.trace import Beat, Exchange, Int64, Sight, Trace, Watch, trace_of

DETAIL_LETTERS = 300
"""How much of what a server says of a failure is kept."""


class Page:
    """One level: its requests as columns, its pulses, and what is counted along the way."""

    def __init__(self, *, open_loop: bool = False, beats: Sequence[Beat] = ()) -> None:
        """`beats`: where the workers stand as the level begins."""
        self.beats = list(beats)
        self.completed = 0
        self.failed = 0
        self.kinds: Counter[str] = Counter()
        self.said: dict[str, str] = {}
        """Per kind of failure: what the server said with the first."""
        self.in_a_row: Counter[str] = Counter()
        """Failures since the last answer of any status, by kind."""
        self.last_ns = 0
        """When the last request came in, success or not."""
        self.reached_ns = 0
        """When the last answer of any status came in."""
        self.slowest_ns = 0
        """Longest time of a success from when it was due."""
        self.gap_ns = 0
        """Longest silence inside an answer."""
        self._new: list[Exchange] = []
        self._trace = trace_of([], open_loop)
        self._lags = np.zeros(0, np.int32)
        self._send_ns = np.zeros(0, np.int64)
        self._coalesced = 0
        self._refusals: list[str] = []

    def add(self, exchange: Exchange) -> None:
        """Take in a request that ended."""
        self._new.append(exchange)
        self.last_ns = monotonic_ns()
        if exchange.status > 0:
            self.reached_ns = self.last_ns
            self.in_a_row.clear()
        else:
            self.in_a_row[exchange.error] += 1
        if exchange.error:
            self.failed += 1
            self.kinds[exchange.error] += 1
            self.said.setdefault(exchange.error, exchange.detail)
            return
        self.completed += 1
        self.slowest_ns = max(self.slowest_ns, exchange.ended_ns - exchange.scheduled_ns)
        if len(exchange.hi_ns) > 1:
            self.gap_ns = max(self.gap_ns, int((exchange.hi_ns[1:] - exchange.hi_ns[:-1]).max()))

    def trace(self) -> Trace:
        """The columns of all that came so far, in the order sent."""
        self._fold()
        return self._trace

    def health(self, died: Sequence[str] = ()) -> Health:
        """How well the client kept up so far."""
        self._fold()
        return health_from(self._lags, self._send_ns, self._coalesced, self.beats, died)

    def watch(self, sights: Sequence[Sight]) -> Watch:
        """What is known of the endpoint, with the limits that its refusals named."""
        self._fold()
        return watch_from(self._refusals, sights)

    def _fold(self) -> None:
        """Put what is new into columns."""
        if not self._new:
            return
        new, self._new = self._new, []
        self._trace = merged(self._trace, trace_of(new, self._trace.open_loop))
        self._lags = np.concatenate([self._lags, *(x.lag_ns for x in new)])
        self._send_ns = np.concatenate([self._send_ns, np.asarray([x.send_ns for x in new], np.int64)])
        self._coalesced += sum(x.coalesced_reads for x in new)
        self._refusals += [x.detail for x in new if x.error == "http_429"]


class Ledger:
    """The pages of a run. What is written to it is redacted, and goes to the run folder too if there is one."""

    def __init__(self, redacted: Callable[[str], str]) -> None:
        """`redacted` masks the secrets in a text."""
        self._redacted = redacted
        self._pages: dict[int, Page] = {}
        self._level = PROBE_LEVEL
        self.folder: RunFolder | None = None

    def open(self, level: int, *, open_loop: bool = False, beats: Sequence[Beat] = ()) -> Page:
        """Begin a level's page; later beats go there."""
        self._level = level
        self._pages[level] = Page(open_loop=open_loop, beats=beats)
        return self._pages[level]

    def close(self, level: int) -> None:
        """End a level's page: what ends later is counted by itself, see `late`."""
        self._pages[level] = Page()

    def late(self, level: int) -> Page:
        """What ended after the page of its level was closed."""
        return self._pages.get(level) or Page()

    def add(self, exchange: Exchange) -> Exchange:
        """Take in a request that ended; gives it as it was written down."""
        if exchange.error:
            exchange = msgspec.structs.replace(exchange, detail=self._cut(exchange.detail))
        self._pages.setdefault(exchange.level, Page()).add(exchange)
        if self.folder is not None:
            self.folder.add(exchange)
        return exchange

    def add_beat(self, beat: Beat) -> None:
        """Take in a pulse of a worker."""
        self._pages.setdefault(self._level, Page()).beats.append(beat)
        if self.folder is not None:
            self.folder.add_beat(beat)

    def _cut(self, detail: str) -> str:
        # Redacted before it is cut: half a key would not be recognised.
        detail = self._redacted(detail)
        return f"{detail[:DETAIL_LETTERS]} ..." if len(detail) > DETAIL_LETTERS else detail


_PER_REQUEST = (
    "scheduled_ns sent_ns headers_ns first_event_ns answer_ns ended_ns stream error asked_tokens input_tokens "
    "cached_tokens output_tokens tokens_from_usage"
).split()
_PER_EVENT = ("hi_ns", "lo_ns", "tokens")


def merged(a: Trace, b: Trace) -> Trace:
    """The requests of both in the order sent; of those sent at once, `a`'s first."""
    if not len(a) or not len(b):
        return b if len(b) else a
    # Only the tail of `a` can be out of order, so only the tail is moved about.
    kept = int(np.searchsorted(a.sent_ns, b.sent_ns[0], side="right"))
    sent_ns = np.concatenate([a.sent_ns[kept:], b.sent_ns])
    order = np.argsort(sent_ns, kind="stable")
    first = int(a.offsets[kept])
    counts = np.concatenate([np.diff(a.offsets[kept:]), np.diff(b.offsets)])
    events = _events(counts, order)
    columns: dict[str, Any] = {n: _joined(getattr(a, n), getattr(b, n), kept, order) for n in _PER_REQUEST}
    columns |= {n: _joined(getattr(a, n), getattr(b, n), first, events) for n in _PER_EVENT}
    columns["offsets"] = np.concatenate([a.offsets[: kept + 1], first + np.cumsum(counts[order])])
    return Trace(**columns, open_loop=a.open_loop)


def _joined(a: NDArray[Any], b: NDArray[Any], kept: int, order: Int64) -> NDArray[Any]:
    return np.concatenate([a[:kept], np.concatenate([a[kept:], b])[order]])


def _events(counts: Int64, order: Int64) -> Int64:
    """Where the events come from when the requests that hold `counts` of them are put in `order`."""
    starts = np.cumsum(counts) - counts
    moved = counts[order]
    return np.repeat(starts[order] - (np.cumsum(moved) - moved), moved) + np.arange(int(counts.sum()))
