"""Calls of tools: how each API is offered them, and what is read of those that it makes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from pacemark.dialects.dialect import DIALECTS, further
from pacemark.dialects.reading import understand
from pacemark.errors import BadInput
from pacemark.pace import Concurrency
from pacemark.scenario import Levels, ordered
from pacemark.trace import ABSENT, Exchange
from pacemark.traffic import Workload, workload_of
from support.events import ROLE, each_in_its_read, ms
from support.recorded import gemini, line, named
from support.servers import DONE, delta, event, raw, usage

SCHEMA = {"type": "object", "properties": {"city": {"type": "string"}}}
TOOLS = [
    {"type": "function", "function": {"name": "weather", "description": "How it is.", "parameters": SCHEMA}},
    {"type": "function", "function": {"name": "now"}},
]
PIECES = ('{"city": ', '"Jena"', "}")


@pytest.fixture
def files(tmp_path: Path) -> dict[str, str]:
    (tmp_path / "tools.json").write_text(json.dumps(TOOLS))
    (tmp_path / "schema.json").write_text(json.dumps(SCHEMA))
    return {"tools": str(tmp_path / "tools.json"), "response_format": str(tmp_path / "schema.json")}


# --- what is asked

OFFERED: dict[str, Any] = {
    "chat": lambda x: [t["function"]["name"] for t in x["tools"]],
    "responses": lambda x: [t["name"] for t in x["tools"] if t["type"] == "function"],
    "messages": lambda x: [t["name"] for t in x["tools"] if t["input_schema"]["type"] == "object"],
    "ollama": lambda x: [t["function"]["name"] for t in x["tools"]],
    "gemini": lambda x: [t["name"] for t in x["tools"][0]["functionDeclarations"] if t["parametersJsonSchema"]],
}
CHOSEN: dict[str, Any] = {
    "chat": (lambda x: x["tool_choice"], "required", {"type": "function", "function": {"name": "now"}}),
    "responses": (lambda x: x["tool_choice"], "required", {"type": "function", "name": "now"}),
    "messages": (lambda x: x["tool_choice"], {"type": "any"}, {"type": "tool", "name": "now"}),
    "gemini": (
        lambda x: x["toolConfig"]["functionCallingConfig"],
        {"mode": "ANY"},
        {"mode": "ANY", "allowedFunctionNames": ["now"]},
    ),
}
FORM: dict[str, Any] = {
    "chat": lambda x: x["response_format"]["json_schema"]["schema"],
    "responses": lambda x: x["text"]["format"]["schema"],
    "messages": lambda x: x["output_config"]["format"]["schema"],
    "ollama": lambda x: x["format"],
    "ollama-generate": lambda x: x["format"],
    "gemini": lambda x: x["generationConfig"]["responseJsonSchema"],
    "tgi": lambda x: x["parameters"]["grammar"]["value"],
}


@pytest.mark.parametrize("api", DIALECTS)
def test_tools_are_offered_in_the_words_of_each_api(files: dict[str, str], api: str) -> None:
    def asked(choice: str) -> dict[str, Any]:
        return further(DIALECTS[api], Workload(tools=files["tools"], tool_choice=choice))

    if api not in OFFERED:
        with pytest.raises(BadInput, match=f"the API {api} has no tools; chat, responses"):
            asked("")
        return
    assert OFFERED[api](asked("")) == ["weather", "now"]
    if api not in CHOSEN:
        with pytest.raises(BadInput, match="leaves it to the model"):
            asked("required")
        return
    chosen, must, this = CHOSEN[api]
    assert (chosen(asked("required")), chosen(asked("now"))) == (must, this)
    assert not {"tool_choice", "toolConfig"} & asked("").keys()


@pytest.mark.parametrize("api", DIALECTS)
def test_json_is_asked_for_in_the_words_of_each_api(files: dict[str, str], api: str) -> None:
    workload = Workload(response_format=files["response_format"], extra={"generationConfig": {"temperature": 0}})
    if api not in FORM:
        with pytest.raises(BadInput, match=f"the API {api} cannot be asked for JSON"):
            further(DIALECTS[api], workload)
        return
    fields = further(DIALECTS[api], workload)
    assert FORM[api](fields) == SCHEMA
    assert fields["generationConfig"]["temperature"] == 0  # what the user gives goes beside it


BAD: list[tuple[dict[str, Any], Any, str]] = [
    ({"tool_choice": "auto"}, None, "give them with --tools FILE"),
    ({"tools": "F"}, {"name": "x"}, "give a JSON list of tools"),
    ({"tools": "F"}, [], "give a JSON list of tools"),
    ({"tools": "F"}, [{"name": "x"}], "tool 1 is not of the form"),
    ({"tools": "F"}, [TOOLS[0], TOOLS[0]], "the same name"),
    ({"tools": "F", "tool_choice": "nwo"}, TOOLS, "use auto, none, required or the name of a tool: weather, now"),
    ({"tools": "F", "turns": 3}, TOOLS, "give --history recorded"),
    ({"response_format": "F"}, [1], "give a JSON schema"),
    ({"response_format": "F"}, {"type": "json_schema", "json_schema": 7}, "give a JSON schema"),
    ({"response_format": "F"}, "{", "is no JSON"),
    ({"tools": "missing"}, None, "cannot be read"),
]


@pytest.mark.parametrize(("words", "content", "said"), BAD, ids=lambda x: str(x)[:30])
def test_bad_files_are_refused_in_one_line(tmp_path: Path, words: dict[str, Any], content: Any, said: str) -> None:
    file = tmp_path / "file.json"
    if content is not None:
        file.write_text(content if isinstance(content, str) else json.dumps(content))
    given: Any = {name: str(file) if value == "F" else value for name, value in words.items()}
    with pytest.raises(BadInput, match=said) as refused:
        workload_of(given)
    assert "\n" not in str(refused.value)


def test_a_schema_may_stand_in_a_response_format(tmp_path: Path, files: dict[str, str]) -> None:
    (tmp_path / "form.json").write_text(json.dumps({"type": "json_schema", "json_schema": {"schema": SCHEMA}}))
    fields = further(DIALECTS["ollama"], Workload(response_format=str(tmp_path / "form.json")))
    assert fields == {"format": SCHEMA}


def test_what_must_end_by_itself_is_not_made_to_go_on(files: dict[str, str]) -> None:
    goal = Levels((Concurrency(1),))
    for name in files:
        words: Any = {name: files[name]}
        assert ordered("http://127.0.0.1:1/v1", goal, words).settings.ignore_eos is False
        with pytest.raises(BadInput, match="--ignore-eos would write on"):
            ordered("http://127.0.0.1:1/v1", goal, words | {"ignore_eos": True})


# --- what is answered


def tool(index: int | None = None, id: str | None = None, **function: Any) -> bytes:
    call = {"index": index, "id": id, "type": "function", "function": function}
    return delta(tool_calls=[{k: v for k, v in call.items() if v is not None}])


def read(api: str, *events: bytes) -> Exchange:
    return understand(each_in_its_read(*events), api)


def times(x: Exchange) -> tuple[list[float], list[float]]:
    return ms([x.call_ns]), ms([x.called_ns])


def test_a_chat_call_begins_with_its_name_and_ends_with_its_last_piece() -> None:
    thought = delta(reasoning_content="hm")
    pieces = [tool(0, arguments=piece) for piece in PIECES]
    second = [tool(1, "b", name="now", arguments=""), tool(1, arguments="{nonsense")]
    x = read(
        "chat", ROLE, thought, tool(0, "a", name="weather"), *pieces, *second, delta("tool_calls"), usage(7, 9), DONE
    )
    assert (x.error, x.calls, x.malformed_calls) == ("", 2, 1)
    assert times(x) == ([120], [150])  # of the first


def test_whole_chat_calls_are_told_apart_without_an_index() -> None:
    x = read(
        "chat",
        ROLE,
        tool(None, "a", name="x", arguments="{}"),
        tool(None, "b", name="x", arguments="{}"),
        delta("stop"),
    )
    assert (x.calls, x.malformed_calls) == (2, 0)
    old = delta(function_call={"name": "x", "arguments": "{"}) + delta(function_call={"arguments": "}"})
    x = read("chat", ROLE, old, delta("function_call"))
    assert (x.calls, x.malformed_calls) == (1, 0)


def test_a_call_of_a_function_without_arguments_is_sound() -> None:
    x = read("chat", ROLE, tool(0, "a", name="now", arguments=""), delta("tool_calls"))
    assert (x.calls, x.malformed_calls) == (1, 0)


def test_a_call_in_an_answer_of_one_piece_has_no_times() -> None:
    call = {"id": "a", "type": "function", "function": {"name": "weather", "arguments": "{"}}
    answer = {"choices": [{"message": {"content": None, "tool_calls": [call]}, "finish_reason": "length"}]}
    x = understand(raw(json.dumps(answer).encode(), streamed=False), "chat")
    assert (x.error, x.calls, x.malformed_calls, x.call_ns, x.called_ns) == ("", 1, 1, ABSENT, ABSENT)


def responses(*pieces: str, streamed: bool = True) -> list[bytes]:
    item = {"type": "function_call", "id": "f", "name": "weather"}
    place = {"item_id": "f", "output_index": 0}
    deltas = [{"type": "response.function_call_arguments.delta", "delta": p} | place for p in pieces if streamed]
    done = {"type": "response.output_item.done", "output_index": 0, "item": item | {"arguments": "".join(pieces)}}
    return [
        named({"type": "response.created"}),
        named({"type": "response.output_item.added", "output_index": 0, "item": item | {"arguments": ""}}),
        *map(named, deltas),
        named(done),
        named({"type": "response.completed", "response": {"usage": {"input_tokens": 7, "output_tokens": 4}}}),
    ]


def test_a_call_in_a_response() -> None:
    x = read("responses", *responses(*PIECES))
    assert (x.error, x.calls, x.malformed_calls, times(x)) == ("", 1, 0, ([110], [140]))
    assert read("responses", *responses("{", "x")).malformed_calls == 1
    whole = read("responses", *responses(*PIECES, streamed=False))  # in its item alone
    assert (whole.calls, whole.malformed_calls, times(whole)) == (1, 0, ([110], [120]))


def test_a_call_in_a_message() -> None:
    def block(**fields: Any) -> bytes:
        return named({"type": "content_block_start", "index": 1, "content_block": {"type": "tool_use", **fields}})

    def piece(text: str) -> bytes:
        found = {"type": "input_json_delta", "partial_json": text}
        return named({"type": "content_block_delta", "index": 1, "delta": found})

    start = named({"type": "message_start", "message": {"usage": {"input_tokens": 7}}})
    ends = [
        named({"type": "content_block_stop", "index": 1}),
        named({"type": "message_delta", "delta": {"stop_reason": "tool_use"}, "usage": {"output_tokens": 5}}),
        named({"type": "message_stop"}),
    ]
    x = read("messages", start, block(name="weather", input={}), piece(""), *map(piece, PIECES), *ends)
    assert (x.error, x.calls, x.malformed_calls, times(x)) == ("", 1, 0, ([110], [150]))
    assert read("messages", start, block(name="now", input={}), *ends).malformed_calls == 0
    assert read("messages", start, block(name="x"), piece("{"), *ends).malformed_calls == 1
    bare = named({"type": "content_block_start", "index": [], "content_block": {"type": "tool_use", "name": "x"}})
    assert read("messages", start, bare, *ends).calls == 1  # whatever stands in its place


def test_calls_that_come_whole() -> None:
    call = {"functionCall": {"name": "weather", "args": {"city": "Jena"}}}
    x = read("gemini", gemini(call, 3), gemini({"functionCall": {"name": "now"}}, 5, finishReason="STOP"))
    assert (x.error, x.calls, x.malformed_calls, times(x)) == ("", 2, 0, ([100], [100]))
    called = [{"function": {"name": "weather", "arguments": {"city": "Jena"}}}]
    told = line(message={"role": "assistant", "content": "", "tool_calls": called}, done=False)
    x = read("ollama", told, line(message={"content": ""}, done=True, done_reason="stop", eval_count=4))
    assert (x.error, x.calls, x.malformed_calls, times(x)) == ("", 1, 0, ([100], [100]))
    x = read("agent", event({"delta": {"role": "assistant", "tool_calls": called, "content": ""}}), DONE)
    assert (x.error, x.calls, x.malformed_calls) == ("", 1, 0)


@pytest.mark.parametrize(
    ("texts", "sound"), [(('{"a": ', "1}"), 1), (("[1, 2", "]\n"), 1), (('{"a": ', "1"), 0), (("```json", "{}"), 0)]
)
def test_an_answer_that_was_to_be_json_is_looked_at(texts: tuple[str, ...], sound: int) -> None:
    events = [ROLE, delta(reasoning_content="hm"), *(delta(content=t) for t in texts), delta("stop"), usage(7, 3), DONE]
    assert understand(each_in_its_read(*events), "chat", json_answers=True).json_answer == sound
    assert understand(each_in_its_read(*events), "chat").json_answer == ABSENT
