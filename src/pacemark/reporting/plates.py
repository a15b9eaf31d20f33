"""The charts of a page: each at every width that it is drawn for, with a table of what it shows."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import altair as alt

from pacemark.budget import Budget, parse
from pacemark.errors import BadInput
from pacemark.figures.picture import LevelPicture
from pacemark.reporting.answer import recommended
from pacemark.reporting.charts import curve as charts
from pacemark.reporting.charts.lanes import lanes_chart, lanes_table
from pacemark.reporting.charts.server import moments_part, moments_table, phases_part, phases_table
from pacemark.reporting.charts.spread import spread_chart, spread_table
from pacemark.reporting.charts.time import time_part
from pacemark.summary import Summary, Timeline
from pacemark.units import number

__all__ = ["FROM", "Choice", "Plate", "curve_specs", "fluid", "plates"]

_SIZES = ((1100, 960, 430), (930, 800, 800), (740, 610, 610), (560, 440, 440), (0, 255, 255))
"""Page widths from which on a size is used, and the plots' widths: of the curve, and of each chart by load."""
FROM = tuple(page for page, _, _ in _SIZES)
_NARROW = 330
"""For which the words above a chart are wrapped that is as wide as its place."""
_TIMED = {"ttft_ms": "TTFT", "tpot_ms": "TPOT", "latency_ms": "Latency"}
_COLUMNS = {
    "load": "Load", "lengths": "Tokens", "series": "Figure", "time": "Time", "tokens": "Output tokens/s",
    "requests": "Requests/s", "failed": "Failed", "held": "Budget", "verdict": "Verdict",
}  # fmt: skip
"""Fields of a chart's rows that people can read."""

Spec = dict[str, Any]


class Choice(NamedTuple):
    """One thing that a plate can show."""

    name: str
    specs: list[Spec]
    """At each of `FROM`; a single one is as wide as its place."""
    head: list[str]
    rows: list[list[str]]


class Plate(NamedTuple):
    """A chart and its table."""

    id: str
    label: str
    """What it shows, to who cannot see it."""
    choices: list[Choice]
    pick: str = ""
    """What the choices are."""
    first: int = 0
    """The one that is shown first."""


def plates(summary: Summary, pictures: Sequence[LevelPicture]) -> dict[str, list[Plate]]:
    """The plates of each section of a page; a section that has nothing to show has none."""
    curve, *by_load = _sized(summary)
    found = {"answer": [curve], "load": by_load, "phases": [], "spread": [], "time": [], "lanes": []}
    for part in phases_part(summary, _NARROW):
        found["phases"].append(
            Plate("phases", "Where the time goes", [Choice("", [fluid(part)], *phases_table(summary))])
        )
    for part in time_part(summary, _NARROW):
        found["time"].append(Plate("time", "The run over time", [Choice("", [fluid(part)], *_times(summary))]))
    for n, part in enumerate(moments_part(summary, _NARROW)):
        told = Choice("", [fluid(part)], *moments_table(summary))
        found["time"].append(Plate(f"moments{n}", str(part.title.text), [told]))
    if spreads := list(_spreads(summary, pictures)):
        found["spread"].append(Plate("spread", "The distribution of latencies, by level", spreads, "Of"))
    if lanes := [x for x in pictures if x.lanes]:
        choices = [Choice(x.name, [fluid(lanes_chart(x.lanes))], *lanes_table(x.lanes)) for x in lanes]
        chosen = str(recommended(summary))
        first = next((n for n, x in enumerate(lanes) if x.name == chosen), len(lanes) - 1)
        found["lanes"].append(Plate("lanes", "Requests of a level side by side", choices, "Level", first))
    return found


def curve_specs(found: Mapping[str, Sequence[Plate]]) -> list[Spec]:
    """The curve and the charts by load, at the middle size."""
    return [plate.choices[0].specs[len(FROM) // 2] for plate in [*found["answer"], *found["load"]]]


def _sized(summary: Summary) -> list[Plate]:
    """The curve and the charts by load, or those of a length grid, at each size."""
    drawn = [[x.to_dict(validate=False) for x in charts.parts(summary, *size[1:], timed=False)] for size in _SIZES]
    found = []
    for n, specs in enumerate(zip(*drawn, strict=True)):
        title = specs[0]["title"]["text"]
        found.append(Plate(f"chart{n}", title, [Choice("", list(specs), *_readable(specs[0]))]))
    return found


def _readable(spec: Spec) -> tuple[list[str], list[list[str]]]:
    """The rows of a chart whose points have a verdict, as heads and cells."""
    rows = next((values for values in _inline(spec) if values and "verdict" in values[0]), [])
    names = [name for name in _COLUMNS if rows and name in rows[0] and {row[name] for row in rows} != {"-"}]
    return [_COLUMNS[name] for name in names], [[str(row[name]) for name in names] for row in rows]


def _inline(spec: Spec) -> Iterator[list[dict[str, Any]]]:
    yield from spec.get("datasets", {}).values()
    if "values" in spec.get("data", {}):
        yield spec["data"]["values"]
    for layer in spec.get("layer", []):
        yield from _inline(layer)


def fluid(chart: alt.LayerChart | alt.Chart) -> Spec:
    """A chart as wide as its place."""
    spec: Spec = chart.to_dict(validate=False)
    return spec | {"width": "container", "autosize": {"type": "fit-x", "contains": "padding"}}


def _spreads(summary: Summary, pictures: Sequence[LevelPicture]) -> Iterator[Choice]:
    budget = _budget(summary)
    for metric, name in _TIMED.items():
        there = [one for one in pictures if one.spreads.get(metric)]
        if there:
            yield Choice(name, [fluid(spread_chart(there, metric, name, budget))], *spread_table(there, metric))


def _budget(summary: Summary) -> Budget | None:
    settings = summary.run.get("settings")
    text = summary.find.budget if summary.find else settings.get("budget") if isinstance(settings, dict) else ""
    with contextlib.suppress(BadInput):  # a budget of a later version
        return parse(text) if text else None
    return None


def _times(summary: Summary) -> tuple[list[str], list[list[str]]]:
    timeline = summary.timeline
    assert isinstance(timeline, Timeline)
    columns: dict[str, Sequence[float]] = {
        "tokens/s": timeline.output_tokens_per_s,
        "in flight": timeline.in_flight,
        "failed": timeline.failed,
        "answered 429": timeline.throttled,
    }
    there = {name: values for name, values in columns.items() if any(values)}
    steps = range(len(timeline.output_tokens_per_s))
    rows = [[number(n * timeline.step_s), *(number(values[n]) for values in there.values())] for n in steps]
    return ["from, s", *there], rows
