"""The run on one axis of time: what came out of the endpoint, whom it turned away, and what it said of itself."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec
import numpy as np

from pacemark.figures.level import LevelResult
from pacemark.runs.exported import MODEL, QUEUE, mean_ms
from pacemark.runs.folder import RunFolder
from pacemark.summary import Seen, Span, Timeline

STEPS = 200
"""About how many steps a run is cut into."""
STEPS_S = (0.1, 0.2, 0.5, 1, 2, 5, 10, 20, 30, 60)
"""How long they are."""


def timeline_of(results: Sequence[LevelResult], folder: RunFolder) -> Timeline | msgspec.UnsetType:
    """Output and refusals by time, and the looks at the endpoint; UNSET where there were neither looks nor refusals.

    All requests count, those between two levels too.
    """
    sights, refused_ns = folder.sights(), folder.ended("http_429")
    if not sights and not len(refused_ns):
        return msgspec.UNSET
    span = folder.span()
    if span is None:
        return msgspec.UNSET
    origin, end = span
    seconds = max(1e-3, (end - origin) / 1e9)
    step_s = next((s for s in STEPS_S if s * STEPS >= seconds), seconds / STEPS)
    edges = np.arange(int(np.ceil(seconds / step_s)) + 1) * step_s
    tokens = np.zeros(len(edges) - 1)
    for hi_ns, weights in folder.output():
        tokens += np.histogram((hi_ns - origin) / 1e9, edges, weights=weights)[0]

    def at(ns: int) -> float:
        return round((ns - origin) / 1e9, 3)

    return Timeline(
        step_s=float(step_s),
        output_tokens_per_s=np.round(tokens / step_s, 1).tolist(),
        throttled=np.histogram((refused_ns - origin) / 1e9, edges)[0].tolist(),
        levels=[Span(r.load, at(r.window.start_ns), at(r.window.end_ns)) for r in results if r.window.seconds > 0],
        endpoint=[
            Seen(at(s.now_ns), s.state or s.problem, s.capacity, queue_ms, model_ms)
            for s, queue_ms, model_ms in zip(sights, mean_ms(sights, QUEUE), mean_ms(sights, MODEL), strict=True)
            if s.now_ns <= end
        ],
    )
