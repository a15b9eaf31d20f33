"""Measures levels over the network: the coordinating side of a run.

A level has four parts. The load is raised; the ramp lasts until every stream has finished one request; the
window lasts as long as was asked; then the load is held on until every request that began in the window has
ended, so that none is cut off and none ends in the calm of a drain. The next level starts from there.
"""

from __future__ import annotations

import dataclasses
import pickle
from collections.abc import Callable, Sequence
from time import monotonic_ns

import msgspec

from pacemark.dialects.dialect import DIALECTS
from pacemark.endpoint.contact import Found, Moved, Way, first_contact, too_late
from pacemark.endpoint.scraping import Scraper
from pacemark.endpoint.target import Target, redirected, resolve
from pacemark.endpoint.watch import Source, Watcher
from pacemark.errors import BadInput, RunFailed, Unreachable
from pacemark.figures.level import Enough, LevelResult, precise, sum_up
from pacemark.instrument.commands import (
    PROBE_LEVEL,
    Asking,
    Batch,
    Begin,
    Hush,
    Patience,
    Probe,
    Reading,
    Setup,
)
from pacemark.instrument.fleet import Hire, hired_here
from pacemark.nodes import NodeFacts
from pacemark.pace import Concurrency, Load, Rate
from pacemark.reporting.progress import Phase, Status
from pacemark.runs.folder import RunFolder
from pacemark.runs.ledger import Ledger
from pacemark.runs.looks import Begun, RampEnd, WindowEnd, drawing, first_due_ns, ran_out_ns
from pacemark.runs.priming import primed, refuse_conversation
from pacemark.runs.recording import load_of
from pacemark.runs.status import Teller
from pacemark.runs.stopping import StopRules
from pacemark.runs.trouble import Doubts, answered, stall_limit_s, unanswered_s
from pacemark.scenario import Settings, Workload
from pacemark.summary import Asked, EndedBy
from pacemark.trace import ABSENT, Exchange, Sight, Window
from pacemark.workload.media import Media
from pacemark.workload.row import Rows
from pacemark.workload.tokenizer import Tokenizer

PREPARE_S = 120.0
"""Longest wait for an answer before the first level, unless the user is ready to wait for longer."""
SAY_AFTER_S = 2.0
"""An answer before the first level that takes longer is waited for in words."""
HOLD_S = 5.0
"""Least time for which an open loop goes on after its window."""


class Bench:
    """A target ready to be measured. A context manager: leaving it ends the workers.

    Raises BadInput where the target cannot be used as asked, RunFailed where it fails under way.
    """

    def __init__(
        self,
        target: Target,
        workload: Workload,
        settings: Settings,
        count_tokens: Tokenizer | None = None,
        observe: Callable[[Status], None] = lambda status: None,
        source: Source | None = None,
        rows: Rows | None = None,
        hire: Hire = hired_here,
    ) -> None:
        """`source` tells of the endpoint while the run goes on, and renews the headers that open it. `rows` are what is
        asked; without them it is made up. `hire` gives the workers."""
        self.target = target
        self.workload = workload
        self.settings = settings
        self._count_tokens = count_tokens
        self.observe = observe
        self._dialect = DIALECTS[target.api]
        self._head = target.head(self._path)
        self._source, self._rows, self._media = source, rows, Media(workload)
        self._watcher = Watcher(source, target.headers) if source is not None else None
        self._ledger = Ledger(lambda text: self.target.redacted(text), own_prompts=rows is not None)
        self.rules = StopRules(self._ledger, settings.max_error_share)
        self.teller = Teller(settings.duration_s if settings.timed else None)
        self.known_prompts: float | None = None
        """See `pacemark.figures.evidence.Evidence`."""
        self._level = PROBE_LEVEL
        self._asked: Asked | None = None
        self._latency_s = 1.0
        self._gap_ns = self._slowest_ns = 0
        self._stall_s = 0.0
        self.results: list[LevelResult] = []
        self._unfinished: dict[int, Callable[[], LevelResult]] = {}
        self._prepared = False
        self._probed: list[Exchange] = []
        self._known: frozenset[int] = frozenset()
        setup = Setup(
            worker=0,
            workers=settings.workers,
            addresses=resolve(target),
            timeout_s=settings.timeout_s,
            seed=workload.drawn_by,
            fresh_connections=settings.fresh_connections,
            max_in_flight=settings.max_in_flight,
            keep_bodies=settings.keep_bodies,
        )
        # Last, for whatever was refused above would leave the processes behind.
        tokenizer = count_tokens.path if count_tokens is not None else ""
        self._workers = hire(target, setup, Reading(target.api, tokenizer, bool(workload.response_format)))

    def __enter__(self) -> Bench:
        if self._watcher is not None:
            self._watcher.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._watcher is not None:
            self._watcher.stop()
        self._workers.close()

    @property
    def nodes(self) -> list[NodeFacts]:
        """See `Fleet`."""
        return self._workers.nodes

    @property
    def folder(self) -> RunFolder | None:
        """Where all that comes back is kept; None for nowhere."""
        return self._ledger.folder

    @folder.setter
    def folder(self, folder: RunFolder | None) -> None:
        self._ledger.folder = folder

    def go_on(self, results: Sequence[LevelResult], last_number: int, known_prompts: float | None) -> None:
        """Take over from a run that was cut off: what it measured, the last number it gave to a level, and what it had
        found out of prompts before it sent any."""
        self.results, self._level, self.known_prompts = list(results), last_number, known_prompts
        self.rules.count(results)
        self.teller.ahead = last_number + 1 - len(results)
        self._known = self._known.union(*(result.trace.origins() for result in results))

    # --- before the first level

    @property
    def _prepare_s(self) -> float:
        return min(self.settings.timeout_s, max(PREPARE_S, self.settings.wait_s))

    def prepare(self) -> None:
        """Learn what the server accepts, and how many words make a prompt of the wanted length."""
        try:
            found = self._first_contact()
        except Moved as moved:
            self._follow(moved.location)
            found = self._first_contact()
        self.options, self.prompts, self._template = found.options, found.prompts, found.template
        self._least_tokens = found.least_tokens
        self.first, self.connect_ns, self.known_prompts = found.first, found.first.connect_ns, found.known
        self._slowest_ns = found.first.ended_ns - found.first.sent_ns
        self._latency_s = self._slowest_ns / 1e9
        self._gap_ns = found.first.gap_ns
        if 5 * self._latency_s > self.settings.timeout_s:
            took, limit = f"{self._latency_s:.1f} s", f"{self.settings.timeout_s:g} s"
            self.tell(f"one request alone took {took}; under load many may not end within the {limit} of --timeout")
        refuse_conversation(self.workload, self._template, self.target.api)
        self._prepared = True
        self._say_patience()
        told_ns = monotonic_ns()
        self._say_how()
        while drawing(self.workload, self._workers.beats, told_ns) and not self._workers.died:
            self.listen()
        if self.workload.prime:
            self._known = primed(self.workload, self.prompts, self._template, self._ask, self.tell)

    def read_metrics(self, scraper: Scraper | None) -> None:
        """Have the server's own metrics read from now on, for which nothing must be in flight; None: read none."""
        self._ledger.scraper = scraper
        self._ledger.read_metrics(still=True)

    def _first_contact(self) -> Found:
        advice = self._source.advice if self._source is not None else lambda error, detail: None
        settings = self.settings
        limits = (settings.stream, settings.ignore_eos, settings.wait_s, self._prepare_s)
        way = Way(self.target, self._ask, *limits, self.tell, self._pause, advice)
        return first_contact(way, self.workload, self._count_tokens, settings.seed_given)

    def _follow(self, location: str) -> None:
        """Ask where the server said, once. Raises BadInput where that is another host: the key is not for it."""
        new = redirected(self.target, self._path, location)
        if new is None or (new.host, new.port, new.tls) != (self.target.host, self.target.port, self.target.tls):
            raise BadInput(f"{self.target.url} moved to {self.target.redacted(location)}; give that URL instead")
        self.tell(f"{self.target.url} moved to {location}, and is asked there")
        self.target = new
        self._head = new.head(self._path)

    @property
    def _path(self) -> str:
        return self.target.path or self._dialect.place(self.target.model, self.settings.stream)

    def ask_for(self, asked: Asked) -> None:
        """Ask for other lengths from the next request on; words make tokens as they were found to."""
        self._asked = asked
        self.workload = msgspec.structs.replace(self.workload, **msgspec.to_builtins(asked))
        words = self.prompts.words_for(asked.input_tokens)
        self.prompts = msgspec.structs.replace(self.prompts, words=words)
        self._say_how()

    def _say_how(self) -> None:
        """Tell the workers how to ask from now on."""
        least = min(self._least_tokens, self.workload.output.typical)
        api, rows = self.target.api, pickle.dumps(self._rows)
        self._workers.send(Asking(self._head, self._template, self.workload, self.prompts, least, api, rows))

    def _say_patience(self) -> None:
        """Tell the workers how long a server may be silent, if what has been seen has grown by much since."""
        stall_s = self.settings.stall_timeout_s or stall_limit_s(self._gap_ns, self._slowest_ns)
        if not self._stall_s or stall_s > 1.5 * self._stall_s:
            self._stall_s = stall_s
            self._workers.send(Patience(stall_s, unanswered_s(stall_s, self._slowest_ns)))

    def _ask(self, body: bytes) -> Exchange:
        """Send one request outside any level, and tell the user of a long wait for its answer."""
        begun_ns, said_ns = monotonic_ns(), 0
        self._probed.clear()
        self._workers.send(Probe([self._media.alone(self._head, body)]))
        while not self._probed:
            self.listen()
            if self._workers.died:
                raise RunFailed("; ".join(self._workers.died))
            waited_s = (monotonic_ns() - begun_ns) / 1e9
            if waited_s > self._prepare_s + 0.5:
                raise BadInput(self.target.redacted(too_late(self.target.url, self._prepare_s)))
            if waited_s > SAY_AFTER_S and monotonic_ns() - said_ns > 10_000_000_000:
                said_ns = monotonic_ns()
                limit = f"for {self._prepare_s:.0f} s at most"
                self.tell(f"waiting for {self.target.url} to answer a first request, {waited_s:.0f} s so far, {limit}")
        return self._probed[0]

    def tell(self, line: str) -> None:
        """Tell the user something, once."""
        self.observe(self.teller.note(self._level, self.target.redacted(line)))

    def _pause(self, seconds: float) -> None:
        end_ns = monotonic_ns() + int(seconds * 1e9)
        while monotonic_ns() < end_ns:
            self.listen()

    # --- levels

    def measure(self, load: Load, enough: Enough | None = None) -> LevelResult:
        """Run one level to its end: for `duration_s` or so many `requests`, or until it is `enough` and for
        `max_duration_s` at most.

        Raises RunFailed where every request fails or a worker dies; the level's part is then kept, as invalid.
        """
        if enough is None and self.settings.precision is not None:
            enough = precise(self.settings.precision, self.settings.least_s)
        ended_by: EndedBy = "interrupted"
        load = load_of(load, self._rows, self.workload)
        if isinstance(load, Rate) and load.speed:
            enough = None  # a part of a trace is another trace
        level = self._begin(load)
        start_ns = end_ns = 0
        try:
            self._pump_until(lambda: level.ramp.over(level.page, self._workers.beats), level, "ramp")
            self._ledger.read_metrics()
            spent = (
                lambda: self.rules.soon(level.page, load),
                lambda: ran_out_ns(level.number, load, self._workers.beats),
            )
            end = WindowEnd(self.settings, level.page, enough, *spent, level.ramp.window_from_ns)
            start_ns, end_ns = end.start_ns, end.end_ns
            if self.folder is not None:
                self.folder.set_window(level.number, Window(start_ns, end_ns))
            self._pump_until(end.over, level, "measuring", end.expected_ns)
            end_ns = min(end_ns, monotonic_ns())
            self._ledger.read_metrics()
            self._hold(level, end_ns, to_the_last=end.by == "rows")
            ended_by = end.by
            if ended_by == "allowance":
                self._workers.send(Hush())  # summing up takes its time
        finally:
            # Whatever ended the level, what was measured of it is kept.
            window = Window(start_ns, min(end_ns, monotonic_ns()) if start_ns else 0)
            result = self._conclude(level, window, ended_by)
        if line := level.doubts.afterthought(result.health.reconnects):
            self.observe(self.teller.note(level.number, line, load))
        if self.teller.levels != 1:  # one level alone is told as a whole in a moment
            self.observe(self.teller.ended(level.number, msgspec.structs.replace(result.level, asked=self._asked)))
        self.rules.ended(result)
        return result

    def _begin(self, load: Load) -> Begun:
        """Raise the load."""
        self.listen(0.0)  # what came while the level before was summed up counts
        most = self.rules.begin(load, self._workers.beats)
        self._level += 1
        begun_ns = monotonic_ns()
        part = self._ledger.part_for(load, self._latency_s) if self._workers.nodes else ABSENT
        fetch, beats = None if part == ABSENT else self._workers.fetch, self._workers.beats
        page = self._ledger.open(self._level, open_loop=isinstance(load, Rate), beats=beats, fetch=fetch)
        if self.folder is not None:
            self.folder.begin_level(self._level, load, begun_ns)
        spread_s = min(self._latency_s, max(self.settings.duration_s, 1.0))
        if isinstance(load, Concurrency):
            # Half of it only: with it go the first answers, which are of uneven length (`LoadGenerator._stream`).
            spread_s /= 2
        start_ns = first_due_ns(load, spread_s, begun_ns + self._workers.lead_ns)
        self._workers.send(Begin(self._level, load, start_ns, int(spread_s * 1e9), most, part))
        asked = {"ignore_eos": self.options.ignore_eos, "fresh_connections": self.settings.fresh_connections}
        doubts = Doubts(load, page, usual_s=self._latency_s, **asked)
        most_s = max(2 * self.settings.duration_s, 5 * self._latency_s)
        return Begun(self._level, load, page, doubts, RampEnd(self._level, load, begun_ns, spread_s, most_s))

    def _hold(self, level: Begun, end_ns: int, *, to_the_last: bool) -> None:
        """Keep the load up until all that began by `end_ns` has ended; `to_the_last`: and until all is sent.

        An open loop is not kept up for ever: what is still out after several times the longest latency is stuck, and
        more arrivals would only pile up behind it."""
        longest_ns = max(int(HOLD_S * 1e9), 3 * level.page.slowest_ns)
        sending = isinstance(level.load, Rate)

        def done() -> bool:
            nonlocal sending
            if sending and monotonic_ns() > end_ns + longest_ns:
                sending = False
                self._workers.send(Hush())
            beats = self._workers.beats
            return answered(beats, end_ns) and (not to_the_last or all(beat.idle for beat in beats))

        self._pump_until(done, level, "finishing")

    def rest(self, seconds: float = 0.0) -> None:
        """Send nothing until the next level, `seconds` at the least; what is in flight ends, unless that takes long."""
        begun_ns = monotonic_ns()
        self._workers.send(Hush())
        self._pause(seconds)
        while monotonic_ns() < begun_ns + int(max(HOLD_S, 3 * self._latency_s, seconds) * 1e9):
            self.listen()
            if all(b.now_ns > begun_ns and not b.in_flight for b in self._workers.beats):
                break
        self._ledger.rest()

    def finish(self, drain: bool = True) -> list[LevelResult]:
        """Let requests in flight end, so that what the server counted is what was recorded. All levels' results."""
        self.observe(self.teller.reporting(self._level))
        grace_s = min(self.settings.timeout_s, max(10.0, 3 * self._latency_s)) if drain else 0.0
        for batch in self._workers.finish(drain, grace_s):
            self._take(batch)
        self._ledger.fetch(self._workers.fetch)
        self._ledger.read_metrics(still=True)
        ahead = self.teller.ahead
        for number, conclude in self._unfinished.items():
            # Answers to an interrupted level's requests may have come since; they belong to its figures.
            self.results[number - ahead] = conclude()
        open_yet, late = self._unfinished, self._ledger.with_late
        return [x if n in open_yet else late(n, x) for n, x in enumerate(self.results, ahead)]

    def _conclude(self, level: Begun, window: Window, ended_by: EndedBy) -> LevelResult:
        result = self._sum_up(level, window, ended_by)
        self.results.append(result)
        self._known = result.trace.origins()
        if ended_by == "interrupted":
            self._unfinished[level.number] = lambda: self._sum_up(level, window, ended_by)
        else:
            self._ledger.close(level.number)
        if (latency := result.level.latency_ms.p50.value) is not None:
            self._latency_s = latency / 1e3
        return result

    def _sum_up(self, level: Begun, window: Window, ended_by: EndedBy) -> LevelResult:
        parts = self._workers.parts(level.number)
        health = level.page.health(self._workers.died, parts)
        result = sum_up(
            level.load,
            dataclasses.replace(level.page.trace(), known_origins=self._known),
            window,
            health,
            budget=self.settings.budget,
            ended_by=ended_by,
            watch=level.page.watch(self._ledger.sights),
            known_prompts=self.known_prompts,
            asked_input=self.workload.input.mean if self._rows is None else None,
            template_tokens=self.prompts.counted_overhead,
            max_in_flight=self.settings.max_in_flight,
        )
        if self.folder is not None:
            self.folder.set_window(level.number, window, ended_by, health.died)
            self.folder.set_parts(level.number, parts)
            self.folder.commit(at_once=True)
        return result

    # --- waiting for the workers

    def _doubt(self, level: Begun, phase: Phase) -> None:
        """Raise RunFailed where nothing can come of the level any more."""
        if self._workers.died:
            raise RunFailed(f"{'; '.join(self._workers.died)}; the load could not be kept up")
        beats = [b for b in self._workers.beats if b.level == level.number]
        self.rules.check(level.page, level.load, beats)
        line = level.doubts.hopeless(beats) or level.doubts.gone(beats)
        if line is None and phase == "ramp":
            line = level.doubts.one_at_a_time(beats)
        if line is not None:
            raise (Unreachable if level.doubts.unreachable else RunFailed)(line)
        self._gap_ns = max(self._gap_ns, level.page.gap_ns)
        self._slowest_ns = max(self._slowest_ns, level.page.slowest_ns)
        self._say_patience()

    def _pump_until(
        self, done: Callable[[], bool], level: Begun, phase: Phase, expected_ns: Callable[[], int] = lambda: 0
    ) -> None:
        while not done():
            self._doubt(level, phase)
            end_ns = expected_ns()
            left_s = (end_ns - monotonic_ns()) / 1e9 if end_ns else 0.05
            self.listen(min(0.05, max(0.001, left_s)))
            beats = self._workers.beats
            number, load, page, *_ = level
            self.observe(self.teller.status(number, load, phase, page, beats, end_ns, self._latency_s))

    def listen(self, timeout_s: float = 0.05) -> None:
        """Take in what the workers and the endpoint say; to be called often, while the bench rests too."""
        for batch in self._workers.receive(timeout_s):
            self._take(batch)
        for news in self._watcher.news() if self._watcher is not None else ():
            self._hear(news)
        self._ledger.add_scrapes()
        if self.folder is not None:
            self.folder.commit()

    def _hear(self, news: Sight | dict[str, str]) -> None:
        """Keep what was seen of the endpoint; go over to new headers, from the next request on."""
        if isinstance(news, Sight):
            return self._ledger.add_sight(news)
        self.target = self.target.renewed(news)
        self._head = self.target.head(self._path)
        if self._prepared:
            self._say_how()

    def _take(self, batch: Batch) -> None:
        self._probed += [x for x in self._ledger.take(batch) if x.level == PROBE_LEVEL]
