"""A server over several measurements of one load."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from pacemark.figures.health import Health
from pacemark.figures.level import LevelResult, sum_up
from pacemark.figures.servers import server_over
from pacemark.metered import Agreement, Gauge, Phases, Server, WithinEdge
from pacemark.pace import Concurrency
from pacemark.summary import Level
from pacemark.trace import Window, trace_of
from support.servers import MS, exchange


def level(requests: int, server: Server | None) -> Level:
    rows = [exchange(100 + 10 * n, [105 + 10 * n, 107 + 10 * n]) for n in range(requests)]
    found: LevelResult = sum_up(Concurrency(1), trace_of(rows), Window(0, 10_000 * MS), Health())
    assert found.level.requests.in_window == requests
    return msgspec.structs.replace(found.level, server=server or msgspec.UNSET)


def told(seconds: float, mean: float, count: float, agrees: bool | None, **fields: Any) -> Server:
    checks = [Agreement("requests", count, count + 1, agrees), Agreement("ttft_ms", mean, mean / 2, True)]
    gauge = Gauge(mean, 2 * mean)
    within = [WithinEdge(5.0, 0.5, mean / 100)]
    phases = Phases(client_ms=mean, queue_ms=2 * mean)
    return Server(
        engine="vLLM", seconds=seconds, looks=3, running=gauge, preemptions=count, checks=checks, ttft_within=within,
        phases=phases, **fields,
    )  # fmt: skip


def test_counts_are_summed_and_means_weighed() -> None:
    found = server_over([level(30, told(1.0, 10.0, 30, True)), level(10, told(3.0, 20.0, 10, True))])
    assert found is not None
    assert (found.engine, found.seconds, found.looks, found.preemptions) == ("vLLM", 4.0, 6, 40)
    assert found.running == Gauge(17.5, 40.0)  # three quarters of the time
    assert found.phases == Phases(client_ms=12.5, queue_ms=25.0)  # a quarter of the requests
    assert found.checks == [Agreement("requests", 40, 42, True), Agreement("ttft_ms", 12.5, 6.25, True)]
    assert found.ttft_within == [WithinEdge(5.0, 0.5, 0.125)]
    assert found.waiting is None
    assert found.kv_used is None


@pytest.mark.parametrize(("one", "other", "both"), [(True, False, False), (True, None, None), (None, False, False)])
def test_a_check_agrees_where_each_does(one: bool | None, other: bool | None, both: bool | None) -> None:
    found = server_over([level(5, told(1.0, 1.0, 5, one)), level(5, told(1.0, 1.0, 5, other))])
    assert found is not None
    assert found.checks[0].agrees is both


def test_what_one_of_them_does_not_know_is_known_of_none() -> None:
    first = told(1.0, 1.0, 5, True, prefix_hits=0.5)
    found = server_over([level(5, first), level(5, told(1.0, 1.0, 5, True))])
    assert found is not None
    assert found.prefix_hits is None
    assert server_over([level(5, first), level(5, None)]) is None
    other = msgspec.structs.replace(first, engine="SGLang")
    assert server_over([level(5, first), level(5, other)]) is None
