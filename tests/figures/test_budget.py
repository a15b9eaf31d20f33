"""The budget language, and what it holds against a trace."""

from __future__ import annotations

import numpy as np
import pytest

from pacemark.budget import Limit, parse
from pacemark.errors import BadInput
from pacemark.figures.conditions import demands, misses, misses_by_limit
from pacemark.trace import Trace, trace_of
from support.servers import exchange

ALL = np.ones(4, dtype=np.bool_)


def trace() -> Trace:
    """Four requests: TTFT 100, 200, 300 ms, then TPOT 10, 20, 40 ms; and one that failed."""
    good = [exchange(0, [ttft + tpot * i for i in range(5)]) for ttft, tpot in ((100, 10), (200, 20), (300, 40))]
    return trace_of([*good, exchange(0, [], error="http_429")])


def test_per_metric_form() -> None:
    budget = parse("ttft p95 < 500ms, tpot p99.9 <= 0.05 s, latency mean < 10s, itl p50 < 40ms and errors < 1%")
    assert budget.limits == (
        Limit("ttft", 500, 0.95),
        Limit("tpot", 50, 0.999),
        Limit("latency", 10_000, mean=True),
        Limit("itl", 40, 0.5),
        Limit("errors", 0.01),
    )
    assert budget.share is None
    assert budget.errors == 0.01


def test_attainment_form() -> None:
    budget = parse("95% of requests: ttft < 500ms, tpot < 50ms")
    assert budget.share == 0.95
    assert budget.limits == (Limit("ttft", 500), Limit("tpot", 50))
    assert budget.errors == pytest.approx(0.05)
    assert parse("99% of requests: ttft < 1s, errors < 0.5%").errors == 0.005


@pytest.mark.parametrize(
    "text",
    [
        "ttft p95 < 500ms, tpot mean < 40ms",
        "latency p99.9 < 12.5s, errors < 0.5%",
        "95% of requests: ttft < 500ms, tpot < 50ms",
    ],
)
def test_a_budget_says_itself(text: str) -> None:
    assert str(parse(text)) == text
    assert parse(str(parse(text))) == parse(text)


def test_words_may_stand_in_either_order_and_case() -> None:
    assert parse("P95 TTFT < 500 MS; mean tpot<40ms") == parse("ttft p95 < 500ms, tpot mean < 40ms")
    assert parse("median ttft ≤ 1s") == parse("ttft p50 < 1s")


@pytest.mark.parametrize(
    ("text", "position", "words"),
    [
        ("ttfx p95 < 5s", 1, "expected a metric"),
        ("ttft p95 > 5s", 10, "expected '<'"),
        ("ttft p95 < 5 minutes", 14, "a unit: ms or s"),
        ("ttft p95 < 5s tpot p95 < 9ms", 15, "a comma"),
        ("ttft p100 < 5s", 6, "between p0 and p100"),
        ("ttft p0.95 < 5s", 6, "in percent: p95"),
        ("ttft p95 < 0ms", 12, "more than 0"),
        ("ttft < 5s", 6, "which quantile"),
        ("95% of requests: ttft p95 < 5s", 23, "without a quantile"),
        ("101% of requests: ttft < 5s", 1, "between 0% and 100%"),
        ("95% of tokens: ttft < 5s", 8, "requests"),
        ("errors p95 < 1%", 8, "no quantile"),
        ("errors < 120%", 10, "between 0% and 100%"),
        ("errors < 1 ms", 12, "a percentage"),
        ("ttft p95 < fast", 12, "a number"),
    ],
)
def test_a_mistake_is_pointed_at(text: str, position: int, words: str) -> None:
    with pytest.raises(BadInput, match=rf"at character {position}: .*{words}"):
        parse(text)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "missing at the end"),
        ("ttft p95 <", "missing at the end"),
        ("ttft p95 < 5s, ttft p95 < 6s", "ttft p95 is limited twice"),
        ("95% of requests: errors < 1%", "no limit says what"),
    ],
)
def test_what_is_not_there_is_told(text: str, words: str) -> None:
    with pytest.raises(BadInput, match=words):
        parse(text)


def test_per_metric_conditions() -> None:
    ttft, tpot, errors = demands(parse("ttft p50 < 200ms, tpot mean < 20ms, errors < 10%"), trace(), ALL)
    assert ttft.name == "ttft p50"
    assert ttft.scores.tolist() == [0.5, 1.0, 1.5, np.inf]
    assert ttft.quantile == 0.5
    assert tpot.scores.tolist() == [0.5, 1.0, 2.0], "a mean has no place for what was never answered"
    assert tpot.quantile is None
    assert errors.scores.tolist() == [0, 0, 0, 10]
    assert (ttft.most, tpot.most, errors.most) == (200, 20, 0.1)


@pytest.mark.trap("failures left out of the budget")
def test_attainment_takes_the_worst_of_each_request() -> None:
    both, _ = demands(parse("50% of requests: ttft < 200ms, tpot < 10ms"), trace(), ALL)
    assert both.scores.tolist() == [1.0, 2.0, 4.0, np.inf]
    assert both.quantile == 0.5


def test_the_two_forms_are_not_the_same() -> None:
    """Half of the requests miss one limit and the other half the other: each limit allows it, together none is met."""
    slow_start, slow_going = exchange(0, [900, 910, 920]), exchange(0, [100, 190, 280])
    mixed, everyone = trace_of([slow_start, slow_going] * 10), np.ones(20, dtype=np.bool_)
    limits = "ttft {}< 500ms, tpot {}< 50ms"
    each = demands(parse(limits.format("p40 ", "p40 ")), mixed, everyone)[:-1]
    together = demands(parse("40% of requests: " + limits.format("", "")), mixed, everyone)[:-1]
    assert all(np.quantile(c.scores, 0.4) < 1 for c in each)
    assert all(np.quantile(c.scores, 0.4) >= 1 for c in together)


def test_misses_are_the_opposite_of_goodput() -> None:
    budget = parse("ttft p95 < 250ms, tpot p95 < 15ms")
    assert misses(budget, trace()).tolist() == [False, True, True, True]
    by_limit = misses_by_limit(budget, trace())
    assert by_limit["ttft p95"].tolist() == [False, False, True, False]
    assert by_limit["tpot p95"].tolist() == [False, True, True, False]
    assert by_limit["errors"].tolist() == [False, False, False, True]


def test_the_longest_gap_decides_an_itl_limit_per_request() -> None:
    stalled, smooth = exchange(0, [100, 110, 200]), exchange(0, [100, 110, 120])
    both = trace_of([stalled, smooth])
    assert misses(parse("itl p99 < 50ms"), both).tolist() == [True, False]
    pooled, _ = demands(parse("itl p99 < 50ms"), both, np.ones(2, dtype=np.bool_))
    assert sorted(pooled.scores * 50) == pytest.approx([10, 10, 10, 90])
