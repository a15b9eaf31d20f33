"""A finished run, as the Python face hands it out."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pacemark.answers.comparison import Compared
from pacemark.answers.versus import Contest
from pacemark.runs import tables
from pacemark.runs.tables import RowsOf
from pacemark.summary import Level, Summary

if TYPE_CHECKING:
    import altair
    import pandas
    import pyarrow
    from pyspark.sql import DataFrame, SparkSession


_SCREEN = 20
"""Lines that a run takes in a Python session, at the most."""


@dataclasses.dataclass(frozen=True, repr=False)
class Run:
    """A finished run: its summary, and the folder that holds every request of it."""

    summary: Summary
    path: Path
    notices: tuple[str, ...] = dataclasses.field(default=(), compare=False)
    """What was said while it ran: limits that it would exceed, or did. A stored run has none."""

    @property
    def levels(self) -> list[Level]:
        """The load levels, in the order they ran."""
        return self.summary.levels

    @property
    def interrupted(self) -> bool:
        """Whether it was stopped before its last level ended."""
        return bool(self.summary.run.get("interrupted"))

    @property
    def answer(self) -> str:
        """What to choose and why, in words: what the command line prints below its table."""
        from pacemark.reporting.terminal import answer

        return answer(self.summary)

    def __repr__(self) -> str:
        from pacemark.reporting.words import title

        count = f"{len(self.levels)} level{'' if len(self.levels) == 1 else 's'}"
        lines = [f"Run of {title(self.summary)}: {count}, in {self.path}", *self.answer.splitlines()]
        return "\n".join(lines if len(lines) <= _SCREEN else [*lines[: _SCREEN - 1], "  ..."])

    def to_pandas(self, rows: RowsOf = "levels") -> pandas.DataFrame:
        """A row per level, columns such as `ttft_ms_p95` and `ttft_ms_p95_low`; or a row per request. Needs pandas."""
        return tables.to_pandas(tables.table(self.summary, self.path, rows))

    def to_arrow(self, rows: RowsOf = "levels") -> pyarrow.Table:
        """The same for Arrow. Needs the extra `arrow`."""
        return tables.to_arrow(tables.table(self.summary, self.path, rows))

    def to_spark(self, rows: RowsOf = "levels", session: SparkSession | None = None) -> DataFrame:
        """The same for Spark, in `session` or the active one. The columns never change, so tables can be added to."""
        return tables.to_spark(tables.table(self.summary, self.path, rows), session)

    def plot(self) -> altair.LayerChart | altair.VConcatChart:
        """The throughput-latency curve; of a length grid, its lines. A saved notebook shows it without a network."""
        from pacemark.reporting.charts.curve import main_chart
        from pacemark.reporting.notebook import offline

        return offline(main_chart(self.summary))

    def _repr_mimebundle_(self, **_: Any) -> dict[str, Any]:
        from pacemark.reporting.notebook import bundle

        return bundle(self.summary)

    def _repr_html_(self) -> str:
        """For what asks for nothing else: `display` of a Databricks notebook."""
        from pacemark.reporting.notebook import fragment

        return fragment(self.summary)


class ComparedRuns(Compared, frozen=True):
    """A comparison, as the Python face hands it out."""

    def __repr__(self) -> str:
        from pacemark.reporting.compared import text

        return text(self)

    def _repr_html_(self) -> str:
        from pacemark.reporting.compared import comparison_html

        return comparison_html(self)

    def _repr_mimebundle_(self, **_: Any) -> dict[str, Any]:
        return {"text/html": self._repr_html_(), "text/plain": repr(self)}


class ContestOfRuns(Contest, frozen=True):
    """A contest, as the Python face hands it out."""

    def __repr__(self) -> str:
        from pacemark.reporting.versus import contest_text

        return contest_text(self)

    def _repr_html_(self) -> str:
        from pacemark.reporting.versus import contest_html

        return contest_html(self)

    def _repr_mimebundle_(self, **_: Any) -> dict[str, Any]:
        return {"text/html": self._repr_html_(), "text/plain": repr(self)}
