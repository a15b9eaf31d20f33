"""A level under way, and what may be taken from it already."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from pacemark.figures import metrics
from pacemark.trace import Trace, Window

__all__ = ["fair_sample"]


def fair_sample(trace: Trace, window: Window) -> NDArray[np.bool_]:
    """Which requests of a level under way (n,) are one: begun in the window, and none begun before them is still
    unanswered. Those that have ended by now are too many short ones.
    """
    if trace.open_loop:
        longest = int((trace.ended_ns - trace.scheduled_ns).max(initial=0))
        return metrics.started_in(trace, window.start_ns, window.end_ns - longest)
    streams = np.zeros(int(trace.stream.max(initial=0)) + 1, dtype=np.int64)
    np.maximum.at(streams, trace.stream, trace.ended_ns)
    return metrics.started_in(trace, window.start_ns, int(streams.min()))
