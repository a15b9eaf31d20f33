"""What a search looks along: streams in a closed loop, requests per second in an open one, or the speed of a trace."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

import numpy as np

from pacemark.answers.boundary import Belief, offered, three_digits
from pacemark.pace import Arrivals, Concurrency, Load, Rate, like

__all__ = ["LoadAxis", "LoadKind"]

LoadKind = Literal["concurrency", "rate", "speed"]


@dataclass(frozen=True, slots=True)
class LoadAxis:
    """The loads that can be asked for, and how near two of them are as good as one."""

    kind: LoadKind
    arrivals: Arrivals
    burstiness: float
    precision: float
    """How narrow an interval should be, as a share of the answer; of streams never less than one."""

    @property
    def whole(self) -> bool:
        """Whether only whole numbers can be asked for."""
        return self.kind == "concurrency"

    def load(self, x: float, measured: Load | None) -> Load:
        """The load at `x`; one that was `measured` tells how many requests a second a trace's speed makes."""
        if measured is not None:
            return like(measured, x)
        if self.kind == "speed":
            return Rate(x, "trace", speed=x)
        return Concurrency(int(x)) if self.whole else Rate(x, self.arrivals, self.burstiness)

    def step(self, x: float) -> float:
        """The load at or just under `x` that can be asked for."""
        return offered(x, self.whole)

    def tolerance(self, x: float) -> float:
        """How wide an interval about `x` should be."""
        return max(1.0, self.precision * x) if self.whole else self.precision * x

    def narrow(self, belief: Belief) -> bool:
        """Whether the interval is as narrow as was asked for."""
        low, middle, high = (self.step(belief.at(p)) for p in (0.025, 0.5, 0.975))
        return max(high - middle, middle - low) <= 0.8 * self.tolerance(middle) + 0.2 * self.whole

    def split(self, belief: Belief, known: Iterable[float]) -> float:
        """The load which is as likely below the boundary as above it."""
        if not self.whole:
            return self._near(belief.middle, known)
        middle = math.floor(belief.middle)
        return max(1, min((middle, middle + 1), key=lambda x: abs(np.mean(belief.draws >= x) - 0.5)))

    def halfway(self, belief: Belief, low: float, high: float, known: Iterable[float]) -> float:
        """Between the middle and that end of the interval, `low` to `high`, which is further from it."""
        up = high - belief.middle > belief.middle - low
        x = (belief.middle + (high if up else low)) / 2
        if not self.whole:
            return self._near(x, known)
        return math.ceil(x) if up else max(1, math.floor(x))

    def _near(self, x: float, known: Iterable[float]) -> float:
        """One of the `known` that is as good as `x`, or `x` itself: rates have no grid."""
        return next((at for at in known if abs(at - x) <= 0.3 * self.tolerance(x)), three_digits(x))
