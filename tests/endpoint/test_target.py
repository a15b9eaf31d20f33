"""The address of an endpoint: what is refused, what is sent, and what is never shown."""

import asyncio
import base64
import json
import socket
from pathlib import Path

import pytest

from pacemark.dialects.dialect import DIALECTS
from pacemark.endpoint.offered import context_in, context_of, models_in, only_model, unlisted
from pacemark.endpoint.proxy import proxy_for
from pacemark.endpoint.target import Target, redirected, resolve, target
from pacemark.errors import BadInput
from pacemark.instrument.answer import Answer
from pacemark.instrument.opening import opened
from support.servers import Handler, answer, certificate, listening, play, read_request

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
        "http://host/v1#top",
        "http://user:password@host/v1",
    ],
)
def test_a_url_that_cannot_work_is_one_line(url: str) -> None:
    with pytest.raises(BadInput) as caught:
        target(url)
    assert "\n" not in str(caught.value)
    assert "password@" not in str(caught.value)


@pytest.mark.parametrize(("url", "words"), [
    ("http://host/v1#top", "fragment"),
    ("http://host/v1#", "fragment"),
    ("https://sk-key@host/v1", "--api-key-env"),
    ("http://host/v1/embeddings?x=1#y", "fragment"),
])  # fmt: skip
def test_what_a_url_must_not_hold_is_named(url: str, words: str) -> None:
    with pytest.raises(BadInput, match=words):
        target(url)


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


@pytest.mark.parametrize(
    ("url", "asked", "base", "line", "api"),
    [
        ("http://h/v1/chat/completions", "chat", "http://h/v1", "/v1/chat/completions", "chat"),
        ("http://h/chat/completions", "chat", "http://h", "/chat/completions", "chat"),
        ("http://h/v1/completions", "chat", "http://h/v1", "/v1/completions", "completions"),
        ("http://h/v1/embeddings/", "embeddings", "http://h/v1", "/v1/embeddings/", "embeddings"),
        ("http://h/v1/embeddings", "chat", "http://h/v1", "/v1/embeddings", "embeddings"),
        ("http://h/endpoints/a/invocations", "completions", "http://h/endpoints/a", "/endpoints/a/invocations",
         "completions"),
        ("https://h/openai/deployments/d?api-version=2024-10-21", "chat", "https://h/openai/deployments/d",
         "/openai/deployments/d/x?api-version=2024-10-21", "chat"),
        ("https://h/openai/deployments/d/chat/completions?api-version=1&a=b", "chat", "https://h/openai/deployments/d",
         "/openai/deployments/d/chat/completions?api-version=1&a=b", "chat"),
        ("http://h?k=v", "chat", "http://h", "/x?k=v", "chat"),
        ("http://h/v1/chat/completionsx", "chat", "http://h/v1/chat/completionsx", "/v1/chat/completionsx/x", "chat"),
    ],
)  # fmt: skip
def test_a_full_path_and_a_query_are_kept(url: str, asked: str, base: str, line: str, api: str) -> None:
    t = target(url, api=asked)
    assert t.url == base
    assert t.api == api
    assert t.head(t.path or "/x").startswith(f"POST {line} HTTP/1.1\r\n".encode())


@pytest.mark.parametrize(
    ("url", "asked", "line", "api"),
    [
        ("http://h/v1", "responses", "/v1/responses", "responses"),
        ("http://h/v1/responses", "chat", "/v1/responses", "responses"),
        ("https://h", "messages", "/v1/messages", "messages"),
        ("https://h/ai-gateway/anthropic/v1/messages", "chat", "/ai-gateway/anthropic/v1/messages", "messages"),
        ("http://h:11434", "ollama", "/api/chat", "ollama"),
        ("http://h:11434/v1", "ollama", "/api/chat", "ollama"),
        ("http://h:11434/api/generate", "ollama", "/api/generate", "ollama-generate"),
        ("http://h", "rerank", "/rerank", "rerank"),
        ("http://h/v2/rerank", "chat", "/v2/rerank", "rerank"),
        ("http://h/v1", "tgi", "/generate_stream", "tgi"),
        ("http://h/generate", "tgi", "/generate", "tgi"),
        ("https://h", "gemini", "/v1beta/models/a%2Fb:streamGenerateContent?alt=sse", "gemini"),
        ("https://h?key=s", "gemini", "/v1beta/models/a%2Fb:streamGenerateContent?alt=sse&key=s", "gemini"),
        ("https://h/v1/projects/p/models/m:generateContent", "chat", "/v1/projects/p/models/m:generateContent",
         "gemini"),
    ],
)  # fmt: skip
def test_each_api_has_its_place(url: str, asked: str, line: str, api: str) -> None:
    t = target(url, model="a/b", api=asked)
    assert t.api == api
    assert t.head(t.path or DIALECTS[t.api].place(t.model, True)).startswith(f"POST {line} HTTP/1.1\r\n".encode())


@pytest.mark.parametrize(
    ("api", "headers", "sent"),
    [
        ("chat", {}, {"Authorization": f"Bearer {KEY}"}),
        ("messages", {}, {"Authorization": f"Bearer {KEY}", "x-api-key": KEY, "anthropic-version": "2023-06-01"}),
        ("messages", {"X-API-Key": "other", "Anthropic-Version": "2024-01-01"},
         {"X-API-Key": "other", "Anthropic-Version": "2024-01-01"}),
        ("gemini", {}, {"x-goog-api-key": KEY}),
        ("gemini", {"Authorization": "Bearer vertex"}, {"Authorization": "Bearer vertex"}),
    ],
)  # fmt: skip
def test_the_key_goes_where_the_api_looks_for_it(
    monkeypatch: pytest.MonkeyPatch, api: str, headers: dict[str, str], sent: dict[str, str]
) -> None:
    monkeypatch.setenv("A_KEY", KEY)
    t = target("https://h/v1", model="m", api=api, api_key_env="A_KEY", headers=headers)
    assert t.headers == sent
    assert all(value not in repr(t) for value in sent.values())
    assert KEY not in sent.values() or KEY not in t.redacted(f"it said {KEY}")
    assert "2023-06-01" in t.redacted("anthropic-version: 2023-06-01")


def test_a_path_of_another_api_than_asked_for() -> None:
    with pytest.raises(BadInput, match="--api completions"):
        target("http://h/v1/embeddings", api="completions")


def test_a_key_in_the_query_is_not_shown() -> None:
    t = target(f"http://h/v1?api-version=2024-10-21&code={KEY}")
    assert t.described()["url"] == "http://h/v1?api-version=2024-10-21&code=***"
    assert KEY not in t.redacted(f"GET http://h/v1?code={KEY} failed") + repr(t)
    assert f"code={KEY}".encode() in t.head("/x")


@pytest.mark.parametrize(
    ("url", "location", "line", "tls"),
    [
        ("http://h/v1", "/v1/x/", "/v1/x/", False),
        ("http://h/v1", "http://h/api/v1/x?a=1", "/api/v1/x?a=1", False),
        ("http://h/v1", "http://H:80/elsewhere", "/elsewhere", False),
        ("http://h/v1", "https://h/v1/x", "/v1/x", True),
        ("http://h:8000/v1", "https://h:8443/v1/x", "/v1/x", True),
        ("http://h/v1", "x2", "/v1/x2", False),
        ("http://[::1]:8000/v1", "http://[::1]:8000/v2/x", "/v2/x", False),
    ],
)
def test_a_redirect_on_the_same_host_is_followed(url: str, location: str, line: str, tls: bool) -> None:
    old = target(url, headers=[f"Authorization: {KEY}"], model="m")
    new = redirected(old, "/x", location)
    assert new is not None
    assert (new.host, new.tls, new.model, new.headers) == (old.host, tls, "m", old.headers)
    assert new.head(new.path or "/x").startswith(f"POST {line} HTTP/1.1\r\n".encode())


def test_a_base_that_moved_is_a_base_again() -> None:
    new = redirected(target("http://h/v1"), "/chat/completions", "https://h/api/v1/chat/completions")
    assert new is not None
    assert (new.url, new.path) == ("https://h/api/v1", "")


@pytest.mark.parametrize(
    "location",
    [
        "http://other/v1/x",
        "http://h:81/v1/x",
        "//other/v1/x",
        "http://h/v1/x",
        "",
        "http://user@h/v2",
        "http://h:port/v2",
        "http://[/",
        "ftp://h/v1/x",
        "/v1/\r\nX: 1",
        "/\u00e9",
    ],
)
def test_a_redirect_that_leads_away_or_nowhere_is_not_followed(location: str) -> None:
    assert redirected(target("http://h/v1"), "/x", location) is None


def test_https_is_never_left_for_http() -> None:
    assert redirected(target("https://h/v1"), "/x", "http://h/v1/x") is None


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
        f"Host: {KEY} {KEY}",
        "Host:",
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


def test_a_host_header_takes_the_place_of_ours() -> None:
    t = target("http://127.0.0.1:8000/v1", headers=["host: llm.default.example.com"])
    lines = t.head("/x").decode().split("\r\n")
    assert lines[1] == "host: llm.default.example.com"
    assert sum(line.lower().startswith("host:") for line in lines) == 1
    assert t.redacted("no route for llm.default.example.com") == "no route for llm.default.example.com"


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
    monkeypatch.setenv("https_proxy", "127.0.0.1")
    (place,) = resolve(target("https://[2001:db8::1]:80/v1"))
    assert place.sockaddr == ("127.0.0.1", 80)
    assert place.proxy_header == "CONNECT [2001:db8::1]:80 HTTP/1.1\r\nHost: [2001:db8::1]:80\r\n\r\n"


def test_no_proxy_and_loopback_go_direct(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:3128")
    monkeypatch.setenv("no_proxy", "192.0.2.7")
    for host in ("127.0.0.1", "[::1]", "localhost", "192.0.2.7"):
        t = target(f"http://{host}:8000/v1")
        assert all(place.sockaddr[1] == 8000 for place in resolve(t))
        assert t.head("/x").startswith(b"POST /v1/x HTTP/1.1")
    assert resolve(target("http://192.0.2.8:8000/v1"))[0].sockaddr == ("127.0.0.1", 3128)


def test_what_opens_a_proxy_is_masked_where_the_proxy_repeats_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("http_proxy", "http://user:p%40ssw0rd@127.0.0.1:3128")
    basic = base64.b64encode(b"user:p@ssw0rd").decode()
    said = target("http://llm.invalid/v1").redacted(f"407: Basic {basic} is not it, nor {basic}, nor p@ssw0rd")
    assert said == "407: *** is not it, nor ***, nor ***"


def test_plain_http_goes_through_a_proxy_in_absolute_form(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("http_proxy", "http://user:p%40ss@127.0.0.1:3128")
    t = target("http://llm.invalid:8000/v1?api-version=1")
    (place,) = resolve(t)  # the name is the proxy's to look up
    assert (place.sockaddr, place.proxy_header, place.tls) == (("127.0.0.1", 3128), "", False)
    lines = t.head("/x").decode().split("\r\n")
    assert lines[0] == "POST http://llm.invalid:8000/v1/x?api-version=1 HTTP/1.1"
    assert lines[1] == "Host: llm.invalid:8000"
    assert f"Proxy-Authorization: Basic {base64.b64encode(b'user:p@ss').decode()}" in lines
    tunnelled = target("http://llm.invalid:8000/v1", headers=["Host: ingress"])  # which a proxy would replace
    assert resolve(tunnelled)[0].proxy_header.startswith("CONNECT llm.invalid:8000 ")
    assert tunnelled.head("/x").startswith(b"POST /v1/x HTTP/1.1\r\nHost: ingress\r\n")


@pytest.mark.parametrize(
    ("rules", "host", "direct"),
    [
        ("10.0.0.0/8", "10.1.2.3", True),
        ("10.0.0.0/8", "11.1.2.3", False),
        ("192.168.1.7/24", "192.168.1.9", True),
        ("2001:db8::/32", "2001:db8::5", True),
        ("[2001:db8::5]:8000", "2001:db8::5", True),
        (".corp", "llm.corp", True),
        ("corp", "llm.corp", True),
        ("*.corp", "a.llm.corp", True),
        ("corp", "llmcorp", False),
        ("LLM.Corp:8000", "llm.corp", True),
        ("llm.corp:8001", "llm.corp", False),
        ("10.1.2.3:8000", "10.1.2.3", True),
        ("10.0.0.0/8:8001", "10.1.2.3", False),
        ("one, two three", "three", True),
        ("*", "anything", True),
        ("", "anything", False),
        ("10.0.0.0/99,/,x/8", "10.1.2.3", False),
    ],
)
@pytest.mark.parametrize("variable", ["no_proxy", "NO_PROXY"])
def test_no_proxy_rules(monkeypatch: pytest.MonkeyPatch, variable: str, rules: str, host: str, direct: bool) -> None:
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:3128")
    monkeypatch.setenv(variable, rules)
    authority = f"[{host}]" if ":" in host else host
    assert (proxy_for(f"http://{authority}:8000/v1") is None) == direct


@pytest.mark.parametrize(
    "proxy", ["socks5://127.0.0.1:1080", "https://127.0.0.1:1", ":3128", "http://h:0", "http://[x"]
)
def test_a_proxy_that_cannot_be_used(monkeypatch: pytest.MonkeyPatch, proxy: str) -> None:
    monkeypatch.setenv("http_proxy", proxy)
    with pytest.raises(BadInput, match=r"^http_proxy .* http://host:port"):
        resolve(target("http://192.0.2.8/v1"))


@pytest.mark.parametrize("variable", ["HTTP_PROXY", "all_proxy", "ALL_PROXY"])
def test_every_variable_that_clients_know_counts(monkeypatch: pytest.MonkeyPatch, variable: str) -> None:
    monkeypatch.setenv(variable, "http://127.0.0.1:3128")
    found = proxy_for("http://192.0.2.8/v1")
    assert found is not None
    assert found.port == 3128
    assert (proxy_for("https://192.0.2.8/v1") is None) == (variable == "HTTP_PROXY")


def test_a_socks_proxy_is_not_passed_over(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ALL_PROXY", "socks5://user:word@127.0.0.1:1080")
    with pytest.raises(BadInput, match=r"^all_proxy .* no_proxy name 192\.0\.2\.8") as refused:
        proxy_for("https://192.0.2.8/v1")
    assert "word" not in str(refused.value)
    monkeypatch.setenv("https_proxy", "http://127.0.0.1:3128")  # which says more of https
    assert proxy_for("https://192.0.2.8/v1") is not None


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
    ("listed", "model", "said"),
    [
        ({"data": [{"id": "llama"}]}, "nosuch", "does not list nosuch, only llama; if it answers all the same"),
        ({"data": [{"id": c} for c in "abcdef"]}, "g", "only a, b, c, d ...; if"),
        ({"data": [{"id": "a"}, {"id": "lora", "parent": "a"}]}, "lora", ""),
        ({"models": ["llama3:latest", "meta/Llama-3"]}, "llama3", ""),
        ({"models": ["llama3:latest", "meta/Llama-3"]}, "llama-3", ""),
        ({"data": [{"id": "openai/*"}, {"id": "a"}]}, "openai/x", ""),
        ({"data": []}, "a", ""),
        ({"data": [{"id": "a"}], "has_more": True}, "b", ""),
        ({"models": [{"name": "models/a"}], "nextPageToken": "x"}, "b", ""),
        ({"data": [{"id": "a"}], "has_more": False}, "b", "does not list b"),
        ("a", "b", ""),
    ],
)
def test_a_model_that_is_not_listed_is_said(listed: object, model: str, said: str) -> None:
    with listening(serve_models(answer(json.dumps(listed).encode(), "Connection: close"), [])) as port:
        line = unlisted(Target(f"http://127.0.0.1:{port}/v1", model=model))
    assert said in line
    assert bool(said) == bool(line)


@pytest.mark.parametrize(
    ("listed", "names"),
    [
        ({"data": [{"id": "a"}]}, ["a"]),
        ({"data": [{"name": "a"}]}, ["a"]),
        ({"models": [{"name": "a", "model": "a"}], "data": None}, ["a"]),
        ({"models": ["a", "b"]}, ["a", "b"]),
        ([{"id": "a"}], ["a"]),
        (["a"], ["a"]),
        ({"data": {"a": {}}}, ["a"]),
        ({"data": [{"id": "a", "parent": None}, {"id": "lora", "parent": "a"}]}, ["a"]),
        ({"data": [{"id": "lora", "parent": "gone"}]}, ["lora"]),
        ({"data": [{"id": "*"}]}, []),
        ({"data": [{"id": "openai/*"}, {"id": "a"}, {"id": "a"}]}, ["a"]),
        ({"data": None}, []),
        ({"data": [None, 1, {"id": None}, []]}, []),
        (None, []),
        ("a", []),
    ],
)
def test_lists_of_models_as_servers_give_them(listed: object, names: list[str]) -> None:
    assert models_in(listed) == names


@pytest.mark.parametrize(
    ("listed", "tokens"),
    [
        ({"data": [{"id": "m", "max_model_len": 8192}]}, 8192),  # vLLM, SGLang
        ({"data": [{"id": "other", "context_length": 1}, {"id": "m", "context_length": 4096}]}, 4096),  # OpenRouter
        ({"data": [{"id": "m.gguf", "meta": {"n_ctx": 2048, "n_ctx_train": 9999}}]}, 2048),  # llama.cpp, its only one
        (
            {"data": [{"id": "m", "meta": {"n_ctx_train": 9999}}]},
            None,
        ),  # what it was trained for is more than it may get
        ({"data": [{"id": "a", "max_model_len": 1}, {"id": "b", "max_model_len": 2}]}, None),
        ({"data": [{"id": "m", "max_model_len": "8192", "context_window": True}]}, None),
        ({"data": [{"id": "m", "max_model_len": 0, "meta": 3}]}, None),
        (None, None),
    ],
)
def test_the_context_of_a_model_as_lists_tell_it(listed: object, tokens: int | None) -> None:
    assert context_in(listed, "m") == tokens
    with listening(serve_models(answer(json.dumps(listed).encode(), "Connection: close"), [])) as port:
        assert context_of(Target(f"http://127.0.0.1:{port}/v1", model="m")) == tokens


def test_the_list_is_asked_for_with_query_and_host() -> None:
    seen: list[bytes] = []
    with listening(serve_models(answer(b'["llama"]', "Connection: close"), seen)) as port:
        t = target(f"http://127.0.0.1:{port}/v1/chat/completions?api-version=1", headers=["Host: ingress"])
        assert only_model(t) == "llama"
    assert seen[0].startswith(b"GET /v1/models?api-version=1 HTTP/1.1\r\n")
    assert b"Host: ingress\r\n" in seen[0]


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


# --- through a proxy, over real sockets


def test_a_proxy_for_plain_http_sees_the_whole_url_and_no_connect(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[bytes] = []
    with listening(serve_models(answer(b'{"data": ["far"]}', "Connection: close"), seen)) as port:
        monkeypatch.setenv("http_proxy", f"http://user:word@127.0.0.1:{port}")
        t = target("http://llm.invalid:8000/v1")
        got = play(posted(t))
        assert got.status == 200
        assert got.body == b'{"data": ["far"]}'
        assert only_model(t) == "far"
    first, second = seen
    assert first.startswith(b"POST http://llm.invalid:8000/v1/x HTTP/1.1\r\nHost: llm.invalid:8000\r\n")
    assert first.endswith(b"\r\n\r\n{}")
    assert second.startswith(b"GET http://llm.invalid:8000/v1/models HTTP/1.1\r\n")
    for request in seen:
        assert b"proxy-authorization: basic " + base64.b64encode(b"user:word").lower() in request.lower()


async def posted(t: Target) -> Answer:
    """The answer to `{}` posted to /x of `t`."""
    (place,) = resolve(t)
    connection = await opened(asyncio.get_running_loop(), place)
    got = await connection.request(t.head("/x") + b"2\r\n\r\n{}", 5)
    connection.close()
    return got
