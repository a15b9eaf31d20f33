"""Two figures and their intervals in, a verdict out."""

import math

import numpy as np
import pytest
from scipy import special

from pacemark.answers.comparison import compare
from pacemark.figures import quantiles
from pacemark.figures.estimate import Floats
from pacemark.summary import Figure, Scatter

A = Figure(100.0, 96.0, 104.0)


def test_a_difference_has_the_interval_of_two_independent_errors() -> None:
    found = compare(A, Figure(110.0, 107.0, 113.0), "latency")
    assert found.difference.value == 10.0
    assert found.difference.low == pytest.approx(10 - math.hypot(4, 3))
    assert found.difference.high == pytest.approx(10 + math.hypot(4, 3))
    assert found.ratio.value == pytest.approx(1.1)
    assert found.ratio.low is not None
    assert found.ratio.high is not None
    assert found.ratio.low < 1.1 < found.ratio.high


def test_what_figures_scatter_by_gives_a_t_interval_with_the_fewer_degrees_of_freedom() -> None:
    one, two = Scatter(1.0, 8.0), Scatter(2.0, 5.0)
    found = compare(A, Figure(110.0, 90.0, 170.0), "latency", scatter=(one, two))
    half = special.stdtrit(5, 0.975) * math.sqrt(5)
    assert found.difference == Figure(10.0, pytest.approx(10 - half), pytest.approx(10 + half))  # type: ignore[arg-type]
    relative = special.stdtrit(5, 0.975) * math.hypot(1 / 100, 2 / 110)
    assert found.ratio.high == pytest.approx(1.1 * math.exp(relative))
    assert found.ratio.low == pytest.approx(1.1 * math.exp(-relative))
    assert compare(A, Figure(110.0, None, None), "latency", scatter=(one, two)).verdict == "undecidable"


def test_each_side_of_the_difference_comes_from_its_own_sides() -> None:
    # MOVER: a long upper arm of B belongs to the upper arm of B - A, and to the lower one of A - B.
    skewed = Figure(110.0, 109.0, 150.0)
    found = compare(A, skewed, "latency").difference
    assert found.high == pytest.approx(10 + math.hypot(40, 4))
    assert found.low == pytest.approx(10 - math.hypot(1, 4))
    assert compare(skewed, A, "latency").difference.low == pytest.approx(-10 - math.hypot(40, 4))


@pytest.mark.parametrize(
    ("b", "kind", "verdict"),
    [
        (Figure(110.0, 107.0, 113.0), "latency", "slower"),
        (Figure(90.0, 87.0, 93.0), "latency", "faster"),
        (Figure(110.0, 107.0, 113.0), "rate", "higher"),
        (Figure(90.0, 87.0, 93.0), "rate", "lower"),
        (Figure(103.0, 99.0, 107.0), "latency", "no difference shown"),
        (Figure(110.0, None, None), "latency", "undecidable"),
        (Figure(None, 90.0, None), "latency", "undecidable"),
        (Figure(), "rate", "undecidable"),
    ],
)
def test_verdicts(b: Figure, kind: str, verdict: str) -> None:
    assert compare(A, b, kind).verdict == verdict  # type: ignore[arg-type]


def test_nothing_smaller_than_the_clients_own_error_is_a_difference() -> None:
    b = Figure(110.0, 107.0, 113.0)
    assert compare(A, b, "latency", client_error=9.9).verdict == "slower"
    assert compare(A, b, "latency", client_error=10.0).verdict == "no difference shown"


def test_a_run_does_not_differ_from_itself() -> None:
    for figure in (A, Figure(0.0, 0.0, 0.0), Figure(5.0, 5.0, 5.0)):
        assert compare(figure, figure, "latency").verdict == "no difference shown"


def test_what_is_not_positive_has_no_ratio() -> None:
    found = compare(Figure(1.0, -1.0, 3.0), Figure(2.0, 1.0, 3.0), "latency")
    assert found.difference.low is not None
    assert found.ratio.value == 2.0
    assert found.ratio.high is None


def test_repeats_of_a_condition_hardly_ever_differ_and_a_shift_of_a_tenth_mostly_does() -> None:
    false, found = 0, 0
    for seed in range(200):
        rng = np.random.default_rng(seed)
        a, b = rng.lognormal(3, 0.25, 400), rng.lognormal(3, 0.25, 400)
        false += verdict(a, b) != "no difference shown"
        found += verdict(a, 1.1 * b) == "slower"
    assert false <= 12
    assert found >= 180


def verdict(a: Floats, b: Floats) -> str:
    """Of the medians of two samples."""
    one, two = quantiles.quantile_interval(a, 0.5), quantiles.quantile_interval(b, 0.5)
    assert one.scatter is not None
    assert two.scatter is not None
    return compare(one.figure, two.figure, "latency", scatter=(one.scatter, two.scatter)).verdict
