"""When requests are sent: how many at once (closed loop), or how often (open loop)."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import Literal

import msgspec
import numpy as np
from numpy.typing import NDArray

Arrivals = Literal["poisson", "constant", "gamma", "trace"]

GOLDEN = (5**0.5 - 1) / 2
"""Steps of this share fill a circle evenly, however many there are."""


class Concurrency(msgspec.Struct, frozen=True, tag_field="kind", tag="concurrency"):
    """Closed loop: `value` requests are in flight at any time; an answer starts the next request."""

    value: int

    def __str__(self) -> str:
        return f"concurrency {self.value}"


class Rate(msgspec.Struct, frozen=True, tag_field="kind", tag="rate", omit_defaults=False):
    """Open loop: `value` requests per second arrive whether or not earlier ones were answered.

    `burstiness` is the coefficient of variation of the gaps; poisson is 1 and constant is 0 by definition.
    """

    value: float
    arrivals: Arrivals = "poisson"
    burstiness: float = 1.0
    speed: float | msgspec.UnsetType = msgspec.UNSET
    """Of a trace: how many times as fast as it was recorded its rows are sent."""

    def __str__(self) -> str:
        if self.speed:
            return f"speed {self.speed:g} ({self.value:.3g} requests/s)"
        return f"{self.value:g} requests/s {self.arrivals}"


Load = Concurrency | Rate


def sought(load: Load) -> float:
    """What a search looks along: streams, requests per second, or the speed of a trace."""
    return load.speed if isinstance(load, Rate) and load.speed else load.value


def like(load: Load, x: float) -> Load:
    """The load of the same kind as `load` of which `sought` gives `x`; streams are whole."""
    if isinstance(load, Concurrency):
        return Concurrency(int(x))
    if load.speed:
        return msgspec.structs.replace(load, value=load.value * x / load.speed, speed=x)
    return msgspec.structs.replace(load, value=x)


_BLOCK = 65536


def arrivals(rate: Rate, rng: np.random.Generator) -> Iterator[int]:
    """Arrival times in ns from the start, without end, drawn a large block ahead of the clock.

    Gamma gaps with shape 1 / CV^2 have mean 1 / rate and the coefficient of variation asked for; CV 1 is
    the Poisson process.
    """
    mean_s, cv, origin_s = 1.0 / rate.value, rate.burstiness if rate.arrivals == "gamma" else 1.0, 0.0
    while True:
        if rate.arrivals == "constant":
            times = origin_s + np.arange(1, _BLOCK + 1) * mean_s
        else:
            times = origin_s + np.cumsum(rng.gamma(1.0 / cv**2, mean_s * cv**2, size=_BLOCK))
        origin_s = float(times[-1])
        yield from (times * 1e9).astype(np.int64).tolist()


def schedule(rate: Rate, horizon_s: float, rng: np.random.Generator) -> NDArray[np.int64]:
    """Arrival times in ns from the start, up to `horizon_s`.

    The horizon is fixed and the count varies: rescaling the gaps so that a fixed count fills the
    horizon would take the count's own variance out of the load.
    """
    horizon_ns = int(horizon_s * 1e9)
    return np.fromiter(itertools.takewhile(lambda t: t < horizon_ns, arrivals(rate, rng)), np.int64)
