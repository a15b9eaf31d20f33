"""A run's answer and levels as Markdown, for a pull request or a page."""

from __future__ import annotations

import re

from pacemark.reporting.words import errors, load_axis, load_cell, plain, title, value
from pacemark.summary import Level, Summary

__all__ = ["cell", "run_in_markdown"]

_MARKS = {"met": "✓ ", "missed": "✗ ", "open": "? "}


def cell(text: object) -> str:
    """`text` as it may stand in a table's cell, whoever wrote it: without markup, links and code."""
    return re.sub(r"([\\|\[`])", r"\\\1", plain(text)).replace("<", "&lt;")


def run_in_markdown(summary: Summary, said: str) -> str:
    """What was measured, the answer (`said`, in words) and a table of the levels."""
    head = (load_axis(summary.levels), "tok/s", "req/s", "TTFT p50", "TTFT p95", "TPOT p50", "latency p95", "failed")
    lines = [f"### pacemark: {cell(title(summary))}", "", cell(said), ""]
    lines += [f"| {' | '.join((*head, 'verdict'))} |", f"|{' ---: |' * len(head)} --- |"]
    lines += [f"| {' | '.join(map(cell, _row(level)))} |" for level in summary.levels]
    started, version = summary.run.get("started", ""), summary.run.get("versions", {}).get("pacemark", "")
    return "\n".join([*lines, "", f"Latencies in ms. {cell(f'pacemark {version}, {started}')}.", ""])


def _row(level: Level) -> list[str]:
    mark = _MARKS.get(getattr(level.budget, "status", ""), "")
    figures = [level.output_tokens_per_s, level.requests_per_s, level.ttft_ms.p50, level.ttft_ms.p95]
    figures += [level.tpot_ms.p50, level.latency_ms.p95]
    return [mark + load_cell(level), *map(value, figures), errors(level), level.verdict.status]
