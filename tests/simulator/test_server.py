"""The embedded endpoint over real sockets."""

from __future__ import annotations

import asyncio
import base64
import json
import os
import re
import signal
import socket
import ssl
import subprocess
import sys
import time
from collections.abc import Iterator
from http.client import HTTPSConnection
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import msgspec
import numpy as np
import pytest
import uvloop

import pacemark
from pacemark.errors import BadInput
from pacemark.pace import Concurrency
from pacemark.simulator import Options, Served, customised, named, serving, simulate
from pacemark.simulator.server.http import Connection, Request
from pacemark.simulator.server.tls import make_certificate
from pacemark.simulator.server.tokens import WORDS, count, pieces, prefix_hashes
from support.needed import late
from support.simulated import ask, chat, connect, open_stream
from support.waiting import wait_for

openai = late("openai")
PACKAGE = str(Path(pacemark.__file__ or pacemark.__path__[0] + "/x").parents[1])


@pytest.fixture(scope="module")
def fast() -> Iterator[Served]:
    """A fixed timeline so short that only the form of the answers matters."""
    with serving("fixed", ttft_ms=2, itl_ms=1) as served:
        yield served


def test_a_chat_stream_opens_with_the_role_and_counts_its_tokens(fast: Served) -> None:
    reply = chat(fast, fast.model, stream=True, stream_options={"include_usage": True}, max_tokens=6)
    assert (reply.status, reply.headers["content-type"]) == (200, "text/event-stream; charset=utf-8")
    first, *tokens, finish, usage = reply.events
    assert first["choices"][0]["delta"] == {"role": "assistant", "content": ""}
    assert len(tokens) == 6
    text = "".join(e["choices"][0]["delta"]["content"] for e in tokens)
    assert count(text) == 6
    assert finish["choices"][0] == {"index": 0, "delta": {}, "finish_reason": "length"}
    assert usage["choices"] == []
    assert usage["usage"]["completion_tokens"] == 6
    assert usage["usage"]["total_tokens"] == 6 + usage["usage"]["prompt_tokens"]
    assert {e["object"] for e in reply.events} == {"chat.completion.chunk"}
    assert len({e["id"] for e in reply.events}) == 1


def test_usage_is_only_sent_where_asked(fast: Served) -> None:
    reply = chat(fast, fast.model, stream=True)
    assert all("usage" not in event for event in reply.events)


def test_chat_without_streaming(fast: Served) -> None:
    reply = chat(fast, fast.model, max_tokens=9).json
    assert reply["object"] == "chat.completion"
    assert reply["choices"][0]["message"]["role"] == "assistant"
    assert count(reply["choices"][0]["message"]["content"]) == 9 == reply["usage"]["completion_tokens"]


@pytest.mark.parametrize("stream", [True, False])
def test_completions(fast: Served, stream: bool) -> None:
    body = {"model": fast.model, "prompt": "once upon a time", "max_tokens": 5, "stream": stream}
    reply = ask(fast, "/v1/completions", body | ({"stream_options": {"include_usage": True}} if stream else {}))
    if stream:
        *tokens, finish, usage = reply.events
        assert "".join(e["choices"][0]["text"] for e in tokens).split() == [
            w.strip() for w in pieces("".join(e["choices"][0]["text"] for e in tokens))
        ]
        assert len(tokens) == 5
        assert finish["choices"][0]["finish_reason"] == "length"
        assert usage["usage"]["prompt_tokens"] == 5
    else:
        assert reply.json["object"] == "text_completion"
        assert reply.json["usage"] == {
            "prompt_tokens": 5, "completion_tokens": 5, "total_tokens": 10,
            "prompt_tokens_details": {"cached_tokens": 0},
        }  # fmt: skip


def test_prompts_may_be_token_ids(fast: Served) -> None:
    for prompt in ([5, 6, 7], [[5, 6, 7]]):
        reply = ask(fast, "/v1/completions", {"model": fast.model, "prompt": prompt, "max_tokens": 1})
        assert reply.json["usage"]["prompt_tokens"] == 4


def test_message_content_may_come_in_parts(fast: Served) -> None:
    parts = [{"type": "text", "text": "one two"}, {"type": "text", "text": "three"}]
    body = {"model": fast.model, "messages": [{"role": "user", "content": parts}], "max_tokens": 1}
    assert ask(fast, "/v1/chat/completions", body).json["usage"]["prompt_tokens"] == 3 + 4 + 3


def test_tokens_are_not_words(fast: Served) -> None:
    def tokens(text: str) -> int:
        return int(chat(fast, fast.model, text, max_tokens=1).json["usage"]["prompt_tokens"])

    overhead = tokens("a") - 1
    assert overhead == 7
    assert tokens("a few short words") - overhead == 4
    assert tokens("internationalisation") - overhead == 4
    assert tokens("Hello, world!") - overhead == 4
    long = "measurement of throughput and latency " * 200
    assert tokens(long) - overhead == 200 * (3 + 1 + 2 + 1 + 2)


def test_every_answer_word_is_one_token_of_one_length() -> None:
    assert len(set(WORDS)) == len(WORDS) == 256
    assert {len(w.encode()) for w in WORDS} == {5}
    assert all(count(w) == 1 for w in WORDS)


def test_prefix_hashes_cover_everything_before() -> None:
    a = list(prefix_hashes(pieces("a b c d e f g h"), 4))
    b = list(prefix_hashes(pieces("a b c d x f g h i"), 4))
    c = list(prefix_hashes(pieces("x b c d e f g h"), 4))
    assert len(a) == len(b) == 2
    assert a[0] == b[0]
    assert a[1] != b[1]
    assert set(a).isdisjoint(c)


def test_models_and_health(fast: Served) -> None:
    assert [m["id"] for m in ask(fast, "/v1/models").json["data"]] == [fast.model]
    assert ask(fast, "/health").status == 200


@pytest.mark.parametrize(
    ("path", "body", "status", "says"),
    [
        ("/v1/chat/completions", {"model": "other", "messages": [{"role": "user", "content": "x"}]}, 404, "other"),
        ("/v1/chat/completions", b"{not json", 400, "cannot be read"),
        ("/v1/chat/completions", {"model": "fixed", "messages": []}, 400, "message"),
        ("/v1/chat/completions", {"messages": [{"role": "user", "content": "x"}]}, 400, "model"),
        ("/v1/completions", {"model": "fixed", "prompt": "x", "max_tokens": 0}, 400, "max_tokens"),
        ("/v1/completions", {"model": "fixed", "prompt": "x", "max_tokens": "many"}, 400, "max_tokens"),
        ("/v1/completions", {"model": "fixed", "prompt": "x", "max_tokens": 4, "min_tokens": 5}, 400, "min_tokens"),
        ("/v1/completions", {"model": "fixed", "prompt": ["a", "b"]}, 400, "prompt"),
        ("/v1/completions", {"model": "fixed", "prompt": "x", "n": 2}, 400, "n:"),
        ("/v1/completions", {"model": "fixed", "prompt": "x", "stream_options": {}}, 400, "stream"),
        ("/v1/nothing", {}, 404, "/v1/nothing"),
        ("/v1/models", {}, 405, "POST"),
    ],
)
def test_errors_are_in_openai_form(fast: Served, path: str, body: object, status: int, says: str) -> None:
    reply = ask(fast, path, body)
    assert reply.status == status
    assert set(reply.json["error"]) == {"message", "type", "param", "code"}
    assert says in reply.json["error"]["message"]
    assert reply.headers["content-type"] == "application/json"


def test_a_prompt_that_cannot_fit_is_a_400() -> None:
    with serving("demo", kv_blocks=4, block_tokens=16) as served:
        reply = chat(served, served.model, "word " * 60)
        assert (reply.status, reply.json["error"]["code"]) == (400, "context_length_exceeded")
        assert chat(served, served.model).status == 200


def test_one_connection_serves_many_requests(fast: Served) -> None:
    connection = connect(fast)
    for number in range(5):
        assert chat(connection, fast.model, stream=bool(number % 2)).status == 200
    local = connection.sock.getsockname()
    ask(connection, "/health")
    assert connection.sock.getsockname() == local
    sock = connection.sock
    sock.sendall(b"GET /health HTTP/1.1\r\nconnection: close\r\n\r\n")
    received = b""
    while data := sock.recv(4096):
        received += data
    assert b'"status":"ok"' in received
    connection.close()


def test_pipelined_requests_are_answered_in_order(fast: Served) -> None:
    async def both() -> bytes:
        address = urlsplit(fast.url)
        reader, writer = await asyncio.open_connection(address.hostname, address.port)
        body = json.dumps({"model": fast.model, "prompt": "x", "max_tokens": 2}).encode()
        writer.write(b"POST /v1/completions HTTP/1.1\r\ncontent-length: %d\r\n\r\n%b" % (len(body), body))
        writer.write(b"GET /health HTTP/1.1\r\nconnection: close\r\n\r\n")
        received = await asyncio.wait_for(reader.read(), 10)
        writer.close()
        return received

    received = asyncio.run(both())
    assert 0 < received.index(b"text_completion") < received.index(b'"status"')


def test_a_long_pipeline_is_answered_to_the_end(fast: Served) -> None:
    body = json.dumps({"model": fast.model, "prompt": "x", "max_tokens": 30}).encode()
    connection = connect(fast)
    connection.connect()
    connection.sock.sendall(b"POST /v1/completions HTTP/1.1\r\ncontent-length: %d\r\n\r\n%b" % (len(body), body))
    connection.sock.sendall(b"GET /health HTTP/1.1\r\n\r\n" * 2000)
    received = b""
    while received.count(b'{"status":"ok"}') < 2000:
        data = connection.sock.recv(65536)
        assert data
        received += data
    connection.close()


def test_what_is_not_http_is_a_400(fast: Served) -> None:
    sock = connect(fast)
    sock.connect()
    sock.sock.sendall(b"hello there\r\n\r\n")
    assert b" 400 " in sock.sock.recv(4096)
    sock.close()


def test_expect_continue_is_answered(fast: Served) -> None:
    sock = connect(fast)
    sock.connect()
    sock.sock.sendall(b"POST /v1/completions HTTP/1.1\r\ncontent-length: 2\r\nexpect: 100-continue\r\n\r\n")
    assert sock.sock.recv(4096).startswith(b"HTTP/1.1 100 ")
    sock.sock.sendall(b"{}")
    assert b" 400 " in sock.sock.recv(4096)
    sock.close()


def test_answers_end_by_themselves_unless_told_to_go_on() -> None:
    with serving("fixed", ttft_ms=1, itl_ms=0.1, answer_tokens=(20, 0.5), seed=3) as served:
        replies = [chat(served, served.model, max_tokens=100).json for _ in range(20)]
        lengths = [r["usage"]["completion_tokens"] for r in replies]
        assert 10 < np.mean(lengths) < 30
        assert len(set(lengths)) > 5
        assert {r["choices"][0]["finish_reason"] for r in replies} == {"stop"}
        ignoring = chat(served, served.model, max_tokens=100, ignore_eos=True).json
        assert ignoring["usage"]["completion_tokens"] == 100
        assert ignoring["choices"][0]["finish_reason"] == "length"
        least = [chat(served, served.model, max_completion_tokens=90, min_tokens=60, max_tokens=None).json]
        assert least[0]["usage"]["completion_tokens"] == 60


def test_a_strict_endpoint_refuses_what_openai_does_not_know() -> None:
    with serving("fixed", ttft_ms=1, itl_ms=1, strict=True) as served:
        reply = chat(served, served.model, ignore_eos=True)
        assert reply.status == 400
        assert "ignore_eos" in reply.json["error"]["message"]
        assert chat(served, served.model, temperature=0.0, seed=1).status == 200


def test_several_tokens_in_one_event() -> None:
    with serving("fixed", ttft_ms=1, itl_ms=1, tokens_per_event=4) as served:
        reply = chat(served, served.model, stream=True, max_tokens=10, stream_options={"include_usage": True})
        texts = [e["choices"][0]["delta"].get("content") for e in reply.events if e["choices"]]
        assert [count(t) for t in texts if t] == [4, 4, 2]
        assert reply.events[-1]["usage"]["completion_tokens"] == 10


def test_the_prefix_cache_shows_in_usage() -> None:
    with serving("demo", prefix_cache=True, base_ms=0.5) as served:
        text = "the same opening words again and again " * 20
        first, second, other = (chat(served, served.model, t).json["usage"] for t in (text, text, "x " + text))
        assert first["prompt_tokens_details"]["cached_tokens"] == 0
        cached = second["prompt_tokens_details"]["cached_tokens"]
        assert second["prompt_tokens"] - 32 < cached < second["prompt_tokens"]
        assert cached % 16 == 0
        assert other["prompt_tokens_details"]["cached_tokens"] == 0


def test_the_fixed_timeline_starts_when_the_request_arrives() -> None:
    with serving("fixed", ttft_ms=100, itl_ms=10) as served:
        chat(served, served.model)
        ask(served, "/lateness/reset", b"")
        start = time.monotonic()
        chat(served, served.model, max_tokens=11)
        took = time.monotonic() - start
        assert took >= 0.2
        late = ask(served, "/lateness").json
        assert late["count"] == 1
        assert took == pytest.approx(0.2, abs=late["max_ms"] / 1e3 + 0.1)


def test_lateness_counts_every_event(fast: Served) -> None:
    nothing = {"count": 0, "mean_ms": None, "p50_ms": None, "p99_ms": None, "max_ms": None}
    assert ask(fast, "/lateness/reset", b"").json == nothing | {"first": nothing, "gap": nothing}
    chat(fast, fast.model, max_tokens=50, stream=True)
    late = ask(fast, "/lateness").json
    assert late["count"] == 50
    assert 0 < late["p50_ms"] <= late["p99_ms"]


def test_a_client_that_goes_away_frees_its_place() -> None:
    with serving("demo", max_batch=1) as served:
        body = {
            "model": served.model, "messages": [{"role": "user", "content": "x"}], "max_tokens": 60_000, "stream": True
        }  # fmt: skip
        sock = open_stream(served, body)
        assert sock.recv(4096)
        sock.close()
        # It would hold the only place for ten minutes.
        assert chat(served, served.model).status == 200


def test_the_live_engine_keeps_the_virtual_timeline() -> None:
    """Parallel streams over sockets get every token, and never one before the model has it."""
    preset = customised(named("demo"), {"base_ms": 4.0})

    async def one(served: Served) -> list[tuple[float, int]]:
        address = urlsplit(served.url)
        reader, writer = await asyncio.open_connection(address.hostname, address.port)
        body = json.dumps({"model": served.model, "prompt": "a " * 255, "max_tokens": 20, "stream": True}).encode()
        requests = []
        for _ in range(4):
            sent, events = time.monotonic(), 0
            writer.write(b"POST /v1/completions HTTP/1.1\r\ncontent-length: %d\r\n\r\n%b" % (len(body), body))
            while line := await reader.readline():
                events += line.startswith(b"data: {") and b'"finish_reason":null' in line
                if line == b"0\r\n":
                    await reader.readline()
                    break
            requests.append((time.monotonic() - sent, events))
        writer.close()
        await writer.wait_closed()
        return requests

    async def together(served: Served) -> list[list[tuple[float, int]]]:
        return await asyncio.gather(*(one(served) for _ in range(8)))

    with serving(preset) as served:
        streams = asyncio.run(together(served))
        late = ask(served, "/lateness").json
    assert late["count"] == 8 * 4 * 20
    alone = simulate(Concurrency(1), preset, input_tokens=256, output_tokens=20, requests=1)
    for took, events in [request for stream in streams for request in stream]:
        assert events == 20
        assert took > (alone.ended_ns[0] - alone.sent_ns[0]) / 1e9


def test_reasoning_comes_before_the_answer() -> None:
    with serving("fixed", ttft_ms=1, itl_ms=1, reasoning_tokens=6, tokens_per_event=4) as served:
        reply = chat(served, served.model, stream=True, max_tokens=10, stream_options={"include_usage": True})
        deltas = [e["choices"][0]["delta"] for e in reply.events if e["choices"]]
        thoughts = "".join(d.get("reasoning_content", "") for d in deltas)
        assert count(thoughts) == 6
        kinds = [next(iter(d)) for d in deltas[1:-1]]
        assert kinds == ["reasoning_content", "reasoning_content", "content", "content"]
        usage = reply.events[-1]["usage"]
        assert (usage["completion_tokens"], usage["completion_tokens_details"]["reasoning_tokens"]) == (10, 6)
        message = chat(served, served.model, max_tokens=10).json["choices"][0]["message"]
        assert (count(message["reasoning_content"]), count(message["content"])) == (6, 4)
        thoughtful = chat(served, served.model, max_tokens=3).json["choices"][0]["message"]
        assert (count(thoughtful["reasoning_content"]), thoughtful["content"]) == (3, None)
        # A bare prompt has no place for reasoning.
        reply = ask(served, "/v1/completions", {"model": served.model, "prompt": "x", "max_tokens": 4})
        assert count(reply.json["choices"][0]["text"]) == 4
    with serving("fixed", ttft_ms=1, itl_ms=1, reasoning_tokens=2, reasoning_field="reasoning") as served:
        assert count(chat(served, served.model).json["choices"][0]["message"]["reasoning"]) == 2


TOOLS: list[Any] = [{"type": "function", "function": {"name": "look_up", "parameters": {"type": "object"}}}]


@pytest.mark.parametrize("choice", ["required", {"type": "function", "function": {"name": "look_up"}}])
@pytest.mark.parametrize("tokens", [1, 2, 7])
def test_tool_calls(fast: Served, choice: object, tokens: int) -> None:
    fields: dict[str, Any] = {"tools": TOOLS, "tool_choice": choice, "max_tokens": tokens}
    events = chat(fast, fast.model, stream=True, **fields).events
    calls = [e["choices"][0]["delta"]["tool_calls"][0] for e in events[1:-1]]
    assert len(calls) == tokens
    assert calls[0]["function"]["name"] == "look_up"
    assert calls[0]["id"]
    assert all("name" not in c["function"] for c in calls[1:])
    json.loads("".join(c["function"]["arguments"] for c in calls))
    assert events[-1]["choices"][0]["finish_reason"] == "tool_calls"
    whole = chat(fast, fast.model, **fields).json
    assert whole["usage"]["completion_tokens"] == tokens
    assert whole["choices"][0]["message"]["content"] is None
    call = whole["choices"][0]["message"]["tool_calls"][0]
    assert call["function"]["name"] == "look_up"
    json.loads(call["function"]["arguments"])


def test_tools_that_need_not_be_used_are_not(fast: Served) -> None:
    assert chat(fast, fast.model, tools=TOOLS).json["choices"][0]["finish_reason"] == "length"
    wrong = chat(fast, fast.model, tools=TOOLS, tool_choice={"type": "function", "function": {"name": "other"}})
    assert wrong.status == 400
    assert "other" in wrong.json["error"]["message"]


def test_embeddings(fast: Served) -> None:
    body = {"model": fast.model, "input": ["one text", "another longer text", "one text"], "dimensions": 8}
    reply = ask(fast, "/v1/embeddings", body).json
    vectors = np.array([item["embedding"] for item in reply["data"]])
    assert vectors.shape == (3, 8)
    assert np.linalg.norm(vectors, axis=1) == pytest.approx(1.0)
    assert np.array_equal(vectors[0], vectors[2])
    assert not np.allclose(vectors[0], vectors[1])
    # "another" and "longer" are two tokens each; every text has one for its start.
    assert reply["usage"] == {"prompt_tokens": 12, "total_tokens": 12}
    packed = ask(fast, "/v1/embeddings", body | {"encoding_format": "base64"}).json["data"][1]["embedding"]
    assert np.frombuffer(base64.b64decode(packed), "<f4") == pytest.approx(vectors[1], rel=1e-6)
    assert ask(fast, "/v1/embeddings", {"model": fast.model, "input": []}).status == 400


def samples(text: str) -> dict[str, float]:
    """Prometheus samples by name, labels dropped but for finished_reason and le."""
    found: dict[str, float] = {}
    for line in text.splitlines():
        if not line.startswith("#"):
            name, value = line.rsplit(" ", 1)
            found[re.sub(r'(engine|model_name)="[^"]*",?', "", name).replace("{}", "").replace(",}", "}")] = float(
                value
            )
    return found


def test_metrics_count_what_usage_counts() -> None:
    speculation = {"drafts": 3, "acceptance": 0.6}
    with serving("demo", base_ms=1, prefix_cache=True, speculation=speculation) as served:
        usages = [chat(served, served.model, "word " * 100, max_tokens=n).json["usage"] for n in (5, 20, 40)]
        reply = ask(served, "/metrics")
        assert reply.headers["content-type"].startswith("text/plain; version=0.0.4")
        found = samples(reply.body.decode())
    assert found["vllm:prompt_tokens_total"] == sum(u["prompt_tokens"] for u in usages)
    assert found["vllm:generation_tokens_total"] == 65
    assert found['vllm:request_success_total{finished_reason="length"}'] == 3
    assert found["vllm:num_requests_running"] == found["vllm:num_requests_waiting"] == 0
    assert found["vllm:prefix_cache_hits_total"] == 2 * usages[1]["prompt_tokens_details"]["cached_tokens"] > 0
    drafts, steps = found["vllm:spec_decode_num_draft_tokens_total"], found["vllm:spec_decode_num_drafts_total"]
    assert drafts == 3 * steps
    # Every token is a prefill's, a step's own, or an accepted draft.
    assert found["vllm:spec_decode_num_accepted_tokens_total"] + steps + 3 == 65
    for name in ("time_to_first_token", "e2e_request_latency", "request_time_per_output_token"):
        assert found[f"vllm:{name}_seconds_count"] == 3
        assert found[f'vllm:{name}_seconds_bucket{{le="+Inf"}}'] == 3
    assert 0 < found["vllm:time_to_first_token_seconds_sum"] < found["vllm:e2e_request_latency_seconds_sum"]


def test_metrics_show_what_is_under_way() -> None:
    with serving("demo", max_batch=2) as served:
        body = {
            "model": served.model, "messages": [{"role": "user", "content": "x"}], "max_tokens": 20_000, "stream": True
        }  # fmt: skip
        streams = [open_stream(served, body) for _ in range(3)]

        def states() -> tuple[float, float]:
            found = samples(ask(served, "/metrics").body.decode())
            return found["vllm:num_requests_running"], found["vllm:num_requests_waiting"]

        wait_for(lambda: states() == (2, 1))
        for stream in streams:
            stream.close()
        wait_for(lambda: states() == (0, 0))


def test_an_api_key_is_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SIMULATOR_KEY", "sesame")
    with serving("fixed", ttft_ms=1, itl_ms=1, api_key_env="SIMULATOR_KEY") as served:
        body = {"model": "fixed", "prompt": "x", "max_tokens": 1}
        for headers, says in (({}, "did not provide"), ({"authorization": "Bearer wrong"}, "Incorrect")):
            reply = ask(served, "/v1/completions", body, headers=headers)
            assert (reply.status, reply.json["error"]["code"]) == (401, "invalid_api_key")
            assert says in reply.json["error"]["message"]
        assert ask(served, "/v1/models").status == 401
        good = {"authorization": "Bearer sesame"}
        assert ask(served, "/v1/completions", body, headers=good).status == 200
        assert ask(served, "/v1/models", headers=good).status == 200
        assert ask(served, "/health").status == 200


def test_a_key_that_is_not_set_is_bad_input() -> None:
    process = start(options(api_key_env="NO_SUCH_VARIABLE"))
    _, err = process.communicate(timeout=60)
    assert process.returncode == 2
    assert b"NO_SUCH_VARIABLE" in err


def test_rate_limits_say_when_to_come_back() -> None:
    with serving("fixed", ttft_ms=1, itl_ms=1, requests_per_s=0.5, burst=3) as served:
        replies = [chat(served, served.model, max_tokens=1) for _ in range(5)]
        assert [r.status for r in replies] == [200, 200, 200, 429, 429]
        assert replies[-1].json["error"]["code"] == "rate_limit_exceeded"
        assert 1 <= int(replies[-1].headers["retry-after"]) <= 2
        assert ask(served, "/v1/models").status == 200


def test_too_many_in_parallel_is_a_429() -> None:
    with serving("demo", parallel=2) as served:
        body = {
            "model": served.model, "messages": [{"role": "user", "content": "x"}], "max_tokens": 20_000, "stream": True
        }  # fmt: skip
        streams = [open_stream(served, body) for _ in range(2)]
        for stream in streams:
            assert stream.recv(4096)
        assert chat(served, served.model).status == 429
        streams[0].close()
        wait_for(lambda: chat(served, served.model, max_tokens=1).status == 200)
        streams[1].close()


def test_tls_with_a_certificate_of_its_own() -> None:
    with serving("fixed", ttft_ms=2, itl_ms=1, tls=True) as served:
        assert served.url.startswith("https://127.0.0.1:")
        address = urlsplit(served.url)
        trusting = ssl.create_default_context(cafile=served.ca_file)
        assert address.hostname
        connection = HTTPSConnection(address.hostname, address.port, context=trusting, timeout=20)
        reply = chat(connection, served.model, stream=True, max_tokens=30)
        assert len(reply.events) == 32
        connection.close()
        suspicious = HTTPSConnection(address.hostname, address.port, timeout=20)
        with pytest.raises(ssl.SSLCertVerificationError):
            suspicious.request("GET", "/health")
        suspicious.close()
        folder = Path(served.ca_file).parent
        assert folder.exists()
    assert not folder.exists()


def test_a_certificate_given_is_used(tmp_path: Path) -> None:
    certificate, key = make_certificate(tmp_path, "localhost")
    with serving("fixed", ttft_ms=1, certfile=str(certificate), keyfile=str(key)) as served:
        assert served.ca_file == str(certificate)
        context = ssl.create_default_context(cafile=str(certificate))
        connection = HTTPSConnection("localhost", urlsplit(served.url).port, context=context, timeout=20)
        assert ask(connection, "/health").status == 200
        connection.close()
    (tmp_path / "broken.pem").write_text("nothing")
    for files in ({"certfile": str(certificate)}, {"certfile": "broken.pem", "keyfile": "none.pem"}):
        process = start(options(**files))
        _, err = process.communicate(timeout=60)
        assert process.returncode == 2
        assert err.count(b"\n") == 1


def test_tls_without_openssl_says_what_to_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(BadInput, match="certfile"):
        make_certificate(tmp_path)


@pytest.mark.xdist_group("clients")
def test_the_real_openai_client(fast: Served) -> None:
    client = openai.OpenAI(base_url=fast.url, api_key="any", max_retries=0)
    assert [m.id for m in client.models.list()] == [fast.model]
    message: list[Any] = [{"role": "user", "content": "hello"}]
    whole = client.chat.completions.create(model=fast.model, messages=message, max_tokens=5)
    assert whole.usage
    assert whole.usage.completion_tokens == 5
    stream = client.chat.completions.create(
        model=fast.model, messages=message, max_tokens=5, stream=True, stream_options={"include_usage": True}
    )
    chunks = list(stream)
    assert chunks[0].choices[0].delta.role == "assistant"
    assert count("".join(c.choices[0].delta.content or "" for c in chunks if c.choices)) == 5
    assert chunks[-1].usage
    assert chunks[-1].usage.completion_tokens == 5
    text = client.completions.create(model=fast.model, prompt="once", max_tokens=4)
    assert count(text.choices[0].text) == 4
    # The client asks for base64 by itself and decodes it.
    vectors = client.embeddings.create(model=fast.model, input=["a", "b"], dimensions=16)
    assert [len(item.embedding) for item in vectors.data] == [16, 16]
    tool = client.chat.completions.create(
        model=fast.model, messages=message, max_tokens=5, tools=TOOLS, tool_choice="required"
    )
    calls = tool.choices[0].message.tool_calls or []
    assert [call.type == "function" and call.function.name for call in calls] == ["look_up"]
    with pytest.raises(openai.NotFoundError, match="no-such"):
        client.chat.completions.create(model="no-such", messages=message)
    client.close()


def start(line: bytes) -> subprocess.Popen[bytes]:
    process = subprocess.Popen(
        [sys.executable, "-m", "pacemark.simulator.server.server"],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        env=os.environ | {"PYTHONPATH": PACKAGE},
    )  # fmt: skip
    assert process.stdin
    process.stdin.write(line + b"\n")
    process.stdin.flush()
    return process


def options(**fields: Any) -> bytes:
    return msgspec.json.encode(Options(preset=named("fixed"), **fields))


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_it(number: signal.Signals) -> None:
    process = start(options())
    assert process.stdout
    assert json.loads(process.stdout.readline())["url"].startswith("http://127.0.0.1:")
    process.send_signal(number)
    out, err = process.communicate(timeout=60)
    assert (process.returncode, out, err) == (0, b"", b"")


def test_the_end_of_its_input_ends_it() -> None:
    process = start(options(until_eof=True))
    assert process.stdout
    assert process.stdin
    process.stdout.readline()
    process.stdin.close()
    assert process.wait(10) == 0
    process.stdout.close()
    assert process.stderr
    process.stderr.close()


@pytest.mark.parametrize(
    ("line", "says"),
    [
        (b"", "options"),
        (b'{"preset": "demo"}', "preset"),
        (options()[:-1] + b',"speed":3}', "speed"),
        (options(host="192.0.2.1"), "cannot listen"),
    ],
)
def test_bad_options_are_one_line(line: bytes, says: str) -> None:
    process = start(line)
    out, err = process.communicate(timeout=60)
    assert process.returncode == 2
    assert out == b""
    assert says in err.decode()
    assert err.count(b"\n") == 1


def test_serving_ends_with_its_block() -> None:
    with serving("fixed") as served:
        os.kill(served.pid, 0)
    with pytest.raises(ProcessLookupError):
        os.kill(served.pid, 0)
    with pytest.raises(BadInput, match="speed"), serving("fixed", speed=1):
        pass


def test_importing_it_leaves_the_event_loop_alone() -> None:
    code = (
        "import sys, pacemark.simulator, pacemark.simulator.server.server, pacemark.simulator.server.process;"
        "print('uvloop' in sys.modules, 'numpy' in sys.modules)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, env=os.environ | {"PYTHONPATH": PACKAGE}, check=True
    )
    assert done.stdout.decode().split()[0] == "False"


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="kernel stamps are Linux's")
def test_a_request_counts_from_its_arrival_however_late_it_is_read() -> None:
    """Else a busy endpoint would answer late and call it the client's error."""
    ages_ms: list[float] = []

    def handle(connection: Connection, request: Request) -> None:
        ages_ms.append((time.monotonic_ns() - request.arrived_ns) / 1e6)
        connection.send(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n")
        connection.done()

    def ask(port: int) -> None:
        with socket.create_connection(("127.0.0.1", port)) as client:
            time.sleep(0.1)
            for _ in range(3):
                client.sendall(b"GET / HTTP/1.1\r\nhost: x\r\n\r\n")
                client.recv(1000)
                time.sleep(0.05)

    async def serve() -> None:
        loop = asyncio.get_running_loop()
        server = await loop.create_server(lambda: Connection(handle, set()), "127.0.0.1", 0)
        asking = loop.run_in_executor(None, ask, server.sockets[0].getsockname()[1])
        while not asking.done():
            await asyncio.sleep(0.001)
            time.sleep(0.03)  # busy with something else
        await asking
        server.close()

    uvloop.run(serve())
    assert len(ages_ms) == 3
    assert sum(ages_ms) > 10
