"""What all charts share: colours, axes whose range is fixed, and where an axis ends."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import altair as alt
from msgspec import UnsetType

from pacemark.reporting.words import plain
from pacemark.summary import Level

WIDTH = 640
"""Of a plot, in pixels."""
GREY = "#8a8f98"

Datum = dict[str, Any]
_MARKS = {
    "met": ("circle", "meets the budget"),
    "missed": ("triangle-down", "misses it"),
    "open": ("square", "too close to tell"),
}
"""How a level stands to the budget: the shape of its points, and what that means."""
_Top = TypeVar("_Top", alt.LayerChart, alt.VConcatChart)


def theme(dark: bool = False) -> dict[str, Any]:
    """The Vega-Lite configuration: all colours are here, so that one chart serves a light and a dark page.

    The palette is Okabe and Ito's, made for colour-blind readers ("Color universal design", 2008).
    """
    ink, soft, grid, paper = (
        ("#e6e8eb", "#a9b0ba", "#343a43", "#1b1f24") if dark else ("#1f2328", "#59636e", "#e4e7eb", "#ffffff")
    )
    palette = ["#56b4e9", "#e69f00", "#cc79a7"] if dark else ["#0072b2", "#d55e00", "#b0568a"]
    chosen = "#2fc49a" if dark else "#009e73"
    return {
        "background": paper,
        "font": "system-ui, 'Segoe UI', 'Liberation Sans', Arial, sans-serif",
        "view": {"stroke": None},
        "range": {"category": palette, "ordinal": {"scheme": "viridis", "extent": [0.3, 1] if dark else [0, 0.85]}},
        "axis": {
            "labelColor": soft,
            "titleColor": soft,
            "gridColor": grid,
            "domainColor": soft,
            "tickColor": soft,
            "labelFontSize": 11,
            "titleFontSize": 12,
            "titleFontWeight": "normal",
            "titlePadding": 8,
        },
        "axisY": {"minExtent": 28},
        "legend": {"labelColor": ink, "titleColor": soft, "labelFontSize": 12, "symbolStrokeWidth": 2.5},
        "title": {"color": ink, "subtitleColor": soft, "fontSize": 15, "subtitleFontSize": 12, "anchor": "start"}
        | {"frame": "group"},
        "style": {
            "label": {"color": ink, "fontSize": 12},
            "doubted": {"color": soft, "fontSize": 12},
            "named": {"color": ink, "fontSize": 12, "fontWeight": "bold"},
            "chosen": {"color": chosen, "fontSize": 12, "fontWeight": "bold"},
            "ring": {"color": ink},
            "chosen-ring": {"color": chosen},
            "hollow": {"color": paper},
        },
    }


def inline(rows: Sequence[Datum]) -> alt.InlineData:
    """The rows of a chart. Altair copies a list row by row, a dozen times for each layer; a tuple it hands on."""
    return alt.InlineData(values=tuple(rows))


def layered(layers: Sequence[alt.Chart | alt.LayerChart], **more: Any) -> alt.LayerChart:
    """One chart upon the other. Altair's own way copies each of them four times, in search of what they share."""
    chart = alt.LayerChart(**more)
    chart.layer = list(layers)
    return chart


def themed(chart: _Top) -> _Top:
    """`chart` in the colours of a light page."""
    chart["config"] = theme()
    return chart


@dataclass(frozen=True)
class Axis:
    """A fixed range: what the labels' places are worked out from must be what is drawn."""

    title: str
    low: float
    high: float
    log: float = 0.0
    """Base of a log scale, or 0 for a linear one."""
    ticks: tuple[float, ...] = ()

    def scale(self) -> alt.Scale:
        """The range, exactly as stated."""
        if self.log:
            return alt.Scale(type="log", base=self.log, domain=[self.low, self.high], nice=False)
        return alt.Scale(domain=[self.low, self.high], nice=False, zero=False)

    def axis(self, pixels: int, room: int) -> alt.Axis:
        """Ticks where they were asked for, else about one every `room` pixels."""
        axis = alt.Axis(title=self.title, format=",~r", labelOverlap=True, labelSeparation=6, labelFlush=False)
        if self.ticks:
            axis["values"] = list(self.ticks)
            axis["labelOverlap"] = "greedy"
        else:
            axis["tickCount"] = max(3, pixels // room)
        return axis


def top(rows: Sequence[Datum], field: str, room: float) -> float:
    """The end of an axis: all values and their intervals, but no interval that would squash the values."""
    most = max(row[field] for row in rows)
    high = max((row[f"{field}_high"] for row in rows if row.get(f"{field}_high") is not None), default=most)
    return max(most, min(high, 1.4 * most)) * room or 1.0


def mark(level: Level) -> Datum:
    """How a level stands to the budget, for its row: `budget` is a key of `shapes`, `held` says it in words."""
    held = level.budget
    if isinstance(held, UnsetType):
        return {"budget": "none", "held": "-"}
    return {"budget": held.status, "held": f"{held.status}: {plain(held.why)}"}


def shapes() -> alt.Shape:
    """The shape of a point by `mark`; a round one where there is no budget."""
    kinds = {kind: shape for kind, (shape, _) in _MARKS.items()} | {"none": "circle"}
    return alt.Shape("budget:N", scale=alt.Scale(domain=list(kinds), range=list(kinds.values())), legend=None)


def sized(rows: Sequence[Datum], least: int) -> int:
    """The size of a point in square pixels: larger where its shape means something."""
    return 2 * least if any(row["budget"] != "none" for row in rows) else least


def shapes_in_words(levels: Sequence[Level]) -> list[str]:
    """What the shapes mean, of those that there are; nothing without a budget."""
    there = {mark(level)["budget"] for level in levels}
    said = [f"{shape.partition('-')[0]}: {meaning}" for kind, (shape, meaning) in _MARKS.items() if kind in there]
    return [", ".join(said)] if said else []
