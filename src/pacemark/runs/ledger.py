"""What has come back so far: the trace of each level as it grows.

Columns of what is on a page already are kept, and only what came since the last look is put into columns and sorted
in: a look costs a copy, not an object for each request. Requests themselves are let go of.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from time import monotonic_ns

import msgspec

from pacemark.endpoint.scraping import Scraper
from pacemark.endpoint.watch import watch_from
from pacemark.figures.health import Health, health_of
from pacemark.figures.level import LevelResult
from pacemark.instrument.apart import kept_apart
from pacemark.instrument.commands import PROBE_LEVEL, Batch
from pacemark.nodes import NodePart
from pacemark.pace import Load
from pacemark.runs.folder import RunFolder
from pacemark.runs.joining import Joining
from pacemark.trace import ABSENT, Beat, Exchange, Sight, Trace, Watch, trace_of

METRICS_S = 5.0
"""Longest wait for the server's own metrics before the first request and after the last."""
_NO_ECHO = (ABSENT, 0, 401, 403, 404, 429, 502, 503, 504)
"""Refusals that are not about what was asked."""
_UNSAID = "what the server said is not kept, for it may hold the prompt"
_AT_ONCE = 2048
"""Requests that are put into columns together: as objects they take several times the room."""
LONG_S = 600.0
"""A server that says to come back later than that is not waited for."""
Fetch = Callable[[Path, int], None]
"""See `Fleet.fetch`."""
DETAIL_LETTERS = 300
"""How much of what a server says of a failure is kept."""


class Page:
    """One level: its requests as columns, its pulses, and what is counted along the way."""

    def __init__(
        self, *, open_loop: bool = False, beats: Sequence[Beat] = (), stored: Callable[[], Trace] | None = None
    ) -> None:
        """`beats`: where the workers stand as the level begins; `stored` reads the requests from where they are kept,
        if their events are kept apart: what is added then has them in outline."""
        self.beats = list(beats)
        self.completed = 0
        self.failed = 0
        self.kinds: Counter[str] = Counter()
        self.said: dict[str, str] = {}
        """Per kind of failure: what the server said with the first."""
        self.in_a_row: Counter[str] = Counter()
        """Failures since the last answer of any status, by kind."""
        self.sent_away = 0
        """Refusals which say to come back after `LONG_S` only, and after which no request came to anything."""
        self.away_since_ns = 0
        self.away_kind, self.away_s = "", 0.0
        """What the last of them was, and said."""
        self.last_ns = 0
        """When the last request came in, success or not."""
        self.reached_ns = 0
        """When the last answer of any status came in."""
        self.slowest_ns = 0
        """Longest time of a success from when it was due."""
        self.gap_ns = 0
        """Longest silence inside an answer."""
        self.counted = 0
        """Requests that began after `count_from` and have ended."""
        self._from_ns: int | None = None
        self._new: list[Exchange] = []
        self._parts: list[Trace | Joining] = [trace_of([], open_loop)]
        self._open_loop = open_loop
        self._stored = stored
        self._read = (0, trace_of([], open_loop))
        """What was read last, and of how many requests."""

    def count_from(self, start_ns: int) -> None:
        """Count requests from now on, whatever becomes of them: those that begin after `start_ns`."""
        self._from_ns, self.counted = start_ns, 0

    def add(self, exchange: Exchange) -> None:
        """Take in a request that ended."""
        if self._stored is None:
            self._new.append(exchange)
        if len(self._new) >= _AT_ONCE:
            self._put_into_columns()
        if self._from_ns is not None:
            self.counted += (exchange.scheduled_ns if self._open_loop else exchange.sent_ns) > self._from_ns
        self.last_ns = monotonic_ns()
        if exchange.status > 0:
            self.reached_ns = self.last_ns
            self.in_a_row.clear()
        else:
            self.in_a_row[exchange.error] += 1
        if exchange.error and exchange.retry_after_s > LONG_S:
            self.away_since_ns = self.away_since_ns if self.sent_away else exchange.ended_ns
            self.sent_away, self.away_s, self.away_kind = self.sent_away + 1, exchange.retry_after_s, exchange.error
        elif not exchange.error and exchange.sent_ns > self.away_since_ns:  # it was not the last that it took
            self.sent_away = 0
        if exchange.error:
            self.failed += 1
            self.kinds[exchange.error] += 1
            self.said.setdefault(exchange.error, exchange.detail)
            return
        self.completed += 1
        self.slowest_ns = max(self.slowest_ns, exchange.ended_ns - exchange.scheduled_ns)
        self.gap_ns = max(self.gap_ns, exchange.gap_ns)

    def trace(self) -> Trace:
        """The columns of all that came so far, in the order sent. Only what is new is put into columns."""
        if self._stored is not None:
            count = self.completed + self.failed
            if self._read[0] != count:
                self._read = (count, self._stored())
            return self._read[1]
        self._put_into_columns()
        if len(self._parts) == 1 and isinstance(whole := self._parts[0], Trace):
            return whole
        joining = Joining(self._parts)
        self._parts = [joining]  # at one stroke: what interrupts this must find each request once
        self._parts = [whole := joining.trace()]
        return whole

    def _put_into_columns(self) -> None:
        if self._new:
            self._parts.append(Joining([trace_of(self._new, self._open_loop)]).trace())
            self._new = []

    def health(self, died: Sequence[str] = (), parts: Sequence[NodePart] = ()) -> Health:
        """How well the client kept up so far; `parts` are those of several machines."""
        return health_of(self.trace(), self.beats, died, parts)

    def watch(self, sights: Sequence[Sight]) -> Watch:
        """What is known of the endpoint, with the limits that its refusals named."""
        return watch_from(self.trace().refusals, sights)


class Ledger:
    """The pages of a run. What is written to it is redacted, and goes to the run folder too if there is one."""

    def __init__(self, redacted: Callable[[str], str], *, own_prompts: bool = False) -> None:
        """`redacted` masks the secrets in a text; `own_prompts`: prompts are a user's, which nothing must keep."""
        self.scraper: Scraper | None = None
        """Reads what the server exports of itself."""
        self._redacted, self._own_prompts = redacted, own_prompts
        self._pages: defaultdict[int, Page] = defaultdict(Page)
        self._level: int | None = PROBE_LEVEL
        self.folder: RunFolder | None = None
        self.sights: list[Sight] = []
        self.requests = 0
        """Of all levels, and whether or not their page is still open."""
        self.tokens = 0
        """Input and output of these, as far as they are known."""

    def open(
        self,
        level: int,
        *,
        open_loop: bool = False,
        beats: Sequence[Beat] = (),
        fetch: Fetch | None = None,
    ) -> Page:
        """Begin a level's page; later beats go there. `fetch`: the level's events are kept apart, and it brings them to
        the run folder."""
        self._level = level

        def stored() -> Trace:
            assert fetch is not None
            assert self.folder is not None
            self.fetch(fetch)
            return self.folder.trace(level, open_loop=open_loop)

        self._pages[level] = Page(open_loop=open_loop, beats=beats, stored=stored if fetch else None)
        return self._pages[level]

    def part_for(self, load: Load, latency_s: float) -> int:
        """The first part file of a level whose events are kept apart; ABSENT where they are not."""
        return self.folder.first_part if self.folder is not None and kept_apart(load, latency_s) else ABSENT

    def fetch(self, fetch: Fetch) -> None:
        """Have what is kept apart brought to the run folder."""
        if self.folder is not None:
            fetch(self.folder.path, self.folder.first_part)

    def rest(self) -> None:
        """Beats that come before the next page is opened are of no level, and are let go of."""
        self._level = None

    def close(self, level: int) -> None:
        """End a level's page: what ends later is counted by itself, see `late`."""
        self._pages[level] = Page()

    def late(self, level: int) -> Page:
        """What ended after the page of its level was closed."""
        return self._pages.get(level) or Page()

    def with_late(self, level: int, result: LevelResult) -> LevelResult:
        """Count the requests that ended after their level did; they are in no figure but the totals."""
        late, before = self.late(level), result.level.requests
        requests = msgspec.structs.replace(
            before, completed=before.completed + late.completed, failed=before.failed + late.failed
        )
        return replace(result, level=msgspec.structs.replace(result.level, requests=requests))

    def take(self, batch: Batch) -> list[Exchange]:
        """Take in what a reader sent; gives its requests as they were written down."""
        exchanges = [self.add(exchange) for exchange in batch.exchanges]
        self.add_beat(batch.beat)
        if self.folder is not None and batch.bodies:
            self.folder.add_bodies(batch.bodies)
        return exchanges

    def add(self, exchange: Exchange) -> Exchange:
        """Take in a request that ended; gives it as it was written down."""
        if exchange.error:
            echoes = self._own_prompts and exchange.status not in _NO_ECHO
            detail = _UNSAID if echoes and exchange.detail else self._cut(exchange.detail)
            exchange = msgspec.structs.replace(exchange, detail=detail)
        self._pages[exchange.level].add(exchange)
        if exchange.level != PROBE_LEVEL:
            self.requests += 1
            self.tokens += max(0, exchange.input_tokens) + max(0, exchange.output_tokens)
        if self.folder is not None:
            self.folder.add(exchange)
        return exchange

    def add_beat(self, beat: Beat) -> None:
        """Take in a pulse of a worker; one that was on its way when the page was turned is of no account."""
        if beat.level != self._level:
            return
        self._pages[self._level].beats.append(beat)
        if self.folder is not None:
            self.folder.add_beat(beat)

    def add_sight(self, sight: Sight) -> None:
        """Take in a look at the endpoint."""
        state, problem = self._redacted(sight.state), self._redacted(sight.problem)
        self.sights.append(msgspec.structs.replace(sight, state=state, problem=problem))
        if self.folder is not None:
            self.folder.add_sight(self.sights[-1])

    def read_metrics(self, *, still: bool = False) -> None:
        """Have the server's metrics read now; `still`: nothing is in flight, so that they are waited for."""
        if self.scraper is not None:
            self.scraper.look(METRICS_S if still else 0.0)
            self.add_scrapes()

    def add_scrapes(self) -> None:
        """Take in what was read of the server's metrics since."""
        for scrape in self.scraper.news() if self.scraper is not None else ():
            if self.folder is not None:
                self.folder.add_scrape(PROBE_LEVEL if self._level is None else self._level, scrape)

    def _cut(self, detail: str) -> str:
        # Redacted before it is cut: half a key would not be recognised.
        detail = self._redacted(detail)
        return f"{detail[:DETAIL_LETTERS]} ..." if len(detail) > DETAIL_LETTERS else detail
