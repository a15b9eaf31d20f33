"""MLflow's ChatAgent, read as its own types write it, at every split; and agents of a workspace asked by their task."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

import pacemark
from pacemark.dialects import agent
from pacemark.dialects.dialect import DIALECTS, first_options, template
from pacemark.dialects.said import ANSWER, NOTHING
from pacemark.endpoint.description import endpoint_in
from pacemark.errors import BadInput
from support.needed import needed
from support.workspaces import NAME, QUICK, TARGET, no_settings, workspace


def stream(*chunks: dict[str, Any]) -> bytes:
    return b"".join(b"data: " + json.dumps(chunk).encode() + b"\n\n" for chunk in chunks)


def delta(content: str | None, **more: Any) -> dict[str, Any]:
    return {"delta": {"role": "assistant", "id": "m1", "content": content} | more}


def test_a_delta_is_an_event_of_output() -> None:
    said = agent.read(stream(delta("one "), delta("two"), {"delta": {}, "finish_reason": "stop"}), True)
    assert (said.kinds, said.texts) == ([ANSWER, ANSWER, NOTHING], ["one ", "two", ""])
    assert (said.finish_reason, said.error) == ("stop", "")


def test_what_a_tool_answered_is_no_output() -> None:
    calls = delta(None, tool_calls=[{"id": "c", "function": {"name": "f", "arguments": "{}"}}])
    result = {"delta": {"role": "tool", "id": "t", "content": "42", "tool_call_id": "c"}}
    said = agent.read(stream(calls, result, delta("it is 42")), True)
    assert said.kinds == [ANSWER, NOTHING, ANSWER]


def test_a_stream_without_an_end_is_no_failure_but_an_error_is() -> None:
    assert agent.read(stream(delta("one")), True).error == ""
    said = agent.read(stream(delta("one"), {"error": {"message": "the tool failed"}}), True)
    assert (said.error, said.detail) == ("stream_error", "the tool failed")
    assert agent.read(b"data: {no json\n\n", True).error == "bad_stream"


def test_counts_are_taken_where_there_are_any() -> None:
    usage = {"prompt_tokens": 5, "completion_tokens": 2, "total_tokens": 7}
    said = agent.read(stream(delta("one two") | {"usage": usage}), True)
    assert (said.prompt_tokens, said.completion_tokens, said.total_tokens) == (5, 2, 7)


def test_an_answer_in_one_piece() -> None:
    messages = [
        {"role": "assistant", "content": "one "},
        {"role": "tool", "content": "x"},
        {"role": "assistant", "content": "two"},
    ]
    said = agent.read(json.dumps({"messages": messages, "finish_reason": "stop"}).encode(), False)
    assert (said.kinds, said.texts) == ([ANSWER], ["one two"])
    assert agent.read(b'{"choices": []}', False).error == "bad_answer"
    assert agent.read(b'{"error_code": "BAD_REQUEST", "message": "no"}', False).error == "server_error"


def test_mlflows_own_types_take_the_request_and_make_the_answer() -> None:
    types = needed("mlflow.types.agent")
    body = json.loads(template(DIALECTS["agent"], "", first_options(DIALECTS["agent"]), {}))
    assert types.ChatAgentRequest(**body).stream
    message = types.ChatAgentMessage(role="assistant", content="hello", id="m")
    chunk = types.ChatAgentChunk(delta=message).model_dump(exclude_none=True)
    assert agent.read(stream(chunk), True).texts == ["hello"]
    whole = types.ChatAgentResponse(messages=[message]).model_dump_json(exclude_none=True)
    assert agent.read(whole.encode(), False).texts == ["hello"]


def test_the_length_is_the_agents_own() -> None:
    assert DIALECTS["agent"].unlimited
    assert not [name for name, d in DIALECTS.items() if d.unlimited and name != "agent"]


@pytest.mark.parametrize(
    ("task", "api"),
    [
        ("agent/v1/responses", "responses"), ("agent/v2/chat", "agent"), ("agent/v1/chat", "chat"),
        ("llm/v1/chat", "chat"), ("llm/v1/embeddings", "embeddings"), ("agent/v9/new", None), ("", None),
    ],
)  # fmt: skip
def test_the_task_decides(task: str, api: str | None) -> None:
    assert endpoint_in({"name": "e", "task": task}).api == api


@pytest.mark.usefixtures("no_connections_left")
@pytest.mark.filterwarnings("ignore::ResourceWarning")
@pytest.mark.filterwarnings(f"ignore:{NAME} :UserWarning")
class TestServed:
    @pytest.fixture(autouse=True)
    def no_configuration(self, monkeypatch: pytest.MonkeyPatch) -> None:
        no_settings(monkeypatch)

    @pytest.mark.slow(shared=True)
    @pytest.mark.parametrize(("task", "api"), [("agent/v2/chat", "agent"), ("agent/v1/responses", "responses")])
    def test_an_agent_is_asked_as_it_speaks(
        self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, task: str, api: str
    ) -> None:
        """It refuses every field that it does not know, counts no tokens, and chooses its own length."""
        with workspace(monkeypatch, task=task):
            run = pacemark.run(TARGET, concurrency=2, duration=2.0, out=tmp_path, **QUICK)
        level = run.levels[0]
        assert run.summary.target["api"] == api
        assert level.requests.failed == 0, level.errors
        assert level.requests.completed > 5
        assert level.ttft_ms.p50.value
        codes = {r.code for r in level.verdict.reasons}
        assert not codes & {"short_answers", "longer_than_asked", "errors"}

    def test_chat_asked_of_an_agent_by_hand_is_refused_in_the_services_words(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        with workspace(monkeypatch, task="agent/v2/chat") as served:
            monkeypatch.setenv("KEY", "dapi-sesame-open-0123456789")
            with pytest.raises(BadInput, match='unknown field "'):
                pacemark.check(f"{served.root}/serving-endpoints/{NAME}/invocations", api_key_env="KEY", **QUICK)

    @pytest.mark.slow(shared=True)
    def test_unknown_fields_are_dropped_one_by_one(self, monkeypatch: pytest.MonkeyPatch) -> None:
        with workspace(monkeypatch):
            found = pacemark.check(TARGET, **QUICK)
        assert found["accepts"] == []
        assert found["output_tokens"] == 8
