"""Traces: for each format a file made by hand is read as it was written, units and all, and a damaged one refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from pacemark.errors import BadInput
from pacemark.workload.files import look, read, read_trace
from pacemark.workload.row import Row, Rows
from pacemark.workload.traces.formats import FORMATS
from support.needed import needed


def file(tmp_path: Path, *rows: Any, name: str = "a.jsonl") -> Path:
    path = tmp_path / name
    path.write_text("\n".join(row if isinstance(row, str) else json.dumps(row) for row in rows))
    return path


def left(rows: Rows) -> list[tuple[str, int, int]]:
    return [(x.reason, x.rows, x.first) for x in rows.found.left_out]


MOON = [
    {"timestamp": 3000, "input_length": 1100, "output_length": 40, "hash_ids": [0, 7, 8]},
    {"timestamp": 6000, "input_length": 512, "output_length": 1, "hash_ids": [0]},
    {"timestamp": 6000, "input_length": 513, "output_length": 0, "hash_ids": [0, 9]},
]


@pytest.mark.trap("vLLM reads Mooncake's ms as seconds and its blocks of 512 as 16")
def test_mooncake(tmp_path: Path) -> None:
    rows = read_trace(file(tmp_path, *MOON))
    assert list(rows) == [
        Row(1, input_tokens=1100, output_tokens=40, at_ms=0.0, blocks=(0, 7, 8), block_tokens=512),
        Row(2, input_tokens=512, output_tokens=1, at_ms=3000.0, blocks=(0,), block_tokens=512),
    ]
    assert (rows.found.format, rows.found.unit) == ("Mooncake", "ms")
    assert "times are taken as ms, as Mooncake has them" in rows.found.said
    assert left(rows) == [("0 output tokens: it failed or was cut off", 1, 3)]


def test_a_block_size_that_does_not_fit_is_refused_and_one_that_does_is_named(tmp_path: Path) -> None:
    small = {"timestamp": 0, "input_length": 100, "output_length": 1, "hash_ids": list(range(7))}
    path = file(tmp_path, small)
    with pytest.raises(BadInput, match="row 1: 7 hash_ids do not cover 100 tokens in blocks of 512; blocks of 16"):
        read_trace(path)
    assert read_trace(path, block_tokens=16)[0].block_tokens == 16
    with pytest.raises(BadInput, match="2 hash_ids do not cover 20 tokens in blocks of 512; blocks of 16 would"):
        read_trace(file(tmp_path, small | {"input_length": 20, "hash_ids": [1, 2]}))
    with pytest.raises(BadInput, match="no usual size of block would"):
        read_trace(file(tmp_path, small | {"input_length": 20, "hash_ids": [1] * 9}))
    for ids in ("1", [1.5], [-1], [2**64]):
        with pytest.raises(BadInput, match="row 1: hash_ids is no list of whole numbers"):
            read_trace(file(tmp_path, small | {"hash_ids": ids}))


def test_the_unit_of_a_time_is_asked_for_where_it_cannot_be_known(tmp_path: Path) -> None:
    path = file(tmp_path, MOON[0], MOON[1] | {"timestamp": 3001.5})
    with pytest.raises(BadInput, match=r"row 2: the time 3001.5 is no whole number of ms.*--unit s or ms"):
        read_trace(path)
    assert [row.at_ms for row in read_trace(path, unit="s")] == [0.0, 1500.0]
    stamped = [MOON[0] | {"timestamp": str(1753780607550317897 + k)} for k in (0, 250_000_000)]
    rows = read_trace(file(tmp_path, *stamped))
    assert ([row.at_ms for row in rows], rows.found.unit) == ([0.0, 250.0], "ns")


def test_times_out_of_order_are_refused_with_the_row(tmp_path: Path) -> None:
    path = file(tmp_path, *MOON, MOON[0])
    with pytest.raises(BadInput, match=r"row 4: its time is 3.00 s before that of a row above: sort the file"):
        read_trace(path)
    assert "1 times are before one above, row 4 first" in look(path).found.said[1]


def test_bailian(tmp_path: Path) -> None:
    rows = read_trace(
        file(
            tmp_path,
            {"chat_id": 9, "parent_chat_id": -1, "timestamp": 60.0, "input_length": 20, "output_length": 5,
             "type": "text", "turn": 1, "hash_ids": [5, 6]},
            {"chat_id": 11, "parent_chat_id": 3, "timestamp": 60.5, "input_length": 16, "output_length": 5,
             "type": "text", "turn": 4, "hash_ids": [5]},
            {"chat_id": 12, "parent_chat_id": 9, "timestamp": 61.114, "input_length": 40, "output_length": 15,
             "type": "text", "turn": 2, "hash_ids": [5, 6, 2**64 - 1]},
            {"chat_id": 13, "parent_chat_id": 12, "timestamp": 62, "input_length": 1, "output_length": 15,
             "type": "text", "turn": 3, "hash_ids": [8]},
        )
    )  # fmt: skip
    assert [(row.session, row.turn, row.at_ms, row.blocks) for row in rows] == [
        ("9", 0, 0.0, (5, 6)), ("3", 3, 500.0, (5,)), ("9", 1, 1114.0, (5, 6, 2**64 - 1)), ("9", 2, 2000.0, (8,)),
    ]  # fmt: skip
    assert {row.block_tokens for row in rows} == {16}
    assert rows.found.unit == "s"


AZURE = "TIMESTAMP,ContextTokens,GeneratedTokens\r\n2023-11-16 18:17:03.1234567,374,44\r\n2023-11-16 18:17:04,110,27"


def test_azure_keeps_all_seven_digits(tmp_path: Path) -> None:
    path = file(tmp_path, AZURE, name="a.csv")
    rows = read_trace(path)
    assert list(rows) == [
        Row(1, input_tokens=374, output_tokens=44, at_ms=0.0),
        Row(2, input_tokens=110, output_tokens=27, at_ms=876.5433),
    ]
    assert rows.found.format == "Azure 2023"
    with pytest.raises(BadInput, match=r"row 1: '2023-13-16 18:17:03\.1234567' is no date"):
        read_trace(file(tmp_path, AZURE.replace("-11-", "-13-"), name="a.csv"))
    with pytest.raises(BadInput, match="row 2: it has no lengths"):
        read_trace(file(tmp_path, AZURE.replace("110", ""), name="a.csv"))


def test_azure_in_several_forms_of_date_and_with_images(tmp_path: Path) -> None:
    mixed = (
        "TIMESTAMP,ContextTokens,GeneratedTokens",
        "2024-05-10 00:00:00.009930+00:00,1,2",
        "2024-05-10 00:00:01+00:00,3,4",
    )
    rows = read_trace(file(tmp_path, *mixed, name="a.csv"))
    assert ([row.at_ms for row in rows], rows.found.format) == ([0.0, 990.07], "Azure 2024")
    seen = ("TIMESTAMP,NumImages,ContextTokens,GeneratedTokens", "2024-10-15 12:00:00,2,30,4")
    rows = read_trace(file(tmp_path, *seen, name="b.csv"))
    assert rows.found.format == "Azure 2025"
    assert "1 requests had images, which are not sent" in rows.found.said


BURST = "Timestamp,Session ID,Elapsed time,Model,Request tokens,Response tokens,Total tokens,Log Type"


@pytest.mark.trap("vLLM reads BurstGPT by the order of its columns")
def test_burstgpt_is_read_by_its_columns(tmp_path: Path) -> None:
    rows = read_trace(
        file(tmp_path, BURST, "93.0,,4.2,GPT-4,310,82,392,API log", "94,s,1,ChatGPT,3,0,3,Conversation log",
             "95.5,s,1,ChatGPT,5,6,11,Conversation log", "96,s,1,ChatGPT,7,8,15,Conversation log", name="a.csv")
    )  # fmt: skip
    assert list(rows) == [
        Row(1, input_tokens=310, output_tokens=82, at_ms=0.0),
        Row(3, input_tokens=5, output_tokens=6, at_ms=2500.0, session="s"),
        Row(4, input_tokens=7, output_tokens=8, at_ms=3000.0, session="s", turn=1),
    ]
    old = "Timestamp,Model,Request tokens,Response tokens,Total tokens,Log Type"
    assert read_trace(file(tmp_path, old, "5,GPT-4,310,82,392,API log", name="b.csv"))[0].output_tokens == 82


def body(text: str) -> dict[str, Any]:
    return {"messages": [{"role": "user", "content": text}], "max_tokens": 16, "stream": True}


def test_evalscope(tmp_path: Path) -> None:
    path = file(
        tmp_path,
        {"timestamp": 0.25, "body": body("Hi"), "request_id": "a1", "completion_tokens": 12},
        {"timestamp": 1, "body": json.dumps(body("Ho"))},
    )
    rows = read_trace(path)
    assert list(rows) == [
        Row(1, body=body("Hi"), output_tokens=12, at_ms=0.0),
        Row(2, body=body("Ho"), output_tokens=16, at_ms=750.0),
    ]
    assert [row.body for row in read(path)] == [body("Hi"), body("Ho")]
    with pytest.raises(BadInput, match="row 1: this is no JSON"):
        read_trace(file(tmp_path, {"timestamp": 1, "body": "{"}))


SPENT = {"request_id": "x1", "startTime": "2026-11-27T10:00:01.250Z", "prompt_tokens": 8, "completion_tokens": 5,
         "session_id": "s1", "messages": {}, "status": "success", "cache_hit": "False"}  # fmt: skip


def test_litellm(tmp_path: Path) -> None:
    later = SPENT | {"startTime": "2026-11-27T10:00:03Z", "messages": body("Hi")["messages"], "cache_hit": "True"}
    rows = read_trace(file(tmp_path, later, SPENT, SPENT | {"status": "failure"}))
    assert list(rows) == [
        Row(2, input_tokens=8, output_tokens=5, at_ms=0.0, session="s1"),
        Row(1, input_tokens=8, output_tokens=5, at_ms=1750.0, session="s1", turn=1, messages=body("Hi")["messages"]),
    ]
    assert left(rows) == [("it failed", 1, 3)]
    assert any("put in order" in said for said in rows.found.said)
    assert any("own cache" in said for said in rows.found.said)
    with pytest.raises(BadInput, match="lengths and times and no prompt: it is a trace, for --trace"):
        read(file(tmp_path, SPENT))


def test_a_log_of_times_and_lengths(tmp_path: Path) -> None:
    """By the usual names, in any case; the unit is in the name, in the time itself, or asked for."""
    head = "time_s,Prompt_Tokens,completion_tokens,user_id,session_id"
    named = file(tmp_path, head, "7,100,20,a,s", "7.5,200,3,b,", name="a.csv")
    rows = read_trace(named)
    assert list(rows) == [
        Row(1, input_tokens=100, output_tokens=20, at_ms=0.0, session="s"),
        Row(2, input_tokens=200, output_tokens=3, at_ms=500.0),
    ]
    assert rows.found.keys["input_tokens"] == "Prompt_Tokens"
    with pytest.raises(BadInput, match="no prompt: it is a trace, for --trace"):
        read(named)
    dated = {"created_at": "2026-01-01T10:00:00Z", "input_tokens": 5, "max_tokens": 6}
    assert [row.at_ms for row in read_trace(file(tmp_path, dated, dated | {"created_at": 1767261602}))] == [0.0, 2000.0]
    bare = file(tmp_path, *({"arrival_time": t, "input_tokens": 5, "output_tokens": 6} for t in (0, 1500)))
    with pytest.raises(BadInput, match=r"row 1: the time 0 has no unit that can be known: say --unit"):
        read_trace(bare)
    assert [row.at_ms for row in read_trace(bare, unit="ms")] == [0.0, 1500.0]
    with pytest.raises(BadInput, match="row 2: it has no lengths"):
        read_trace(file(tmp_path, dated, dated | {"max_tokens": None}))


LOGGED: dict[str, Any] = {
          "databricks_request_id": "r-1", "client_request_id": None, "request_time": "2026-11-27T10:00:01.250Z",
          "status_code": 200, "sampling_fraction": 1.0, "execution_duration_ms": 810, "request": json.dumps(body("Hi")),
          "response": '{"usage":{"prompt_tokens":8,"completion_tokens":5}}', "logging_error_codes": []}  # fmt: skip
STREAMED = 'data: {"choices":[]}\n\ndata: {"usage":{"prompt_tokens":9,"completion_tokens":6}}\n\ndata: [DONE]\n'


def test_a_databricks_inference_table(tmp_path: Path) -> None:
    rows = read_trace(
        file(
            tmp_path,
            LOGGED,
            LOGGED | {"request_time": "2026-11-27T10:00:00Z", "sampling_fraction": 0.5, "response": STREAMED},
            LOGGED | {"request_time": "2026-11-27T09:30:00Z", "status_code": 429},
            LOGGED | {"request": None},
            LOGGED | {"request_time": "2026-11-27 11:00:00", "response": None},
            LOGGED | {"status_code": 500},
            LOGGED | {"request": '{"dataframe_split": {}}'},
        )
    )
    assert list(rows) == [
        Row(2, body=body("Hi"), input_tokens=9, output_tokens=6, at_ms=0.0),
        Row(1, body=body("Hi"), input_tokens=8, output_tokens=5, at_ms=1250.0),
        Row(5, body=body("Hi"), output_tokens=16, at_ms=3600_000.0),
    ]
    found, said = rows.found, "; ".join(rows.found.said)
    assert (found.format, found.throttled) == ("Databricks inference table", 1)
    assert found.sampling == pytest.approx(5 / 6)
    assert "5 rows stand for 6 requests" in said
    assert "1 of 7 requests were refused for their rate (429), in 1 of 3 hours, most in that of 2026-11-27 09" in said
    assert "25.0% of the payloads are NULL" in said
    assert [(reason[:12], rows, first) for reason, rows, first in left(rows)] == [
        ("it was refus", 1, 3), ("its payload ", 1, 4), ("it ended wit", 1, 6), ("its body ask", 1, 7),
    ]  # fmt: skip
    with pytest.raises(BadInput, match="row 1: this is no JSON"):
        read_trace(file(tmp_path, LOGGED | {"request": '{"messages": ['}))


def test_older_and_newer_tables_of_databricks(tmp_path: Path) -> None:
    old = {"timestamp_ms": 1764237601250, "status_code": 200, "request": json.dumps(body("Hi")), "response": "[]"}
    assert read_trace(file(tmp_path, old, old | {"timestamp_ms": 1764237601500}))[1].at_ms == 250.0
    new = {
        "event_time": "2026-11-27T10:00:01Z",
        "status_code": 200,
        "request": json.dumps(body("Hi")),
        "response": None,
    }
    assert read_trace(file(tmp_path, new))[0].body == body("Hi")


@pytest.mark.parametrize(
    "columns",
    [
        ("request_time", "input_token_count", "output_token_count", "system.serving.endpoint_usage"),
        ("event_time", "input_tokens", "output_tokens", "system.ai_gateway.usage"),
    ],
)
def test_the_usage_tables_of_databricks(tmp_path: Path, columns: tuple[str, ...]) -> None:
    at, asked, answered, name = columns
    row = {at: "2026-11-27T10:00:01.25Z", "status_code": 200, asked: 8, answered: 5}
    rows = read_trace(file(tmp_path, row, row | {at: "2026-11-27T10:00:01Z", asked: "9"}, row | {"status_code": 429},
                           row | {asked: None}))  # fmt: skip
    assert list(rows) == [
        Row(2, input_tokens=9, output_tokens=5, at_ms=0.0),
        Row(1, input_tokens=8, output_tokens=5, at_ms=250.0),
    ]
    assert (rows.found.format, rows.found.throttled) == (name, 1)


def test_a_table_comes_as_parquet_with_its_own_types(tmp_path: Path) -> None:
    arrow, parquet = needed("pyarrow"), needed("pyarrow.parquet")
    times = arrow.array([1_764_237_601_250_000, 1_764_237_602_000_000], arrow.timestamp("us", tz="UTC"))
    table = {
        "request_time": times,
        "status_code": [200, 200],
        "request": [json.dumps(body("Hi"))] * 2,
        "response": ["", ""],
    }
    parquet.write_table(arrow.table(table), tmp_path / "a.parquet")
    assert [row.at_ms for row in read_trace(tmp_path / "a.parquet")] == [0.0, 750.0]


SPAN = {"name": "call", "span_id": "2", "parent_span_id": "1", "start_time_unix_nano": 1764237601500000000,
        "attributes": {"mlflow.spanType": '"CHAT_MODEL"', "mlflow.spanInputs": json.dumps(body("inner")),
                       "mlflow.chat.tokenUsage": '{"input_tokens": 30, "output_tokens": 7}'}}  # fmt: skip
TRACED = {"trace_id": "tr-1", "request_time": 1764237601250, "execution_duration": 912, "state": "OK",
          "request": '{"input":[{"role":"user","content":"Hi"}]}',
          "trace_metadata": {"mlflow.trace.session": "s1",
                             "mlflow.trace.tokenUsage": '{"input_tokens":8,"output_tokens":5}'}}  # fmt: skip
ASKED = {"input": [{"role": "user", "content": "Hi"}]}


def test_mlflow(tmp_path: Path) -> None:
    later = TRACED | {"request_time": "2025-11-27T10:00:02Z", "request": '{"question": "Why?"}'}
    rows = read_trace(file(tmp_path, TRACED, later, TRACED | {"state": "ERROR"}))
    assert list(rows) == [Row(1, body=ASKED, input_tokens=8, output_tokens=5, at_ms=0.0, session="s1")]
    assert [reason for reason, _, _ in left(rows)] == [
        "what it asked is no request to a model: no messages, prompt or input", "it failed",
    ]  # fmt: skip


def test_an_agents_trace_has_two_loads_and_one_must_be_named(tmp_path: Path) -> None:
    whole = {"info": {k: v for k, v in TRACED.items() if k != "request"},
             "data": {"request": TRACED["request"], "spans": [{"span_id": "1", "attributes": {}}, SPAN]}}  # fmt: skip
    path = file(tmp_path, whole)
    with pytest.raises(BadInput, match="row 1: the trace holds requests to an agent and calls of a model: --spans"):
        read_trace(path)
    assert list(read_trace(path, spans="root")) == [
        Row(1, body=ASKED, input_tokens=8, output_tokens=5, at_ms=0.0, session="s1")
    ]
    assert list(read_trace(path, spans="model")) == [
        Row(1, body=body("inner"), input_tokens=30, output_tokens=7, at_ms=0.0, session="s1")
    ]
    with pytest.raises(BadInput, match="--spans 'leaf' is not known: root or model"):
        read_trace(path, spans="leaf")


MESSAGES = [{"role": "user", "parts": [{"type": "text", "content": "Hi"}, {"type": "blob", "data": "x"}]}]


def test_opentelemetry(tmp_path: Path) -> None:
    def typed(value: Any) -> dict[str, Any]:
        return {"intValue": str(value)} if isinstance(value, int) else {"stringValue": value}

    def span(at: int, code: int = 0, **attributes: Any) -> dict[str, Any]:
        named = [{"key": f"gen_ai.{k.replace('__', '.')}", "value": typed(v)} for k, v in attributes.items()]
        return {"startTimeUnixNano": str(1764237601000000000 + at), "status": {"code": code}, "attributes": named}

    calls = [
        span(500_000_000, usage__input_tokens=8, usage__output_tokens=5, conversation__id="c"),
        span(0, usage__prompt_tokens=7, usage__completion_tokens=4, input__messages=json.dumps(MESSAGES)),
        span(1, code=2, usage__input_tokens=8),
        span(2, tool__name="search"),
        {"startTimeUnixNano": "3", "attributes": []},
    ]
    export = {"resourceSpans": [{"scopeSpans": [{"spans": calls}]}]}
    for path in (file(tmp_path, export), file(tmp_path, json.dumps(export, indent=1), name="a.json")):
        rows = read_trace(path)
        assert list(rows) == [
            Row(1, messages=[{"role": "user", "content": "Hi"}], input_tokens=7, output_tokens=4, at_ms=0.0),
            Row(1, input_tokens=8, output_tokens=5, at_ms=500.0, session="c"),
        ]
        assert left(rows) == [("it failed", 1, 1), ("the span is no call of a model", 2, 1)]
        assert "1 messages had parts that are no text, which are not sent" in rows.found.said
    flat = {
        "start_time": "2026-11-27T10:00:01Z",
        "attributes": {"gen_ai.prompt.0.role": "user", "gen_ai.prompt.0.content": "Hi"},
    }
    assert read_trace(file(tmp_path, flat))[0].messages == [{"role": "user", "content": "Hi"}]
    with pytest.raises(BadInput, match="row 1: resourceSpans is not nested as OTLP has it"):
        read_trace(file(tmp_path, {"resourceSpans": [1]}))


def test_what_is_around_a_call_of_a_model_is_not_sent_beside_it(tmp_path: Path) -> None:
    def span(operation: str, tokens: int) -> dict[str, Any]:
        named = {"gen_ai.operation.name": operation, "gen_ai.usage.input_tokens": tokens}
        return {"start_time": "2026-11-27T10:00:01Z", "attributes": named}

    path = file(tmp_path, span("invoke_agent", 30), span("chat", 10), span("execute_tool", 1), span("chat", 20))
    assert [row.input_tokens for row in read_trace(path)] == [10, 20]
    assert left(read_trace(path)) == [("it is an agent's; --spans root takes those", 2, 1)]
    assert [row.input_tokens for row in read_trace(path, spans="root")] == [30, 1]


def test_a_request_of_plain_text_in_a_trace_of_mlflow_costs_itself(tmp_path: Path) -> None:
    rows = read_trace(file(tmp_path, TRACED, TRACED | {"request": "What is the time?"}))
    assert (len(rows), left(rows)[0][1:]) == (1, (1, 2))


def test_the_unit_of_a_trace_is_that_of_its_first_row(tmp_path: Path) -> None:
    long = [MOON[0] | {"timestamp": ms} for ms in (0, 999_999_000, 1_000_001_000)]
    rows = read_trace(file(tmp_path, *long))
    assert [row.at_ms for row in rows] == [0.0, 999_999_000.0, 1_000_001_000.0]


def test_a_row_of_another_format_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="row 2: it is no row of Mooncake, as the first is"):
        read_trace(file(tmp_path, MOON[0], {"prompt": "x"}))
    assert len({format.__name__ for format in FORMATS}) == len(FORMATS) == 11


def test_the_step_of_the_times_is_found_and_told(tmp_path: Path) -> None:
    burst = [MOON[0] | {"timestamp": 3000 * (k // 10) - (k % 40 == 30)} for k in range(400)]
    found = read_trace(file(tmp_path, *burst)).found
    assert found.quantum_ms == 3000.0
    assert "times are rounded to 3.00 s, 10.3 rows to a step" in found.said[-1]
