"""A level as one row, told as soon as it has ended."""

from __future__ import annotations

from collections.abc import Callable

from pacemark.pace import Rate
from pacemark.summary import Figure, Level
from pacemark.units import duration, number

__all__ = ["heading", "level_row"]

_WIDTHS = (11, 8, 9, 9, 9, 9, 9, 7)
"""78 letters in all."""


def heading(level: Level) -> str:
    """What stands above rows of this level's kind."""
    load = "in / out" if level.asked else "requests/s" if isinstance(level.load, Rate) else "concurrency"
    return _aligned(load, "tok/s", "TTFT p50", "TTFT p95", "TPOT p95", "latency", "requests", "failed")


def level_row(level: Level) -> str:
    """Its throughput, latencies (of a whole request the median) and how it went, below `heading`."""
    asked = level.asked
    return _aligned(
        f"{asked.input_tokens} / {asked.output_tokens}" if asked else f"{level.load.value:,g}",
        _cell(level.output_tokens_per_s, number),
        _cell(level.ttft_ms.p50, duration),
        _cell(level.ttft_ms.p95, duration),
        _cell(level.tpot_ms.p95, duration),
        _cell(level.latency_ms.p50, duration),
        f"{level.requests.in_window:,}",
        f"{level.requests.failed:,}",
    )


def _cell(figure: Figure, words: Callable[[float], str]) -> str:
    return "-" if figure.value is None else words(figure.value)


def _aligned(*cells: str) -> str:
    return " ".join(f"{cell:>{width}}" for cell, width in zip(cells, _WIDTHS, strict=True))
