"""The real engine that other tests measure: it starts, streams and counts right, seen through plain http.client."""

from __future__ import annotations

import http.client
import json
import socket
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

from support.llama_server import MODEL, llama_server, server_counters, write_tiny_llama

Event = dict[str, Any]


def ask(base_url: str, path: str, **fields: Any) -> list[Event]:
    """Stream one answer, all at once, and give its events without the closing [DONE]."""
    url = urlsplit(base_url)
    connection = http.client.HTTPConnection(str(url.hostname), url.port, timeout=60)
    body = {"model": MODEL, "stream": True, "stream_options": {"include_usage": True}, **fields}
    connection.request("POST", url.path + path, json.dumps(body), {"Content-Type": "application/json"})
    answer = connection.getresponse()
    assert answer.status == 200
    assert answer.headers["Content-Type"] == "text/event-stream"
    lines = [line for line in answer.read().decode().split("\n") if line]
    connection.close()
    assert lines.pop() == "data: [DONE]"
    return [json.loads(line.removeprefix("data: ")) for line in lines]


def chat(base_url: str, text: str, **fields: Any) -> list[Event]:
    return ask(base_url, "/chat/completions", messages=[{"role": "user", "content": text}], **fields)


def complete(base_url: str, text: str, **fields: Any) -> list[Event]:
    return ask(base_url, "/completions", prompt=text, **fields)


def test_chat_opens_with_a_role_and_ends_with_usage_and_timings(llama: str) -> None:
    events = chat(llama, "how many people", max_tokens=12, ignore_eos=True, temperature=0)
    deltas = [event["choices"][0]["delta"] for event in events[:-1]]
    assert deltas[0] == {"role": "assistant", "content": None}
    assert all(delta["content"] for delta in deltas[1:-1])
    assert deltas[-1] == {}
    assert events[-2]["choices"][0]["finish_reason"] == "length"
    last = events[-1]
    assert last["choices"] == []
    assert last["usage"]["completion_tokens"] == last["timings"]["predicted_n"] == 12
    assert last["timings"]["prompt_ms"] > 0
    assert last["timings"]["predicted_ms"] > 0


def test_completions_end_with_an_empty_text_that_carries_usage(llama: str) -> None:
    events = complete(llama, "how many people", max_tokens=12, ignore_eos=True)
    assert events[-1]["choices"][0]["text"] == ""
    assert events[-1]["choices"][0]["finish_reason"] == "length"
    assert events[-1]["usage"]["completion_tokens"] == 12
    assert events[-1]["usage"]["prompt_tokens"] == 1 + len(["how", "many", "people"])


def test_usage_agrees_with_the_counters_over_parallel_requests(llama: str) -> None:
    before = server_counters(llama)
    asked = [8 + 3 * i for i in range(12)]

    def one(i: int) -> Event:
        send = chat if i % 2 else complete
        return send(llama, f"{i} people call " * (i + 1), max_tokens=asked[i], ignore_eos=True)[-1]

    with ThreadPoolExecutor(len(asked)) as pool:
        usages = [event["usage"] for event in pool.map(one, range(len(asked)))]
    after = server_counters(llama)
    grown = {name: after[name] - before[name] for name in after}

    assert [usage["completion_tokens"] for usage in usages] == asked
    assert grown["tokens_predicted_total"] == sum(asked)
    cached = sum(usage["prompt_tokens_details"]["cached_tokens"] for usage in usages)
    assert grown["prompt_tokens_cached_total"] == cached
    assert grown["prompt_tokens_total"] == sum(usage["prompt_tokens"] for usage in usages) - cached
    # Batched: with each request on its own, every token would have been a step.
    assert grown["n_decode_total"] < sum(asked)


def test_one_event_can_carry_several_tokens(llama: str) -> None:
    counts = []
    for seed in range(8):
        events = complete(llama, "people call", max_tokens=120, ignore_eos=True, timings_per_token=True, seed=seed)
        said = [0, *(event["timings"]["predicted_n"] for event in events)]
        counts += [later - earlier for earlier, later in pairwise(said)]
        assert said[-1] == events[-1]["usage"]["completion_tokens"] == 120
    assert sum(counts) == 8 * 120
    assert max(counts) > 1


@pytest.mark.slow
def test_an_answer_ends_early_unless_told_not_to(llama: str) -> None:
    for forced in (False, True):
        lasts = [complete(llama, "day", max_tokens=300, ignore_eos=forced, seed=seed)[-1] for seed in range(10)]
        reasons = {last["choices"][0]["finish_reason"] for last in lasts}
        counts = [last["usage"]["completion_tokens"] for last in lasts]
        if forced:
            assert reasons == {"length"}
            assert counts == [300] * 10
        else:
            assert "stop" in reasons
            assert min(counts) < 300


def test_it_leaves_nothing_behind(tmp_path: Path) -> None:
    model = tmp_path / "a model.gguf"
    write_tiny_llama(model)
    with llama_server(model, slots=1) as base_url:
        assert complete(base_url, "the", max_tokens=1)[-1]["usage"]["completion_tokens"] == 1
    url = urlsplit(base_url)
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection((str(url.hostname), int(url.port or 0)), timeout=5)


def test_a_server_that_cannot_start_says_why(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError, match=r"missing\.gguf"), llama_server(tmp_path / "missing.gguf"):
        pytest.fail("it started without a model")


def test_the_seed_decides_the_weights(tmp_path: Path) -> None:
    files = [tmp_path / name for name in ("one", "same", "other")]
    for path, seed in zip(files, (0, 0, 1), strict=True):
        write_tiny_llama(path, seed)
    one, same, other = (path.read_bytes() for path in files)
    assert one == same
    assert one != other
