"""The belief about the boundary, on levels whose truth is known."""

from __future__ import annotations

import numpy as np
import pytest

from pacemark.answers.boundary import DRAWS, Belief, Reading, believe, most_met, read
from pacemark.figures.conditions import Condition


def condition(values: list[float] | np.ndarray, quantile: float | None = 0.95, name: str = "ttft p95") -> Condition:
    return Condition(name, np.asarray(values, dtype=np.float64), quantile, 500.0)


def errors(failed: int, n: int, most: float = 0.01) -> Condition:
    every = n // failed if failed else n + 1
    return Condition("errors", (np.arange(n) % every == every - 1) / most, None, most)


def level(load: float, value: float, scatter: float = 0.01, failed: float = 0.0) -> Reading:
    """A reading of one metric and of errors, by hand."""
    draws = value + scatter * np.random.default_rng(int(load)).normal(size=DRAWS)
    none = np.full(DRAWS, failed)
    return Reading(
        load, ("tpot p95", "errors"), np.array([value, failed]), np.array([draws, none]), np.array([50.0, 0.01]), 100
    )


# --- one level


@pytest.mark.parametrize(("quantile", "truth"), [(0.5, 1.0), (0.95, np.exp(1.6449 * 0.3)), (None, np.exp(0.045))])
def test_readings_hold_the_truth_as_often_as_they_say(quantile: float | None, truth: float) -> None:
    rng = np.random.default_rng(3)
    held = 0
    for seed in range(200):
        reading = read(1, [condition(rng.lognormal(0, 0.3, 200), quantile), errors(0, 200)], seed)
        low, high = np.quantile(reading.draws[0], [0.025, 0.975])
        held += bool(low <= truth <= high)
    assert held >= 180


def test_requests_that_are_slow_together_say_less() -> None:
    rng = np.random.default_rng(5)
    alone = 1 + 0.1 * rng.normal(size=400)
    together = 1 + 0.1 * np.repeat(rng.normal(size=20), 20)
    widths = [np.ptp(np.quantile(read(1, [condition(x, 0.5)], 1).draws[0], [0.025, 0.975])) for x in (alone, together)]
    assert widths[1] > 2 * widths[0]


@pytest.mark.parametrize("n", [3, 12, 80])
def test_where_every_request_failed_nothing_is_within(n: int) -> None:
    reading = read(1, [condition([1e9] * n), errors(n, n)], 1)
    assert reading.values[1] == 100
    assert np.isfinite(reading.draws).all()
    assert reading.within < 0.01


def test_one_request_alone_is_not_certain() -> None:
    assert read(1, [condition([0.8]), errors(0, 1)], 1).verdict is None
    assert read(1, [condition([0.01]), errors(0, 1)], 1).verdict is True


def test_a_reading_is_the_same_for_the_same_seed() -> None:
    scores = np.random.default_rng(1).random(50)
    one, same, other = (read(1, [condition(scores)], seed).draws for seed in (4, 4, 5))
    assert np.array_equal(one, same)
    assert not np.array_equal(one, other)


def test_within_and_clear() -> None:
    rng = np.random.default_rng(2)
    far_below = read(1, [condition(0.5 + 0.02 * rng.random(300)), errors(0, 300)], 1)
    far_above = read(1, [condition(1.5 + 0.02 * rng.random(300)), errors(0, 300)], 1)
    near = read(1, [condition(0.7 + 0.3 * rng.random(60)), errors(0, 60)], 1)
    assert far_below.within == 1
    assert far_above.within == 0
    assert far_below.clear()
    assert far_above.clear()
    assert not near.clear()


def test_errors_come_first() -> None:
    """Failed requests are infinitely late as well; what is wrong is that they failed."""
    late = condition([0.5, 0.5, 0.5, 0.5, np.inf] * 10)
    reading = read(1, [late, errors(10, 50)], 1)
    assert reading.within < 0.01
    assert reading.names[reading.worst] == "errors"
    assert reading.values[reading.worst] == pytest.approx(20)


def test_no_error_seen_counts_as_none() -> None:
    reading = read(1, [condition([0.5] * 50), errors(0, 50)], 1)
    assert np.all(reading.draws[1] == 0)


# --- the belief


def interval(belief: Belief) -> tuple[float, float]:
    return belief.interval()


def test_a_line_is_followed() -> None:
    belief = believe([level(x, 0.5 + 0.025 * x) for x in (1, 2, 4, 8, 16, 32)])
    low, high = interval(belief)
    assert low <= 20 <= high
    assert high - low < 16
    assert belief.binds == ("tpot p95",)


def test_levels_on_both_sides_narrow_it() -> None:
    wide = believe([level(x, 0.5 + 0.025 * x, 0.003) for x in (8, 32)])
    narrow = believe([level(x, 0.5 + 0.025 * x, 0.003) for x in (8, 19, 21, 32)])
    assert np.ptp(interval(narrow)) < 0.5 * np.ptp(interval(wide))
    assert interval(narrow)[0] >= 18.5
    assert interval(narrow)[1] <= 21.5


def test_a_bend_between_two_levels_is_allowed_for() -> None:
    """Flat up to 24 and steep from there on: the levels at 16 and 32 cannot tell where it bends."""
    flat_then_steep = [level(x, 0.6, 0.005) for x in (4, 8, 16)] + [level(32, 3.0, 0.005)]
    low, high = interval(believe(flat_then_steep))
    assert low < 20
    assert high > 28


def test_noise_is_made_monotone() -> None:
    """The level at 12 looks worse than the one at 16; together they say that the boundary lies above both."""
    belief = believe([level(8, 0.8, 0.02), level(12, 0.97, 0.2), level(16, 0.9, 0.005), level(20, 1.1, 0.005)])
    low, high = interval(belief)
    assert low >= 15
    assert high <= 20


def test_a_slow_first_level_does_not_hide_the_boundary() -> None:
    """Isotonic regression outvotes a first level over its limit by better ones behind it."""
    belief = believe([level(1, 1.05, 0.1), level(2, 0.7), level(4, 0.72), level(8, 0.8), level(16, 1.2)])
    assert belief.middle > 8


def test_where_nothing_misses_it_is_open_above() -> None:
    assert believe([level(x, 0.3, 1e-6) for x in (1, 2, 4)]).at(0.5) > 100


def test_errors_bind_where_they_begin() -> None:
    belief = believe([level(8, 0.5), level(16, 0.6, failed=0.0), level(17, 900.0, failed=6.0)])
    assert belief.binds[0] == "errors"
    assert 16 <= belief.middle <= 17


def test_over_from_the_start() -> None:
    assert believe([level(1, 2.0), level(2, 2.2)]).at(0.975) < 1


def test_no_answer_is_a_measured_load_that_misses() -> None:
    readings = [level(4, 0.5), level(5, 1.02), level(6, 1.1), level(8, 0.9)]
    assert most_met(readings, 6, whole=True) == 4
    assert most_met(readings, 7, whole=True) == 7
    assert most_met(readings, 6, whole=False) == 4
    assert most_met([level(5, 1.02)], 5, whole=True) == 5  # there is none below
