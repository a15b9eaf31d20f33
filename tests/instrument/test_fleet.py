"""Worker processes: real ones, and what is noticed when they die."""

import itertools
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest

from pacemark.endpoint.target import target
from pacemark.errors import RunFailed
from pacemark.instrument.fleet import Processes
from pacemark.pace import Concurrency
from pacemark.reporting.progress import Status
from pacemark.runs.bench import Bench
from pacemark.scenario import Settings
from pacemark.workload.words import Workload
from support.processes import SETUP, alive, receive, workers_of
from support.servers import listening, streamed
from support.waiting import wait_for


def test_every_worker_has_a_pulse() -> None:
    with Processes(2) as workers:
        workers.send(SETUP)
        batches = receive(workers, lambda bs: {b.beat.worker for b in bs} == {0, 1} and len(bs) > 6)
        pids = [w.pid for w in workers.workers]
        for number in (0, 1):
            own = [b.beat for b in batches if b.beat.worker == number]
            assert all(a.now_ns < b.now_ns and a.cpu_ns <= b.cpu_ns for a, b in itertools.pairwise(own))
        assert {b.worker for b in workers.beats} == {0, 1}
        assert workers.died == []
    assert not any(alive(pid) for pid in pids)


def test_a_worker_told_to_finish_has_not_died() -> None:
    with Processes(2) as workers:
        workers.send(SETUP)
        receive(workers, lambda bs: len(bs) > 2)
        list(workers.finish(drain=True, grace_s=1.0))
        assert workers.died == []
        assert [w._process.wait(5) for w in workers.workers] == [0, 0]


@pytest.mark.parametrize(("most", "each"), [(0, [0, 0, 0]), (2, [1, 1, 1]), (3, [1, 1, 1]), (8, [3, 3, 2])])
def test_workers_share_the_places_of_an_open_loop(most: int, each: list[int]) -> None:
    """--max-in-flight is of all of them together; each needs one to send at all."""
    setup = msgspec.structs.replace(SETUP, max_in_flight=most)
    assert [setup.for_worker(n, 3).max_in_flight for n in range(3)] == each


def test_a_killed_worker_is_named() -> None:
    with Processes(2) as workers:
        workers.send(SETUP)
        receive(workers, lambda _: {b.worker for b in workers.beats} == {0, 1})
        victim = workers.workers[1]
        os.kill(victim.pid, signal.SIGKILL)
        receive(workers, lambda _: bool(workers.died))
        assert workers.died == [f"worker 1 (process {victim.pid}) ended: signal 9"]
        assert [b.worker for b in workers.beats] == [0]


def test_when_all_have_died_the_run_has_failed() -> None:
    with Processes(2) as workers:
        workers.send(SETUP)
        receive(workers, lambda bs: len(bs) > 2)
        for worker in workers.workers:
            os.kill(worker.pid, signal.SIGKILL)
        with pytest.raises(RunFailed, match=r"worker 0 .*signal 9.*worker 1|worker 1 .*signal 9.*worker 0"):
            receive(workers, lambda _: False)


def test_a_worker_that_breaks_says_why() -> None:
    with Processes(2) as workers:
        workers.send(SETUP)
        receive(workers, lambda bs: len(bs) > 2)
        workers.workers[0].control.sendall(b"\0\0\0\x01\x01")  # no command
        receive(workers, lambda _: bool(workers.died))
        assert "worker 0" in workers.died[0]
        assert "exit code 1: " in workers.died[0]
        assert "ValidationError" in workers.died[0]


COORDINATOR = """
import sys
from support.processes import SETUP
from pacemark.instrument.fleet import Processes
with Processes(2) as workers:
    workers.send(SETUP)
    print(*(w.pid for w in workers.workers), flush=True)
    sys.stdin.read()
"""


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="asks /proc who lives")
def test_workers_end_with_their_coordinator() -> None:
    """However it ends: an orphan would go on loading the endpoint."""
    process = subprocess.Popen(
        [sys.executable, "-c", COORDINATOR],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env=os.environ | {"PYTHONPATH": os.pathsep.join(p for p in sys.path if p)},
    )
    with process:
        assert process.stdout
        pids = [int(pid) for pid in process.stdout.readline().split()]
        assert len(pids) == 2
        assert all(alive(pid) for pid in pids)
        process.kill()
    wait_for(lambda: not any(alive(pid) for pid in pids))


FEW = """
import resource
resource.setrlimit(resource.RLIMIT_NOFILE, (64, 64))
from support.processes import SETUP
from pacemark.errors import RunFailed
from pacemark.instrument.commands import Begin
from pacemark.instrument.fleet import Processes
from pacemark.pace import Concurrency
with Processes(2) as workers:
    workers.send(SETUP)
    workers.send(Begin(0, Concurrency(60), 0, 1))
    try:
        workers.send(Begin(0, Concurrency(128), 0, 1))
    except RunFailed as error:
        print(error)
"""


def test_a_limit_of_open_files_is_told_before_the_start() -> None:
    env = os.environ | {"PYTHONPATH": os.pathsep.join(p for p in sys.path if p)}
    done = subprocess.run([sys.executable, "-c", FEW], capture_output=True, text=True, env=env, timeout=60, check=True)
    assert "needs 88 open files in each worker, and this machine's limit is 64" in done.stdout


# --- in the middle of a level


class Killer:
    """Watches a run and kills one of its workers in the phase that it was told."""

    def __init__(self, phase: str) -> None:
        self.phase = phase
        self.bench: Bench | None = None
        self.killed = 0
        self.end = time.monotonic() + 20

    def __call__(self, status: Status) -> None:
        assert time.monotonic() < self.end, f"the level hangs in its {status.phase}"
        if self.bench and not self.killed and status.phase == self.phase and status.in_flight:
            victim = workers_of(self.bench)[1]
            self.killed = victim.pid
            os.kill(victim.pid, signal.SIGKILL)


@pytest.fixture(scope="module")
def endpoint() -> Iterator[str]:
    with listening(streamed(10, gap_s=0.03)) as port:
        yield f"http://127.0.0.1:{port}/v1"


@pytest.mark.parametrize("phase", ["ramp", "measuring"])
def test_a_worker_killed_within_a_level_makes_it_invalid(endpoint: str, phase: str) -> None:
    killer = Killer(phase)
    settings = Settings(duration_s=1.0, workers=2, timeout_s=10.0)
    workload = Workload(input_tokens=16, output_tokens=10)
    with Bench(target(endpoint, model="m"), workload, settings, observe=killer) as bench:
        bench.prepare()
        killer.bench = bench
        with pytest.raises(RunFailed, match=r"worker 1 \(process \d+\) ended: signal 9"):
            bench.measure(Concurrency(4))
        (level,) = [r.level for r in bench.finish()]
    assert killer.killed
    assert level.verdict.status == "invalid"
    reasons = {r.code: r.message for r in level.verdict.reasons}
    assert f"worker 1 (process {killer.killed}) ended: signal 9" in reasons["worker_died"]
    # What the others measured until then is kept.
    assert level.requests.completed > 0 or phase == "ramp"


def test_two_workers_share_the_load_evenly(endpoint: str) -> None:
    settings = Settings(duration_s=1.0, workers=2, timeout_s=10.0)
    with Bench(target(endpoint, model="m"), Workload(input_tokens=16, output_tokens=10), settings) as bench:
        bench.prepare()
        result = bench.measure(Concurrency(5))
        bench.finish()
    streams = sorted(set(result.trace.stream.tolist()))
    assert streams == [0, 1, 2, 3, 4]
    assert result.level.errors == {}
    assert len(result.health.worker_cpu_share) == 2
