"""What a run says of itself while it runs: made by the load generator, shown by whoever cares to."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from pacemark.pace import Load

Phase = Literal["preparing", "warm-up", "ramp", "measuring", "finishing"]


@dataclass(frozen=True, slots=True)
class Status:
    """One moment of a run. Counts are of the current level, times of the whole run."""

    level_index: int
    """Which level runs, from 0."""
    levels: int | None
    """How many there will be; None where nobody knows yet, as in a search."""
    load: Load
    phase: Phase
    elapsed_s: float
    remaining_s: float | None
    """Estimate of the time to the end; None where there is none."""
    tokens_per_s: float | None
    """Output tokens/s over the last moments; None before the first."""
    in_flight: int
    completed: int
    errors: int
    note: str = ""
    """A line for the user, told once; all else of such a status is of no account while it is `preparing`."""
