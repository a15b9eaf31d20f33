"""The trace as it grows is the trace that would be built at once."""

from __future__ import annotations

import contextlib
import dataclasses
import tracemalloc
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pacemark import trace
from pacemark.runs.joining import Joining
from pacemark.runs.ledger import DETAIL_LETTERS, Ledger, Page
from pacemark.trace import Exchange, Trace, trace_of
from support.servers import MS, exchange

requests = st.lists(st.tuples(st.integers(0, 20), st.lists(st.integers(21, 60), max_size=4).map(sorted)), max_size=30)


def made(index: int, sent_ms: int, events_ms: list[int]) -> Exchange:
    return exchange(sent_ms, events_ms, index=index, stream=index % 3, error="" if events_ms else "http_500")


def same(a: Trace, b: Trace) -> None:
    for field in dataclasses.fields(Trace):
        got, wanted = getattr(a, field.name), getattr(b, field.name)
        assert np.array_equal(got, wanted), field.name
        if isinstance(wanted, np.ndarray) and wanted.dtype.kind != "U":
            assert got.dtype == wanted.dtype, field.name


@pytest.mark.slow(shared=True)
@given(requests, st.integers(1, 7))
def test_looks_in_between_change_nothing(rows: list[tuple[int, list[int]]], every: int) -> None:
    exchanges = [made(n, sent, events) for n, (sent, events) in enumerate(rows)]
    page = Page(open_loop=True)
    for n, one in enumerate(exchanges):
        page.add(one)
        if n % every == 0:
            page.trace()
    same(page.trace(), trace_of(exchanges, open_loop=True))
    assert page.completed == sum(not x.error for x in exchanges)
    assert page.failed == page.kinds["http_500"] == len(exchanges) - page.completed


@pytest.mark.slow(shared=True)
def test_columns_are_joined_in_the_room_of_one_column_more(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trace, "_AT_ONCE", 1 << 12)
    page, events = Page(), 400 * 500
    tracemalloc.start()
    try:
        for n in range(400):  # as they end: not in the order sent
            page.add(made(n, (n * 7) % 400, list(range(500, 1000))))
            if n % 50 == 49:
                page._put_into_columns()
        before = tracemalloc.get_traced_memory()[0]
        tracemalloc.reset_peak()
        assert len(page.trace().hi_ns) == events
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert before > 8 * events
    assert peak - before < 10 * events  # the times once more, and no other


def test_what_is_the_same_of_every_request_is_kept_once() -> None:
    page = Page()
    for n in range(50):
        page.add(made(n, n, [60, 61]))
        page._put_into_columns()
    whole = page.trace()
    assert whole.finish_reason.base is not None
    assert whole.finish_reason.base.size == whole.tokens.base.size == 1  # type: ignore[union-attr]
    assert whole.sent_ns.base is None
    assert set(whole.tokens.tolist()) == {1.0}


@pytest.mark.parametrize("after", range(0, 40, 3))
def test_what_interrupts_the_joining_loses_nothing(after: int, monkeypatch: pytest.MonkeyPatch) -> None:
    exchanges = [made(n, (n * 7) % 40, [50, 60 + n]) for n in range(40)]
    page = Page()
    for one in exchanges:
        page.add(one)
        page._put_into_columns()
    in_order, calls = Joining._in_order, iter(range(99))

    def interrupted(self: Joining, *column: Any) -> Any:
        if next(calls) == after:
            raise KeyboardInterrupt
        return in_order(self, *column)

    monkeypatch.setattr(Joining, "_in_order", interrupted)
    with contextlib.suppress(KeyboardInterrupt):
        page.trace()
    monkeypatch.undo()
    page.add(late := made(40, 41, [55]))
    same(page.trace(), trace_of([*exchanges, late]))


def test_longer_error_names_are_not_cut() -> None:
    one = trace_of([exchange(0, error="http_429")])
    other = trace_of([exchange(1, error="connect_timeout")])
    assert Trace.joined([one, other]).error.tolist() == ["http_429", "connect_timeout"]


def test_what_is_counted_along_the_way() -> None:
    page = Page()
    for one in (
        exchange(10, [20, 25, 60]),
        exchange(0, [30, 31], scheduled_ms=-50),
        exchange(5, error="refused", status=0),
    ):
        page.add(one)
    assert page.gap_ns == 35 * MS
    assert page.slowest_ns == 81 * MS
    assert page.in_a_row == {"refused": 1}
    page.add(exchange(70, [80]))
    assert not page.in_a_row


def test_secrets_are_masked_before_the_text_is_cut() -> None:
    ledger = Ledger(lambda text: text.replace("secret-key", "***"))
    said = "x" * (DETAIL_LETTERS - 5) + "secret-key" + "y" * 50
    written = ledger.add(exchange(0, error="http_400", detail=said))
    assert "secret" not in written.detail
    assert written.detail == "x" * (DETAIL_LETTERS - 5) + "***yy ..."


def test_what_ends_after_its_level_is_counted_by_itself() -> None:
    ledger = Ledger(str)
    page = ledger.open(0)
    ledger.add(exchange(0, [1]))
    ledger.close(0)
    ledger.add(exchange(1, [2]))
    ledger.add(exchange(1, error="closed"))
    assert (page.completed, page.failed) == (1, 0)
    assert (ledger.late(0).completed, ledger.late(0).failed) == (1, 1)
    assert ledger.late(7).completed == 0
