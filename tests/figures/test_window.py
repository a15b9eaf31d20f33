"""Where a level is steady, where it changes pace, and when its backlog only grows."""

import numpy as np
import pytest
from numpy.typing import NDArray

from pacemark.figures import metrics, stats, window
from pacemark.pace import Concurrency, Rate
from pacemark.simulator import simulate
from support.needed import late

signal = late("scipy.signal")

Floats = NDArray[np.float64]


def noisy(level: Floats, seed: int, correlation: float = 0.6, scale: float = 0.05) -> Floats:
    """`level` with autocorrelated noise of a relative size `scale`."""
    noise = signal.lfilter([1.0], [1.0, -correlation], np.random.default_rng(seed).standard_normal(len(level)))
    return np.asarray(level * (1 + scale * noise))


# --- where it starts


def test_a_ramp_is_cut_where_it_ends() -> None:
    ramp = np.minimum(1.0, np.arange(300) / 60)
    cuts = [window.steady_start(noisy(1000 * ramp, seed)) for seed in range(50)]
    assert all(cut is not None and 45 <= cut <= 75 for cut in cuts)


def test_a_settled_series_keeps_its_start() -> None:
    cuts = [window.steady_start(noisy(np.full(300, 1000.0), seed)) for seed in range(100)]
    assert sum(cut == 0 for cut in cuts) >= 80
    assert all(cut is not None and cut <= 60 for cut in cuts)
    assert window.steady_start(np.full(200, 7.0)) == 0


def test_a_series_that_never_settles_has_no_start() -> None:
    assert all(window.steady_start(noisy(np.linspace(1, 5, 300), seed)) is None for seed in range(20))


def test_too_short_a_series_has_no_start() -> None:
    assert window.steady_start([1.0, 2.0]) is None


def test_the_cut_does_not_choose_the_calm_part() -> None:
    # A series that is stationary from its first value, with long spells: MSER-5 would cut the high ones away.
    means = []
    for seed in range(300):
        noise = np.random.default_rng(seed).standard_normal(600)
        series = np.exp(np.asarray(signal.lfilter([1.0], [1.0, -0.97], noise)) * 0.25)
        cut = window.steady_start(series)
        if cut is not None:
            means.append(series[cut:].mean())
    truth = float(np.exp(0.25**2 / (1 - 0.97**2) / 2))
    assert len(means) > 280
    assert np.mean(means) == pytest.approx(truth, rel=0.08)


# --- a step


def paces(faster: float, seed: int) -> tuple[Floats, Floats]:
    """Token rate and TPOT of a closed loop whose service is `faster` times as fast from the middle on.

    In a closed loop a faster service is the same run at a faster clock.
    """
    trace = simulate(
        Concurrency(16), "demo", input_tokens=(256, 0.5), output_tokens=(64, 0.66), requests=700, seed=seed
    )
    start, end = int(np.sort(trace.ended_ns)[31]), int(trace.sent_ns[-1])
    middle = (start + end) // 2

    def warped(times: NDArray[np.int64]) -> NDArray[np.int64]:
        return np.where(times > middle, middle + ((times - middle) / faster).astype(np.int64), times)

    events, last = warped(trace.hi_ns), warped(np.asarray([end]))
    rate = stats.binned(events, trace.tokens, start, int(last[0]), 100)
    first, final = events[trace.offsets[:-1]], events[trace.offsets[1:] - 1]
    with np.errstate(invalid="ignore", divide="ignore"):
        tpot = (final - first) / (trace.output_tokens - 1)
    return rate, tpot[(trace.sent_ns > start) & (trace.sent_ns <= end)]


@pytest.mark.slow
def test_a_service_that_turns_faster_is_noticed_and_a_constant_one_is_not() -> None:
    noticed = {1.0: 0, 1.3: 0}
    for faster in noticed:
        for seed in range(100):
            rate, tpot = paces(faster, seed)
            noticed[faster] += window.change_in(rate) is not None or window.change_in(tpot) is not None
    assert noticed[1.3] >= 95
    assert noticed[1.0] <= 5


def test_a_step_is_found_where_it_is() -> None:
    level = np.where(np.arange(400) < 250, 20.0, 26.0)
    step = window.change_in(noisy(level, 3))
    assert step is not None
    assert 235 <= step.index <= 265
    assert step.before == pytest.approx(20.0, rel=0.05)
    assert step.after == pytest.approx(26.0, rel=0.05)
    assert 0 < step.p_value < 0.0075


def test_values_that_are_missing_do_not_move_the_step() -> None:
    series = noisy(np.where(np.arange(400) < 200, 20.0, 26.0), 5)
    series[::7] = np.nan
    step = window.change_in(series)
    assert step is not None
    assert 180 <= step.index <= 220


def test_a_small_step_is_no_news() -> None:
    level = np.where(np.arange(1000) < 500, 100.0, 104.0)
    assert window.change_in(noisy(level, 1, scale=0.01)) is None
    assert window.change_in(noisy(level, 1, scale=0.01), smallest=0.02) is not None


def test_correlation_alone_is_no_step() -> None:
    found = [window.change_in(noisy(np.full(500, 50.0), seed, correlation=0.9, scale=0.08)) for seed in range(200)]
    assert sum(step is not None for step in found) <= 8


@pytest.mark.parametrize("series", [np.full(100, 3.0), np.arange(10.0), np.full(100, np.nan)])
def test_nothing_to_see(series: Floats) -> None:
    assert window.change_in(series) is None


def test_the_tests_critical_values_are_those_of_shao_and_zhang() -> None:
    # Table 1 of the paper, one dimension: 29.6 at 10%, 40.1 at 5%, 52.2 at 2.5%, 68.6 at 1%.
    null = window._null_statistics()
    assert np.quantile(null, 0.90) == pytest.approx(29.6, rel=0.08)
    assert np.quantile(null, 0.95) == pytest.approx(40.1, rel=0.08)
    assert np.quantile(null, 0.99) == pytest.approx(68.6, rel=0.12)


# --- a backlog


def growth(requests_per_s: float, seed: int) -> window.Growth:
    trace = simulate(
        Rate(requests_per_s), "demo", input_tokens=(256, 0.5), output_tokens=(64, 0.66), requests=1200, seed=seed
    )
    late = np.arange(len(trace)) >= 300
    flying = metrics.in_flight(trace)
    found = window.backlog_growth(trace.sent_ns[late], flying[late], metrics.ttft_ms(trace)[late])
    assert found is not None
    return found


@pytest.mark.slow(shared=True)
def test_a_backlog_that_grows_without_end_is_told_from_one_that_wanders() -> None:
    # The demo endpoint can serve some 37 requests/s of these.
    assert sum(growth(30.0, seed).beyond for seed in range(20)) == 0
    assert sum(growth(46.0, seed).beyond for seed in range(20)) == 20


def test_the_slopes_have_intervals_around_them() -> None:
    found = growth(46.0, 1)
    # What cannot be served piles up: 46 - 37 requests each second.
    assert found.in_flight_low < found.in_flight_per_s < found.in_flight_high
    assert found.in_flight_per_s == pytest.approx(9, abs=4)
    assert found.ttft_low < found.ttft_per_s < found.ttft_high


def test_too_few_requests_have_no_slope() -> None:
    assert window.backlog_growth(np.arange(10), np.arange(10), np.arange(10.0)) is None
    assert window.backlog_growth(np.zeros(100), np.arange(100), np.arange(100.0)) is None
