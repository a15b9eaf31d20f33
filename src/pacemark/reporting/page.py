"""A sweep in the words of Databricks' own benchmarking notebook ("Conduct your own LLM endpoint benchmarking"), for who
holds one against the other: its arithmetic on medians, not pacemark's figures."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

from rich.box import SIMPLE_HEAD
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from pacemark.pace import Concurrency
from pacemark.summary import Level
from pacemark.units import number

__all__ = ["PageRow", "in_the_pages_words", "page_rows"]

_LEAST_GAIN = 0.1
"""The notebook stops where one more step gives less."""


class PageRow(NamedTuple):
    """One level as the notebook counts it."""

    parallel: int
    latency_s: float
    """Median of the whole answer."""
    tokens_per_s: float
    """(Input + output tokens) x parallel / median latency."""
    gain: float | None
    """Over the row before; None for the first."""
    ttft_s: float | None
    """Median latency of a request for one token, where such a level was measured."""
    tpot_s: float | None
    """Difference of the medians over difference of the tokens."""
    stops: bool
    """Whether the notebook would have ended here."""


def page_rows(levels: Sequence[Level], one_token: Sequence[Level] = ()) -> list[PageRow]:
    """The closed-loop levels of a sweep as the notebook counts them; `one_token` are the same loads with answers of one
    token."""
    first = {level.load: level.latency_ms.p50.value for level in one_token}
    rows: list[PageRow] = []
    for level in levels:
        latency_ms, output = level.latency_ms.p50.value, level.output_tokens
        if not isinstance(level.load, Concurrency) or not latency_ms or not output or level.input_tokens is None:
            continue
        rate = (level.input_tokens + output) * level.load.value / latency_ms * 1e3
        gain = rate / rows[-1].tokens_per_s - 1 if rows else None
        ttft_ms = first.get(level.load)
        tpot_s = None if ttft_ms is None or output <= 1 else (latency_ms - ttft_ms) / (output - 1) / 1e3
        ttft_s = None if ttft_ms is None else ttft_ms / 1e3
        stops = gain is not None and gain < _LEAST_GAIN and not any(row.stops for row in rows)
        rows.append(PageRow(level.load.value, latency_ms / 1e3, rate, gain, ttft_s, tpot_s, stops))
    return rows


def in_the_pages_words(levels: Sequence[Level], one_token: Sequence[Level] = ()) -> RenderableType:
    """The same as a table in 80 columns; empty where there is no closed-loop level to count."""
    rows = page_rows(levels, one_token)
    if not rows:
        return Text("")
    table = Table(box=SIMPLE_HEAD, pad_edge=False, show_edge=False)
    for head in ("Parallel", "latency p50, s", "in+out tokens/s", "gain", "TTFT, s", "TPOT, ms"):
        table.add_column(head, justify="right", no_wrap=True)
    for row in rows:
        tpot_ms = None if row.tpot_s is None else row.tpot_s * 1e3
        table.add_row(
            f"{row.parallel}{' (it stops)' if row.stops else ''}", number(row.latency_s), number(row.tokens_per_s),
            "-" if row.gain is None else f"{row.gain:+.0%}",
            *("-" if x is None else number(x) for x in (row.ttft_s, tpot_ms)),
        )  # fmt: skip
    return Group(
        Text("As Databricks' notebook counts", style="bold"), table, Text("\n".join(_notes(rows)), style="dim"), ""
    )


def _notes(rows: Sequence[PageRow]) -> Iterator[str]:
    yield "  Throughput is (in + out) x parallel / median latency; stops below 10% of gain"
    if all(row.ttft_s is None for row in rows):
        yield "  Its TTFT is the median latency of requests for one token; there are none here"
