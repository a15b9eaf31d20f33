"""A level whose requests went to several models, taken apart by the one that answered."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from pacemark.figures import metrics
from pacemark.metered import ByModel
from pacemark.trace import Trace

__all__ = ["by_model"]


def by_model(trace: Trace, good: NDArray[np.bool_]) -> list[ByModel]:
    """The requests `good` (n,) by the model that answered; none where fewer than two are named."""
    names = np.unique(trace.served_by[good])
    if len(names) < 2:
        return []
    ttft_ms, latency_ms = metrics.ttft_ms(trace), metrics.latency_ms(trace)
    found = []
    for name in names.tolist():
        rows = good & (trace.served_by == name)
        tokens = float(trace.output_tokens[rows].mean())
        found.append(
            ByModel(name or "unnamed", int(rows.sum()), _median(ttft_ms[rows]), _median(latency_ms[rows]), tokens)
        )
    return found


def _median(values: NDArray[np.float64]) -> float | None:
    known = values[np.isfinite(values)]
    return round(float(np.median(known)), 3) if len(known) else None
