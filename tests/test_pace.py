"""When requests leave: the arrival processes against their theory."""

import itertools

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pacemark.pace import Concurrency, Load, Rate, arrivals, schedule
from support.needed import late

stats = late("scipy.stats")


def gaps_s(rate: Rate, count: int, seed: int = 1) -> np.ndarray:
    times = list(itertools.islice(arrivals(rate, np.random.default_rng(seed)), count))
    return np.diff([0, *times]) / 1e9


@pytest.mark.trap("constant arrivals that are Poisson")
def test_poisson_gaps_are_exponential() -> None:
    found = [float(stats.kstest(gaps_s(Rate(50.0), 5000, seed) * 50, "expon").pvalue) for seed in range(20)]
    assert min(found) > 0.001
    assert 0.2 < np.mean(found) < 0.8
    # The test can tell: constant and bursty arrivals are no Poisson process.
    assert stats.kstest(gaps_s(Rate(50.0, "constant"), 5000) * 50, "expon").pvalue < 1e-9
    assert stats.kstest(gaps_s(Rate(50.0, "gamma", 2.0), 5000) * 50, "expon").pvalue < 1e-9


@pytest.mark.parametrize("cv", [0.25, 0.5, 1.0, 2.0, 4.0])
def test_gamma_has_its_mean_and_its_coefficient_of_variation(cv: float) -> None:
    gaps = gaps_s(Rate(20.0, "gamma", cv), 200_000)
    assert gaps.mean() == pytest.approx(1 / 20, rel=0.01 + 0.01 * cv)
    assert gaps.std() / gaps.mean() == pytest.approx(cv, rel=0.03)


def test_poisson_takes_no_burstiness() -> None:
    assert np.array_equal(gaps_s(Rate(5.0, "poisson", 3.0), 100), gaps_s(Rate(5.0, "poisson", 1.0), 100))


@pytest.mark.trap("a schedule that drifts")
def test_constant_is_constant_and_does_not_drift() -> None:
    times = np.fromiter(itertools.islice(arrivals(Rate(30.0, "constant"), np.random.default_rng(0)), 200_000), np.int64)
    assert np.abs(times - np.arange(1, 200_001) * (1e9 / 30)).max() <= 2_000  # ns, after almost two hours


@given(st.sampled_from(["poisson", "constant", "gamma"]), st.floats(0.5, 2000), st.floats(0.1, 5), st.integers(0, 99))
def test_arrivals_never_go_back(kind: str, rate: float, cv: float, seed: int) -> None:
    times = list(itertools.islice(arrivals(Rate(rate, kind, cv), np.random.default_rng(seed)), 70_000))  # type: ignore[arg-type]
    assert times[0] >= 0
    assert all(a <= b for a, b in itertools.pairwise(times))


@pytest.mark.trap("gaps renormalised to the duration")
def test_the_horizon_is_fixed_and_the_count_varies() -> None:
    """A Poisson count has a variance as large as its mean; a renormalised schedule would have none."""
    counts = [len(schedule(Rate(100.0), 4.0, np.random.default_rng(seed))) for seed in range(200)]
    assert np.mean(counts) == pytest.approx(400, rel=0.02)
    assert np.var(counts) == pytest.approx(400, rel=0.35)
    last = [schedule(Rate(100.0), 4.0, np.random.default_rng(seed))[-1] for seed in range(50)]
    assert max(last) < 4_000_000_000
    assert len(set(last)) == 50


def test_a_longer_horizon_only_adds() -> None:
    short, long = (schedule(Rate(10.0), s, np.random.default_rng(3)) for s in (10.0, 60.0))
    assert np.array_equal(long[: len(short)], short)
    assert long[len(short)] >= 10_000_000_000


@pytest.mark.parametrize("workers", [1, 2, 3, 7])
def test_workers_together_send_the_whole_schedule(workers: int) -> None:
    """Every worker draws the same schedule and takes each n-th arrival, as the load generator does."""
    rate = Rate(200.0, "gamma", 2.0)
    parts = [
        list(itertools.islice(arrivals(rate, np.random.default_rng([5, 0])), worker, 1000, workers))
        for worker in range(workers)
    ]
    whole = list(itertools.islice(arrivals(rate, np.random.default_rng([5, 0])), 1000))
    assert sorted(itertools.chain(*parts)) == whole


def test_loads_go_through_json() -> None:
    for load in (Concurrency(32), Rate(2.5, "gamma", 1.5)):
        assert msgspec.json.decode(msgspec.json.encode(load), type=Load) == load
    assert msgspec.to_builtins(Rate(50.0)) == {"kind": "rate", "value": 50.0, "arrivals": "poisson", "burstiness": 1.0}
    assert str(Concurrency(3)) == "concurrency 3"
    assert str(Rate(0.5, "constant")) == "0.5 requests/s constant"
