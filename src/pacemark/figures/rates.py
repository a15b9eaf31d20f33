"""Rates of a level: what came per second of its window, or of the windows of several measurements together.

Several windows are counted on one clock that stands still between them, so a rate over all of them is what came in
total by the time that was measured in total.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from pacemark.budget import Budget
from pacemark.figures import metrics, stats
from pacemark.figures.conditions import all_known, misses
from pacemark.figures.distributions import scaled
from pacemark.pace import Concurrency, Load
from pacemark.summary import Figure, Goodput
from pacemark.trace import Int64, Trace, Window

Floats = NDArray[np.float64]
Mask = NDArray[np.bool_]


class Stretch(NamedTuple):
    """The requests of one measurement, and the part of its time that counts."""

    trace: Trace
    window: Window


def seconds_of(stretches: Sequence[Stretch]) -> float:
    """How long the windows are together."""
    return sum(window.seconds for _, window in stretches)


def _on_one_clock(stretches: Sequence[Stretch], times_ns: Sequence[Int64]) -> tuple[Int64, list[Mask], int]:
    """Times inside each stretch's window, on a clock that stands still between windows; which those are; its end."""
    moved, kept, origin = [], [], 0
    for (_, window), times in zip(stretches, times_ns, strict=True):
        inside = (times > window.start_ns) & (times <= window.end_ns)
        moved.append(times[inside] - window.start_ns + origin)
        kept.append(inside)
        origin += max(0, window.end_ns - window.start_ns)
    return np.concatenate(moved), kept, origin


def rate(stretches: Sequence[Stretch], times_ns: Sequence[Int64], weights: Sequence[Floats] | None = None) -> Figure:
    """What came per second of the windows: one array of times, and of weights (1 without), for each stretch."""
    times, kept, end_ns = _on_one_clock(stretches, times_ns)
    if end_ns <= 0:
        return Figure()
    given = (
        np.ones(len(times)) if weights is None else np.concatenate([w[k] for w, k in zip(weights, kept, strict=True)])
    )
    return stats.rate_interval(times, given, 0, end_ns).figure


def binned_tokens(stretches: Sequence[Stretch], bins: int) -> Floats:
    """Tokens that arrived in each of `bins` equal parts of the windows."""
    total = np.zeros(bins)
    end_ns = sum(max(0, window.end_ns - window.start_ns) for _, window in stretches)
    origin = 0
    for trace, window in stretches:
        for _, part in metrics.parts(trace):
            times, tokens = metrics.tokens_in(part, window.start_ns, window.end_ns)
            total += stats.binned(times - window.start_ns + origin, tokens, 0, end_ns, bins)
        origin += max(0, window.end_ns - window.start_ns)
    return total


def token_rate(stretches: Sequence[Stretch]) -> Figure:
    """Output tokens per second."""
    seconds = seconds_of(stretches)
    if seconds <= 0 or any(trace.outlined.any() for trace, _ in stretches):
        return Figure()
    return stats.binned_rate(binned_tokens(stretches, stats.RATE_BINS), seconds).figure


def total_rate(stretches: Sequence[Stretch], output: Figure) -> Figure:
    """Output and input tokens per second; input counts where its answer's first token came."""
    good = [metrics.succeeded(t) & metrics.started_in(t, w.start_ns, w.end_ns) for t, w in stretches]
    known = any((t.input_tokens[g] >= 0).any() for (t, _), g in zip(stretches, good, strict=True))
    if output.value is None or not known:
        return Figure()
    answered = [np.diff(t.offsets) > 0 for t, _ in stretches]
    first = [t.hi_ns[t.offsets[:-1][a]] for (t, _), a in zip(stretches, answered, strict=True)]
    taken = [np.maximum(t.input_tokens[a], 0).astype(np.float64) for (t, _), a in zip(stretches, answered, strict=True)]
    return Figure(output.value + (rate(stretches, first, taken).value or 0.0))


def by_cycle(load: Load, stretches: Sequence[Stretch]) -> Figure:
    """Tokens per second of a closed loop by Little's law: streams x mean tokens / mean time from request to request."""
    if not isinstance(load, Concurrency):
        return Figure()
    pairs = [metrics.cycles_ms(trace, window) for trace, window in stretches]
    cycles, tokens = (np.concatenate(column) for column in zip(*pairs, strict=True))
    return scaled(stats.ratio_interval(tokens, cycles).figure, 1e3 * load.value) if cycles.sum() > 0 else Figure()


def goodput(budget: Budget, stretches: Sequence[Stretch]) -> Goodput:
    """The requests that meet every limit of the budget."""
    if not all(all_known(budget, trace) for trace, _ in stretches):
        return Goodput(str(budget), Figure(), Figure())
    met = [~misses(budget, trace) for trace, _ in stretches]
    sample = [metrics.started_in(t, w.start_ns, w.end_ns) for t, w in stretches]
    share = stats.share_interval(np.concatenate([m[s] for m, s in zip(met, sample, strict=True)])).figure
    return Goodput(
        str(budget), share, rate(stretches, [t.ended_ns[m] for (t, _), m in zip(stretches, met, strict=True)])
    )
