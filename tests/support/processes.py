"""Worker processes in tests."""

import contextlib
from collections.abc import Callable
from pathlib import Path

from pacemark.instrument.commands import Batch, Setup
from pacemark.instrument.fleet import Processes, Worker
from pacemark.runs.bench import Bench
from support.servers import address
from support.waiting import wait_for

SETUP = Setup(worker=0, workers=1, addresses=[address(9)], timeout_s=5.0, seed=0)


def alive(pid: int) -> bool:
    """Whether a process runs; one that only waits to be reaped does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except OSError:
        return False


def workers_of(bench: Bench) -> list[Worker]:
    """The worker processes of a bench on this machine."""
    assert isinstance(bench._workers, Processes)
    return bench._workers.workers


def family(pid: int) -> list[int]:
    """A process and all that came from it."""
    found = [pid]
    for one in found:
        for task in Path(f"/proc/{one}/task").glob("*/children"):
            with contextlib.suppress(OSError):  # it has just ended
                found += map(int, task.read_text().split())
    return found


def receive(workers: Processes, done: Callable[[list[Batch]], bool]) -> list[Batch]:
    """Batches of `workers` until `done` says that they are enough."""
    batches: list[Batch] = []

    def more() -> bool:
        batches.extend(workers.receive(0.05))
        return done(batches)

    wait_for(more)
    return batches
