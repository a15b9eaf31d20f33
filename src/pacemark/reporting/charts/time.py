"""The run on one axis of time: output, requests in flight, failures, and what the endpoint said of its own state."""

from __future__ import annotations

import itertools
import textwrap

import altair as alt

from pacemark.reporting.charts.theme import GREY, Datum, inline, layered
from pacemark.reporting.words import plain
from pacemark.summary import Seen, Summary, Timeline

__all__ = ["time_part"]


def time_part(summary: Summary, width: int, height: int = 220) -> list[alt.LayerChart]:
    """Output tokens/s by time, with the windows of the levels below it and the endpoint's events upon it.

    One chart without its theme, or none where the run has no timeline.
    """
    timeline = summary.timeline
    if not isinstance(timeline, Timeline) or not timeline.output_tokens_per_s:
        return []
    step, rates = timeline.step_s, timeline.output_tokens_per_s
    end, top = step * len(rates), 1.25 * max(1.0, *rates)
    x = alt.X("x:Q", title="Seconds since the first request", scale=alt.Scale(domain=[0, end], nice=False))
    y = alt.Y("y:Q", title="Output tokens/s", scale=alt.Scale(domain=[0, top], nice=False))
    output = [{"x": (n + 0.5) * step, "y": rate} for n, rate in enumerate(rates)]
    levels = [{"x": s.begin_s, "x2": s.end_s, "y": 0.0, "y2": top, "load": plain(s.load)} for s in timeline.levels]
    refused = [
        {"x": n * step, "x2": (n + 1) * step, "y": 0.0, "y2": top, "refused": count}
        for n, count in enumerate(timeline.throttled)
        if count
    ]
    events = [row | {"y": top * (0.97 - 0.07 * (n % 3))} for n, row in enumerate(_events(timeline))]
    busy = [{"x": (n + 0.5) * step, "busy": count} for n, count in enumerate(timeline.in_flight)]
    failed = [
        {"x": n * step, "x2": (n + 1) * step, "y": 0.0, "y2": 0.08 * top, "failed": count}
        for n, count in enumerate(timeline.failed)
        if count
    ]
    layers = [
        _bars(levels, GREY, 0.13, [alt.Tooltip("load:N", title="level")]),
        _bars(refused, "#e69f00", 0.45, [alt.Tooltip("refused:Q", title="answered 429")]),
        _bars(failed, "#d55e00", 0.8, [alt.Tooltip("failed:Q", title="failed")]),
        alt.Chart(inline(output)).mark_line(strokeWidth=1.5, interpolate="step").encode(x=x, y=y),
    ]
    if events:
        base = alt.Chart(inline(events))
        layers += [
            base.mark_rule(color=GREY, strokeDash=[4, 3], strokeWidth=1.5).encode(x=x),
            *(
                base.transform_filter(alt.datum.late == late)
                .mark_text(style="label", align="right" if late else "left", dx=-4 if late else 4)
                .encode(x=x, y=y, text=alt.Text("text:N"), tooltip=[alt.Tooltip("text:N")])
                for late in (False, True)
            ),
        ]
    if busy:
        axis = alt.Axis(title="Requests in flight (dashed)", grid=False)
        flight = alt.Y(
            "busy:Q", axis=axis, scale=alt.Scale(domain=[0, 1.6 * max(1.0, *timeline.in_flight)], nice=False)
        )
        base = alt.Chart(inline(busy))
        dashed = base.mark_line(strokeWidth=1.5, strokeDash=[5, 3], color=GREY, interpolate="step")
        chart = layered([layered(layers), dashed.encode(x=x, y=flight)])
        layers = [chart.resolve_scale(y="independent")]
    remarks = ["grey: the levels' windows"]
    remarks += [f"red: failed, {sum(timeline.failed):,} in all"] if failed else []
    remarks += [f"orange: requests turned away, {sum(timeline.throttled):,} in all"] if refused else []
    remarks += ["dashed: the endpoint said that it changed"] if events else []
    lines = textwrap.wrap("; ".join(remarks).capitalize(), round(width / 6))
    title = alt.TitleParams("The run over time", subtitle=lines)
    return [layered(layers, title=title, width=width, height=height)]


def _bars(rows: list[Datum], colour: str, opacity: float, tooltip: list[alt.Tooltip]) -> alt.Chart:
    chart: alt.Chart = alt.Chart(inline(rows)).mark_rect(color=colour, opacity=opacity)
    return chart.encode(x=alt.X("x:Q"), x2=alt.X2("x2:Q"), y=alt.Y("y:Q"), y2=alt.Y2("y2:Q"), tooltip=tooltip)


def _events(timeline: Timeline) -> list[Datum]:
    """Where the endpoint's size or state changed, in words short enough to stand on the chart."""
    half = timeline.step_s * len(timeline.output_tokens_per_s) / 2
    return [
        {"x": after.at_s, "text": text, "late": after.at_s > half}
        for before, after in itertools.pairwise(timeline.endpoint)
        if (text := _change(before, after))
    ]


def _change(before: Seen, after: Seen) -> str:
    if before.state != after.state:
        return plain(after.state)
    if before.capacity is not None and after.capacity is not None and before.capacity != after.capacity:
        return f"{before.capacity:g} to {after.capacity:g}"
    return ""
