"""What of a level may be averaged: where it has settled, whether its pace changed, how its backlog moved."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from pacemark.figures import metrics
from pacemark.figures.rates import Stretch, binned_tokens
from pacemark.figures.window import Change, Growth, backlog_growth, change_in, steady_start
from pacemark.pace import Concurrency, Load
from pacemark.trace import Trace, Window

Mask = NDArray[np.bool_]

_BINS = 200
_LEAST_CYCLES = 5


def settled(trace: Trace, window: Window) -> Window | None:
    """`window` from where the token rate has settled (`window.steady_start`); None where it did not.

    A window of fewer than five requests per stream is left as it is: the bins would show single answers.
    """
    streams = len(np.unique(trace.stream))
    inside = metrics.started_in(trace, window.start_ns, window.end_ns)
    if window.seconds <= 0 or inside.sum() < _LEAST_CYCLES * streams or inside.sum() < 40:
        return window
    cut = steady_start(binned_tokens([Stretch(trace, window)], _BINS))
    if cut is None:
        return None
    return Window(window.start_ns + (window.end_ns - window.start_ns) * cut // _BINS, window.end_ns)


def change_of(load: Load, trace: Trace, window: Window) -> Change | None:
    """A change of pace inside the window, in TPOT or in a closed loop's token rate; None where none can be seen.

    The token rate of an open loop follows the arrivals and says nothing of the service.
    """
    sample = metrics.started_in(trace, window.start_ns, window.end_ns)
    if window.seconds <= 0 or sample.sum() < 40:
        return None
    change = change_in(metrics.tpot_ms(trace)[sample])
    if change is not None or not isinstance(load, Concurrency):
        return change
    return change_in(binned_tokens([Stretch(trace, window)], _BINS // 2))


def growth_of(trace: Trace, sample: Mask) -> Growth | None:
    """How the backlog moved, in open loop."""
    begun = trace.scheduled_ns if trace.open_loop else trace.sent_ns
    return backlog_growth(begun[sample], metrics.in_flight(trace)[sample], metrics.ttft_ms(trace)[sample])
