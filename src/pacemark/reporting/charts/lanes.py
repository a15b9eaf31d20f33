"""Requests of a level as they lay beside each other: held back, waiting for the first token, decoding, failed."""

from __future__ import annotations

from collections.abc import Sequence

import altair as alt

from pacemark.figures.picture import Lane
from pacemark.reporting.charts.theme import GREY, Datum, inline
from pacemark.units import number

__all__ = ["lanes_chart", "lanes_table"]

_PARTS = {
    "held back by the client": GREY,
    "to the first token": "#e69f00",
    "decode": "#0072b2",
    "failed": "#d55e00",
}


def lanes_chart(lanes: Sequence[Lane]) -> alt.Chart:
    """A bar for each part of each request; without its theme and width."""
    rows: list[Datum] = [
        {"lane": one.lane, "part": part, "x": begin, "x2": end, "ms": round(end - begin, 2)}
        for one in lanes
        for part, begin, end in _parts(one)
        if end > begin
    ]
    there = [part for part in _PARTS if any(row["part"] == part for row in rows)]
    scale = alt.Scale(domain=there, range=[_PARTS[part] for part in there])
    colour = alt.Color("part:N", scale=scale, legend=alt.Legend(title=None, orient="top", columns=2))
    end = max((row["x2"] for row in rows), default=1.0)
    count = max(1, len({one.lane for one in lanes}))
    height = max(60, 14 * count) if count < 20 else 10 * count
    chart: alt.Chart = (
        alt.Chart(inline(rows), title="Requests side by side", height=height)
        .mark_bar(height=min(14.0, 0.8 * height / count))
        .encode(
            x=alt.X("x:Q", axis=alt.Axis(title="ms", format=",~r"), scale=alt.Scale(domain=[0, end], nice=False)),
            x2=alt.X2("x2:Q"),
            y=alt.Y("lane:O", axis=alt.Axis(title="One lane a stream", labels=False, ticks=False)),
            color=colour,
            tooltip=[alt.Tooltip("part:N", title="Part"), alt.Tooltip("ms:Q", title="ms", format=",.4~g")],
        )
    )
    return chart


def _parts(one: Lane) -> list[tuple[str, float, float]]:
    if one.error:
        return [("held back by the client", one.due, one.sent), ("failed", one.sent, one.ended)]
    if one.first is None:
        return [("held back by the client", one.due, one.sent), ("to the first token", one.sent, one.ended)]
    return [
        ("held back by the client", one.due, one.sent),
        ("to the first token", one.sent, one.first),
        ("decode", one.first, one.ended),
    ]


def lanes_table(lanes: Sequence[Lane]) -> tuple[list[str], list[list[str]]]:
    """The same as heads and rows of text."""
    rows = [
        [str(one.lane + 1), number(one.due), number(one.sent - one.due)]
        + (["-", "-"] if one.first is None else [number(one.first - one.sent), number(one.ended - one.first)])
        + [one.error or "answered"]
        for one in lanes
    ]
    return ["Lane", "due at, ms", "held, ms", "to first token, ms", "decode, ms", "outcome"], rows
