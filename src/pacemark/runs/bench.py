"""Measures levels over the network: the coordinating side of a run.

A level has four parts. The load is raised; the ramp lasts until every stream has finished one request; the
window lasts as long as was asked; then the load is held on until every request that began in the window has
ended, so that none is cut off and none ends in the calm of a drain. The next level starts from there.
"""

from __future__ import annotations

import dataclasses
import secrets
import statistics
import time
from collections import Counter, deque
from collections.abc import Callable
from time import monotonic_ns

import msgspec

from pacemark.budget import parse as parse_budget
from pacemark.dialects.openai import DIALECTS, Options, attempts, fill, template, understand
from pacemark.endpoint.target import Target, resolve
from pacemark.endpoint.watch import Source, Watcher, watch_from
from pacemark.errors import BadInput, RunFailed
from pacemark.figures.health import health_of
from pacemark.figures.level import Enough, LevelResult, precise, sum_up
from pacemark.instrument.fleet import Workers
from pacemark.instrument.generator import PROBE_LEVEL, Asking, Batch, Begin, Probe, Setup, expected_in_flight
from pacemark.pace import Concurrency, Load, Rate
from pacemark.reporting.progress import Phase, Status
from pacemark.runs.folder import RunFolder
from pacemark.summary import Asked, EndedBy
from pacemark.trace import ABSENT, Beat, Exchange, Sight, Window, trace_of
from pacemark.workload.words import (
    PROBES,
    Prompts,
    Workload,
    estimated,
    learn,
    probe_prompt,
    probe_sizes,
    prompt,
    resized,
    tokenized,
)

HOPELESS = 12
"""A level whose first requests all fail is given up after this many (or one per stream, if that is more)."""


LOOK_NS = 200_000_000
DETAIL_LETTERS = 300
CONNECTING_NS = 1_000_000
"""Time allowed for each connection that an open loop opens beforehand; with a far endpoint 32 are opened at once."""
"""How much of what a server says of a failure is kept."""


class Settings(msgspec.Struct, frozen=True):
    """How to measure, as opposed to what."""

    duration_s: float = 20.0
    max_duration_s: float = 120.0
    precision: float | None = None
    """Measure until the intervals are this tight (0.05: 5%), for `max_duration_s` at most."""
    budget: str = ""
    """Limits that goodput is counted against."""
    workers: int = 1
    stream: bool = True
    timeout_s: float = 600.0
    fresh_connections: bool = False
    max_in_flight: int = 0
    seed_given: bool = False
    """The seed was not drawn for this run, so that an earlier one may have sent the same prompts."""


class Bench:
    """A target ready to be measured. A context manager: leaving it ends the workers.

    Raises BadInput where the target cannot be used as asked, RunFailed where it fails under way.
    """

    def __init__(
        self,
        target: Target,
        workload: Workload,
        settings: Settings,
        count_tokens: Callable[[str], int] | None = None,
        observe: Callable[[Status], None] = lambda status: None,
        source: Source | None = None,
    ) -> None:
        """`source` tells of the endpoint while the run goes on, and renews the headers that open it."""
        self.target = target
        self.workload = workload
        self.settings = settings
        self.folder: RunFolder | None = None
        self._count_tokens = count_tokens
        self._budget = parse_budget(settings.budget) if settings.budget else None
        self._observe = observe
        self._dialect = DIALECTS[target.api]
        self._head = target.head(target.path or self._dialect.path)
        self._source = source
        self._watcher = Watcher(source, target.headers) if source is not None else None
        self.sights: list[Sight] = []
        self._workers = Workers(settings.workers)
        self._ended: dict[int, list[Exchange]] = {}
        self._failed: Counter[int] = Counter()
        self._probed: tuple[int, Exchange] | None = None
        self.known_prompts: float | None = None
        """See `pacemark.figures.verdict.Evidence`."""
        self._beats: list[Beat] = []
        self._level = PROBE_LEVEL
        self._begun = time.monotonic()
        self._latency_s = 1.0
        self._rates: deque[tuple[int, int]] = deque()
        self.results: list[LevelResult] = []
        self._last: Callable[[], LevelResult] | None = None
        self.levels_planned: int | None = None
        self._prepared = False
        self._workers.set_up(
            Setup(
                worker=0,
                workers=settings.workers,
                addresses=resolve(target),
                timeout_s=settings.timeout_s,
                seed=workload.seed,
                fresh_connections=settings.fresh_connections,
                max_in_flight=settings.max_in_flight,
            )
        )

    def __enter__(self) -> Bench:
        if self._watcher is not None:
            self._watcher.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._watcher is not None:
            self._watcher.stop()
        self._workers.__exit__(None, None, None)

    # --- before the first level

    def prepare(self) -> None:
        """Learn what the server accepts, and how many words make a prompt of the wanted length."""
        self.options, first = self._negotiate()
        self._template = template(self._dialect, self.target.model, self.options, self.workload.extra)
        self.prompts = self._learn_prompts(first)
        whole = self._ask([self._request(prompt(self.workload.seed, PROBES, 100, self.prompts.words), None)])[0]
        self._refuse_if_bad(whole)
        if self.settings.stream and whole.first_event_ns == ABSENT:
            raise BadInput(f"{self.target.url} does not stream: its answer is no event stream; add --no-stream")
        self.first, self.connect_ns = whole, first.connect_ns
        self.known_prompts = self._recognised() if self.settings.seed_given else None
        self._latency_s = (whole.ended_ns - whole.sent_ns) / 1e9
        self._prepared = True
        self._say_how()

    def ask_for(self, asked: Asked) -> None:
        """Ask for other lengths from the next request on; words make tokens as they were found to."""
        self.workload = msgspec.structs.replace(self.workload, **msgspec.to_builtins(asked))
        self.prompts = resized(self.prompts, asked.input_tokens)
        self._say_how()

    def _say_how(self) -> None:
        """Tell the workers how to ask from now on."""
        self._workers.send(Asking(self._head, self._template, self.prompts.words, self.workload.output_tokens))

    def _negotiate(self) -> tuple[Options, Exchange]:
        """The richest options that the server takes, and its answer to a few words."""
        answer: Exchange | None = None
        for number, options in enumerate(attempts(self.settings.stream, self.target.api), start=200):
            self._template = template(self._dialect, self.target.model, options, self.workload.extra)
            answer = self._ask([self._request(prompt(self.workload.seed, PROBES, number, 4), 1)])[0]
            if answer.status not in (400, 422):
                break
        assert answer is not None
        self._refuse_if_bad(answer)
        return options, answer

    def _learn_prompts(self, first: Exchange) -> Prompts:
        wanted, seed = self.workload.input_tokens, self.workload.seed
        if self._count_tokens is not None:
            return tokenized(self._count_tokens, wanted, seed)
        if first.input_tokens == ABSENT:
            return estimated(wanted, seed)
        for sizes in probe_sizes(wanted):
            texts = [probe_prompt(seed, i, n) for i, n in enumerate(sizes)]
            answers = self._ask([self._request(text, 1) for text in texts])
            known = [(n, a.input_tokens) for n, a in zip(sizes, answers, strict=True) if a.input_tokens > 0]
            if len(known) == len(sizes):
                self._probed = sizes[-1], answers[-1]
                return learn([n for n, _ in known], [tokens for _, tokens in known], wanted, seed)
        return estimated(wanted, seed)

    def _recognised(self) -> float | None:
        """TTFT of this seed's probe over that of probes that nobody ever sent.

        None where the server shows no memory for prompts, which is that it answers one sooner the second time, and
        where it tells what it had in its cache: then there is no need to guess.
        """
        if self._probed is None or self._probed[1].cached_tokens != ABSENT:
            return None
        words, before = self._probed
        asks = [self._request(probe_prompt(secrets.randbits(63), 0, words), 1) for _ in range(3)]
        answers = [before, *self._ask(asks), *self._ask(asks)]
        if any(x.error or not len(x.hi_ns) for x in answers):
            return None
        known, *rest = (int(x.hi_ns[0]) - x.sent_ns for x in answers)
        once, again = rest[:3], rest[3:]
        return known / statistics.median(once) if max(again) < 0.7 * min(once) else None

    def _request(self, text: str, tokens: int | None) -> bytes:
        body = fill(self._template, text, self.workload.output_tokens if tokens is None else tokens)
        return b"%b%d\r\n\r\n%b" % (self._head, len(body), body)

    def _ask(self, requests: list[bytes]) -> list[Exchange]:
        """Send a few requests one after the other, outside any level."""
        self._ended[PROBE_LEVEL] = []
        self._workers.workers[0].send(Probe(requests))
        while len(self._ended[PROBE_LEVEL]) < len(requests):
            self._pump()
        return self._ended[PROBE_LEVEL]

    def _refuse_if_bad(self, answer: Exchange) -> None:
        """Turn a failed first request into one line about what to do."""
        if not answer.error:
            return
        where, said = self.target.url, f": {answer.detail}" if answer.detail else ""
        hints = {
            "refused": f"no server at {where} (connection refused); is it running, and is the port right?",
            "connect": f"cannot connect to {where}{said}",
            "connect_timeout": f"cannot connect to {where}{said}",
            "tls": f"no TLS connection to {where}{said}; see --ca-file and --insecure",
            "http_401": f"{where} answered 401, not authorised{said}; name the variable with the key: --api-key-env",
            "http_403": f"{where} answered 403, forbidden{said}; this key may not use the endpoint",
            "http_404": f"{where} answered 404{said}; check the URL (does it end in /v1?), --model and --api",
            "http_429": f"{where} answered 429, rate limit reached{said}; wait, or ask for a higher limit",
            "bad_http": f"{where} does not speak HTTP/1.1{said}",
            "bad_answer": f"{where} is no {self.target.api} endpoint{said}; check the URL and --api",
        }
        if answer.error == "empty" and not self.settings.stream:
            return
        text = hints.get(answer.error, f"{where} did not answer a first request ({answer.error}){said}")
        if self._source is not None and (advice := self._source.advice(answer.error)):
            text = f"{advice}{said and f' (it said{said})'}"
        raise BadInput(self.target.redacted(text))

    # --- levels

    def measure(self, load: Load, enough: Enough | None = None) -> LevelResult:
        """Run one level to its end: for `duration_s`, or until it is `enough` and for `max_duration_s` at most.

        Raises RunFailed where every request fails or a worker dies; the level's part is then kept, as invalid.
        """
        if enough is None and self.settings.precision is not None:
            enough = precise(self.settings.precision)
        ended_by: EndedBy = "interrupted"
        self._level += 1
        level, begun_ns = self._level, monotonic_ns()
        self._ended[level] = []
        self._beats = self._workers.beats
        if self.folder is not None:
            self.folder.begin_level(level, load, begun_ns)
        spread_s = min(self._latency_s, max(self.settings.duration_s, 1.0))
        if isinstance(load, Concurrency):
            # Half of it only: with it go the first answers, which are of uneven length (`generator.GOLDEN`).
            spread_s /= 2
        # A schedule must not begin before its connections are open; a stream opens its own as it starts.
        connecting = expected_in_flight(load, spread_s) if isinstance(load, Rate) else 0
        self._workers.send(Begin(level, load, begun_ns + 2_000_000 + connecting * CONNECTING_NS, int(spread_s * 1e9)))
        start_ns = end_ns = 0
        try:
            self._pump_until(lambda: self._ramped(load, begun_ns, spread_s), load, "ramp")
            start_ns = monotonic_ns()
            longest_s = self.settings.max_duration_s if enough else self.settings.duration_s
            end_ns = start_ns + int(longest_s * 1e9)
            if self.folder is not None:
                self.folder.set_window(level, Window(start_ns, end_ns))
            ended_early = self._looks(load, start_ns, enough) if enough else lambda: False
            self._pump_until(lambda: monotonic_ns() >= end_ns or ended_early(), load, "measuring", end_ns)
            early, end_ns = monotonic_ns() < end_ns, min(end_ns, monotonic_ns())
            self._pump_until(lambda: self._answered(end_ns), load, "finishing")
            ended_by = "duration" if enough is None else "precision" if early else "max_duration"
        finally:
            # Whatever ended the level, what was measured of it is kept.
            window = Window(start_ns, min(end_ns, monotonic_ns()) if start_ns else 0)
            result = self._conclude(load, level, window, ended_by)
        return result

    def finish(self, drain: bool = True) -> list[LevelResult]:
        """Let requests in flight end, so that what the server counted is what was recorded. All levels' results."""
        grace_s = min(self.settings.timeout_s, max(10.0, 3 * self._latency_s)) if drain else 0.0
        for batch in self._workers.finish(drain, grace_s):
            self._take(batch)
        if self._last is not None:
            # Answers to an interrupted level's requests may have come since; they belong to its figures.
            conclude, self._last = self._last, None
            self.results[-1] = conclude()
        return [self._with_late(level, result) for level, result in enumerate(self.results)]

    def _with_late(self, level: int, result: LevelResult) -> LevelResult:
        """Count the requests that ended after their level did; they are in no figure but the totals."""
        late = self._ended.get(level, []) if result.level.ended_by != "interrupted" else []
        requests = msgspec.structs.replace(
            result.level.requests,
            completed=result.level.requests.completed + sum(not x.error for x in late),
            failed=result.level.requests.failed + sum(bool(x.error) for x in late),
        )
        return dataclasses.replace(result, level=msgspec.structs.replace(result.level, requests=requests))

    def _conclude(self, load: Load, level: int, window: Window, ended_by: EndedBy) -> LevelResult:
        if ended_by == "interrupted":
            self._last = lambda: self._sum_up(load, level, window, ended_by)
        result = self._sum_up(load, level, window, ended_by)
        self.results.append(result)
        latency = result.level.latency_ms.p50.value
        if latency is not None:
            self._latency_s = latency / 1e3
        return result

    def _sum_up(self, load: Load, level: int, window: Window, ended_by: EndedBy) -> LevelResult:
        exchanges = self._ended[level]
        if ended_by != "interrupted":
            self._ended[level] = []
        trace = trace_of(exchanges, isinstance(load, Rate))
        health = health_of(trace, self._beats, self._workers.died)
        watch = watch_from(trace.refusals, self.sights)
        known = self.known_prompts
        result = sum_up(
            load,
            trace,
            window,
            health,
            budget=self._budget,
            ended_by=ended_by,
            watch=watch,
            known_prompts=known,
            asked_input=self.workload.input_tokens,
        )
        if self.folder is not None:
            self.folder.set_window(level, window, ended_by, health.died)
            self.folder.commit(at_once=True)
        return result

    # --- waiting for the workers

    def _ramped(self, load: Load, begun_ns: int, spread_s: float) -> bool:
        """Closed loop: every stream has finished a request. Open loop: the first arrivals have had their answers."""
        beats = [b for b in self._workers.beats if b.level == self._level]
        if isinstance(load, Concurrency):
            fresh = all(b.oldest_ns == ABSENT or b.oldest_ns >= begun_ns for b in beats)
            return len(beats) == len(self._workers.beats) and fresh and sum(b.turned for b in beats) >= load.value
        ended = [x for x in self._ended[self._level] if not x.error]
        longest_ns = max((x.ended_ns - x.scheduled_ns for x in ended), default=0)
        return len(ended) > 0 and monotonic_ns() > begun_ns + max(2 * longest_ns, int(spread_s * 1e9))

    def _looks(self, load: Load, start_ns: int, enough: Enough) -> Callable[[], bool]:
        """Ask `enough` now and then: the columns are built anew for each look, so looks get rarer as a level grows."""
        due_ns = start_ns

        def look() -> bool:
            nonlocal due_ns
            now = monotonic_ns()
            if now < due_ns:
                return False
            trace = trace_of(self._ended[self._level], isinstance(load, Rate))
            due_ns = now + max(LOOK_NS, (now - start_ns) // 10)
            return enough(trace, Window(start_ns, now))

        return look

    def _give_up_if_hopeless(self, load: Load) -> None:
        ended = self._ended[self._level]
        enough = max(HOPELESS, load.value if isinstance(load, Concurrency) else 0)
        if len(ended) >= enough and all(x.error for x in ended):
            kinds = Counter(x.error for x in ended).most_common(1)[0][0]
            detail = self.target.redacted(next(x.detail for x in ended if x.error == kinds))
            raise RunFailed(f"all of the first {len(ended)} requests at {load} failed ({kinds}): {detail}")

    def _answered(self, end_ns: int) -> bool:
        """Whether every request begun by `end_ns` has ended and has been reported."""
        beats = self._workers.beats
        return all(b.now_ns > end_ns and not ABSENT < b.oldest_ns <= end_ns for b in beats)

    def _pump_until(self, done: Callable[[], bool], load: Load, phase: Phase, end_ns: int = 0) -> None:
        while not done():
            if self._workers.died:
                raise RunFailed(f"{'; '.join(self._workers.died)}; the load could not be kept up")
            self._give_up_if_hopeless(load)
            left_s = (end_ns - monotonic_ns()) / 1e9 if end_ns else 0.05
            self._pump(min(0.05, max(0.001, left_s)))
            self._observe(self._status(load, phase, end_ns))

    def _pump(self, timeout_s: float = 0.05) -> None:
        for batch in self._workers.receive(timeout_s):
            self._take(batch)
        for news in self._watcher.news() if self._watcher is not None else ():
            self._hear(news)
        if self.folder is not None:
            self.folder.commit()

    def _hear(self, news: Sight | dict[str, str]) -> None:
        """Keep what was seen of the endpoint; go over to new headers, from the next request on."""
        if isinstance(news, Sight):
            sight = msgspec.structs.replace(
                news, state=self.target.redacted(news.state), problem=self.target.redacted(news.problem)
            )
            self.sights.append(sight)
            if self.folder is not None:
                self.folder.add_sight(sight)
            return
        self.target = self.target.renewed(news)
        self._head = self.target.head(self.target.path or self._dialect.path)
        if self._prepared:
            self._say_how()

    def _take(self, batch: Batch) -> None:
        for raw in batch.exchanges:
            exchange = understand(raw, self._count_tokens)
            if exchange.error:
                # Redacted before it is cut: half a key would not be recognised.
                detail = self.target.redacted(exchange.detail)
                if len(detail) > DETAIL_LETTERS:
                    detail = f"{detail[:DETAIL_LETTERS]} ..."
                exchange = msgspec.structs.replace(exchange, detail=detail)
            self._ended.setdefault(raw.level, []).append(exchange)
            self._failed[raw.level] += bool(exchange.error)
            if self.folder is not None:
                self.folder.add(exchange)
        self._beats.append(batch.beat)
        if self.folder is not None:
            self.folder.add_beat(batch.beat)

    def _status(self, load: Load, phase: Phase, end_ns: int) -> Status:
        now, reads = monotonic_ns(), sum(b.reads for b in self._workers.beats)
        if not self._rates or now - self._rates[-1][0] > 100_000_000:
            self._rates.append((now, reads))
        while now - self._rates[0][0] > 2_000_000_000 and len(self._rates) > 2:
            self._rates.popleft()
        seconds = (self._rates[-1][0] - self._rates[0][0]) / 1e9
        ended, failed = self._ended[self._level], self._failed[self._level]
        left_s = max(0.0, (end_ns - now) / 1e9) if end_ns else self.settings.duration_s * (phase != "finishing")
        if self.levels_planned is not None:
            rest = self.levels_planned - self._level - 1
            left_s += rest * (self.settings.duration_s + 3 * self._latency_s) + self._latency_s
        return Status(
            level_index=self._level,
            levels=self.levels_planned,
            load=load,
            phase=phase,
            elapsed_s=time.monotonic() - self._begun,
            remaining_s=left_s,
            tokens_per_s=(self._rates[-1][1] - self._rates[0][1]) / seconds if seconds > 0.2 else None,
            in_flight=sum(b.in_flight for b in self._workers.beats),
            completed=len(ended) - failed,
            errors=failed,
        )
