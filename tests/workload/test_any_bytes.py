"""Whatever a file holds, it ends in rows or in one line that refuses it."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pacemark.answers.datafile import described
from pacemark.errors import BadInput
from pacemark.reporting.datafile import markdown_of
from pacemark.workload import records
from pacemark.workload.files import look, read, read_trace
from pacemark.workload.keys import BODIES, CHATS, INPUTS, OUTPUTS, SESSIONS, SYSTEMS, TEXTS, TIMES
from support.needed import needed

ANY = settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
SUFFIXES = ("", ".jsonl", ".json", ".csv", ".tsv", ".txt", ".jsonl.gz", ".csv.gz", ".jsonl.zst", ".parquet", ".arrow")
KNOWN = [
    *(*BODIES, *CHATS, *TEXTS, *SYSTEMS, *INPUTS, *OUTPUTS, *TIMES, *SESSIONS, "hash_ids", "parent_chat_id", "turn"),
    *("TIMESTAMP", "ContextTokens", "GeneratedTokens", "NumImages", "Timestamp", "Request tokens", "Response tokens"),
    *("startTime", "status", "status_code", "request", "response", "sampling_fraction", "event_time", "info", "data"),
    *("input_token_count", "output_token_count", "trace_id", "state", "trace_metadata", "spans", "attributes", "role"),
    *("resourceSpans", "scopeSpans", "start_time", "startTimeUnixNano", "gen_ai.prompt", "gen_ai.input.messages"),
    *("gen_ai.usage.input_tokens", "from", "value", "usage", "tools", "mlflow.spanType", "key", "parts", "human"),
]


def ends_in_rows_or_a_line(path: Path, data: bytes) -> None:
    path.write_bytes(data)
    refused: list[str] = []
    for way in (look, read, read_trace):
        try:
            rows = way(path)
        except BadInput as error:
            refused.append(str(error))
            continue
        found = list(rows)
        assert len(found) == len(rows) == rows.found.rows > 0
        assert rows[len(rows) - 1] == found[-1]
        if way is read:
            assert all(row.prompt is not None or row.messages or row.body for row in found)
        if way is read_trace:
            times = [row.at_ms for row in found if row.at_ms is not None]
            assert len(times) == len(found)
            assert times == sorted(times)
        if way is look:
            assert msgspec.json.encode(described(rows))
            assert markdown_of(described(rows), "it")
    assert [line for line in refused if not line.startswith(f"{path}: ") or "\n" in line] == []


@ANY
@given(suffix=st.sampled_from(SUFFIXES), data=st.binary(max_size=400))
def test_any_bytes(tmp_path: Path, suffix: str, data: bytes) -> None:
    ends_in_rows_or_a_line(tmp_path / f"a{suffix}", data)


@ANY
@given(suffix=st.sampled_from(SUFFIXES[:6]), text=st.text('{}[]",:\\\n\r\t prompt1.5eé\ufeff\ud800', max_size=60))
def test_any_text_that_is_nearly_json_or_csv(tmp_path: Path, suffix: str, text: str) -> None:
    ends_in_rows_or_a_line(tmp_path / f"a{suffix}", text.encode("utf-8", "surrogatepass"))


NUMBERS = st.integers() | st.floats() | st.sampled_from([0, 1, 512, 1764237601250, 1764237601250000000])
LEAVES = st.none() | st.booleans() | NUMBERS | st.sampled_from(["", "x", "{}", "[", '{"role": "user"}', "2026-01-01"])
VALUES = st.recursive(
    LEAVES,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(KNOWN), inner, max_size=4),
    max_leaves=12,
)
TRACE = st.sampled_from([
    {"timestamp": 1, "input_length": 20, "output_length": 2, "hash_ids": [1]},
    {"timestamp": 1, "input_length": 20, "output_length": 2, "chat_id": 1, "parent_chat_id": -1, "hash_ids": [1, 2]},
    {"TIMESTAMP": "2024-01-01 00:00:00", "ContextTokens": 1, "GeneratedTokens": 2},
    {"Timestamp": 1, "Request tokens": 1, "Response tokens": 2},
    {"timestamp": 1, "body": {"messages": [{"role": "user", "content": "x"}]}},
    {"startTime": "2024-01-01 00:00:00", "prompt_tokens": 1, "completion_tokens": 2},
    {"request_time": "2024-01-01", "status_code": 200, "request": '{"prompt": "x"}', "response": "{}"},
    {"request_time": "2024-01-01", "status_code": 200, "input_token_count": 1, "output_token_count": 2},
    {"trace_id": "t", "request_time": 1764237601250, "state": "OK", "request": {"messages": [{"role": "user"}]}},
    {"start_time": 1, "attributes": {"gen_ai.usage.input_tokens": 3}},
    {"resourceSpans": [{"scopeSpans": [{"spans": [{"startTimeUnixNano": "1", "attributes": []}]}]}]},
    {"prompt": "x", "output_tokens": 2, "timestamp": "2024-01-01"},
])  # fmt: skip
"""A good row of each format."""


@ANY
@given(good=TRACE, spoilt=st.dictionaries(st.sampled_from(KNOWN), VALUES, max_size=3), lines=st.booleans())
def test_a_good_row_and_one_with_anything_in_it(
    tmp_path: Path, good: dict[str, Any], spoilt: dict[str, Any], lines: bool
) -> None:
    rows = [good, good | spoilt, spoilt]
    text = "\n".join(map(json.dumps, rows)) if lines else json.dumps(rows)
    ends_in_rows_or_a_line(tmp_path / "a.jsonl", text.encode())


@ANY
@given(value=VALUES)
def test_any_json(tmp_path: Path, value: Any) -> None:
    ends_in_rows_or_a_line(tmp_path / "a.json", json.dumps(value).encode())


@ANY
@given(at=st.integers(0, 200), byte=st.integers(0, 255), packed=st.sampled_from([".gz", ".zst", ""]), cut=st.booleans())
def test_a_good_file_with_a_byte_changed_or_cut_off(tmp_path: Path, at: int, byte: int, packed: str, cut: bool) -> None:
    data = b"\n".join(b'{"prompt": "row %d", "output_tokens": %d}' % (k, k) for k in range(40))
    if packed:
        data = gzip.compress(data, mtime=0) if packed == ".gz" else needed("zstandard").compress(data)
    at %= len(data)
    ends_in_rows_or_a_line(tmp_path / f"a.jsonl{packed}", data[:at] + (b"" if cut else bytes([byte]) + data[at + 1 :]))


@pytest.mark.parametrize("name", ["a.jsonl", "a.json", "a.csv", "a.txt"])
def test_a_record_without_an_end_is_refused_before_it_fills_the_memory(
    tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(records, "LONGEST", 2**20)
    start = {"a.jsonl": b'{"prompt": "', "a.json": b'[{"prompt": "', "a.csv": b'prompt\n"', "a.txt": b""}[name]
    path = tmp_path / name
    with path.open("wb") as file:
        file.write(start)
        for _ in range(40):
            file.write(b"word " * 2**18)
    with pytest.raises(BadInput, match=r"longer than 1 MB|no CSV|no JSON"):
        read(path)
