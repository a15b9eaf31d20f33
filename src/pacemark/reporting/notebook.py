"""A run as a notebook shows it: the chart, and the answer in words."""

from __future__ import annotations

from html import escape
from typing import Any

import altair as alt

from pacemark.reporting import drawing
from pacemark.reporting.answer import Statement
from pacemark.reporting.answer import answer as statements
from pacemark.reporting.charts.curve import main_chart
from pacemark.reporting.terminal import answer
from pacemark.summary import Summary

__all__ = ["bundle", "fragment", "offline", "picture"]

_VERSION = alt.SCHEMA_VERSION.removeprefix("v").split(".")[:2]
"""Of Vega-Lite: major and minor."""


def bundle(summary: Summary) -> dict[str, Any]:
    """The forms of a run by MIME type, for `_repr_mimebundle_`.

    JupyterLab and VS Code draw the Vega-Lite chart themselves; others show the HTML.
    """
    chart = main_chart(summary).to_dict(validate=False)
    return {
        f"application/vnd.vegalite.v{_VERSION[0]}+json": chart,
        "text/html": fragment(summary),
        "text/plain": answer(summary),
    }


def picture(summary: Summary) -> dict[str, Any]:
    """The chart alone, while a run goes on."""
    return _drawn(main_chart(summary))


def fragment(summary: Summary) -> str:
    """The chart as SVG, and the answer: for what shows HTML alone, as Databricks' `display` does.

    It needs no script, no style sheet and no network.
    """
    chart = main_chart(summary).to_dict(validate=False)
    svg = drawing.svg(chart)
    words = "".join(
        f"<p><b>{escape(said.name[:1].upper() + said.name[1:])}{_mark(said)}: "
        f"{escape(said.text)}{escape(f'; suspect: {said.doubt}') if said.doubt else ''}.</b><br>{escape(said.why)}</p>"
        for said in statements(summary)
    )
    return f'<div style="background: white; color: black; padding: 8px; overflow-x: auto">{svg}{words}</div>'


class _Layered(alt.LayerChart):
    """A chart that brings its own drawing: altair's asks the network for a script."""

    def _repr_mimebundle_(self, *_: Any, **__: Any) -> dict[str, Any]:
        return _drawn(self)


class _Column(alt.VConcatChart):
    """The same of charts one above the other."""

    def _repr_mimebundle_(self, *_: Any, **__: Any) -> dict[str, Any]:
        return _drawn(self)


def offline(chart: alt.LayerChart | alt.VConcatChart) -> alt.LayerChart | alt.VConcatChart:
    """The same chart, shown by a notebook without a network; it can be changed and saved as any chart of altair."""
    kind = _Layered if isinstance(chart, alt.LayerChart) else _Column
    return kind(**{name: value for name, value in chart._kwds.items() if value is not alt.Undefined})


def _drawn(chart: alt.LayerChart | alt.VConcatChart) -> dict[str, Any]:
    spec = chart.to_dict()
    return {
        f"application/vnd.vegalite.v{_VERSION[0]}+json": spec,
        "text/html": drawing.svg(spec),
        "text/plain": repr(chart),
    }


def _mark(said: Statement) -> str:
    return (" (doubtful)" if said.doubt else " (recommended)") if said.recommended else ""
