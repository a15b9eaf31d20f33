"""pacemark against a real engine: llama.cpp's server over a tiny model with random weights."""

from __future__ import annotations

import json
import re
import sqlite3
from pathlib import Path

import numpy as np
import pytest

import pacemark
from pacemark.dialects.reading import understand
from pacemark.trace import Exchange, RawExchange
from support.llama_server import server_counters

pytestmark = pytest.mark.xdist_group("llama")


@pytest.mark.parametrize("api", ["chat", "completions"])
def test_token_counts_are_the_servers_to_the_token(llama: str, tmp_path: Path, api: str) -> None:
    """Every request is on record, probes and late ones included, so the sums must agree exactly."""
    before = server_counters(llama)
    run = pacemark.sweep(
        llama, api=api, concurrency=[1, 4], input_tokens=48, output_tokens=24, duration=1.0, seed=1, out=tmp_path
    )
    after = server_counters(llama)
    with sqlite3.connect(run.path / "run.db") as db:
        asked, answered = db.execute("SELECT sum(input_tokens), sum(output_tokens) FROM request").fetchone()
        sources = {row[0] for row in db.execute("SELECT DISTINCT tokens_source FROM request")}
        failed = db.execute("SELECT count(*) FROM request WHERE error != ''").fetchone()[0]
    grown = {name: after[name] - before.get(name, 0.0) for name in after}
    assert failed == 0
    assert sources == {"usage"}
    assert answered == grown["tokens_predicted_total"]
    assert asked == grown["prompt_tokens_total"] + grown.get("prompt_tokens_cached_total", 0.0)
    for level in run.levels:
        assert level.output_tokens == 24
        assert level.input_tokens == pytest.approx(48, rel=0.1)
        assert level.output_tokens_per_s.value is not None


def test_ttft_is_the_servers_own_plus_transport(llama: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The server says how long each prompt took; one request at a time waits for nothing else."""
    transport_ms: list[float] = []

    def listen(raw: RawExchange, *rest: object) -> Exchange:
        exchange = understand(raw)
        found = re.search(rb'"timings":(\{[^}]*\})', raw.body)
        if raw.level == 0 and found and not exchange.error:
            ttft_ms = (int(exchange.hi_ns[0]) - exchange.sent_ns) / 1e6
            transport_ms.append(ttft_ms - float(json.loads(found[1])["prompt_ms"]))
        return exchange

    monkeypatch.setattr("pacemark.runs.bench.understand", listen)
    pacemark.run(llama, concurrency=1, input_tokens=48, output_tokens=24, duration=2.0, seed=2, out=tmp_path)
    assert len(transport_ms) >= 5
    assert -0.5 < np.median(transport_ms) < 15.0
