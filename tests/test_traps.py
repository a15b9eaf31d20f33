"""Where other tools went wrong, and the test of each that fails if pacemark does so too.

Most of these tests stand with the module they are about; those that span several are here.
"""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

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
    "the role header counts as the first token",
    "vLLM reads Mooncake's ms as seconds and its blocks of 512 as 16",
    "vLLM reads BurstGPT by the order of its columns",
    "vLLM measures the first turn of ShareGPT alone",
    "the first event counts as the first token",
    "a handshake within TTFT",
    "a schedule that drifts",
    "constant arrivals that are Poisson",
    "gaps renormalised to the duration",
    "an error rate that is always 0",
    "failures left out of the budget",
    "late arrivals dropped",
    "late sends that hide the wait",
    "TTFT among the gaps",
    "a first event of several tokens taken for one",
    "the beginning that a proxy held back taken for tokens made in no time",
    "warm-up left out above the line and not below",
    "the drain within the throughput",
    "the sample chosen by who ended",
    "wall-clock stamps",
    "stamps taken after the event loop came round",
    "prompts that an earlier run left in the cache",
    "intervals for independent requests",
}


def test_every_trap_has_a_test_that_runs(request: pytest.FixtureRequest) -> None:
    """Of what this session is about to run; only of what is run, where that is a part."""
    told = {trap: item for item in request.session.items for trap in _traps(item)}
    assert set(told) <= TRAPS
    for name, item in told.items():
        assert not any(item.iter_markers("skip")), name
        assert not any(item.iter_markers("xfail")), name
    if not _part(request.config):
        assert TRAPS - set(told) == set()


def _traps(item: pytest.Item) -> list[str]:
    return [mark.args[0] for mark in item.iter_markers("trap")]


def _part(config: pytest.Config) -> bool:
    """Whether only some of the fast tests are run."""
    whole = [Path(given).resolve() for given in config.args] == [Path(__file__).parent]
    return bool(
        config.option.keyword or config.option.deselect or not whole or config.option.markexpr not in ("", "not slow")
    )


@pytest.mark.trap("the drain within the throughput")
@pytest.mark.trap("warm-up left out above the line and not below")
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


@pytest.mark.trap("a handshake within TTFT")
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


@pytest.mark.trap("wall-clock stamps")
@pytest.mark.parametrize("asked", ["time.time()", "time.time_ns()", "time.perf_counter()", "datetime.datetime.now()"])
@pytest.mark.parametrize("name", ["instrument/connection.py", "instrument/generator.py", "runs/bench.py", "trace.py"])
def test_nothing_that_measures_asks_the_wall_clock(name: str, asked: str) -> None:
    """It may be set at any time, so the linter refuses it wherever a time becomes a figure."""
    root = Path(__file__).parent.parent
    text = f"import {asked.partition('.')[0]}\n\nNOW = {asked}\n"
    command = [sys.executable, "-m", "ruff", "check", "--no-cache", "--stdin-filename", f"src/pacemark/{name}", "-"]
    done = subprocess.run(command, cwd=root, input=text, capture_output=True, text=True, timeout=60)
    assert "TID251" in done.stdout
