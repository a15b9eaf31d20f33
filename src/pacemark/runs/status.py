"""Where a run stands, from moment to moment."""

from __future__ import annotations

import dataclasses
import time
from collections import deque
from collections.abc import Sequence
from time import monotonic_ns

from pacemark.pace import Concurrency, Load
from pacemark.reporting.progress import Phase, Status
from pacemark.runs.ledger import Page
from pacemark.summary import Level
from pacemark.trace import Beat

_EVERY_NS = 100_000_000
_SPAN_NS = 2_000_000_000


class Teller:
    """Makes the `Status` of each moment. Times are of the whole run."""

    def __init__(self, duration_s: float | None) -> None:
        """`duration_s` is what a window lasts; None where its requests end it, and nobody knows."""
        self._begun = time.monotonic()
        self._duration_s = duration_s
        self._reads: deque[tuple[int, int]] = deque()
        self.levels: int | None = None
        """How many levels there will be."""
        self.ahead = 0
        """How far a level's number is ahead of its place in the run: by those that were cut off before."""

    def status(
        self, level: int, load: Load, phase: Phase, page: Page, beats: Sequence[Beat], end_ns: int, latency_s: float
    ) -> Status:
        """This moment of a level; `end_ns` is when its window ends, 0 where that is not known yet."""
        now = monotonic_ns()
        each_s = self._duration_s or 0.0
        left_s = max(0.0, (end_ns - now) / 1e9) if end_ns else each_s * (phase != "finishing")
        rest = 0 if self.levels is None else self.levels - (level - self.ahead) - 1
        if self.levels is not None:
            left_s += rest * (each_s + 3 * latency_s) + latency_s
        known = self._duration_s is not None or (rest == 0 and (page.counted > 0 or phase == "finishing"))
        return Status(
            level_index=level - self.ahead,
            levels=self.levels,
            load=load,
            phase=phase,
            elapsed_s=time.monotonic() - self._begun,
            remaining_s=left_s if known else None,
            tokens_per_s=self._speed(now, sum(b.reads for b in beats)),
            in_flight=sum(b.in_flight for b in beats),
            completed=page.completed,
            errors=page.failed,
        )

    def note(self, level: int, text: str, load: Load | None = None) -> Status:
        """A line for the user."""
        elapsed_s = time.monotonic() - self._begun
        phase: Phase = "preparing" if load is None else "finishing"
        return Status(
            level - self.ahead, self.levels, load or Concurrency(1), phase, elapsed_s, None, None, 0, 0, 0, text
        )

    def ended(self, number: int, level: Level) -> Status:
        """That a level has ended, and what it gave."""
        return dataclasses.replace(self.note(number, "", level.load), ended=level)

    def reporting(self, number: int) -> Status:
        """That all is measured, and is written up."""
        return dataclasses.replace(self.note(number, ""), phase="reporting")

    def _speed(self, now: int, reads: int) -> float | None:
        """Reads per second over the last moments, which are tokens where each comes by itself."""
        if not self._reads or now - self._reads[-1][0] > _EVERY_NS:
            self._reads.append((now, reads))
        while now - self._reads[0][0] > _SPAN_NS and len(self._reads) > 2:
            self._reads.popleft()
        seconds = (self._reads[-1][0] - self._reads[0][0]) / 1e9
        return (self._reads[-1][1] - self._reads[0][1]) / seconds if seconds > 0.2 else None
