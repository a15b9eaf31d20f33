"""What stands on each machine of several: its worker processes, and an ear for the one that coordinates them all.

Nothing here is measured: an agent hands commands to its workers, and what they give to whoever asks for it, with every
time moved to the coordinating machine's clock. It knows no engine; one that starts processes on other machines starts
this class, and calls its methods.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import platform
import socket
from collections import defaultdict
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from time import monotonic_ns

import msgspec
import numpy as np
from numpy.typing import NDArray

from pacemark.cpu import cpus
from pacemark.endpoint.address import Address
from pacemark.endpoint.proxy import is_loopback, proxy_for
from pacemark.endpoint.target import Target, resolve
from pacemark.errors import BadInput, PacemarkError, RunFailed
from pacemark.files import cache_folder
from pacemark.instrument.apart import EventLog
from pacemark.instrument.clocks import batch_here
from pacemark.instrument.commands import PROBE_LEVEL, Batch, Begin, Command, Reading, Setup, encode_batch
from pacemark.instrument.fleet import Processes
from pacemark.machine import boot_id, room_for
from pacemark.nodes import NodeFacts
from pacemark.pace import Concurrency
from pacemark.trace import ABSENT
from pacemark.version import __version__

ANSWER_BYTES = 8 << 20
"""What one answer holds at the most; what is left waits in the workers' sockets, and holds their readers up."""


class Polled(msgspec.Struct, frozen=True):
    """What workers gave since they were last asked for it."""

    received_ns: int
    """By the agent's clock: when it was asked; then when it answered."""
    answered_ns: int
    batches: list[bytes]
    died: list[str]
    """A line for every worker that ended so far."""
    left: int
    """Workers that have not ended."""


class Lag(msgspec.Struct, frozen=True):
    """How the reads of a level were stamped."""

    reads: int = 0
    stamped: int = 0
    spread_ns: tuple[int, int, int] | None = None
    """p50, p99 and maximum of the stamped ones."""


class NodeAgent:
    """The workers of one machine."""

    def __init__(
        self, now_ns: Callable[[], int] = monotonic_ns, processes: Callable[..., Processes] = Processes
    ) -> None:
        """Another clock, and other processes, are for tests."""
        self._now_ns, self._processes = now_ns, processes
        self._facts = NodeFacts(name=platform.node())
        self._fleet: Processes | None = None
        self._offsets_ns: dict[int, int] = {}
        self._log = EventLog()
        self._parts: dict[int, int] = {}
        """For each level whose events are kept apart: the number of this machine's part file."""
        self._number = 0
        self._lags: defaultdict[int, list[NDArray[np.int32]]] = defaultdict(list)

    def facts(self, engine: str) -> NodeFacts:
        """What there is to know of this machine before it does anything; `engine` is the package that started it."""
        self._facts = NodeFacts(
            name=platform.node(),
            boot=boot_id(),
            cpus=cpus(),
            pacemark=__version__,
            code=digest_of_code(),
            python=platform.python_version(),
            engine=f"{engine} {version(engine)}" if engine else "",
            calibrated=_calibrated(),
        )
        return self._facts

    def clock(self) -> tuple[int, int]:
        """The time, when it was asked for and when it was told."""
        now_ns = self._now_ns()
        return now_ns, now_ns

    def open(
        self, target: Target, setup: Setup, reading: Reading, part: tuple[int, int], offset_ns: int, loopback: bool
    ) -> NodeFacts | str:
        """Start the workers of `part` (which machine, of how many). The target is looked up here, where it is asked.

        `loopback`: addresses of this machine itself will do. Gives what there is to know now, or why it cannot be.
        """
        try:
            addresses = resolve(target)
            proxy = proxy_for(target.url)
        except BadInput as error:
            return str(error)
        if not loopback and any(is_loopback(address.sockaddr[0]) for address in addresses):
            return f"{target.host} is that machine itself there: name the target as other machines know it"
        self._offsets_ns[PROBE_LEVEL], self._number = offset_ns, part[0]
        self._fleet = self._processes(setup.workers, reading, part)
        self._fleet.send(msgspec.structs.replace(setup, addresses=addresses))
        return msgspec.structs.replace(
            self._facts,
            address=_towards(addresses[0]),
            workers=setup.workers,
            niceness=max(os.getpriority(os.PRIO_PROCESS, worker.pid) for worker in self._fleet.workers),
            target=[f"{address.sockaddr[0]}:{address.sockaddr[1]}" for address in addresses],
            proxy=f"{proxy.host}:{proxy.port}" if proxy else "",
        )

    def send(self, command: Command, offset_ns: int, nodes: int) -> str:
        """Have the workers obey; `offset_ns` holds for the level that it begins. Gives why not, or nothing."""
        assert self._fleet is not None
        try:
            if isinstance(command, Begin):
                self._offsets_ns[command.level] = offset_ns
                if command.first_part != ABSENT:
                    self._parts[command.level] = command.first_part + self._number
                for past in [level for level in self._lags if level < command.level - 1]:
                    del self._lags[past]
                if isinstance(command.load, Concurrency):
                    room_for(-(-command.load.value // nodes), workers=len(self._fleet.workers))
            self._fleet.send(command)
        except PacemarkError as error:
            return str(error)
        return ""

    def poll(self, wait_s: float) -> Polled:
        """All that the workers give within `wait_s`, or as much as one answer holds."""
        assert self._fleet is not None
        received_ns, end_ns = self._now_ns(), monotonic_ns() + int(wait_s * 1e9)
        batches: list[bytes] = []
        size = 0
        try:
            while size < ANSWER_BYTES and self._left() and (left_ns := end_ns - monotonic_ns()) > 0:
                for batch in self._fleet.receive(left_ns / 1e9):
                    for x in batch.exchanges:
                        self._lags[x.level].append(x.lag_ns)
                    batches.append(encode_batch(self._in_outline(batch_here(batch, self._offsets_ns))))
                    size += len(batches[-1])
        except RunFailed:  # all have ended; each has its line
            pass
        return Polled(received_ns, self._now_ns(), batches, list(self._fleet.died), self._left())

    def _in_outline(self, batch: Batch) -> Batch:
        """What is told of a batch: all of it, or less where events are kept apart."""
        found = [self._log.put(x, self._parts[x.level]) if x.level in self._parts else x for x in batch.exchanges]
        return msgspec.structs.replace(batch, exchanges=found)

    def events(self, start: int) -> bytes:
        """What is kept apart here, from byte `start` on; `CHUNK_BYTES` at the most."""
        return self._log.read(start)

    def lag(self, level: int) -> Lag:
        """How the reads of a level were stamped so far."""
        lags = np.concatenate([np.zeros(0, np.int32), *self._lags[level]])
        stamped = lags[lags >= 0]
        if not len(stamped):
            return Lag(len(lags))
        p50, p99 = np.quantile(stamped, [0.5, 0.99], method="higher").tolist()
        return Lag(len(lags), len(stamped), (p50, p99, int(stamped.max())))

    def close(self) -> None:
        """End the workers, and let go of what is kept here."""
        self._log.close()
        if self._fleet is not None:
            self._fleet.close()
            self._fleet = None

    def _left(self) -> int:
        return sum(not worker.ended for worker in self._fleet.workers) if self._fleet is not None else 0


def _towards(address: Address) -> str:
    """The address of this machine from which it reaches another; nothing is sent to find that out."""
    with contextlib.suppress(OSError), socket.socket(address.family, socket.SOCK_DGRAM) as way:
        way.connect(address.sockaddr)
        return str(way.getsockname()[0])
    return ""


def digest_of_code() -> str:
    """Of pacemark's own files: two machines of one version may still have two states of it."""
    root = Path(__file__).parents[1]
    found = hashlib.sha256()
    for path in sorted(root.rglob("*.py")):
        found.update(str(path.relative_to(root)).encode() + b"\0" + path.read_bytes())
    return found.hexdigest()[:12]


def _calibrated() -> list[int]:
    """Streams that this machine was calibrated for, plain and over TLS; empty where it never was."""
    try:
        known = msgspec.json.decode((cache_folder() / "calibration.json").read_bytes())
        return [int(known["plain"]), int(known["tls"])] if known["host"] == platform.node() else []
    except (OSError, KeyError, TypeError, ValueError):
        return []
