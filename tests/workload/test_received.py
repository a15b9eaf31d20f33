"""What an endpoint received, over real sockets, beside what was ordered."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from pacemark.endpoint.target import target
from pacemark.errors import BadInput
from pacemark.figures.level import LevelResult
from pacemark.pace import Concurrency, Load
from pacemark.runs.bench import Bench
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
