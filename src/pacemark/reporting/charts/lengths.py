"""The charts of a length grid: TTFT by input tokens, latency by output tokens."""

from __future__ import annotations

from collections.abc import Sequence

import altair as alt

from pacemark.answers.lengths import counted
from pacemark.reporting.charts.theme import GREY, Datum, inline, layered, mark, shapes, shapes_in_words, sized
from pacemark.reporting.words import between
from pacemark.summary import Figure, Level, Line, Slopes, Summary
from pacemark.units import duration

__all__ = ["parts"]


def parts(summary: Summary, wide: int, narrow: int) -> list[alt.LayerChart]:
    """TTFT by input tokens and latency by output tokens, with their lines, where they were varied; no theme."""
    slopes = summary.slopes
    assert isinstance(slopes, Slopes)
    charts: list[alt.LayerChart] = []
    if slopes.ttft_ms is not None and slopes.ttft_ms.per_input_token_ms.value is not None:
        title = "Time to first token by input tokens"
        charts.append(_chart(summary.levels, slopes.ttft_ms, "ttft_ms", title, wide if not charts else narrow))
    if slopes.latency_ms is not None and slopes.latency_ms.per_output_token_ms.value is not None:
        title = "Latency by output tokens"
        charts.append(_chart(summary.levels, slopes.latency_ms, "latency_ms", title, wide if not charts else narrow))
    return charts or [_nothing(wide)]


def _chart(levels: Sequence[Level], line: Line, metric: str, title: str, width: int) -> alt.LayerChart:
    by_input = metric == "ttft_ms"
    known = [x for x in levels if x.asked is not None and getattr(x, metric).p50.value is not None]
    scale, unit = (1e-3, "s") if max(getattr(x, metric).p50.value for x in known) >= 999.5 else (1.0, "ms")
    points = [_point(x, metric, by_input, scale) for x in known]
    # TTFT is read off one line; latency off one for each input length, as the input moves it up.
    lines: list[Datum] = []
    for series in dict.fromkeys(row["series"] for row in points) if not by_input else ["all"]:
        mine = [row for row in points if by_input or row["series"] == series]
        mean_input = sum(row["inputs"] for row in mine) / len(mine)
        ends = sorted({row["x"] for row in mine})
        for x in (0.0, ends[-1]):
            inputs, outputs = (x, 0.0) if by_input else (mean_input, x)
            lines.append({"series": series, "x": x, "y": _on(line, inputs, outputs) * scale})
    slope = line.per_input_token_ms if by_input else line.per_output_token_ms
    subtitle = f"{between(slope, 1000)} per 1,000 input tokens" if by_input else f"{between(slope)} per output token"
    names = list(dict.fromkeys(row["series"] for row in points))
    colour = alt.Color("series:N", scale=alt.Scale(domain=names), legend=alt.Legend(title=None, orient="top"))
    what = "Input tokens" if by_input else "Output tokens"
    x = alt.X("x:Q", axis=alt.Axis(title=what, format=",~r", tickCount=max(3, width // 85)))
    y = alt.Y("y:Q", axis=alt.Axis(title=f"{'TTFT' if by_input else 'Latency'}, median ({unit})"))
    marked = any(row["budget"] != "none" for row in points)
    told = _TIPS | ({"held": "Budget"} if marked else {})
    tips = [alt.Tooltip(f"{field}:N", title=name) for field, name in told.items()]
    base, drawn = alt.Chart(inline(points)), alt.Chart(inline(lines))
    dashed = drawn.mark_line(strokeWidth=1.5, strokeDash=[6, 4]).encode(
        x=x, y=y, color=alt.ColorValue(GREY) if by_input else colour
    )
    layers = [
        dashed,
        base.transform_filter("datum.low != null")
        .mark_rule(strokeWidth=1.5, opacity=0.55)
        .encode(x=x, y=alt.Y("low:Q"), y2=alt.Y2("high:Q"), color=colour),
        base.transform_filter(alt.datum.status != "invalid")
        .mark_point(filled=True, opacity=1, size=sized(points, 60))
        .encode(x=x, y=y, color=colour, shape=shapes(), tooltip=tips),
        base.transform_filter(alt.datum.status == "invalid")
        .mark_point(style="hollow", filled=True, stroke=GREY, strokeWidth=1.5, opacity=1, size=sized(points, 60))
        .encode(x=x, y=y, shape=shapes(), tooltip=tips),
    ]
    heading = alt.TitleParams(title, subtitle=[subtitle, *(text.capitalize() for text in shapes_in_words(known))])
    return layered(layers, title=heading, width=width, height=280)


_TIPS = {"lengths": "Tokens", "time": "Median", "inputs": "Input counted", "outputs": "Output counted"} | {
    "verdict": "Verdict"
}


def _point(level: Level, metric: str, by_input: bool, scale: float) -> Datum:
    assert level.asked is not None
    figure: Figure = getattr(level, metric).p50
    assert figure.value is not None
    inputs, outputs = counted(level)
    both = figure.low is not None and figure.high is not None
    return {
        "series": f"{level.asked.output_tokens:,} out" if by_input else f"{level.asked.input_tokens:,} in",
        "x": inputs if by_input else outputs,
        "y": figure.value * scale,
        "low": figure.low * scale if both and figure.low is not None else None,
        "high": figure.high * scale if both and figure.high is not None else None,
        "inputs": round(inputs, 1),
        "outputs": round(outputs, 1),
        "lengths": str(level.asked),
        "time": duration(figure.value),
        "status": level.verdict.status,
        "verdict": level.verdict.status,
        **mark(level),
    }


def _on(line: Line, inputs: float, outputs: float) -> float:
    """The line's height in ms."""
    slopes = ((line.per_input_token_ms, inputs), (line.per_output_token_ms, outputs))
    return (line.intercept_ms.value or 0.0) + sum((slope.value or 0.0) * tokens for slope, tokens in slopes)


def _nothing(width: int) -> alt.LayerChart:
    text = "too few levels gave figures to draw a line through"
    label = alt.Chart(inline([{"text": text}])).mark_text(style="label").encode(text=alt.Text("text:N"))
    return layered([label], title=alt.TitleParams("Length grid"), width=width, height=60)
