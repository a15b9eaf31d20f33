"""What all pages have in common: one file each, its styles, its charts and their script in it, all text escaped."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from importlib.resources import files
from typing import Any

import msgspec
from jinja2 import Environment, FunctionLoader, StrictUndefined, Template
from markupsafe import Markup

from pacemark.reporting import drawing
from pacemark.reporting.charts.theme import theme
from pacemark.reporting.plates import FROM, Plate
from pacemark.reporting.words import interval, load_cell, plain, when
from pacemark.units import number

__all__ = ["rendered"]


def rendered(name: str, shown: Sequence[Plate], /, **known: Any) -> str:
    """The template `name` with what is `known`, and with the charts `shown`."""
    css, code = Markup(_file("report.css")), Markup(drawing.script())
    return _template(name).render(css=css, code=code, data=Markup(_data(shown)), **known)


@cache
def _template(name: str) -> Template:
    """A page. What it is given as a string comes out on one line and escaped; only `Markup` is let through."""
    page = Environment(
        loader=FunctionLoader(_file), autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True,
        finalize=lambda x: plain(x) if isinstance(x, str) and not isinstance(x, Markup) else x,
    )  # fmt: skip
    page.filters |= {
        "capital": lambda text: text[:1].upper() + text[1:],
        "count": "{:,}".format,
        "interval": interval,
        "load_cell": load_cell,
        "number": lambda value: "-" if value is None else number(value),
        "when": when,
        "share": lambda value, digits: f"{value:.{digits}%}",
    }
    return page.get_template(name)


@cache
def _file(name: str) -> str:
    return (files("pacemark.reporting") / "templates" / name).read_text("utf-8")


def _data(shown: Sequence[Plate]) -> str:
    """The charts and their tables, as JSON that may stand in a script element."""
    charts = {plate.id: [choice._asdict() for choice in plate.choices] for plate in shown}
    data = {"from": FROM, "charts": charts, "light": theme(), "dark": theme(dark=True)}
    # In a script element only "<" can end it or open a comment, so no text from outside may bring one.
    return msgspec.json.encode(data).decode().replace("<", "\\u003c")
