"""Machines that are threads of this one: agents with real workers, whose clock and distance a test chooses."""

from __future__ import annotations

import contextlib
import random
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from time import monotonic_ns
from typing import Any

import msgspec

from pacemark.endpoint.target import Target, target
from pacemark.instrument.agent import NodeAgent
from pacemark.instrument.clocks import BEAT_TIMES, EXCHANGE_TIMES
from pacemark.instrument.commands import Batch, Begin, Command, Reading, Setup
from pacemark.instrument.fleet import Fleet, Hire, Processes
from pacemark.instrument.nodes import Nodes
from pacemark.runs.bench import Bench
from pacemark.scenario import Settings, Workload
from pacemark.simulator import serving
from pacemark.trace import ABSENT

BORN_NS = monotonic_ns()


@dataclass
class Machine:
    """One that is an `offset_ns` ahead, whose clock runs `ppm` fast, and to which a call takes up to `delay_s`."""

    offset_ns: int = 0
    ppm: float = 0.0
    delay_s: float = 0.0
    silent: bool = False
    """It takes calls and answers none."""
    gone: str = ""
    """A call to it fails, for this reason."""
    changes: dict[str, Any] = field(default_factory=dict)
    """What it says of itself otherwise than it is."""

    def theirs(self, ours_ns: int) -> int:
        return ours_ns + self.offset_ns + round((ours_ns - BORN_NS) * self.ppm / 1e6)

    def now_ns(self) -> int:
        return self.theirs(monotonic_ns())

    def ours(self, theirs_ns: int) -> int:
        return BORN_NS + round((theirs_ns - self.offset_ns - BORN_NS) / (1 + self.ppm / 1e6))


class Elsewhere(Processes):
    """Workers whose times are those of their machine."""

    def __init__(self, machine: Machine, *words: Any) -> None:
        super().__init__(*words)
        self._machine = machine

    def send(self, command: Command) -> None:
        if isinstance(command, Begin):
            command = msgspec.structs.replace(command, start_ns=self._machine.ours(command.start_ns))
        super().send(command)

    def receive(self, timeout_s: float) -> Iterator[Batch]:
        for batch in super().receive(timeout_s):
            yield Batch([self._moved(x, EXCHANGE_TIMES) for x in batch.exchanges], self._moved(batch.beat, BEAT_TIMES))

    def _moved(self, of: Any, names: Sequence[str]) -> Any:
        known = ((name, getattr(of, name)) for name in names)
        changes: dict[str, Any] = {name: self._machine.theirs(ns) for name, ns in known if ns != ABSENT}
        if names is EXCHANGE_TIMES:
            for name in ("hi_ns", "lo_ns"):
                times = getattr(of, name)
                drift = (times - BORN_NS) * (self._machine.ppm / 1e6)
                changes[name] = times + self._machine.offset_ns + drift.round().astype(times.dtype)
        return msgspec.structs.replace(of, **changes)


def _called(agent: NodeAgent, machine: Machine, pool: ThreadPoolExecutor) -> Callable[..., Future[Any]]:
    def call(method: str, *words: Any) -> Future[Any]:
        def there() -> Any:
            time.sleep(random.random() * machine.delay_s)
            if machine.gone:
                raise ConnectionError(machine.gone)
            found = getattr(agent, method)(*words)
            while machine.silent and method != "close":
                time.sleep(0.02)
            time.sleep(random.random() * machine.delay_s)
            return msgspec.structs.replace(found, **machine.changes) if method == "facts" else found

        return pool.submit(there)

    return call


@contextlib.contextmanager
def hired_afar(*machines: Machine) -> Iterator[Hire]:
    """A `Hire` of these machines."""
    with contextlib.ExitStack() as stack:

        def hire(target: Target, setup: Setup, reading: Reading) -> Fleet:
            calls = []
            for machine in machines:
                agent = NodeAgent(machine.now_ns, partial(Elsewhere, machine))
                stack.callback(agent.close)
                calls.append(_called(agent, machine, stack.enter_context(ThreadPoolExecutor(4))))
            fleet = Nodes(calls, str, lambda: None)
            fleet.open(target, setup, reading, loopback=True)
            return fleet

        yield hire
        for machine in machines:
            machine.silent = False


@contextlib.contextmanager
def bench_afar(*machines: Machine, duration_s: float, workers: int = 1) -> Iterator[Bench]:
    """A bench of these machines before an endpoint that answers to a fixed timeline; not prepared yet."""
    with (
        serving("fixed", ttft_ms=50.0, itl_ms=5.0) as served,
        hired_afar(*machines) as hire,
        Bench(
            target(served.url, model=served.model),
            Workload(32, 20, 3),
            Settings(duration_s=duration_s, nodes=len(machines), workers=workers),
            hire=hire,
        ) as ready,
    ):
        yield ready
