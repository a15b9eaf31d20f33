"""What an endpoint received, over real sockets, beside what was ordered."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from pacemark.endpoint.target import target
from pacemark.errors import BadInput
from pacemark.figures.level import LevelResult
from pacemark.pace import Concurrency, Load
from pacemark.runs.bench import Bench
from pacemark.scenario import Settings, Workload
from pacemark.summary import Traffic
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
