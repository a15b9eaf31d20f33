"""Several runs in one page: their curves and what differs; and the runs of a folder, the newest first, over time."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from altair.utils.schemapi import debug_mode

from pacemark.answers.comparison import Compared
from pacemark.reporting.answer import answer, recommended
from pacemark.reporting.brief import brief
from pacemark.reporting.charts.runs import Past, curves_chart, curves_table, trend_chart
from pacemark.reporting.compared import compared_lines, compared_rows
from pacemark.reporting.plates import Choice, Plate, fluid
from pacemark.reporting.sheet import rendered
from pacemark.reporting.words import plain, title, when
from pacemark.summary import Level, Summary
from pacemark.units import number

__all__ = ["RunOnPage", "index_page", "together_page"]


class RunOnPage(NamedTuple):
    """A run of a page that holds several."""

    name: str
    """What it is called there, such as A; of a folder of runs, its own name."""
    summary: Summary
    link: str
    """Where its own report is, from where the page is."""

    @property
    def what(self) -> str:
        """What it measured, and when."""
        labels = self.summary.run.get("labels") or {}
        started = when(self.summary.run.get("started") or "")
        parts = [title(self.summary), *(f"{k}={v}" for k, v in labels.items()), started]
        return plain(", ".join(part for part in parts if part))


def together_page(runs: Sequence[RunOnPage], differences: Sequence[tuple[str, Compared | str]]) -> str:
    """The page of several runs. `differences` are those of each run against the first, by its name; a text where the
    two cannot be compared."""
    curves = [(run.name, run.summary) for run in runs]
    with debug_mode(False):
        shown = [
            Plate(
                "curves",
                "Latency by throughput, by run",
                [Choice("", [fluid(curves_chart(curves))], *curves_table(curves))],
            )
        ]
    told = [
        (name, [found], [], []) if isinstance(found, str)
        else (name, compared_lines(found, name), compared_rows(found), compared_rows(found, everything=True))
        for name, found in differences
    ]  # fmt: skip
    return rendered(
        "together.html",
        shown,
        title=f"{len(runs)} runs",
        shown=shown,
        runs=[(run, brief(run.summary)) for run in runs],
        first=runs[0].name,
        told=told,
    )


def index_page(runs: Sequence[RunOnPage], unread: Sequence[tuple[str, str]]) -> str:
    """The page of a folder of runs; `unread` are those without a summary, and why."""
    past = [one for run in runs if (one := _past(run)) is not None]
    rows = [[x.series, x.started, x.name, number(x.tokens_per_s)] for x in past]
    head = ["Of", "began", "run", "tokens/s"]
    shown: list[Plate] = []
    if len({x.started for x in past}) > 1:
        with debug_mode(False):
            shown = [
                Plate(
                    "trend", "Output tokens/s of runs over time", [Choice("", [fluid(trend_chart(past))], head, rows)]
                )
            ]
    newest = sorted(runs, key=lambda run: str(run.summary.run.get("started") or ""), reverse=True)
    latest: dict[str, RunOnPage] = {}
    for run in newest:
        latest.setdefault(_series(run.summary), run)
    return rendered(
        "index.html",
        shown,
        title=f"{len(runs)} run{'' if len(runs) == 1 else 's'}",
        shown=shown,
        latest=[(run, brief(run.summary)) for run in latest.values()],
        runs=[(run, answer(run.summary)[0], _failing(run.summary)) for run in newest],
        unread=unread,
    )


def _failing(summary: Summary) -> str:
    """How a run ended that did not come to its end; empty for one that did."""
    return "failed" if summary.run.get("failure") else "interrupted" if summary.run.get("interrupted") else ""


def _series(summary: Summary) -> str:
    """What a run has in common with those that it can be held against over time."""
    lengths = (summary.workload.get(name) for name in ("input_tokens", "output_tokens"))
    return plain(f"{title(summary)}, {'/'.join(map(str, lengths))} tokens")


def _past(run: RunOnPage) -> Past | None:
    level = _chosen(run.summary)
    started = str(run.summary.run.get("started") or "")
    if level is None or not started or level.output_tokens_per_s.value is None:
        return None
    figure, where = level.output_tokens_per_s, f"{run.name}, {plain(level.load)}"
    return Past(started, _series(run.summary), where, level.output_tokens_per_s.value, figure.low, figure.high)


def _chosen(summary: Summary) -> Level | None:
    """The level of the recommendation; else the one with the most throughput, where one can be relied on."""
    load = recommended(summary)
    sound = [x for x in summary.levels if x.verdict.status != "invalid" and x.output_tokens_per_s.value]
    chosen = next((x for x in sound if x.load == load), None)
    return chosen or max(sound, key=lambda x: x.output_tokens_per_s.value or 0.0, default=None)
