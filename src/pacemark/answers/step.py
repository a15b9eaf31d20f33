"""What a search tells of itself as it goes."""

from __future__ import annotations

from dataclasses import dataclass

from pacemark.pace import Load
from pacemark.summary import Probe, Spent

__all__ = ["Step"]


@dataclass(frozen=True, slots=True)
class Step:
    """One moment of a search: what was just learned, and what comes next."""

    probe: Probe | None
    """The level that has just ended; None before the first."""
    low: float | None
    high: float | None
    """Where the boundary lies now, with 95% probability; None where nothing is known of that side."""
    next: Load | None
    """The level to be measured now; None: the search is over."""
    why: str
    """Why that one, or why the search ends."""
    spent: Spent
    forecast: Spent | None
    """What the next level will cost."""
