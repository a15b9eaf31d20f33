"""What the server told of itself: where the time goes by level, and its load on the axis of time."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence

import altair as alt
from msgspec import UnsetType

from pacemark.metered import ServerMoment
from pacemark.reporting.charts.theme import GREY, Datum, inline, layered
from pacemark.reporting.server import where_time_goes
from pacemark.reporting.words import plain
from pacemark.summary import Summary, Timeline
from pacemark.units import number

__all__ = ["moments_part", "phases_part"]

_PHASES = {"client": GREY, "network": "#56b4e9", "queue": "#d55e00", "prefill": "#e69f00", "decode": "#009e73"}
"""In the order of time, and their colours."""


def phases_part(summary: Summary, width: int, height: int = 220) -> list[alt.LayerChart]:
    """A stacked bar for each level, of the mean of each phase; none where no server told. Without its theme."""
    rows: list[Datum] = []
    for level in summary.levels:
        if isinstance(level.server, UnsetType):
            continue
        told = {name: getattr(level.server.phases, f"{name}_ms") for name in _PHASES}
        if told["prefill"] is None or told["decode"] is None:
            continue
        parts = [(name, max(0.0, ms)) for name, ms in told.items() if ms is not None]
        load = plain(level.asked or f"{level.load.value:g}")
        rows += [{"load": load, "phase": name, "ms": ms, "order": n} for n, (name, ms) in enumerate(parts)]
    if not rows:
        return []
    names = [name for name in _PHASES if any(row["phase"] == name for row in rows)]
    colours = alt.Scale(domain=names, range=[_PHASES[name] for name in names])
    bars = (
        alt.Chart(inline(rows))
        .mark_bar()
        .encode(
            x=alt.X("load:N", sort=None, axis=alt.Axis(title="Level", labelAngle=0)),
            y=alt.Y("ms:Q", axis=alt.Axis(title="Mean of a request (ms)", format=",~r")),
            color=alt.Color("phase:N", scale=colours, legend=alt.Legend(title=None, orient="top")),
            order=alt.Order("order:Q"),
            tooltip=[alt.Tooltip("load:N"), alt.Tooltip("phase:N"), alt.Tooltip("ms:Q", format=",.2f")],
        )
    )
    said = where_time_goes(summary) or "queue, prefill and decode as the server tells them"
    return [_titled([bars], "Where the time goes", said, width, height)]


def moments_part(summary: Summary, width: int, height: int = 160) -> list[alt.LayerChart]:
    """Requests in the server, how full its cache is, and its power, by time: of each a chart, where it was told."""
    timeline = summary.timeline
    if not isinstance(timeline, Timeline) or not timeline.server:
        return []
    end, told = timeline.step_s * len(timeline.output_tokens_per_s), timeline.server
    counts, shares = ("running", "waiting", "preemptions"), ("kv_used", "prefix_hits")
    charts = [
        _lines(told, counts, 1.0, "Requests", "Requests in the server", end, width, height),
        _lines(told, shares, 100.0, "Percent", "KV cache in use, prefix hits", end, width, height),
        _lines(told, ("power_w",), 1.0, "Watt", "Power", end, width, height),
    ]  # fmt: skip
    return [chart for chart in charts if chart is not None]


def phases_table(summary: Summary) -> tuple[list[str], list[list[str]]]:
    """What the bars show, as heads and cells."""
    levels = [level for level in summary.levels if not isinstance(level.server, UnsetType)]
    cells = [
        [None if isinstance(x.server, UnsetType) else getattr(x.server.phases, f"{name}_ms") for name in _PHASES]
        for x in levels
    ]
    heads = ["Level", *(f"{name}, ms" for name in _PHASES)]
    return heads, [[plain(x.asked or x.load), *map(_cell, row)] for x, row in zip(levels, cells, strict=True)]


def moments_table(summary: Summary) -> tuple[list[str], list[list[str]]]:
    """What the server told by time, as heads and cells; figures that no look told are left out."""
    told = summary.timeline.server if isinstance(summary.timeline, Timeline) else []
    names = [x for x in ServerMoment.__struct_fields__ if any(getattr(moment, x) is not None for moment in told)]
    return [name.replace("_", " ") for name in names], [[_cell(getattr(x, name)) for name in names] for x in told]


def _cell(value: float | None) -> str:
    return "-" if value is None else number(value)


def _lines(
    told: Sequence[ServerMoment], names: Sequence[str], factor: float, unit: str, title: str, end: float, *size: int
) -> alt.LayerChart | None:
    """One line for each of these figures, where any look told it and it was not 0 all the time."""
    known = [name for name in names if any(getattr(moment, name) for moment in told)]
    rows = [
        {"x": moment.at_s, "y": factor * value, "series": name.replace("_", " ")}
        for name in known
        for moment in told
        if (value := getattr(moment, name)) is not None
    ]
    if not rows:
        return None
    lines = (
        alt.Chart(inline(rows))
        .mark_line(strokeWidth=1.5, interpolate="step-after")
        .encode(
            x=alt.X("x:Q", title="Seconds since the first request", scale=alt.Scale(domain=[0, end], nice=False)),
            y=alt.Y("y:Q", title=unit),
            color=alt.Color("series:N", sort=None, legend=alt.Legend(title=None, orient="top")),
            tooltip=[alt.Tooltip("series:N"), alt.Tooltip("x:Q"), alt.Tooltip("y:Q", format=",.3~f")],
        )
    )
    return _titled([lines], title, "by the server's own metrics", *size)


def _titled(layers: list[alt.Chart], title: str, said: str, width: int, height: int) -> alt.LayerChart:
    lines = textwrap.wrap(said[:1].upper() + said[1:], round(width / 6))
    return layered(layers, title=alt.TitleParams(title, subtitle=lines), width=width, height=height)
