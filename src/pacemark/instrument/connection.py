"""One HTTP/1.1 connection that stamps every read.

In the measured path a read is stamped, decrypted where it must be, fed to the HTTP parser and appended;
nothing else happens there. What the bytes mean is worked out after the request has ended.

The arrival of a read is the kernel's receive stamp. It is CLOCK_REALTIME, so it is used as a lag
(now - stamp, both real time) and subtracted from the monotonic clock: a clock step cannot move a latency.
"""

from __future__ import annotations

import asyncio
import errno
import os
import resource
import socket
import ssl
from array import array
from collections.abc import Callable
from time import monotonic_ns

import httptools

from pacemark.endpoint.address import Address, WireError, tls_context
from pacemark.instrument.clock import read_stamped, stamp_reads
from pacemark.trace import ABSENT

READ_BYTES = 65536


class Answer:
    """What came back for one request, as it comes back."""

    __slots__ = (
        "body", "complete", "detail", "ended_ns", "error", "first_byte_sent_ns", "headers", "headers_ns", "reads",
        "sent_by_ns", "sent_ns", "status",
    )  # fmt: skip

    def __init__(self) -> None:
        self.first_byte_sent_ns = ABSENT
        self.sent_ns = ABSENT
        self.sent_by_ns = ABSENT
        self.headers_ns = ABSENT
        self.ended_ns = ABSENT
        self.status = 0
        self.headers: dict[bytes, bytes] = {}
        self.reads = array("q")
        self.body = b""
        self.complete = False
        self.error = ""
        self.detail = ""


def _refusal(error: OSError) -> str:
    """Why this machine opens no more connections, where the reason is its own."""
    if error.errno == errno.EMFILE:
        limit = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
        return f"this machine's limit of {limit} open files is too low for so many connections; raise it (ulimit -n)"
    if error.errno == errno.ENFILE:
        return "this machine has no file descriptors left; raise fs.file-max"
    if error.errno == errno.EADDRNOTAVAIL:
        return f"this machine has no ports left ({error}); widen net.ipv4.ip_local_port_range"
    return str(error)


class Connection:
    """A warm connection. One request at a time; `closed` once it can serve no more."""

    def __init__(self, loop: asyncio.AbstractEventLoop, sock: socket.socket) -> None:
        self._loop = loop
        self._sock = sock
        self._fd = sock.fileno()
        self._tls: ssl.SSLObject | None = None
        self._incoming = ssl.MemoryBIO()
        self._outgoing = ssl.MemoryBIO()
        self._body = bytearray()
        self.on_body = self._body.extend
        self._parser = httptools.HttpResponseParser(self)
        if hasattr(self._parser, "set_dangerous_leniencies"):
            # Content-Length beside Transfer-Encoding: the latter holds (RFC 9112, 6.3); a client smuggles nothing.
            self._parser.set_dangerous_leniencies(lenient_chunked_length=True)
        self._feed: Callable[[bytes], None] = self._parser.feed_data
        self._answer: Answer | None = None
        self._waiter: asyncio.Future[Answer] | None = None
        self._arrived_ns = 0
        self._sender: asyncio.Future[None] | None = None
        self._reusable = True
        self._no_more = False
        self.closed = False
        self.connect_ns = ABSENT
        self.served = 0
        self.kernel_stamps = stamp_reads(sock)

    @classmethod
    async def open(cls, loop: asyncio.AbstractEventLoop, address: Address, timeout_s: float = 30.0) -> Connection:
        """Connect, shake hands, and be ready to send. Raises WireError."""
        begun = monotonic_ns()
        try:
            sock = socket.socket(address.family, socket.SOCK_STREAM)
        except OSError as error:  # out of file descriptors, or no such address family here
            raise WireError("connect", _refusal(error)) from None
        try:
            sock.setblocking(False)
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 20)
            async with asyncio.timeout(timeout_s):
                await loop.sock_connect(sock, address.sockaddr)
                self = cls(loop, sock)
                if address.proxy_header:
                    await self._tunnel(address)
                if address.tls:
                    await self._shake_hands(address)
        except TimeoutError:
            sock.close()
            raise WireError("connect_timeout", f"no connection within {timeout_s:g} s") from None
        except ConnectionRefusedError:
            sock.close()
            raise WireError("refused", "connection refused") from None
        except ssl.SSLError as error:
            sock.close()
            raise WireError("tls", getattr(error, "verify_message", "") or error.reason or str(error)) from None
        except OSError as error:
            sock.close()
            raise WireError("connect", _refusal(error)) from None
        except BaseException:
            sock.close()
            raise
        loop.add_reader(self._fd, self._readable)
        self.connect_ns = monotonic_ns() - begun
        return self

    async def request(self, data: bytes, timeout_s: float) -> Answer:
        """Send `data` and return the whole answer; a failure is in `answer.error`, never raised."""
        answer = self._answer = Answer()
        waiter: asyncio.Future[Answer] = self._loop.create_future()
        self._waiter = waiter
        alarm = self._loop.call_later(timeout_s, self._time_out, answer, timeout_s)
        answer.first_byte_sent_ns = monotonic_ns()
        try:
            await self._send(data, answer)
            return await waiter
        finally:
            alarm.cancel()
            if not answer.complete:
                self.close()

    def close(self) -> None:
        """Close the socket; a request in flight ends with what it has."""
        if self.closed:
            return
        self.closed = True
        self._loop.remove_reader(self._fd)
        self._loop.remove_writer(self._fd)
        self._sock.close()
        if self._answer is not None:
            self._end("cancelled", "the connection was closed by this client")

    # --- sending

    async def _send(self, data: bytes, answer: Answer) -> None:
        rest = memoryview(data)
        if self._tls is not None:
            while rest:  # one call may take less than all of it
                rest = rest[self._tls.write(rest) :]
            rest = memoryview(self._outgoing.read())
        while True:
            # The stamp is taken before the call: the kernel may run the receiver before the call returns.
            answer.sent_ns = monotonic_ns()
            try:
                rest = rest[self._sock.send(rest) :]
            except BlockingIOError:
                pass
            except OSError as error:
                self._readable()  # an answer given before the server hung up counts: 413, 429
                if self._answer is answer:
                    self._end("reset", str(error))
                return
            if not rest:
                answer.sent_by_ns = monotonic_ns()
                return
            await self._writable()
            if self._answer is not answer:
                self.close()  # answered, failed or timed out before it was all sent: half a request is left on it
                return

    async def _writable(self) -> None:
        """Return when there is room to send, or when the request has ended."""
        self._sender = self._loop.create_future()
        self._loop.add_writer(self._fd, self._wake_sender)
        try:
            await self._sender
        finally:
            if not self.closed:
                self._loop.remove_writer(self._fd)

    def _wake_sender(self) -> None:
        if self._sender is not None and not self._sender.done():
            self._sender.set_result(None)

    # --- receiving: the measured path

    def _readable(self) -> None:
        self._read()
        if self._answer is None or self.closed:
            return
        # A reset that came with the data would never be heard of: libuv stops watching a socket in error.
        error = self._sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
        if error:
            while self._answer is not None and not self.closed and self._read():
                pass
            self._end("reset", os.strerror(error))

    def _read(self) -> bool:
        try:
            data, lag = read_stamped(self._sock, READ_BYTES)
        except (BlockingIOError, InterruptedError):
            return False
        except OSError as error:
            self._end("reset", str(error))
            return False
        self._arrived_ns = monotonic_ns() - max(lag, 0)
        if not data:
            self._ended_by_peer()
            return False
        broken = None
        try:
            self._feed(data)
        except httptools.HttpParserError as error:
            broken = "bad_http", f"the answer is not HTTP/1.1: {error}"
        except ssl.SSLError as error:
            broken = "tls", str(error.reason or error)
        answer = self._answer
        if answer is not None:
            answer.reads.extend((self._arrived_ns, lag, len(self._body)))
            if answer.complete:
                self._finish(answer)
        if broken:
            self._end(*broken)
        elif self._no_more:
            self._ended_by_peer()
        return True

    def _decrypt(self, data: bytes) -> None:
        """Stands in for the parser's `feed_data` on a TLS connection."""
        assert self._tls is not None
        self._incoming.write(data)
        try:
            while plain := self._tls.read(READ_BYTES):
                self._parser.feed_data(plain)
        except ssl.SSLWantReadError:
            return
        self._no_more = True

    # --- callbacks of the HTTP parser

    def on_message_begin(self) -> None:  # noqa: D102
        if self._answer is None or self._answer.complete:
            raise WireError("bad_http", "the server spoke when nothing was asked")

    def on_header(self, name: bytes, value: bytes) -> None:  # noqa: D102
        if self._answer is not None:
            self._answer.headers[name.lower()] = value

    def on_headers_complete(self) -> None:  # noqa: D102
        answer, status = self._answer, self._parser.get_status_code()
        if answer is None:
            return
        if status < 200:
            answer.headers.clear()  # an interim answer such as 103: the answer itself is still to come
        else:
            answer.status, answer.headers_ns = status, self._arrived_ns

    def on_message_complete(self) -> None:  # noqa: D102
        answer = self._answer
        if answer is not None and answer.status:
            answer.complete = True
            self._reusable = self._parser.should_keep_alive()

    # --- endings

    def _ended_by_peer(self) -> None:
        answer = self._answer
        if answer is None:
            self.close()  # an idle connection that the server gave up
        elif answer.headers_ns != ABSENT and not answer.headers.keys() & {b"content-length", b"transfer-encoding"}:
            answer.complete, self._reusable = True, False  # the body ends with the connection (RFC 9112, 6.3)
            self._finish(answer)
        else:
            self._end("closed", "the server closed the connection before the answer was complete")

    def _time_out(self, answer: Answer, timeout_s: float) -> None:
        if self._answer is answer:
            self._end("timeout", f"no complete answer within {timeout_s:g} s")

    def cut_off_if_stalled(self, limit_ns: int) -> None:
        """End the request in flight if its answer has begun and nothing more of it has come for `limit_ns`."""
        answer = self._answer
        if answer is None or not self._body:
            return
        silent_ns = monotonic_ns() - self._arrived_ns
        if silent_ns > limit_ns:
            came = f"after {len(answer.reads) // 3} reads and {len(self._body)} bytes of the answer"
            self._end("stalled", f"nothing came for {silent_ns / 1e9:.1f} s {came}")

    def _finish(self, answer: Answer) -> None:
        self.served += 1
        answer.ended_ns = self._arrived_ns
        self._hand_over(answer)
        if not self._reusable:
            self.close()

    def _end(self, kind: str, detail: str) -> None:
        if self._answer is not None:
            self._answer.error, self._answer.detail = kind, detail
            self._answer.ended_ns = monotonic_ns()
            self._hand_over(self._answer)
        self.close()

    def _hand_over(self, answer: Answer) -> None:
        self._answer = None
        self._wake_sender()
        answer.body = bytes(self._body)
        self._body.clear()
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(answer)

    # --- handshakes, before the clock matters

    async def _tunnel(self, address: Address) -> None:
        await self._loop.sock_sendall(self._sock, address.proxy_header.encode())
        head = b""
        while b"\r\n\r\n" not in head:
            part = await self._loop.sock_recv(self._sock, 4096)
            if not part or len(head) > 65536:
                raise WireError("proxy", "the proxy closed the connection during CONNECT")
            head += part
        status_line = head.split(b"\r\n", 1)[0].decode("latin-1")
        if " 200" not in status_line:
            raise WireError("proxy", f"the proxy answered CONNECT with {status_line!r}")

    async def _shake_hands(self, address: Address) -> None:
        context = tls_context(address.ca_file, address.insecure)
        self._feed = self._decrypt
        self._tls = context.wrap_bio(self._incoming, self._outgoing, server_hostname=address.host)
        while True:
            try:
                self._tls.do_handshake()
            except ssl.SSLWantReadError:
                await self._flush()
                data = await self._loop.sock_recv(self._sock, READ_BYTES)
                if not data:
                    raise WireError("tls", "the server closed the connection during the handshake") from None
                self._incoming.write(data)
            except ssl.SSLError:
                await self._flush()  # the alert that tells the server why
                raise
            else:
                await self._flush()
                return

    async def _flush(self) -> None:
        pending = self._outgoing.read()
        if pending:
            await self._loop.sock_sendall(self._sock, pending)
