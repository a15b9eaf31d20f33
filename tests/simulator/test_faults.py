"""Each fault as a client sees it on the wire, and the rules that order them."""

from __future__ import annotations

import gzip
import json
import re
import socket
import time
from http.client import BadStatusLine, IncompleteRead, RemoteDisconnected
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

from pacemark.errors import BadInput
from pacemark.simulator import Served, serving
from pacemark.simulator.engine.presets import PRESETS
from pacemark.simulator.server.faults import FAULTS, OUTAGES, Fault, Faults, read_faults
from support.simulated import Received, ask, chat, connect, open_stream
from support.waiting import wait_for

STREAM: dict[str, Any] = {"stream": True, "stream_options": {"include_usage": True}, "max_tokens": 8}
HIDDEN = (ConnectionResetError, BrokenPipeError, RemoteDisconnected, BadStatusLine, IncompleteRead)


def faulty(*rules: dict[str, Any], **options: Any) -> Any:
    """A quick endpoint with these faults."""
    return serving("fixed", **({"ttft_ms": 2, "itl_ms": 1, "faults": list(rules)} | options))


def streamed(rule: dict[str, Any]) -> Received:
    """One streamed answer that `rule` befalls."""
    with faulty(rule) as served:
        return chat(served, served.model, **STREAM)


def raw(served: Served, **fields: Any) -> tuple[bytes, BaseException | None]:
    """All bytes of one streamed answer, and how the connection ended before its time, if it did."""
    body = {"model": served.model, "messages": [{"role": "user", "content": "x"}]} | STREAM | fields
    sock = open_stream(served, body)
    received, error = b"", None
    try:
        while not received.endswith(b"\r\n0\r\n\r\n") and (data := sock.recv(65536)):
            received += data
    except OSError as e:
        error = e
    sock.close()
    return received, error


def texts(reply: Received) -> list[str]:
    """What each event with output says."""
    deltas = [e["choices"][0]["delta"] for e in reply.events if e["choices"]]
    return [d["content"] for d in deltas if d.get("content")]


def test_reset_before_headers() -> None:
    with faulty({"kind": "reset_before_headers"}) as served:
        for stream in (True, False):
            with pytest.raises(HIDDEN):
                chat(served, served.model, stream=stream)
        received, error = raw(served)
        assert received == b""
        assert isinstance(error, ConnectionResetError)
        assert ask(served, "/health").status == 200


@pytest.mark.parametrize("events", [0, 3, 100])
def test_reset_mid_stream(events: int) -> None:
    with faulty({"kind": "reset_mid_stream", "after_events": events}) as served:
        received, error = raw(served)
        assert isinstance(error, ConnectionResetError)
        assert received.count(b'{"content":" ') == min(events, 7)
        assert b"[DONE]" not in received
        with pytest.raises(HIDDEN):
            chat(served, served.model, max_tokens=40)


def test_cut_mid_stream() -> None:
    with faulty({"kind": "cut_mid_stream"}) as served:
        received, error = raw(served)
        assert error is None
        assert received.count(b'{"content":" ') == 3
        assert not received.endswith(b"0\r\n\r\n")
        with pytest.raises(IncompleteRead):
            chat(served, served.model)


def test_a_broken_answer_frees_the_engine() -> None:
    faults = [{"kind": "reset_mid_stream", "for_s": 0.05}]
    with serving("demo", max_batch=1, base_ms=1, faults=faults) as served:
        received, _ = raw(served, max_tokens=60_000)
        assert received.count(b'{"content":" ') == 3
        time.sleep(0.05)
        assert chat(served, served.model).status == 200


def test_stall() -> None:
    with faulty({"kind": "stall", "seconds": 0.4}) as served:
        body = {"model": served.model, "messages": [{"role": "user", "content": "x"}]} | STREAM
        start = time.monotonic()
        sock = open_stream(served, body)
        received = b""
        while received.count(b'{"content":" ') < 3:
            received += sock.recv(4096)
        assert received.count(b'{"content":" ') == 3
        while not received.endswith(b"\r\n0\r\n\r\n"):
            received += sock.recv(4096)
        assert time.monotonic() - start > 0.4
        assert received.count(b'{"content":" ') == 8
        sock.close()
        start = time.monotonic()
        assert chat(served, served.model, stream=False, max_tokens=2).json["usage"]["completion_tokens"] == 2
        assert time.monotonic() - start > 0.4


@pytest.mark.parametrize("stream", [True, False])
def test_slow_first_byte(stream: bool) -> None:
    with faulty({"kind": "slow_first_byte", "seconds": 0.4}) as served:
        start = time.monotonic()
        reply = chat(served, served.model, stream=stream)
        assert time.monotonic() - start > 0.4
        assert (len(texts(reply)) if stream else reply.json["usage"]["completion_tokens"]) == 4


def test_a_client_that_leaves_a_stall_is_forgotten() -> None:
    with faulty({"kind": "slow_first_byte", "seconds": 0.2}) as served:
        body = {"model": served.model, "messages": [{"role": "user", "content": "x"}]} | STREAM
        open_stream(served, body).close()
        time.sleep(0.3)
        assert ask(served, "/health").status == 200


def test_http_429() -> None:
    with faulty({"kind": "http_429", "seconds": 7}) as served:
        reply = chat(served, served.model)
        assert (reply.status, reply.headers["retry-after"]) == (429, "7")
        assert reply.json["error"]["code"] == "rate_limit_exceeded"


def test_http_500() -> None:
    with faulty({"kind": "http_500"}) as served:
        reply = chat(served, served.model)
        assert (reply.status, reply.json["error"]["type"]) == (500, "internal_server_error")


def test_http_503_is_html() -> None:
    with faulty({"kind": "http_503"}) as served:
        reply = chat(served, served.model)
        assert (reply.status, reply.headers["content-type"]) == (503, "text/html")
        assert reply.body.startswith(b"<html>")


def test_faults_take_the_form_of_the_face() -> None:
    with faulty({"kind": "http_429"}, databricks={"endpoint": "e"}) as served:
        reply = ask(served, "/serving-endpoints/e/invocations", {"prompt": "x"})
        assert (reply.status, reply.json["error_code"]) == (429, "REQUEST_LIMIT_EXCEEDED")


def test_malformed_sse() -> None:
    events = streamed({"kind": "malformed_sse"}).body.split(b"\n\n")
    # The role, three events in order, and then the broken one.
    with pytest.raises(json.JSONDecodeError):
        json.loads(events[4].removeprefix(b"data: "))
    for event in events[:4] + events[5:-2]:
        json.loads(event.removeprefix(b"data: "))
    with faulty({"kind": "malformed_sse"}) as served:
        reply = chat(served, served.model)
        assert reply.status == 200
        with pytest.raises(json.JSONDecodeError):
            _ = reply.json


def test_invalid_utf8() -> None:
    reply = streamed({"kind": "invalid_utf8"})
    with pytest.raises(UnicodeDecodeError):
        reply.body.decode()
    assert reply.body.count(b"\xff\xfe") == 1
    with faulty({"kind": "invalid_utf8"}) as served:
        assert b"\xff\xfe" in chat(served, served.model).body


def test_split_bytes() -> None:
    with faulty({"kind": "split_bytes"}) as served:
        received, error = raw(served)
        assert error is None
        assert received.count(b"\r\n1\r\n") > 800
        assert len(texts(chat(served, served.model, **STREAM))) == 8


def test_crlf() -> None:
    reply = streamed({"kind": "crlf"})
    assert reply.body.count(b"\r\n") == reply.body.count(b"\n") > 20
    assert len(texts(Received(200, {}, reply.body.replace(b"\r\n", b"\n")))) == 8


def test_comments() -> None:
    body = streamed({"kind": "comments"}).body
    lines = body.decode().split("\n")
    assert {line.split(":")[0] for line in lines if line} == {"", "retry", "id", "event", "data"}
    data = [line.removeprefix("data: ") for line in lines if line.startswith("data: ")]
    assert data[-1] == "[DONE]"
    assert len(data) == 1 + 8 + 1 + 1 + 1


@pytest.mark.parametrize("stream", [True, False])
def test_gzip_that_nobody_asked_for(stream: bool) -> None:
    with faulty({"kind": "gzip"}) as served:
        reply = chat(served, served.model, **(STREAM | {"stream": stream, "stream_options": None}))
        assert reply.headers["content-encoding"] == "gzip"
        plain = gzip.decompress(reply.body)
        assert plain.endswith(b"data: [DONE]\n\n") if stream else json.loads(plain)["usage"]


def test_gzip_streams_can_be_read_as_they_come() -> None:
    with faulty({"kind": "gzip"}, itl_ms=100) as served:
        start = time.monotonic()
        body = {"model": served.model, "messages": [{"role": "user", "content": "x"}]} | STREAM
        sock = open_stream(served, body)
        reads = 0
        while time.monotonic() - start < 0.45:
            sock.recv(65536)
            reads += 1
        assert reads >= 3
        sock.close()


def test_no_done() -> None:
    reply = streamed({"kind": "no_done"})
    assert b"[DONE]" not in reply.body
    assert b'"usage":{' in reply.body


def test_no_usage() -> None:
    reply = streamed({"kind": "no_usage"})
    assert b"usage" not in reply.body
    assert len(texts(reply)) == 8
    with faulty({"kind": "no_usage"}, databricks={"endpoint": "e"}) as served:
        assert "usage" not in chat(served, served.model).json
        body = {"messages": [{"role": "user", "content": "x"}], "stream": True, "max_tokens": 8}
        assert len(texts(ask(served, "/serving-endpoints/e/invocations", body))) == 8


def test_usage_null() -> None:
    events = streamed({"kind": "usage_null"}).events
    assert all("usage" in e for e in events)
    assert [e["usage"] for e in events[:-1]] == [None] * 10
    assert events[-1]["usage"]["completion_tokens"] == 8


def test_duplicate_finish() -> None:
    events = streamed({"kind": "duplicate_finish"}).events
    assert [bool(e["choices"] and e["choices"][0]["finish_reason"]) for e in events[-3:]] == [True, True, False]


def test_error_in_stream() -> None:
    with faulty({"kind": "error_in_stream"}) as served:
        received, error = raw(served)
        assert error is None
        assert received.startswith(b"HTTP/1.1 200 ")
        assert received.count(b'{"content":" ') == 3
        assert b'"error":{"message":' in received
        assert b'num_requests_running{engine="0",model_name="fixed"} 0' in ask(served, "/metrics").body
        whole = chat(served, served.model)
        assert whole.status == 200
        assert set(whole.json) == {"error"}


def test_huge_event() -> None:
    reply = streamed({"kind": "huge_event", "size": 10_000_000})
    sizes = [len(text) for text in texts(reply)]
    assert max(sizes) == 10_000_005
    assert sizes.index(max(sizes)) == 3
    assert reply.events[-1]["usage"]["completion_tokens"] == 8


@pytest.mark.parametrize("kind", ["malformed_sse", "invalid_utf8", "huge_event", "stall"])
def test_a_short_answer_is_hit_at_its_last_event(kind: str) -> None:
    with faulty({"kind": kind, "after_events": 50, "seconds": 0.2, "size": 1000}) as served:
        start = time.monotonic()
        received, _ = raw(served, max_tokens=2)
        if kind == "stall":
            assert time.monotonic() - start > 0.2
        elif kind == "huge_event":
            assert b"x" * 1000 in received
        elif kind == "invalid_utf8":
            assert b"\xff\xfe" in received
        else:
            assert received.count(b"}\n\n") < 5


def refused(served: Served) -> bool:
    address = urlsplit(served.url)
    try:
        socket.create_connection((address.hostname, address.port), timeout=5).close()
    except ConnectionRefusedError:
        return True
    return False


def test_refuse() -> None:
    with faulty({"kind": "refuse", "at_s": 0.1, "seconds": 0.5}, itl_ms=50) as served:
        kept = connect(served)
        ask(kept, "/health")
        sock = open_stream(served, {"model": "fixed", "messages": [{"role": "user", "content": "x"}]} | STREAM)
        assert not refused(served)
        wait_for(lambda: refused(served))
        # An idle connection is closed, an answer under way goes on.
        assert kept.sock.recv(1) == b""
        kept.close()
        received = b""
        while not received.endswith(b"\r\n0\r\n\r\n"):
            data = sock.recv(4096)
            assert data
            received += data
        sock.close()
        wait_for(lambda: not refused(served))
        assert chat(served, served.model, max_tokens=1).status == 200


def test_restart() -> None:
    with faulty({"kind": "restart", "at_s": 0.1, "seconds": 0.3}, itl_ms=50) as served:
        received, error = raw(served)
        assert isinstance(error, ConnectionResetError)
        assert 0 < received.count(b'{"content":" ') < 8
        wait_for(lambda: not refused(served))
        assert chat(served, served.model, max_tokens=1).status == 200
        running = ask(served, "/metrics").body.decode()
        assert 'num_requests_running{engine="0",model_name="fixed"} 0' in running


def test_freeze() -> None:
    with faulty({"kind": "freeze", "at_s": 0.05, "seconds": 0.5}, itl_ms=10) as served:
        chat(served, served.model, stream=True, max_tokens=20)
        late = ask(served, "/lateness").json
        # The timeline goes on while it stands still, and what was due comes at once.
        assert late["max_ms"] > 300


def test_idle_close() -> None:
    with faulty({"kind": "idle_close", "seconds": 0.15}, itl_ms=50) as served:
        connection = connect(served)
        assert len(texts(chat(connection, served.model, **STREAM))) == 8
        assert connection.sock.recv(1) == b""
        connection.close()


@pytest.mark.slow
def test_every_kind_befalls_a_request() -> None:
    kinds = [kind for kind in FAULTS if kind not in OUTAGES]
    # The first rule that hits wins: request 0 is spared, request n meets the nth kind.
    rules = [{"kind": kind, "after_requests": n, "seconds": 1.0, "size": 9999} for n, kind in enumerate(kinds, 1)]

    def seen(served: Served) -> tuple[bytes, str, bool]:
        begun = time.monotonic()
        received, error = raw(served)
        return re.sub(rb"\d+", b"", received), type(error).__name__, time.monotonic() - begun > 0.8

    with faulty(*reversed(rules)) as served:
        well, *ill = [seen(served) for _ in range(len(kinds) + 1)]
    assert well[1:] == ("NoneType", False)
    assert [kind for kind, answer in zip(kinds, ill, strict=True) if answer == well] == []


def test_share_is_drawn_from_the_seed() -> None:
    def pattern(seed: int) -> list[int]:
        with faulty({"kind": "http_500", "share": 0.3}, seed=seed) as served:
            connection = connect(served)
            statuses = [chat(connection, served.model, max_tokens=1).status for _ in range(60)]
            connection.close()
            return statuses

    first = pattern(1)
    assert first == pattern(1)
    assert first != pattern(2)
    assert 6 < first.count(500) < 32


def test_a_rule_holds_for_its_time_and_the_first_that_hits_wins() -> None:
    rules = [Fault(kind="http_429", at_s=1.0, for_s=2.0), Fault(kind="http_500", at_s=2.5)]
    faults = Faults(rules, seed=0)
    chosen = [faults.choose(int(5e9 + t * 1e9)) for t in (0, 0.9, 1.0, 2.9, 3.1)]
    assert [c.kind if c else None for c in chosen] == [None, None, "http_429", "http_429", "http_500"]


def test_the_first_requests_can_be_spared() -> None:
    begun: list[str] = []
    rules = [
        Fault(kind="http_500", after_requests=2, at_s=1.0),
        Fault(kind="freeze", after_requests=3),
        Fault(kind="restart"),
    ]
    faults = Faults(rules, 0, lambda outage: begun.append(outage.kind))
    seen = []
    for t in (0, 5, 6, 6.9, 7.1):
        chosen = faults.choose(int(t * 1e9))
        seen.append((chosen.kind if chosen else None, list(begun)))
    assert [kind for kind, _ in seen] == [None, None, None, None, "http_500"]
    assert [outages for _, outages in seen] == [["restart"]] * 3 + [["restart", "freeze"]] * 2


def test_rules_from_a_file(tmp_path: Path) -> None:
    path = tmp_path / "faults.toml"
    path.write_text('[[fault]]\nkind = "stall"\nshare = 0.1\nseconds = 2\n\n[[fault]]\nkind = "restart"\nat_s = 20\n')
    assert read_faults(path) == [Fault(kind="stall", share=0.1, seconds=2.0), Fault(kind="restart", at_s=20.0)]


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ('[[fault]]\nkind = "no_such"', "split_bytes"),
        ('[[fault]]\nkind = "stall"\nshare = 1.5', "share"),
        ('[[fault]]\nkind = "stall"\nshare = "half"', "share"),
        ('[[fault]]\nkind = "stall"\ncolour = 1', "colour"),
        ('[[fault]]\nkind = "restart"\nshare = 0.5', "whole endpoint"),
        ('[[fault]]\nkind = "stall"\nseconds = -1', "negative"),
        ("[[fault]\n", "faults.toml"),
        ("[faults]\n", "faults"),
    ],
)
def test_bad_rules_are_bad_input(tmp_path: Path, text: str, says: str) -> None:
    path = tmp_path / "faults.toml"
    path.write_text(text)
    with pytest.raises(BadInput, match=says):
        read_faults(path)


def test_a_missing_file_is_bad_input(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="No such file"):
        read_faults(tmp_path / "none.toml")


def test_every_fault_is_described() -> None:
    assert all(FAULTS.values())
    assert set(OUTAGES) <= set(FAULTS)
    manual = (Path(__file__).parents[2] / "docs" / "simulator.md").read_text()
    assert [name for name in (*FAULTS, *PRESETS, *Fault.__struct_fields__[1:]) if f"| `{name}` |" not in manual] == []
