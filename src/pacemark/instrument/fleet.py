"""The worker processes, seen from the process that coordinates them."""

from __future__ import annotations

import resource
import selectors
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import TracebackType
from typing import Protocol

import msgspec

from pacemark import beside
from pacemark.endpoint.target import Target
from pacemark.errors import RunFailed
from pacemark.instrument.commands import (
    Batch,
    Begin,
    Command,
    Finish,
    Inbox,
    Probe,
    Reading,
    Setup,
    decode_batch,
    framed,
)
from pacemark.nodes import NodeFacts, NodePart
from pacemark.pace import Concurrency
from pacemark.trace import Beat

READ_BYTES = 1 << 20
SPARE_FILES = 24
"""File descriptors that a worker needs beside its connections."""


class Fleet(Protocol):
    """Whatever carries the load: processes of this machine, or of many."""

    died: list[str]
    """A line for every worker that ended without being told to."""
    lead_ns: int
    """How long after it is sent a command has surely reached every worker."""

    @property
    def beats(self) -> list[Beat]:
        """The last pulse of every worker that lives."""

    def send(self, command: Command) -> None:
        """Have every worker obey `command`: a `Setup` by its own part of it, a `Probe` by one worker alone."""

    def receive(self, timeout_s: float) -> Iterator[Batch]:
        """Batches from all workers, waiting at most `timeout_s` for the first. Raises RunFailed if all died."""

    def finish(self, drain: bool, grace_s: float) -> Iterator[Batch]:
        """Let workers end; yields what they still send."""

    @property
    def nodes(self) -> list[NodeFacts]:
        """The machines, in the order of their numbers; none where it is this one alone."""

    def parts(self, level: int) -> list[NodePart]:
        """What each machine was to a level that has begun; nothing where it is this one alone."""

    def fetch(self, folder: Path, first_part: int) -> None:
        """Bring the events that the machines have kept apart so far to their part files in `folder`."""

    def close(self) -> None:
        """End whatever still runs, and give back what was taken."""


Hire = Callable[[Target, Setup, Reading], Fleet]
"""Gives a fleet that is set up: `Setup.workers` workers on each machine, all asking one target."""


class Worker:
    """One worker process with the reader beside it, and the sockets to both."""

    def __init__(self, number: int, reading: Reading) -> None:
        self.number = number
        self.control, control = socket.socketpair()
        self.results, results = socket.socketpair()
        self._said = tempfile.TemporaryFile()  # noqa: SIM115 - a pipe that nobody reads would fill, and hold the worker
        with control, results:
            passed = [control.fileno(), results.fileno()]
            self._process = subprocess.Popen(
                beside.command("pacemark.instrument.worker", *map(str, passed)),
                pass_fds=passed,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=self._said,
                # Ctrl-C is for the coordinator, which then ends the workers in order.
                start_new_session=True,
                env=beside.environment(),
            )
        self._inbox = Inbox()
        self.last: Beat | None = None
        self.ended = False
        self.results.sendall(framed(msgspec.msgpack.encode(reading)))

    @property
    def pid(self) -> int:
        """Process id."""
        return self._process.pid

    def send(self, command: Command) -> None:
        """Hand over a command."""
        try:
            self.control.sendall(framed(msgspec.msgpack.encode(command)))
        except OSError:
            self.ended = True

    def receive(self) -> Iterator[Batch]:
        """Batches that have arrived whole. Call when `results` is readable."""
        try:
            data = self.results.recv(READ_BYTES)
        except OSError:
            data = b""
        if not data:
            self.ended = True
        for message in self._inbox.take(data):
            batch = decode_batch(message)
            self.last = batch.beat
            yield batch

    def post_mortem(self) -> str:
        """Why the process ended, in one line."""
        try:
            code = self._process.wait(timeout=2.0)
        except subprocess.TimeoutExpired:
            return "it closed its socket but still runs"
        self._said.seek(0)
        lines = self._said.read().decode("utf-8", "replace").strip().splitlines()
        if len(lines) > 1 and lines[-1].startswith("its reader "):
            lines[-1] += f": {lines[-2]}"
        how = f"signal {-code}" if code < 0 else f"exit code {code}"
        return f"{how}{': ' + lines[-1] if lines else ''}"

    def close(self) -> None:
        """End the process, by force if it does not leave."""
        self.control.close()
        self.results.close()
        try:
            self._process.wait(timeout=2.0)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._said.close()


class Processes:
    """A `Fleet` of this machine: worker processes. A context manager; leaving it ends every process."""

    lead_ns = 2_000_000

    def __init__(self, count: int, reading: Reading = Reading(), part: tuple[int, int] = (0, 1)) -> None:  # noqa: B008
        """`part`: which machine this is, of how many with `count` workers each. They are numbered in turn, so that a
        few streams spread over all machines."""
        node, nodes = part
        self._all = count * nodes
        self.workers = [Worker(number, reading) for number in range(node, self._all, nodes)]
        self._selector = selectors.DefaultSelector()
        for worker in self.workers:
            self._selector.register(worker.results, selectors.EVENT_READ, worker)
        self.died: list[str] = []

    def __enter__(self) -> Processes:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """See `Fleet`."""
        for worker in self.workers:
            worker.close()
        self._selector.close()

    def send(self, command: Command) -> None:
        """See `Fleet`. Raises RunFailed where this machine gives no worker the files that its streams need."""
        if isinstance(command, Begin) and isinstance(command.load, Concurrency):
            self._refuse_too_many(command.load)
        for worker in self.workers[: 1 if isinstance(command, Probe) else None]:
            if isinstance(command, Setup):
                worker.send(command.for_worker(worker.number, self._all))
            else:
                worker.send(command)

    def _refuse_too_many(self, load: Concurrency) -> None:
        needed = -(-load.value // self._all) + SPARE_FILES
        limit = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
        if limit != resource.RLIM_INFINITY and needed > limit:
            raise RunFailed(
                f"{load} needs {needed} open files in each worker, and this machine's limit is {limit}; "
                "raise it (ulimit -Hn), or use more --workers"
            )

    def receive(self, timeout_s: float) -> Iterator[Batch]:
        """See `Fleet`."""
        for key, _ in self._selector.select(timeout_s):
            worker: Worker = key.data
            yield from worker.receive()
            if worker.ended:
                self._selector.unregister(worker.results)
                self.died.append(f"worker {worker.number} (process {worker.pid}) ended: {worker.post_mortem()}")
        if len(self.died) == len(self.workers):
            raise RunFailed("; ".join(self.died))

    def finish(self, drain: bool, grace_s: float) -> Iterator[Batch]:
        """See `Fleet`."""
        self.send(Finish(drain, grace_s))
        limit = time.monotonic() + grace_s + 5.0
        waiting = {worker.number for worker in self.workers if not worker.ended}
        while waiting and time.monotonic() < limit:
            for key, _ in self._selector.select(0.1):
                worker: Worker = key.data
                yield from worker.receive()
                if worker.ended:
                    self._selector.unregister(worker.results)
                    waiting.discard(worker.number)

    @property
    def nodes(self) -> list[NodeFacts]:
        """See `Fleet`."""
        return []

    def parts(self, level: int) -> list[NodePart]:
        """See `Fleet`."""
        return []

    def fetch(self, folder: Path, first_part: int) -> None:
        """See `Fleet`: one machine keeps nothing apart."""

    @property
    def beats(self) -> list[Beat]:
        """See `Fleet`."""
        return [w.last for w in self.workers if w.last is not None and not w.ended]


def hired_here(target: Target, setup: Setup, reading: Reading) -> Fleet:
    """A `Hire` of this machine alone."""
    fleet = Processes(setup.workers, reading)
    fleet.send(setup)
    return fleet
