"""Where other tools went wrong, and the test of each that fails if pacemark does so too.

Most of these tests stand with the module they are about; those that span several are here.
"""

from __future__ import annotations

import re
import time
from pathlib import Path

import numpy as np
import pytest

import pacemark
from pacemark.endpoint.target import target
from pacemark.figures import metrics
from pacemark.figures.health import Health
from pacemark.figures.level import sum_up
from pacemark.pace import Concurrency
from pacemark.runs.bench import Bench
from pacemark.scenario import Settings
from pacemark.trace import Window, trace_of
from pacemark.workload.words import Workload
from support.servers import MS, certificate, exchange, listening, streamed

TRAPS = {
    "the role header counts as the first token": "dialects/test_openai.py::test_a_role_header_is_not_a_token",
    "the first event counts as the first token": "figures/test_metrics.py::test_the_first_token_is_not_the_first_event",
    "a handshake within TTFT": "test_traps.py::test_a_handshake_is_in_no_ttft",
    "a schedule that drifts": "test_pace.py::test_constant_is_constant_and_does_not_drift",
    "constant arrivals that are Poisson": "test_pace.py::test_poisson_gaps_are_exponential",
    "gaps renormalised to the duration": "test_pace.py::test_the_horizon_is_fixed_and_the_count_varies",
    "an error rate that is always 0": "figures/test_verdict.py::test_failures",
    "failures left out of the budget": "figures/test_budget.py::test_attainment_takes_the_worst_of_each_request",
    "late arrivals dropped": "instrument/test_generator.py::test_an_open_loop_does_not_wait_for_answers",
    "late sends that hide the wait": "instrument/test_generator.py::test_requests_held_back_count_from_their_schedule",
    "TTFT among the gaps": "figures/test_metrics.py::test_the_first_token_is_no_gap",
    "a first event of several tokens taken for one": "figures/test_metrics.py::test_tpot_leaves_out_the_tokens_of_the_first_event",
    "warm-up left out above the line and not below": "test_traps.py::test_ramp_and_drain_are_not_in_the_throughput",
    "the drain within the throughput": "test_traps.py::test_ramp_and_drain_are_not_in_the_throughput",
    "the sample chosen by who ended": "figures/test_metrics.py::test_the_sample_is_by_start_and_does_not_favour_the_short",
    "wall-clock stamps": "test_traps.py::test_nothing_that_measures_asks_the_wall_clock",
    "stamps taken after the event loop came round": "instrument/test_connection.py::test_a_busy_client_still_sees_the_true_times",
    "prompts that an earlier run left in the cache": "instrument/test_generator.py::test_no_two_requests_of_a_run_open_alike",
    "intervals for independent requests": "figures/test_stats.py::test_plain_order_statistics_would_have_failed_the_same_series",
}


@pytest.mark.parametrize("trap", TRAPS)
def test_each_trap_has_its_test(trap: str) -> None:
    file, name = TRAPS[trap].split("::")
    assert f"def {name}(" in (Path(__file__).parent / file).read_text()


def test_ramp_and_drain_are_not_in_the_throughput() -> None:
    """Four streams of 10 tokens in 500 ms each, 80 tokens/s; one more slow request before, and a tail after."""
    steady = [
        exchange(500 * i + 1, [500 * i + 50 * k for k in range(1, 11)], stream=stream)
        for i in range(2, 40)
        for stream in range(4)
    ]
    ramp = [exchange(1, [400, 900], stream=s) for s in range(4)]
    tail = [exchange(20_000, [29_000, 30_000], stream=0)]
    trace = trace_of([*ramp, *steady, *tail])
    level = sum_up(Concurrency(4), trace, Window(1000 * MS, 20_000 * MS), Health()).level
    assert level.output_tokens_per_s.value == pytest.approx(80.0, rel=0.01)
    assert level.requests_per_s.value == pytest.approx(8.0, rel=0.01)
    over_everything = trace.output_tokens.sum() / 30.0
    assert over_everything < 0.7 * 80.0


def test_a_handshake_is_in_no_ttft(tmp_path: Path) -> None:
    """Every request opens a TLS connection of its own, and each handshake takes a fifth of a second."""
    _, context = certificate(tmp_path)
    context.sni_callback = lambda *_: time.sleep(0.2)
    try:
        with listening(streamed(3, 0.005), context) as port:
            place = target(f"https://127.0.0.1:{port}/v1", model="m", insecure=True)
            settings = Settings(duration_s=1.5, timeout_s=10.0, fresh_connections=True)
            with Bench(place, Workload(16, 3, 1), settings) as bench:
                bench.prepare()
                result = bench.measure(Concurrency(1))
                bench.finish()
    finally:
        context.sni_callback = None
    assert bench.connect_ns > 180 * MS
    assert np.nanmedian(metrics.ttft_ms(result.trace)) < 100.0
    assert np.nanmedian(np.diff(result.trace.sent_ns) / MS) > 180.0


_STILL = ("pace.py", "trace.py", "figures/health.py")


def test_nothing_that_measures_asks_the_wall_clock() -> None:
    """It may be set at any time. Kernel stamps are of that clock, so `clock.py` alone reads it, for a difference."""
    source = Path(pacemark.__file__).parent
    for name in (
        "instrument/connection.py",
        "instrument/generator.py",
        "instrument/fleet.py",
        "runs/bench.py",
        *_STILL,
    ):
        text = (source / name).read_text()
        assert not re.search(r"\btime\.time(_ns)?\b|import time_ns|datetime|perf_counter", text), name
        assert name in _STILL or "monotonic" in text, name
