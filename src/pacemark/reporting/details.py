"""Everything that is known of a level, for who wants to hold it against another tool's figures."""

from __future__ import annotations

from collections.abc import Iterable

import msgspec
from rich.box import SIMPLE_HEAD
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from pacemark.reporting.content import content_in_words
from pacemark.reporting.nodes import nodes_of
from pacemark.reporting.page import in_the_pages_words
from pacemark.reporting.terminal import of_nodes
from pacemark.reporting.words import ended, errors, interval, plain, reasons, value
from pacemark.summary import LATENCIES, STATISTICS, Distribution, Level, Spread, Summary, Timeline
from pacemark.units import number

_VIEWS = {
    "headers": "to the headers",
    "first_event": "to the first event of any kind",
    "first_token": "to the first token (TTFT)",
    "first_answer_token": "to the first answer token, after reasoning",
    "first_token_from_schedule": "from when it was due to the first token",
}


def everything(summary: Summary) -> RenderableType:
    """Every level in full, what the endpoint exports of its queue, and the sweep as Databricks' notebook counts it."""
    levels, timeline = summary.levels, summary.timeline
    queue = _exported(timeline) if isinstance(timeline, Timeline) else Text("")
    return Group(*(details(level) for level in levels), queue, in_the_pages_words(levels))


def _exported(timeline: Timeline) -> RenderableType:
    """By level, the mean of the looks at the endpoint that tell of its last minute within the level."""
    table = _grid("What the endpoint exports, mean ms", "queue", "model", "looks")
    for span in timeline.levels:
        inside = [seen for seen in timeline.endpoint if span.begin_s <= seen.at_s <= span.end_s]
        told = [[x for s in inside if (x := getattr(s, name)) is not None] for name in ("queue_ms", "model_ms")]
        if any(told):
            cells = (number(sum(x) / len(x)) if x else "-" for x in told)
            table.add_row(plain(span.load), *cells, str(max(map(len, told))))
    note = "  of the minute before each look, so a level of less than that holds others too"
    return Group(table, Text(note, style="dim"), "") if table.row_count else Text("")


def details(level: Level) -> RenderableType:
    """One level in full, in 80 columns: every figure with its interval, what it stands on, and what readers feel."""
    seconds = "" if level.window_s is None else f" in {number(level.window_s)} s"
    head = f"{plain(level.asked or level.load)}: {level.verdict.status}, {level.requests.in_window:,} requests{seconds}"
    said = [f"The window was ended by {ended(level)}."]
    if level.repeats > 1:
        said.append(f"Figures and intervals are those over {level.repeats} repetitions.")
    if level.requests.failed:
        said.append(f"Failed: {errors(level)}.")
    said += content_in_words(level)
    if level.unread_events:
        said.append(f"{level.unread_events:,} events had no meaning and were passed over.")
    parts: list[RenderableType] = [Text(f"\n{head}", style="bold"), Text("\n".join(said + reasons(level)))]
    parts += [_by_model(level), _latencies(level), _views(level), _throughput(level), _reader(level), _client(level)]
    parts += [of_nodes(level)] if nodes_of(level) else []
    return Group(*parts)


def _by_model(level: Level) -> RenderableType:
    if isinstance(level.served, msgspec.UnsetType):
        return Text("")
    table = _grid("Answered by", "requests", "TTFT p50, ms", "latency p50, ms", "tokens out")
    for part in level.served:
        medians = ("-" if x is None else number(x) for x in (part.ttft_ms_p50, part.latency_ms_p50))
        table.add_row(plain(part.model), f"{part.requests:,}", *medians, number(part.output_tokens))
    return Group(table, "")


def _grid(*heads: str) -> Table:
    table = Table(box=SIMPLE_HEAD, pad_edge=False, show_edge=False, title_justify="left")
    for n, head in enumerate(heads):
        table.add_column(head, justify="right" if n else "left", no_wrap=True)
    return table


def _latencies(level: Level) -> RenderableType:
    table = _grid("ms", "value", "95% interval", "MLPerf certified")
    below = []
    for field, called in LATENCIES.items():
        if field == "itl_ms":  # below, without a basis
            continue
        name = called[0].upper() + called[1:]
        spread: Distribution = getattr(level, field)
        basis = level.basis.get(field)
        for statistic in STATISTICS:
            figure = getattr(spread, statistic)
            certified = basis.certified.get(statistic) if basis else None
            row = (value(figure), interval(figure), "" if certified is None else number(certified))
            if any(cell not in ("", "-") for cell in row):
                table.add_row(f"{name} {statistic}", *row)
        if basis and basis.n:
            worth = "" if basis.n_eff is None else f", worth {basis.n_eff:,.0f} independent ones at p95"
            below.append(f"  {name}: {basis.n:,} requests{worth}")
    known = [(s, getattr(level.itl_ms, s)) for s in STATISTICS if getattr(level.itl_ms, s).value is not None]
    for statistic, figure in known:
        table.add_row(f"ITL {statistic}", value(figure), interval(figure), "")
    if known:
        below.append("  ITL: all gaps, pooled; its interval says how exactly they are known")
    return Group(table, Text("\n".join(below), style="dim"), "")


def _spreads(title: str, rows: Iterable[tuple[str, Spread]]) -> RenderableType:
    table = _grid(title, "p50", "p99", "max")
    for name, spread in rows:
        figures = (spread.p50, spread.p99, spread.max)
        if any(x is not None for x in figures):
            table.add_row(name, *("-" if x is None else number(x) for x in figures))
    return Group(table, "") if table.row_count else Text("")


def _views(level: Level) -> RenderableType:
    return _spreads("What tools call TTFT, ms", ((_VIEWS.get(k, k), v) for k, v in level.ttft_views_ms.items()))


def _throughput(level: Level) -> RenderableType:
    table = _grid("Throughput", "value", "95% interval")
    rows = [
        ("output tokens/s", level.output_tokens_per_s),
        ("the same by cycle time (Little's law)", level.output_tokens_per_s_by_cycle),
        ("output and input tokens/s", level.total_tokens_per_s),
        ("requests/s", level.requests_per_s),
    ]
    if level.goodput is not None:
        rows += [
            ("share of requests within the budget", level.goodput.share),
            ("goodput: such requests/s", level.goodput.requests_per_s),
        ]
    for name, figure in rows:
        if figure.value is not None:
            table.add_row(name, value(figure), interval(figure))
    budget = [Text(f"  budget: {plain(level.goodput.budget)}", style="dim")] if level.goodput is not None else []
    return Group(table, *budget, "")


def _reader(level: Level) -> RenderableType:
    felt = level.experience
    table = _grid("What a reader feels", "value", "95% interval")
    rows = [
        *((f"longest stall {q}, ms", getattr(felt.longest_stall_ms, q)) for q in ("p50", "p95", "p99")),
        *((f"waiting at 10 tokens/s {q}, ms", getattr(felt.reading_idle_ms, q)) for q in ("p50", "p95", "p99")),
        ("fluidity (share of deadlines met)", felt.fluidity),
        ("tokens/s per user", felt.tokens_per_s_per_user),
        ("words per minute", felt.words_per_minute),
    ]
    for name, figure in rows:
        if figure.value is not None or figure.low is not None:
            table.add_row(name, value(figure), interval(figure))
    return Group(table, "") if table.row_count else Text("")


def _client(level: Level) -> RenderableType:
    client = level.client
    rows = [("read late" + (", not in the figures" if client.clock == "kernel" else ""), client.lag_ms)]
    rows += [("sent late", client.lateness_ms)] if client.lateness_ms is not None else []
    bound = [Text(f"  {plain(client.bound)}", style="dim")] if client.bound else []
    return Group(_spreads(f"The client ({client.clock} clock), ms", rows), *bound)
