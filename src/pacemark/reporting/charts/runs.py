"""Several runs in one chart: their curves, and what they came to over time."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import altair as alt

from pacemark.pace import Concurrency
from pacemark.reporting.charts.theme import Datum, inline, layered, shapes
from pacemark.reporting.words import open_loop, plain, value, with_interval
from pacemark.summary import Level, Summary
from pacemark.units import duration

__all__ = ["Past", "curves_chart", "curves_table", "trend_chart"]


def curves_chart(runs: Sequence[tuple[str, Summary]], height: int = 340) -> alt.LayerChart:
    """Median latency over output tokens/s (over requests/s where all runs are open loops), a line for each named run;
    without its theme and width. A level that is not valid is hollow."""
    rated = all(open_loop(run.levels) for _, run in runs)
    rows: list[Datum] = [
        {
            "run": name,
            "x": at,
            "y": level.latency_ms.p50.value,
            "load": float(level.load.value),
            "level": plain(level.load),
            "status": level.verdict.status,
            "tokens": with_interval(level.output_tokens_per_s),
            "time": duration(level.latency_ms.p50.value),
            "budget": "none",
        }
        for name, run in runs
        for level in run.levels
        if level.asked is None and level.latency_ms.p50.value is not None and (at := _x(level, rated)) is not None
    ]
    names = [name for name, _ in runs]
    axis = "Arrivals (requests/s)" if rated else "Output tokens/s"
    x = alt.X("x:Q", axis=alt.Axis(title=axis, format=",~r"), scale=alt.Scale(zero=True))
    y = alt.Y("y:Q", axis=alt.Axis(title="Median latency (ms)", format=",~r"), scale=alt.Scale(zero=True))
    legend = alt.Legend(title=None, orient="top", columns=8, labelLimit=400)
    colour = alt.Color("run:N", scale=alt.Scale(domain=names), legend=legend)
    told = [
        alt.Tooltip(f"{field}:N", title=title)
        for field, title in (("run", "Run"), ("level", "Level"), ("tokens", "Output tokens/s"), ("time", "Latency"))
    ]
    base = alt.Chart(inline(rows))
    points = base.mark_point(filled=True, size=60, opacity=1)
    hollow = base.transform_filter("datum.status != 'valid'").mark_point(
        filled=True, size=18, opacity=1, style="hollow"
    )
    layers = [
        base.mark_line(strokeWidth=2).encode(x=x, y=y, color=colour, order="load:Q"),
        points.encode(x=x, y=y, color=colour, shape=shapes(), tooltip=told),
        hollow.encode(x=x, y=y, tooltip=told),
    ]
    title = alt.TitleParams("Latency by throughput" if not rated else "Latency by arrival rate")
    return layered(layers, title=title, height=height)


def _x(level: Level, rated: bool) -> float | None:
    return float(level.load.value) if rated else level.output_tokens_per_s.value


def curves_table(runs: Sequence[tuple[str, Summary]]) -> tuple[list[str], list[list[str]]]:
    """The same as heads and rows of text."""
    rows = [
        [
            name,
            f"{level.load.value:,g}" if isinstance(level.load, Concurrency) else plain(level.load),
            *(value(x) for x in (level.output_tokens_per_s, level.ttft_ms.p50, level.tpot_ms.p50)),
            value(level.latency_ms.p50),
            level.verdict.status,
        ]
        for name, run in runs
        for level in run.levels
    ]
    return ["Run", "Load", "tokens/s", "TTFT p50, ms", "TPOT p50, ms", "Latency p50, ms", "Verdict"], rows


class Past(NamedTuple):
    """What a run of the past came to."""

    started: str
    """UTC, as ISO 8601."""
    series: str
    """Which runs it can be held against: those of one target and one workload."""
    name: str
    tokens_per_s: float
    low: float | None
    high: float | None


def trend_chart(past: Sequence[Past], height: int = 260) -> alt.LayerChart:
    """Output tokens/s of runs by the time they began, a line for each series; without its theme and width."""
    rows: list[Datum] = [x._asdict() for x in past]
    names = list(dict.fromkeys(x.series for x in past))
    x = alt.X("started:T", axis=alt.Axis(title="Run began (UTC)", labelOverlap=True), scale=alt.Scale(type="utc"))
    y = alt.Y("tokens_per_s:Q", axis=alt.Axis(title="Output tokens/s", format=",~r"), scale=alt.Scale(zero=True))
    legend = alt.Legend(title=None, orient="top", columns=1, labelLimit=500)
    colour = alt.Color("series:N", scale=alt.Scale(domain=names), legend=legend)
    told = [alt.Tooltip("name:N", title="Run"), alt.Tooltip("tokens_per_s:Q", title="tokens/s", format=",.4~g")]
    base = alt.Chart(inline(rows))
    bars = base.transform_filter("datum.low != null && datum.high != null").mark_rule(strokeWidth=1.5, opacity=0.55)
    layers = [
        base.mark_line(strokeWidth=2).encode(x=x, y=y, color=colour),
        bars.encode(x=x, y=alt.Y("low:Q"), y2=alt.Y2("high:Q"), color=colour),
        base.mark_point(filled=True, size=70, opacity=1).encode(x=x, y=y, color=colour, tooltip=told),
    ]
    return layered(layers, title=alt.TitleParams("Over time, at the chosen load"), height=height)
