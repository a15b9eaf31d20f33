"""What is seen of an endpoint beside its answers, and in which part of a level.

All times are nanoseconds on the machine's monotonic clock.
"""

from __future__ import annotations

from dataclasses import dataclass

import msgspec


@dataclass(frozen=True, slots=True)
class Window:
    """The steady part of a level: the time between (start, end]."""

    start_ns: int
    end_ns: int

    @property
    def seconds(self) -> float:
        """Length; 0 where no steady part was reached."""
        return max(0.0, (self.end_ns - self.start_ns) / 1e9)


class Sight(msgspec.Struct, frozen=True):
    """One look at the endpoint."""

    now_ns: int
    state: str = ""
    """In words: `ready`, `not ready`, with what else there is to say."""
    ready: bool | None = None
    capacity: float | None = None
    """Requests in parallel that it is scaled to serve, where it exports that."""
    version: int | None = None
    """Of its configuration: another one means that it was changed."""
    metrics: dict[str, float] = {}
    """What it exports, summed over what it serves."""
    bursts: bool = False
    """Whether it may serve with more than was bought."""
    problem: str = ""
    """Why it could not be looked at, or its headers not be renewed."""


class Scrape(msgspec.Struct, frozen=True):
    """One look at the metrics that servers export."""

    now_ns: int
    """The middle of it."""
    took_ns: int
    engines: list[str]
    values: dict[str, float]
    """By our names, see `pacemark.endpoint.engines`."""
    problem: str = ""
    """Why there are no values."""


@dataclass(frozen=True, slots=True)
class Watch:
    """What is known of the endpoint while a level ran, beside its answers."""

    sights: tuple[Sight, ...] = ()
    limits: tuple[str, ...] = ()
    """Limits that turned requests away, the most frequent first."""

    def during(self, window: Window) -> tuple[Sight, ...]:
        """The looks inside the window, and the last one before it."""
        before = [s for s in self.sights if s.now_ns < window.start_ns and not s.problem]
        return (*before[-1:], *(s for s in self.sights if window.start_ns <= s.now_ns <= window.end_ns))
