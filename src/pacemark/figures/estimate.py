"""A figure with what it stands on, and what every interval needs."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import special

from pacemark.summary import Figure, Scatter

__all__ = ["CONFIDENCE", "Estimate", "Floats", "Mask", "observed", "t_quantile"]

Floats = NDArray[np.float64]
Mask = NDArray[np.bool_]

CONFIDENCE = 0.95


@dataclass(frozen=True, slots=True)
class Estimate:
    """A figure, and what it stands on."""

    figure: Figure
    n: int
    """Values in the sample: requests, or bins of time for a rate."""
    n_eff: float
    """Independent values that would know the figure equally well."""
    growth: float = 1.0
    """How many times longer the sample must be before an interval can be given; 1 where one is given."""
    scatter: Scatter | None = None
    """What a comparison with another sample needs to know; None where no interval is given."""

    @property
    def refused(self) -> bool:
        """No two-sided interval can be given: the figure is a bare point, a bound, or absent."""
        return self.figure.low is None or self.figure.high is None

    @property
    def half_width(self) -> float | None:
        """Half the interval's width over the value's size; None where there is no interval or the value is 0."""
        value, low, high = self.figure.value, self.figure.low, self.figure.high
        if value is None or low is None or high is None or value == 0:
            return None
        return (high - low) / 2 / abs(value)

    def needed(self, requests: int | None = None) -> int:
        """How many more requests are needed, to two digits; `requests` is how many the level has, if not `n`."""
        if self.growth <= 1:
            return 0
        more = (self.growth - 1) * (self.n if requests is None else requests)
        step = 10.0 ** max(0, math.floor(math.log10(max(more, 1))) - 1)
        return int(math.ceil(max(more, 1) / step) * step)

    def message(self, requests: int | None = None) -> str | None:
        """Why there is no interval, for a person; None where there is one."""
        if not self.refused:
            return None
        if self.n == 0:
            return "insufficient: no values"
        if self.growth <= 1:
            return "insufficient: too many requests were cut off before they ended"
        return f"insufficient: about {self.needed(requests)} more requests needed"


def observed(x: ArrayLike, censored: Mask | None) -> tuple[Floats, Mask | None]:
    """Values that are there, and which of them were cut off, None if none was."""
    values = np.asarray(x, dtype=np.float64)
    there = np.isfinite(values)
    if censored is not None and censored.shape != values.shape:
        raise ValueError(f"censored has shape {censored.shape}, the values {values.shape}")
    cut = censored[there] if censored is not None else None
    return values[there], cut if cut is not None and cut.any() else None


@lru_cache(maxsize=4096)
def t_quantile(dof: float, confidence: float) -> float:
    """Two-sided quantile of Student's t, of the normal distribution for infinite `dof`."""
    p = 0.5 + confidence / 2
    return float(special.ndtri(p) if math.isinf(dof) else special.stdtrit(dof, p))
