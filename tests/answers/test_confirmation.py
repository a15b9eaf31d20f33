"""A closed loop's answer, tried in the open loop."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest

import pacemark as face
from pacemark.answers.allowance import Allowance
from pacemark.answers.confirmation import confirmed, forecast, implied_rate, long_enough, ways
from pacemark.budget import parse
from pacemark.figures.level import LevelResult
from pacemark.pace import Concurrency, Rate
from pacemark.reporting import html, terminal
from pacemark.runs.simulated import virtual_measure
from pacemark.simulator import simulate
from pacemark.summary import Confirmation, Find, Summary
from pacemark.trace import Window
from support import samples
from support.samples import known

BUDGET = parse("ttft p95 < 300ms, tpot p95 < 13.5ms")
DEMO: dict[str, Any] = {"input_tokens": 256, "output_tokens": 64}


def tried(rate: float) -> list[Confirmation]:
    measure = virtual_measure("demo", max_duration_s=60.0, seed=5, **DEMO)
    return confirmed([measure(load, long_enough()) for load in ways(rate)], BUDGET)


def test_a_rate_with_room_to_spare_is_confirmed() -> None:
    poisson, bursty = tried(12.0)
    assert (poisson.load, bursty.load) == (Rate(12.0), Rate(12.0, "gamma", 2.0))
    assert poisson.stable
    assert poisson.within
    assert bursty.stable
    assert "the backlog did not grow" in poisson.why
    assert known(poisson.level).ttft_ms.p95.value is not None


@pytest.mark.slow(shared=True)
def test_a_rate_beyond_capacity_is_unbounded_and_has_no_percentile() -> None:
    for found in tried(50.0):  # the demo preset can do 37.6 a second
        assert found.stable is False
        assert found.within is None
        assert "grew by" in found.why
        level = known(found.level)
        assert level.ttft_ms.p95.value is None
        assert level.latency_ms.p50.value is None


def test_a_rate_that_is_stable_may_still_miss_the_budget() -> None:
    _, bursty = tried(34.0)
    assert bursty.stable is not None
    assert not bursty.within


def test_too_few_requests_tell_nothing() -> None:
    measure = virtual_measure("demo", duration_s=2.0, seed=5, **DEMO)
    (found,) = confirmed([measure(Rate(3.0))], BUDGET)
    assert found.stable is None
    assert "too few requests" in found.why


def test_closed_loop_levels_confirm_nothing() -> None:
    assert confirmed([virtual_measure("demo", duration_s=2.0, **DEMO)(Concurrency(2))], BUDGET) == []


pytestmark = pytest.mark.xdist_group("confirmation")  # its simulations are made once


@pytest.fixture(scope="module")
def closed() -> list[LevelResult]:
    measure = virtual_measure("demo", duration_s=6.0, seed=6, **DEMO)
    return [measure(Concurrency(n)) for n in (8, 16, 16)]


def test_the_implied_rate_lies_on_the_measured_curve(closed: list[LevelResult]) -> None:
    at = [known(r.level.requests_per_s.value) for r in closed]
    assert implied_rate(closed, 8) == pytest.approx(at[0])
    assert implied_rate(closed, 16) == pytest.approx((at[1] + at[2]) / 2)
    assert implied_rate(closed, 12) == pytest.approx((at[0] + (at[1] + at[2]) / 2) / 2)
    assert implied_rate([], 12) is None


def test_what_it_will_cost_is_forecast(closed: list[LevelResult]) -> None:
    cost = forecast(Rate(20.0), closed)
    assert cost.seconds > 400 / 20
    assert cost.requests == pytest.approx(20 * cost.seconds, abs=1)
    assert cost.tokens == pytest.approx(320 * cost.requests, rel=0.01)


def test_it_lasts_for_400_requests_and_20_latencies() -> None:
    enough = long_enough()
    trace = replace(simulate(Rate(20.0), "demo", requests=600, **DEMO), open_loop=True)
    ends = {n: int(trace.scheduled_ns[n - 1]) for n in (300, 500)}
    assert not enough(trace, Window(0, ends[300]))
    assert enough(trace, Window(0, ends[500]))
    slow = replace(trace, hi_ns=trace.hi_ns + 5_000_000_000)
    assert np.median(slow.hi_ns) > np.median(trace.hi_ns)
    assert not enough(slow, Window(0, ends[500]))


# --- what people see


def _told(*confirmations: Confirmation) -> str:
    swept = samples.found()
    assert isinstance(swept.find, Find)
    find = msgspec.structs.replace(swept.find, confirmations=list(confirmations))
    summary = Summary(target=swept.target, workload=swept.workload, levels=swept.levels, find=find)
    assert all(c.why.split("; ")[0].split(" ")[1] in html.html(summary) for c in confirmations)
    return " ".join(terminal.answer(summary).split())


@pytest.mark.slow(shared=True)
def test_each_way_of_arriving_is_named() -> None:
    text = _told(
        Confirmation(Rate(9.13), True, True, "ttft p95 is 110 ms, 45% under its limit (412 requests)"),
        Confirmation(Rate(9.13, "gamma", 2.0), False, None, "the requests in flight grew by 1.2 every second"),
    )
    assert "Open loop, Poisson: 9.13 requests/s meets the budget." in text
    assert "Open loop, gamma, CV 2: 9.13 requests/s is unbounded." in text
    assert "pacemark find --rate" in text
    assert "closed loop's" not in text


def test_what_was_not_tried_is_said() -> None:
    text = _told(Confirmation(Rate(9.13), None, None, "not tried: it would exceed the allowance of 60 s"))
    assert "Open loop, Poisson: 9.13 requests/s: not known." in text
    assert "Not tried: it would exceed the allowance of 60 s." in text


def test_without_it_the_answer_names_its_closed_loop() -> None:
    assert "It is a closed loop's" in _told()


# --- over real sockets


@pytest.mark.slow
def test_find_confirms_over_the_network(tmp_path: Path) -> None:
    options: Any = {"input_tokens": 32, "output_tokens": 8, "budget": "latency p95 < 5s", "seed": 4, "out": tmp_path}
    run = face.find("sim:demo", confirm=True, most=4, allowance=Allowance(seconds=90.0), max_duration=6.0, **options)
    find = msgspec.convert(run.summary.find, Find)
    assert find.answer is not None
    assert [c.load.arrivals for c in find.confirmations] == ["poisson", "gamma"]
    assert len({c.load.value for c in find.confirmations}) == 1
    assert all(isinstance(level.load, Concurrency) for level in run.levels)
    again = face.report(run.path)
    kept = msgspec.convert(again.summary.find, Find).confirmations
    assert [(c.load, c.stable, c.within, c.why) for c in kept] == [
        (c.load, c.stable, c.within, c.why) for c in find.confirmations
    ]


@pytest.mark.slow(shared=True)
def test_what_the_allowance_forbids_is_not_tried(tmp_path: Path) -> None:
    options: Any = {"input_tokens": 32, "output_tokens": 8, "budget": "latency p95 < 5s", "seed": 4, "out": tmp_path}
    run = face.find("sim:demo", confirm=True, most=2, allowance=Allowance(requests=300), max_duration=3.0, **options)
    find = msgspec.convert(run.summary.find, Find)
    assert len(find.confirmations) == 2
    assert all(c.stable is None and "not tried" in c.why for c in find.confirmations)
