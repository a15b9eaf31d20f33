"""What a file holds, against files whose lengths, sessions, prefixes and arrivals were chosen."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import pacemark
from pacemark.answers.datafile import PIECE, _Distinct
from pacemark.errors import BadInput
from pacemark.reporting.datafile import export_sql, markdown_of
from support.cli_tools import pacemark as command


def moon(at: float, tokens: int, ids: list[int], out: int = 10) -> dict[str, Any]:
    return {"timestamp": at, "input_length": tokens, "output_length": out, "hash_ids": ids}


def test_lengths() -> None:
    random = np.random.default_rng(3)
    asked = np.maximum(1, random.lognormal(6, 1, 5000)).astype(int)
    spread = pacemark.data([{"prompt": "x", "input_tokens": int(n), "output_tokens": 7} for n in asked]).input_tokens
    assert spread is not None
    assert (spread.rows, spread.max) == (5000, asked.max())
    assert spread.mean == pytest.approx(asked.mean())
    assert spread.cv == pytest.approx(asked.std(ddof=1) / asked.mean())
    for q, value in ((50, spread.p50), (95, spread.p95), (99, spread.p99)):
        assert value == np.percentile(asked, q, method="inverted_cdf")


def test_a_cache_without_end_hits_the_blocks_that_were_there_before() -> None:
    rows = [moon(0, 1100, [0, 1, 2]), moon(1, 1536, [0, 1, 3]), moon(2, 1024, [0, 4]), moon(3, 512, [9])]
    prefix = pacemark.data(rows).prefix
    assert prefix is not None
    assert prefix.by == "blocks of 512 tokens"
    assert prefix.block_hit_rate == pytest.approx(3 / 9)
    assert prefix.hit_rate == pytest.approx(3 * 512 / (1100 + 1536 + 1024 + 512))


def test_text_that_begins_alike_is_found() -> None:
    common, other = "system " * 64, "another " * 64  # 7 and 8 pieces
    rows = [{"prompt": f"{common if k % 4 else other}{k:064d}"} for k in range(100)]
    prefix = pacemark.data(rows).prefix
    assert prefix is not None
    sizes = [len(row["prompt"]) for row in rows]
    first_seen = len(common) + len(other) + 100 * 64
    assert prefix.hit_rate == pytest.approx(1 - first_seen / sum(sizes))
    assert PIECE == 64
    alone = pacemark.data([{"prompt": f"{k:064d} alone"} for k in range(50)]).prefix
    assert alone is not None
    assert alone.hit_rate == 0
    chats = [{"messages": [{"role": "user", "content": f"{common} {k:064d}"}]} for k in range(2)]
    chatted = pacemark.data(chats).prefix
    assert chatted is not None
    assert chatted.hit_rate == pytest.approx(512 / (2 * len(f"user\n{common} {0:064d}\n")))


def test_of_very_many_blocks_a_sample_tells(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_Distinct, "MOST", 1000)
    rows = [moon(k, 512 * 40, [10**6 + k // 2 * 40 + j for j in range(40)]) for k in range(2000)]
    prefix = pacemark.data(rows).prefix
    assert prefix is not None
    assert prefix.hit_rate == pytest.approx(0.5, abs=0.04)
    assert prefix.block_hit_rate == pytest.approx(0.5, abs=0.04)


def test_sessions_and_turns() -> None:
    rows: list[dict[str, Any]] = [{"prompt": "x", "session_id": f"s{k}"} for k in range(10) for _ in range(k)]
    sessions = pacemark.data([*rows, {"prompt": "x", "session_id": None}]).sessions
    assert sessions is not None
    assert (sessions.sessions, sessions.turns_mean, sessions.turns_max, sessions.alone) == (9, 5.0, 9, 1)


@pytest.mark.parametrize(("shape", "cv"), [(1.0, 1.0), (0.25, 2.0)])
def test_arrivals(shape: float, cv: float) -> None:
    random = np.random.default_rng(5)
    at = np.cumsum(random.gamma(shape, 0.2 / shape, 20_000))
    arrivals = pacemark.data([{"prompt": "x", "timestamp": t} for t in at.tolist()], unit="s").arrivals
    assert arrivals is not None
    gaps = np.diff(at)
    assert arrivals.per_s == pytest.approx(1 / gaps.mean())
    assert arrivals.gap_cv == pytest.approx(gaps.std() / gaps.mean(), rel=1e-6)
    assert arrivals.gap_cv == pytest.approx(cv, rel=0.06)
    assert arrivals.gap_max_s == pytest.approx(gaps.max())
    assert arrivals.quantum_ms is None
    assert pacemark.data([{"prompt": "x", "timestamp": t} for t in (3, 1, 2)], unit="s").arrivals is None


@pytest.mark.slow(shared=True)
def test_the_command_tells_it_as_markdown_and_as_json(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    rows = [moon(3000 * (k // 5), 600, [0, 10 + k % 3], out=k % 9) for k in range(100)]
    path.write_text("\n".join(map(json.dumps, rows)))
    told = command("data", path)
    assert told.returncode == 0, told.stderr
    assert told.stdout.startswith(f"# {path}\n\n- 88 rows of Mooncake\n")
    assert "- 12 rows left out, row 1 first: 0 output tokens: it failed or was cut off" in told.stdout
    assert "| input tokens | 88 | 600 | 600 | 600 | 600 | 600 | 0.00 |" in told.stdout
    assert "- times: in steps of 3.00 s" in told.stdout
    found = json.loads(command("data", path, "--json").stdout)
    assert found["found"]["quantum_ms"] == 3000.0
    assert found["output_tokens"]["max"] == 8
    assert told.stdout.rstrip() == markdown_of(pacemark.data(path), str(path))
    refused = command("data", path, "--block-tokens", "64")
    assert refused.returncode == 2
    assert refused.stderr.strip() == (
        f"pacemark: {path}: row 2: 2 hash_ids do not cover 600 tokens in blocks of 64; blocks of 512 would: "
        "--block-tokens 512"
    ).replace("row 2", "row 1")


@pytest.mark.slow(shared=True)
def test_nothing_that_was_asked_is_told(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    rows = [{"prompt": "my secret", "system": "my secret", "session_id": f"my secret {k}"} for k in range(30)]
    path.write_text("\n".join(map(json.dumps, rows)))
    for words in ((), ("--json",)):
        told = command("data", path, *words)
        assert told.returncode == 0, told.stderr
        assert "secret" not in told.stdout + told.stderr


def test_databricks_is_asked_by_sql_that_is_printed() -> None:
    told = command("data", "databricks:chat-a", "--days", "3", "--table", "main.logs.chat_payload")
    assert told.returncode == 0, told.stderr
    assert told.stdout.strip() == export_sql("chat-a", 3, "main.logs.chat_payload")
    for part in (
        "FROM `main`.`logs`.`chat_payload`",
        "endpoint_name = 'chat-a'",
        "INTERVAL 3 DAYS",
        "current_date(), 3",
    ):
        assert part in told.stdout
    assert "<catalog>.<schema>.<prefix>_payload" in export_sql("chat-a", 7)
    assert "'system.ai.claude-sonnet-4-5' IN (endpoint_name, service_name)" in export_sql(
        "system.ai.claude-sonnet-4-5", 7
    )
    for endpoint, days, table in (
        ("a'; DROP", 7, ""),
        ("", 7, ""),
        ("a", 0, ""),
        ("a", 7, "one.two"),
        ("a", 7, "a.b.`c"),
    ):
        with pytest.raises(BadInput):
            export_sql(endpoint, days, table)


COLUMNS = {
    "<prefix>_payload": "request_date databricks_request_id client_request_id request_time status_code "
    "sampling_fraction execution_duration_ms request response served_entity_id logging_error_codes requester",
    "endpoint_usage": "account_id workspace_id client_request_id databricks_request_id requester status_code "
    "request_time input_token_count output_token_count input_character_count output_character_count usage_context "
    "request_streaming served_entity_id",
    "served_entities": "served_entity_id account_id workspace_id created_by endpoint_name endpoint_id "
    "served_entity_name entity_type entity_name entity_version endpoint_config_version task change_time",
    "usage": "account_id workspace_id request_id schema_version endpoint_id endpoint_name endpoint_tags "
    "endpoint_metadata event_time latency_ms time_to_first_byte_ms destination_type destination_name destination_id "
    "destination_model requester requester_type ip_address url user_agent api_type request_tags input_tokens "
    "output_tokens total_tokens token_details response_content_type status_code routing_information invocation_id "
    "invocation_metadata service_type service_id service_name service_tags",
}
"""Of the tables, as "Model Serving system tables reference", "Model usage for Unity AI Gateway services" and "Monitor
served models using AI Gateway-enabled inference tables" (docs.databricks.com, 2026) have them."""


def test_the_sql_asks_for_columns_that_are_documented() -> None:
    """And for those by which a file is known for what it is."""
    *queries, rest = re.sub(r"--.*|'[^']*'", " ", export_sql("chat-a", 7)).split(";")
    assert not rest
    for query, must in zip(
        queries,
        (
            {"request", "status_code", "request_time"},
            {"request_time", "input_token_count", "output_token_count"},
            {"event_time", "input_tokens", "output_tokens"},
        ),
        strict=True,
    ):
        tables = re.findall(r"(?:FROM|JOIN)\s+\S*\.(\S+?)\)?(?=\s)", query)
        known = set(" ".join(COLUMNS[table] for table in tables).split())
        words = set(re.findall(r"\b[a-z]\w*\b(?!\s*[.(])", re.sub(r"(?:FROM|AS)\s+\S+", " ", query)))
        assert words <= known, words - known
        assert must <= words
