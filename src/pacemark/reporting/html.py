"""The report: one HTML file that holds all it needs and asks the network for nothing."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Any

import msgspec
from altair.utils.schemapi import debug_mode
from jinja2 import Environment, FunctionLoader, StrictUndefined, Template
from markupsafe import Markup

from pacemark.files import write_whole
from pacemark.reporting import drawing
from pacemark.reporting.answer import answer, search_of
from pacemark.reporting.charts import curve as charts
from pacemark.reporting.charts.theme import theme
from pacemark.reporting.server import server_in_words
from pacemark.reporting.traffic import traffic_in_words
from pacemark.reporting.words import client_in_words, ended, errors, load_axis, load_cell, plain, reasons, title
from pacemark.summary import Level, Summary
from pacemark.units import number

_SIZES = ((1100, 960, 430), (740, 610, 610), (0, 255, 255))
"""Page widths from which on a size is used, and the plots' widths: of the curve, and of each smaller chart."""


def write_html(summary: Summary, path: str | Path) -> None:
    """Write the report of `summary` to `path`, whole or not at all; OSError where that cannot be done."""
    write_whole(Path(path), html(summary).encode())


def html(summary: Summary) -> str:
    """The report as one document. All text that came from outside is escaped."""
    run = summary.run
    with debug_mode(False), ThreadPoolExecutor(1) as aside:  # what draws leaves Python to others meanwhile
        middle = _specs(summary, _SIZES[1])
        svg = aside.submit(drawing.svg, charts.column(middle))
        specs = [_specs(summary, _SIZES[0]), middle, _specs(summary, _SIZES[2])]
    return _template().render(
        title=title(summary),
        when=_when(run["started"]) if run.get("started") else "",
        ending=f"failed: {plain(run['failure'])}" if run.get("failure")
        else "was interrupted." if run.get("interrupted")
        else f"was stopped by a rule of yours: {plain(run['stopped'])}." if run.get("stopped") else "",
        answer=answer(summary),
        charts=len(middle),
        find=search_of(summary),
        levels=summary.levels,
        axis=load_axis(summary.levels),
        client_said=client_in_words(summary),
        late=any(x.client.lateness_ms is not None for x in summary.levels),
        facts=_facts(summary),
        command=run.get("command"),
        schema=summary.schema,
        svg=Markup(svg.result()),
        css=Markup(_file("report.css")),
        data=Markup(_data(specs)),
        code=Markup(drawing.script()),
    )  # fmt: skip


@cache
def _template() -> Template:
    """The page. What it is given as a string comes out on one line and escaped; only `Markup` is let through."""
    page = Environment(
        loader=FunctionLoader(_file), autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True,
        finalize=lambda x: plain(x) if isinstance(x, str) and not isinstance(x, Markup) else x,
    )  # fmt: skip
    page.filters |= {
        "capital": lambda text: text[:1].upper() + text[1:],
        "count": "{:,}".format,
        "load_cell": load_cell,
        "number": lambda value: "-" if value is None else number(value),
        "remarks": _remarks,
        "share": lambda value, digits: f"{value:.{digits}%}",
    }
    return page.get_template("report.html")


@cache
def _file(name: str) -> str:
    return (files("pacemark.reporting") / "templates" / name).read_text("utf-8")


def _remarks(level: Level) -> list[str]:
    """What stands below a level's figures."""
    said = reasons(level) + traffic_in_words(level) + server_in_words(level)
    said += [f"Ended by {ended(level)}"] if level.ended_by in ("precision", "max_duration", "allowance") else []
    return said + ([f"Failed requests: {errors(level)}"] if level.requests.failed else [])


def _specs(summary: Summary, size: tuple[int, int, int]) -> list[dict[str, Any]]:
    """The charts at one size."""
    _, wide, narrow = size
    return [part.to_dict(validate=False) for part in charts.parts(summary, wide, narrow)]


def _data(specs: Sequence[list[dict[str, Any]]]) -> str:
    """The charts at each size, as JSON that may stand in a script element."""
    sizes = [{"from": page, "specs": drawn} for (page, _, _), drawn in zip(_SIZES, specs, strict=True)]
    data = {"sizes": sizes, "light": theme(), "dark": theme(dark=True)}
    # In a script element only "<" can end it or open a comment, so no text from outside may bring one.
    return msgspec.json.encode(data).decode().replace("<", "\\u003c")


def _facts(summary: Summary) -> list[tuple[str, str]]:
    """Names and values of all that is known of the target, the workload and the run."""
    shown = ("schema", "command", "loads", "grid", "started", "interrupted", "failure", "stopped")
    rest = {key: value for key, value in summary.run.items() if key not in shown}
    parts = (("Target", summary.target), ("Workload", summary.workload), ("Run", rest))
    return [(f"{name}: {key}", value) for name, facts in parts for key, value in _flat(facts)]


def _flat(facts: Mapping[str, Any], before: str = "") -> Iterable[tuple[str, str]]:
    """`facts` with nested mappings laid out as dotted names, and what is absent left out."""
    for key, value in facts.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{before}{key}.")
        elif value is not None and value not in ("", []):
            yield f"{before}{key}", ", ".join(map(_fact, value)) if isinstance(value, list) else _fact(value)


def _fact(value: object) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    return f"{value:g}" if isinstance(value, float) else str(value)


def _when(started: str) -> str:
    """A time of ISO 8601 as people read it; any other text as it is."""
    try:
        return datetime.fromisoformat(started).strftime("%Y-%m-%d %H:%M:%S %Z").strip()
    except (TypeError, ValueError):
        return plain(started)
