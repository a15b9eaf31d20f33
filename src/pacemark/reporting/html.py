"""The report: one HTML file that holds all it needs and asks the network for nothing."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from altair.utils.schemapi import debug_mode
from markupsafe import Markup

from pacemark.figures.picture import LevelPicture
from pacemark.files import write_whole
from pacemark.reporting import drawing
from pacemark.reporting.answer import answer, search_of
from pacemark.reporting.brief import brief
from pacemark.reporting.charts import curve as charts
from pacemark.reporting.content import content_in_words
from pacemark.reporting.nodes import HEADS, facts_of_nodes, node_row, nodes_in_words
from pacemark.reporting.plates import curve_specs, plates
from pacemark.reporting.reasons import counts, grouped
from pacemark.reporting.server import agreement_in_words, server_in_words
from pacemark.reporting.sheet import rendered
from pacemark.reporting.traffic import traffic_in_words
from pacemark.reporting.words import (
    client_in_words,
    ended,
    errors,
    load_axis,
    plain,
    reasons,
    title,
    when,
)
from pacemark.summary import VERDICTS, Level, Summary


def write_html(summary: Summary, path: str | Path, pictures: Sequence[LevelPicture] = ()) -> None:
    """Write the report of `summary` to `path`, whole or not at all; OSError where that cannot be done."""
    write_whole(Path(path), html(summary, pictures).encode())


def html(summary: Summary, pictures: Sequence[LevelPicture] = ()) -> str:
    """The report as one document; `pictures` are what is drawn of single levels. All text that came from outside is
    escaped."""
    run = summary.run
    with debug_mode(False), ThreadPoolExecutor(1) as aside:  # what draws leaves Python to others meanwhile
        drawn = plates(summary, pictures)
        svg = aside.submit(drawing.svg, charts.column(curve_specs(drawn)))
        shown = [plate for section in drawn.values() for plate in section]
    first, *others = answer(summary)
    return rendered(
        "report.html",
        shown,
        title=title(summary),
        when=when(run["started"]) if run.get("started") else "",
        ending=f"failed: {plain(run['failure'])}" if run.get("failure")
        else "was interrupted." if run.get("interrupted")
        else f"was stopped by a rule of yours: {plain(run['stopped'])}." if run.get("stopped") else "",
        brief=brief(summary),
        first=first,
        others=[said for said in others if said.name != "fitted"],
        fitted=[said for said in others if said.name == "fitted"],
        drawn=drawn,
        find=search_of(summary),
        levels=summary.levels,
        verdicts=_verdicts(summary.levels),
        grouped=grouped(summary),
        remarked=any(map(_remarks, summary.levels)),
        counted=counts(summary),
        axis=load_axis(summary.levels),
        client_said=client_in_words(summary),
        server_said=agreement_in_words(summary),
        nodes_said=nodes_in_words(summary),
        node_heads=HEADS,
        node_row=node_row,
        late=any(x.client.lateness_ms is not None for x in summary.levels),
        facts=_facts(summary),
        command=run.get("command"),
        schema=summary.schema,
        remarks_on=_remarks,
        svg=Markup(svg.result()),
    )  # fmt: skip


def _verdicts(levels: Sequence[Level]) -> str:
    """How many levels there are, and how far they can be trusted."""
    found = Counter(level.verdict.status for level in levels)
    said = [f"{found[status]} {status}" for status in VERDICTS if found[status]]
    return f"{len(levels)} level{'' if len(levels) == 1 else 's'}: {', '.join(said)}" if levels else "none finished"


def _remarks(level: Level) -> list[str]:
    """What stands below a level's figures."""
    said = reasons(level) + traffic_in_words(level) + content_in_words(level) + server_in_words(level)
    said += [f"Ended by {ended(level)}"] if level.ended_by in ("precision", "max_duration", "allowance") else []
    return said + ([f"Failed requests: {errors(level)}"] if level.requests.failed else [])


def _facts(summary: Summary) -> list[tuple[str, str]]:
    """Names and values of all that is known of the target, the workload and the run."""
    shown = ("schema", "command", "loads", "grid", "started", "interrupted", "failure", "stopped", "nodes")
    rest = {key: value for key, value in summary.run.items() if key not in shown}
    parts = (("Target", summary.target), ("Workload", summary.workload), ("Run", rest))
    told = [(f"{name}: {key}", value) for name, facts in parts for key, value in _flat(facts)]
    return told + facts_of_nodes(summary)


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
