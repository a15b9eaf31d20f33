"""The engine against its own theory, and against the plain rules it claims to follow."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pacemark.errors import BadInput
from pacemark.pace import Concurrency, Rate
from pacemark.simulator import PRESETS, Engine, EngineSpec, Preset, Speculation, customised, named, simulate
from pacemark.simulator.engine.engine import EngineStep, Finished
from pacemark.simulator.engine.theory import capacity
from support.sampled import first

SPEC = EngineSpec(base_ms=8.0, per_decode_ms=0.05, per_prefill_token_ms=0.025, max_batch=48, token_budget=2048)


@dataclass
class Run:
    """A closed loop on a bare engine: no time passes between an answer and the next request."""

    end_ms: np.ndarray
    first_ms: np.ndarray
    sent_ms: np.ndarray
    prompt: np.ndarray
    output: np.ndarray
    chunks: np.ndarray
    steps: list[EngineStep]
    step_end_ms: np.ndarray
    engine: Engine


Draw = Callable[[int], tuple[int, int]]
"""Prompt and output tokens of the request of that number."""


def closed_loop(spec: EngineSpec, streams: int, requests: int, draw: Draw, *, stagger: int = 7) -> Run:
    """`streams` streams, one more joining every `stagger` steps; ends when `requests` were answered."""
    engine = Engine(spec)
    sent: dict[int, float] = {}
    first: dict[int, float] = {}
    end: dict[int, float] = {}
    chunks: dict[int, int] = {}
    lengths: list[tuple[int, int]] = []
    steps: list[EngineStep] = []
    times: list[float] = []
    clock = 0.0

    def send() -> None:
        prompt, output = draw(len(lengths))
        sent[len(lengths)] = clock
        engine.submit(len(lengths), prompt, output)
        lengths.append((prompt, output))

    send()
    joined = 1
    while len(end) < requests:
        if joined < streams and len(steps) >= joined * stagger:
            send()
            joined += 1
        step = engine.step()
        assert step is not None
        clock += step.duration_ns / 1e6
        steps.append(step)
        times.append(clock)
        for id in step.ids:
            first.setdefault(id, clock)
        for done in step.finished:
            end[done.id] = clock
            chunks[done.id] = done.chunks
            send()
    ids = sorted(end)
    return Run(
        end_ms=np.array([end[i] for i in ids]),
        first_ms=np.array([first[i] for i in ids]),
        sent_ms=np.array([sent[i] for i in ids]),
        prompt=np.array([lengths[i][0] for i in ids]),
        output=np.array([lengths[i][1] for i in ids]),
        chunks=np.array([chunks[i] for i in ids]),
        steps=steps,
        step_end_ms=np.array(times),
        engine=engine,
    )


def lengths(seed: int, prompt: float = 300, output: float = 80, cv: float = 0.6) -> Draw:
    """Lognormal prompts and exponential-like outputs, drawn ahead so that a request's lengths depend on its number."""
    rng = np.random.default_rng(seed)
    sigma = np.sqrt(np.log1p(cv**2))
    prompts = np.clip(rng.lognormal(np.log(prompt) - sigma**2 / 2, sigma, 60_000), 1, 4000).astype(int)
    outputs = np.clip(rng.exponential(output, 60_000), 1, 2000).astype(int)
    return lambda i: (int(prompts[i]), int(outputs[i]))


def steady(run: Run, skip: float = 0.1) -> tuple[np.ndarray, float]:
    """Requests that ended inside the window, and its length in seconds."""
    ordered = np.sort(run.end_ms)
    start, stop = ordered[int(skip * len(ordered))], ordered[-1]
    inside = (run.end_ms > start) & (run.end_ms <= stop)
    return inside, (stop - start) / 1e3


@pytest.mark.parametrize("streams", first(2, [4, 64, 1, 8, 32, 48, 100]))
def test_request_rate_is_the_closed_form(streams: int) -> None:
    run = closed_loop(SPEC, streams, 1000 if streams == 1 else 6000, lengths(streams))
    inside, seconds = steady(run)
    theory = capacity(SPEC, streams, run.prompt[inside], run.output[inside], run.chunks[inside])
    assert np.count_nonzero(inside) / seconds == pytest.approx(theory.requests_per_s, rel=0.005)
    window = run.step_end_ms > np.sort(run.end_ms)[int(0.1 * len(run.end_ms))]
    mean_step = np.mean([s.duration_ns for s, keep in zip(run.steps, window, strict=True) if keep]) / 1e6
    assert mean_step == pytest.approx(theory.step_ms, rel=0.005)


def test_resident_tokens_cost_what_the_closed_form_says() -> None:
    spec = EngineSpec(base_ms=8, per_decode_ms=0.05, per_prefill_token_ms=0.02, per_kv_token_ms=0.0005, max_batch=32)
    run = closed_loop(spec, 32, 6000, lengths(5, prompt=200))
    inside, seconds = steady(run)
    theory = capacity(spec, 32, run.prompt[inside], run.output[inside], run.chunks[inside])
    without = capacity(
        EngineSpec(base_ms=8, per_decode_ms=0.05, per_prefill_token_ms=0.02, max_batch=32),
        32, run.prompt[inside], run.output[inside], run.chunks[inside],
    )  # fmt: skip
    assert np.count_nonzero(inside) / seconds == pytest.approx(theory.requests_per_s, rel=0.005)
    assert theory.requests_per_s < 0.85 * without.requests_per_s


def test_littles_law() -> None:
    run = closed_loop(SPEC, 40, 6000, lengths(2))
    inside, seconds = steady(run)
    rate = np.count_nonzero(inside) / seconds
    latency_s = float(np.mean(run.end_ms[inside] - run.sent_ms[inside])) / 1e3
    assert rate * latency_s == pytest.approx(40, rel=0.005)


@pytest.mark.slow(shared=True)
def test_tpot_is_linear_in_concurrency() -> None:
    levels = np.array([1, 8, 24, 40, 48])
    measured, expected = [], []
    for streams in levels:
        run = closed_loop(SPEC, int(streams), 1500, lengths(11))
        inside, _ = steady(run)
        decoding = inside & (run.output > 1)
        measured.append(np.sum((run.end_ms - run.first_ms)[decoding]) / np.sum(run.output[decoding] - 1))
        theory = capacity(SPEC, int(streams), run.prompt[inside], run.output[inside], run.chunks[inside])
        expected.append(theory.tpot_ms)
    assert measured == pytest.approx(expected, rel=0.005)
    line = np.polyval(np.polyfit(levels, measured, 1), levels)
    assert measured == pytest.approx(line, rel=0.01)


def test_a_full_kv_cache_bounds_the_rate() -> None:
    spec = EngineSpec(
        base_ms=8, per_decode_ms=0.02, per_prefill_token_ms=0.01, max_batch=512, token_budget=4096,
        kv_blocks=4_000, block_tokens=16, reserve_output=True,
    )  # fmt: skip
    run = closed_loop(spec, 400, 20_000, lengths(3, prompt=150, output=60, cv=0.3), stagger=1)
    inside, seconds = steady(run)
    bound = capacity(spec, 400, run.prompt[inside], run.output[inside], run.chunks[inside])
    assert bound.in_batch < 300, "the cache, not the batch, must be what binds"
    rate = np.count_nonzero(inside) / seconds
    assert 0.995 * bound.requests_per_s < rate < 1.002 * bound.requests_per_s
    assert run.engine.preemptions == 0


def drain(engine: Engine) -> list[EngineStep]:
    """Steps until nothing is left."""
    steps = []
    while step := engine.step():
        steps.append(step)
        assert len(steps) < 100_000
    return steps


def finish_order(steps: list[EngineStep]) -> list[int]:
    return [done.id for step in steps for done in step.finished]


def finished(steps: list[EngineStep]) -> dict[int, Finished]:
    return {done.id: done for step in steps for done in step.finished}


def produced(steps: list[EngineStep]) -> Counter[int]:
    total: Counter[int] = Counter()
    for step in steps:
        for id, count in zip(step.ids, step.tokens, strict=True):
            total[id] += count
    return total


def test_one_request_alone_takes_its_prefill_and_its_decodes() -> None:
    engine = Engine(EngineSpec(base_ms=10, per_decode_ms=1, per_prefill_token_ms=0.1, per_kv_token_ms=0.01))
    engine.submit(7, 100, 3)
    steps = drain(engine)
    assert [s.duration_ns for s in steps] == [20_000_000, 12_000_000, 12_010_000]
    assert [s.ids for s in steps] == [[7], [7], [7]]
    assert finish_order(steps) == [7]


def test_a_long_prompt_is_prefilled_in_chunks_beside_decoding() -> None:
    engine = Engine(EngineSpec(base_ms=1, per_decode_ms=0, per_prefill_token_ms=0.01, max_batch=8, token_budget=100))
    engine.submit(0, 10, 20)
    engine.step()
    engine.submit(1, 250, 2)
    steps = drain(engine)
    assert [s.prefill_tokens for s in steps[:4]] == [99, 99, 52, 0]
    assert [s.ids for s in steps[:4]] == [[0], [0], [1, 0], [0, 1]]
    assert finished(steps)[1].chunks == 3


def test_first_come_first_served_within_the_batch_limit() -> None:
    engine = Engine(EngineSpec(base_ms=1, per_decode_ms=0, per_prefill_token_ms=0, max_batch=2))
    for id in range(5):
        engine.submit(id, 10, 4)
    first = engine.step()
    assert first is not None
    assert first.ids == [0, 1]
    assert (engine.running, engine.waiting) == (2, 3)
    assert finish_order(drain(engine)) == [0, 1, 2, 3, 4]


def test_preemption_recomputes_the_youngest_and_loses_no_token() -> None:
    spec = EngineSpec(base_ms=1, per_decode_ms=0, per_prefill_token_ms=0.01, kv_blocks=8, block_tokens=10, max_batch=8)
    engine = Engine(spec)
    engine.submit(0, 35, 25)  # grows to 59 tokens: 6 blocks
    engine.submit(1, 35, 25)
    steps = drain(engine)
    assert produced(steps) == {0: 25, 1: 25}
    assert finish_order(steps) == [0, 1]
    assert finished(steps)[1].preemptions == 1
    assert finished(steps)[0].preemptions == 0
    # 35 tokens of prompt, and the 6 answered before the cache was full, are computed again.
    assert sum(s.prefill_tokens for s in steps) == 35 + 35 + 41
    assert engine.pool.used == 0


def test_a_request_that_cannot_ever_fit_is_refused() -> None:
    engine = Engine(EngineSpec(base_ms=1, per_decode_ms=0, per_prefill_token_ms=0, kv_blocks=4, block_tokens=16))
    with pytest.raises(BadInput, match="64 tokens"):
        engine.submit(0, 60, 5)
    engine.submit(1, 60, 4)
    assert finish_order(drain(engine)) == [1]


def test_cancel_frees_the_place_wherever_the_request_is() -> None:
    engine = Engine(
        EngineSpec(base_ms=1, per_decode_ms=0, per_prefill_token_ms=0, max_batch=2, token_budget=50, kv_blocks=64)
    )
    for id, prompt in enumerate((10, 200, 30)):
        engine.submit(id, prompt, 8)
    engine.step()  # 0 decodes, 1 is half prefilled, 2 waits
    for id in (0, 1, 99):
        engine.cancel(id)
    assert (engine.running, engine.waiting, engine.pool.used) == (0, 1, 0)
    steps = drain(engine)
    assert produced(steps) == {2: 8}
    assert steps[0].resident_tokens == 0


def test_shared_prompt_blocks_are_not_computed_again() -> None:
    spec = EngineSpec(
        base_ms=1, per_decode_ms=0, per_prefill_token_ms=0.01, kv_blocks=20, block_tokens=16, prefix_cache=True
    )
    engine = Engine(spec)
    engine.submit(0, 100, 4, ["a", "b", "c", "d", "e", "f"])
    drain(engine)
    assert engine.pool.used == 0
    engine.submit(1, 100, 4, ["a", "b", "c", "x", "y", "z"])
    engine.submit(2, 96, 4, ["a", "b", "c", "d", "e", "f"])
    steps = drain(engine)
    # The block that holds the last prompt token is always computed.
    assert {id: done.cached_tokens for id, done in finished(steps).items()} == {1: 48, 2: 80}
    assert steps[0].prefill_tokens == 52 + 16
    assert steps[0].resident_tokens == 48 + 80


def test_cached_blocks_give_way_to_live_requests_oldest_first() -> None:
    spec = EngineSpec(
        base_ms=1, per_decode_ms=0, per_prefill_token_ms=0.01, kv_blocks=10, block_tokens=16, prefix_cache=True
    )
    engine = Engine(spec)
    engine.submit(0, 65, 1, ["a1", "a2", "a3", "a4"])
    drain(engine)
    engine.submit(1, 65, 1, ["b1", "b2", "b3", "b4"])
    drain(engine)
    engine.submit(2, 80, 2, ())  # needs 6 of the 10 blocks, so 4 of the 8 cached ones go
    drain(engine)
    engine.submit(3, 65, 1, ["a1", "a2", "a3", "a4"])
    engine.submit(4, 65, 1, ["b1", "b2", "b3", "b4"])
    assert {id: done.cached_tokens for id, done in finished(drain(engine)).items()} == {3: 0, 4: 64}


def test_without_prefix_cache_hashes_are_ignored() -> None:
    engine = Engine(EngineSpec(base_ms=1, per_decode_ms=0, per_prefill_token_ms=0.01))
    for id in range(2):
        engine.submit(id, 64, 2, ["a", "b", "c", "d"])
        assert finished(drain(engine))[id].cached_tokens == 0


def test_speculation_yields_the_expected_tokens_per_step() -> None:
    speculation = Speculation(drafts=4, acceptance=0.7)
    spec = EngineSpec(base_ms=10, per_decode_ms=0.1, per_prefill_token_ms=0, speculation=speculation, max_batch=64)
    engine = Engine(spec, seed=3)
    for id in range(50):
        engine.submit(id, 20, 401)
    steps = drain(engine)
    decoded = sum(sum(s.tokens) for s in steps) - 50
    # Answers end inside a run of accepted tokens, which costs a fraction of one step each.
    assert decoded / sum(s.decoding for s in steps) == pytest.approx(speculation.expected_tokens(), rel=0.02)
    assert speculation.expected_tokens() == pytest.approx((1 - 0.7**5) / 0.3)
    assert set(produced(steps).values()) == {401}
    assert max(max(s.tokens) for s in steps) == 5


def test_drafts_cost_time_and_budget() -> None:
    plain = EngineSpec(base_ms=10, per_decode_ms=0.1, per_prefill_token_ms=0, max_batch=4, token_budget=100)
    drafts = EngineSpec(
        base_ms=10, per_decode_ms=0.1, per_prefill_token_ms=0, max_batch=4, token_budget=100,
        speculation=Speculation(drafts=3, acceptance=0.0, per_draft_ms=0.2),
    )  # fmt: skip
    durations = []
    for spec in (plain, drafts):
        engine = Engine(spec)
        engine.submit(0, 10, 5)
        engine.step()
        engine.submit(1, 200, 1)
        step = engine.step()
        assert step is not None
        durations.append((step.duration_ns, step.prefill_tokens))
    assert durations == [(10_100_000, 99), (10_700_000, 96)]


@pytest.mark.parametrize(
    "wrong",
    [
        {"base_ms": -1.0},
        {"base_ms": 0.0, "per_decode_ms": 0.0},
        {"max_batch": 0},
        {"kv_blocks": 0},
        {"max_batch": 64, "token_budget": 64},
        {"max_batch": 64, "token_budget": 200, "speculation": Speculation(drafts=3, acceptance=0.5)},
    ],
)
def test_impossible_engines_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(BadInput):
        EngineSpec(**({"base_ms": 1.0, "per_decode_ms": 0.1, "per_prefill_token_ms": 0.1} | wrong))


requests = st.lists(
    st.tuples(st.integers(1, 90), st.integers(1, 40), st.integers(0, 3), st.booleans()), min_size=1, max_size=30
)


@given(requests, st.integers(1, 6), st.integers(9, 40), st.booleans(), st.sampled_from([None, 2]), st.booleans())
def test_whatever_is_asked_nothing_is_lost(
    asked: list[tuple[int, int, int, bool]], batch: int, blocks: int, cache: bool, drafts: int | None, reserve: bool
) -> None:
    """Every request that is not cancelled gets all its tokens, within batch, budget and cache, and all is freed."""
    spec = EngineSpec(
        base_ms=1, per_decode_ms=0.1, per_prefill_token_ms=0.01, max_batch=batch, token_budget=32, kv_blocks=blocks,
        block_tokens=16, prefix_cache=cache, reserve_output=reserve,
        speculation=Speculation(drafts, 0.6) if drafts else None,
    )  # fmt: skip
    engine = Engine(spec)
    steps: list[EngineStep] = []
    cancelled: set[int] = set()
    for id, (prompt, output, pause, cancel) in enumerate(asked):
        engine.submit(id, prompt, output, [f"{prompt % 3}/{i}" for i in range(prompt // 16)])
        for _ in range(pause):
            if step := engine.step():
                steps.append(step)
        if cancel and id % 3 == 0:
            cancelled.add(id // 2)
            engine.cancel(id // 2)
    for step in drain(engine):
        steps.append(step)
        assert step.decoding * spec.tokens_per_decode + step.prefill_tokens <= spec.token_budget
        assert step.decoding + step.prefilling <= spec.max_batch
        assert engine.pool.used <= spec.kv_blocks
        assert cache or step.resident_tokens <= spec.kv_tokens
    done = finish_order(steps)
    assert len(done) == len(set(done))
    assert set(range(len(asked))) - cancelled <= set(done)
    total = produced(steps)
    assert all(total[id] == asked[id][1] for id in done)
    assert engine.pool.used == 0
    assert (engine.running, engine.waiting) == (0, 0)


def test_virtual_time_agrees_with_the_closed_form() -> None:
    preset = named("demo")
    assert isinstance(preset.timeline, EngineSpec)
    for streams in (1, 8, 32, 64):
        trace = simulate(Concurrency(streams), preset, duration_s=120, turnaround_ms=0)
        inside = (trace.ended_ns > 20e9) & (trace.ended_ns <= 120e9)
        theory = capacity(preset.timeline, streams, 256, 64)
        assert np.count_nonzero(inside) / 100 == pytest.approx(theory.requests_per_s, rel=0.02)
        window = (trace.hi_ns > 20e9) & (trace.hi_ns <= 120e9)
        assert trace.tokens[window].sum() / 100 == pytest.approx(theory.output_tokens_per_s, rel=0.005)


def test_the_demo_curve_has_a_knee() -> None:
    rates, latencies = [], []
    for streams in (1, 2, 4, 8, 16, 32, 64):
        trace = simulate(Concurrency(streams), "demo", duration_s=30)
        rates.append(trace.tokens[(trace.hi_ns > 5e9) & (trace.hi_ns <= 30e9)].sum() / 25)
        latencies.append(float(np.mean(trace.ended_ns - trace.sent_ns)) / 1e9)
    assert 0.5 < latencies[0] < 0.8
    assert latencies[3] < 1.2 * latencies[0]
    assert rates[3] > 7 * rates[0]
    assert rates[6] < 1.05 * rates[5]
    assert 1.8 * latencies[5] < latencies[6] < 1.8


def test_no_request_of_the_trace_is_cut_short() -> None:
    trace = simulate(Concurrency(16), "demo", output_tokens=(64, 1.0), duration_s=5)
    assert trace.sent_ns.max() < 5e9 < trace.ended_ns.max()
    assert np.array_equal(np.diff(trace.offsets), trace.output_tokens)
    assert np.all(trace.ended_ns == trace.hi_ns[trace.offsets[1:] - 1])
    assert np.all(np.diff(trace.sent_ns) >= 0)
    # The load was held on: near the end of the window the batch is as full as in the middle.
    in_flight = [np.count_nonzero((trace.sent_ns <= t) & (trace.ended_ns > t)) for t in (2.5e9, 4.99e9)]
    assert in_flight == [16, 16]


def test_a_trace_of_exactly_so_many_requests() -> None:
    for load in (Concurrency(8), Rate(12.0)):
        trace = simulate(load, "demo", requests=100)
        assert len(trace) == 100
        assert np.all(trace.ended_ns > trace.sent_ns)


def test_lengths_are_as_asked() -> None:
    trace = simulate(Concurrency(32), "llama-8b-h100", input_tokens=(500, 0.8), output_tokens=(40, 0.3), requests=4000)
    assert np.mean(trace.input_tokens) == pytest.approx(500, rel=0.04)
    assert np.std(trace.input_tokens) == pytest.approx(400, rel=0.1)
    assert np.mean(trace.output_tokens) == pytest.approx(40, rel=0.02)
    again = simulate(
        Concurrency(4), "demo", input_tokens=lambda rng, n: rng.integers(5, 8, n), output_tokens=3, requests=50
    )
    assert set(again.input_tokens.tolist()) == {5, 6, 7}


def test_a_shared_prefix_shortens_the_first_token() -> None:
    preset = customised(named("demo"), {"prefix_cache": True})
    cold, warm = (simulate(Concurrency(1), preset, input_tokens=512, requests=20, shared_tokens=s) for s in (0, 400))
    assert set(cold.cached_tokens.tolist()) == {0}
    assert cold.cached_tokens[0] == warm.cached_tokens[0] == 0
    assert set(warm.cached_tokens[1:].tolist()) == {400}
    saved_ms = ((cold.answer_ns - cold.sent_ns) - (warm.answer_ns - warm.sent_ns)) / 1e6
    assert saved_ms[1:] == pytest.approx(400 * 0.0155)


def test_the_same_seed_gives_the_same_trace_and_another_does_not() -> None:
    preset = customised(named("demo"), {"speculation": {"drafts": 2, "acceptance": 0.5}})
    first, again, other = (
        simulate(Rate(10.0), preset, output_tokens=(64, 0.5), duration_s=20, seed=seed) for seed in (1, 1, 2)
    )
    assert np.array_equal(first.hi_ns, again.hi_ns)
    assert np.array_equal(first.tokens, again.tokens)
    assert len(first) != len(other) or not np.array_equal(first.hi_ns, other.hi_ns)


def test_two_levels_ask_for_the_same_requests() -> None:
    low, high = (simulate(Concurrency(c), "demo", output_tokens=(64, 0.5), requests=200) for c in (2, 16))
    assert np.array_equal(low.output_tokens, high.output_tokens)


def test_open_loop_keeps_its_schedule_even_when_overloaded() -> None:
    trace = simulate(Rate(80.0), "demo", duration_s=10)  # twice what it can serve
    assert len(trace) == pytest.approx(800, abs=120)
    assert np.array_equal(trace.scheduled_ns, trace.sent_ns)
    latency = trace.ended_ns - trace.sent_ns
    assert latency[-50:].mean() > 5 * latency[:50].mean()
    assert trace.sent_ns.max() < 10e9


def test_the_fixed_timeline_does_not_depend_on_load() -> None:
    preset = customised(named("fixed"), {"ttft_ms": 120, "itl_ms": 7.5})
    for streams in (1, 200):
        trace = simulate(Concurrency(streams), preset, output_tokens=10, duration_s=2)
        assert set((trace.answer_ns - trace.sent_ns).tolist()) == {120_000_000}
        assert set((trace.ended_ns - trace.sent_ns).tolist()) == {120_000_000 + 9 * 7_500_000}


def test_prefill_and_queueing_are_in_the_first_token() -> None:
    trace = simulate(Concurrency(1), "demo", input_tokens=512, duration_s=5)
    ttft_ms = (trace.answer_ns - trace.sent_ns) / 1e6
    assert ttft_ms == pytest.approx(8.8 + 512 * 0.0155)


@pytest.mark.parametrize("name", list(PRESETS))
def test_every_preset_serves_a_request_each_way(name: str) -> None:
    for load in (Concurrency(2), Rate(2.0)):
        trace = simulate(load, name, input_tokens=100, output_tokens=8, requests=4)
        assert len(trace) == 4
        assert np.all(trace.output_tokens == 8)


@pytest.mark.parametrize(
    ("call", "says"),
    [
        (lambda: simulate(Concurrency(0), "demo"), "concurrency"),
        (lambda: simulate(Rate(0.0), "demo"), "rate"),
        (lambda: simulate(Concurrency(1), "no-such"), "llama-8b-h100"),
        (lambda: simulate(Concurrency(1), "demo", output_tokens=0), "at least 1"),
        (lambda: simulate(Concurrency(1), "demo", duration_s=0), "duration_s"),
        (lambda: simulate(Concurrency(1), "cpu-1b", input_tokens=20_000), "16384"),
        (lambda: customised(named("demo"), {"speed": 2}), "max_batch"),
        (lambda: customised(named("demo"), {"max_batch": "many"}), "max_batch"),
        (lambda: customised(named("fixed"), {"itl_ms": -1}), "negative"),
    ],
)
def test_bad_input_is_named(call: Callable[[], object], says: str) -> None:
    with pytest.raises(BadInput, match=says):
        call()


def test_presets_survive_json() -> None:
    for preset in PRESETS.values():
        assert msgspec.json.decode(msgspec.json.encode(preset), type=Preset) == preset
