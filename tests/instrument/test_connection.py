"""The wire over real sockets: what servers do, kindly and unkindly."""

import asyncio
import contextlib
import resource
import socket
import ssl
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from pacemark.endpoint.address import Address, WireError
from pacemark.instrument.answer import Answer
from pacemark.instrument.clock import stamp_reads
from pacemark.instrument.connection import Connection
from pacemark.instrument.opening import opened
from pacemark.trace import ABSENT
from support.servers import (
    STREAM_HEAD,
    Handler,
    address,
    answer,
    certificate,
    chunk,
    listening,
    play,
    post,
    read_request,
    stream,
    streamed,
)

TIMEOUT_S = 5.0


@pytest.fixture(autouse=True, scope="module")
def _stamps_are_on() -> Iterator[None]:
    """The kernel begins to stamp a moment after the first socket asked for it: one that asks, as a worker keeps."""
    with socket.socket() as always_on:
        stamp_reads(always_on)
        time.sleep(0.05)
        yield


def says(*parts: bytes, pause_s: float = 0.01, stay: bool = False) -> Handler:
    """A server that answers each request with `parts`, each in a read of its own, and then hangs up."""

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while True:
            await read_request(reader)
            for part in parts:
                writer.write(part)
                await writer.drain()
                await asyncio.sleep(pause_s)
            if not stay:
                return

    return handle


def ask(place: Address, *requests: bytes, timeout_s: float = TIMEOUT_S, pause_s: float = 0.0) -> list[Answer]:
    """Send requests one after the other over one connection, for as long as it stays open."""

    async def work() -> list[Answer]:
        connection = await opened(asyncio.get_running_loop(), place, timeout_s)
        answers = []
        for data in requests:
            if connection.closed:
                break
            answers.append(await connection.request(data, timeout_s))
            await asyncio.sleep(pause_s)
        connection.close()
        return answers

    return play(work())


def asked(handle: Handler, *requests: bytes, timeout_s: float = TIMEOUT_S) -> list[Answer]:
    with listening(handle) as port:
        return ask(address(port), *requests or (post(),), timeout_s=timeout_s)


def rows(a: Answer) -> np.ndarray:
    return np.asarray(a.reads).reshape(-1, 3)


# --- framing


def test_a_stream_in_chunks() -> None:
    (a,) = asked(streamed(5, gap_s=0.01))
    assert (a.error, a.status, a.complete) == ("", 200, True)
    assert a.body.count(b"data: ") == 9
    assert a.headers[b"content-type"] == b"text/event-stream"
    arrivals, _, sizes = rows(a).T
    assert len(arrivals) >= 5
    assert sizes[-1] == len(a.body)
    assert np.all(np.diff(arrivals) >= 0)
    assert np.all(np.diff(sizes) >= 0)
    assert a.first_byte_sent_ns <= a.sent_ns <= a.headers_ns == arrivals[0]
    assert a.ended_ns == arrivals[-1]


def test_a_body_of_known_length_byte_by_byte() -> None:
    whole = answer(b"hello", "X-A: b")
    (a,) = asked(says(*(whole[i : i + 1] for i in range(len(whole))), pause_s=0.0))
    assert (a.error, a.body, a.headers[b"x-a"]) == ("", b"hello", b"b")


def test_lines_that_end_in_lf_alone_and_blanks_after_a_chunks_size() -> None:
    head = b"HTTP/1.1 200 OK\nContent-Type: text/event-stream\nTransfer-Encoding: chunked\n\n"
    (a,) = asked(says(head, b"5  \r\nhello\r\n", b'3;sig="x"\r\nyou\r\n0\r\nX-Sum: 1\r\n\r\n', stay=True))
    assert (a.error, a.status, a.body, a.headers[b"content-type"]) == ("", 200, b"helloyou", b"text/event-stream")


def test_a_header_that_goes_on_in_a_second_line() -> None:
    (a,) = asked(says(answer(b"hello", "X-A: b", " c"), stay=True))
    assert (a.error, a.body, a.headers[b"x-a"]) == ("", b"hello", b"b c")


def test_a_body_that_ends_with_the_connection() -> None:
    (a,) = asked(says(b"HTTP/1.1 200 OK\r\n\r\nhel", b"lo"))
    assert (a.error, a.body, a.complete) == ("", b"hello", True)


def test_an_empty_answer() -> None:
    (a,) = asked(says(b"HTTP/1.1 204 No Content\r\n\r\n", stay=True))
    assert (a.error, a.status, a.body) == ("", 204, b"")


def test_a_large_body() -> None:
    body = bytes(range(256)) * 8192
    (a,) = asked(says(answer(body)))
    assert a.error == ""
    assert a.body == body
    assert rows(a)[-1, 2] == len(body) == 2 << 20


@pytest.mark.parametrize("together", [True, False])
def test_an_interim_answer_is_not_the_answer(together: bool) -> None:
    hints = b"HTTP/1.1 103 Early Hints\r\nLink: </x>\r\nContent-Length: 99\r\n\r\n"
    parts = [hints + answer(b"hello")] if together else [hints, answer(b"hello")]
    (a,) = asked(says(*parts, pause_s=0.05))
    assert (a.error, a.status, a.body) == ("", 200, b"hello")
    assert b"link" not in a.headers
    assert a.headers_ns == a.ended_ns


def test_an_interim_answer_alone_is_none() -> None:
    (a,) = asked(says(b"HTTP/1.1 103 Early Hints\r\n\r\n"))
    assert (a.error, a.complete, a.headers_ns) == ("closed", False, ABSENT)


# --- keeping and losing connections


def test_a_connection_serves_many_requests() -> None:
    ports: set[int] = set()

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        ports.add(writer.get_extra_info("peername")[1])
        while True:
            body = (await read_request(reader)).partition(b"\r\n\r\n")[2]
            writer.write(answer(body))

    answers = asked(handle, *(post(b"%d" % i) for i in range(20)))
    assert [a.body for a in answers] == [b"%d" % i for i in range(20)]
    assert all(a.error == "" for a in answers)
    assert len(ports) == 1


def test_it_is_not_reused_where_the_server_says_so() -> None:
    answers = asked(says(answer(b"a", "Connection: close"), stay=True), post(), post())
    assert [a.body for a in answers] == [b"a"]
    answers = asked(says(b"HTTP/1.0 200 OK\r\nContent-Length: 1\r\n\r\na", stay=True), post(), post())
    assert [a.body for a in answers] == [b"a"]


def test_an_idle_close_is_noticed() -> None:
    with listening(says(answer(b"a"), pause_s=0.0)) as port:
        assert len(ask(address(port), post(), post(), pause_s=0.2)) == 1


def test_bytes_that_nobody_asked_for_close_the_connection() -> None:
    for surplus in (b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", b"what?"):
        answers = asked(says(answer(b"a") + surplus, stay=True), post(), post())
        assert [(a.error, a.body) for a in answers] == [("", b"a")]


def test_it_ends_before_the_answer_began() -> None:
    (a,) = asked(says())
    assert (a.error, len(a.reads), a.status) == ("closed", 0, 0)
    assert a.ended_ns >= a.sent_ns


def test_it_ends_within_the_answer() -> None:
    for part in (b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nhello", STREAM_HEAD + chunk(b"hello")):
        (a,) = asked(says(part))
        assert (a.error, a.body, a.complete) == ("closed", b"hello", False)
        assert rows(a)[-1, 2] == 5


def test_a_reset_within_the_body() -> None:
    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_request(reader)
        writer.write(STREAM_HEAD + chunk(b"hello"))
        await asyncio.sleep(0.1)
        sock = writer.get_extra_info("socket")
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\x01\0\0\0\0\0\0\0")
        writer.transport.abort()

    (a,) = asked(handle)
    assert (a.error, a.body) == ("reset", b"hello")


@pytest.mark.parametrize("garbage", [b"SSH-2.0-OpenSSH\r\n", b"\x16\x03\x01\x00", b"HTTP/1.1 two\r\n\r\n"])
def test_what_is_not_http(garbage: bytes) -> None:
    (a,) = asked(says(garbage))
    assert a.error == "bad_http"


def test_what_came_before_the_nonsense_keeps_its_time() -> None:
    """Every body byte lies below the last row of the reads, or it could not be dated."""
    (a,) = asked(says(STREAM_HEAD + chunk(b"hello") + b"nonsense\r\n"))
    assert (a.error, a.body) == ("bad_http", b"hello")
    assert rows(a)[-1, 2] == 5


def test_a_timeout() -> None:
    begun = time.monotonic()
    (a,) = asked(says(STREAM_HEAD + chunk(b"hello"), pause_s=3.0), timeout_s=0.3)
    assert (a.error, a.body) == ("timeout", b"hello")
    assert a.ended_ns - a.sent_ns >= 0.25e9  # uvloop counts whole milliseconds
    assert time.monotonic() - begun < 2.5


# --- large requests


BIG = post(b"x" * (16 << 20))


def test_a_request_larger_than_the_socket_buffers() -> None:
    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await asyncio.sleep(0.1)
        while True:
            writer.write(answer(b"%d" % len(await read_request(reader))))

    answers = asked(handle, BIG, BIG)
    assert [a.body for a in answers] == [b"%d" % len(BIG)] * 2
    assert answers[0].sent_ns - answers[0].first_byte_sent_ns > 50_000_000


async def deaf(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await asyncio.sleep(10)


def test_a_server_that_does_not_read_runs_into_the_timeout() -> None:
    (a,) = asked(deaf, BIG, timeout_s=0.3)
    assert a.error == "timeout"


def test_a_request_can_be_cancelled_while_it_is_sent() -> None:
    async def work(port: int) -> bool:
        connection = await opened(asyncio.get_running_loop(), address(port))
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.1):
                await connection.request(BIG, TIMEOUT_S)
        return connection.closed

    with listening(deaf) as port:
        assert play(work(port))


def test_an_answer_before_the_request_was_all_sent() -> None:
    """Half a request is left on that connection: it must not be used again."""

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(answer(b"too large", status="413 Payload Too Large"))
        await asyncio.sleep(10)

    answers = asked(handle, BIG, post())
    assert [(a.error, a.status, a.body) for a in answers] == [("", 413, b"too large")]


def test_an_answer_before_the_server_hung_up_on_a_large_request() -> None:
    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(answer(b"too large", "Connection: close", status="413 Payload Too Large"))
        await writer.drain()
        writer.transport.abort()

    (a,) = asked(handle, BIG)
    assert (a.error, a.status) in [("", 413), ("reset", 0)]  # the reset may overtake the answer in the kernel


# --- clocks


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="kernel stamps are Linux's")
def test_the_kernel_stamps_every_read() -> None:
    (a,) = asked(streamed(20, gap_s=0.005))
    arrivals, lag, _ = rows(a).T
    assert np.all(lag >= 0)
    assert np.median(lag) < 50_000_000
    assert np.all(arrivals >= a.sent_ns)


@pytest.mark.trap("stamps taken after the event loop came round")
@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="kernel stamps are Linux's")
def test_a_busy_client_still_sees_the_true_times() -> None:
    """The server sends at 60 ms and this loop sleeps through until 300: the stamp says 60, the lag the rest."""

    async def work(port: int) -> Answer:
        loop = asyncio.get_running_loop()
        connection = await opened(loop, address(port))
        await connection.request(post(), TIMEOUT_S)
        loop.call_later(0.02, time.sleep, 0.3)
        a = await connection.request(post(), TIMEOUT_S)
        connection.close()
        return a

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while True:
            await read_request(reader)
            await asyncio.sleep(0.06)
            writer.write(answer(b"a"))

    with listening(handle) as port:
        a = play(work(port))
    ((arrived, lag, _),) = rows(a).tolist()
    assert lag > 150_000_000
    assert arrived - a.sent_ns < 200_000_000


def test_without_kernel_stamps_the_clock_of_the_process_serves(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pacemark.instrument.connection.stamp_reads", lambda sock: False)
    (a,) = asked(streamed(3))
    assert a.error == ""
    assert np.all(rows(a)[:, 1] == -1)
    assert np.all(rows(a)[:, 0] >= a.sent_ns)


# --- opening


def open_error(place: Address, timeout_s: float = TIMEOUT_S) -> WireError:
    async def work() -> Connection:
        return await opened(asyncio.get_running_loop(), place, timeout_s)

    with pytest.raises(WireError) as caught:
        play(work())
    return caught.value


def test_nobody_listens() -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        assert open_error(address(unused.getsockname()[1])).kind == "refused"


def test_nobody_accepts() -> None:
    with contextlib.ExitStack() as stack:
        full = stack.enter_context(socket.socket())
        full.bind(("127.0.0.1", 0))
        full.listen(0)
        for _ in range(4):
            waiting = stack.enter_context(socket.socket())
            waiting.setblocking(False)
            waiting.connect_ex(full.getsockname())
        assert open_error(address(full.getsockname()[1]), 0.2).kind == "connect_timeout"


def test_no_file_descriptor_left() -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)

    async def work() -> str:
        loop = asyncio.get_running_loop()
        resource.setrlimit(resource.RLIMIT_NOFILE, (3, hard))
        try:
            await opened(loop, address(1))
        except WireError as error:
            return error.kind
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        return "opened"

    assert play(work()) == "connect"


def test_ipv6() -> None:
    try:
        with listening(streamed(2), host="::1") as port:
            place = Address(socket.AF_INET6, ("::1", port), "::1", port)
            assert ask(place, post())[0].error == ""
    except OSError:
        pytest.skip("no IPv6 on this machine")


# --- TLS


@pytest.fixture(scope="module")
def tls(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, ssl.SSLContext]:
    return certificate(tmp_path_factory.mktemp("tls"))


@contextlib.contextmanager
def secured(tls: tuple[Path, ssl.SSLContext], handle: Handler) -> Iterator[Callable[..., Address]]:
    """A TLS server; gives a maker of addresses that trust its certificate unless told otherwise."""
    with listening(handle, tls[1]) as port:
        yield lambda **fields: address(port, **{"tls": True, "ca_file": str(tls[0])} | fields)


def test_a_stream_over_tls(tls: tuple[Path, ssl.SSLContext]) -> None:
    with secured(tls, streamed(10, gap_s=0.005)) as place:
        answers = ask(place(), post(), post())
    for a in answers:
        assert (a.error, a.body.count(b"data: ")) == ("", 14)
        arrivals, lag, sizes = rows(a).T
        assert sizes[-1] == len(a.body)
        assert np.all(np.diff(arrivals) >= 0)
        if sys.platform.startswith("linux"):
            assert np.all(lag >= 0)
    assert len(answers) == 2


def test_verification_is_on(tls: tuple[Path, ssl.SSLContext]) -> None:
    with secured(tls, streamed(1)) as place:
        unknown = open_error(place(ca_file=""))
        assert (unknown.kind, unknown.detail) == ("tls", "self-signed certificate")
        other_name = open_error(place(host="other.test"))
        assert other_name.kind == "tls"
        assert "other.test" in other_name.detail
        assert ask(place(host="pacemark.test"), post())[0].error == ""
        assert ask(place(ca_file="", insecure=True, host="other.test"), post())[0].error == ""
        assert open_error(place(ca_file="/no/such/file.pem")).kind == "tls"


def test_tls_against_a_server_without_it() -> None:
    with listening(says(b"HTTP/1.1 400 Bad Request\r\n\r\n")) as port:
        assert open_error(address(port, tls=True, insecure=True), 1.0).kind in ("tls", "connect_timeout")


def test_alpn_is_http_1_1(tls: tuple[Path, ssl.SSLContext]) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(tls[0], tls[0].with_name("key.pem"))
    context.set_alpn_protocols(["h2", "http/1.1"])
    chosen: list[str | None] = []

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        chosen.append(writer.get_extra_info("ssl_object").selected_alpn_protocol())
        await read_request(reader)
        await stream(writer, 1)

    with listening(handle, context) as port:
        assert ask(address(port, tls=True, ca_file=str(tls[0])), post())[0].error == ""
    assert chosen == ["http/1.1"]


def test_a_large_request_and_answer_over_tls(tls: tuple[Path, ssl.SSLContext]) -> None:
    """A TLS record holds 16 KiB: longer prompts need many."""

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while True:
            writer.write(answer((await read_request(reader)).partition(b"\r\n\r\n")[2]))

    body = bytes(range(256)) * 8192
    with secured(tls, handle) as place:
        answers = ask(place(), post(body), post(body))
    assert [a.body == body for a in answers] == [True, True]


def test_a_whole_answer_and_the_goodbye_in_one_read(tls: tuple[Path, ssl.SSLContext]) -> None:
    """A server that closes after each answer sends both at once; the answer is whole all the same."""

    def once(data: bytes) -> Handler:
        async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await read_request(reader)
            await asyncio.sleep(0.05)
            writer.write(data)

        return handle

    async def sleepy(place: Address) -> Answer:
        """Let all of it arrive before the first read."""
        loop = asyncio.get_running_loop()
        connection = await opened(loop, place)
        loop.call_later(0.01, time.sleep, 0.2)
        return await connection.request(post(), TIMEOUT_S)

    for data in (answer(b"hello", "Connection: close"), answer(b"hello"), b"HTTP/1.1 200 OK\r\n\r\nhello"):
        with secured(tls, once(data)) as place:
            a = play(sleepy(place()))
        assert (a.error, a.body, a.complete) == ("", b"hello", True)
        assert rows(a)[-1, 2] == 5


def test_an_idle_close_is_noticed_over_tls(tls: tuple[Path, ssl.SSLContext]) -> None:
    with secured(tls, says(answer(b"a"), pause_s=0.0)) as place:
        assert len(ask(place(), post(), post(), pause_s=0.2)) == 1


# --- proxies


def proxy(seen: list[bytes], status: bytes = b"200 Connection established") -> Handler:
    """A small CONNECT proxy."""

    async def pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError):
            while data := await reader.read(65536):
                writer.write(data)
                await writer.drain()
            writer.write_eof()

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        seen.append(head)
        if not status.startswith(b"200"):
            writer.write(b"HTTP/1.1 %b\r\nContent-Length: 0\r\n\r\n" % status)
            return
        host, _, port = head.split()[1].decode().rpartition(":")
        behind_reader, behind = await asyncio.open_connection(host, int(port))
        writer.write(b"HTTP/1.1 %b\r\n\r\n" % status)
        try:
            await asyncio.gather(pump(reader, behind), pump(behind_reader, writer))
        finally:
            behind.close()

    return handle


def through(proxy_port: int, port: int, **fields: object) -> Address:
    header = f"CONNECT 127.0.0.1:{port} HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\n\r\n"
    return Address(socket.AF_INET, ("127.0.0.1", proxy_port), "127.0.0.1", port, proxy_header=header, **fields)  # type: ignore[arg-type]


def test_through_a_proxy() -> None:
    seen: list[bytes] = []
    with listening(streamed(3)) as port, listening(proxy(seen)) as between:
        answers = ask(through(between, port), post(), post())
    assert [a.error for a in answers] == ["", ""]
    assert seen[0].startswith(b"CONNECT 127.0.0.1:%d HTTP/1.1\r\n" % port)
    assert len(seen) == 1


def test_tls_through_a_proxy(tls: tuple[Path, ssl.SSLContext]) -> None:
    with listening(streamed(3), tls[1]) as port, listening(proxy([])) as between:
        (a,) = ask(through(between, port, tls=True, ca_file=str(tls[0])), post())
    assert (a.error, a.body.count(b"data: ")) == ("", 7)


def test_a_proxy_that_refuses() -> None:
    with listening(proxy([], b"407 Proxy Authentication Required")) as between:
        error = open_error(through(between, 9))
    assert error.kind == "proxy"
    assert "407" in error.detail


def test_a_proxy_that_hangs_up() -> None:
    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")

    with listening(handle) as between:
        assert open_error(through(between, 9)).kind == "proxy"


# --- what a server may do, and what this machine may not


def test_transfer_encoding_holds_where_a_length_is_given_too() -> None:
    """RFC 9112, 6.3."""
    head = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n"
    with listening(says(head + chunk(b"all of it"), chunk(b""), stay=True)) as port:
        first, second = ask(address(port), post(), post())
    assert (first.error, first.body, second.error, second.body) == ("", b"all of it", "", b"all of it")


def test_an_answer_that_stalls_is_cut_off_and_one_that_has_not_begun_is_not() -> None:
    head = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"

    async def stalled(port: int, limit_s: float, wait_s: float, unanswered_s: float = 0.0) -> tuple[bool, Answer]:
        loop = asyncio.get_running_loop()
        connection = await opened(loop, address(port))
        asked = loop.create_task(connection.request(post(), 5.0))
        await asyncio.sleep(wait_s)
        connection.cut_off_if_lost(limit_s, unanswered_s)
        await asyncio.sleep(0.05)
        cut = asked.done()
        connection.close()
        return cut, await asked

    with listening(says(head, chunk(b"begun"), pause_s=0.01, stay=True)) as port:
        cut, answer = play(stalled(port, 0.2, 0.5))
        assert (cut, answer.error, answer.body) == (True, "stalled", b"begun")
        assert answer.detail.startswith("nothing came for 0.")
        assert play(stalled(port, 30.0, 0.3))[0] is False
    with listening(says(head, pause_s=0.01, stay=True)) as port:
        assert play(stalled(port, 0.2, 0.5))[0] is False
        cut, answer = play(stalled(port, 0.0, 0.5, 0.3))
        assert (cut, answer.error, answer.status) == (True, "unanswered", 200)
        assert play(stalled(port, 0.0, 0.5, 30.0))[0] is False
    done = b"data: x\n\ndata: [DONE]\n\n"
    with listening(says(head, chunk(done), pause_s=0.01, stay=True)) as port:
        for limit_s in (0.0, 30.0):  # said to be over, and held open
            cut, answer = play(stalled(port, limit_s, 0.6))
            assert (cut, answer.error, answer.body) == (True, "stalled", done)
    with listening(says(head, chunk(b"data: x\n\n"), pause_s=0.01, stay=True)) as port:
        assert play(stalled(port, 0.0, 0.6))[0] is False


def test_too_few_file_descriptors_are_this_machines_fault() -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)

    async def refused() -> None:
        resource.setrlimit(resource.RLIMIT_NOFILE, (3, hard))
        try:
            await opened(asyncio.get_running_loop(), address(9))
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))

    with pytest.raises(WireError, match=r"limit of 3 open files is too low .*ulimit -n"):
        play(refused())


def test_a_reset_that_came_together_with_data_is_found_when_the_connection_is_looked_at() -> None:
    """The event loop hears of both at once, and watches the socket no more."""
    head = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(head + chunk(b"begun"))
        await asyncio.sleep(0.1)
        sock = writer.get_extra_info("socket")
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\x01\0\0\0\0\0\0\0")
        writer.write(chunk(b" and gone"))
        writer.transport.abort()

    async def reset(port: int) -> Answer:
        loop = asyncio.get_running_loop()
        connection = await opened(loop, address(port))
        asked = loop.create_task(connection.request(post(), 5.0))
        await asyncio.sleep(0.05)
        time.sleep(0.2)
        await asyncio.sleep(0.3)
        connection.cut_off_if_lost(0)
        return await asyncio.wait_for(asked, 1.0)

    with listening(handle) as port:
        answer = play(reset(port))
    assert answer.error == "reset"
    assert answer.body.startswith(b"begun")
