"""What people see of a length grid: two sentences and two charts."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import altair as alt

from pacemark.answers.lengths import counted
from pacemark.summary import Figure, Level, Line, Slopes, Summary
from pacemark.units import duration, number

__all__ = ["parts", "sentences"]

Row = dict[str, Any]


def sentences(summary: Summary) -> Iterator[tuple[str, str, str]]:
    """What input and output tokens cost: a name, what it comes to, and what that rests on."""
    slopes = summary.slopes
    assert isinstance(slopes, Slopes)
    load = summary.levels[0].load if summary.levels else "no load"
    prefill = slopes.ttft_ms.per_input_token_ms if slopes.ttft_ms else Figure()
    if slopes.ttft_ms and prefill.value is not None:
        speed = f", a prefill of {number(1e3 / prefill.value)} tokens/s" if _surely_positive(prefill) else ""
        text = f"1,000 more input tokens add {_between(prefill, 1000)} to TTFT{speed}"
        yield "input tokens", text, f"At {load}. {_stands_on(slopes.ttft_ms)}"
    line = slopes.latency_ms
    decode = line.per_output_token_ms if line else Figure()
    if line is None or decode.value is None:
        return
    text, inputs = f"each more output token adds {_between(decode)} to latency", line.per_input_token_ms
    if inputs.value is not None and _surely_positive(inputs) and decode.value > 0:
        text += f", as much as {number(decode.value / inputs.value)} input tokens"
    shares = [share for x in summary.levels if (share := _decode_share(x, line)) is not None]
    dominates = f"The answer's tokens make up {min(shares):.0%} to {max(shares):.0%} of the latency. " if shares else ""
    yield "output tokens", text, f"{dominates}At {load}. {_stands_on(line)}"


def _surely_positive(figure: Figure) -> bool:
    return (figure.value or 0.0) > 0 and (figure.low is None or figure.low > 0)


def _between(figure: Figure, times: int = 1) -> str:
    value, low, high = (None if x is None else x * times for x in (figure.value, figure.low, figure.high))
    assert value is not None
    if low is None or high is None:
        return f"{duration(value)} (no interval: too few levels)"
    return f"{duration(value)} (95% interval {duration(low)} to {duration(high)})"


def _stands_on(line: Line) -> str:
    off = duration(line.residual_ms)
    return f"A straight line through the medians of {line.cells} levels; the farthest is {off} off."


def _decode_share(level: Level, line: Line) -> float | None:
    """The share of a level's median latency that its output tokens account for."""
    latency, slope = level.latency_ms.p50.value, line.per_output_token_ms.value
    if level.asked is None or level.verdict.status == "invalid" or not latency or slope is None:
        return None
    return min(1.0, max(0.0, counted(level)[1] * slope / latency))


# --- charts


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
    lines: list[Row] = []
    for series in dict.fromkeys(row["series"] for row in points) if not by_input else ["all"]:
        mine = [row for row in points if by_input or row["series"] == series]
        mean_input = sum(row["inputs"] for row in mine) / len(mine)
        ends = sorted({row["x"] for row in mine})
        for x in (0.0, ends[-1]):
            inputs, outputs = (x, 0.0) if by_input else (mean_input, x)
            lines.append({"series": series, "x": x, "y": _on(line, inputs, outputs) * scale})
    slope = line.per_input_token_ms if by_input else line.per_output_token_ms
    subtitle = f"{_between(slope, 1000)} per 1,000 input tokens" if by_input else f"{_between(slope)} per output token"
    names = list(dict.fromkeys(row["series"] for row in points))
    colour = alt.Color("series:N", scale=alt.Scale(domain=names), legend=alt.Legend(title=None, orient="top"))
    what = "Input tokens" if by_input else "Output tokens"
    x = alt.X("x:Q", axis=alt.Axis(title=what, format=",~r", tickCount=max(3, width // 85)))
    y = alt.Y("y:Q", axis=alt.Axis(title=f"{'TTFT' if by_input else 'Latency'}, median ({unit})"))
    tips = [alt.Tooltip(f"{field}:N", title=name) for field, name in _TIPS.items()]
    base, drawn = alt.Chart(alt.InlineData(values=points)), alt.Chart(alt.InlineData(values=lines))
    dashed = drawn.mark_line(strokeWidth=1.5, strokeDash=[6, 4]).encode(
        x=x, y=y, color=alt.value(_GREY) if by_input else colour
    )
    layers = [
        dashed,
        base.transform_filter("datum.low != null")
        .mark_rule(strokeWidth=1.5, opacity=0.55)
        .encode(x=x, y=alt.Y("low:Q"), y2="high:Q", color=colour),
        base.transform_filter(alt.datum.status != "invalid")
        .mark_point(filled=True, opacity=1, size=60)
        .encode(x=x, y=y, color=colour, tooltip=tips),
        base.transform_filter(alt.datum.status == "invalid")
        .mark_point(style="hollow", filled=True, stroke=_GREY, strokeWidth=1.5, opacity=1, size=60)
        .encode(x=x, y=y, tooltip=tips),
    ]
    heading = alt.TitleParams(title, subtitle=[subtitle])
    return alt.LayerChart(layer=layers, title=heading, width=width, height=280)


_GREY = "#8a8f98"
_TIPS = {"lengths": "Tokens", "time": "Median", "inputs": "Input counted", "outputs": "Output counted"} | {
    "verdict": "Verdict"
}


def _point(level: Level, metric: str, by_input: bool, scale: float) -> Row:
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
    }


def _on(line: Line, inputs: float, outputs: float) -> float:
    """The line's height in ms."""
    slopes = ((line.per_input_token_ms, inputs), (line.per_output_token_ms, outputs))
    return (line.intercept_ms.value or 0.0) + sum((slope.value or 0.0) * tokens for slope, tokens in slopes)


def _nothing(width: int) -> alt.LayerChart:
    text = "too few levels gave figures to draw a line through"
    label = alt.Chart(alt.InlineData(values=[{"text": text}])).mark_text(style="label").encode(text="text:N")
    return alt.LayerChart(layer=[label], title=alt.TitleParams("Length grid"), width=width, height=60)
