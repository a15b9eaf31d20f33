"""What a prompt cache should have known, against an engine that has one."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import msgspec
import numpy as np
import pytest

from pacemark.figures.caching import cached_of, counted_share, expected_tokens, ready
from pacemark.figures.health import Health
from pacemark.figures.level import LevelResult, sum_up
from pacemark.pace import Concurrency, Rate
from pacemark.simulator.engine.engine import EngineSpec
from pacemark.simulator.engine.presets import named
from pacemark.simulator.engine.virtual import Recorded, simulate
from pacemark.summary import Cached, Traffic
from pacemark.trace import Sight, Trace, Watch, Window


def caching(**more: Any) -> Any:
    """The demo's engine with a prefix cache."""
    preset = named("demo")
    assert isinstance(preset.timeline, EngineSpec)
    return msgspec.structs.replace(preset, timeline=msgspec.structs.replace(preset.timeline, prefix_cache=True, **more))


def level_of(trace: Trace, begin_s: float, end_s: float, watch: Watch | None = None) -> LevelResult:
    window = Window(int(begin_s * 1e9), int(end_s * 1e9))
    return sum_up(Concurrency(8), trace, window, Health(), watch=watch)


@pytest.mark.parametrize("zipf", [0.0, 1.0])
@pytest.mark.parametrize("load", [Concurrency(8), Rate(20.0)], ids=str)
def test_the_expected_share_of_groups_is_the_engines_own(load: Any, zipf: float) -> None:
    trace = simulate(
        load,
        caching(),
        input_tokens=(1000, 0.5),
        output_tokens=8,
        requests=600,
        shared_tokens=600,
        groups=10,
        zipf=zipf,
    )
    assert set(trace.origin.tolist()) == set(range(1, 11))
    for first in (0, 100):  # with the cold ones, and without them
        good = np.arange(len(trace)) >= first
        found = cached_of(trace, good)
        assert found is not None
        assert found.usage is not None
        own = trace.cached_tokens[good].sum() / trace.input_tokens[good].sum()
        assert found.expected == pytest.approx(own, abs=0.01)
        assert found.usage == pytest.approx(own)
        assert found.state == "warm"


@pytest.mark.parametrize("load", [Concurrency(8), Rate(10.0)], ids=str)
def test_the_expected_share_of_conversations_is_the_engines_own(load: Any) -> None:
    trace = simulate(load, caching(), input_tokens=(400, 0.5), output_tokens=16, requests=600, turns=4, think_s=0.5)
    assert set(trace.turn.tolist()) == {0, 1, 2, 3}
    found = cached_of(trace, np.ones(len(trace), dtype=np.bool_))
    assert found is not None
    assert found.usage is not None
    assert 0.4 < found.expected == pytest.approx(found.usage, abs=0.01)


@pytest.mark.parametrize("speed", [1.0, 3.0])
def test_the_expected_share_of_recorded_blocks_is_the_engines_own(speed: float) -> None:
    rng, at_ns, fresh, rows = np.random.default_rng(5), 0, 100, []
    for _ in range(600):
        at_ns += int(rng.exponential(4e8))
        tokens = int(rng.integers(600, 3000))
        blocks = -(-tokens // 512)
        own = blocks - min(blocks, int(rng.integers(1, 4)))
        opening = tuple(10 * int(rng.zipf(1.8) % 7) + n for n in range(blocks - own))
        rows.append(Recorded(at_ns, tokens, int(rng.integers(4, 20)), (*opening, *range(fresh, fresh + own)), 512))
        fresh += own
    trace = simulate(Rate(1.0, "trace", speed=speed), caching(), recorded=rows)
    assert len(trace) == 600
    assert trace.scheduled_ns.tolist() == [round(row.at_ns / speed) for row in rows]
    assert trace.input_tokens.tolist() == [row.input_tokens for row in rows]
    assert trace.asked_tokens.tolist() == [row.output_tokens for row in rows]
    found = cached_of(trace, np.ones(len(trace), dtype=np.bool_))
    assert found is not None
    assert found.usage is not None
    assert 0.2 < found.expected == pytest.approx(found.usage, abs=0.01)


def test_nothing_is_expected_of_a_group_before_its_first_answer() -> None:
    trace = simulate(Concurrency(4), caching(), input_tokens=1000, requests=60, shared_tokens=640, groups=3)
    begun = trace.hi_ns[trace.offsets[:-1]]
    for i in range(len(trace)):
        before = (trace.origin == trace.origin[i]) & (begun < trace.sent_ns[i])
        assert ready(trace)[i] == before.any()
    assert (expected_tokens(trace) == np.where(ready(trace), 640, 0)).all()
    # What an earlier level has sent is known from the start.
    assert ready(replace(trace, known_origins=trace.origins())).all()


def test_a_level_says_what_became_of_its_cache() -> None:
    warm = simulate(Concurrency(8), caching(), input_tokens=1000, output_tokens=8, requests=400, shared_tokens=600)
    end_s = warm.sent_ns[-1] / 1e9
    result = level_of(warm, end_s / 2, end_s)
    assert isinstance(result.level.traffic, Traffic)
    assert isinstance(result.level.traffic.cached, Cached)
    assert result.level.traffic.cached.state == "warm"
    assert result.level.traffic.cached.server is None
    told = {r.code: r.message for r in result.level.verdict.reasons}
    assert "the cache was warm: 60.0% of the input is to be expected from it; it was 59.2% by usage" in told["cache"]
    assert not told.keys() & {"cached_prompts", "mixed_cache"}

    few = simulate(
        Concurrency(8), caching(), input_tokens=1000, output_tokens=8, requests=60, shared_tokens=600, groups=60
    )
    (mixed,) = [r for r in level_of(few, 0, few.sent_ns[-1] / 1e9).level.verdict.reasons if r.code == "mixed_cache"]
    assert "add --prime, or run longer" in mixed.message

    none = simulate(Concurrency(8), "demo", input_tokens=1000, output_tokens=8, requests=400, shared_tokens=600)
    (said,) = [r for r in level_of(none, end_s / 2, end_s).level.verdict.reasons if r.code == "cache"]
    assert "it was 0.0% by usage; the server gave prefixes up" in said.message

    # More than was shared is in the cache: somebody has sent these prompts before.
    known = replace(warm, cached_tokens=warm.cached_tokens + 160)
    (found,) = [r for r in level_of(known, end_s / 2, end_s).level.verdict.reasons if r.code == "cached_prompts"]
    assert found.message.startswith("the server took 1")


def test_the_servers_counters_are_read_between_two_looks() -> None:
    def look(hits: float, asked: float, name: str = "vllm:prefix_cache") -> Sight:
        return Sight(0, metrics={f"{name}_hits_total": hits, f"{name}_queries_total": asked, "other": 1.0})

    assert counted_share((look(100, 1000), look(400, 1500), look(700, 2000))) == pytest.approx(0.6)
    assert counted_share((look(100, 1000),)) is None
    assert counted_share((look(100, 1000), look(100, 1000))) is None
    assert counted_share((Sight(0, metrics={"a": 1.0}), Sight(1, metrics={"a": 2.0}))) is None
