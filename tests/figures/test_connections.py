"""What connections that lead to different replicas give away, and equal ones do not."""

from __future__ import annotations

import threading
import time
from pathlib import Path

import msgspec
import numpy as np
import pytest

import pacemark
from pacemark.figures.connections import connections
from pacemark.figures.metrics import succeeded
from pacemark.summary import Connections
from pacemark.trace import trace_of
from support.cli_tools import Asked, Reply, server, streamed
from support.needed import late
from support.servers import exchange

stats = late("scipy.stats")


def level(ttft_ms: np.ndarray, over: np.ndarray) -> Connections | msgspec.UnsetType:
    """Of requests (n,) that took so long to their first token, each over the connection of that number."""
    rows = [
        exchange(100 * i, [100 * i + float(t), 100 * i + float(t) + 10], connection=int(c))
        for i, (t, c) in enumerate(zip(ttft_ms, over, strict=True))
    ]
    trace = trace_of(rows)
    return connections(trace, succeeded(trace))


def test_the_chance_is_that_of_kruskal_and_wallis() -> None:
    rng = np.random.default_rng(1)
    over = np.arange(60) % 4
    ttft_ms = np.round(rng.exponential(30.0, 60) + 5 * over)  # rounded, so that some are equal
    found = level(ttft_ms, over)
    assert isinstance(found, Connections)
    assert found.chance == pytest.approx(stats.kruskal(*(ttft_ms[over == n] for n in range(4))).pvalue, rel=1e-6)
    assert (found.used, found.fewest, found.most) == (4, 15, 15)


def test_equal_connections_seldom_look_unequal() -> None:
    rng = np.random.default_rng(2)
    chances = []
    for _ in range(200):
        found = level(rng.exponential(30.0, 80), rng.integers(0, 8, 80))
        assert isinstance(found, Connections)
        chances.append(found.chance)
    assert np.mean(np.asarray(chances) < 0.05) < 0.1
    assert min(chances) > 1e-4


@pytest.mark.parametrize("over", [np.zeros(40), np.arange(40), np.full(40, -1)])
def test_one_connection_and_new_ones_tell_nothing(over: np.ndarray) -> None:
    assert level(np.full(40, 30.0), over) is msgspec.UNSET


@pytest.mark.slow(shared=True)
def test_a_balancer_before_unequal_replicas_is_named(tmp_path: Path) -> None:
    """A server that answers every second connection, which has a thread of its own, 80 ms later."""
    slow: dict[int, bool] = {}

    def answer(asked: Asked) -> Reply:
        if slow.setdefault(threading.get_ident(), len(slow) % 2 == 0):
            time.sleep(0.08)
        return streamed(asked)

    with server(answer) as url:
        run = pacemark.run(
            url, model="m", rate=40.0, duration=4.0, input_tokens=8, output_tokens=8, seed=3, out=str(tmp_path)
        )
    found = run.levels[0].connections
    assert isinstance(found, Connections)
    assert found.used > 1
    assert found.slowest_ms > found.fastest_ms + 60
    assert any(r.code == "uneven_connections" for r in run.levels[0].verdict.reasons)
