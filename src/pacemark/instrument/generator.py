"""Drives connections by a pace. One worker process (`worker.py`) runs one `LoadGenerator`.

It only sends and stamps. It does not look into an answer: raw exchanges go over a socket to the worker's reader
(`reader.py`), which understands them and hands them on to the coordinating process.
"""

from __future__ import annotations

import asyncio
import gc
import itertools
import random
from collections.abc import Coroutine
from time import monotonic_ns
from typing import Any

from numpy.random import default_rng

from pacemark.endpoint.address import WireError
from pacemark.instrument.ahead import ahead
from pacemark.instrument.answer import Answer
from pacemark.instrument.asking import Asker
from pacemark.instrument.clock import Alarm
from pacemark.instrument.commands import (
    PROBE_LEVEL,
    Asking,
    Begin,
    Command,
    Finish,
    Hush,
    Patience,
    Probe,
    Setup,
    expected_in_flight,
)
from pacemark.instrument.connection import Connection
from pacemark.instrument.patience import failed, pause_s
from pacemark.instrument.pool import Pool, given_up
from pacemark.instrument.reports import Reports, Request
from pacemark.pace import GOLDEN, Concurrency, Rate
from pacemark.trace import ABSENT

BEAT_NS = 50_000_000
LOOK_NS = 250_000_000
LOOK_AGAIN_S = 0.01
"""How soon a stream that found nothing to ask looks again: sessions may go on that rest now."""


class LoadGenerator:
    """Sends requests at a pace over warm connections, and keeps what each read brought."""

    def __init__(self, setup: Setup, loop: asyncio.AbstractEventLoop, outbox: asyncio.StreamWriter) -> None:
        self._setup = setup
        self._loop = loop
        self._alarm = Alarm(loop)
        numbers = itertools.count(setup.worker, setup.workers)
        self._pool = Pool(loop, setup.addresses, setup.timeout_s, keeps=not setup.fresh_connections, numbers=numbers)
        self._reports = Reports(setup.worker, outbox, setup.keep_bodies)
        self._tasks: set[asyncio.Task[None]] = set()
        self._arrivals: asyncio.Task[None] | None = None
        self._in_flight: dict[int, int] = {}
        self._asked: set[Connection] = set()
        """Connections with a request in flight."""
        self._patience = Patience(setup.stall_timeout_s)
        self._looked_ns = 0
        self._held: dict[int, int] = {}
        self._running: set[int] = set()
        self._turned: set[int] = set()
        self._index, self._most = setup.worker, 0
        """Of the next request in its level, and of the first that is too many; workers take turns."""
        self._spent_ns = ABSENT
        self._level, self._streams = PROBE_LEVEL, 0
        self._asker = Asker(setup.worker, setup.workers)
        self.broken: BaseException | None = None
        """What ended a stream that should have gone on: a fault of pacemark's own."""
        self._jitter = random.Random(setup.seed + setup.worker)
        self._places = asyncio.Semaphore(setup.max_in_flight) if setup.max_in_flight else None

    # --- commands

    async def obey(self, command: Command) -> None:
        """Carry out one command; returns when it is done or, for `Begin`, under way."""
        if isinstance(command, Asking):
            self._asker.told(command)
        elif isinstance(command, Probe):
            for index, data in enumerate(command.requests):
                await self._exchange(Request(PROBE_LEVEL, index, 0, data), monotonic_ns(), 0)
            self._ship()
        elif isinstance(command, Begin):
            await self._begin(command)
        elif isinstance(command, Patience):
            self._patience = command
        elif isinstance(command, Hush):
            self._stop_arrivals()
            self._streams = 0
        elif isinstance(command, Finish):
            await self._finish(command)

    async def _begin(self, begin: Begin) -> None:
        self._stop_arrivals()
        self._level, self._turned = begin.level, set()
        self._most = begin.end_for(self._setup.worker, self._setup.workers)
        self._index, self._spent_ns = self._setup.worker, ABSENT
        if isinstance(begin.load, Concurrency):
            before, self._streams = self._streams, begin.load.value
            mine = [n for n in range(self._setup.worker, self._streams, self._setup.workers) if n not in self._running]
            await self._pool.warm(len(mine))
            gc.collect()
            gc.freeze()
            share = begin.spread_ns / max(1, self._streams - min(before, self._streams))
            for number in mine:
                self._running.add(number)
                self._spawn(self._stream(number, begin.start_ns + int(share * max(0, number - before))))
        else:
            self._streams = 0
            await self._pool.warm(1 + expected_in_flight(begin.load, begin.spread_ns / 1e9) // self._setup.workers)
            gc.collect()
            gc.freeze()
            self._arrivals = self._spawn(self._arrive(begin.load, begin.start_ns))

    async def _finish(self, finish: Finish) -> None:
        self._stop_arrivals()
        self._streams = 0
        if finish.drain and self._tasks:
            await asyncio.wait(self._tasks, timeout=finish.grace_s)
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self._pool.close()
        self._ship()

    def _stop_arrivals(self) -> None:
        if self._arrivals is not None:
            self._arrivals.cancel()
            self._arrivals = None

    def _spawn(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        task = self._loop.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._done)
        return task

    def _done(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and task.exception() is not None:
            self.broken = self.broken or task.exception()

    # --- paces

    async def _stream(self, number: int, start_ns: int) -> None:
        """Closed loop: one request after another, for as long as the load has room for this stream."""
        await self._alarm.until(start_ns)
        failures = 0
        # A first answer is cut short: streams that start together with answers of one length would wait for each
        # other's prompts, in step, for ever after.
        share = (number + 1) * GOLDEN % 1.0
        try:
            while number < self._streams and self._index < self._most:
                level = self._level
                request = self._next(share, number)
                if request is None:
                    if self._asker.empty:
                        break
                    await asyncio.sleep(LOOK_AGAIN_S)
                    continue
                answer = await self._exchange(request, monotonic_ns(), number)
                rest_s = self._heard(request, answer)
                share = 1.0
                if level == self._level:
                    self._turned.add(number)
                failures = failures + 1 if failed(answer) else 0
                if failures:
                    await asyncio.sleep(pause_s(answer, failures, self._jitter))
                elif rest_s:
                    await asyncio.sleep(rest_s)
        finally:
            self._running.discard(number)

    async def _arrive(self, rate: Rate, start_ns: int) -> None:
        """Open loop: requests leave when the schedule says, however many are still unanswered."""
        offsets = self._asker.offsets(rate, default_rng([self._setup.seed, self._level]))
        mine = itertools.islice(offsets, self._setup.worker, self._most, self._setup.workers)
        async for due_ns, request in ahead((start_ns + offset for offset in mine), self._next, self._asker.ahead):
            if request is None and self._asker.empty:
                break
            await self._alarm.until(due_ns)
            if request is not None:
                self._spawn(self._arrived(request, due_ns))
                await asyncio.sleep(0)  # send this one before the next is written
        else:
            if self._index < self._most:  # the schedule is over: a trace has no more rows
                self._spent_ns = monotonic_ns()

    async def _arrived(self, request: Request, due_ns: int) -> None:
        if self._places is None:
            self._heard(request, await self._exchange(request, due_ns, ABSENT))
        else:
            self._held[id(request)] = due_ns
            async with self._places:
                del self._held[id(request)]
                self._heard(request, await self._exchange(request, due_ns, ABSENT))

    # --- one request

    def _next(self, share: float = 1.0, stream: int = ABSENT) -> Request | None:
        level, index = self._level, self._index
        asked = self._asker.request(level, index, share, stream)
        if asked is None:
            self._spent_ns = monotonic_ns() if self._spent_ns == ABSENT else self._spent_ns
            return None
        self._index += self._setup.workers
        return Request(level, index, *asked)

    def _heard(self, request: Request, answer: Answer) -> float:
        return self._asker.heard(request.level, request.number, answer)

    async def _exchange(self, request: Request, due_ns: int, stream: int) -> Answer:
        """Send one request and note everything about it; a failure is noted, not raised."""
        begun_ns = monotonic_ns()
        self._in_flight[id(request)] = due_ns
        connect_ns, answer, connection = ABSENT, Answer(), self._pool.idle()
        try:
            if connection is not None:
                answer = await self._ask(connection, request.data)
            if connection is None or given_up(answer):
                # The server closed a kept connection just as it was used: send again, and let the first
                # attempt's clock run on, so that the detour is part of what was measured.
                first_ns = answer.sent_ns
                if connection is not None:
                    self._pool.lost()
                connection = await self._pool.open()
                connect_ns = connection.connect_ns
                answer = await self._ask(connection, request.data)
                if first_ns != ABSENT:
                    answer.sent_ns = first_ns
            self._pool.keep(connection)
        except WireError as error:
            answer.error, answer.detail = error.kind, error.detail
            answer.sent_ns = begun_ns if answer.sent_ns == ABSENT else answer.sent_ns
            answer.ended_ns = monotonic_ns()
        finally:
            del self._in_flight[id(request)]
        over = connection.number if connection is not None else ABSENT
        if self._reports.note(request, due_ns, stream, connect_ns, answer, over):
            self._ship()
        return answer

    async def _ask(self, connection: Connection, data: bytes) -> Answer:
        self._asked.add(connection)
        try:
            return await connection.request(data, self._setup.timeout_s)
        finally:
            self._asked.discard(connection)

    # --- reporting

    async def beat(self) -> None:
        """Report at a steady pulse for as long as the worker lives."""
        due_ns = monotonic_ns()
        while True:
            due_ns += BEAT_NS
            await self._alarm.until(due_ns)
            self._reports.late(monotonic_ns() - due_ns)
            if self.broken is not None:
                raise self.broken
            if due_ns - self._looked_ns > LOOK_NS:
                self._looked_ns = due_ns
                for connection in list(self._asked):
                    connection.cut_off_if_lost(self._patience.stall_timeout_s, self._patience.unanswered_s)
            self._ship()
            due_ns = max(due_ns, monotonic_ns() - BEAT_NS)

    def _ship(self) -> None:
        self._reports.ship(
            level=self._level,
            in_flight=len(self._in_flight),
            oldest_ns=next(itertools.chain(self._in_flight.values(), self._held.values()), ABSENT),
            turned=len(self._turned),
            reconnects=self._pool.reconnects,
            idle=not self._tasks,
            spent_ns=self._spent_ns,
        )
