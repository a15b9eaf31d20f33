"""How unequally the connections of a level were served: behind a balancer each may lead to another replica."""

from __future__ import annotations

import msgspec
import numpy as np
from numpy.typing import NDArray
from scipy import special

from pacemark.figures import metrics
from pacemark.figures.evidence import Evidence, Finding
from pacemark.summary import Connections
from pacemark.trace import Trace

Mask = NDArray[np.bool_]

LEAST = 5
"""Requests that a connection must have carried for its median to say something."""
UNEVEN = 1.5
"""From this ratio of the slowest connections to the fastest on a difference is worth a word. One engine alone makes a
third: streams that keep their places in its batches wait for the same others time and again."""
CHANCE = 0.001
"""How seldom chance alone may make connections look so different."""


def connections(trace: Trace, good: Mask) -> Connections | msgspec.UnsetType:
    """How the TTFT of the requests `good` (n,) differs between the connections that carried them; unset for fewer than
    two that carried enough. Where no answer streamed, it is the latency that is compared."""
    ttft = metrics.ttft_ms(trace)
    values = ttft if np.isfinite(ttft[good]).any() else metrics.latency_ms(trace)
    known = good & np.isfinite(values) & (trace.connection >= 0)
    number, place, counts = np.unique(trace.connection[known], return_inverse=True, return_counts=True)
    often = counts >= LEAST
    if often.sum() < 2:
        return msgspec.UNSET
    values = values[known]
    medians = np.asarray([np.median(values[place == n]) for n in np.flatnonzero(often)])
    carried = often[place]
    return Connections(
        used=len(number),
        fewest=int(counts.min()),
        most=int(counts.max()),
        fastest_ms=float(np.quantile(medians, 0.1)),
        slowest_ms=float(np.quantile(medians, 0.9)),
        chance=_chance(values[carried], place[carried]),
    )


def _chance(values: NDArray[np.float64], group: NDArray[np.int64]) -> float:
    """How likely groups (n,) of one law differ in the ranks of their `values` (n,) by as much as these (Kruskal and
    Wallis 1952, doi:10.1080/01621459.1952.10483441; equal values count as half before each other)."""
    _, group, counts = np.unique(group, return_inverse=True, return_counts=True)
    _, same, tied = np.unique(values, return_inverse=True, return_counts=True)
    ranks = (np.cumsum(tied) - (tied - 1) / 2)[same]
    n = len(values)
    between = float((np.bincount(group, ranks) ** 2 / counts).sum())
    spread = 1 - float((tied.astype(float) ** 3 - tied).sum()) / max(1.0, float(n) ** 3 - n)
    if spread <= 0:
        return 1.0
    h = (12 / (n * (n + 1)) * between - 3 * (n + 1)) / spread
    return float(special.chdtrc(len(counts) - 1, max(0.0, h)))


def uneven_connections(e: Evidence) -> Finding | None:
    """Replicas that differ, or a balancer that loads them unequally, are the endpoint's own doing: worth a word."""
    found = e.level.connections
    if isinstance(found, msgspec.UnsetType) or found.chance > CHANCE or found.slowest_ms < UNEVEN * found.fastest_ms:
        return None
    return Finding(
        "note",
        "uneven_connections",
        f"some of the {found.used} connections were served later than others: TTFT p50 is {found.fastest_ms:.0f} ms on "
        f"the fastest tenth of them and {found.slowest_ms:.0f} ms on the slowest; replicas behind a balancer differ "
        "or are loaded unequally",
    )
