"""An endpoint whose speed changes by itself, as those on shared machines do."""

from __future__ import annotations

import math
from functools import cache
from random import Random
from typing import Literal

import msgspec

from pacemark.errors import BadInput

__all__ = ["Unsteady"]


class Unsteady(msgspec.Struct, frozen=True, kw_only=True):
    """How long a step takes at a time, as a multiple of what it takes by the engine's own figures."""

    kind: Literal["wanders", "jumps", "neighbour"]
    by: float = 0.2
    """wanders: to so much slower and so much faster. jumps: once, to so much slower. neighbour: so much slower while
    another load shares the machine."""
    period_s: float = 180.0
    """wanders: its slower swing. jumps: when. neighbour: it comes once in each such time, and stays for a third."""
    seed: int = 0

    def __post_init__(self) -> None:
        """Raise BadInput where the values make no sense."""
        if self.by <= -1 or self.period_s <= 0 or (self.kind == "wanders" and not 0 <= self.by < 1):
            raise BadInput("an unsteady endpoint needs by > -1 (wanders: 0 to 1) and period_s > 0")

    def slowness(self, at_s: float) -> float:
        """The multiple at `at_s` of the endpoint's life."""
        if self.kind == "wanders":
            first, second = (_chance(self.seed, n) for n in (1, 2))
            turns = at_s / self.period_s
            swing = 0.7 * math.sin(2 * math.pi * (turns + first)) + 0.3 * math.sin(2 * math.pi * (2.6 * turns + second))
            return 1 + self.by * swing
        if self.kind == "jumps":
            return 1.0 if at_s < self.period_s else 1 + self.by
        turn, since = divmod(at_s, self.period_s)
        comes_s = _chance(self.seed, int(turn)) * self.period_s * 2 / 3
        return 1 + self.by if comes_s <= since < comes_s + self.period_s / 3 else 1.0


@cache
def _chance(seed: int, n: int) -> float:
    """The `n`th random number of `seed`, from 0 to 1."""
    return Random(f"{seed}/{n}").random()
