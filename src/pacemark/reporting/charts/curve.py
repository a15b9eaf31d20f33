"""The charts of a run, one definition each, for a notebook, HTML, SVG and PNG alike."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator, Sequence
from math import ceil, floor, log10
from typing import Any

import altair as alt
import numpy as np
from msgspec import UnsetType

from pacemark.answers.curve import named
from pacemark.answers.fit import TRUSTED, decoding, throughput, tpot_ms
from pacemark.pace import Concurrency
from pacemark.reporting.answer import recommended
from pacemark.reporting.charts import lengths as grid
from pacemark.reporting.charts.labels import Box, along, around, free_box
from pacemark.reporting.charts.server import moments_part, phases_part
from pacemark.reporting.charts.theme import (
    GREY,
    WIDTH,
    Axis,
    Datum,
    inline,
    layered,
    mark,
    shapes,
    shapes_in_words,
    sized,
    theme,
    themed,
    top,
)
from pacemark.reporting.charts.time import time_part
from pacemark.reporting.words import errors, open_loop, plain, with_interval
from pacemark.summary import Figure, Level, Scalability, StepTime, Summary
from pacemark.units import duration, number

_SERIES = {"median": "p50", "p95": "p95", "p99": "p99"}
_TTFT = ("Time to first token", "TTFT", "ttft_ms", 3)
_TPOT = ("Time per output token", "TPOT", "tpot_ms", 2)
"""What it is, its short name, its field of a level, and how many of the series above are drawn."""
_LOG_FROM = 20.0
"""A chart whose largest figure is this many times its least is drawn on a log scale."""


def main_chart(summary: Summary, width: int = WIDTH) -> alt.LayerChart | alt.VConcatChart:
    """What a notebook shows of a run: the curve, or the lines of a length grid."""
    return curve_chart(summary, width) if isinstance(summary.slopes, UnsetType) else charts(summary, width)


def curve_chart(summary: Summary, width: int = WIDTH) -> alt.LayerChart:
    """Latency (median and p95) over output tokens/s, a point a level; over requests/s in open loop.

    Intervals are drawn where there are any; operating points are ringed and named; a level that is not valid
    is hollow, and an invalid one is off the line. A level's shape says whether it meets the budget. `width` is that of
    the plot, in pixels.
    """
    return themed(_curve(summary, width))


def ttft_chart(summary: Summary, width: int = WIDTH) -> alt.LayerChart:
    """Time to first token by load: median, p95 and p99."""
    return themed(_by_load(summary, *_TTFT, width))


def tpot_chart(summary: Summary, width: int = WIDTH) -> alt.LayerChart:
    """Time per output token by load: median and p95."""
    return themed(_by_load(summary, *_TPOT, width))


def charts(summary: Summary, width: int = WIDTH) -> alt.VConcatChart:
    """The curve and, where there are figures for them, TTFT and TPOT by load, one above the other."""
    own = alt.ScaleResolveMap(color="independent", stroke="independent", strokeDash="independent")
    column = alt.VConcatChart(vconcat=parts(summary, width, width), spacing=28, resolve=alt.Resolve(scale=own))
    return themed(column)


def column(specs: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """The same of `parts` that are dictionaries already."""
    bare = [{k: v for k, v in spec.items() if k not in ("$schema", "config")} for spec in specs]
    own = {"scale": dict.fromkeys(("color", "stroke", "strokeDash"), "independent")}
    return {"vconcat": bare, "spacing": 28, "resolve": own, "config": theme()}


def parts(summary: Summary, wide: int, narrow: int, *, timed: bool = True) -> list[alt.LayerChart]:
    """The curve, `wide` pixels wide, and the charts by load that there are figures for; without their theme.

    Of a length grid, its lines instead. `timed`: with the run over time.
    """
    if not isinstance(summary.slopes, UnsetType):
        return grid.parts(summary, wide, narrow)
    metrics = [x for x in (_TTFT, _TPOT) if any(getattr(level, x[2]).p50.value is not None for level in summary.levels)]
    by_load = [_by_load(summary, *metric, narrow) for metric in metrics]
    drawn = [_curve(summary, wide), *by_load]
    if timed:
        drawn += [*time_part(summary, narrow), *phases_part(summary, narrow), *moments_part(summary, narrow)]
    return drawn


def _curve(summary: Summary, width: int, height: int = 320) -> alt.LayerChart:
    levels = [x for x in _one_kind(summary.levels) if x.latency_ms.p50.value is not None and _has_x(x)]
    rated = open_loop(summary.levels)
    heading = "Latency by arrival rate" if rated else "Latency by throughput"
    if not levels:
        return _empty(heading, "no level has both a throughput and a latency", width)
    rows, unit = _rows(levels, "latency_ms", 2)
    for row in rows:
        level = levels[row["level"]]
        x = Figure(float(level.load.value)) if rated else level.output_tokens_per_s
        low, high = _interval(x) if row["series"] == "median" else (None, None)
        row |= {"x": x.value, "x_low": low, "x_high": high}
    x_axis = Axis("Arrivals (requests/s)" if rated else "Output tokens/s", 0.0, top(rows, "x", 1.08))
    y_axis = Axis(f"Request latency ({unit})", 0.0, top(rows, "y", 1.1))
    points = {_load_text(point.load) for _, point in named(summary.operating_points)}
    chosen = _load_text(recommended(summary))
    rings = [
        {**row, "chosen": row["load"] == chosen}
        for row in rows
        if row["series"] == "median" and row["status"] != "invalid" and row["load"] in points
    ]
    labels = list(_labels(summary, levels, rows, x_axis, y_axis, (width, height)))
    law = [] if rated else _law_of_throughput(summary.fits.scalability, levels, 1e-3 if unit == "s" else 1.0)
    # Rings lie below: a point must stay under the pointer for its tooltip.
    drawn = _layers(rows, x_axis, y_axis, (width, height))
    if summary.find:  # its levels lie close together near the answer: joined by their loads they would zigzag
        drawn = drawn[1:]
    layers = [*_law_layers(law), *_ring_layers(rings), *drawn, *_label_layers(labels)]
    remarks = [f"one point per level, with its {'output tokens/s' if rated else 'concurrency'}"]
    if law and summary.fits.scalability:
        remarks.append(f"thin line: the universal scalability law, off by {summary.fits.scalability.error:.1%}")
    return _layered(rows, layers, heading, remarks + _remarks(summary.levels, levels), width, height)


def _by_load(
    summary: Summary, what: str, name: str, metric: str, series: int, width: int, height: int = 220
) -> alt.LayerChart:
    heading = f"{what} ({name})"
    levels = [x for x in _one_kind(summary.levels) if getattr(x, metric).p50.value is not None]
    if not levels:
        return _empty(heading, "no figures: answers were not streamed, or none came", width)
    rows, unit = _rows(levels, metric, series)
    for row in rows:
        row |= {"x": float(levels[row["level"]].load.value), "x_low": None, "x_high": None}
    xs = sorted({row["x"] for row in rows})
    room = 2.0 if len(xs) == 1 else 1.12
    load = "Arrivals (requests/s)" if open_loop(levels) else "Concurrency (parallel requests)"
    x_axis = Axis(f"{load}, log scale", xs[0] / room, xs[-1] * room, log=2, ticks=tuple(xs))
    least, most = min(row["y"] for row in rows), top(rows, "y", 1.1)
    y_axis = Axis(f"{name} ({unit})", 0.0, most)
    if least > 0 and most / least >= _LOG_FROM:
        low, high = least / 1.2, most * 1.1
        y_axis = Axis(f"{name} ({unit}), log scale", low, high, log=10, ticks=tuple(_round_values(low, high)))
    step = summary.fits.step_time
    law = _law_of_tpot(step, levels, 1e-3 if unit == "s" else 1.0) if metric == "tpot_ms" and step else []
    layers = [*_law_layers(law), *_layers(rows, x_axis, y_axis, (width, height))]
    remarks = [f"thin line: a + b x requests being decoded, off by {step.error:.1%}"] if law and step else []
    return _layered(rows, layers, heading, remarks + _remarks(summary.levels, levels), width, height)


def _one_kind(levels: Sequence[Level]) -> list[Level]:
    """The levels whose load is of the first one's kind, by load: concurrency and rate share no axis."""
    return sorted((x for x in levels if type(x.load) is type(levels[0].load)), key=lambda x: x.load.value)


def _remarks(levels: Sequence[Level], drawn: Sequence[Level]) -> list[str]:
    """What shapes and hollow points mean, and how many levels could not be drawn, where there are any."""
    doubts = [x for x in ("suspect", "invalid") if any(level.verdict.status == x for level in drawn)]
    hollow = [f"hollow: {' or '.join(doubts)}"] if doubts else []
    return (
        shapes_in_words(drawn)
        + hollow
        + ([f"not drawn: {len(levels) - len(drawn)}"] if len(levels) > len(drawn) else [])
    )


def _has_x(level: Level) -> bool:
    return open_loop([level]) or level.output_tokens_per_s.value is not None


def _load_text(load: object) -> str:
    return plain(load)


def _interval(figure: Figure) -> tuple[float | None, float | None]:
    """Both ends of the interval, or neither."""
    return (None, None) if figure.low is None or figure.high is None else (figure.low, figure.high)


def _rows(levels: Sequence[Level], metric: str, series: int) -> tuple[list[Datum], str]:
    """One row for each level and quantile that has a figure, and the unit of their `y`: ms, or s for long ones."""
    figures: list[tuple[int, str, float, Figure]] = []
    for n, level in enumerate(levels):
        for name, quantile in list(_SERIES.items())[:series]:
            figure: Figure = getattr(getattr(level, metric), quantile)
            if figure.value is not None:
                figures.append((n, name, figure.value, figure))
    unit, scale = ("s", 1e-3) if max(value for _, _, value, _ in figures) >= 999.5 else ("ms", 1.0)
    rows = []
    for n, name, value, figure in figures:
        level = levels[n]
        low, high = _interval(figure)
        between = "" if low is None or high is None else f" ({duration(low)} to {duration(high)})"
        why = " ".join(plain(reason.message) for reason in level.verdict.reasons)
        rows.append(
            {
                "level": n,
                "series": name,
                "status": level.verdict.status,
                "y": value * scale,
                "y_low": None if low is None else low * scale,
                "y_high": None if high is None else high * scale,
                "load": _load_text(level.load),
                "time": f"{duration(value)}{between}",
                "tokens": with_interval(level.output_tokens_per_s),
                "requests": with_interval(level.requests_per_s),
                "failed": errors(level),
                "verdict": f"{level.verdict.status}: {why}" if why else level.verdict.status,
                **mark(level),
            }
        )
    return rows, unit


def _layers(rows: list[Datum], x_axis: Axis, y_axis: Axis, size: tuple[int, int]) -> list[alt.Chart]:
    """Lines through the levels in order of load, intervals, and a point for each figure."""
    names = [name for name in _SERIES if any(row["series"] == name for row in rows)]
    x = alt.X("x:Q", scale=x_axis.scale(), axis=x_axis.axis(size[0], 85))
    y = alt.Y("y:Q", scale=y_axis.scale(), axis=y_axis.axis(size[1], 45))
    legend = alt.Legend(title=None, orient="top", symbolType="stroke", symbolSize=500, symbolOpacity=1)
    colour = alt.Color("series:N", scale=alt.Scale(domain=names), legend=legend)
    outline = alt.Stroke("series:N", scale=alt.Scale(domain=names), legend=legend)
    dash = alt.StrokeDash("series:N", scale=alt.Scale(domain=names, range=[[1, 0], [7, 3], [2, 3]]), legend=legend)
    tips = [
        alt.Tooltip("load:N", title="Load"),
        alt.Tooltip("series:N", title="Figure"),
        alt.Tooltip("time:N", title="Time"),
        alt.Tooltip("tokens:N", title="Output tokens/s"),
        alt.Tooltip("requests:N", title="Requests/s"),
        alt.Tooltip("failed:N", title="Failed"),
        alt.Tooltip("verdict:N", title="Verdict"),
    ]
    if any(row["budget"] != "none" for row in rows):
        tips.insert(-1, alt.Tooltip("held:N", title="Budget"))
    shape = shapes()
    # The median's points are the largest: where series meet, each can still be seen.
    size_of = alt.SizeValue(sized(rows, 24), condition={"test": alt.datum.series == "median", "value": sized(rows, 60)})
    base = alt.Chart()  # on the data of the whole, see _layered
    bars = [
        base.transform_filter(f"datum.{axis}_low != null && datum.status != 'invalid'").mark_rule(
            strokeWidth=1.5, opacity=0.55, clip=True
        )
        for axis in ("y", "x")
    ]
    return [
        base.transform_filter(alt.datum.status != "invalid")
        .mark_line(strokeWidth=2)
        .encode(x=x, y=y, color=colour, strokeDash=dash, order=alt.Order("level:Q")),
        bars[0].encode(x=x, y=alt.Y("y_low:Q"), y2=alt.Y2("y_high:Q"), color=colour),
        bars[1].encode(x=alt.X("x_low:Q"), x2=alt.X2("x_high:Q"), y=y, color=colour),
        base.transform_filter(alt.datum.status == "valid")
        .mark_point(filled=True, opacity=1)
        .encode(x=x, y=y, color=colour, size=size_of, shape=shape, tooltip=tips),
        base.transform_filter(alt.datum.status == "suspect")
        .mark_point(style="hollow", filled=True, strokeWidth=2, opacity=1)
        .encode(x=x, y=y, stroke=outline, size=size_of, shape=shape, tooltip=tips),
        base.transform_filter(alt.datum.status == "invalid")
        .mark_point(style="hollow", filled=True, stroke=GREY, strokeWidth=1.5, opacity=1)
        .encode(x=x, y=y, size=size_of, shape=shape, tooltip=tips),
    ]


def _law_of_throughput(law: Scalability | None, levels: Sequence[Level], scale: float) -> list[Datum]:
    """The fitted curve between the least and the largest load; its latency is the time that a stream's turn takes."""
    known = [x for x in levels if x.output_tokens and x.verdict.status != "invalid"]
    if law is None or law.error > TRUSTED or len(known) < 2:
        return []
    loads = [float(x.load.value) for x in known]
    n = np.geomspace(loads[0], loads[-1], 80)
    tokens = np.interp(n, loads, [x.output_tokens or 0.0 for x in known])
    rate = throughput(law, n)
    return [{"x": float(x), "y": float(y)} for x, y in zip(rate, 1e3 * scale * n * tokens / rate, strict=True)]


def _law_of_tpot(law: StepTime, levels: Sequence[Level], scale: float) -> list[Datum]:
    """The fitted step time by load, between the least and the largest."""
    known = [(float(x.load.value), streams) for x in levels if (streams := decoding(x))]
    if law.error > TRUSTED or len(known) < 2:
        return []
    loads, batch = np.array(known).T
    n = np.geomspace(loads[0], loads[-1], 80)
    y = scale * tpot_ms(law, np.interp(n, loads, batch))
    return [{"x": float(a), "y": float(b)} for a, b in zip(n, y, strict=True)]


def _law_layers(rows: list[Datum]) -> list[alt.Chart]:
    """A thin line below everything else: a law is no measurement."""
    if not rows:
        return []
    # By load, not by x: past the peak a throughput comes back.
    values = [{**row, "n": n} for n, row in enumerate(rows)]
    line = alt.Chart(inline(values)).mark_line(stroke=GREY, strokeWidth=1, opacity=0.9, clip=True)
    return [line.encode(x=alt.X("x:Q"), y=alt.Y("y:Q"), order=alt.Order("n:Q"))]


def _ring_layers(rings: list[Datum]) -> list[alt.Chart]:
    """A ring round each operating point, in its own colour where it is the recommended one."""
    base = alt.Chart(inline(rings))
    return [
        base.transform_filter(alt.datum.chosen == chosen)
        .mark_point(style=style, size=230, strokeWidth=2, opacity=1)
        .encode(x=alt.X("x:Q"), y=alt.Y("y:Q"))
        for chosen, style in ((False, "ring"), (True, "chosen-ring"))
        if any(row["chosen"] == chosen for row in rings)
    ]


def _label_layers(labels: list[Datum]) -> list[alt.Chart]:
    base = alt.Chart(inline(labels))
    return [
        base.transform_filter(alt.datum.style == style)
        .mark_text(style=style, align="center", baseline="middle")
        .encode(x=alt.X("x:Q"), y=alt.Y("y:Q"), text=alt.Text("text:N"))
        for style in ("label", "doubted", "named", "chosen")
        if any(row["style"] == style for row in labels)
    ]


def _layered(
    rows: list[Datum], layers: Sequence[alt.Chart], heading: str, remarks: list[str], width: int, height: int
) -> alt.LayerChart:
    lines = textwrap.wrap("; ".join(remarks).capitalize(), round(width / 6))
    title = alt.TitleParams(heading, subtitle=lines) if lines else alt.TitleParams(heading)
    data = inline(rows)
    return layered(layers, data=data, title=title, width=width, height=height)


def _empty(heading: str, message: str, width: int) -> alt.LayerChart:
    text = alt.Chart().mark_text(style="label").encode(text=alt.Text("text:N"))
    return _layered([{"text": message}], [text], heading, [], width, 60)


def _round_values(low: float, high: float) -> Iterator[float]:
    """1, 2 and 5 times the powers of ten between `low` and `high`: the ticks of a log axis."""
    for power in range(floor(log10(low)), ceil(log10(high)) + 1):
        yield from (m * 10.0**power for m in (1, 2, 5) if low <= m * 10.0**power <= high)


def _labels(
    summary: Summary, levels: Sequence[Level], rows: Sequence[Datum], x_axis: Axis, y_axis: Axis, size: tuple[int, int]
) -> Iterator[Datum]:
    """Text beside the median points, in data coordinates, where it covers neither point, line nor other text.

    Operating points come first and are named; a name without room is left to the number, a number without
    room to the tooltip.
    """

    def pixels(row: Datum, x: str = "x", y: str = "y") -> tuple[float, float]:
        return row[x] / x_axis.high * size[0], (1 - row[y] / y_axis.high) * size[1]

    names: dict[str, str] = {}
    for name, point in named(summary.operating_points):
        load = _load_text(point.load)
        names[load] = f"{names[load]}, {name}" if load in names else name
    chosen = _load_text(recommended(summary))
    taken: list[Box] = []
    for series in list(_SERIES)[:2]:
        taken += along([pixels(row) for row in rows if row["series"] == series and row["status"] != "invalid"])
    for row in rows:
        (x, y) = at = pixels(row)
        taken.append(around(at, 6, 6))
        if row["x_low"] is not None:
            taken.append((pixels(row, "x_low")[0], y - 1, pixels(row, "x_high")[0], y + 1))
        if row["y_low"] is not None:
            taken.append((x - 1, pixels(row, y="y_high")[1], x + 1, pixels(row, y="y_low")[1]))
    medians = [row for row in rows if row["series"] == "median"]
    for row in sorted(medians, key=lambda row: (row["load"] != chosen, row["load"] not in names, -row["level"])):
        level = levels[row["level"]]
        tokens = level.output_tokens_per_s.value
        short = f"{level.load.value:g}" if isinstance(level.load, Concurrency) else number(tokens) if tokens else ""
        doubted = row["status"] == "invalid"
        note = "invalid" if doubted else names.get(row["load"])
        style = "doubted" if doubted else "chosen" if row["load"] == chosen else "named" if note else "label"
        for text in filter(None, [f"{short} · {note}" if note else "", short]):
            box = free_box(text, pixels(row), taken, size)
            if box:
                taken.append(box)
                x, y = (box[0] + box[2]) / 2 / size[0], (box[1] + box[3]) / 2 / size[1]
                yield {"x": x * x_axis.high, "y": (1 - y) * y_axis.high, "text": text, "style": style}
                break
