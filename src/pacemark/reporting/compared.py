"""Two runs against each other, in the terminal and as Markdown: the summary first, then what differs."""

from __future__ import annotations

import io
from collections.abc import Iterator
from html import escape
from pathlib import Path

from rich.box import SIMPLE_HEAD
from rich.console import Console, Group, RenderableType
from rich.table import Table
from rich.text import Text

from pacemark.answers.comparison import Compared, ComparedLevel, Comparison, Outcome, Side
from pacemark.reporting.markdown import cell
from pacemark.reporting.words import plain, value
from pacemark.summary import Figure

__all__ = ["compared_lines", "compared_rows", "comparison", "comparison_html", "markdown", "text"]

_METRICS = {
    "output_tokens_per_s": "output tok/s",
    "requests_per_s": "requests/s",
    "ttft_ms": "TTFT ms",
    "tpot_ms": "TPOT ms",
    "latency_ms": "latency ms",
}
_QUIET = ("no difference shown", "undecidable")


def comparison(compared: Compared, *, everything: bool = False) -> RenderableType:
    """Run B against run A: the conditions of a gate, a summary, and a row per metric that differs; or `everything`."""
    grid = Table(box=SIMPLE_HEAD, pad_edge=False, padding=(0, 1, 0, 0))
    grid.add_column("Metric", no_wrap=True)
    for name in ("A", "B", "B / A (95%)"):
        grid.add_column(name, justify="right", no_wrap=True)
    grid.add_column("Verdict")
    some = False
    for level in compared.levels:
        rows = list(_rows(level, everything))
        if rows:
            some = True
            grid.add_section()
            grid.add_row(Text(plain(level.asked or level.load), style="bold"))
        for name, found in rows:
            grid.add_row(name, value(found.a), value(found.b), _change(found.ratio), found.verdict)
    said = [Text(line) for line in [*_gate(compared), *_summary(compared, everything)]]
    return Group(*said, *([grid] if some else []))


def markdown(compared: Compared, *, everything: bool = False) -> str:
    """The same as Markdown, for a pull request or a job's summary."""
    lines = [f"- {cell(line)}" for line in [*_gate(compared), *_summary(compared, everything)]]
    lines += [f"- they differ in {cell(str(d))}" for d in compared.differences]
    lines += [f"- left out: {cell(line)}" for line in compared.left_out]
    rows = [(level, *row) for level in compared.levels for row in _rows(level, everything)]
    if rows:
        lines += ["", "| load | metric | A | B | B / A (95%) | verdict |", "| --- | --- | ---: | ---: | ---: | --- |"]
    for level, name, x in rows:
        cells = (plain(level.asked or level.load), name, value(x.a), value(x.b), _change(x.ratio), x.verdict)
        lines.append(f"| {' | '.join(map(cell, cells))} |")
    return "\n".join(lines)


def compared_lines(compared: Compared, other: str = "B") -> list[str]:
    """The conditions of a gate, how many figures differ, and what else does; run B is called `other`."""
    said = [*_gate(compared), _counted(compared, other)]
    return [
        *said,
        *(f"They differ in {d}." for d in compared.differences),
        *(f"Left out: {x}." for x in compared.left_out),
    ]


def compared_rows(compared: Compared, *, everything: bool = False) -> list[list[str]]:
    """A row per figure that differs, or for `everything`: load, figure, A, B, ratio, verdict."""
    return [
        [plain(level.asked or level.load), name, value(x.a), value(x.b), _change(x.ratio), x.verdict]
        for level in compared.levels
        for name, x in _rows(level, everything)
    ]


def text(compared: Compared) -> str:
    """The same as plain text, for a Python session."""
    console = Console(width=80, file=io.StringIO(), color_system=None, force_jupyter=False)
    console.print(comparison(compared))
    assert isinstance(console.file, io.StringIO)
    return "\n".join(line.rstrip() for line in console.file.getvalue().splitlines())


def comparison_html(compared: Compared) -> str:
    """The same as HTML that needs no script and no style sheet, for a notebook; every figure can be unfolded."""
    said = "".join(f"<p>{escape(line)}</p>" for line in [*_gate(compared), *_summary(compared, everything=True)])
    differ, every = (_html_table(compared, everything) for everything in (False, True))
    rest = f"<details><summary>Every figure</summary>{every}</details>" if every else ""
    return f"<div>{said}{differ}{rest}</div>"


_CELL = "text-align: right; padding: 2px 8px"


def _html_table(compared: Compared, everything: bool) -> str:
    """The rows of `comparison`; empty where there are none."""
    rows = []
    for level in compared.levels:
        here = list(_rows(level, everything))
        if here:
            where = escape(plain(level.asked or level.load))
            rows.append(f'<tr><th colspan="5" style="text-align: left">{where}</th></tr>')
        for name, x in here:
            cells = (value(x.a), value(x.b), _change(x.ratio), x.verdict)
            inner = "".join(f'<td style="{_CELL}">{escape(cell)}</td>' for cell in cells)
            rows.append(f'<tr><td style="text-align: left">{escape(name)}</td>{inner}</tr>')
    heads = "".join(f"<th>{head}</th>" for head in ("Metric", "A", "B", "B / A (95%)", "Verdict"))
    return f"<table><thead><tr>{heads}</tr></thead><tbody>{''.join(rows)}</tbody></table>" if rows else ""


def _gate(compared: Compared) -> list[str]:
    return [outcome_line(outcome) for outcome in compared.conditions]


def outcome_line(outcome: Outcome) -> str:
    """What became of a condition of a gate."""
    return plain(f"{outcome.status}: {outcome.condition}: {outcome.why}")


def _summary(compared: Compared, everything: bool) -> list[str]:
    sides = [f"{name}: {_side(side)}" for name, side in (("A", compared.a), ("B", compared.b)) if side]
    return [*sides, _counted(compared, "B", more=not everything)]


def _counted(compared: Compared, other: str, *, more: bool = False) -> str:
    """How many figures differ, and which way; `more`: where the rest is to be seen."""
    found = [c for level in compared.levels for c in level.metrics.values() if not _absent(c)]
    differ = [c for c in found if c.verdict not in _QUIET]
    unknown = sum(c.verdict == "undecidable" for c in found)
    parts = [f"{len(differ)} of {len(found)} figures differ at {_count(len(compared.levels), 'load')}"]
    worse = sum(c.verdict in ("slower", "lower") for c in differ)
    if differ:
        parts.append(f"{other} is worse in {worse} and better in {len(differ) - worse}")
    if unknown:
        parts.append(f"{unknown} cannot be told, for want of requests")
    if more and len(differ) < len(found):
        parts.append("--all shows the rest")
    return "; ".join(parts) + "."


def _side(side: Side) -> str:
    parts = [Path(side.run).name, side.model, side.url, side.started]
    return plain(", ".join(part for part in parts if part)) or "a run that does not say what it measured"


def _count(n: int, what: str) -> str:
    return f"{n} {what if n == 1 else what + 's'}"


def _absent(found: Comparison) -> bool:
    return found.a.value is None and found.b.value is None


def _rows(level: ComparedLevel, everything: bool) -> Iterator[tuple[str, Comparison]]:
    for name, found in level.metrics.items():
        if _absent(found) or (not everything and found.verdict in _QUIET):
            continue
        metric, _, statistic = name.partition(".")
        yield f"{_METRICS[metric]} {statistic}".strip(), found


def _change(ratio: Figure) -> str:
    """How much more or less it is, and the interval of that, in percent."""
    if ratio.value is None:
        return "-"
    change = f"{ratio.value - 1:+.1%}"
    if ratio.low is None or ratio.high is None:
        return change
    return f"{change} ({100 * (ratio.low - 1):+.1f} to {100 * (ratio.high - 1):+.1f})"
