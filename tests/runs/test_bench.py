"""A level's life over real sockets: what it leaves behind, what it gives up, what it waits for."""

from __future__ import annotations

import asyncio
import contextlib
import os
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from pacemark.endpoint.target import target
from pacemark.errors import BadInput, RunFailed
from pacemark.pace import Concurrency, Rate
from pacemark.reporting.progress import Status
from pacemark.runs.bench import Bench
from pacemark.scenario import Settings
from pacemark.workload.words import Workload
from support.cli_tools import Asked, Reply, as_json, server, streamed
from support.servers import DONE, STREAM_HEAD, answer, chunk, delta, listening, read_request, stream, usage
from support.servers import streamed as served

WORKLOAD = Workload(input_tokens=16, output_tokens=8, seed=1)


def children() -> set[int]:
    found: set[int] = set()
    for task in Path("/proc/self/task").iterdir():
        with contextlib.suppress(FileNotFoundError):  # a thread that has just ended
            found |= {int(pid) for pid in (task / "children").read_text().split()}
    return found


def bench(url: str, observe: object = None, **settings: object) -> Bench:
    given = {"duration_s": 0.5, "timeout_s": 20.0} | settings
    watch = observe if callable(observe) else lambda status: None
    return Bench(target(url, model="m"), WORKLOAD, Settings(**given), observe=watch)  # type: ignore[arg-type]


@pytest.mark.skipif(not Path(f"/proc/self/task/{os.getpid()}/children").exists(), reason="needs Linux")
def test_an_unknown_host_leaves_no_process_behind() -> None:
    before = children()
    with pytest.raises(BadInput, match="no address for host"):
        bench("http://no-such-host.invalid/v1", workers=2)
    assert children() == before
    with server(streamed) as url, bench(url, workers=2):
        assert len(children() - before) == 2
    assert children() == before


@pytest.mark.slow(shared=True)
def test_a_level_that_was_given_up_takes_no_other_with_it() -> None:
    broken = threading.Event()

    def reply(asked: Asked) -> Reply:
        return as_json({"error": {"message": "no luck"}}, 500) if broken.is_set() else streamed(asked)

    with server(reply) as url, bench(url) as ready:
        ready.prepare()
        ready.measure(Concurrency(2))
        broken.set()
        with pytest.raises(RunFailed, match=r"requests at concurrency 16 failed \(http_500\): no luck"):
            ready.measure(Concurrency(16))
        broken.clear()
        ready.measure(Concurrency(4))
        results = ready.finish()
    assert [r.load for r in results] == [Concurrency(2), Concurrency(16), Concurrency(4)]
    assert [r.level.ended_by for r in results] == ["duration", "interrupted", "duration"]
    assert results[2].level.requests.completed > 0
    assert results[1].level.requests.completed < results[1].level.requests.failed


@pytest.mark.slow(shared=True)
def test_nothing_is_sent_during_a_rest() -> None:
    asked = 0

    def reply(request: Asked) -> Reply:
        nonlocal asked
        asked += 1
        return streamed(request)

    with server(reply) as url, bench(url) as ready:
        ready.prepare()
        ready.measure(Concurrency(4))
        ready.rest(0.3)  # what was in flight ends
        before = asked
        ready.rest(0.5)
        assert asked == before
        again = ready.measure(Concurrency(4))
        ready.finish()
    assert asked > before
    assert again.level.requests.completed > 0
    assert not again.level.requests.failed


def test_refusals_do_not_hide_the_streams_that_are_being_answered() -> None:
    """Two at a time are served, each for a second; the others are turned away at once."""
    flying = 0
    slow = threading.Event()

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal flying
        while True:
            await read_request(reader)
            if flying >= 2:
                writer.write(answer(b'{"error": "too many"}', status="429 Too Many Requests"))
                continue
            flying += 1
            try:
                await stream(writer, 8, gap_s=0.12 if slow.is_set() else 0.0)
            finally:
                flying -= 1

    with listening(handle) as port, bench(f"http://127.0.0.1:{port}/v1") as ready:
        ready.prepare()
        slow.set()
        result = ready.measure(Concurrency(12))
        ready.finish()
    assert result.level.requests.failed >= 12
    assert result.level.requests.completed > 0


def test_a_server_that_loads_its_model_is_waited_for() -> None:
    notes: list[str] = []

    def reply(asked: Asked) -> Reply:
        return as_json({"error": {"message": "Loading model"}}, 503) if asked.number < 3 else streamed(asked)

    def observe(status: Status) -> None:
        if status.note:
            notes.append(status.note)

    with server(reply) as url:
        with bench(url) as ready, pytest.raises(BadInput, match="See --wait"):
            ready.prepare()
        with bench(url, observe, wait_s=30.0) as ready:
            ready.prepare()
            assert ready.prompts.source == "usage"
    assert "http_503: Loading model" in notes[0]


def test_a_silent_server_is_named_while_it_is_waited_for() -> None:
    notes: list[str] = []

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_request(reader)
        await asyncio.sleep(30)

    def observe(status: Status) -> None:
        if status.note:
            notes.append(f"{status.phase}: {status.note}")

    refused = pytest.raises(BadInput, match=r"within 3 s.*--timeout")
    with listening(handle) as port, bench(f"http://127.0.0.1:{port}/v1", observe, timeout_s=3.0) as ready, refused:
        ready.prepare()
    assert notes[0].startswith(f"preparing: waiting for http://127.0.0.1:{port}/v1")


@pytest.fixture
def single() -> Iterator[str]:
    """Looks at one connection for as long as it is kept."""
    owner: list[asyncio.StreamWriter] = []

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if not owner:
            owner.append(writer)
        while owner[0] is not writer:
            await asyncio.sleep(0.1)
        try:
            while True:
                await read_request(reader)
                await stream(writer, 8, gap_s=0.02)
        finally:
            owner.clear()

    with listening(handle) as port:
        yield f"http://127.0.0.1:{port}/v1"


@pytest.mark.slow(shared=True)
def test_a_server_of_one_thread_is_found_out(single: str) -> None:
    with bench(single) as ready:
        ready.prepare()
        with pytest.raises(RunFailed, match=r"2 of 3 streams get no answer.*--fresh-connections"):
            ready.measure(Concurrency(3))
        ready.finish(drain=False)


@pytest.mark.slow
def test_an_open_loop_does_not_pile_up_on_a_dead_endpoint() -> None:
    dead = threading.Event()
    most = 0

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while True:
            await read_request(reader)
            while dead.is_set():
                await asyncio.sleep(0.1)
            await stream(writer, 8, gap_s=0.005)

    def observe(status: Status) -> None:
        nonlocal most
        most = max(most, status.in_flight)
        if status.phase == "measuring" and status.completed > 2:
            dead.set()

    with listening(handle) as port, bench(f"http://127.0.0.1:{port}/v1", observe, timeout_s=100.0) as ready:
        ready.prepare()
        begun = time.monotonic()
        with pytest.raises(RunFailed, match=r"went silent: \d+ requests wait"):
            ready.measure(Rate(20.0))
        took = time.monotonic() - begun
        results = ready.finish(drain=False)
    assert most < 20 * 12  # it stopped sending soon after its window
    assert took < 60
    assert results[0].level.ended_by == "interrupted"
    assert results[0].level.verdict.status != "valid"


@pytest.mark.slow(shared=True)
def test_an_endpoint_that_goes_away_in_the_open_loop_is_said_to_be_gone() -> None:
    with contextlib.ExitStack() as up:
        port = up.enter_context(listening(served(8, gap_s=0.005)))

        def observe(status: Status) -> None:
            if status.phase == "measuring" and status.completed > 10:
                up.close()

        with bench(f"http://127.0.0.1:{port}/v1", observe, duration_s=30.0) as ready:
            ready.prepare()
            with pytest.raises(RunFailed, match=r"the endpoint is gone: each of the last \d+ requests failed"):
                ready.measure(Rate(20.0))
            (result,) = ready.finish(drain=False)
    assert result.level.requests.completed > 10


def test_a_stream_that_hangs_is_cut_off_and_named() -> None:
    answered = 0

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal answered
        while True:
            await read_request(reader)
            answered += 1
            if answered == 20:
                writer.write(STREAM_HEAD + chunk(delta(content="word")))
                await asyncio.sleep(3600)
            await stream(writer, 8, gap_s=0.005)

    with listening(handle) as port, bench(f"http://127.0.0.1:{port}/v1", timeout_s=300.0, stall_timeout_s=1.5) as ready:
        ready.prepare()
        begun = time.monotonic()
        ready.measure(Concurrency(2))
        (result,) = ready.finish()
    assert time.monotonic() - begun < 60
    assert result.level.requests.completed > 10
    assert result.level.requests.failed == 1


@pytest.mark.slow(shared=True)
def test_a_stream_held_open_after_its_end_frees_its_slot() -> None:
    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_request(reader)
        writer.write(STREAM_HEAD)
        for _ in range(8):
            writer.write(chunk(delta(content="word")))
            await asyncio.sleep(0.005)
        writer.write(chunk(delta("length")) + chunk(usage(10, 8)) + chunk(DONE))  # and no last chunk
        await asyncio.sleep(3600)

    with listening(handle) as port, bench(f"http://127.0.0.1:{port}/v1", timeout_s=300.0, duration_s=2.0) as ready:
        ready.prepare()
        begun = time.monotonic()
        ready.measure(Concurrency(2))
        (result,) = ready.finish()
    assert time.monotonic() - begun < 60
    assert result.level.requests.completed >= 4
    assert result.level.requests.failed == 0
    latency = result.level.latency_ms.p50.value
    assert latency is not None
    assert latency < 240  # the wait for what never came is no part of it


def test_a_wait_too_long_is_told_as_the_server_told_it() -> None:
    busy = b"HTTP/1.1 503 Busy\r\nRetry-After: 900\r\nContent-Length: 2\r\n\r\n{}"

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while await read_request(reader):
            writer.write(busy)

    with listening(handle) as port, bench(f"http://127.0.0.1:{port}/v1") as ready:
        with pytest.raises(BadInput, match="come back in 900 s"):
            ready.prepare()
        ready.finish(drain=False)
