"""Tiny servers that do exactly what a test says, byte by byte, and the pieces they answer with."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import json
import socket
import ssl
import threading
from collections.abc import Awaitable, Callable, Coroutine, Iterator, Sequence
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import uvloop

from pacemark.endpoint.address import Address
from pacemark.simulator.server.tls import make_certificate, server_context
from pacemark.trace import ABSENT, Exchange, RawExchange

T = TypeVar("T")
Handler = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


def play(work: Coroutine[Any, Any, T]) -> T:
    """Run `work` on the event loop that pacemark uses, for 20 s at most."""
    return uvloop.run(asyncio.wait_for(work, 20))


@contextlib.contextmanager
def listening(handle: Handler, context: ssl.SSLContext | None = None, host: str = "127.0.0.1") -> Iterator[int]:
    """A server in a thread of its own; gives its port. A connection is closed when `handle` returns."""
    loop = asyncio.new_event_loop()
    tasks: set[asyncio.Task[None]] = set()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        tasks.add(task)
        with contextlib.suppress(OSError, asyncio.IncompleteReadError, asyncio.CancelledError):
            await handle(reader, writer)
        writer.close()
        with contextlib.suppress(OSError, ssl.SSLError, asyncio.CancelledError):
            await writer.wait_closed()
        tasks.discard(task)

    async def stop() -> None:
        server.close()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await asyncio.sleep(0.05 if context else 0)  # let handshakes that the client broke off come to their end

    server = loop.run_until_complete(asyncio.start_server(serve, host, 0, ssl=context))
    thread = threading.Thread(target=loop.run_forever, daemon=True)
    thread.start()
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        asyncio.run_coroutine_threadsafe(stop(), loop).result(10)
        loop.call_soon_threadsafe(loop.stop)
        thread.join(10)
        loop.run_until_complete(loop.shutdown_asyncgens())
        loop.close()


async def read_request(reader: asyncio.StreamReader) -> bytes:
    """One request, head and body; raises IncompleteReadError at the end of the connection."""
    head = await reader.readuntil(b"\r\n\r\n")
    for line in head.lower().split(b"\r\n"):
        if line.startswith(b"content-length:"):
            return head + await reader.readexactly(int(line[15:]))
    return head


def post(body: bytes = b"{}", path: str = "/") -> bytes:
    return b"POST %b HTTP/1.1\r\nHost: test\r\nContent-Length: %d\r\n\r\n%b" % (path.encode(), len(body), body)


def answer(body: bytes, *headers: str, status: str = "200 OK") -> bytes:
    """An answer with a Content-Length."""
    lines = [f"HTTP/1.1 {status}", f"Content-Length: {len(body)}", *headers]
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + body


STREAM_HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"


def chunk(data: bytes) -> bytes:
    """One chunk of a chunked body; the empty chunk ends it."""
    return b"%x\r\n%b\r\n" % (len(data), data)


def event(payload: Any) -> bytes:
    """A server-sent event."""
    return b"data: %b\n\n" % (payload if isinstance(payload, bytes) else json.dumps(payload).encode())


DONE = event(b"[DONE]")


def delta(finish: str | None = None, **fields: Any) -> bytes:
    """A chat completion chunk as an event."""
    return event({"object": "chat.completion.chunk", "choices": [{"delta": fields, "finish_reason": finish}]})


def usage(prompt: int, completion: int, **details: Any) -> bytes:
    """The usage event that ends a stream."""
    return event({"choices": [], "usage": {"prompt_tokens": prompt, "completion_tokens": completion, **details}})


def plainly_answered(body: bytes) -> Handler:
    """A server that answers every GET with this text, and closes."""

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_request(reader)
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\nConnection: close\r\n\r\n%b" % (len(body), body))
        await writer.drain()

    return handle


def streamed(tokens: int, gap_s: float = 0.0) -> Handler:
    """A chat endpoint that keeps connections alive and answers every request with `tokens` events."""

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while True:
            await read_request(reader)
            await stream(writer, tokens, gap_s)

    return handle


async def stream(writer: asyncio.StreamWriter, tokens: int, gap_s: float = 0.0) -> None:
    """One streamed answer."""
    writer.write(STREAM_HEAD + chunk(delta(role="assistant", content=None)))
    for _ in range(tokens):
        await asyncio.sleep(gap_s)
        writer.write(chunk(delta(content="word")))
    writer.write(chunk(delta("length")) + chunk(usage(10, tokens)) + chunk(DONE) + chunk(b""))
    await writer.drain()


def address(port: int, **fields: Any) -> Address:
    """Where `listening` listens."""
    return Address(socket.AF_INET, ("127.0.0.1", port), fields.pop("host", "127.0.0.1"), port, **fields)


@functools.cache
def certificate(folder: Path) -> tuple[Path, ssl.SSLContext]:
    """A fresh self-signed certificate for 127.0.0.1 and `pacemark.test`, and a server context that shows it."""
    cert, key = make_certificate(folder, "pacemark.test")
    return cert, server_context(cert, key)


def raw(
    body: bytes,
    reads: Sequence[tuple[int, int]] = (),
    *,
    status: int = 200,
    streamed: bool = True,
    encoding: str = "",
    error: str = "",
    asked: int = 8,
) -> RawExchange:
    """What a worker hands over: `reads` are (arrival in ms after sending, bytes of the body so far)."""
    rows = [(ms * 1_000_000, 1_000, size) for ms, size in reads or [(100, len(body))]]
    return RawExchange(
        level=0,
        index=0,
        stream=0,
        scheduled_ns=0,
        first_byte_sent_ns=0,
        sent_ns=0,
        send_ns=0,
        headers_ns=rows[0][0],
        ended_ns=rows[-1][0],
        connect_ns=ABSENT,
        status=status,
        streamed=streamed,
        encoding=encoding,
        error=error,
        detail="",
        asked_tokens=asked,
        reads=np.asarray(rows, np.int64).tobytes(),
        body=body,
    )


MS = 1_000_000


def exchange(
    sent_ms: float = 0.0,
    events_ms: Sequence[float] = (),
    *,
    tokens: Sequence[float] | None = None,
    lo_ms: Sequence[float] | None = None,
    scheduled_ms: float | None = None,
    **fields: Any,
) -> Exchange:
    """A request by hand: times in ms on one clock, one token an event unless told."""

    def ns(times: Sequence[float]) -> Any:
        return np.asarray([round(t * MS) for t in times], np.int64)

    each = np.ones(len(events_ms), np.float32) if tokens is None else np.asarray(tokens, np.float32)
    sent, last = round(sent_ms * MS), round((events_ms[-1] if events_ms else sent_ms) * MS)
    plain: dict[str, Any] = {
        "level": 0,
        "index": 0,
        "stream": 0,
        "scheduled_ns": sent if scheduled_ms is None else round(scheduled_ms * MS),
        "first_byte_sent_ns": sent,
        "sent_ns": sent,
        "send_ns": 0,
        "headers_ns": int(ns(events_ms)[0]) if events_ms else ABSENT,
        "first_event_ns": int(ns(events_ms)[0]) if events_ms else ABSENT,
        "answer_ns": int(ns(events_ms)[0]) if events_ms else ABSENT,
        "ended_ns": last,
        "connect_ns": ABSENT,
        "status": 200,
        "error": "",
        "detail": "",
        "finish_reason": "length",
        "asked_tokens": round(each.sum()),
        "input_tokens": 10,
        "cached_tokens": ABSENT,
        "output_tokens": round(each.sum()),
        "tokens_source": "usage",
        "lag_ns": np.full(len(events_ms), 1000, np.int32),
        "coalesced_reads": 0,
        "events": len(events_ms),
        "gap_ns": int(np.diff(ns(events_ms)).max(initial=0)),
    }
    hi = ns(events_ms)
    return Exchange(**(plain | fields), hi_ns=hi, lo_ns=hi if lo_ms is None else ns(lo_ms), tokens=each)
