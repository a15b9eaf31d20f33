"""A fleet of several machines, with threads for machines: what it measures, and what it says when one is lost."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

import pacemark
from pacemark.endpoint.target import target
from pacemark.errors import BadInput, RunFailed
from pacemark.instrument.commands import Reading
from pacemark.instrument.nodes import Nodes
from pacemark.nodes import NodeLevel
from pacemark.pace import Concurrency, Load, Rate
from pacemark.runs.bench import Bench
from pacemark.runs.folder import RunFolder
from pacemark.simulator import serving
from support.afar import Machine, bench_afar, hired_afar
from support.processes import SETUP, family
from support.samples import known
from support.servers import listening, streamed
from support.waiting import wait_for

HOUR_NS = 3_600_000_000_000


@contextlib.contextmanager
def bench(*machines: Machine, duration_s: float = 1.5, workers: int = 1) -> Iterator[Bench]:
    with bench_afar(*machines, duration_s=duration_s, workers=workers) as ready:
        ready.prepare()
        yield ready


@pytest.mark.slow(shared=True)
@pytest.mark.parametrize("load", [Rate(40.0), Concurrency(8)], ids=str)
def test_machines_an_hour_apart_measure_one_timeline(load: Load) -> None:
    """The endpoint answers after 50 ms and every 5 ms, wherever it is asked from."""
    with bench(Machine(HOUR_NS, 50.0, 0.001), Machine(-HOUR_NS, -50.0, 0.002)) as ready:
        result = ready.measure(load)
        ready.finish()
    level, trace = result.level, result.trace
    assert level.requests.failed == 0
    assert 49.0 < known(level.ttft_ms.p50.value) < 500.0
    assert 4.0 < known(level.tpot_ms.p50.value) < 50.0
    assert (trace.ended_ns > trace.sent_ns).all()
    assert (trace.sent_ns >= trace.scheduled_ns).all()
    assert len(set(trace.index.tolist())) == len(trace)
    ahead, behind = nodes_of(level.nodes)
    assert min(ahead.requests, behind.requests) > 0.25 * level.requests.in_window
    assert ahead.requests + behind.requests == level.requests.in_window
    assert ahead.offset_s == pytest.approx(3600.0, abs=1.0)
    assert behind.offset_s == pytest.approx(-3600.0, abs=1.0)
    assert 0 < ahead.offset_bound_ms < 5.0
    assert "clocks" not in {reason.code for reason in level.verdict.reasons}


def nodes_of(found: object) -> list[NodeLevel]:
    assert isinstance(found, list)
    return found


@pytest.mark.slow(shared=True)
def test_what_the_machines_were_is_kept_with_the_run(tmp_path: Path) -> None:
    with (
        bench(Machine(), Machine(HOUR_NS)) as ready,
        contextlib.closing(RunFolder.create(tmp_path, "x", {"schema": "x"})) as folder,
    ):
        ready.folder = folder
        level = ready.measure(Concurrency(2)).level
        ready.finish()
        parts = folder.parts(0)
    assert [part.name for part in parts] == [node.name for node in nodes_of(level.nodes)]
    assert parts[1].offset_ns == pytest.approx(HOUR_NS, abs=1e9)
    assert all(part.reads > 0 for part in parts)
    assert {node.workers for node in ready.nodes} == {1}
    assert {node.target[0].partition(":")[0] for node in ready.nodes} == {"127.0.0.1"}


def lost(ready: Bench, trouble: Callable[[], None]) -> tuple[str, str]:
    """What is said of a level in whose window something happens to a machine, and the verdict on it."""
    wait_s = 0.8
    timer = threading.Timer(wait_s, trouble)
    timer.start()
    with pytest.raises(RunFailed) as said:
        ready.measure(Concurrency(8))
    timer.join()
    (result,) = ready.finish(drain=False)
    assert result.level.requests.completed > 0
    assert result.level.verdict.status == "invalid"
    return str(said.value), " ".join(reason.message for reason in result.level.verdict.reasons)


@pytest.mark.slow(shared=True)
def test_a_silent_machine_ends_the_level_by_name() -> None:
    machine = Machine()
    with bench(Machine(), machine, duration_s=30.0) as ready:
        said, verdict = lost(ready, lambda: setattr(machine, "silent", True))
    assert "#1 is lost: silent for 2 s; the load could not be kept up" in said
    assert "#1 is lost: silent for 2 s" in verdict


def test_nobody_is_silent_while_nobody_looks() -> None:
    """After a long look at its figures the coordinator gives every machine its two seconds again."""
    machine = Machine()
    with bench(machine) as ready:
        fleet = ready._workers
        machine.silent = True
        time.sleep(2.5)
        list(fleet.receive(0.0))
        list(fleet.receive(0.2))
        assert fleet.died == []
        machine.silent = False
        wait_for(lambda: list(fleet.receive(0.1)))
        assert fleet.died == []


def test_a_machine_that_is_gone_ends_the_level_by_name() -> None:
    machine = Machine()
    with bench(Machine(), machine, duration_s=30.0) as ready:
        said, verdict = lost(ready, lambda: setattr(machine, "gone", "no route to it"))
    assert "#1 is lost: no route to it" in said
    assert "#1 is lost: no route to it" in verdict


@pytest.mark.slow(shared=True)
def test_a_killed_worker_is_named_with_its_machine() -> None:
    with bench(Machine(), Machine(), duration_s=30.0) as ready:
        said, _ = lost(ready, lambda: os.kill(worker_processes()[0], signal.SIGKILL))
    assert " #" in said
    assert "signal 9" in said


def worker_processes() -> list[int]:
    return [pid for pid in family(os.getpid()) if b"instrument.worker" in command(pid)]


def command(pid: int) -> bytes:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return b""


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"pacemark": "0.0.9"}, r"has pacemark 0\.0\.9 \(.* here\): install the same"),
        ({"code": "another"}, "another state of pacemark's files"),
        ({"python": "3.9.1"}, r"has Python 3\.9 \(3\..* here\)"),
    ],
)
def test_machines_that_are_unlike_are_refused(changes: dict[str, str], words: str) -> None:
    with pytest.raises(BadInput, match=words), bench(Machine(), Machine(changes=changes)):
        pass


def test_a_target_on_the_machines_themselves_is_refused() -> None:
    with (
        hired_afar(Machine()) as hire,
        contextlib.closing(hire(target("http://127.0.0.1:9"), SETUP, Reading())) as fleet,
    ):
        assert isinstance(fleet, Nodes)
        with pytest.raises(BadInput, match="is that machine itself there"):
            fleet.open(target("http://localhost:9"), SETUP, Reading(), loopback=False)


def test_another_proxy_on_a_machine_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:8")
    monkeypatch.delenv("no_proxy", raising=False)
    monkeypatch.setattr("pacemark.instrument.nodes.proxy_for", lambda url: None)
    with (
        hired_afar(Machine()) as hire,
        pytest.raises(BadInput, match=r"asks the target through 127\.0\.0\.1:8, .* no proxy"),
    ):
        hire(target("http://llm.test"), SETUP, Reading())


def test_one_who_asks_too_much_of_a_machine_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pacemark.machine._ports", lambda: 3)
    with bench(Machine(), Machine()) as ready, pytest.raises(RunFailed, match="has 3 ports for outgoing connections"):
        ready.measure(Concurrency(8))


def test_every_machine_ends_with_the_fleet() -> None:
    with listening(streamed(4)) as port, hired_afar(Machine(), Machine()) as hire:
        fleet = hire(target(f"http://127.0.0.1:{port}"), SETUP, Reading())
        wait_for(lambda: len(worker_processes()) == 4)  # each with its reader
        before = worker_processes()
        fleet.close()
        wait_for(lambda: not any(command(pid) for pid in before))


@pytest.mark.slow(shared=True)
def test_the_rows_of_a_file_are_each_sent_once_over_all_machines(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The public way, from the file to what is stored."""
    rows = tmp_path / "rows.jsonl"
    rows.write_text("".join(json.dumps({"prompt": f"row number {n}"}) + "\n" for n in range(60)))
    with serving("fixed", ttft_ms=20.0, itl_ms=2.0) as served, hired_afar(Machine(HOUR_NS), Machine()) as hire:
        monkeypatch.setattr("pacemark.runs.conduct._hire", lambda settings, observe: hire)
        run = pacemark.run(
            served.url, model=served.model, data=str(rows), once=True, concurrency=4, output_tokens=4, nodes=2,
            out=tmp_path / "runs",
        )  # fmt: skip
    with contextlib.closing(RunFolder.open(run.path)) as folder:
        origins = folder.trace(0).origin.tolist()
    assert sorted(origins) == list(range(1, 61))
    assert [node["workers"] for node in run.summary.run["nodes"]] == [1, 1]
    assert "Node: " in (run.path / "report.html").read_text()


def test_workers_are_numbered_in_turn() -> None:
    """A few streams spread over all machines."""
    with bench(Machine(), Machine(), workers=2) as ready:
        ready.rest(0.5)
        fleet = ready._workers
        assert isinstance(fleet, Nodes)
        assert [set(node.beats) for node in fleet._nodes] == [{0, 2}, {1, 3}]
