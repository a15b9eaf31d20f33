"""How a latency is distributed: the share of a level's requests that took at most so long, with the budget's limits."""

from __future__ import annotations

from collections.abc import Sequence

import altair as alt

from pacemark.budget import Budget
from pacemark.figures.picture import SHARES, LevelPicture
from pacemark.reporting.charts.theme import GREY, Datum, inline, layered
from pacemark.units import number

__all__ = ["spread_chart", "spread_table"]


def spread_chart(
    pictures: Sequence[LevelPicture], metric: str, name: str, budget: Budget | None, height: int = 300
) -> alt.LayerChart:
    """A line per level, on a log scale of time where that spans more than a decade; without its theme and width.

    A limit of `budget` is a rule at its time, and a point where its quantile has to lie left of it.
    """
    rows: list[Datum] = [
        {"level": one.name, "x": x, "share": share}
        for one in pictures
        for x, share in zip(one.spreads.get(metric, []), _shares(one.spreads.get(metric, [])), strict=True)
    ]
    values = [row["x"] for row in rows if row["x"] > 0]
    log = bool(values) and max(values) > 10 * min(values)
    x = alt.X("x:Q", axis=alt.Axis(title=f"{name} (ms{', log scale' if log else ''})", format=",~r", labelOverlap=True))
    x["scale"] = alt.Scale(type="log", nice=False) if log else alt.Scale(zero=False, nice=False)
    y = alt.Y("share:Q", axis=alt.Axis(title="Share of requests", format="%"), scale=alt.Scale(domain=[0, 1]))
    names = [one.name for one in pictures]
    legend = alt.Legend(title=None, orient="top", columns=4)
    colour = alt.Color("level:O", sort=names, scale=alt.Scale(domain=names), legend=legend)
    told = [alt.Tooltip("level:N", title="Level"), alt.Tooltip("x:Q", title="ms", format=",.4~g")]
    told.append(alt.Tooltip("share:Q", title="share", format=".1%"))
    base = alt.Chart(inline([row for row in rows if not log or row["x"] > 0]))
    lines = base.mark_line(strokeWidth=2, interpolate="step-after").encode(x=x, y=y, color=colour, order="share:Q")
    dots = base.mark_point(size=60, opacity=0, filled=True).encode(x=x, y=y, color=colour, tooltip=told)
    limits = [one for one in budget.timed if f"{one.metric}_ms" == metric] if budget else []
    marks: list[Datum] = [{"x": one.most, "text": str(one), "share": one.quantile} for one in limits]
    rules: list[alt.Chart] = []
    if marks:
        drawn = alt.Chart(inline(marks))
        rules = [
            drawn.mark_rule(color=GREY, strokeWidth=1.5, strokeDash=[5, 3]).encode(x=alt.X("x:Q"), tooltip="text:N"),
            drawn.mark_text(style="label", y=4, align="left", dx=4, baseline="top").encode(
                x=alt.X("x:Q"), text="text:N"
            ),
            drawn.transform_filter("datum.share != null")
            .mark_point(shape="cross", size=110, color=GREY, filled=True)
            .encode(x=alt.X("x:Q"), y=alt.Y("share:Q"), tooltip="text:N"),
        ]
    return layered([*rules, lines, dots], title=alt.TitleParams(f"{name}, level by level"), height=height)


def _shares(values: Sequence[float]) -> Sequence[float]:
    """The shares that these values were read off at: the last is the largest value of all."""
    return [*SHARES[: len(values) - 1], 1.0] if values else []


_SHOWN = {"p10": 0.10, "p50": 0.50, "p90": 0.90, "p95": 0.95, "p99": 0.99}


def spread_table(pictures: Sequence[LevelPicture], metric: str) -> tuple[list[str], list[list[str]]]:
    """The same as heads and rows of text."""
    rows = []
    for one in pictures:
        values = one.spreads.get(metric, [])
        at = dict(zip(_shares(values), values, strict=True))
        if values:
            cells = [number(at[share]) if share in at else "-" for share in _SHOWN.values()]
            rows.append([one.name, *cells, number(values[-1])])
    return ["Level", *(f"{name}, ms" for name in _SHOWN), "max, ms"], rows
