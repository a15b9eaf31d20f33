"""The definitions, on traces small enough to work out by hand."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pacemark.figures import metrics
from pacemark.trace import ABSENT, Exchange, Trace, Window, trace_of
from support.servers import MS, exchange


def of(*exchanges: Exchange, open_loop: bool = False) -> Trace:
    return trace_of(exchanges, open_loop)


def whole(sent_ms: float, ended_ms: float, tokens: int) -> Exchange:
    """An answer that was not streamed."""
    return exchange(sent_ms, [ended_ms], tokens=[tokens], first_event_ns=ABSENT, answer_ns=ABSENT)


def same(found: np.ndarray, *expected: float) -> None:
    assert found.tolist() == pytest.approx(list(expected), nan_ok=True)


# --- one value a request


def test_the_plain_case() -> None:
    trace = of(exchange(1000, [1200, 1220, 1240, 1260]))
    same(metrics.ttft_ms(trace), 200)
    same(metrics.tpot_ms(trace), 20)
    same(metrics.latency_ms(trace), 260)
    same(metrics.longest_stall_ms(trace), 20)
    same(metrics.send_delay_ms(trace), 0)


@pytest.mark.trap("the first event counts as the first token")
def test_the_first_token_is_not_the_first_event() -> None:
    role, thought, said = 100, 150, 300
    trace = of(exchange(0, [thought, 200, said], headers_ns=90 * MS, first_event_ns=role * MS, answer_ns=said * MS))
    same(metrics.ttfb_ms(trace), 90)
    same(metrics.ttfe_ms(trace), 100)
    same(metrics.ttft_ms(trace), 150)
    same(metrics.ttfa_ms(trace), 300)


@pytest.mark.trap("a first event of several tokens taken for one")
def test_tpot_leaves_out_the_tokens_of_the_first_event() -> None:
    """Three tokens come with the first event and three with each later one: 6 tokens in 60 ms."""
    trace = of(exchange(0, [100, 130, 160], tokens=[3, 3, 3]))
    same(metrics.tpot_ms(trace), 10)
    # Division by tokens - 1 would say 7.5, by events - 1 would say 30.
    same(metrics.tpot_ms(of(exchange(0, [100, 160], tokens=[5, 2]))), 30)


@pytest.mark.trap("the beginning that a proxy held back taken for tokens made in no time")
def test_tpot_leaves_out_what_came_in_the_same_read_as_the_first() -> None:
    """A proxy holds the first 4 of 8 tokens, then passes on one each 20 ms."""
    trace = of(exchange(0, [100, 100, 100, 100, 120, 140, 160, 180]), exchange(1, [100, 100, 100]))
    same(metrics.tpot_ms(trace), 20, math.nan)


def test_what_is_nought_by_nought_is_absent() -> None:
    one = exchange(0, [100])
    nothing = exchange(1)
    all_at_once = exchange(2, [100], tokens=[64])
    unstreamed = whole(3, 500, 64)
    no_count = exchange(4, [100, 120], tokens=[0, 0])
    trace = of(one, nothing, all_at_once, unstreamed, no_count)
    same(metrics.tpot_ms(trace), *[math.nan] * 5)
    same(metrics.ttft_ms(trace), 100, math.nan, 98, math.nan, 96)
    same(metrics.latency_ms(trace), 100, math.nan, 98, 497, 116)
    assert np.isnan(metrics.longest_stall_ms(trace)[:4]).all()


def test_a_failed_request_has_no_latency_but_its_tokens_arrived() -> None:
    trace = of(exchange(0, [100, 120], error="reset"), exchange(0.5, [100, 120]))
    for metric in (metrics.ttft_ms, metrics.tpot_ms, metrics.latency_ms, metrics.ttfa_ms, metrics.longest_stall_ms):
        assert np.isnan(metric(trace)).tolist() == [True, False]
    assert metrics.succeeded(trace).tolist() == [False, True]
    assert metrics.tokens_in(trace, 0, 10**9)[1].sum() == 4


def test_in_open_loop_the_clock_starts_when_the_request_was_due() -> None:
    late = exchange(150, [350, 370], scheduled_ms=100)
    same(metrics.ttft_ms(of(late, open_loop=True)), 250)
    same(metrics.latency_ms(of(late, open_loop=True)), 270)
    same(metrics.ttft_ms(of(late)), 200)
    for trace in (of(late), of(late, open_loop=True)):
        same(metrics.send_delay_ms(trace), 50)
        same(metrics.tpot_ms(trace), 20)


@given(
    st.lists(st.integers(0, 500), min_size=2, max_size=20),
    st.lists(st.integers(1, 5), min_size=20, max_size=20),
    st.integers(0, 10**6),
)
def test_latency_is_ttft_and_the_tokens_that_follow(gaps_ms: list[int], tokens: list[int], sent: int) -> None:
    times = (sent + np.cumsum(gaps_ms)).tolist()
    trace = of(exchange(sent, times, tokens=tokens[: len(times)]))
    rest = sum(n for n, time in zip(tokens, times, strict=False) if time > times[0])
    latency = metrics.ttft_ms(trace) + (metrics.tpot_ms(trace) * rest if rest else 0)
    assert latency == pytest.approx(metrics.latency_ms(trace))
    assert metrics.longest_stall_ms(trace)[0] == max(gaps_ms[1:])


def test_a_long_uptime_costs_no_precision() -> None:
    year_ms = 365 * 86_400_000
    trace = of(exchange(year_ms, [year_ms + 200.0, year_ms + 220.001]))
    same(metrics.ttft_ms(trace), 200)
    assert metrics.tpot_ms(trace)[0] == pytest.approx(20.001, abs=1e-4)


# --- who is in the window


def test_the_window_holds_its_end_and_not_its_start() -> None:
    trace = of(*(exchange(t, [t + 100]) for t in (10, 20, 30)))
    assert metrics.started_in(trace, 10 * MS, 30 * MS).tolist() == [False, True, True]
    times, tokens = metrics.tokens_in(trace, 110 * MS, 130 * MS)
    assert (times // MS).tolist() == [120, 130]
    assert tokens.tolist() == [1, 1]


def test_in_open_loop_the_schedule_says_who_is_in_it() -> None:
    held_back = exchange(90, [200], scheduled_ms=20)
    assert metrics.started_in(of(held_back, open_loop=True), 10 * MS, 50 * MS).tolist() == [True]
    assert metrics.started_in(of(held_back), 10 * MS, 50 * MS).tolist() == [False]


@pytest.mark.trap("the sample chosen by who ended")
def test_the_sample_is_by_start_and_does_not_favour_the_short() -> None:
    long, short = exchange(10, [20, 500]), exchange(11, [20, 30])
    assert metrics.started_in(of(long, short), 0, 50 * MS).tolist() == [True, True]


def test_a_window_has_no_negative_length() -> None:
    assert Window(5, 2).seconds == 0.0
    assert Window(0, 2_500_000_000).seconds == 2.5


# --- gaps


def test_gaps_are_pooled_within_requests_and_never_across() -> None:
    trace = of(exchange(0, [100, 110, 130]), exchange(1), exchange(2, [105]), exchange(3, [50, 90]))
    stamped, least, most = metrics.gaps(trace, np.ones(4, dtype=bool))
    same(stamped, 10, 20, 40)
    assert np.array_equal(stamped, least)
    assert np.array_equal(stamped, most)
    same(metrics.gaps(trace, np.array([False, True, True, True]))[0], 40)
    assert len(metrics.gaps(trace, np.zeros(4, dtype=bool))[0]) == 0


def test_a_long_level_is_worked_on_in_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(3)
    many = [exchange(i, np.cumsum(rng.integers(1, 90, rng.integers(0, 9))).tolist(), stream=i) for i in range(200)]
    trace = of(*many, exchange(999, np.arange(1.0, 99.0).tolist(), error="reset"))
    each = (metrics.longest_stall_ms, metrics.reading_idle_ms)
    whole = [metric(trace) for metric in each]
    monkeypatch.setattr(metrics, "PART_EVENTS", 16)
    parts = list(metrics.parts(trace))
    assert len(parts) > 30
    assert np.array_equal(np.concatenate([part.hi_ns for _, part in parts]), trace.hi_ns)
    assert np.array_equal(np.concatenate([part.sent_ns for _, part in parts]), trace.sent_ns)
    assert [len(part) for _, part in parts] == [rows.stop - rows.start for rows, _ in parts]
    for metric, before in zip(each, whole, strict=True):
        assert np.array_equal(metric(trace), before, equal_nan=True)
    good = metrics.succeeded(trace)
    pooled = np.concatenate([metrics.gap(part, good[rows], metrics.STAMPED) for rows, part in parts])
    assert np.array_equal(pooled, metrics.gaps(trace, good)[0])
    assert [len(part) for _, part in metrics.parts(of())] == [0]


@pytest.mark.trap("TTFT among the gaps")
def test_the_first_token_is_no_gap() -> None:
    assert len(metrics.gaps(of(exchange(0, [5000])), np.ones(1, dtype=bool))[0]) == 0


def test_gaps_of_nothing() -> None:
    for trace in (of(), of(exchange(0)), of(whole(0, 10, 3))):
        assert [len(g) for g in metrics.gaps(trace, np.ones(len(trace), dtype=bool))] == [0, 0, 0]


def test_gaps_are_bounds_where_events_were_read_at_once() -> None:
    """Three events came in one read at 140, after one at 100; the fourth alone at 160."""
    trace = of(exchange(0, [100, 140, 140, 140, 160], lo_ms=[100, 100, 100, 140, 160]))
    stamped, least, most = metrics.gaps(trace, np.ones(1, dtype=bool))
    same(stamped, 40, 0, 0, 20)
    same(least, 0, 0, 0, 20)
    same(most, 40, 40, 40, 20)


@given(st.lists(st.integers(1, 50), min_size=2, max_size=30), st.sets(st.integers(0, 29), max_size=10))
def test_the_truth_lies_within_the_bounds(true_gaps: list[int], merged: set[int]) -> None:
    """Events are stamped by a client that sometimes leaves one lying until the next: the true gap is enclosed."""
    true = np.cumsum(true_gaps)
    hi, lo = true.copy(), true.copy()
    for i in range(len(true) - 2, -1, -1):
        if i in merged:
            hi[i] = hi[i + 1]
    previous = 0
    for i in range(len(true)):
        if i + 1 < len(true) and hi[i] == hi[i + 1]:
            lo[i] = previous
        else:
            previous = hi[i]
    trace = of(exchange(0, hi.tolist(), lo_ms=lo.tolist()))
    stamped, least, most = metrics.gaps(trace, np.ones(1, dtype=bool))
    actual = np.diff(true)
    assert np.all(least <= actual)
    assert np.all(actual <= most)
    assert np.all((least <= stamped) & (stamped <= most))


# --- what a reader notices


def test_a_reader_waits_only_for_what_is_behind_the_pace() -> None:
    smooth = exchange(0, [100, 150, 200, 250])
    early_then_stalled = exchange(1, [100, 110, 120, 700])
    trace = of(smooth, early_then_stalled, exchange(2, [100], error="reset"), exchange(3))
    # At 100 ms a token the stalled reader would read the fourth word at 400 and gets it at 700.
    same(metrics.reading_idle_ms(trace), 0, 300, math.nan, math.nan)


def reader(times: list[float], pace: float) -> float:
    """The reader, token by token: https://arxiv.org/abs/2410.14257, section 4."""
    read, idle = times[0], 0.0
    for t in times[1:]:
        idle += max(0.0, t - (read + pace))
        read = max(t, read + pace)
    return idle


@given(st.lists(st.lists(st.integers(0, 400), min_size=1, max_size=12), min_size=1, max_size=5))
def test_the_readers_wait_needs_no_loop(requests: list[list[int]]) -> None:
    times = [(100 + np.cumsum(gaps)).tolist() for gaps in requests]
    trace = of(*(exchange(i, t) for i, t in enumerate(times)))
    assert metrics.reading_idle_ms(trace, 50.0) == pytest.approx([reader(t, 50.0) for t in times])


# --- how full it was


def test_cycles_and_requests_in_flight() -> None:
    trace = of(
        exchange(0, [90], stream=0, tokens=[4]),
        exchange(10, [60], stream=1, tokens=[5]),
        exchange(70, [140], stream=1, tokens=[6]),
        exchange(100, [190], stream=0, tokens=[7]),
    )
    cycles, tokens = metrics.cycles_ms(trace, Window(-1, 200 * MS))
    assert sorted(zip(cycles.tolist(), tokens.tolist(), strict=True)) == [(60, 5), (100, 4)]
    assert metrics.in_flight(trace).tolist() == [1, 2, 2, 2]
    assert len(metrics.cycles_ms(trace, Window(500 * MS, 900 * MS))[0]) == 0


def test_traces_are_sorted_by_when_they_were_sent() -> None:
    trace = of(exchange(30, [40]), exchange(10, [20]), exchange(20, [25, 35]))
    assert (trace.sent_ns // MS).tolist() == [10, 20, 30]
    assert (trace.hi_ns // MS).tolist() == [20, 25, 35, 40]
    assert trace.offsets.tolist() == [0, 1, 3, 4]
    assert len(trace) == 3


def test_an_empty_trace_has_every_metric() -> None:
    trace = of()
    for metric in (
        metrics.ttft_ms, metrics.ttfe_ms, metrics.ttfb_ms, metrics.ttfa_ms, metrics.tpot_ms, metrics.latency_ms,
        metrics.longest_stall_ms, metrics.reading_idle_ms, metrics.send_delay_ms, metrics.in_flight,
    ):  # fmt: skip
        assert len(metric(trace)) == 0
    assert len(metrics.tokens_in(trace, 0, 10)[0]) == 0
