"""The worker processes, seen from the process that coordinates them."""

from __future__ import annotations

import os
import selectors
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from types import TracebackType

import msgspec

from pacemark.errors import RunFailed
from pacemark.instrument.generator import Batch, Command, Finish, Setup
from pacemark.trace import Beat


class Worker:
    """One worker process and the socket to it."""

    def __init__(self, number: int) -> None:
        self.number = number
        ours, theirs = socket.socketpair()
        with theirs:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "pacemark.instrument.generator", str(theirs.fileno())],
                pass_fds=[theirs.fileno()],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.PIPE,
                # Ctrl-C is for the coordinator, which then ends the workers in order.
                start_new_session=True,
                env=os.environ | {"PYTHONPATH": os.pathsep.join(p for p in sys.path if p)},
            )
        self.socket = ours
        self._buffer = bytearray()
        self._decode = msgspec.msgpack.Decoder(Batch).decode
        self.last: Beat | None = None
        self.ended = False

    @property
    def pid(self) -> int:
        """Process id."""
        return self._process.pid

    def send(self, command: Command) -> None:
        """Hand over a command."""
        data = msgspec.msgpack.encode(command)
        try:
            self.socket.sendall(len(data).to_bytes(4, "big") + data)
        except OSError:
            self.ended = True

    def receive(self) -> Iterator[Batch]:
        """Batches that have arrived whole. Call when the socket is readable."""
        try:
            data = self.socket.recv(1 << 20)
        except OSError:
            data = b""
        if not data:
            self.ended = True
        self._buffer += data
        start = 0
        while len(self._buffer) - start >= 4:
            size = int.from_bytes(self._buffer[start : start + 4], "big")
            if len(self._buffer) - start - 4 < size:
                break
            batch = self._decode(memoryview(self._buffer)[start + 4 : start + 4 + size])
            start += 4 + size
            self.last = batch.beat
            yield batch
        del self._buffer[:start]

    def post_mortem(self) -> str:
        """Why the process ended, in one line."""
        try:
            code = self._process.wait(timeout=2.0)
        except subprocess.TimeoutExpired:
            return "it closed its socket but still runs"
        said = self._process.stderr.read().decode("utf-8", "replace") if self._process.stderr else ""
        lines = said.strip().splitlines()
        how = f"signal {-code}" if code < 0 else f"exit code {code}"
        return f"{how}{': ' + lines[-1] if lines else ''}"

    def close(self) -> None:
        """End the process, by force if it does not leave."""
        self.socket.close()
        try:
            self._process.wait(timeout=2.0)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        if self._process.stderr is not None:
            self._process.stderr.close()


class Workers:
    """All workers of a run. A context manager; leaving it ends every process."""

    def __init__(self, count: int) -> None:
        self.workers = [Worker(n) for n in range(count)]
        self._selector = selectors.DefaultSelector()
        for worker in self.workers:
            self._selector.register(worker.socket, selectors.EVENT_READ, worker)
        self.died: list[str] = []
        """A line for every worker that ended without being told to."""

    def __enter__(self) -> Workers:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for worker in self.workers:
            worker.close()
        self._selector.close()

    def set_up(self, setup: Setup) -> None:
        """Give every worker its part of `setup`."""
        for worker in self.workers:
            worker.send(msgspec.structs.replace(setup, worker=worker.number, workers=len(self.workers)))

    def send(self, command: Command) -> None:
        """Give every worker the same command."""
        for worker in self.workers:
            worker.send(command)

    def receive(self, timeout_s: float) -> Iterator[Batch]:
        """Batches from all workers, waiting at most `timeout_s` for the first. Raises RunFailed if all died."""
        for key, _ in self._selector.select(timeout_s):
            worker: Worker = key.data
            yield from worker.receive()
            if worker.ended:
                self._selector.unregister(worker.socket)
                self.died.append(f"worker {worker.number} (process {worker.pid}) ended: {worker.post_mortem()}")
        if len(self.died) == len(self.workers):
            raise RunFailed("; ".join(self.died))

    def finish(self, drain: bool, grace_s: float) -> Iterator[Batch]:
        """Let workers end; yields what they still send."""
        self.send(Finish(drain, grace_s))
        limit = time.monotonic() + grace_s + 5.0
        waiting = {worker.number for worker in self.workers if not worker.ended}
        while waiting and time.monotonic() < limit:
            for key, _ in self._selector.select(0.1):
                worker: Worker = key.data
                yield from worker.receive()
                if worker.ended:
                    self._selector.unregister(worker.socket)
                    waiting.discard(worker.number)

    @property
    def beats(self) -> list[Beat]:
        """The last pulse of every worker that lives."""
        return [w.last for w in self.workers if w.last is not None and not w.ended]
