"""Servers that hold a request up, each in its own way: the run ends by itself and names the limit that was reached."""

from __future__ import annotations

import asyncio
import itertools
import ssl
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

import pacemark
from pacemark.errors import RunFailed
from support.servers import STREAM_HEAD, Handler, certificate, chunk, delta, listening, read_request, stream

GOOD = 16
"""Requests that are answered well, so that the endpoint is known."""
Way = Callable[[asyncio.StreamWriter], Awaitable[None]]


async def for_ever(writer: asyncio.StreamWriter, part: bytes, gap_s: float) -> None:
    while not writer.is_closing():
        writer.write(part)
        await writer.drain()
        await asyncio.sleep(gap_s)


async def silent(writer: asyncio.StreamWriter) -> None:
    await asyncio.sleep(60)


async def trickles_headers(writer: asyncio.StreamWriter) -> None:
    writer.write(b"HTTP/1.1 200 OK\r\n")
    await for_ever(writer, b"X: y\r\n", 0.05)


async def trickles_events(writer: asyncio.StreamWriter) -> None:
    writer.write(STREAM_HEAD)
    await for_ever(writer, chunk(delta(content="a")), 0.05)


async def trickles_comments(writer: asyncio.StreamWriter) -> None:
    writer.write(STREAM_HEAD + chunk(delta(content="a")))
    await for_ever(writer, chunk(b": ping\n\n"), 0.05)


async def stops_midway(writer: asyncio.StreamWriter) -> None:
    writer.write(STREAM_HEAD + chunk(delta(content="a")) * 3)
    await asyncio.sleep(60)


async def interim_for_ever(writer: asyncio.StreamWriter) -> None:
    await for_ever(writer, b"HTTP/1.1 102 Processing\r\n\r\n", 0.05)


WAYS: dict[str, tuple[Way, str]] = {
    "silent": (silent, "timeout"),
    "headers": (trickles_headers, "timeout"),
    "events": (trickles_events, "timeout"),
    "comments": (trickles_comments, "timeout"),
    "midway": (stops_midway, "stalled"),
    "interim": (interim_for_ever, "timeout"),
}


def behaving(way: Way) -> Handler:
    """A server that answers well at first, and then one request in three by `way`."""
    numbers = itertools.count()

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while True:
            await read_request(reader)
            number = next(numbers)
            if number < GOOD or number % 3:
                await stream(writer, 4, 0.005)
            else:
                return await way(writer)

    return handle


@pytest.mark.timeout(60)
@pytest.mark.parametrize(
    "load", [pytest.param({"concurrency": 4}, marks=pytest.mark.slow), {"rate": 60.0}], ids=["closed", "open"]
)
@pytest.mark.parametrize("name", WAYS)
@pytest.mark.slow
def test_nothing_holds_a_level_up_for_longer_than_the_timeout(name: str, load: dict[str, Any], tmp_path: Path) -> None:
    way, kind = WAYS[name]
    stall_s = 0.7 if kind == "stalled" else 2.0
    with listening(behaving(way)) as port:
        run = pacemark.run(
            f"http://127.0.0.1:{port}/v1", model="m", **load, duration=0.8, timeout=2.0, stall_timeout=stall_s,
            input_tokens=10, output_tokens=4, workers=1, out=tmp_path, seed=1,
        )  # fmt: skip
    (level,) = run.levels
    assert set(level.errors) == {kind}
    assert level.requests.completed > GOOD / 2
    assert level.ended_by == "duration"


@pytest.mark.timeout(60)
def test_a_server_that_never_shakes_hands_is_given_up(tmp_path: Path) -> None:
    async def mute(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await asyncio.sleep(60)

    with (
        listening(mute) as port,
        pytest.raises(
            pacemark.PacemarkError,
            match="within 1 s",  # of both limits, whichever comes first
        ),
    ):
        pacemark.run(
            f"https://127.0.0.1:{port}/v1", model="m", concurrency=1, timeout=1.0, insecure=True, out=tmp_path,
            output_tokens=4,
        )  # fmt: skip


@pytest.mark.timeout(60)
def test_an_answer_that_never_ends_ends_the_check(tmp_path: Path) -> None:
    cert, context = certificate(tmp_path)

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_request(reader)
        await trickles_events(writer)

    assert isinstance(context, ssl.SSLContext)
    with listening(handle, context) as port, pytest.raises((pacemark.BadInput, RunFailed)) as failed:
        pacemark.check(f"https://127.0.0.1:{port}/v1", model="m", timeout=1.0, ca_file=str(cert))
    assert "within 1 s" in str(failed.value)
