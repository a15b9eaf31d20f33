"""A result in the terminal, and the live display while one is made."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise
from math import floor, log10

from rich.box import SIMPLE_HEAD
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from pacemark.reporting.answer import Statement, recommended
from pacemark.reporting.answer import answer as statements
from pacemark.reporting.content import content_in_words, uncalled
from pacemark.reporting.nodes import HEADS, node_row, nodes_in_words, nodes_of
from pacemark.reporting.progress import Progress
from pacemark.reporting.reasons import loads_of, run_reasons
from pacemark.reporting.server import agreement_in_words, server_in_words, where_time_goes
from pacemark.reporting.traffic import traffic_in_words
from pacemark.reporting.words import open_loop, plain
from pacemark.summary import Distribution, Figure, Held, Level, Summary
from pacemark.units import number

__all__ = ["Progress", "answer", "ascii_curve", "conclusion", "headline", "stopped", "table"]

WIDTH = 80
_STYLES = {"valid": "green", "suspect": "yellow", "invalid": "red"}


def answer(summary: Summary) -> str:
    """The recommended operating point and the others, in words, in lines of at most 80 columns."""
    first, *others = statements(summary)
    return "\n".join([_paragraph(first), *(_paragraph(said, "  ") for said in others)])


def stopped(why: str) -> str:
    """That a rule of the user's ended the run, in lines of at most 80 columns."""
    return textwrap.fill(f"Stopped by a rule of yours: {plain(why)}.", WIDTH, subsequent_indent="  ")


def headline(summary: Summary) -> str:
    """The answer alone, without what it rests on."""
    return _paragraph(replace(statements(summary)[0], why=""))


def conclusion(summary: Summary) -> str:
    """The other points, a line each, and last the answer with what it rests on. The rest is in the report, and the
    reason of a doubt stood with the headline and under the table."""
    first, *others = statements(summary)
    if _of_points(first):
        first = replace(first, why=f"{first.why.partition('. ')[0].rstrip('.')}.")
    short = [replace(said, why="") if _of_points(said) else said for said in others if said.name != "fitted"]
    return "\n".join(_paragraph(said, reason=len(summary.levels) == 1) for said in (*short, first))


def _of_points(said: Statement) -> bool:
    """Whether this is an operating point, whose figures stand in the table."""
    return said.name.split(",")[0] in ("lowest latency", "balanced", "highest throughput")


def _paragraph(said: Statement, indent: str = "", *, reason: bool = True) -> str:
    name = f"{'doubtful' if said.doubt else 'recommended'} ({said.name})" if said.recommended else said.name
    head = f"{name[:1].upper()}{name[1:]}: {said.text}{f'; suspect: {said.doubt}' if said.doubt and reason else ''}."
    lines = [textwrap.fill(head, WIDTH, initial_indent=indent, subsequent_indent="  ")]
    if said.why:
        lines.append(textwrap.fill(said.why, WIDTH, initial_indent="    ", subsequent_indent="    "))
    return "\n".join(lines)


def table(summary: Summary) -> RenderableType:
    """The levels, one row each, in 80 columns; the reasons of the verdicts and the errors below."""
    levels = summary.levels
    if not levels:
        return Text("No level finished.")
    columns = {
        "load": (_load_head(levels), [_load(x) for x in levels]),
        "tokens": ("Output\n\ntok/s", [_value(x.output_tokens_per_s) for x in levels]),
        "interval": ("\n\n+/-", [_half_width(x.output_tokens_per_s) for x in levels]),
        "requests": ("Req/s", [_value(x.requests_per_s) for x in levels]),
        **_quantiles("TTFT", [x.ttft_ms for x in levels], "p50", "p95"),
        **_quantiles("TPOT", [x.tpot_ms for x in levels], "p50", "p95"),
        **_quantiles("Latency", [x.latency_ms for x in levels], "p50", "p95"),
        "errors": ("Err.", [f"{x.requests.failed:,}" for x in levels]),
        **_budget(levels),
        "verdict": ("Verdict", [str(x.verdict.status) for x in levels]),
    }
    for spare in ("requests", "Latency p95", "interval"):
        if _total_width(columns, gap=1) > WIDTH:
            columns.pop(spare, None)
    padding = (0, 1, 0, 0) if _total_width(columns, gap=2) <= WIDTH else 0
    rows = Table(box=SIMPLE_HEAD, padding=padding, pad_edge=False, show_edge=False)
    for name, (head, _) in columns.items():
        rows.add_column(head, justify="left" if name in ("budget", "verdict") else "right", no_wrap=True)
    for n, level in enumerate(levels):
        *figures, verdict = (cells[n] for _, cells in columns.values())
        rows.add_row(*figures, Text(verdict, style=_STYLES[level.verdict.status]))
    nodes = [of_nodes(levels[0])] if len(levels) == 1 and nodes_of(levels[0]) else []
    return Group(rows, *nodes, *(Text(note, style="dim") for note in _notes(summary)))


def of_nodes(level: Level) -> RenderableType:
    """The machines of a level, a row each."""
    rows = Table(box=SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False, show_edge=False)
    for head in HEADS:
        rows.add_column(head, justify="left" if head in ("Node", "Clock", "Verdict") else "right", no_wrap=True)
    for node in nodes_of(level):
        *cells, verdict = node_row(node)
        rows.add_row(*cells, Text(verdict, style=_STYLES[node.status]))
    return rows


def _budget(levels: Sequence[Level]) -> dict[str, tuple[str, list[str]]]:
    """A column that says which levels meet the budget; none where no level can tell."""
    marks = [x.budget.status if isinstance(x.budget, Held) else "-" for x in levels]
    return {} if set(marks) == {"-"} else {"budget": ("Budget", marks)}


def ascii_curve(summary: Summary, width: int = WIDTH, height: int = 16) -> str:
    """Median latency over output tokens/s (over requests/s in open loop) in `height` lines of ASCII.

    Points carry their load: `o`, `*` where recommended, `?` where suspect, `x` where invalid.
    """
    levels = [x for x in summary.levels if x.latency_ms.p50.value is not None and _x(x) is not None]
    levels = sorted((x for x in levels if type(x.load) is type(levels[0].load)), key=lambda x: x.load.value)
    if not levels:
        return "No curve: no level has both a throughput and a latency."
    rated = open_loop(levels)
    xs, ms = [_x(x) or 0.0 for x in levels], [x.latency_ms.p50.value or 0.0 for x in levels]
    unit, scale = ("s", 1e-3) if max(ms) >= 999.5 else ("ms", 1.0)
    ys = [y * scale for y in ms]
    x_max, y_max = max(xs) * 1.04 or 1.0, max(ys) * 1.06 or 1.0
    margin = max(len(number(y_max)), 4) + 1
    columns, lines = width - margin - 2, height
    grid = [[" "] * columns for _ in range(lines)]
    at = [(round(x / x_max * (columns - 1)), round((1 - y / y_max) * (lines - 1))) for x, y in zip(xs, ys, strict=True)]
    believed = [p for p, level in zip(at, levels, strict=True) if level.verdict.status != "invalid"]
    for start, end in pairwise(believed):
        _draw_line(grid, start, end)
    best = recommended(summary)
    for (column, line), level in zip(at, levels, strict=True):
        mark = {"valid": "o", "suspect": "?", "invalid": "x"}[level.verdict.status]
        grid[line][column] = "*" if level.load == best else mark
    for (column, line), level in zip(at, levels, strict=True):
        _draw_label(grid, column, line, f"{level.load.value:g}")
    labels = {round((1 - y / y_max) * (lines - 1)): f"{y:,g}" for y in _ticks(y_max, lines // 2)}
    body = [f"{labels.get(n, ''):>{margin}} |{''.join(row)}".rstrip() for n, row in enumerate(grid)]
    axis = f"{'':{margin}} +{'-' * columns}"
    ticks = _tick_line(x_max, columns)
    name = "arrivals, requests/s" if rated else "output tokens/s"
    key = ("*: recommended; " if best else "") + ("numbers: requests/s" if rated else "numbers: concurrency")
    gap = columns - len(name) - len(key)
    foot = f"{name}{'':{gap}}{key}" if gap > 0 else f"{name:>{columns}}"
    return "\n".join([f"median latency, {unit}", *body, axis, f"{'':{margin + 2}}{ticks}", f"{'':{margin + 2}}{foot}"])


def _value(figure: Figure, scale: float = 1.0) -> str:
    """The figure, or the bound that is all the sample has for it."""
    if figure.value is not None:
        return number(figure.value * scale)
    return "-" if figure.low is None else f">{number(figure.low * scale)}"


def _half_width(figure: Figure) -> str:
    """The wider half of the interval, as a share of the value."""
    if not figure.value or figure.low is None or figure.high is None:
        return "-"
    return f"{max(figure.high - figure.value, figure.value - figure.low) / figure.value:.1%}"


def _load_head(levels: Sequence[Level]) -> str:
    if levels[0].asked is not None:
        return "Tokens\n\nin / out"
    return "Rate\n\nreq/s" if open_loop(levels) else "Conc."


def _load(level: Level) -> str:
    if level.asked is not None:
        return f"{level.asked.input_tokens} / {level.asked.output_tokens}"
    return f"{level.load.value:,g}"


def _total_width(columns: dict[str, tuple[str, list[str]]], gap: int) -> int:
    widths = [max(len(text) for text in (*head.split("\n"), *cells)) for head, cells in columns.values()]
    return sum(widths) + gap * (len(widths) - 1)


def _quantiles(name: str, spreads: Sequence[Distribution], *which: str) -> dict[str, tuple[str, list[str]]]:
    """Columns of one metric, in ms, or in s where ms would be too long; none where nothing is known."""
    figures = [[getattr(spread, q) for spread in spreads] for q in which]
    known = [x for column in figures for figure in column for x in (figure.value, figure.low) if x is not None]
    if not known:
        return {}
    unit, scale = ("s", 1e-3) if max(known) >= 9999.5 else ("ms", 1.0)
    return {
        f"{name} {q}": (
            f"{name if q == which[0] else ''}\n{q}\n{unit}",
            [_value(figure, scale) for figure in column],
        )
        for q, column in zip(which, figures, strict=True)
    }


def _notes(summary: Summary) -> list[str]:
    """What the rows have no room for; what holds for several levels is said once."""
    levels, said = summary.levels, run_reasons(summary)
    if len(levels) == 1:
        said += traffic_in_words(levels[0]) + content_in_words(levels[0]) + server_in_words(levels[0])
    whole = (uncalled, where_time_goes, agreement_in_words, nodes_in_words)
    said += [line for tell in whole if (line := tell(summary))]
    if not summary.find and any(level.ended_by == "max_duration" for level in levels):
        cut = [level for level in levels if level.ended_by == "max_duration"]
        said.append(f"{loads_of(cut, levels)}: --max-duration came before the intervals were as tight as asked for")
    bounds = [f for x in levels for m in (x.ttft_ms, x.tpot_ms, x.latency_ms) for f in (m.p50, m.p95)]
    if any(figure.value is None and figure.low is not None for figure in bounds):
        said.append(">: at least that; the requests are too few to say more")
    return said


def _x(level: Level) -> float | None:
    """Where a level stands on the x axis: what it gave in closed loop, what it was offered in open loop."""
    return float(level.load.value) if open_loop([level]) else level.output_tokens_per_s.value


def _draw_line(grid: list[list[str]], start: tuple[int, int], end: tuple[int, int]) -> None:
    steps = max(abs(end[0] - start[0]), abs(end[1] - start[1]), 1)
    for n in range(steps + 1):
        column = round(start[0] + (end[0] - start[0]) * n / steps)
        line = round(start[1] + (end[1] - start[1]) * n / steps)
        grid[line][column] = "."


def _draw_label(grid: list[list[str]], column: int, line: int, text: str) -> None:
    """Write `text` beside its point where nothing is in the way; leave it out where there is no room."""
    size = len(text)
    centred = column - size // 2
    places = [(centred, line - 1), (column - size - 1, line), (centred, line + 1), (column + 2, line)]
    for left, row in places:
        if not (0 <= row < len(grid) and left >= 0 and left + size <= len(grid[row])):
            continue
        if all(cell == " " for cell in grid[row][max(0, left - 1) : left + size + 1]):
            grid[row][left : left + size] = text
            return


def _tick_line(x_max: float, columns: int) -> str:
    """The figures under the x axis, each centred on its place."""
    line = [" "] * columns
    for value in _ticks(x_max, columns // 8):
        text = f"{value:,g}"
        left = min(max(0, round((columns - 1) * value / x_max) - len(text) // 2), columns - len(text))
        line[left : left + len(text)] = text
    return "".join(line).rstrip()


def _ticks(top: float, most: int) -> list[float]:
    """Round values from 0 up to `top`, at most `most` steps of 1, 2 or 5 times a power of ten."""
    power = 10 ** floor(log10(max(top, 1e-300) / most))  # a subnormal number divided is 0
    step = next(power * m for m in (1, 2, 5, 10, 20) if top / (power * m) <= most)
    return [step * n for n in range(floor(top / step) + 1)]
