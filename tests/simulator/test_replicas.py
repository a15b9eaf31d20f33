"""Replicas behind a router, and their number following the load."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from pacemark.errors import BadInput
from pacemark.pace import Concurrency, Rate
from pacemark.simulator import Engine, EngineSpec, Preset, customised, named, simulate
from pacemark.simulator.engine.model import Job, Replica
from pacemark.simulator.engine.presets import build
from pacemark.simulator.engine.replicas import Router, Scaling
from pacemark.trace import Trace

SPEC = EngineSpec(base_ms=10, per_decode_ms=0.5, per_prefill_token_ms=0.01, max_batch=16)


def fleet(**scaling: Any) -> Router:
    return Router(Scaling(**scaling), lambda n, at: Replica(Engine(SPEC, seed=n), ready_ns=at), SPEC.max_batch)


def scaled(**scaling: Any) -> Preset:
    return customised(named("demo"), {"scaling": scaling})


def rate(trace: Trace, start_s: float, end_s: float) -> float:
    """Output tokens per second between two times."""
    inside = (trace.hi_ns > start_s * 1e9) & (trace.hi_ns <= end_s * 1e9)
    return float(trace.tokens[inside].sum() / (end_s - start_s))


def test_four_replicas_serve_four_times_the_load() -> None:
    one = simulate(Concurrency(16), "demo", duration_s=30)
    four = simulate(Concurrency(64), customised(named("demo"), {"replicas": 4}), duration_s=30)
    assert rate(four, 5, 30) == pytest.approx(4 * rate(one, 5, 30), rel=0.02)
    latency = [np.mean(t.ended_ns - t.sent_ns) for t in (one, four)]
    assert latency[1] == pytest.approx(latency[0], rel=0.02)


def test_a_request_goes_to_the_replica_with_least_to_do() -> None:
    two = fleet(min_replicas=2, max_replicas=2)
    for id in range(6):
        two.submit(Job(id, 0, 10, 5 if id % 2 else 50))
    for _ in range(14):  # Until the three short answers on the second replica are done.
        two.advance()
    assert two.occupancy(0).running == 3
    # The first replica still has three, so the next three go to the second.
    for id in range(6, 9):
        two.submit(Job(id, 200_000_000, 10, 5))
    assert [r.outstanding for _, r in two._replicas] == [3, 3]


def test_cancelling_reaches_the_right_replica() -> None:
    two = fleet(min_replicas=2, max_replicas=2)
    for id in range(4):
        two.submit(Job(id, 0, 10, 50))
    for id in (0, 2, 77):
        two.cancel(id)
    ids = set()
    while two.due_ns() is not None:
        ids |= {done.id for done in two.advance().finished}
    assert ids == {1, 3}


def test_scale_out_lifts_the_rate_in_the_middle_of_a_run() -> None:
    preset = scaled(min_replicas=1, max_replicas=3, cold_start_s=20, check_s=5)
    trace = simulate(Concurrency(48), preset, duration_s=60)
    alone = simulate(Concurrency(48), "demo", duration_s=20)
    assert rate(trace, 5, 20) == pytest.approx(rate(alone, 5, 20), rel=0.02)
    assert rate(trace, 40, 60) > 1.7 * rate(trace, 5, 20)


def test_the_history_says_when_replicas_came() -> None:
    preset = scaled(min_replicas=1, max_replicas=3, cold_start_s=20, check_s=5)
    model = build(preset)
    assert isinstance(model, Router)
    for id in range(48):
        model.submit(Job(id, id * 100_000_000, 256, 4000))
    while (due := model.due_ns()) is not None and due < 40e9:
        model.advance()
    times, counts = zip(*model.history, strict=True)
    assert counts == (1, 2, 3)
    # Decided at a check, served a cold start later.
    assert all((t / 1e9 - 20) % 5 == 0 for t in times[1:])
    assert model.occupancy(int(due or 0)).replicas == 3


def test_strategies_differ_in_how_early_they_scale() -> None:
    rates = {}
    for strategy in ("latency", "balanced", "throughput"):
        preset = scaled(min_replicas=1, max_replicas=8, cold_start_s=5, check_s=5, strategy=strategy)
        trace = simulate(Concurrency(28), preset, duration_s=40)
        late = trace.sent_ns > 25e9
        rates[strategy] = (rate(trace, 25, 40), float(np.mean((trace.ended_ns - trace.sent_ns)[late])))
    assert rates["latency"][0] > rates["balanced"][0] > rates["throughput"][0]
    assert rates["latency"][1] < rates["balanced"][1] < rates["throughput"][1]


def test_scale_to_zero_makes_the_first_request_wait() -> None:
    preset = scaled(min_replicas=0, max_replicas=1, cold_start_s=12, check_s=5, idle_s=30)
    trace = simulate(Rate(1 / 100, "constant"), preset, duration_s=450)
    alone = simulate(Concurrency(1), "demo", requests=1)
    warm_s = float(alone.ended_ns[0] - alone.sent_ns[0]) / 1e9
    # 100 s apart and gone after 30: each finds nothing there.
    assert (trace.ended_ns - trace.sent_ns) / 1e9 == pytest.approx(12 + warm_s)
    often = simulate(Rate(1 / 20, "constant"), preset, duration_s=200)
    latency_s = (often.ended_ns - often.sent_ns) / 1e9
    assert latency_s[0] == pytest.approx(12 + warm_s)
    assert latency_s[1:] == pytest.approx(warm_s)


def test_replicas_go_when_the_load_has_gone() -> None:
    model = fleet(min_replicas=1, max_replicas=3, cold_start_s=1, check_s=1, idle_s=10)
    for id in range(48):
        model.submit(Job(id, 0, 10, 400))
    last = 0
    while (due := model.due_ns()) is not None:
        last = due
        model.advance()
    assert model.occupancy(last).replicas == 3
    assert model.occupancy(last + 25_000_000_000).replicas == 1


def test_a_replica_that_goes_finishes_what_it_has() -> None:
    model = fleet(min_replicas=1, max_replicas=2, cold_start_s=0, check_s=1, idle_s=0, strategy="latency")
    for id in range(8):
        model.submit(Job(id, id * 300_000_000, 10, 20 if id else 2000))
        while (due := model.due_ns()) is not None and due < (id + 1) * 300_000_000:
            model.advance()
    done = []
    while model.due_ns() is not None:
        done += [d.id for d in model.advance().finished]
    assert 0 in done


@pytest.mark.parametrize(
    "wrong",
    [{"min_replicas": 3, "max_replicas": 2}, {"max_replicas": 0, "min_replicas": 0}, {"check_s": 0}, {"idle_s": -1}],
)
def test_impossible_scaling_is_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(BadInput):
        Scaling(**wrong)
