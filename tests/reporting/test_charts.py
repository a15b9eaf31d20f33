import itertools
import re
from typing import Any

import altair as alt
import msgspec
import pytest
import vl_convert
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pacemark.answers.curve import operating_points
from pacemark.reporting.charts import curve as charts
from pacemark.reporting.charts import labels, theme
from pacemark.summary import Figure, Held, Level, Summary
from support import samples
from support.sampled import first

Chart = alt.LayerChart | alt.VConcatChart
ALL = ["sweep", "troubled", "single", "open_loop", "found"]


def texts(chart: Chart) -> list[str]:
    """All text of the drawn chart."""
    return re.findall(r"<text[^>]*>([^<]*)</text>", vl_convert.vegalite_to_svg(chart.to_dict(validate=False)))


@pytest.mark.parametrize("name", first(2, ALL))
def test_every_run_gives_valid_charts(name: str) -> None:
    summary = getattr(samples, name)()
    for draw in (charts.curve_chart, charts.ttft_chart, charts.tpot_chart):
        chart = draw(summary)
        assert isinstance(chart, alt.LayerChart)
        assert chart.to_dict()["title"]  # to_dict validates against the schema of Vega-Lite
    assert isinstance(charts.charts(summary), alt.VConcatChart)


def test_one_definition_gives_png_and_svg() -> None:
    chart = charts.charts(samples.sweep())
    assert vl_convert.vegalite_to_png(chart.to_dict(validate=False)).startswith(b"\x89PNG")
    assert vl_convert.vegalite_to_svg(chart.to_dict(validate=False)).startswith("<svg")


@pytest.mark.parametrize("name", first(2, ALL))
def test_each_chart_has_one_legend_of_its_own(name: str) -> None:
    chart = charts.charts(getattr(samples, name)())
    assert texts(chart).count("median") == len(chart.vconcat)


def test_the_curve_has_units_loads_and_operating_points() -> None:
    said = texts(charts.curve_chart(samples.sweep()))
    assert "Output tokens/s" in said
    assert "Request latency (s)" in said
    assert {"median", "p95", "2", "4", "8", "64"} <= set(said)
    assert {"1 · lowest latency", "16 · balanced", "32 · highest throughput"} <= set(said)


def test_short_times_are_in_ms_and_long_ones_in_s() -> None:
    assert "TPOT (ms)" in texts(charts.tpot_chart(samples.sweep()))
    assert "TTFT (s), log scale" in texts(charts.ttft_chart(samples.sweep()))
    assert "TTFT (ms)" in texts(charts.ttft_chart(samples.found()))


def test_ttft_has_three_quantiles_and_tpot_two() -> None:
    assert {"median", "p95", "p99"} <= set(texts(charts.ttft_chart(samples.sweep())))
    assert "p99" not in texts(charts.tpot_chart(samples.sweep()))


def test_the_load_axis_has_the_levels_as_ticks() -> None:
    said = texts(charts.ttft_chart(samples.sweep()))
    assert {"1", "2", "4", "8", "16", "32", "64"} <= set(said)
    assert "Concurrency (parallel requests), log scale" in said


def test_levels_are_joined_in_order_of_load_whatever_order_they_ran_in() -> None:
    summary = samples.sweep()
    shuffled = Summary(target={}, workload={}, levels=[summary.levels[n] for n in (3, 0, 6, 1, 5, 2, 4)])
    rows = rows_of(charts.curve_chart(shuffled))
    assert [row["load"] for row in rows if row["series"] == "median"] == [str(x.load) for x in summary.levels]
    assert [row["level"] for row in rows if row["series"] == "p95"] == list(range(7))


def rows_of(chart: alt.LayerChart) -> list[dict[str, Any]]:
    spec = chart.to_dict(validate=False)
    rows: list[dict[str, Any]] = spec["datasets"][spec["data"]["name"]]
    return rows


def with_marks(summary: Summary) -> Summary:
    """The run with a level that meets the budget, one that is open, and others that miss it."""
    marks: list[Any] = ["met", "open", *["missed"] * len(summary.levels)]
    levels = [
        msgspec.structs.replace(level, budget=Held(mark, "ttft p95", 1.0, f"why {mark}"))
        for level, mark in zip(summary.levels, marks, strict=False)
    ]
    return msgspec.structs.replace(summary, levels=levels)


@pytest.mark.parametrize("draw", [charts.curve_chart, charts.ttft_chart, charts.tpot_chart])
def test_how_a_level_stands_to_the_budget_is_a_shape_with_its_meaning_beside_it(draw: Any) -> None:
    bare, marked = draw(samples.sweep()), draw(with_marks(samples.sweep()))
    assert {row["budget"] for row in rows_of(bare)} == {"none"}
    assert [row["budget"] for row in rows_of(marked) if row["series"] == "median"] == ["met", "open", *["missed"] * 5]
    layers = marked.to_dict(validate=False)["layer"]
    shapes = [layer["encoding"]["shape"] for layer in layers if "shape" in layer["encoding"]]
    scale = shapes[0]["scale"]
    assert shapes == [shapes[0]] * 3
    assert len(set(scale["range"][:3])) == 3, "told apart without colour"
    said, before = (str(chart.to_dict(validate=False)["title"]) for chart in (marked, bare))
    assert "triangle: misses it" in said
    assert "budget" not in before
    tips = [tip["title"] for layer in layers for tip in layer["encoding"].get("tooltip", [])]
    assert "Budget" in tips


def test_values_and_intervals_are_those_of_the_summary() -> None:
    level = samples.sweep().levels[4]
    row = next(x for x in rows_of(charts.curve_chart(samples.sweep())) if x["load"] == "concurrency 16")
    assert row["x"] == level.output_tokens_per_s.value
    assert (row["x_low"], row["x_high"]) == (level.output_tokens_per_s.low, level.output_tokens_per_s.high)
    assert row["y"] == pytest.approx(samples.known(level.latency_ms.p50.value) / 1000)
    assert row["y_high"] == pytest.approx(samples.known(level.latency_ms.p50.high) / 1000)


def test_invalid_levels_are_named_and_explained() -> None:
    chart = charts.curve_chart(samples.troubled())
    assert "64 · invalid" in texts(chart)
    assert any("Hollow" in x or "hollow" in x for x in texts(chart))
    row = next(x for x in rows_of(chart) if x["load"] == "concurrency 64")
    assert row["verdict"].startswith("invalid: The client took 31% of one core")
    assert row["failed"] == "180 http_429, 11 timeout"


def test_a_level_without_figures_is_counted_as_not_drawn() -> None:
    assert any("not drawn: 1" in x for x in texts(charts.curve_chart(samples.troubled())))


def test_one_level_without_streaming() -> None:
    summary = samples.single()
    assert len(charts.charts(summary).vconcat) == 1
    assert {"8", "Output tokens/s"} <= set(texts(charts.curve_chart(summary)))
    assert any("not streamed" in x for x in texts(charts.ttft_chart(summary)))


def test_open_loop_has_the_rate_on_its_axis() -> None:
    said = texts(charts.curve_chart(samples.open_loop()))
    assert "Arrivals (requests/s)" in said
    assert "1,280 · balanced" in said
    assert "Arrivals (requests/s), log scale" in texts(charts.ttft_chart(samples.open_loop()))


def test_no_level_at_all() -> None:
    nothing = Summary(target={}, workload={}, levels=[])
    assert any("no level" in x for x in texts(charts.charts(nothing)))


def test_after_a_search_the_level_within_the_budget_is_marked() -> None:
    spec = charts.curve_chart(samples.found()).to_dict(validate=False)
    rings = [x for x in spec["layer"] if x["mark"].get("style") == "chosen-ring"]
    assert len(rings) == 1
    rows = spec["datasets"][rings[0]["data"]["name"]]
    assert [row["load"] for row in rows if row["chosen"]] == ["concurrency 24"]


def test_light_and_dark_differ_in_colours_only() -> None:
    light, dark = theme.theme(), theme.theme(dark=True)
    assert light.keys() == dark.keys()
    assert light["style"].keys() == dark["style"].keys()
    assert light["background"] != dark["background"]


@settings(suppress_health_check=[HealthCheck.too_slow])
@given(st.lists(samples.any_level, max_size=6))
def test_no_combination_of_figures_raises(levels: list[Level]) -> None:
    summary = Summary(target={}, workload={}, levels=levels, operating_points=operating_points(levels))
    assert 1 <= len(charts.charts(summary).to_dict(validate=False)["vconcat"]) <= 3


def test_half_an_interval_is_not_drawn() -> None:
    level = samples.engine_level(4)
    odd = msgspec.structs.replace(level, output_tokens_per_s=Figure(400, 390, None))
    row = rows_of(charts.curve_chart(Summary(target={}, workload={}, levels=[odd])))[0]
    assert row["x_low"] is None


boxes = st.lists(
    st.tuples(st.floats(0, 300), st.floats(0, 200)).map(lambda at: labels.around(at, 6, 6)), min_size=1, max_size=20
)


@given(boxes, st.text("0123456789 ab", min_size=1, max_size=12))
def test_a_label_covers_nothing_and_stays_inside(taken: list[labels.Box], text: str) -> None:
    at = ((taken[0][0] + taken[0][2]) / 2, (taken[0][1] + taken[0][3]) / 2)
    box = labels.free_box(text, at, taken, (300, 200))
    if box is not None:
        assert not any(labels.overlap(box, other) for other in taken)
        assert box[0] >= 0
        assert box[1] >= 0
        assert box[2] <= 300
        assert box[3] <= 200


def test_a_lone_point_has_its_label_below() -> None:
    box = labels.free_box("16", (100, 100), [labels.around((100, 100), 6, 6)], (300, 200))
    assert box is not None
    assert box[1] > 100
    assert (box[0] + box[2]) / 2 == 100


def test_a_line_leaves_no_gap_for_a_label() -> None:
    line = list(labels.along([(0, 0), (100, 50), (100, 200)]))
    assert all(abs(a[0] - b[0]) <= 3.01 and abs(a[1] - b[1]) <= 3.01 for a, b in itertools.pairwise(line))
