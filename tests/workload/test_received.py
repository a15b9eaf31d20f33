"""What an endpoint received, over real sockets, beside what was ordered."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pacemark.endpoint.target import target
from pacemark.errors import BadInput
from pacemark.figures.level import LevelResult
from pacemark.pace import Concurrency, Load, Rate
from pacemark.runs.bench import Bench
from pacemark.runs.priming import refuse_conversation
from pacemark.scenario import Settings, Workload
from pacemark.simulator import serving
from pacemark.summary import Cached, Traffic
from support.cli_tools import Asked, Reply, prompt_tokens, server, streamed


def measured(
    workload: Workload, load: Load, reply: Callable[[Asked], Reply], *, workers: int = 1, duration_s: float = 1.0
) -> LevelResult:
    """One level against a server that answers by `reply`."""
    settings = Settings(duration_s=duration_s, workers=workers, timeout_s=20.0)
    with server(reply) as url, Bench(target(url, model="m"), workload, settings) as bench:
        bench.prepare()
        result = bench.measure(load)
        bench.finish()
    return result


@pytest.mark.slow(shared=True)
def test_each_request_has_the_lengths_that_were_drawn_for_it() -> None:
    seen: list[tuple[int, int]] = []

    def reply(asked: Asked) -> Reply:
        seen.append((prompt_tokens(asked), asked.body["max_tokens"]))
        return streamed(asked, asked.body["max_tokens"])

    workload = Workload("lognormal(60, cv=0.8, max=300)", "uniform(3, 30)", 5)
    result = measured(workload, Concurrency(3), reply, workers=2)
    trace, level = result.trace, result.level
    assert len(trace) > 100
    assert np.unique(trace.asked_input).size > 20
    assert set(zip(trace.input_tokens.tolist(), trace.asked_tokens.tolist(), strict=True)) <= set(seen)
    assert trace.input_tokens == pytest.approx(np.maximum(trace.asked_input, 1), abs=1)
    later = trace.index >= 6  # the first answers of a stream are cut short
    assert (trace.output_tokens == trace.asked_tokens)[later].all()
    assert isinstance(level.traffic, Traffic)
    assert level.traffic.counted_input.mean == pytest.approx(level.traffic.asked_input.mean, abs=1)
    assert level.traffic.counted_output == level.traffic.asked_output
    assert not {"input_length", "short_answers", "longer_than_asked"} & {r.code for r in level.verdict.reasons}


def test_a_prompt_that_is_too_long_is_refused_before_any_level() -> None:
    def reply(asked: Asked) -> Reply:
        if prompt_tokens(asked) > 250:
            return Reply(400, b'{"error": {"message": "the context has 250 tokens"}}')
        return streamed(asked)

    with pytest.raises(
        BadInput, match=r"refuses a prompt of 1,\d+ tokens, which .* the context has 250 tokens; set a lower"
    ):
        measured(Workload("lognormal(60, cv=2)", 8, 5), Concurrency(1), reply)


def prompts_of(seen: list[Asked]) -> list[str]:
    return [asked.body["messages"][-1]["content"] for asked in seen]


@pytest.mark.slow(shared=True)
def test_prompts_of_a_group_open_alike_and_of_another_do_not() -> None:
    seen: list[Asked] = []

    def reply(asked: Asked) -> Reply:
        seen.append(asked)
        return streamed(asked)

    workload = Workload(40, 8, 5, prefix_tokens=60, prefix_groups=4, prefix_zipf=1.0, prime=True)
    result = measured(workload, Concurrency(2), reply)
    trace = result.trace
    texts = [text for text in prompts_of(seen) if len(text.split()) == 100]
    groups = Counter(" ".join(text.split()[:60]) for text in texts)
    assert len(groups) == 4
    assert len({text.split()[0] for text in groups}) == 4
    assert len({text.split()[60] for text in texts}) == len(texts)  # a salt of its own
    shares = [n / len(texts) for _, n in groups.most_common()]
    assert shares == pytest.approx([0.48, 0.24, 0.16, 0.12], abs=0.12)
    assert sum(groups.values()) >= len(trace)
    assert (trace.asked_input == 100).all()
    assert (trace.input_tokens == 100).all()
    first = [text for text in prompts_of(seen) if len(text.split()) == 61]  # the primers
    assert {" ".join(text.split()[:60]) for text in first} == set(groups)
    assert trace.known_origins == frozenset(range(4))


def test_a_system_prompt_opens_every_request(tmp_path: Path) -> None:
    file = tmp_path / "system.txt"
    file.write_text('Answer "briefly".\nSei höflich.')
    seen: list[Asked] = []

    def reply(asked: Asked) -> Reply:
        seen.append(asked)
        words = sum(len(m["content"].split()) for m in asked.body["messages"])
        told = b'"prompt_tokens": %d' % prompt_tokens(asked)
        return Reply(200, streamed(asked).body.replace(told, b'"prompt_tokens": %d' % words), "text/event-stream")

    result = measured(Workload(30, 8, 5, system_prompt=str(file)), Concurrency(1), reply)
    later = [asked for asked in seen if len(asked.body["messages"]) == 2]
    assert len(seen) - len(later) == 1  # one of the first questions tells what it costs
    assert {asked.body["messages"][0]["content"] for asked in later} == {file.read_text()}
    assert {asked.body["messages"][0]["role"] for asked in later} == {"system"}
    assert (result.trace.input_tokens == 34).all()
    assert (result.trace.asked_input == 34).all()
    assert (result.trace.shared_tokens == 4).all()


def test_the_embedded_endpoints_cache_is_as_expected() -> None:
    workload = Workload("lognormal(400, cv=0.5)", 6, 5, prefix_tokens=800, prefix_groups=5, prefix_zipf=1.0, prime=True)
    settings = Settings(duration_s=3.0, timeout_s=20.0)
    with (
        serving("demo", prefix_cache=True) as served,
        Bench(target(served.url, model=served.model), workload, settings) as bench,
    ):
        bench.prepare()
        level = bench.measure(Concurrency(4)).level
        bench.finish()
    assert isinstance(level.traffic, Traffic)
    cached = level.traffic.cached
    assert isinstance(cached, Cached)
    assert cached.state == "warm"
    assert cached.usage == pytest.approx(cached.expected, abs=0.012)  # whole blocks of 16 tokens
    assert level.traffic.counted_input.mean == pytest.approx(level.traffic.asked_input.mean, rel=0.01)
    codes = {r.code for r in level.verdict.reasons}
    assert "cache" in codes
    assert not codes & {"cached_prompts", "mixed_cache", "input_length"}


# --- conversations


def conversing(workload: Workload, load: Load, **more: Any) -> tuple[LevelResult, list[list[dict[str, str]]]]:
    """A level of conversations, and the messages of each request after the first questions, in order."""
    seen: list[list[dict[str, str]]] = []

    def reply(asked: Asked) -> Reply:
        messages = asked.body["messages"]
        seen.append(messages)
        words = sum(len(m["content"].split()) for m in messages)
        told = b'"prompt_tokens": %d' % prompt_tokens(asked)
        body = streamed(asked, asked.body["max_tokens"]).body
        return Reply(200, body.replace(told, b'"prompt_tokens": %d' % words), "text/event-stream")

    return measured(workload, load, reply, **more), seen


@pytest.mark.parametrize("history", ["served", "recorded"])
@pytest.mark.parametrize("load", [Concurrency(2), Rate(80.0)], ids=str)
def test_a_turn_holds_all_that_was_said_before(load: Load, history: Any) -> None:
    result, seen = conversing(Workload(30, "uniform(4, 12)", 5, turns=3, history=history), load)
    sessions: dict[str, list[list[dict[str, str]]]] = {}
    for messages in seen:
        sessions.setdefault(messages[0]["content"].split()[0], []).append(messages)
    whole = [turns for turns in sessions.values() if len(turns) == 3]
    assert len(whole) > 10
    assert max(map(len, sessions.values())) == 3
    for turns in whole:
        assert [len(messages) for messages in turns] == [1, 3, 5]
        assert turns[1] == turns[2][:3]
        assert turns[0] == turns[1][:1]
        assert [m["role"] for m in turns[2]] == ["user", "assistant", "user", "assistant", "user"]
        answers = [m["content"] for m in turns[2][1::2]]
        assert all(text.startswith("word0 word1") == (history == "served") for text in answers)
    trace = result.trace
    assert set(trace.turn.tolist()) == {0, 1, 2}
    assert trace.asked_input == pytest.approx(trace.input_tokens, abs=1)
    later = trace.turn > 0
    assert (trace.shared_tokens[later] > 25).all()
    assert (trace.shared_tokens[~later] == 0).all()
    assert isinstance(result.level.traffic, Traffic)
    assert isinstance(result.level.traffic.turns, list)
    assert [turns.which for turns in result.level.traffic.turns] == ["first", "later"]


@pytest.mark.slow(shared=True)
def test_concurrency_counts_sessions_or_requests() -> None:
    by_session, _ = conversing(
        Workload(20, 4, 5, turns=3, think_time_s=0.2, concurrency_of="sessions"), Concurrency(2), duration_s=2.0
    )
    by_request, _ = conversing(Workload(20, 4, 5, turns=3, think_time_s=0.2), Concurrency(2), duration_s=2.0)
    for result in (by_session, by_request):
        assert (result.trace.turn > 0).any()
    trace = by_session.trace
    for stream in range(2):
        mine = np.flatnonzero(trace.stream == stream)
        rests = (trace.sent_ns[mine][1:] - trace.ended_ns[mine][:-1]) / 1e9
        thinks = trace.turn[mine][1:] > 0
        assert (rests[thinks] >= 0.19).all()
        assert np.median(rests[~thinks]) < 0.1
        assert trace.turn[mine].tolist()[:6] == [0, 1, 2, 0, 1, 2]
    assert len(by_request.trace) > 3 * len(trace)  # nobody is silent


def test_a_turn_that_fails_ends_its_session() -> None:
    def reply(asked: Asked) -> Reply:
        if len(asked.body["messages"]) == 3 and asked.number % 2:
            return Reply(500, b'{"error": {"message": "no luck"}}')
        return streamed(asked)

    trace = measured(Workload(20, 8, 5, turns=2), Rate(60.0), reply).trace
    assert set(trace.turn.tolist()) == {0, 1}
    assert set(trace.error[trace.turn == 1].tolist()) == {"", "http_500"}


def test_an_api_without_messages_has_no_conversations() -> None:
    with pytest.raises(BadInput, match="--turns needs an API of messages, which completions is not"):
        refuse_conversation(Workload(20, 8, 5, turns=3), b'{"prompt":"@prompt@"}', "completions")


def test_the_embedded_endpoint_takes_conversations() -> None:
    workload = Workload(300, 8, 5, turns=4, history="recorded")
    settings = Settings(duration_s=3.0, timeout_s=20.0)
    with (
        serving("demo", prefix_cache=True) as served,
        Bench(target(served.url, model=served.model), workload, settings) as bench,
    ):
        bench.prepare()
        level = bench.measure(Concurrency(4)).level
        bench.finish()
    assert isinstance(level.traffic, Traffic)
    assert isinstance(level.traffic.cached, Cached)
    assert level.traffic.cached.expected == pytest.approx(0.59, abs=0.08)  # (0 + 300 + 600 + 900) / 3,000
    assert level.traffic.cached.usage == pytest.approx(level.traffic.cached.expected, abs=0.03)
    assert not {"cached_prompts", "input_length"} & {r.code for r in level.verdict.reasons}
