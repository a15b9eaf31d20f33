"""The live page of a run: the same look as the report's, fed once a second."""

from __future__ import annotations

from functools import cache
from importlib.resources import files
from typing import Any

import altair as alt
import msgspec
from markupsafe import escape

from pacemark.reporting import drawing
from pacemark.reporting.charts.theme import GREY, theme

__all__ = ["live_page", "live_script"]


def live_page(token: str) -> str:
    """The page; what it shows it asks for, with the token."""
    page, css = (_file(name) for name in ("live.html", "report.css"))
    return page.replace("/*css*/", css).replace("TOKEN", str(escape(token)))


@cache
def live_script() -> str:
    """The chart library and the lines that draw the page."""
    known = {"curve": _curve(), "search": _search(), "series": _series(), "light": theme(), "dark": theme(dark=True)}
    lines = _file("live.js").replace("KNOWN", msgspec.json.encode(known).decode())
    return drawing.bundled(lines)


def _curve() -> dict[str, Any]:
    base = alt.Chart(alt.NamedData(name="levels"))
    x = alt.X("tokens:Q", axis=alt.Axis(title="Output tokens/s", format=",~r"), scale=alt.Scale(zero=True))
    y = alt.Y("latency:Q", axis=alt.Axis(title="Median latency (ms)", format=",~r"))
    told = [alt.Tooltip("load:N"), alt.Tooltip("tokens:Q", format=",.4~g"), alt.Tooltip("latency:Q", format=",.4~g")]
    layers = [
        base.mark_line(strokeWidth=2).encode(x=x, y=y, order="n:Q"),
        base.mark_point(filled=True, size=70, opacity=1).encode(x=x, y=y, tooltip=told),
        base.mark_text(style="label", dy=-12).encode(x=x, y=y, text="short:N"),
    ]
    return _fluid(alt.LayerChart(layer=layers, title="The curve so far", height=280))


_STRIP = 64
"""Height of the loads of a search."""


def _search() -> dict[str, Any]:
    """The loads that a search has tried, by what became of them, over a band where its answer lies."""
    base = alt.Chart(alt.NamedData(name="tried"))
    x = alt.X("load:Q", axis=alt.Axis(title="Load", format=",~r"), scale=alt.Scale(type="log", nice=False, padding=16))
    kinds = {"met": "circle", "missed": "triangle-down", "open": "square", "next": "diamond"}
    words = "{met: 'meets the budget', missed: 'misses it', open: 'too close to tell', next: 'comes next'}[datum.label]"
    columns = alt.ExprRef("width < 420 ? 2 : 4")
    legend = alt.Legend(title=None, orient="bottom", labelExpr=words, columns=columns)
    shape = alt.Shape("status:N", scale=alt.Scale(domain=list(kinds), range=list(kinds.values())), legend=legend)
    colour = alt.Color(
        "status:N", scale=alt.Scale(domain=list(kinds), range=["#009e73", "#d55e00", GREY, "#56b4e9"]), legend=legend
    )
    told = [alt.Tooltip("load:Q", format=",.4~g"), alt.Tooltip("status:N")]
    band = alt.Chart(alt.NamedData(name="band")).mark_rect(color="#009e73", opacity=0.18)
    layers = [
        band.encode(x=x, x2="high:Q", y=alt.value(0), y2=alt.value(_STRIP)),
        base.mark_point(filled=True, size=130, opacity=1).encode(x=x, shape=shape, color=colour, tooltip=told),
        base.mark_text(style="label", dy=-16).encode(x=x, text=alt.Text("load:Q", format=",.3~g")),
    ]
    return _fluid(alt.LayerChart(layer=layers, title="Where the answer lies: the band, at 95%", height=_STRIP))


def _series() -> dict[str, Any]:
    base = alt.Chart(alt.NamedData(name="series"))
    x = alt.X("at:Q", axis=alt.Axis(title="Seconds ago"), scale=alt.Scale(domain=[-120, 0], nice=False))
    y = alt.Y("tokens:Q", axis=alt.Axis(title="Output tokens/s", format=",~r"))
    failed = base.transform_filter("datum.failed > 0").mark_rule(color="#d55e00", strokeWidth=3).encode(x=x)
    area = base.mark_area(interpolate="step", color=GREY, opacity=0.25).encode(x=x, y=y)
    line = base.mark_line(interpolate="step", strokeWidth=1.5).encode(x=x, y=y)
    title = alt.TitleParams("The last two minutes", subtitle="Of answers that have ended; red: failures")
    return _fluid(alt.LayerChart(layer=[area, line, failed], title=title, height=180))


def _fluid(chart: alt.LayerChart) -> dict[str, Any]:
    spec: dict[str, Any] = chart.to_dict(validate=False)
    return spec | {"width": "container", "autosize": {"type": "fit-x", "contains": "padding", "resize": True}}


def _file(name: str) -> str:
    return (files("pacemark.reporting") / "templates" / name).read_text("utf-8")
