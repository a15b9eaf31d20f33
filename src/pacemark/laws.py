"""Laws fitted to the levels of a curve, as `summary.json` has them."""

from __future__ import annotations

import msgspec

__all__ = ["Fits", "Scalability", "StepTime"]


class Scalability(msgspec.Struct, frozen=True):
    """The universal scalability law fitted to a closed-loop curve: X(n) = rate n / (1 + s (n - 1) + k n (n - 1))."""

    rate: float
    """Output tokens/s of one stream."""
    contention: float
    """s: the share of the work that streams do one after the other."""
    coherency: float
    """k: what each pair of streams costs; above 0 throughput falls in the end."""
    error: float
    """How far it is from a level that it was not fitted to (leave-one-out), root mean square, as a share."""
    most: float | None
    """The throughput it comes to in the end; None where it has no end."""
    knee: float | None
    """Streams at the knee of the curve between the least and the largest load (Kneedle)."""


class StepTime(msgspec.Struct, frozen=True):
    """The step of a continuous-batching engine: TPOT = base + per_stream x streams that decode."""

    base_ms: float
    """A step's fixed cost: reading the weights, scheduling."""
    per_stream_ms: float
    """What a further stream adds to every step: its own decoding, and its share of prefill."""
    prefill_ms: float | None
    """What the prefill of one prompt adds to the step it falls into; None where no level shows it without a queue."""
    error: float
    """How far it is from a level that it was not fitted to, root mean square, as a share."""
    streams: float
    """The most streams that decoded at once in the levels."""


class Fits(msgspec.Struct, frozen=True):
    """Laws fitted to the levels: to interpolate and to warn, never instead of a measurement."""

    scalability: Scalability | None = None
    step_time: StepTime | None = None
    warning: str | None = None
    """Why the sweep should have gone further, where it should have."""
