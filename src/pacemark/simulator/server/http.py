"""HTTP/1.1 for the embedded endpoint: requests in, bytes out, and nothing about language models."""

from __future__ import annotations

import asyncio
import os
import socket
import time
from collections import deque
from collections.abc import Callable
from http import HTTPStatus
from typing import Any, cast

import httptools
import msgspec

from pacemark.instrument.clock import ANCILLARY_BYTES, lag_of, stamp_reads

__all__ = ["Connection", "Request", "head", "response"]


_READ_BYTES = 1 << 16


class Request(msgspec.Struct, frozen=True):
    """One whole request."""

    method: str
    path: str
    query: str
    headers: dict[str, str]
    """Names in lower case."""
    body: bytes
    arrived_ns: int
    """Monotonic time at which its last byte came: as the kernel stamped it, or over TLS when it was read."""
    keep_alive: bool


def head(status: int, content_type: str, *headers: str, length: int | None = None) -> bytes:
    """Status line and headers; chunked where no `length` is given."""
    lines = [
        f"HTTP/1.1 {status} {HTTPStatus(status).phrase}",
        f"content-type: {content_type}",
        "transfer-encoding: chunked" if length is None else f"content-length: {length}",
        *headers,
    ]
    return ("\r\n".join(lines) + "\r\n\r\n").encode()


def response(status: int, body: Any, *headers: str, content_type: str = "application/json") -> bytes:
    """A whole answer; `body` is bytes, or anything that becomes JSON."""
    data = body if isinstance(body, bytes) else msgspec.json.encode(body)
    return head(status, content_type, *headers, length=len(data)) + data


class Connection(asyncio.Protocol):
    """One client. Requests are handed to `handle` one at a time; `done` asks for the next."""

    def __init__(self, handle: Callable[[Connection, Request], None], clients: set[Connection]) -> None:
        self.on_lost: Callable[[], None] | None = None
        """Called once if the client goes away before `done`."""
        self.idle_since_ns = time.monotonic_ns()
        self._loop = asyncio.get_running_loop()
        self._handle = handle
        self._clients = clients
        self._parser: httptools.HttpRequestParser | None = httptools.HttpRequestParser(self)
        self._transport: asyncio.Transport | None = None
        self._fd = -1
        self._sock: socket.socket | None = None
        self._arrived_ns = 0
        self._requests: deque[Request] = deque()
        self._busy = False
        self._queued = False
        self._turning = False
        self._keep_alive = True
        self._url = b""
        self._headers: dict[str, str] = {}
        self._body: list[bytes] = []

    @property
    def idle(self) -> bool:
        """No request is being answered."""
        return not self._busy

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Take the transport; plain sockets are read, for the kernel's stamps, and written to directly."""
        self._transport = transport = cast(asyncio.Transport, transport)
        self._clients.add(self)
        if (sock := transport.get_extra_info("socket")) is not None:
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            if transport.get_extra_info("sslcontext") is None:
                self._fd = sock.fileno()
                # A descriptor of our own, for the loop guards the transport's.
                self._sock = socket.socket(fileno=os.dup(self._fd))
                stamp_reads(self._sock)
                # The transport begins to read once this method has returned; before that it cannot be stopped.
                self._loop.call_soon(self._read_directly)

    def connection_lost(self, exc: Exception | None) -> None:
        """Tell whoever is answering."""
        self._clients.discard(self)
        if self._sock is not None:
            self._loop.remove_reader(self._sock)
            self._sock.close()
            self._sock = None
        self._transport, self._fd, self._parser = None, -1, None
        self._requests.clear()
        if self.on_lost:
            lost, self.on_lost = self.on_lost, None
            lost()

    def _read_directly(self) -> None:
        if self._transport is not None and not self._transport.is_closing() and self._sock is not None:
            self._transport.pause_reading()
            self._loop.add_reader(self._sock, self._readable)

    def data_received(self, data: bytes) -> None:
        """What came over TLS, or before the transport had stopped reading."""
        self._arrived_ns = time.monotonic_ns()
        self._feed(data)

    def _readable(self) -> None:
        # Read until there is nothing: libuv calls once where data and a reset are both pending.
        while self._sock is not None and self._transport is not None:
            try:
                data, ancillary, _, _ = self._sock.recvmsg(_READ_BYTES, ANCILLARY_BYTES)
            except (BlockingIOError, InterruptedError):
                return
            except OSError:
                self._transport.abort()
                return
            if not data:
                self._loop.remove_reader(self._sock)
                self._transport.close()
                return
            self._arrived_ns = time.monotonic_ns() - (lag_of(ancillary) if ancillary else 0)
            self._feed(data)

    def _feed(self, data: bytes) -> None:
        if self._parser is None:
            return
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserError as error:
            self.send(response(400, {"error": {"message": f"not HTTP: {error}", "code": 400}}, "connection: close"))
            self.close()

    def send(self, data: bytes) -> None:
        """Write now, or drop it where the client is gone.

        One system call straight from here: the transport's own queue would only be flushed at the end of the loop's
        turn, after every other stream of the step.
        """
        transport = self._transport
        if transport is None or transport.is_closing():  # Its descriptor may be another client's by now.
            return
        if self._queued:
            self._queued = transport.get_write_buffer_size() > 0
        if self._fd >= 0 and not self._queued:
            try:
                sent = os.write(self._fd, data)
            except BlockingIOError:
                sent = 0
            except OSError:
                transport.abort()
                return
            if sent == len(data):
                return
            data = data[sent:]
            self._queued = True
        transport.write(data)

    def done(self) -> None:
        """The answer is complete: close, or go on with the next request."""
        self.on_lost = None
        self._busy = False
        self.idle_since_ns = time.monotonic_ns()
        if not self._keep_alive:
            self.close()
        self._next()

    def close(self) -> None:
        """Close once everything is written."""
        if self._transport:
            self._transport.close()

    def abort(self) -> None:
        """Close with a reset: what was not yet read is lost to the client."""
        if self._transport is None:
            return
        if (sock := self._transport.get_extra_info("socket")) is not None:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\x01\x00\x00\x00\x00\x00\x00\x00")
        self._transport.abort()

    def on_message_begin(self) -> None:
        """Parser callback."""
        self._url, self._headers, self._body = b"", {}, []

    def on_url(self, url: bytes) -> None:
        """Parser callback."""
        self._url += url

    def on_header(self, name: bytes, value: bytes) -> None:
        """Parser callback."""
        self._headers[name.decode("latin-1").lower()] = value.decode("latin-1")

    def on_headers_complete(self) -> None:
        """Parser callback."""
        if self._headers.get("expect", "").lower() == "100-continue":
            self.send(b"HTTP/1.1 100 Continue\r\n\r\n")

    def on_body(self, body: bytes) -> None:
        """Parser callback."""
        self._body.append(body)

    def on_message_complete(self) -> None:
        """Parser callback."""
        assert self._parser is not None
        url = httptools.parse_url(self._url)
        self._requests.append(
            Request(
                method=self._parser.get_method().decode(),
                path=(url.path or b"/").decode("latin-1"),
                query=(url.query or b"").decode("latin-1"),
                headers=self._headers,
                body=b"".join(self._body),
                arrived_ns=self._arrived_ns,
                keep_alive=self._parser.should_keep_alive(),
            )
        )
        self._next()

    def _next(self) -> None:
        if self._turning:  # `done` was called from within `handle`: the loop below goes on.
            return
        self._turning = True
        while self._requests and not self._busy:
            self._busy = True
            request = self._requests.popleft()
            self._keep_alive = request.keep_alive
            self._handle(self, request)
        self._turning = False
