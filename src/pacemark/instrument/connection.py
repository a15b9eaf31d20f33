"""One HTTP/1.1 connection that stamps every read.

In the measured path a read is stamped, decrypted where it must be, fed to the HTTP parser and appended;
nothing else happens there. What the bytes mean is worked out after the request has ended.

The arrival of a read is the kernel's receive stamp. It is CLOCK_REALTIME, so it is used as a lag
(now - stamp, both real time) and subtracted from the monotonic clock: a clock step cannot move a latency.
"""

from __future__ import annotations

import asyncio
import socket
import ssl
from collections.abc import Callable
from time import monotonic_ns

import httptools

from pacemark.endpoint.address import WireError
from pacemark.instrument.answer import MOST_BYTES, MOST_HEAD_BYTES, READ_COSTS, Answer, too_large, unreadable
from pacemark.instrument.clock import ANCILLARY_BYTES, NO_STAMP, lag_of, stamp_reads
from pacemark.instrument.sealing import Tls
from pacemark.trace import ABSENT

READ_BYTES = 65536
SLICE_BYTES = 131072
"""Of a large request, so much is sent at once: other connections have their turn between two slices."""
HELD_OPEN_S = 0.25
"""An answer that said [DONE] is over after so much silence, whether or not the server ends it."""


class Connection:
    """A warm connection, see `opening`. One request at a time; `closed` once it can serve no more."""

    def __init__(
        self, loop: asyncio.AbstractEventLoop, sock: socket.socket, tls: Tls | None = None, connect_ns: int = ABSENT
    ) -> None:
        self._loop = loop
        self._sock = sock
        self._fd = sock.fileno()
        self._recvmsg = sock.recvmsg
        self._tls = tls
        self._body = bytearray()
        self.on_body = self._body.extend
        self._parser = httptools.HttpResponseParser(self)
        if hasattr(self._parser, "set_dangerous_leniencies"):
            # Content-Length beside Transfer-Encoding: the latter holds (RFC 9112, 6.3); lines may end in LF alone
            # (2.2), a header may go on in a second line (5.2), and a chunk's size may end in blanks, as old servers
            # pad it. A client smuggles nothing.
            self._parser.set_dangerous_leniencies(
                lenient_headers=True,
                lenient_chunked_length=True,
                lenient_optional_cr_before_lf=True,
                lenient_spaces_after_chunk_size=True,
            )
        self._feed: Callable[[bytes], None] = self._parser.feed_data if tls is None else self._decrypt
        self._answer: Answer | None = None
        self._waiter: asyncio.Future[Answer] | None = None
        self._room = MOST_HEAD_BYTES
        self._arrived_ns = 0
        self._sender: asyncio.Future[None] | None = None
        self._reusable, self._no_more, self.closed = True, False, False
        self.number = ABSENT
        self.connect_ns = connect_ns
        self.kernel_stamps = stamp_reads(sock)
        loop.add_reader(self._fd, self._readable)

    async def request(self, data: bytes, timeout_s: float) -> Answer:
        """Send `data` and return the whole answer; a failure is in `answer.error`, never raised."""
        answer = self._answer = Answer()
        self._room = MOST_HEAD_BYTES
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
        rest, plain = memoryview(b""), memoryview(data)
        while True:
            if not rest:
                rest, plain = plain[:SLICE_BYTES], plain[SLICE_BYTES:]
                rest = rest if self._tls is None else self._tls.sealed(rest)
            # The stamp is taken before the call: the kernel may run the receiver before the call returns.
            answer.sent_ns = monotonic_ns()
            try:
                rest = rest[self._sock.send(rest) :]
            except BlockingIOError:
                pass
            except OSError as error:
                while self._answer is answer and self._readable():
                    pass  # an answer given before the server hung up counts: 413, 429
                if self._answer is answer:
                    self._end("reset", str(error))
                return
            if not (rest or plain):
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

    def _readable(self) -> bool:
        """Take one read; False where there was none."""
        recvmsg, feed = self._recvmsg, self._feed  # called as `self.x(...)` they would be looked for in the class first
        try:
            data, ancillary, _, _ = recvmsg(READ_BYTES, ANCILLARY_BYTES)
        except (BlockingIOError, InterruptedError):
            return False
        except OSError as error:
            self._end("reset", str(error))
            return False
        lag_ns = lag_of(ancillary) if ancillary else NO_STAMP
        self._arrived_ns = arrived_ns = monotonic_ns() - (lag_ns if lag_ns > 0 else 0)
        if not data:
            self._ended_by_peer()
            return False
        broken = None
        self._room -= len(data) + READ_COSTS
        try:
            feed(data)
        except (httptools.HttpParserError, ssl.SSLError) as error:
            broken = unreadable(error)
        answer = self._answer
        if answer is not None:
            reads = answer.reads
            reads.append(arrived_ns)
            reads.append(lag_ns)
            reads.append(len(self._body))
            if answer.complete:
                self._finish(answer)
        if broken:
            self._end(*broken)
        elif self._room < 0:
            self._end(*too_large(answer))
        elif self._no_more:
            self._ended_by_peer()
        return True

    def _decrypt(self, data: bytes) -> None:
        """Stands in for the parser's `feed_data` on a TLS connection."""
        assert self._tls is not None
        self._tls.incoming.write(data)
        try:
            while plain := self._tls.session.read(READ_BYTES):
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
            self._room = MOST_BYTES

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

    def cut_off_if_lost(self, stall_s: float, unanswered_s: float = 0.0) -> None:
        """End the request in flight if its connection was reset; if its answer has begun and nothing more of it has
        come for `stall_s`, or none has begun for `unanswered_s` (0: never); or if it has said that it is done and is
        held open."""
        # What comes is heard of; a reset that came together with data is not: libuv watches such a socket no more.
        if monotonic_ns() - self._arrived_ns < HELD_OPEN_S * 1e9:
            return
        while self._answer is not None and self._readable():
            pass
        if self._answer is None:
            return
        silent_s = (monotonic_ns() - max(self._answer.sent_ns, self._arrived_ns)) / 1e9
        held_open = silent_s > HELD_OPEN_S and self._body[-16:].rstrip().endswith(b"[DONE]")
        if self._body and (held_open or 0 < stall_s < silent_s):
            self._end("stalled", f"nothing came for {silent_s:.1f} s after {len(self._body)} bytes of it")
        elif not self._body and 0 < unanswered_s < silent_s:
            self._end("unanswered", f"no answer began within {silent_s:.0f} s, many times what the slowest took")

    def _finish(self, answer: Answer) -> None:
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
