"""When a level is given up, and when it is not."""

from __future__ import annotations

from time import monotonic_ns

import msgspec
import pytest

from pacemark.pace import Concurrency, Load, Rate
from pacemark.runs.ledger import Page
from pacemark.runs.trouble import Doubts, away_share, stall_limit_s
from pacemark.trace import ABSENT, Beat, Exchange, Window, trace_of
from support.servers import MS, exchange

SECOND = 1_000_000_000


def beat(*, in_flight: int = 0, oldest_ns: int = ABSENT, turned: int = 0) -> Beat:
    return Beat(0, monotonic_ns() + SECOND, 0, in_flight, oldest_ns, turned, 0, 0, 0, 1.0, 0, 0, False)


def failing(page: Page, count: int, kind: str = "http_429", said: str = "no") -> None:
    for n in range(count):
        status = int(kind.removeprefix("http_")) if kind.startswith("http_") else 0
        page.add(exchange(n, error=kind, detail=said, status=status))


class TestAway:
    WINDOW = Window(0, 100 * MS)

    def share(self, *exchanges: Exchange) -> float:
        return away_share(trace_of(sorted(exchanges, key=lambda x: x.sent_ns)), self.WINDOW)

    def test_from_when_on_connections_fail_and_nothing_is_with_it(self) -> None:
        refusals = [exchange(n, error="refused") for n in range(41, 100, 5)]
        assert self.share(exchange(0, [40]), *refusals) == pytest.approx(0.6)
        assert self.share(exchange(0, [40]), *refusals, exchange(80, [100])) == pytest.approx(0.4)

    def test_not_while_others_are_answered(self) -> None:
        refusals = [exchange(n, error="refused") for n in range(1, 100)]
        assert self.share(exchange(0, [60]), exchange(60, [110]), *refusals) == 0

    def test_not_where_nothing_is_asked_of_it(self) -> None:
        assert self.share(exchange(0, [2]), exchange(90, [92], error="http_500")) == 0


class TestHopeless:
    def test_not_while_an_early_request_is_still_being_answered(self) -> None:
        page, began_ns = Page(), monotonic_ns()
        doubts = Doubts(Concurrency(8), page)
        failing(page, 40)
        assert doubts.hopeless([beat(in_flight=4, oldest_ns=began_ns)]) is None
        line = doubts.hopeless([beat(in_flight=4, oldest_ns=monotonic_ns() + SECOND)])
        assert line == "all of the first 40 requests at concurrency 8 failed (http_429): no"

    @pytest.mark.parametrize(("kinds", "gone"), [(["refused"], True), (["refused", "reset"], False), ([], False)])
    def test_nobody_there_is_told_from_what_a_load_does(self, kinds: list[str], gone: bool) -> None:
        page = Page()
        page.in_a_row.update(kinds)
        assert Doubts(Concurrency(8), page).unreachable is gone

    @pytest.mark.parametrize(("load", "failures"), [(Concurrency(2), 11), (Concurrency(64), 63), (Rate(5.0), 11)])
    def test_not_after_a_few(self, load: Load, failures: int) -> None:
        page = Page()
        failing(page, failures)
        assert Doubts(load, page).hopeless([beat()]) is None

    def test_not_after_one_success(self) -> None:
        page = Page()
        page.add(exchange(0, [1]))
        failing(page, 100)
        assert Doubts(Concurrency(2), page).hopeless([beat()]) is None

    @pytest.mark.parametrize(
        ("kind", "hint"),
        [("stream_error", "--no-ignore-eos"), ("http_400", "--no-ignore-eos"), ("timeout", "--timeout")],
    )
    def test_the_likely_cause_is_named(self, kind: str, hint: str) -> None:
        page = Page()
        failing(page, 12, kind)
        line = Doubts(Concurrency(2), page, ignore_eos=True).hopeless([beat()])
        assert line is not None
        assert line.endswith(hint)

    @pytest.mark.parametrize(
        "said", ["filtered due to our content management policy", "CUDA error: device-side assert"]
    )
    def test_no_likely_cause_is_named_where_the_server_names_one(self, said: str) -> None:
        page = Page()
        failing(page, 12, "http_400", said)
        doubts = Doubts(Concurrency(2), page, ignore_eos=True)
        assert str(doubts.hopeless([beat()])).endswith(f"failed (http_400): {said}")
        assert doubts.afterthought() == f"12 of 12 requests failed (http_400): {said}"


class TestGone:
    def test_refused_for_seconds(self) -> None:
        page = Page()
        page.add(exchange(0, [1]))
        failing(page, 20, "refused")
        doubts, now = Doubts(Rate(10.0), page), monotonic_ns()
        assert doubts.gone([beat()], now + SECOND) is None
        assert "each of the last 20 requests failed (refused)" in str(doubts.gone([beat()], now + 6 * SECOND))

    def test_refusals_by_a_server_that_is_there_are_another_matter(self) -> None:
        page = Page()
        page.add(exchange(0, [1]))
        failing(page, 20, "http_503")
        assert Doubts(Rate(10.0), page).gone([beat()], monotonic_ns() + 9 * SECOND) is None

    @pytest.mark.parametrize(("usual_s", "after_s", "dead"), [(0.1, 9, False), (0.1, 11, True), (5.0, 11, False)])
    def test_silence_is_long_or_short_by_what_a_request_takes(self, usual_s: float, after_s: int, dead: bool) -> None:
        page = Page()
        page.add(exchange(0, [1]))
        doubts = Doubts(Rate(10.0), page, usual_s=usual_s)
        line = doubts.gone([beat(in_flight=30, oldest_ns=1)], monotonic_ns() + after_s * SECOND)
        assert (line is not None and "30 requests wait" in line) == dead

    def test_nothing_in_flight_is_no_silence(self) -> None:
        page = Page()
        page.add(exchange(0, [1]))
        assert Doubts(Rate(0.01), page).gone([beat()], monotonic_ns() + 60 * SECOND) is None
        late = monotonic_ns() + 60 * SECOND  # a request that has only just been sent, after a long pause
        assert Doubts(Rate(0.01), page).gone([beat(in_flight=1, oldest_ns=late - SECOND)], late) is None

    @pytest.mark.parametrize(("after_s", "dead"), [(60.0, False), (86_400.0, True)])
    def test_a_server_that_says_to_come_back_tomorrow_is_not_waited_for(self, after_s: float, dead: bool) -> None:
        page = Page()
        page.add(exchange(0, [1]))
        doubts = Doubts(Concurrency(2), page)
        for n in range(2):
            assert doubts.gone([beat()]) is None
            page.add(msgspec.structs.replace(exchange(n, error="http_429", status=429), retry_after_s=after_s))
            page.add(exchange(0, [9]))  # which was sent before
        assert doubts.unreachable is dead
        assert ("says to come back in 86,400 s" in str(doubts.gone([beat()]))) is dead
        page.add(exchange(50, [51]))
        assert doubts.gone([beat()]) is None


class TestOneAtATime:
    def test_streams_that_never_get_an_answer(self) -> None:
        page, now = Page(), monotonic_ns()
        doubts = Doubts(Concurrency(4), page)
        assert doubts.one_at_a_time([beat(turned=1)], now) is None
        for n in range(20):
            page.add(exchange(n, [n + 1]))
        assert doubts.one_at_a_time([beat(turned=1)], now + SECOND) is None
        line = doubts.one_at_a_time([beat(turned=1)], now + 6 * SECOND)
        assert line is not None
        assert line.startswith("3 of 4 streams get no answer")
        assert line.endswith("--fresh-connections")

    def test_a_slow_start_is_none(self) -> None:
        page, now = Page(), monotonic_ns()
        doubts = Doubts(Concurrency(4), page)
        for turned in (1, 2, 3):
            for n in range(20):
                page.add(exchange(n, [n + 1]))
            assert doubts.one_at_a_time([beat(turned=turned)], now + 6 * SECOND * turned) is None


def test_failures_that_ignore_eos_explains_are_said_after_a_level_too() -> None:
    page = Page()
    page.add(exchange(0, [1]))
    failing(page, 3, "stream_error")
    assert Doubts(Concurrency(1), page).afterthought() is None
    line = Doubts(Concurrency(1), page, ignore_eos=True).afterthought()
    assert line is not None
    assert line.startswith("3 of 4 requests failed (stream_error): no; ")


def test_kept_connections_that_were_closed_are_told_of() -> None:
    page = Page()
    for i in range(200):
        page.add(exchange(i, [i + 1]))
    assert Doubts(Concurrency(1), page).afterthought(2) is None
    line = Doubts(Concurrency(1), page).afterthought(3)
    assert line is not None
    assert "closed 3 kept connections in 200 requests" in line


def test_no_honest_server_is_cut_for_a_pause() -> None:
    assert stall_limit_s(0, 0) == 10.0
    assert stall_limit_s(SECOND // 4, 3 * SECOND) == 10.0
    assert stall_limit_s(4 * SECOND, 0) == 80.0
    assert stall_limit_s(SECOND, 20 * SECOND) == 40.0
