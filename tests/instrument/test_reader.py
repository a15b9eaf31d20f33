"""The process beside a worker: what it hands on, in which order, and what happens when it or its coordinator dies."""

import os
import signal
import socket
import threading
import time
from array import array
from collections.abc import Iterator
from pathlib import Path

import msgspec
import numpy as np
import pytest

from pacemark.endpoint.target import target
from pacemark.errors import RunFailed
from pacemark.instrument.commands import Batch, Inbox, RawBatch, Reading, decode_batch, encode_batch, framed
from pacemark.instrument.fleet import Processes
from pacemark.instrument.reader import read
from pacemark.pace import Concurrency
from pacemark.runs.bench import Bench
from pacemark.scenario import Settings
from pacemark.trace import ABSENT, Beat, RawExchange
from pacemark.workload.words import Workload
from support.processes import SETUP, alive, receive, workers_of
from support.servers import exchange, listening, streamed
from support.waiting import wait_for

EVENT = b'data: {"choices":[{"delta":{"content":"word"}}]}\n\n'
END = b'data: {"choices":[{"delta":{},"finish_reason":"stop"}]}\n\ndata: [DONE]\n\n'


def beat(now_ns: int) -> Beat:
    return Beat(0, now_ns, 0, 0, ABSENT, 0, 0, 0, 0, 0.5, 0, 0, False)


def raw(index: int, events: int) -> RawExchange:
    """An answer whose event k came at 1000 + k, in a read of its own."""
    reads = array("q")
    for k in range(events):
        reads.extend((1000 + k, 0, len(EVENT) * (k + 1)))
    reads.extend((1000 + events, 0, len(EVENT) * events + len(END)))
    return RawExchange(
        0, index, 0, 900, 900, 900, 1, 950, 1000 + events, ABSENT, 200, True, "", "", "", events,
        reads.tobytes(), EVENT * events + END,
    )  # fmt: skip


@pytest.fixture
def reader() -> Iterator[tuple[socket.socket, socket.socket]]:
    """Our ends of the sockets of a reader that has been told how to read: raw batches in, results out."""
    raw_in, theirs = socket.socketpair()
    results, answers = socket.socketpair()
    thread = threading.Thread(target=_read_here, args=(theirs, answers))
    thread.start()
    results.sendall(framed(msgspec.msgpack.encode(Reading())))
    yield raw_in, results
    raw_in.close()
    results.close()
    thread.join(5)
    assert not thread.is_alive()


def _read_here(theirs: socket.socket, answers: socket.socket) -> None:
    with pytest.MonkeyPatch.context() as patch, theirs, answers:
        patch.setattr("pacemark.instrument.reader.yield_to_others", lambda: None)  # this process wants to keep its own
        read(theirs, answers)


def batches(results: socket.socket, count: int) -> list[Batch]:
    inbox = Inbox()
    got: list[Batch] = []
    results.settimeout(10)
    while len(got) < count:
        data = results.recv(1 << 16)
        assert data, f"the reader left after {len(got)} of {count} batches"
        got += [decode_batch(message) for message in inbox.take(data)]
    return got


def test_exchanges_come_understood_and_before_the_beat_that_followed_them(
    reader: tuple[socket.socket, socket.socket],
) -> None:
    raw_in, results = reader
    sent = [RawBatch([raw(10 * n + k, 3) for k in range(n)], beat(n)) for n in range(30)]
    stream = b"".join(framed(msgspec.msgpack.encode(batch)) for batch in sent)
    for begin in range(0, len(stream), 777):  # no piece is a whole message
        raw_in.sendall(stream[begin : begin + 777])
    got = batches(results, 30)
    assert [b.beat for b in got] == [b.beat for b in sent]
    assert [[x.index for x in b.exchanges] for b in got] == [[x.index for x in b.exchanges] for b in sent]
    last = got[-1].exchanges[-1]
    assert last.hi_ns.tolist() == last.lo_ns.tolist() == [1000, 1001, 1002]
    assert (last.output_tokens, last.finish_reason, last.error) == (3, "stop", "")
    assert last.tokens.dtype == np.float32
    assert last.tokens.tolist() == [1, 1, 1]


def test_what_was_sent_is_read_to_its_end_when_the_worker_goes(reader: tuple[socket.socket, socket.socket]) -> None:
    raw_in, results = reader
    raw_in.sendall(framed(msgspec.msgpack.encode(RawBatch([raw(n, 50) for n in range(400)], beat(1)))))
    raw_in.close()
    (batch,) = batches(results, 1)
    assert [x.index for x in batch.exchanges] == list(range(400))
    assert results.recv(1) == b""


def test_a_batch_carries_an_exchange_as_it_is() -> None:
    one = exchange(sent_ms=5.0)
    (back,) = decode_batch(encode_batch(Batch([one], beat(1)))).exchanges
    for name in one.__struct_fields__:
        ours, theirs = getattr(one, name), getattr(back, name)
        if isinstance(ours, np.ndarray):
            assert ours.dtype == theirs.dtype
            assert ours.tolist() == theirs.tolist()
        else:
            assert ours == theirs, name


def children(pid: int) -> list[int]:
    return [int(n) for n in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


needs_children = pytest.mark.skipif(
    not Path(f"/proc/self/task/{os.getpid()}/children").exists(), reason="asks /proc for the children of a process"
)


@needs_children
def test_a_killed_reader_is_named_and_its_worker_ends() -> None:
    with Processes(2) as workers:
        workers.send(SETUP)
        receive(workers, lambda bs: {b.beat.worker for b in bs} == {0, 1})
        victim = workers.workers[1]
        (reader,) = children(victim.pid)
        os.kill(reader, signal.SIGKILL)
        receive(workers, lambda _: bool(workers.died))
        said = f"worker 1 (process {victim.pid}) ended: exit code 1: its reader (process {reader}) ended: signal 9"
        assert workers.died == [said]
        assert not alive(victim.pid)
        assert [b.worker for b in workers.beats] == [0]


@needs_children
def test_nothing_is_left_of_a_fleet() -> None:
    with Processes(2) as workers:
        workers.send(SETUP)
        receive(workers, lambda bs: {b.beat.worker for b in bs} == {0, 1})
        pids = [pid for w in workers.workers for pid in (w.pid, *children(w.pid))]
        assert len(pids) == 4
    wait_for(lambda: not any(alive(pid) for pid in pids))


@needs_children
def test_a_reader_that_cannot_read_says_why(tmp_path: Path) -> None:
    with Processes(1, Reading(tokenizer=str(tmp_path / "none.json"))) as workers:
        workers.send(SETUP)
        with pytest.raises(RunFailed, match=r"its reader \(process \d+\) ended: exit code 1: .*none\.json"):
            receive(workers, lambda _: False)


@needs_children
def test_readers_run_below_their_workers() -> None:
    with Processes(1) as workers:
        workers.send(SETUP)
        receive(workers, lambda bs: len(bs) > 1)
        (reader,) = children(workers.workers[0].pid)
        assert os.getpriority(os.PRIO_PROCESS, reader) > os.getpriority(os.PRIO_PROCESS, workers.workers[0].pid)


def test_a_file_named_random_in_the_working_directory_harms_nobody(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "random.py").write_text("raise SystemExit('not the one you meant')\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))  # where a script's own folder stands
    with Processes(1) as workers:
        workers.send(SETUP)
        assert receive(workers, lambda bs: len(bs) > 1)
        assert workers.died == []


@needs_children
def test_a_reader_killed_within_a_level_makes_it_invalid() -> None:
    killed: list[float] = []
    with listening(streamed(10, gap_s=0.03)) as port:
        settings = Settings(duration_s=1.0, timeout_s=10.0)
        bench = Bench(target(f"http://127.0.0.1:{port}/v1", model="m"), Workload(16, 10), settings)
        with bench:
            bench.prepare()

            def kill(status: object) -> None:
                if not killed:
                    killed.append(time.monotonic())
                    os.kill(children(workers_of(bench)[0].pid)[0], signal.SIGKILL)

            bench.observe = kill
            with pytest.raises(RunFailed, match=r"its reader .* ended: signal 9"):
                bench.measure(Concurrency(2))
            assert time.monotonic() - killed[0] < 10
            (level,) = [r.level for r in bench.finish()]
    assert level.verdict.status == "invalid"
