"""The run on one axis of time: what came out of the endpoint, whom it turned away, and what it said of itself."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from pacemark.figures.counters import moment_of
from pacemark.figures.level import LevelResult
from pacemark.runs.exported import MODEL, QUEUE, mean_ms
from pacemark.runs.folder import RunFolder
from pacemark.runs.session import Session
from pacemark.summary import Seen, Span, Timeline
from pacemark.trace import RATE_LIMITS, Int64

STEPS = 200
"""About how many steps a run is cut into."""
STEPS_S = (0.1, 0.2, 0.5, 1, 2, 5, 10, 20, 30, 60)
"""How long they are."""


def timeline_of(results: Sequence[LevelResult], folder: RunFolder) -> Timeline | msgspec.UnsetType:
    """Output, requests in flight, failures and refusals by time, and the looks at endpoint and server; UNSET where
    nothing was sent. All requests count, those between two levels too.
    """
    parts = [(session, span) for session in folder.sessions() if (span := session.span())]
    if not parts:
        return msgspec.UNSET
    seconds = max(1e-3, sum(end - origin for _, (origin, end) in parts) / 1e9)
    step_s = next((s for s in STEPS_S if s * STEPS >= seconds), seconds / STEPS)
    numbered = list(zip(folder.levels(), results, strict=False))
    whole = Timeline(float(step_s), [], [], [], [], [])
    for session, (origin, end) in parts:  # one begins where the last one ends: the pause in between is not shown
        edges = np.arange(int(np.ceil(max(1e-3, (end - origin) / 1e9) / step_s)) + 1) * step_s
        tokens = np.zeros(len(edges) - 1)
        for hi_ns, weights in folder.output(session):
            step = np.clip((hi_ns - origin) // round(step_s * 1e9), 0, len(tokens) - 1)
            tokens += np.bincount(step, weights, len(tokens))
        begin_s = len(whole.throttled) * step_s
        zero_ns = origin - int(begin_s * 1e9)
        whole.levels.extend(
            Span(r.load, _at(r.window.start_ns - zero_ns), _at(r.window.end_ns - zero_ns))
            for level, r in numbered
            if r.window.seconds > 0 and level.level in session
        )
        sights = [s for s in session.sights() if s.now_ns <= end]
        whole.endpoint.extend(
            Seen(_at(s.now_ns - zero_ns), s.state or s.problem, s.capacity, queue_ms, model_ms)
            for s, queue_ms, model_ms in zip(sights, mean_ms(sights, QUEUE), mean_ms(sights, MODEL), strict=True)
        )
        looks = [look for look in session.scrapes() if look.values and origin <= look.now_ns <= end]
        whole.server.extend(moment_of(_at(b.now_ns - zero_ns), a, b) for a, b in itertools.pairwise(looks))
        whole.output_tokens_per_s.extend(np.round(tokens / step_s, 1).tolist())
        busy_s, failed = _busy(session, origin, edges)
        whole.in_flight.extend(np.round(busy_s / step_s, 2).tolist())
        whole.failed.extend(failed.tolist())
        refused_ns = np.concatenate([session.ended(kind) for kind in RATE_LIMITS])
        whole.throttled.extend(np.histogram((refused_ns - origin) / 1e9, edges)[0].tolist())
    return whole


def _busy(session: Session, origin: int, edges: NDArray[np.floating[Any]]) -> tuple[NDArray[np.float64], Int64]:
    """In each step, the seconds of requests in flight, and how many failed: a request is in flight at all times up to
    its end less those up to its start."""
    step_s, steps = float(edges[1]), len(edges) - 1
    begun, late = np.zeros(steps + 1), np.zeros(steps + 1)
    failed = np.zeros(steps, np.int64)
    for sent_ns, ended_ns, bad in session.spans():
        for at_ns, sign in ((sent_ns, 1.0), (ended_ns, -1.0)):
            at_s = (at_ns - origin) / 1e9
            step = np.clip((at_s / step_s).astype(np.int64), 0, steps - 1)
            # From the step after it on, a start counts for a whole step; in its own for what is left of it.
            late[:steps] += sign * np.bincount(step, (step + 1) * step_s - at_s, steps)
            begun += sign * np.bincount(step + 1, minlength=steps + 1)
        over_s = (ended_ns[bad] - origin) / 1e9
        failed += np.bincount(np.clip((over_s / step_s).astype(np.int64), 0, steps - 1), minlength=steps)
    return np.maximum(0.0, (np.cumsum(begun) * step_s + late)[:steps]), failed


def _at(ns: int) -> float:
    return round(ns / 1e9, 3)
