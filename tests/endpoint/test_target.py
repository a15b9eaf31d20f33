"""The address of an endpoint: what is refused, what is sent, and what is never shown."""

import asyncio
import base64
import socket
from pathlib import Path

import pytest

from pacemark.endpoint.target import Target, only_model, resolve, target
from pacemark.errors import BadInput
from support.servers import Handler, answer, certificate, listening, read_request

KEY = "sk-a-secret-that-must-not-show"


@pytest.fixture(autouse=True)
def _plain_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("http_proxy", "https_proxy", "all_proxy", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)
    monkeypatch.delenv("PACEMARK_API_KEY", raising=False)


# --- URLs


@pytest.mark.parametrize(
    "url",
    [
        "",
        "localhost:8000/v1",
        "//host/v1",
        "ftp://host/v1",
        "http://",
        "http://:8000/v1",
        "http://host:port/v1",
        "http://host:0/v1",
        "http://host:99999/v1",
        "http://[::1/v1",
        "http://[::zz]/v1",
        "http://host/v 1",
        "http://host/\r\nX: 1",
        "http://h\u00f6st/v1",
        "http://host/v1?api-version=1",
        "http://host/v1#top",
        "http://user:password@host/v1",
    ],
)
def test_a_url_that_cannot_work_is_one_line(url: str) -> None:
    with pytest.raises(BadInput) as caught:
        target(url)
    assert "\n" not in str(caught.value)
    assert "password@" not in str(caught.value)


def test_a_url_without_a_scheme_is_told_how_it_would_look() -> None:
    with pytest.raises(BadInput, match="http://localhost:8000/v1"):
        target("localhost:8000/v1")


@pytest.mark.parametrize(
    ("url", "host", "port", "tls", "host_line", "path"),
    [
        ("http://host:8000/v1/", "host", 8000, False, "host:8000", "/v1/x"),
        ("http://host", "host", 80, False, "host", "/x"),
        ("https://host/serving-endpoints", "host", 443, True, "host", "/serving-endpoints/x"),
        ("http://[::1]:8000/v1", "::1", 8000, False, "[::1]:8000", "/v1/x"),
        ("https://[2001:db8::1]/v1", "2001:db8::1", 443, True, "[2001:db8::1]", "/v1/x"),
        ("http://127.0.0.1:1/a/b//", "127.0.0.1", 1, False, "127.0.0.1:1", "/a/b/x"),
    ],
)
def test_the_parts_of_a_url(url: str, host: str, port: int, tls: bool, host_line: str, path: str) -> None:
    t = target(url)
    assert (t.host, t.port, t.tls) == (host, port, tls)
    lines = t.head("/x").decode().split("\r\n")
    assert lines[0] == f"POST {path} HTTP/1.1"
    assert f"Host: {host_line}" in lines
    assert lines[-1] == "Content-Length: "


def test_an_unknown_api_and_an_unreadable_ca_file(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="--api 'tea'"):
        target("http://host", api="tea")
    with pytest.raises(BadInput, match="--ca-file"):
        target("https://host", ca_file=str(tmp_path / "none.pem"))


# --- headers


@pytest.mark.parametrize(
    "header",
    [
        f"X-Key {KEY}",
        f": {KEY}",
        f"Bad Name: {KEY}",
        f"X: {KEY}\r\nY: 1",
        f"X: {KEY}\x00",
        f"X: {KEY}\x1b[2J",
        f"X: {KEY}\u00e9",
        f"Host: {KEY}",
        f"content-length: {KEY}",
        f"Transfer-Encoding: {KEY}",
    ],
)
def test_a_header_that_cannot_be_sent_is_refused_without_showing_it(header: str) -> None:
    with pytest.raises(BadInput) as caught:
        target("http://host", headers=[header])
    assert KEY not in str(caught.value)


def test_headers_are_sent_as_given_and_override_the_defaults() -> None:
    t = target("http://host", headers=["X-Org: a: b", "accept-encoding:gzip"])
    lines = t.head("/").decode().split("\r\n")
    assert "X-Org: a: b" in lines
    assert [line for line in lines if line.lower().startswith("accept-encoding")] == ["accept-encoding: gzip"]
    assert "Content-Type: application/json" in lines
    assert target("http://host", headers={"X-Org": "c"}).headers == {"X-Org": "c"}


def test_the_key_comes_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MY_KEY", f" {KEY}\n")
    assert target("http://host", api_key_env="MY_KEY").headers == {"Authorization": f"Bearer {KEY}"}
    own = target("http://host", api_key_env="MY_KEY", headers=["authorization: Basic xyz"])
    assert own.headers == {"authorization": "Basic xyz"}
    monkeypatch.setenv("PACEMARK_API_KEY", "another")
    assert target("http://host").headers == {"Authorization": "Bearer another"}
    monkeypatch.setenv("MY_KEY", "  ")
    with pytest.raises(BadInput, match="MY_KEY"):
        target("http://host", api_key_env="MY_KEY")


@pytest.mark.parametrize("value", [KEY, f"Bearer {KEY}", f"Basic {KEY}"])
def test_secrets_are_masked_with_and_without_their_scheme(value: str) -> None:
    t = target("http://host", model="m", headers={"Authorization": value})
    for text in (f"wrong key {value}!", f"wrong key {KEY}!", f"{KEY}{KEY}"):
        assert KEY not in t.redacted(text)
    assert "wrong key" in t.redacted(f"wrong key {KEY}!")
    assert t.described() == {"url": "http://host", "model": "m", "api": "chat"}


# --- addresses


def test_addresses_of_plain_hosts() -> None:
    (v4,) = resolve(target("http://127.0.0.1:8000/v1"))
    assert (v4.family, v4.sockaddr, v4.tls, v4.proxy_header) == (socket.AF_INET, ("127.0.0.1", 8000), False, "")
    (v6,) = resolve(target("https://[::1]:8443/v1", insecure=True))
    assert (v6.family, v6.sockaddr, v6.host) == (socket.AF_INET6, ("::1", 8443), "::1")
    assert (v6.tls, v6.insecure) == (True, True)


@pytest.mark.parametrize("host", ["host.invalid", "a..b", "x" * 70])
def test_a_host_without_address(host: str) -> None:
    with pytest.raises(BadInput, match="check the URL"):
        resolve(target(f"http://{host}/v1"))


def test_a_proxy_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("https_proxy", "http://user:p%40ss@127.0.0.1:3128")
    (place,) = resolve(target("https://models.example/v1"))
    assert place.sockaddr == ("127.0.0.1", 3128)
    assert (place.host, place.port, place.tls) == ("models.example", 443, True)
    lines = place.proxy_header.split("\r\n")
    assert lines[0] == "CONNECT models.example:443 HTTP/1.1"
    assert f"Proxy-Authorization: Basic {base64.b64encode(b'user:p@ss').decode()}" in lines
    assert place.proxy_header.endswith("\r\n\r\n")


def test_a_proxy_without_scheme_user_or_port(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("http_proxy", "127.0.0.1")
    (place,) = resolve(target("http://[2001:db8::1]/v1"))
    assert place.sockaddr == ("127.0.0.1", 80)
    assert place.proxy_header == "CONNECT [2001:db8::1]:80 HTTP/1.1\r\nHost: [2001:db8::1]:80\r\n\r\n"


def test_no_proxy_and_loopback_go_direct(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:3128")
    monkeypatch.setenv("no_proxy", "192.0.2.7")
    for host in ("127.0.0.1", "[::1]", "localhost", "192.0.2.7"):
        assert all(place.proxy_header == "" for place in resolve(target(f"http://{host}:8000/v1")))
    assert resolve(target("http://192.0.2.8:8000/v1"))[0].proxy_header


@pytest.mark.parametrize(
    "proxy", ["socks5://127.0.0.1:1080", "https://127.0.0.1:1", ":3128", "http://h:0", "http://[x"]
)
def test_a_proxy_that_cannot_be_used(monkeypatch: pytest.MonkeyPatch, proxy: str) -> None:
    monkeypatch.setenv("http_proxy", proxy)
    with pytest.raises(BadInput, match="proxy"):
        resolve(target("http://192.0.2.8/v1"))


def test_a_proxy_without_address_is_named_as_the_cause(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("http_proxy", "http://proxy.invalid:3128")
    with pytest.raises(BadInput, match=r"proxy\.invalid.*check the proxy"):
        resolve(target("http://192.0.2.8/v1"))


# --- the model list


def serve_models(reply: bytes, seen: list[bytes]) -> Handler:
    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        seen.append(await read_request(reader))
        writer.write(reply)
        await writer.drain()

    return handle


def ask_models(reply: bytes, **fields: str) -> tuple[str, list[bytes]]:
    seen: list[bytes] = []
    with listening(serve_models(reply, seen)) as port:
        return only_model(Target(f"http://127.0.0.1:{port}/v1", headers=fields)), seen


def test_the_only_model_is_found() -> None:
    name, seen = ask_models(answer(b'{"data": [{"id": "llama"}]}', "Connection: close"), Authorization="Bearer x")
    assert name == "llama"
    assert seen[0].startswith(b"GET /v1/models HTTP/1.1\r\n")
    assert b"Authorization: Bearer x\r\n" in seen[0]


def test_several_models_must_be_chosen_from() -> None:
    with pytest.raises(BadInput, match="--model: a, b"):
        ask_models(answer(b'{"data": [{"id": "a"}, {"id": "b"}]}'))


@pytest.mark.parametrize(
    "reply",
    [
        answer(b'{"data": []}'),
        answer(b'{"data": [1]}'),
        answer(b"[]"),
        answer(b"<html>"),
        answer(b"{}", status="401 Unauthorized"),
        b"not http\r\n\r\n",
        b"",
    ],
)
def test_no_list_is_no_model_and_no_error(reply: bytes) -> None:
    assert ask_models(reply)[0] == ""


def test_a_redirect_does_not_carry_the_key_elsewhere() -> None:
    seen: list[bytes] = []
    with listening(serve_models(answer(b'{"data": [{"id": "x"}]}'), seen)) as other:
        moved = answer(b"", f"Location: http://127.0.0.1:{other}/models", status="302 Found")
        assert ask_models(moved, Authorization=f"Bearer {KEY}")[0] == ""
    assert seen == []


def test_the_list_of_a_local_server_is_not_asked_for_through_a_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("http_proxy", "http://192.0.2.8:3128")
    assert ask_models(answer(b'{"data": [{"id": "llama"}]}'))[0] == "llama"


def test_the_list_over_tls(tmp_path: Path) -> None:
    cert, context = certificate(tmp_path)
    with listening(serve_models(answer(b'{"data": [{"id": "llama"}]}'), []), context) as port:
        base = Target(f"https://127.0.0.1:{port}/v1")
        assert only_model(base) == ""
        assert only_model(Target(base.url, ca_file=str(cert))) == "llama"
        assert only_model(Target(base.url, insecure=True)) == "llama"
        assert only_model(Target(base.url, ca_file=str(tmp_path / "key.pem"))) == ""
