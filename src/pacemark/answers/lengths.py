"""What a token costs: straight lines through the levels of a length grid.

A grid measures every pair of input and output length at one load. How TTFT grows with input tokens is the cost of
prefill, how latency grows with output tokens the cost of decode.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import special

from pacemark.summary import Asked, Figure, Level, Line, Slopes

__all__ = ["fit", "grid", "slopes"]

Floats = NDArray[np.float64]


def grid(input_tokens: Sequence[int], output_tokens: Sequence[int]) -> list[Asked]:
    """Every pair of an input with an output length, shortest first, each once."""
    return [Asked(i, o) for i in sorted(set(input_tokens)) for o in sorted(set(output_tokens))]


def slopes(levels: Sequence[Level]) -> Slopes:
    """The lines through the median TTFT and the median latency of a grid's levels, invalid ones left out.

    TTFT = a + b x input tokens; latency = a + b x input tokens + c x output tokens. Lengths are those that the
    server counted, where it did. A length that was not varied has no slope, and a line without slopes is None.
    """
    usable = [x for x in levels if x.asked is not None and x.verdict.status != "invalid"]
    return Slopes(ttft_ms=_line(usable, "ttft_ms", output=False), latency_ms=_line(usable, "latency_ms", output=True))


def counted(level: Level) -> tuple[float, float]:
    """Mean input and output tokens of a grid's level: as counted by the server, else as asked for."""
    assert level.asked is not None
    inputs, outputs = level.input_tokens, level.output_tokens
    return inputs or float(level.asked.input_tokens), outputs or float(level.asked.output_tokens)


def _line(levels: Sequence[Level], metric: str, *, output: bool) -> Line | None:
    known = [x for x in levels if getattr(x, metric).p50.value is not None]
    varied: dict[str, list[float]] = {}
    for n, name in enumerate(("input", "output") if output else ("input",)):
        if len({getattr(x.asked, f"{name}_tokens") for x in known}) > 1:
            varied[name] = [counted(x)[n] for x in known]
    if not varied or len(known) <= len(varied):
        return None
    figures = [getattr(x, metric).p50 for x in known]
    found = fit(np.column_stack(list(varied.values())), figures)
    if found is None:
        return None
    intercept, per, residual_ms = found
    cost: dict[str, Any] = {f"per_{name}_token_ms": figure for name, figure in zip(varied, per, strict=True)}
    return Line(intercept_ms=intercept, cells=len(known), residual_ms=residual_ms, **cost)


def fit(x: Floats, figures: Sequence[Figure]) -> tuple[Figure, list[Figure], float] | None:
    """The plane y = a + x b through `figures`, x of shape (cells, slopes): a, the slopes, the farthest cell's distance.

    Least squares, every cell alike. 95% intervals hold two errors: that of each cell's own figure, known from its
    interval, and that of the straight line itself, from what the cells' distances exceed it by, with Student's t
    for the few cells there are. Without spare cells, and without the cells' own intervals, there is no interval.
    None where the lengths do not tell the slopes apart.
    """
    y = np.asarray([figure.value for figure in figures], dtype=np.float64)
    design = np.column_stack([np.ones(len(y)), x])
    if np.linalg.matrix_rank(design) < design.shape[1]:
        return None
    weights = np.linalg.pinv(design)
    found = weights @ y
    distance = y - design @ found
    spare = len(y) - design.shape[1]
    halves = _half_widths(figures, weights, distance, spare)
    a, *b = (
        Figure(float(value)) if half is None else Figure(float(value), float(value - half), float(value + half))
        for value, half in zip(found, halves, strict=True)
    )
    return a, b, round(float(np.max(np.abs(distance))), 6)


_Z = float(special.ndtri(0.975))


def _half_widths(figures: Sequence[Figure], weights: Floats, distance: Floats, spare: int) -> list[float | None]:
    own = [(f.high - f.low) / (2 * _Z) for f in figures if f.low is not None and f.high is not None]
    scatter = float(distance @ distance) / spare if spare else 0.0
    if len(own) < len(figures):  # what the cells scatter by is then all that is known
        if not spare:
            return [None] * len(weights)
        sampled, bent = np.zeros(len(weights)), np.full(len(figures), scatter)
    else:
        variance = np.square(own)
        sampled = np.square(weights) @ variance
        bent = np.full(len(figures), max(0.0, scatter - float(variance.mean())))
    t = float(special.stdtrit(spare, 0.975)) if spare else 0.0
    return [math.sqrt(half) for half in _Z**2 * sampled + t**2 * (np.square(weights) @ bent)]
