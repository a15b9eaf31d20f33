"""Numbers as a summary gives them: with an interval, as quantiles, and what they stand on."""

from __future__ import annotations

import msgspec


class Figure(msgspec.Struct, frozen=True):
    """A number and its 95% confidence interval; each part is None where it cannot be had."""

    value: float | None = None
    low: float | None = None
    high: float | None = None


class Distribution(msgspec.Struct, frozen=True):
    """Mean and quantiles of one metric over the requests of a level's window."""

    mean: Figure = Figure()
    p50: Figure = Figure()
    p90: Figure = Figure()
    p95: Figure = Figure()
    p99: Figure = Figure()


STATISTICS = Distribution.__struct_fields__
"""The parts of a distribution by name: the mean and the quantiles."""


class Scatter(msgspec.Struct, frozen=True):
    """How far a figure is off from run to run, as one run knows it."""

    error: float
    """Standard error, in the figure's unit."""
    dof: float
    """Degrees of freedom that it is known with."""


class Basis(msgspec.Struct, frozen=True):
    """What a distribution stands on."""

    n: int = 0
    n_eff: float | None = None
    """Independent requests that would know the p95 as well: neighbours share a queue, so it is less than n."""
    certified: dict[str, float | None] = {}
    """MLPerf's early-stopping percentile at 99% confidence, deflated by the measured overdispersion."""
    note: str | None = None
    """What is missing for intervals of p50 and p95, where something is."""
    scatter: dict[str, Scatter] = {}
    """Of the mean and the quantiles that have an interval: for comparisons, where the skewness of two runs cancels."""


class Spread(msgspec.Struct, frozen=True):
    """p50, p99 and maximum of a quantity that needs no interval."""

    p50: float | None = None
    p99: float | None = None
    max: float | None = None
