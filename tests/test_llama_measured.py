"""pacemark against a real engine: llama.cpp's server over a tiny model with random weights."""

from __future__ import annotations

import asyncio
import json
import re
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import uvloop

import pacemark
from pacemark.content import JsonAnswers, ToolCalls
from pacemark.dialects.dialect import DIALECTS, fill, first_options, template
from pacemark.dialects.reading import understand
from pacemark.endpoint.address import Address
from pacemark.endpoint.target import resolve, target
from pacemark.instrument.answer import Answer
from pacemark.instrument.opening import opened
from pacemark.metered import Server, ServerRun
from pacemark.reporting.content import content_in_words
from pacemark.trace import ABSENT, RawExchange
from pacemark.workload.words import prompt
from support.llama_server import MODEL, llama_server, server_counters, write_tiny_llama, write_tiny_ranker

pytestmark = pytest.mark.xdist_group("llama")


@pytest.mark.parametrize("api", ["chat", "completions", "responses", "messages"])
@pytest.mark.slow
def test_token_counts_are_the_servers_to_the_token(llama: str, tmp_path: Path, api: str) -> None:
    """Every request is on record, probes and late ones included, so the sums must agree exactly."""
    before = server_counters(llama)
    run = pacemark.sweep(
        llama, api=api, concurrency=[1, 4], input_tokens=48, output_tokens=24, duration=1.0, seed=1, out=tmp_path
    )
    after = server_counters(llama)
    with sqlite3.connect(run.path / "run.db") as db:
        answered = db.execute("SELECT sum(output_tokens) FROM request").fetchone()[0]
        asked, counted = db.execute("SELECT sum(input_tokens), count(*) FROM request WHERE input_tokens > 0").fetchone()
        uncounted = db.execute("SELECT count(*) FROM request").fetchone()[0] - counted
        sources = {row[0] for row in db.execute("SELECT DISTINCT tokens_source FROM request")}
        # An answer of a token or two may be a part of a character, of which nothing is sent.
        failures = "SELECT count(*) FROM request WHERE error != '' AND NOT (error = 'empty' AND output_tokens <= 2)"
        failed = db.execute(failures).fetchone()[0]
    grown = {name: after[name] - before.get(name, 0.0) for name in after}
    assert failed == 0
    assert sources == {"usage"}
    assert answered == grown["tokens_predicted_total"]
    # Where an answer begins within a character, llama.cpp (2026-10) leaves out the event that counts a Message's input:
    # that is unknown then, and the rest of the server's sum is theirs. No prompt has fewer tokens than the salt.
    missing = grown["prompt_tokens_total"] + grown.get("prompt_tokens_cached_total", 0.0) - asked
    assert missing >= 10 * uncounted if uncounted else missing == 0
    assert uncounted <= (counted / 2 if api == "messages" else 0)
    for level in run.levels:
        assert level.output_tokens == pytest.approx(24, abs=24 * level.requests.short / level.requests.in_window)
        assert level.input_tokens == pytest.approx(48, rel=0.1)
        assert level.output_tokens_per_s.value is not None


def test_the_input_of_messages_is_what_the_server_counts_beforehand(llama: str) -> None:
    place = target(llama, model="tiny", api="messages")
    form = template(DIALECTS["messages"], place.model, first_options(DIALECTS["messages"]), {})
    agreed = 0
    for index in range(8):
        body = fill(form, prompt(5, 0, index, 30 + index), 6)
        requests = [
            b"%b%d\r\n\r\n%b" % (place.head(path), len(body), body) for path in ("/messages", "/messages/count_tokens")
        ]
        answer, counted = (ask(resolve(place)[0], request)[0] for request in requests)
        exchange = understand(as_raw(answer), "messages")
        # Its Messages know no ignore_eos: an answer may end at once.
        assert exchange.error in ("", "empty")
        assert 1 <= exchange.output_tokens <= 6
        if exchange.input_tokens != ABSENT:
            assert exchange.input_tokens == json.loads(counted.body)["input_tokens"]
            agreed += 1
    assert agreed >= 4


def test_ttft_is_the_servers_own_plus_transport(llama: str) -> None:
    """The server says how long each prompt took; one request at a time waits for nothing else."""
    place = target(llama, model="tiny")
    form = template(DIALECTS["chat"], place.model, first_options(DIALECTS["chat"], True, True), {})
    transport_ms: list[float] = []
    for index in range(8):
        body = fill(form, prompt(2, 0, index, 40), 24)
        request = b"%b%d\r\n\r\n%b" % (place.head("/chat/completions"), len(body), body)
        (answer,) = ask(resolve(place)[0], request)
        exchange = understand(as_raw(answer), "chat")
        assert not exchange.error
        found = re.search(rb'"timings":(\{[^}]*\})', answer.body)
        assert found
        ttft_ms = (int(exchange.hi_ns[0]) - exchange.sent_ns) / 1e6
        transport_ms.append(ttft_ms - float(json.loads(found[1])["prompt_ms"]))
    assert -0.5 < np.median(transport_ms) < 15.0


def ask(place: Address, *requests: bytes) -> list[Answer]:
    """The answers to `requests`, over one connection of the measured path."""

    async def work() -> list[Answer]:
        connection = await opened(asyncio.get_running_loop(), place, 20.0)
        answers = [await connection.request(data, 20.0) for data in requests]
        connection.close()
        return answers

    return uvloop.run(work())


def as_raw(answer: Answer) -> RawExchange:
    times: Any = {name: getattr(answer, name) for name in ("first_byte_sent_ns", "sent_ns", "headers_ns", "ended_ns")}
    numbers: Any = {"level": 0, "index": 0, "stream": 0, "send_ns": 0, "connect_ns": ABSENT, "asked_tokens": 24}
    said: Any = {
        "streamed": True,
        "encoding": "",
        "error": answer.error,
        "detail": answer.detail,
        "status": answer.status,
    }
    return RawExchange(
        scheduled_ns=answer.sent_ns, **times, **numbers, **said, reads=answer.reads.tobytes(), body=answer.body
    )


def test_client_and_server_agree_to_the_token_and_in_ttft_to_the_transport(llama: str, tmp_path: Path) -> None:
    run = pacemark.run(
        llama, model=MODEL, concurrency=3, input_tokens=40, output_tokens=16, duration=1.5, metrics="auto", out=tmp_path
    )
    whole = run.summary.server
    assert isinstance(whole, ServerRun)
    assert whole.engines == ["llama.cpp"]
    counts = {check.what: check for check in whole.checks}
    assert counts["input_tokens"].agrees is True, counts
    assert counts["output_tokens"].agrees is True, counts
    server = run.levels[0].server
    assert isinstance(server, Server)
    phases = server.phases
    # Three streams on four slots: nobody waits, so that TTFT is prefill and what lies between.
    assert phases.queue_ms == 0
    assert phases.prefill_ms is not None
    assert phases.network_ms is not None
    assert phases.network_ms >= -1.0
    ((agrees, client_ms),) = [(c.agrees, c.client) for c in server.checks if c.what == "request_ttft_ms"]
    assert agrees is True  # by the timings that each answer holds
    assert client_ms == pytest.approx(phases.prefill_ms + phases.network_ms + (phases.client_ms or 0.0))


@pytest.fixture(scope="module")
def ranker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Base URL of a llama.cpp server that judges documents."""
    model = tmp_path_factory.mktemp("ranker") / "tiny.gguf"
    write_tiny_ranker(model)
    with llama_server(model, ranks=True) as base_url:
        yield base_url


@pytest.mark.slow
def test_every_document_that_llama_ranks_is_counted(ranker: str, tmp_path: Path) -> None:
    before = server_counters(ranker)
    run = pacemark.sweep(
        ranker, api="rerank", concurrency=[1, 4], input_tokens=400, documents=5, duration=1.0, seed=1, out=tmp_path
    )
    grown = server_counters(ranker)["prompt_tokens_total"] - before["prompt_tokens_total"]
    with sqlite3.connect(run.path / "run.db") as db:
        failed, marks, asked, counted = db.execute(
            "SELECT sum(error != ''), sum(output_tokens), sum(input_tokens), count(*) FROM request"
        ).fetchone()
    assert (failed, marks, asked) == (0, 5 * counted, grown)
    for level in run.levels:
        assert not level.errors
        assert level.input_tokens == pytest.approx(400, rel=0.1)
        assert level.output_tokens == 5
        rate, documents = level.requests_per_s.value, level.output_tokens_per_s.value
        assert rate is not None
        assert documents == pytest.approx(5 * rate, rel=0.05)


@pytest.mark.slow
def test_an_api_that_llama_has_not_is_refused_in_one_line(ranker: str, tmp_path: Path) -> None:
    with pytest.raises(pacemark.BadInput, match=r"404.*--api"):
        pacemark.run(ranker, model=MODEL, api="score", concurrency=1, duration=1, out=tmp_path)


@pytest.fixture(scope="module")
def caller(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Base URL of a llama.cpp server whose model calls tools."""
    model = tmp_path_factory.mktemp("caller") / "tiny.gguf"
    write_tiny_llama(model, calls=True)
    with llama_server(model) as base_url:
        yield base_url


SCHEMA = {
    "type": "object",
    "properties": {"on": {"type": "boolean"}, "room": {"enum": ["hall", "attic"]}},
    "required": ["on", "room"],
    "additionalProperties": False,
}
"""All that it allows is finite, so that weights at random, held to it, must come to an end."""


def tools(folder: Path) -> Path:
    path = folder / "tools.json"
    path.write_text(json.dumps([{"type": "function", "function": {"name": "switch", "parameters": SCHEMA}}]))
    return path


@pytest.mark.parametrize("api", ["chat", "responses", "messages"])
@pytest.mark.slow
def test_the_tool_that_llama_calls_is_timed_to_its_first_piece_and_its_last(
    caller: str, tmp_path: Path, api: str
) -> None:
    run = pacemark.run(
        caller, api=api, concurrency=2, input_tokens=300, output_tokens=200, duration=2.0, seed=1, out=tmp_path,
        tools=tools(tmp_path), tool_choice="required", ignore_eos=False,
    )  # fmt: skip
    (level,) = run.levels
    assert not level.errors
    calls = level.tool_calls
    assert isinstance(calls, ToolCalls)
    assert calls.requests == calls.calls == level.requests.in_window > 0
    assert (calls.malformed, calls.cut_off) == (0, 0)
    first, complete = calls.first_byte_ms.mean.value, calls.complete_ms.mean.value
    assert first is not None
    assert complete is not None
    assert level.ttft_ms.mean.value is not None
    assert level.latency_ms.mean.value is not None
    assert level.ttft_ms.mean.value <= first < complete <= level.latency_ms.mean.value
    assert any(line.startswith(f"{calls.calls:,} tool calls in") for line in content_in_words(level))


@pytest.mark.slow
def test_calls_of_llama_that_are_cut_off_are_told_as_such(caller: str, tmp_path: Path) -> None:
    run = pacemark.run(
        caller, concurrency=2, input_tokens=300, output_tokens=20, duration=2.0, seed=1, out=tmp_path,
        tools=tools(tmp_path), tool_choice="required",
    )  # fmt: skip
    calls = run.levels[0].tool_calls
    assert isinstance(calls, ToolCalls)
    assert calls.malformed == calls.cut_off == calls.calls == calls.requests > 0


@pytest.mark.slow
def test_llama_answers_in_json_of_a_schema(llama: str, tmp_path: Path) -> None:
    (tmp_path / "schema.json").write_text(json.dumps(SCHEMA))
    run = pacemark.run(
        llama, concurrency=2, input_tokens=48, output_tokens=200, duration=1.0, seed=1, out=tmp_path,
        response_format=tmp_path / "schema.json",
    )  # fmt: skip
    (level,) = run.levels
    assert not level.errors
    answers = level.json_answers
    assert isinstance(answers, JsonAnswers)
    assert answers.checked == level.requests.in_window > 0
    assert (answers.malformed, answers.cut_off) == (0, 0)
    assert "short_answers" not in {reason.code for reason in level.verdict.reasons}
