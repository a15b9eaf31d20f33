"""Servers that never come to an end: what is read of them is bounded, and what was reached is said."""

from __future__ import annotations

import asyncio
import contextlib
import gzip
import resource
import socket
import ssl
import threading
from collections.abc import Iterator

import pytest

from pacemark.dialects import reading
from pacemark.dialects.reading import understand
from pacemark.endpoint.offered import fetched
from pacemark.endpoint.target import target
from pacemark.instrument import answer as answers
from pacemark.instrument import connection
from pacemark.instrument.answer import Answer
from pacemark.instrument.opening import opened
from support.servers import STREAM_HEAD, address, answer, certificate, delta, listening, play, post, raw, read_request

MB = 1 << 20


@contextlib.contextmanager
def endless(start: bytes, part: bytes, context: ssl.SSLContext | None) -> Iterator[int]:
    """A server that answers one request with `start` and then `part` again and again, for as long as it is taken."""

    def serve() -> None:
        with contextlib.suppress(OSError):
            sock, _ = listener.accept()
            sock.settimeout(20)
            with context.wrap_socket(sock, server_side=True) if context else sock as link:
                link.recv(65536)
                link.sendall(start)
                while True:
                    link.sendall(part)

    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        yield listener.getsockname()[1]
        thread.join(20)
    assert not thread.is_alive()


async def asked(port: int, **place: object) -> Answer:
    link = await opened(asyncio.get_running_loop(), address(port, **place), 10.0)
    return await link.request(post(), 15.0)


BIG = b"x" * 65536
ENDLESS = {
    "one header": (BIG, b"HTTP/1.1 200 OK\r\nX: ", "bad_http", "headers"),
    "headers": (b"X-Pad: " + BIG[:1000] + b"\r\n", b"HTTP/1.1 200 OK\r\n", "bad_http", "headers"),
    "interim answers": (b"HTTP/1.1 103 Early Hints\r\n\r\n", b"", "bad_http", "headers"),
    "a status line": (BIG, b"HTTP/1.1 200 ", "bad_http", ""),
    "a body": (BIG, b"HTTP/1.1 200 OK\r\n\r\n", "too_large", "64 MB"),
    "a stated length": (BIG, b"HTTP/1.1 200 OK\r\nContent-Length: 99999999999\r\n\r\n", "too_large", "64 MB"),
    "one line": (b"10000\r\n" + BIG + b"\r\n", STREAM_HEAD + b"6\r\ndata: \r\n", "too_large", "64 MB"),
    "a chunk extension": (BIG, STREAM_HEAD + b"5;x=", "", ""),
    "trailers": (b"X-Pad: " + BIG[:1000] + b"\r\n", STREAM_HEAD + b"0\r\n", "too_large", "64 MB"),
}


@pytest.mark.parametrize("name", ENDLESS)
@pytest.mark.parametrize("secure", [False, True])
def test_an_answer_without_an_end_is_cut_off(
    name: str, secure: bool, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in (connection, answers):
        monkeypatch.setattr(module, "MOST_BYTES", 4 * MB)
    part, start, kind, detail = ENDLESS[name]
    context: ssl.SSLContext | None = None
    place: dict[str, object] = {}
    if secure:
        cert, context = certificate(tmp_path_factory.getbasetemp())
        place = {"tls": True, "ca_file": str(cert)}
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with endless(start, part, context) as port:
        found = play(asked(port, **place))
    assert found.error in ((kind,) if kind else ("too_large", "bad_http"))
    assert detail.replace("64", "4") in found.detail
    assert len(found.body) < 5 * MB
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 100_000  # kB


def test_many_small_reads_count_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connection, "MOST_BYTES", 5000)

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_request(reader)
        writer.write(b"HTTP/1.1 200 OK\r\n\r\n")
        for _ in range(2000):
            writer.write(b"x")
            await writer.drain()
            await asyncio.sleep(0.001)

    with listening(handle) as port:
        found = play(asked(port))
    assert found.error == "too_large"
    assert len(found.reads) // 3 <= 5000 / 25 + 2


@pytest.mark.parametrize("encoding", ["gzip", "deflate"])
@pytest.mark.slow(shared=True)
def test_a_bomb_is_not_inflated(encoding: str) -> None:
    bomb = gzip.compress(b"data: {}\n\n" * (30 * MB), 9)
    assert len(bomb) < MB
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    found = understand(raw(bomb, [(10, 1000), (20, len(bomb) // 2), (30, len(bomb))], encoding=encoding))
    assert (found.error, found.output_tokens) == ("too_large", 0)
    assert "64 MB once it is inflated" in found.detail
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 300_000  # kB


@pytest.mark.parametrize("api", ["chat", "responses", "ollama", "tgi"])
@pytest.mark.parametrize("unit", [b"data: {}\n\n", b"data: 1\r\r", b"{}\n", b"\n", b"data: {}data: {}"])
def test_more_events_than_an_answer_has_are_not_read(api: str, unit: bytes) -> None:
    found = understand(raw(unit * (reading.MOST_EVENTS + 1)), api)
    assert found.error == "too_large"
    assert "1,000,000 events" in found.detail


def test_what_a_server_says_of_a_failure_is_looked_at_in_bounded_time() -> None:
    for page in (b"<" * (20 * MB), b"no " * (7 * MB), b'{"error": "' + b"x" * (20 * MB) + b'"}'):
        found = understand(raw(page, status=500, streamed=False))
        assert found.error == "http_500"
        assert len(found.detail) <= MB


def test_words_of_a_server_are_short() -> None:
    """Columns of words are as wide as their longest."""
    body = delta(content="a") + delta("error" + "x" * 100_000) + delta("\ud800")
    found = understand(raw(body))
    assert len(found.finish_reason) <= 120
    assert len(found.error) <= 120
    found.error.encode()


def test_a_list_of_models_that_trickles_in_is_not_waited_for() -> None:
    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_request(reader)
        for byte in answer(b"x" * 10_000):
            writer.write(bytes([byte]))
            await writer.drain()
            await asyncio.sleep(0.05)

    with listening(handle) as port, pytest.raises(OSError, match="within 1 s"):
        fetched(target(f"http://127.0.0.1:{port}/v1"), "/models", timeout_s=1.0)
