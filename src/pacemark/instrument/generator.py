"""Drives connections by a pace. One worker process runs one `LoadGenerator`; `workers.py` runs the workers.

The worker only sends and stamps. It does not look into an answer: raw exchanges go back over a socket to the
coordinating process, which understands, stores and counts them.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import itertools
import math
import os
import random
import re
import resource
import socket
import sys
from collections import deque
from collections.abc import Coroutine
from functools import partial
from time import monotonic_ns, process_time_ns
from typing import Any, NamedTuple

import msgspec
import numpy as np
import uvloop

from pacemark.dialects.openai import fill
from pacemark.instrument.clock import Alarm, stamp_reads
from pacemark.instrument.connection import Address, Answer, Connection, WireError
from pacemark.pace import Concurrency, Load, Rate, arrivals
from pacemark.trace import ABSENT, Beat, RawExchange
from pacemark.workload.words import RandomWords

BEAT_NS = 50_000_000
PROBE_LEVEL = -1
CONNECT_S = 15.0
_BATCH_BYTES = 1 << 18
GOLDEN = (math.sqrt(5) - 1) / 2
"""Steps of this share fill a circle evenly, however many there are. A stream's first answer is cut short by it: streams
that start together with answers of one length would wait for each other's prompts, in step, for ever after."""
_RETRY_AFTER = re.compile(rb'"retry_after"\s*:\s*(\d+)')
FORGIVEN = 3
"""Requests lost to a server that closes what it promised to keep, before every request gets a new connection."""


class Setup(msgspec.Struct, frozen=True, tag=True):
    """What a worker needs to know for a whole run. Holds the request head, secrets included."""

    worker: int
    workers: int
    addresses: list[Address]
    timeout_s: float
    seed: int
    fresh_connections: bool = False
    max_in_flight: int = 0


class Asking(msgspec.Struct, frozen=True, tag=True):
    """From now on, ask like this: the request's head, its body with holes, and the lengths to fill in."""

    head: bytes
    template: bytes
    words: int
    tokens: int


class Probe(msgspec.Struct, frozen=True, tag=True):
    """Send these requests one after the other and report them under PROBE_LEVEL."""

    requests: list[bytes]


class Begin(msgspec.Struct, frozen=True, tag=True):
    """Go over to this load. Streams that run on keep running; new ones start spread over `spread_ns`."""

    level: int
    load: Load
    start_ns: int
    spread_ns: int


class Finish(msgspec.Struct, frozen=True, tag=True):
    """Start nothing new; end what is in flight (`drain`) or cut it off; then exit."""

    drain: bool
    grace_s: float


Command = Setup | Asking | Probe | Begin | Finish


class Batch(msgspec.Struct, frozen=True, array_like=True):
    """What a worker sends back: requests that ended, then its pulse at that moment."""

    exchanges: list[RawExchange]
    beat: Beat


class Request(NamedTuple):
    """A request ready to be sent."""

    level: int
    number: int
    tokens: int
    data: bytes


class Cores:
    """How idle the cores are that this process may run on (Linux, /proc/stat)."""

    EVERY_NS = 500_000_000

    def __init__(self) -> None:
        self._read_ns = 0
        self._before: dict[str, tuple[int, int]] = {}
        self._share = float(ABSENT)

    def idle_share(self) -> float:
        """Idle share since the last look, which is at most half a second ago; ABSENT where it cannot be known."""
        now = monotonic_ns()
        if now - self._read_ns < self.EVERY_NS:
            return self._share
        self._read_ns = now
        try:
            mine = {f"cpu{n}" for n in os.sched_getaffinity(0)}
            with open("/proc/stat") as file:
                rows = [line.split() for line in file if line.startswith("cpu")]
        except (OSError, AttributeError):
            return self._share
        ticks = {name: (int(t[3]) + int(t[4]), sum(map(int, t[:8]))) for name, *t in rows if name in mine}
        known = ticks.keys() & self._before.keys()
        idle, total = (sum(ticks[name][i] - self._before[name][i] for name in known) for i in (0, 1))
        self._before = ticks
        self._share = idle / total if total > 0 else float(ABSENT)
        return self._share


def expected_in_flight(rate: Rate, latency_s: float) -> int:
    """Connections to open before an open loop begins: what Little's law expects to be in use, and some to spare."""
    return min(1024, int(1.2 * rate.value * latency_s))


class LoadGenerator:
    """Sends requests at a pace over warm connections, and keeps what each read brought."""

    def __init__(self, setup: Setup, loop: asyncio.AbstractEventLoop, outbox: asyncio.StreamWriter) -> None:
        self._setup = setup
        self._loop = loop
        self._outbox = outbox
        self._alarm = Alarm(loop)
        self._addresses = itertools.cycle(setup.addresses)
        self._pool: deque[Connection] = deque()
        self._ended: list[RawExchange] = []
        self._ended_bytes = 0
        self._encode = msgspec.msgpack.Encoder().encode
        self._tasks: set[asyncio.Task[None]] = set()
        self._arrivals: asyncio.Task[None] | None = None
        self._in_flight: dict[int, int] = {}
        self._held: dict[int, int] = {}
        self._running: set[int] = set()
        self._turned: set[int] = set()
        self._indices = itertools.count(setup.worker, setup.workers)
        self._level = PROBE_LEVEL
        self._streams = 0
        self._asking = Asking(b"", b"", 0, 0)
        self._reads = 0
        self._reconnects = 0
        self._stall_ns = 0
        self._cores = Cores()
        self._keeps = not setup.fresh_connections
        self._jitter = random.Random(setup.seed + setup.worker)
        self._places = asyncio.Semaphore(setup.max_in_flight) if setup.max_in_flight else None

    # --- commands

    async def obey(self, command: Command) -> None:
        """Carry out one command; returns when it is done or, for `Begin`, under way."""
        if isinstance(command, Asking):
            self._asking = command
        elif isinstance(command, Probe):
            for index, data in enumerate(command.requests):
                await self._exchange(Request(PROBE_LEVEL, index, 0, data), monotonic_ns(), 0)
            self._ship()
        elif isinstance(command, Begin):
            await self._begin(command)
        elif isinstance(command, Finish):
            await self._finish(command)

    async def _begin(self, begin: Begin) -> None:
        self._stop_arrivals()
        self._level, self._turned = begin.level, set()
        self._indices = itertools.count(self._setup.worker, self._setup.workers)
        if isinstance(begin.load, Concurrency):
            before, self._streams = self._streams, begin.load.value
            mine = [n for n in range(self._setup.worker, self._streams, self._setup.workers) if n not in self._running]
            await self._warm(len(mine))
            gc.collect()
            gc.freeze()
            share = begin.spread_ns / max(1, self._streams - min(before, self._streams))
            for number in mine:
                self._running.add(number)
                self._spawn(self._stream(number, begin.start_ns + int(share * max(0, number - before))))
        else:
            self._streams = 0
            await self._warm(1 + expected_in_flight(begin.load, begin.spread_ns / 1e9) // self._setup.workers)
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
        for connection in self._pool:
            connection.close()
        self._ship()

    def _stop_arrivals(self) -> None:
        if self._arrivals is not None:
            self._arrivals.cancel()
            self._arrivals = None

    def _spawn(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        task = self._loop.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    # --- paces

    async def _stream(self, number: int, start_ns: int) -> None:
        """Closed loop: one request after another, for as long as the load has room for this stream."""
        await self._alarm.until(start_ns)
        failures = 0
        share = (number + 1) * GOLDEN % 1.0
        try:
            while number < self._streams:
                level = self._level
                answer = await self._exchange(self._next(share), monotonic_ns(), number)
                share = 1.0
                if level == self._level:
                    self._turned.add(number)
                failures = failures + 1 if failed(answer) else 0
                if failures:
                    await asyncio.sleep(self._pause_s(answer, failures))
        finally:
            self._running.discard(number)

    def _pause_s(self, answer: Answer, failures: int) -> float:
        """Without a pause a refusing server would be hammered thousands of times a second."""
        # Whole seconds (RFC 9110, 10.2.3); Databricks documents them in the body of a 429.
        said = answer.headers.get(b"retry-after") or b"".join(_RETRY_AFTER.findall(answer.body)[:1])
        with contextlib.suppress(ValueError):
            return float(min(60, max(1, int(said))))
        return min(2.0, 0.05 * 2.0 ** min(failures, 8)) * self._jitter.uniform(0.5, 1.0)

    async def _arrive(self, rate: Rate, start_ns: int) -> None:
        """Open loop: requests leave when the schedule says, however many are still unanswered."""
        rng = np.random.default_rng([self._setup.seed, self._level])
        mine = itertools.islice(arrivals(rate, rng), self._setup.worker, None, self._setup.workers)
        for offset_ns in mine:
            request = self._next()
            due_ns = start_ns + offset_ns
            await self._alarm.until(due_ns)
            self._spawn(self._arrived(request, due_ns))
            await asyncio.sleep(0)  # send this one before the next is written

    async def _arrived(self, request: Request, due_ns: int) -> None:
        if self._places is None:
            await self._exchange(request, due_ns, ABSENT)
        else:
            self._held[id(request)] = due_ns
            async with self._places:
                del self._held[id(request)]
                await self._exchange(request, due_ns, ABSENT)

    # --- one request

    def _next(self, share: float = 1.0) -> Request:
        asking, level, index = self._asking, self._level, next(self._indices)
        source = RandomWords(self._setup.seed, asking.words, asking.tokens, partial(fill, asking.template))
        ask = source.ask(level, index, share)
        return Request(level, index, ask.tokens, b"%b%d\r\n\r\n%b" % (asking.head, len(ask.body), ask.body))

    async def _exchange(self, request: Request, due_ns: int, stream: int) -> Answer:
        """Send one request and note everything about it; a failure is noted, not raised."""
        begun_ns = monotonic_ns()
        self._in_flight[id(request)] = due_ns
        connect_ns, answer = ABSENT, Answer()
        try:
            connection = self._idle()
            if connection is not None:
                answer = await connection.request(request.data, self._setup.timeout_s)
            if connection is None or given_up(answer):
                # The server closed a kept connection just as it was used: send again, and let the first
                # attempt's clock run on, so that the detour is part of what was measured.
                first_ns = answer.sent_ns
                if connection is not None:
                    self._reconnects += 1
                    self._keeps = self._reconnects < FORGIVEN
                connection = await self._open()
                connect_ns = connection.connect_ns
                answer = await connection.request(request.data, self._setup.timeout_s)
                if first_ns != ABSENT:
                    answer.sent_ns = first_ns
            self._keep(connection)
        except WireError as error:
            answer.error, answer.detail = error.kind, error.detail
            answer.sent_ns = begun_ns if answer.sent_ns == ABSENT else answer.sent_ns
            answer.ended_ns = monotonic_ns()
        finally:
            del self._in_flight[id(request)]
        self._note(request, due_ns, stream, connect_ns, answer)
        return answer

    def _note(self, request: Request, due_ns: int, stream: int, connect_ns: int, answer: Answer) -> None:
        headers = answer.headers
        self._reads += len(answer.reads) // 3
        self._ended.append(
            RawExchange(
                level=request.level,
                index=request.number,
                stream=stream,
                scheduled_ns=due_ns,
                first_byte_sent_ns=answer.first_byte_sent_ns,
                sent_ns=answer.sent_ns,
                send_ns=max(0, answer.sent_by_ns - answer.sent_ns),
                headers_ns=answer.headers_ns,
                ended_ns=answer.ended_ns,
                connect_ns=connect_ns,
                status=answer.status,
                streamed=headers.get(b"content-type", b"").lower().startswith(b"text/event-stream"),
                encoding=headers.get(b"content-encoding", b"").decode("latin-1").lower(),
                error=answer.error,
                detail=answer.detail,
                asked_tokens=request.tokens,
                reads=answer.reads.tobytes(),
                body=answer.body,
            )
        )
        self._ended_bytes += len(answer.body)
        if self._ended_bytes > _BATCH_BYTES:
            self._ship()

    # --- connections

    def _idle(self) -> Connection | None:
        while self._pool:
            connection = self._pool.pop()
            if not connection.closed:
                return connection
            self._reconnects += 1
        return None

    def _keep(self, connection: Connection) -> None:
        if not self._keeps:
            connection.close()
        elif not connection.closed:
            self._pool.append(connection)

    async def _open(self) -> Connection:
        """A connection to the next address; one that does not answer is passed over while there are others."""
        for _ in self._setup.addresses[1:]:
            with contextlib.suppress(WireError):
                return await Connection.open(self._loop, next(self._addresses), min(CONNECT_S, self._setup.timeout_s))
        return await Connection.open(self._loop, next(self._addresses), min(CONNECT_S, self._setup.timeout_s))

    async def _warm(self, count: int) -> None:
        """Open connections ahead of need, a few at a time. A failure here will show in the requests."""
        missing = count - len(self._pool) if self._keeps else 0
        while missing > 0:
            opened = await asyncio.gather(*(self._open() for _ in range(min(32, missing))), return_exceptions=True)
            self._pool.extend(c for c in opened if isinstance(c, Connection))
            if any(isinstance(c, BaseException) for c in opened):
                return
            missing -= len(opened)

    # --- reporting

    async def beat(self) -> None:
        """Report at a steady pulse for as long as the worker lives."""
        due_ns = monotonic_ns()
        while True:
            due_ns += BEAT_NS
            await self._alarm.until(due_ns)
            self._stall_ns = max(self._stall_ns, monotonic_ns() - due_ns)
            self._ship()
            due_ns = max(due_ns, monotonic_ns() - BEAT_NS)

    def _ship(self) -> None:
        beat = Beat(
            worker=self._setup.worker,
            now_ns=monotonic_ns(),
            level=self._level,
            in_flight=len(self._in_flight),
            oldest_ns=next(itertools.chain(self._in_flight.values(), self._held.values()), ABSENT),
            turned=len(self._turned),
            reads=self._reads,
            cpu_ns=process_time_ns(),
            wait_ns=waited_ns(),
            idle_share=self._cores.idle_share(),
            stall_ns=self._stall_ns,
            reconnects=self._reconnects,
            idle=not self._tasks,
        )
        self._stall_ns = 0
        data = self._encode(Batch(self._ended, beat))
        self._ended, self._ended_bytes = [], 0
        self._outbox.write(len(data).to_bytes(4, "big") + data)


def waited_ns() -> int:
    """Time this process spent on a run queue (Linux, Documentation/scheduler/sched-stats); 0 where that is unknown."""
    try:
        with open("/proc/self/schedstat", "rb") as file:
            return int(file.read().split()[1])
    except (OSError, IndexError, ValueError):
        return 0


def failed(answer: Answer) -> bool:
    """Whether the transport or the status says that this request came to nothing."""
    return bool(answer.error) or answer.status >= 300


def given_up(answer: Answer) -> bool:
    """Whether a kept connection turned out to be closed before a byte of the answer came."""
    return answer.error in ("closed", "reset") and not answer.reads


async def _work(control: socket.socket) -> None:
    """Obey commands from `control` until it says `Finish` or its other end is gone."""
    loop = asyncio.get_running_loop()
    with socket.socket() as always_on:
        # The kernel's first stamps after stamping is switched on are late; this socket keeps it on.
        stamp_reads(always_on)
        inbox, outbox = await asyncio.open_connection(sock=control)
        decode = msgspec.msgpack.Decoder(Command).decode
        generator: LoadGenerator | None = None
        while True:
            try:
                size = int.from_bytes(await inbox.readexactly(4), "big")
                command = decode(await inbox.readexactly(size))
            except (asyncio.IncompleteReadError, ConnectionError):
                os._exit(0)  # the coordinator is gone: stop loading the endpoint at once
            if isinstance(command, Setup):
                generator = LoadGenerator(command, loop, outbox)
                pulse = loop.create_task(generator.beat())
                gc.disable()
                continue
            assert generator is not None
            await generator.obey(command)
            if isinstance(command, Finish):
                pulse.cancel()
                await outbox.drain()
                outbox.close()
                await outbox.wait_closed()
                return


def main() -> None:
    """Entry of a worker process: argv holds the file descriptor of its control socket."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard) if hard > soft else (soft, hard))
    uvloop.run(_work(socket.socket(fileno=int(sys.argv[1]))))


if __name__ == "__main__":
    main()
