"""Every API that the embedded endpoint speaks: asked by pacemark, and by the clients that people use."""

from __future__ import annotations

import http.client
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import msgspec
import pytest
from msgspec import UNSET, structs

import pacemark
from pacemark.content import JsonAnswers, Reasoning, ToolCalls, Upload
from pacemark.dialects.dialect import DIALECTS, attached, fill, first_options, further, template
from pacemark.dialects.reading import understand
from pacemark.endpoint.target import target
from pacemark.media import MEDIA_HOLE
from pacemark.reporting.content import content_in_words
from pacemark.reporting.traffic import traffic_in_words
from pacemark.runs.tables import table
from pacemark.simulator import Served, serving
from pacemark.simulator.server.tokens import WORDS, count
from pacemark.trace import ABSENT, Exchange
from pacemark.traffic import Workload
from pacemark.workload.media import Media
from support.needed import needed
from support.servers import raw

KEY = "a-key-of-the-endpoint"
WORD = {"type": "object", "properties": {"text": {"type": "string"}}, "required": ["text"]}
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


def asked(
    served: Served, api: str, stream: bool, tokens: int = 8, workload: Workload | None = None
) -> tuple[str, Exchange]:
    status, kind, body = send(served, api, written(served, api, stream, tokens, workload or Workload()), stream)
    assert status == 200, body
    return kind, understand(raw(body, streamed=kind.startswith("text/event-stream")), api, json_answers=True)


def written(served: Served, api: str, stream: bool, tokens: int, workload: Workload) -> bytes:
    """The body of a request."""
    dialect = DIALECTS[api]
    fields = further(dialect, workload)
    options = first_options(dialect, stream, not fields)
    form = fill(template(dialect, served.model, options, fields, attached(dialect, workload)), TEXT, tokens)
    return Media(workload).request(b"", form, 0, 0).partition(b"\r\n\r\n")[2]


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
    counts = stream or not api.startswith("ollama")  # which does not count it apart
    assert x.reasoning_tokens == (3 if thinks and counts else ABSENT)
    assert x.disclosed == ("verbatim" if stream and thinks else "")
    if stream:
        assert kind.startswith("application/x-ndjson" if DIALECTS[api].lines else "text/event-stream")
        assert (x.first_event_ns != ABSENT, x.answer_ns != ABSENT, x.done_ns != ABSENT) == (True, True, True)


TOOLS = [
    {"type": "function", "function": {"name": "find", "description": "Look a word up.", "parameters": WORD}},
    {"type": "function", "function": {"name": "clock"}},
]
CALLS = [name for name, d in SPOKEN.items() if d.tools]
JSON = [name for name, d in SPOKEN.items() if d.schema and name != "tgi"]  # whose face heeds no grammar


@pytest.fixture
def formed(tmp_path: Path) -> Workload:
    """Files of tools and of a schema."""
    (tmp_path / "tools.json").write_text(json.dumps(TOOLS))
    (tmp_path / "schema.json").write_text(json.dumps(WORD))
    return Workload(tools=str(tmp_path / "tools.json"), response_format=str(tmp_path / "schema.json"))


@pytest.mark.parametrize("api", CALLS)
@pytest.mark.parametrize("stream", [True, False])
def test_a_tool_is_called(fast: Served, formed: Workload, api: str, stream: bool) -> None:
    for choice in ("required", "find") if api != "ollama" else ("",):
        workload = structs.replace(formed, response_format="", tool_choice=choice)
        _, x = asked(fast, api, stream, workload=workload)
        assert (x.error, x.calls, x.malformed_calls, x.json_answer) == ("", 1, 0, ABSENT)
        assert (x.output_tokens + x.hidden_tokens, x.unread_events) == (8, 0)
        if stream:
            assert x.hi_ns[0] == x.call_ns <= x.called_ns == x.hi_ns[-1]


@pytest.mark.parametrize("api", JSON)
@pytest.mark.parametrize("stream", [True, False])
def test_an_answer_is_json_where_it_must_be(fast: Served, formed: Workload, api: str, stream: bool) -> None:
    _, x = asked(fast, api, stream, workload=structs.replace(formed, tools=""))
    assert (x.error, x.calls, x.json_answer) == ("", 0, 1)
    assert asked(fast, api, stream)[1].json_answer == 0


@pytest.mark.parametrize("api", CALLS)
def test_offered_tools_and_a_schema_leave_the_choice_to_the_model(fast: Served, formed: Workload, api: str) -> None:
    choice = "auto" if api != "ollama" else ""
    _, x = asked(fast, api, True, workload=structs.replace(formed, tool_choice=choice))
    assert (x.error, x.calls + max(0, x.json_answer)) == ("", 1)


SEES = [name for name, d in SPOKEN.items() if d.attach]


@pytest.mark.parametrize("api", SEES)
def test_images_and_audio_are_taken_and_counted(fast: Served, api: str) -> None:
    tokens = asked(fast, api, True)[1].input_tokens
    for form in ("png", "jpeg"):
        seen = asked(fast, api, True, workload=Workload(images=f"2x56x84:{form}"))[1]
        assert (seen.error, seen.input_tokens) == ("", tokens + 2 * 2 * 3)
    if DIALECTS[api].hears:
        heard = asked(fast, api, True, workload=Workload(images="1x56x84", audio="2s"))[1]
        assert (heard.error, heard.input_tokens) == ("", tokens + 2 * 3 + 2 * 25)


@pytest.mark.parametrize("api", SEES)
@pytest.mark.parametrize("at", [100, 300, -1])
def test_an_image_that_is_not_whole_is_refused(fast: Served, api: str, at: int) -> None:
    form = written(fast, api, True, 8, Workload(images="1x56x84"))
    data = form[form.index(b"iVBOR") :].partition(b'"')[0]
    spoiled = data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :] if at > 0 else data[:-8]
    status, _, body = send(fast, api, form.replace(data, spoiled), True)
    assert status == 400
    assert "cannot be decoded" in understand(raw(body, streamed=False, status=400), api).detail


@pytest.mark.slow(shared=True)
@pytest.mark.parametrize("api", ["chat", "messages"])
def test_images_come_on_top_of_the_prompt_and_their_upload_is_told(fast: Served, tmp_path: Path, api: str) -> None:
    run = pacemark.run(
        fast.url, model=fast.model, api=api, concurrency=2, input_tokens=60, output_tokens=6, duration=0.5, seed=1,
        images="1x280x280", out=tmp_path,
    )  # fmt: skip
    (level,) = run.levels
    assert not level.errors
    assert level.input_tokens == pytest.approx(60 + 100, abs=4)
    assert "input_length" not in {reason.code for reason in level.verdict.reasons}
    upload = level.upload
    assert isinstance(upload, Upload)
    assert 100_000 < upload.bytes < 300_000
    assert upload.time_ms.p50.value is not None
    assert upload.time_ms.p50.value > 0
    assert pacemark.report(run.path).levels[0].upload == upload
    assert "MB, sent within" in " ".join(traffic_in_words(level))


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


@pytest.mark.parametrize("api", ["messages", "responses", "ollama-generate", "gemini", "tgi", "rerank", "score"])
@pytest.mark.slow(shared=True)
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


@pytest.mark.slow(shared=True)
@pytest.mark.parametrize("api", ["chat", "responses", "ollama"])
def test_a_run_with_tools_tells_of_its_calls(fast: Served, formed: Workload, tmp_path: Path, api: str) -> None:
    run = pacemark.run(
        fast.url, model=fast.model, api=api, concurrency=4, input_tokens=60, output_tokens=6, duration=0.4, seed=1,
        tools=formed.tools, tool_choice="" if api == "ollama" else "required", out=tmp_path,
    )  # fmt: skip
    (level,) = run.levels
    calls = level.tool_calls
    assert isinstance(calls, ToolCalls)
    assert calls.requests == calls.calls == level.requests.in_window > 10
    assert (calls.malformed, level.errors, level.json_answers) == (0, {}, UNSET)
    assert not {"short_answers", "in_one_piece"} & {reason.code for reason in level.verdict.reasons}
    first, whole = calls.first_byte_ms.p50.value, calls.complete_ms.p50.value
    assert first is not None
    assert whole is not None
    assert 2 <= first <= whole if api == "ollama" else 2 <= first < whole
    assert msgspec.json.decode((run.path / "summary.json").read_bytes())["levels"][0]["tool_calls"]["malformed"] == 0
    assert "tool calls in" in (said := " ".join(content_in_words(level)))
    assert "none malformed" in said
    again = pacemark.report(run.path).levels[0]
    assert again.tool_calls == calls
    rows = table(run.summary, run.path, "requests").columns
    assert {*rows["calls"]} == {1}
    times = zip(rows["ttft_ms"], rows["call_ms"], rows["complete_call_ms"], rows["latency_ms"], strict=True)
    assert all(first <= call <= whole == last for first, call, whole, last in times)
    assert "tool calls in" in (run.path / "report.html").read_text()


@pytest.mark.slow(shared=True)
def test_a_run_that_asks_for_json_tells_whether_it_was(fast: Served, formed: Workload, tmp_path: Path) -> None:
    run = pacemark.run(
        fast.url, model=fast.model, concurrency=4, input_tokens=60, output_tokens=6, duration=0.4, seed=1,
        response_format=formed.response_format, out=tmp_path,
    )  # fmt: skip
    (level,) = run.levels
    assert level.json_answers == JsonAnswers(level.requests.in_window, 0, 0)
    reasoning = level.reasoning
    assert isinstance(reasoning, Reasoning)
    assert (reasoning.disclosed, reasoning.tokens) == ({"verbatim": reasoning.requests}, 3.0)
    took = reasoning.time_ms.p50.value
    assert took is not None
    assert took >= 1  # three tokens of 1 ms come before the answer's first; a busy endpoint makes up for a late one


def test_tools_that_an_api_has_not_are_refused(fast: Served, formed: Workload, tmp_path: Path) -> None:
    with pytest.raises(pacemark.BadInput, match="the API completions has no tools"):
        pacemark.run(
            fast.url, model=fast.model, api="completions", concurrency=1, tools=formed.tools, out=tmp_path / "runs"
        )
    assert not [*(tmp_path / "runs").glob("*")]


# --- the clients that people use, as judges


def picture() -> str:
    return _file(Workload(images="1x56x84"))


def _file(workload: Workload) -> str:
    """An image, or a sound, as base64."""
    return Media(workload).request(b"", MEDIA_HOLE.encode(), 0, 0).partition(b"\r\n\r\n")[2].decode()


def text_of(tokens: int, answer: str) -> None:
    assert count(answer) == tokens
    assert set(answer.split()) <= {word.strip() for word in WORDS}


@pytest.mark.xdist_group("clients")
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
        offered: Any = [{"type": "function", "name": "find", "parameters": WORD, "strict": False}]
        called: dict[str, Any] = {"tools": offered, "tool_choice": "required", "max_output_tokens": 8}
        (call,) = client.responses.create(model=fast.model, input="hello", **called).output
        assert (call.type, call.name) == ("function_call", "find")
        text_of(6, json.loads(call.arguments)["text"])
        with client.responses.stream(model=fast.model, input="hello", **called) as stream:
            pieces = [e.delta for e in stream if e.type == "response.function_call_arguments.delta"]
        text_of(6, json.loads("".join(pieces))["text"])
        form: Any = {"format": {"type": "json_schema", "name": "answer", "schema": WORD}}
        said = client.responses.create(model=fast.model, input="hello", text=form, max_output_tokens=8)
        text_of(3, json.loads(said.output_text)["text"])


@pytest.mark.xdist_group("clients")
def test_the_real_openai_client_chats_with_tools_and_schemas(fast: Served) -> None:
    from openai import OpenAI

    with OpenAI(base_url=fast.url, api_key="any", max_retries=0) as client:
        asking: dict[str, Any] = {"model": fast.model, "messages": [{"role": "user", "content": "hello"}]}
        called = asking | {"tools": TOOLS, "tool_choice": "required", "max_tokens": 8}
        (call,) = client.chat.completions.create(**called).choices[0].message.tool_calls
        assert call.function.name == "find"
        text_of(6, json.loads(call.function.arguments)["text"])
        pieces = client.chat.completions.create(**called, stream=True)
        calls = [call for x in pieces for choice in x.choices for call in choice.delta.tool_calls or ()]
        text_of(6, json.loads("".join(call.function.arguments for call in calls))["text"])
        parts = [
            {"type": "text", "text": "hello"},
            {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{picture()}"}},
            {"type": "input_audio", "input_audio": {"data": _file(Workload(audio="2s")), "format": "wav"}},
        ]
        seen = client.chat.completions.create(**asking | {"messages": [{"role": "user", "content": parts}]})
        assert seen.usage.prompt_tokens == count("hello") + 7 + 2 * 3 + 2 * 25
        form: Any = {"type": "json_schema", "json_schema": {"name": "answer", "schema": WORD}}
        said = client.chat.completions.create(**asking, response_format=form, max_tokens=8).choices[0].message
        text_of(3, json.loads(said.content)["text"])


@pytest.mark.xdist_group("clients")
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
    image = {"type": "base64", "media_type": "image/png", "data": picture()}
    parts = [{"type": "text", "text": "hello"}, {"type": "image", "source": image}]
    seen = client.messages.create(**asking | {"messages": [{"role": "user", "content": parts}]})
    assert seen.usage.input_tokens == count("hello") + 7 + 2 * 3
    called = asking | {"tools": [{"name": "find", "input_schema": WORD}], "tool_choice": {"type": "any"}}
    with client.messages.stream(**called) as stream:
        (block,) = stream.get_final_message().content
    assert (block.type, block.name) == ("tool_use", "find")
    text_of(6, block.input["text"])
    (block,) = client.messages.create(**called).content
    text_of(6, block.input["text"])
    form = {"format": {"type": "json_schema", "schema": WORD}}
    said = client.messages.create(**asking, output_config=form).content[-1].text
    text_of(3, json.loads(said)["text"])
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
    seen = client.chat(messages=[hello[0] | {"images": [picture()]}], **asking)
    assert seen.prompt_eval_count == count("hello") + 7 + 2 * 3
    assert client.generate(prompt="hello", images=[picture()], **asking).prompt_eval_count == seen.prompt_eval_count
    for stream in (False, True):
        got = client.chat(messages=hello, tools=TOOLS, stream=stream, **asking)
        (call,) = (call for part in ([got] if not stream else got) for call in part.message.tool_calls or ())
        assert call.function.name == "find"
        text_of(6, call.function.arguments["text"])
    text_of(3, json.loads(client.chat(messages=hello, format=WORD, **asking).message.content)["text"])
    with pytest.raises(ollama.ResponseError, match="no-such"):
        client.chat(model="no-such", messages=hello)
    client._client.close()
