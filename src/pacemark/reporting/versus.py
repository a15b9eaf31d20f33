"""Targets that were measured in turn: who is better, and by how much; in the terminal, as Markdown, in a notebook."""

from __future__ import annotations

import io
import math
from collections.abc import Iterator
from html import escape

import msgspec
from rich.box import SIMPLE_HEAD
from rich.console import Console, Group, RenderableType
from rich.table import Table
from rich.text import Text

from pacemark.answers.comparison import SAME
from pacemark.answers.versus import COST, FIGURES, Contest, LoadContest, Pair, Paired, wins
from pacemark.reporting.compared import outcome_line
from pacemark.reporting.markdown import cell
from pacemark.reporting.words import plain
from pacemark.units import number

__all__ = ["contest_html", "contest_markdown", "contest_table", "contest_text", "verdict_lines"]

_NAMES = {
    "output_tokens_per_s": "output tok/s",
    "requests_per_s": "requests/s",
    "ttft_ms": "TTFT ms",
    "tpot_ms": "TPOT ms",
    "latency_ms": "latency ms",
    COST: "per million tokens",
}


def figure_name(name: str) -> str:
    """A figure as people write it: `TTFT ms p95`."""
    metric, _, statistic = name.partition(".")
    return f"{_NAMES[metric]} {statistic}".strip()


def verdict_lines(contest: Contest) -> list[str]:
    """Who is who, who is better, and what it costs; a sentence each."""
    who = [f"{one.name}: {plain(', '.join(x for x in (one.model, one.target) if x))}" for one in contest.targets]
    gate = [outcome_line(outcome) for outcome in contest.conditions]
    return [*gate, *who, _winner(contest), *_costs(contest), *map(plain, [*contest.left_out, *contest.doubts])]


def _winner(contest: Contest) -> str:
    pairs = [(load, pair) for load in contest.loads for pair in load.pairs]
    if not any(pair.metrics for _, pair in pairs):
        return "Undecidable: too few rounds could be relied on."
    if contest.winner is not None:
        beaten = [(load, pair) for load, pair in pairs if contest.winner in (pair.a, pair.b)]
        return f"{contest.winner} is better: {'; '.join(_ahead(contest.winner, *x) for x in beaten if _differs(x[1]))}."
    if not any(_differs(pair) for _, pair in pairs):
        return f"No difference shown: {'; '.join(_alike(*x) for x in pairs)}."
    return f"No one winner: {'; '.join(_mixed(*x) for x in pairs)}."


def _differs(pair: Pair) -> bool:
    return any(x.verdict != SAME for name, x in pair.metrics.items() if name != COST)


def _ahead(winner: str, load: LoadContest, pair: Pair) -> str:
    """The first figure in which the winner is better, seen from the winner."""
    name, found = next((n, x) for n, x in pair.metrics.items() if n != COST and x.verdict != SAME)
    other = pair.a if pair.b == winner else pair.b
    return f"{figure_name(name)} {change(found, turned=pair.a == winner)} against {other} at {load.load}"


def _alike(load: LoadContest, pair: Pair) -> str:
    if not pair.metrics:
        return f"{pair.a} and {pair.b} share too few rounds at {load.load}"
    name, found = next(iter(pair.metrics.items()))
    return f"{figure_name(name)} of {pair.b} is {change(found)} against {pair.a} at {load.load}"


def _mixed(load: LoadContest, pair: Pair) -> str:
    better, worse = wins([pair], pair.b, pair.a)
    if not (better or worse):
        return f"{pair.b} and {pair.a} show no difference at {load.load}"
    parts = [
        f"{what} in {', '.join(map(figure_name, names))}" for what, names in (("better", better), ("worse", worse))
    ]
    said = " and ".join(part for part, names in zip(parts, (better, worse), strict=True) if names)
    return f"{pair.b} is {said} than {pair.a} at {load.load}"


def _costs(contest: Contest) -> Iterator[str]:
    for load in contest.loads:
        costs = [
            f"{number(x.cost_per_million_tokens)} with {x.name}" for x in load.targets if x.cost_per_million_tokens
        ]
        if costs:
            said = f"; {contest.cheapest} is the cheapest" if contest.cheapest else ""
            yield f"A million output tokens cost {', '.join(costs)} at {load.load}{said}."


def change(found: Paired, *, turned: bool = False) -> str:
    """How much more or less it is, with its interval, in percent: of B against A, or `turned` of A against B."""
    value, low, high = (math.nan if x is None else x for x in msgspec.structs.astuple(found.ratio))
    if turned:
        value, low, high = 1 / value, 1 / high, 1 / low
    return f"{value - 1:+.1%} ({100 * (low - 1):+.1f} to {100 * (high - 1):+.1f})"


def _rows(contest: Contest) -> Iterator[tuple[LoadContest, str, list[str]]]:
    """A row per figure: its name, every target's value, and what each pair makes of it."""
    for load in contest.loads:
        names = [n for n in (*FIGURES, COST) if any(n in pair.metrics for pair in load.pairs)]
        for name in names:
            values = [x.cost_per_million_tokens if name == COST else x.figures.get(name) for x in load.targets]
            cells = ["-" if value is None else number(value) for value in values]
            said = [pair.metrics.get(name) for pair in load.pairs]
            if len(said) > 1:
                cells += ["-" if found is None else _short(found) for found in said]
            else:
                cells += ["-", "-"] if said[0] is None else [change(said[0]), said[0].verdict]
            yield load, figure_name(name), cells


def _short(found: Paired) -> str:
    return "same" if found.verdict == SAME else change(found).partition(" ")[0]


def _heads(contest: Contest) -> list[str]:
    names = [one.name for one in contest.targets]
    pairs = contest.loads[0].pairs if contest.loads else []
    last = ["B / A (95%)", "B is"] if len(names) == 2 else [f"{pair.b} / {pair.a}" for pair in pairs]
    return ["Figure", *names, *last]


def contest_table(contest: Contest) -> RenderableType:
    """The sentences, and a row per figure and load."""
    grid = Table(box=SIMPLE_HEAD, pad_edge=False, padding=(0, 1, 0, 0))
    for n, head in enumerate(_heads(contest)):
        grid.add_column(head, justify="left" if head in ("Figure", "B is") else "right", no_wrap=n == 0)
    before = None
    for load, name, cells in _rows(contest):
        if load is not before:
            before = load
            grid.add_section()
            grid.add_row(Text(plain(load.load), style="bold"))
        grid.add_row(name, *cells)
    said = [Text(line) for line in verdict_lines(contest)]
    return Group(*said, *([grid] if before is not None else []))


def contest_markdown(contest: Contest) -> str:
    """The same as Markdown."""
    lines = [f"- {cell(line)}" for line in verdict_lines(contest)]
    heads = ["load", *_heads(contest)]
    lines += ["", f"| {' | '.join(heads)} |", f"| --- | --- |{' ---: |' * (len(heads) - 2)}"]
    for load, name, cells in _rows(contest):
        lines.append(f"| {' | '.join(map(cell, [str(load.load), name, *cells]))} |")
    return "\n".join(lines)


def contest_text(contest: Contest) -> str:
    """The same as plain text, for a Python session."""
    console = Console(width=80, file=io.StringIO(), color_system=None, force_jupyter=False)
    console.print(contest_table(contest))
    assert isinstance(console.file, io.StringIO)
    return "\n".join(line.rstrip() for line in console.file.getvalue().splitlines())


_CELL = "text-align: right; padding: 2px 8px"


def contest_html(contest: Contest) -> str:
    """The same as HTML that needs no script and no style sheet, for a notebook."""
    said = "".join(f"<p>{escape(line)}</p>" for line in verdict_lines(contest))
    heads = "".join(f"<th>{escape(head)}</th>" for head in ["Load", *_heads(contest)])
    rows = "".join(
        f"<tr><td>{escape(str(load.load))}</td><td>{escape(name)}</td>"
        + "".join(f'<td style="{_CELL}">{escape(text)}</td>' for text in cells)
        + "</tr>"
        for load, name, cells in _rows(contest)
    )
    return f"<div>{said}<table><thead><tr>{heads}</tr></thead><tbody>{rows}</tbody></table></div>"
