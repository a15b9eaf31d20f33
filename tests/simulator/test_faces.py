"""Every API that the embedded endpoint speaks: asked by pacemark, and by the clients that people use."""

from __future__ import annotations

import http.client
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

import pacemark
from pacemark.dialects.dialect import DIALECTS, fill, first_options, template
from pacemark.dialects.reading import understand
from pacemark.endpoint.target import target
from pacemark.simulator import Served, serving
from pacemark.simulator.server.tokens import WORDS, count
from pacemark.trace import ABSENT, Exchange
from support.needed import needed
from support.servers import raw

KEY = "a-key-of-the-endpoint"
TEXT = "salt one two three four five six seven"


@pytest.fixture(scope="module")
def fast() -> Iterator[Served]:
    with serving("fixed", ttft_ms=2, itl_ms=1, reasoning_tokens=3) as served:
        yield served


def send(served: Served, api: str, body: bytes, stream: bool, **headers: str) -> tuple[int, str, bytes]:
    place = target(served.url, model=served.model, api=api)
    url = urlsplit(place.url)
    connection = http.client.HTTPConnection(str(url.hostname), url.port, timeout=20)
    head = {"Content-Type": "application/json"} | headers
    connection.request("POST", place.posts_to(DIALECTS[api].place(served.model, stream)), body, head)
    answer = connection.getresponse()
    got = answer.status, answer.headers["content-type"], answer.read()
    connection.close()
    return got


def asked(served: Served, api: str, stream: bool, tokens: int = 8) -> tuple[str, Exchange]:
    dialect = DIALECTS[api]
    form = template(dialect, served.model, first_options(dialect, stream), {})
    status, kind, body = send(served, api, fill(form, TEXT, tokens), stream)
    assert status == 200, body
    return kind, understand(raw(body, streamed=kind.startswith("text/event-stream")), api)


SPOKEN = {name: d for name, d in DIALECTS.items() if name != "agent"}
"""An agent is asked in its Databricks workspace, whose face is tested by itself."""
TALKS = [name for name, d in SPOKEN.items() if d.streams]


@pytest.mark.parametrize("api", TALKS)
@pytest.mark.parametrize("stream", [True, False])
def test_an_answer_is_as_long_as_it_was_asked_to_be(fast: Served, api: str, stream: bool) -> None:
    kind, x = asked(fast, api, stream)
    thinks = api not in ("completions", "tgi")
    assert (x.error, x.tokens_source, x.unread_events) == ("", "usage", 0)
    assert x.output_tokens + x.hidden_tokens == 8  # in one piece nobody can tell how much of it was thought
    assert x.hidden_tokens == 0 or not stream
    assert x.input_tokens == count(TEXT) + (7 if thinks else 1)
    assert len(x.hi_ns) == (8 if stream else 1)
    reasoned = {"ollama": ABSENT, "ollama-generate": ABSENT}.get(api, 3) if thinks else ABSENT
    assert x.reasoning_tokens == reasoned
    if stream:
        assert kind.startswith("application/x-ndjson" if DIALECTS[api].lines else "text/event-stream")
        assert (x.first_event_ns != ABSENT, x.answer_ns != ABSENT, x.done_ns != ABSENT) == (True, True, True)


@pytest.mark.parametrize("api", ["rerank", "score"])
def test_every_document_gets_a_mark(fast: Served, api: str) -> None:
    _, x = asked(fast, api, False, tokens=3)
    assert (x.error, x.output_tokens, len(x.hi_ns)) == ("", 3, 1)
    query, documents = "salt one two three", "four five six seven"
    assert x.input_tokens == count(documents) + 3 * (count(query) + 3)


ERRORS: dict[str, Any] = {
    "chat": lambda x: x["error"]["message"],
    "responses": lambda x: x["error"]["message"],
    "messages": lambda x: x["error"]["message"] if x["type"] == "error" else None,
    "ollama": lambda x: x["error"],
    "gemini": lambda x: x["error"]["message"] if x["error"]["code"] == 400 else None,
    "tgi": lambda x: x["error"] if x["error_type"] else None,
    "rerank": lambda x: x["error"]["message"],
}


@pytest.mark.parametrize("api", ERRORS)
def test_a_refusal_is_in_the_words_of_its_api(fast: Served, api: str) -> None:
    status, kind, body = send(fast, api, b'{"model": 7', True)
    assert (status, kind) == (400, "application/json")
    said = ERRORS[api](json.loads(body))
    assert "cannot be read" in said
    assert "cannot be read" in understand(raw(body, streamed=False, status=400), api).detail


def test_each_api_finds_its_key_in_its_own_header(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ENDPOINT_KEY", KEY)
    with serving("fixed", ttft_ms=1, itl_ms=1, api_key_env="ENDPOINT_KEY") as served:
        for api, dialect in SPOKEN.items():
            stream = dialect.streams
            body = fill(template(dialect, served.model, first_options(dialect), {}), TEXT, 2)
            assert send(served, api, body, stream)[0] == 401
            opened = target(served.url, api=api, api_key_env="ENDPOINT_KEY").headers
            for name in dialect.key_headers:
                assert send(served, api, body, stream, **{name: opened[name]})[0] == 200, (api, name)


@pytest.mark.parametrize("api", ["responses", "messages", "ollama-generate", "gemini", "tgi", "rerank", "score"])
def test_a_run_over_sockets(fast: Served, tmp_path: Path, api: str) -> None:
    run = pacemark.run(
        fast.url, model=fast.model, api=api, concurrency=4, input_tokens=160, output_tokens=6, documents=5,
        duration=0.4, seed=1, out=tmp_path,
    )  # fmt: skip
    (level,) = run.levels
    assert (level.requests.failed, level.errors) == (0, {})
    assert level.requests.in_window > 10
    marks = DIALECTS[api].documents
    assert run.summary.target["api"] == api
    assert level.input_tokens == pytest.approx(160, rel=0.1)
    assert level.output_tokens == pytest.approx(5 if marks else 6, rel=0.2)


# --- the clients that people use, as judges


def text_of(tokens: int, answer: str) -> None:
    assert count(answer) == tokens
    assert set(answer.split()) <= {word.strip() for word in WORDS}


def test_the_real_openai_client_asks_for_responses(fast: Served) -> None:
    from openai import OpenAI

    with OpenAI(base_url=fast.url, api_key="any", max_retries=0) as client:
        whole = client.responses.create(model=fast.model, input="hello", max_output_tokens=8)
        assert whole.usage
        assert (whole.usage.output_tokens, whole.usage.output_tokens_details.reasoning_tokens) == (8, 3)
        text_of(5, whole.output_text)
        with client.responses.stream(model=fast.model, input="hello", max_output_tokens=8) as stream:
            deltas = [e.delta for e in stream if e.type == "response.output_text.delta"]
            kinds = {e.type for e in stream}
        assert kinds == set()
        text_of(5, "".join(deltas))


def test_the_real_anthropic_client(fast: Served) -> None:
    anthropic = needed("anthropic")
    client = anthropic.Anthropic(base_url=fast.root, api_key="any", max_retries=0)
    asking: dict[str, Any] = {"model": fast.model, "max_tokens": 8, "messages": [{"role": "user", "content": "hello"}]}
    whole = client.messages.create(**asking)
    assert (whole.stop_reason, whole.usage.output_tokens) == ("max_tokens", 8)
    assert [block.type for block in whole.content] == ["thinking", "text"]
    text_of(5, whole.content[1].text)
    with client.messages.stream(**asking) as stream:
        text_of(5, "".join(stream.text_stream))
        final = stream.get_final_message()
    assert [block.type for block in final.content] == ["thinking", "text"]
    text_of(3, final.content[0].thinking)
    assert (final.usage.input_tokens, final.usage.output_tokens) == (count("hello") + 7, 8)
    with pytest.raises(anthropic.NotFoundError, match="no-such"):
        client.messages.create(**(asking | {"model": "no-such"}))
    client.close()


def test_the_real_ollama_client(fast: Served) -> None:
    ollama = needed("ollama")
    client = ollama.Client(host=fast.root)
    assert [m.model for m in client.list().models] == [fast.model]
    asking: dict[str, Any] = {"model": fast.model, "options": {"num_predict": 8}}
    hello = [{"role": "user", "content": "hello"}]
    whole = client.chat(messages=hello, **asking)
    assert (whole.eval_count, whole.prompt_eval_count, whole.done_reason) == (8, count("hello") + 7, "length")
    text_of(5, whole.message.content)
    text_of(3, whole.message.thinking)
    parts = list(client.chat(messages=hello, stream=True, **asking))
    text_of(5, "".join(part.message.content for part in parts))
    assert parts[-1].done
    assert parts[-1].total_duration >= parts[-1].prompt_eval_duration > 0
    text_of(5, client.generate(prompt="hello", **asking).response)
    with pytest.raises(ollama.ResponseError, match="no-such"):
        client.chat(model="no-such", messages=hello)
    client._client.close()
