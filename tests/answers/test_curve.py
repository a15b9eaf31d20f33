import subprocess
import sys
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pacemark.answers.curve import named, operating_points
from pacemark.pace import Concurrency, Rate
from pacemark.summary import Figure, Level, OperatingPoint, OperatingPoints
from support.samples import engine_level, known, level, sweep, troubled


def at(
    concurrency: int, tokens: float | None, latency: float | None = None, *, share: float = 0.0, status: Any = "valid"
) -> Level:
    """A level with this throughput and, p50 and p95 alike, this latency in ms."""
    pair = None if latency is None else (latency, latency)
    return level(
        Concurrency(concurrency),
        tokens_per_s=tokens,
        ttft_ms=None,
        tpot_ms=None,
        latency_ms=pair,
        share=share,
        status=status,
    )


def load_of(point: OperatingPoint | None) -> float | None:
    return None if point is None else point.load.value


def p50(level: Level) -> float:
    return known(level.latency_ms.p50.value)


def tokens_of(level: Level) -> float:
    return known(level.output_tokens_per_s.value)


def test_a_sweep_with_a_knee() -> None:
    points = sweep().operating_points
    assert load_of(points.lowest_latency) == 1
    assert load_of(points.balanced) == 16  # the last level before the 24 slots are full
    assert load_of(points.highest_throughput) == 32  # 64 gives 0.6% more, at twice the latency
    assert points.within_budget is None


def test_each_reason_is_one_sentence_with_its_numbers() -> None:
    points = sweep().operating_points
    for _, point in named(points):
        assert point.why.endswith(".")
        assert ". " not in point.why
    assert "1.09 s" in known(points.lowest_latency).why
    assert "Kleinrock's power" in known(points.balanced).why
    assert "Databricks" not in known(points.balanced).why  # its words are for its targets
    assert "80% of the highest throughput" in known(points.balanced).why
    assert "0.6% below the 1,399 output tokens/s of concurrency 64" in known(points.highest_throughput).why
    assert "2.95 s instead of 5.86 s" in known(points.highest_throughput).why


@given(
    st.lists(
        st.tuples(st.floats(1, 1e5), st.floats(1, 1e5), st.sampled_from(["valid", "suspect", "invalid"])),
        min_size=2,
        max_size=8,
    )
)
def test_points_are_the_optima_of_the_levels_that_are_not_invalid(rows: list[tuple[float, float, Any]]) -> None:
    levels = [at(n + 1, tokens, latency, status=status) for n, (tokens, latency, status) in enumerate(rows)]
    usable = [x for x in levels if x.verdict.status != "invalid"]
    points = operating_points(levels)
    if len(usable) < 2:
        assert points == OperatingPoints()
        return
    by_load = {x.load: x for x in usable}
    assert {point.load for _, point in named(points)} <= set(by_load)
    assert len(named(points)) == 3
    low = by_load[known(points.lowest_latency).load]
    assert p50(low) == min(map(p50, usable))
    power = {load: tokens_of(x) / known(x.latency_ms.mean.value) for load, x in by_load.items()}
    assert power[known(points.balanced).load] == max(power.values())
    plateau = [x for x in usable if tokens_of(x) >= 0.99 * max(map(tokens_of, usable))]
    assert known(points.highest_throughput).load == min(plateau, key=lambda x: x.load.value).load


def test_figures_of_a_point_are_those_of_its_level() -> None:
    levels = [engine_level(n) for n in (1, 8)]
    assert known(operating_points(levels).balanced).output_tokens_per_s == levels[1].output_tokens_per_s


@pytest.mark.parametrize(
    ("share", "chosen"),
    [
        (0.0, 32),  # 4% apart and no noise: the higher load is better
        (0.02, 32),  # 2% on each side: the difference's interval is 2.8%
        (0.04, 16),  # 4% on each side: the difference's interval is 5.6%, so 16 may be as good
    ],
)
def test_the_plateau_is_as_wide_as_the_noise(share: float, chosen: int) -> None:
    levels = [at(4, 500, 100), at(16, 960, 200, share=share), at(32, 1000, 400, share=share)]
    assert load_of(operating_points(levels).highest_throughput) == chosen


def test_no_noise_makes_ten_percent_a_plateau() -> None:
    levels = [at(4, 500, 100), at(16, 900, 200, share=0.5), at(32, 1000, 400, share=0.5)]
    assert load_of(operating_points(levels).highest_throughput) == 32


def test_a_curve_that_still_rises_says_so() -> None:
    rising, flat = (known(operating_points([at(1, 100, 9), at(2, top, 9)]).highest_throughput) for top in (200, 103))
    assert "still rising, by 100% over concurrency 1" in rising.why
    assert "rising" not in flat.why


def test_a_peak_at_the_end_of_the_curve_may_lie_higher() -> None:
    rising, bent = (known(operating_points([at(1, 100, 9), at(2, 200, last)]).balanced) for last in (9, 90))
    assert (load_of(rising), load_of(bent)) == (2, 1)
    assert "and the end of the curve, so the peak may lie higher" in rising.why
    assert "higher" not in bent.why


def test_invalid_levels_are_never_chosen() -> None:
    points = troubled().operating_points
    assert {point.load.value for _, point in named(points)} <= {1, 4, 16}


def test_one_usable_level_is_no_curve() -> None:
    assert operating_points([]) == OperatingPoints()
    assert operating_points([at(8, 100, 10)]) == OperatingPoints()
    assert operating_points([at(8, 100, 10), at(9, 200, 10, status="invalid"), at(10, None)]) == OperatingPoints()


def test_levels_without_latency_leave_the_throughput_points() -> None:
    points = operating_points([at(1, 100), at(2, 150)])
    assert points.lowest_latency is None
    assert points.balanced is None
    assert load_of(points.highest_throughput) == 2


def test_a_level_that_let_nothing_through_is_no_choice() -> None:
    points = operating_points([at(1, 0.0, 10), at(2, 50, 20), at(4, 60, 20)])
    assert load_of(points.lowest_latency) == 2


def test_within_a_budget_the_most_load_counts() -> None:
    levels = [at(1, 100, 10), at(4, 300, 20), at(8, 400, 50)]
    points = operating_points(levels, lambda x: p50(x) <= 20)
    assert load_of(points.within_budget) == 4
    assert "meet the budget" in known(points.within_budget).why
    assert next(name for name, _ in named(points)) == "within budget"
    assert operating_points(levels, lambda x: False).within_budget is None


def test_a_budget_can_be_met_by_a_single_level() -> None:
    assert load_of(operating_points([at(8, 100, 10)], lambda x: True).within_budget) == 8


def test_open_loop_levels_make_points_too() -> None:
    levels = [
        level(Rate(r), tokens_per_s=100 * r, ttft_ms=None, tpot_ms=None, latency_ms=(1000 * r, 2000 * r))
        for r in (0.5, 4.0)
    ]
    points = operating_points(levels)
    assert known(points.lowest_latency).load == Rate(0.5)
    assert known(points.highest_throughput).load == Rate(4.0)


def test_intervals_with_one_end_are_no_interval() -> None:
    odd = Figure(960, None, 1200)
    levels = [at(4, 500, 100), at(32, 1000, 400)]
    levels.insert(1, msgspec.structs.replace(at(16, 960, 200), output_tokens_per_s=odd))
    assert load_of(operating_points(levels).highest_throughput) in (16, 32)


def test_stays_light() -> None:
    code = (
        "import sys, pacemark.answers.curve, pacemark.reporting.progress\n"
        "print([x for x in sys.modules if x in ('altair', 'rich', 'vl_convert')])"
    )
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert said.stdout.strip() == "[]"
