"""Intervals: what they hold, when they refuse, and that they are what their sources say."""

import math
import time

import numpy as np
import pytest
from scipy import special

from pacemark.figures import longrun, quantiles, stats
from pacemark.figures.estimate import Estimate
from pacemark.summary import Figure
from support.needed import late

signal = late("scipy.signal")

RNG = np.random.default_rng


def autoregressive(correlation: float, n: int, seed: int) -> np.ndarray:
    """A Gaussian AR(1) series of unit variance."""
    noise = RNG(seed).standard_normal(n)
    noise[1:] *= math.sqrt(1 - correlation**2)
    return np.asarray(signal.lfilter([1.0], [1.0, -correlation], noise))


def queueing(utilisation: float, n: int, seed: int) -> np.ndarray:
    """Times in an M/M/1 queue that begins empty, service taking 1 on average."""
    gap, service = RNG(seed).exponential([[1 / utilisation], [1.0]], (2, n))
    walk = np.cumsum(np.concatenate([[0.0], service[:-1] - gap[1:]]))
    return np.asarray(walk - np.minimum.accumulate(walk) + service)


def rarely_held_up(n: int, seed: int) -> np.ndarray:
    """Independent times; once in a thousand all are held up, some thirty at a time, less and less."""
    rng = RNG(seed)
    x = rng.exponential(size=n)
    for at in np.flatnonzero(rng.random(n) < 0.001):
        count = 1 + int(rng.geometric(1 / 30))
        x[at : at + count] += rng.exponential(5.0) * np.linspace(1, 0, count)[: n - at]
    return x


def share_covering(truth: float, estimates: list[Estimate]) -> float:
    given = [e.figure for e in estimates if not e.refused]
    assert len(given) > 0.9 * len(estimates)
    return float(np.mean([f.low <= truth <= f.high for f in given if f.low is not None and f.high is not None]))


# --- long-run variance


def test_the_long_run_variance_of_an_autoregressive_series_is_its_theory() -> None:
    # Of AR(1) with unit variance it is (1 + rho) / (1 - rho), and so is the integrated correlation time.
    runs = [longrun.long_run(autoregressive(0.8, 2000, seed)) for seed in range(100)]
    assert np.mean([run.variance for run in runs]) == pytest.approx(9.0, rel=0.15)
    assert np.median([run.time for run in runs]) == pytest.approx(9.0, rel=0.25)
    assert all(run.growth == 1.0 for run in runs)


def test_independent_values_have_their_own_variance() -> None:
    runs = [longrun.long_run(RNG(seed).exponential(size=5000)) for seed in range(60)]
    assert np.mean([run.variance for run in runs]) == pytest.approx(1.0, rel=0.1)


def test_a_series_shorter_than_its_memory_is_not_trusted() -> None:
    assert longrun.long_run(autoregressive(0.995, 400, 1)).growth > 1


# --- coverage: small versions of benchmarks/coverage.py, wide enough not to fail by chance


@pytest.mark.parametrize("correlation", [0.0, 0.9])
def test_intervals_hold_the_truth_whether_or_not_neighbours_are_alike(correlation: float) -> None:
    series = [np.exp(autoregressive(correlation, 2000, seed)) for seed in range(300)]
    assert 0.90 <= share_covering(math.exp(0.5), [stats.mean_interval(x) for x in series]) <= 1.0
    assert 0.91 <= share_covering(1.0, [quantiles.quantile_interval(x, 0.5) for x in series]) <= 1.0
    p95 = math.exp(float(special.ndtri(0.95)))
    assert 0.91 <= share_covering(p95, [quantiles.quantile_interval(x, 0.95) for x in series]) <= 1.0


@pytest.mark.trap("intervals for independent requests")
def test_plain_order_statistics_would_have_failed_the_same_series() -> None:
    held = 0
    for seed in range(200):
        ordered = np.sort(autoregressive(0.9, 2000, seed))
        spread = 1.96 * math.sqrt(2000 * 0.25)
        held += ordered[int(1000 - spread)] <= 0 <= ordered[int(1000 + spread)]
    assert held / 200 < 0.6


def test_intervals_hold_the_times_in_a_queue_whose_episodes_one_run_hardly_sees() -> None:
    runs = [queueing(0.85, 5000, seed)[1000:] for seed in range(150)]
    mean = 1 / (1 - 0.85)
    assert share_covering(mean, [stats.mean_interval(run) for run in runs]) >= 0.92
    for q in (0.5, 0.95):
        assert share_covering(-mean * math.log(1 - q), [quantiles.quantile_interval(run, q) for run in runs]) >= 0.90


def test_the_interval_of_p99_holds_it_where_most_of_what_decides_it_was_missed() -> None:
    truth = float(np.quantile(rarely_held_up(1_000_000, 1), 0.99))
    estimates = [quantiles.quantile_interval(rarely_held_up(6000, seed), 0.99) for seed in range(10, 110)]
    assert share_covering(truth, estimates) >= 0.91  # 84% where many groups beyond it pass for a well known size


def test_an_upper_limit_may_lie_beyond_all_that_was_seen() -> None:
    runs = [queueing(0.85, 3000, seed)[1000:] for seed in range(40)]
    highs = [(quantiles.quantile_interval(run, 0.95).figure.high, run.max()) for run in runs]
    beyond = [high / largest for high, largest in highs if high is not None and high > largest]
    assert len(beyond) >= 10
    assert max(beyond) < 10


def test_the_interval_narrows_with_the_root_of_the_sample() -> None:
    short = np.mean([stats.mean_interval(1 + RNG(s).random(1000)).half_width or 9 for s in range(40)])
    long = np.mean([stats.mean_interval(1 + RNG(s).random(16_000)).half_width or 9 for s in range(40)])
    assert short / long == pytest.approx(4.0, rel=0.2)


def test_a_skewed_sample_reaches_further_up_than_down() -> None:
    wider = 0
    for seed in range(20):
        figure = stats.mean_interval(RNG(seed).pareto(2.5, 2000)).figure
        assert figure.low is not None
        assert figure.high is not None
        assert figure.value is not None
        wider += figure.high - figure.value > figure.value - figure.low
    assert wider >= 19


# --- refusal and bounds


def test_a_quantile_that_the_sample_cannot_support_is_a_bound() -> None:
    x = RNG(0).exponential(size=60)
    estimate = quantiles.quantile_interval(x, 0.99)
    assert estimate.figure.value is None
    assert estimate.figure.high is None
    assert estimate.figure.low is not None
    assert np.median(x) < estimate.figure.low < x.max()
    assert estimate.message() == f"insufficient: about {estimate.needed()} more requests needed"
    # The largest of n exceeds the 99th percentile in 97.5% of samples from n = 368 on.
    assert estimate.needed() >= 300


def test_the_bound_holds() -> None:
    truth = -math.log(0.01)
    bounds = [quantiles.quantile_interval(RNG(s).exponential(size=60), 0.99).figure.low for s in range(300)]
    assert np.mean([low is not None and low <= truth for low in bounds]) >= 0.95


def test_enough_requests_get_an_interval_after_a_refusal() -> None:
    x = RNG(4).exponential(size=5000)
    first = quantiles.quantile_interval(x[:100], 0.99)
    assert first.refused
    assert not quantiles.quantile_interval(x[: 100 + 2 * first.needed()], 0.99).refused


def test_strong_correlation_is_refused_and_says_how_much_is_missing() -> None:
    estimates = [stats.mean_interval(10 + autoregressive(0.995, 200, seed)) for seed in range(40)]
    refused = [estimate for estimate in estimates if estimate.refused]
    assert len(refused) > 20
    for estimate in refused:
        assert estimate.figure.value is not None
        assert estimate.needed() > 0
        assert estimate.needed(requests=400) == pytest.approx(2 * estimate.needed(), rel=0.25, abs=1)
        assert estimate.message() == f"insufficient: about {estimate.needed()} more requests needed"


def test_nothing_is_said_of_nothing() -> None:
    assert stats.mean_interval([]).figure == Figure()
    assert quantiles.quantile_interval([], 0.5).message() == "insufficient: no values"
    assert stats.share_interval([]).figure == Figure()
    assert stats.mean_interval([1.0, 2.0, 3.0]).refused
    assert stats.mean_interval([math.nan, math.nan]).n == 0


def test_requests_without_a_value_are_left_out() -> None:
    x = RNG(1).random(500)
    with_gaps = np.insert(x, [0, 100, 500], np.nan)
    assert stats.mean_interval(with_gaps) == stats.mean_interval(x)
    assert quantiles.quantile_interval(with_gaps, 0.9) == quantiles.quantile_interval(x, 0.9)


def test_a_fixed_timeline_has_an_interval_of_no_width() -> None:
    for x in (np.full(300, 200.0), np.full(300, 1e-9), np.zeros(300)):
        figure = stats.mean_interval(x).figure
        assert figure.low == pytest.approx(x[0], abs=1e-15)
        assert figure.high == pytest.approx(x[0], abs=1e-15)
        assert quantiles.quantile_interval(x, 0.95).figure == Figure(x[0], x[0], x[0])


@pytest.mark.parametrize("q", [0.0, 1.0, -0.1, 95.0])
def test_a_quantile_outside_the_unit_interval_is_an_error(q: float) -> None:
    with pytest.raises(ValueError, match="between 0 and 1"):
        quantiles.quantile_interval([1.0, 2.0], q)


# --- censoring


def test_censored_values_enter_as_kaplan_and_meier_say() -> None:
    # The worked example of Kaplan and Meier's estimate: survival 0.8, 0.6, 0.3 after 1, 2 and 4; 3 and 5 are cut off.
    x, cut = np.asarray([1.0, 2.0, 3.0, 4.0, 5.0]), np.asarray([False, False, True, False, True])
    sample = quantiles._Sample(x, cut)
    assert sample.reached == pytest.approx([0.2, 0.4, 0.4, 0.7, 0.7])
    assert sample.at(0.4) == 2.0
    assert sample.at(0.5) == 4.0
    assert sample.at(0.8) is None
    # Efron's self-consistency: the shares below a value average to the estimate there.
    for value in x:
        assert sample.below(value).mean() == pytest.approx(sample._distribution(np.asarray([value]))[0])


def test_dropping_long_requests_would_bias_what_censoring_keeps() -> None:
    rng = RNG(7)
    x, limit = rng.exponential(1.0, 4000), rng.exponential(2.0, 4000)
    cut = limit < x
    seen = np.minimum(x, limit)
    kept = quantiles.quantile_interval(seen, 0.5, cut).figure
    dropped = quantiles.quantile_interval(seen[~cut], 0.5).figure
    assert kept.low is not None
    assert kept.high is not None
    assert kept.low < math.log(2) < kept.high
    assert dropped.high is not None
    assert dropped.high < math.log(2)


def test_what_was_cut_off_costs_certainty() -> None:
    widths = []
    for seed in range(20):
        x, limit = RNG(seed).exponential([[1.0], [2.0]], (2, 4000))
        kept, whole = (
            quantiles.quantile_interval(np.minimum(x, limit), 0.5, limit < x),
            quantiles.quantile_interval(x, 0.5),
        )
        assert kept.half_width is not None
        assert whole.half_width is not None
        widths.append(kept.half_width / whole.half_width)
    assert 1 < float(np.mean(widths)) < 2


def test_a_quantile_beyond_what_was_observed_is_a_bound_too() -> None:
    x = RNG(5).random(500)
    estimate = quantiles.quantile_interval(np.minimum(x, 0.7), 0.9, x > 0.7)
    assert estimate.figure.value is None
    assert estimate.figure.high is None
    assert estimate.figure.low is not None
    assert estimate.figure.low <= 0.7


def test_the_mean_of_a_censored_sample_is_bounded_from_below() -> None:
    x = RNG(6).exponential(size=1000)
    figure = stats.mean_interval(np.minimum(x, 1.0), x > 1.0).figure
    assert figure.value is None
    assert figure.high is None
    assert figure.low is not None
    assert figure.low < 1.0


def test_marks_of_another_length_are_an_error() -> None:
    with pytest.raises(ValueError, match="shape"):
        stats.mean_interval(np.ones(5), np.zeros(4, dtype=bool))


# --- rates


def test_a_poisson_rate_has_the_interval_of_a_poisson_count() -> None:
    halves: list[float] = []
    held = 0
    for seed in range(200):
        times = np.cumsum(RNG(seed).exponential(0.01, 12_000))
        estimate = stats.rate_interval((times * 1e9).astype(np.int64), 1, 0, 100 * 10**9)
        assert estimate.figure.low is not None
        assert estimate.figure.high is not None
        halves.append((estimate.figure.high - estimate.figure.low) / 2 / 100)
        held += estimate.figure.low <= 100 <= estimate.figure.high
    assert np.mean(halves) == pytest.approx(1.96 / 100, rel=0.25)
    assert held >= 180


def test_weights_count() -> None:
    times = np.arange(1, 10_001) * 10**7
    weights = np.where(np.arange(10_000) % 2, 3, 1)
    assert stats.rate_interval(times, weights, 0, 10**11).figure.value == pytest.approx(200.0)


def test_lockstep_streams_have_a_rate_and_next_to_no_interval() -> None:
    # 32 streams in step: 128 tokens at 20 ms after 200 ms, over and over; then staggered.
    cycle = 200 + 20 * np.arange(128)
    for offsets in (np.zeros(32), np.arange(32) * 2740 / 32):
        starts = np.arange(0, 40) * 2740
        times = (offsets[:, None, None] + starts[None, :, None] + cycle[None, None, :]).ravel() * 10**6
        figure = stats.rate_interval(
            times.astype(np.int64), 1, 8_220_000_000, 8_220_000_000 + 30 * 2_740_000_000
        ).figure
        assert figure.value == pytest.approx(32 * 128 / 2.74, rel=1e-3)
        assert figure.value is not None
        assert figure.low is not None
        assert figure.high is not None
        assert (figure.high - figure.low) / 2 < 0.01 * figure.value


def test_only_what_lies_in_the_window_counts() -> None:
    assert stats.binned([0, 5, 10, 11, 20], 1, 0, 20, 2).tolist() == [2.0, 2.0]
    with pytest.raises(ValueError, match="end after"):
        stats.rate_interval([1], 1, 5, 5)


# --- shares


def test_a_ratio_has_an_interval_that_holds_it() -> None:
    """Tokens per cycle, where a long cycle has many tokens: the two must be taken together."""
    held, widths = 0, []
    for seed in range(300):
        rng = np.random.default_rng(seed)
        tokens = np.maximum(1, rng.lognormal(4.6, 0.6, 400))
        cycles = 0.2 + 0.02 * tokens * rng.lognormal(0, 0.05, 400)
        found = stats.ratio_interval(tokens, cycles)
        assert found.figure.low is not None
        assert found.figure.high is not None
        truth = np.exp(4.6 + 0.18) / (0.2 + 0.02 * np.exp(4.6 + 0.18) * np.exp(0.05**2 / 2))
        held += found.figure.low <= truth <= found.figure.high
        widths.append(found.half_width)
    assert held >= 276
    assert max(w for w in widths if w is not None) < 0.02
    with pytest.raises(ValueError, match="sum to 0"):
        stats.ratio_interval([1.0], [0.0])


def test_a_share_of_independent_requests_has_clopper_and_pearsons_interval() -> None:
    assert stats._share_limits(0.05, 100, 0.95) == pytest.approx((0.01643, 0.11283), abs=2e-5)
    whole = stats.share_interval(np.ones(100, dtype=bool)).figure
    assert (whole.value, whole.low, whole.high) == pytest.approx((1.0, 0.96378, 1.0), abs=1e-5)


def test_clustered_misses_widen_a_share() -> None:
    rng = RNG(2)
    apart = rng.random(4000) < 0.1
    together = np.repeat(rng.random(100) < 0.1, 40)
    assert longrun.overdispersion(apart) < 2.5
    assert 15 < longrun.overdispersion(together) < 90
    wide, narrow = stats.share_interval(together), stats.share_interval(apart)
    assert wide.half_width is not None
    assert narrow.half_width is not None
    assert wide.half_width > 3 * narrow.half_width
    assert longrun.overdispersion(np.zeros(50)) == 1.0
    assert longrun.overdispersion([]) == 1.0


# --- MLPerf's early stopping


@pytest.mark.parametrize(("q", "least"), [(0.90, 64), (0.95, 130), (0.99, 662)])
def test_certified_quantiles_start_where_loadgens_do(q: float, least: int) -> None:
    x = RNG(0).random(least)
    assert quantiles.certified_quantile(x[:-1], q) is None
    assert quantiles.certified_quantile(x, q) == x.max()


def test_a_certified_quantile_is_hardly_ever_below_the_true_one() -> None:
    found = [quantiles.certified_quantile(RNG(s).random(2000), 0.99) for s in range(400)]
    below = np.mean([value is not None and value < 0.99 for value in found])
    assert below <= 0.02


def test_overdispersion_costs_certified_quantiles_requests() -> None:
    x = RNG(3).random(3000)
    plain, careful = quantiles.certified_quantile(x, 0.99), quantiles.certified_quantile(x, 0.99, phi=3.0)
    assert plain is not None
    assert careful is not None
    assert plain < careful
    assert quantiles.certified_quantile(x, 0.99, phi=6.0) is None


# --- several runs, and when to stop


def test_runs_combine_by_what_differs_between_them() -> None:
    figures = [Figure(v, v - 0.1, v + 0.1) for v in (10.0, 11.0, 12.0)]
    whole = stats.replicated(figures)
    assert whole.figure.value == 11.0
    assert whole.figure.high == pytest.approx(11.0 + 4.3027 / math.sqrt(3), abs=1e-3)
    assert whole.between == pytest.approx(1.0)
    assert whole.within == pytest.approx(0.1 / 1.96, rel=1e-3)
    assert stats.replicated(figures[:2]).figure == Figure(10.5)
    assert stats.replicated([Figure(), Figure(3.0)]).figure == Figure(3.0)
    assert stats.replicated([]).figure == Figure()


def test_looks_share_the_error_between_them() -> None:
    assert stats.look_confidence(1) == pytest.approx(0.95, abs=1e-9)
    levels = [stats.look_confidence(k) for k in (1, 2, 4, 8)]
    assert levels == sorted(levels)
    assert levels[-1] < 1 - 0.05 / 8  # correlated looks cost less than Bonferroni's share
    # By simulation: means at n, 2n, 4n and 8n, all of them inside their limits.
    z = RNG(9).standard_normal((40_000, 8)).cumsum(axis=1)[:, [0, 1, 3, 7]] / np.sqrt([1, 2, 4, 8])
    limit = float(special.ndtri(0.5 + stats.look_confidence(4) / 2))
    assert np.mean(np.abs(z).max(axis=1) <= limit) == pytest.approx(0.95, abs=0.004)
    with pytest.raises(ValueError, match="at least one look"):
        stats.look_confidence(0)


def test_precise_enough_wants_every_interval_and_each_within_the_target() -> None:
    narrow, wide = Estimate(Figure(100.0, 97.0, 103.0), 500, 500), Estimate(Figure(100.0, 90.0, 110.0), 500, 500)
    refused = Estimate(Figure(100.0), 500, 10, growth=2.0)
    assert stats.precise_enough([narrow, narrow], 0.05)
    assert not stats.precise_enough([narrow, wide], 0.05)
    assert not stats.precise_enough([narrow, refused], 0.05)


def test_stopping_at_doublings_keeps_the_coverage() -> None:
    confidence = stats.look_confidence(5)
    held, lengths = 0, []
    for seed in range(200):
        x = 10 + 5 * autoregressive(0.7, 16_000, seed)
        for n in (1000, 2000, 4000, 8000, 16_000):
            estimate = stats.mean_interval(x[:n], confidence=confidence)
            if stats.precise_enough([estimate], 0.05) or n == 16_000:
                break
        lengths.append(n)
        assert estimate.figure.low is not None
        assert estimate.figure.high is not None
        held += estimate.figure.low <= 10 <= estimate.figure.high
    assert len(set(lengths)) > 1
    assert held >= 186


# --- size


def test_a_million_values_take_no_time_to_speak_of() -> None:
    # Orders of magnitude only: minutes would mean that something is quadratic.
    x = RNG(0).gamma(2.0, size=1_000_000)
    begun = time.perf_counter()
    stats.mean_interval(x)
    quantiles.quantile_intervals(x, (0.5, 0.9, 0.95, 0.99))
    assert time.perf_counter() - begun < 20
