"""When the ramp of a level is over, and when its window: after its time, its requests or its cost, or once it is known
well enough."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from time import monotonic_ns
from typing import NamedTuple

from pacemark.errors import RunFailed
from pacemark.figures.level import Enough
from pacemark.instrument.commands import expected_in_flight
from pacemark.pace import Concurrency, Load, Rate
from pacemark.runs.ledger import Page
from pacemark.runs.trouble import Doubts
from pacemark.scenario import Settings, Workload
from pacemark.summary import EndedBy
from pacemark.trace import ABSENT, Beat, Window

__all__ = ["Begun", "RampEnd", "WindowEnd", "drawing", "first_due_ns", "ran_out_ns"]

CONNECTING_NS = 1_000_000
"""Time allowed for each connection that an open loop opens beforehand; with a far endpoint 32 are opened at once."""
FIRST_ROWS_NS = 300_000_000
"""Time to read the first rows of a trace and make their prompts, which may all be due at once."""
_EVERY_NS = 200_000_000
_DAY_S = 86_400.0
_DRAWN_NS = 150_000_000
"""A worker that beats so long after it was told has heard it, and has done what it takes."""
"""The longest that a window can last that only its requests end."""


class RampEnd(NamedTuple):
    """The end of a level's ramp."""

    number: int
    load: Load
    begun_ns: int
    least_s: float
    most_s: float
    """Of an open loop: far beyond capacity its slowest request grows as fast as time goes by, and no ramp would end."""

    @property
    def window_from_ns(self) -> int:
        """When the window begins, of a trace: with its first row; 0 else, when the ramp is over."""
        return self.begun_ns if isinstance(self.load, Rate) and self.load.speed else 0

    def over(self, page: Page, beats: Sequence[Beat]) -> bool:
        """Closed loop: every stream has finished a request. Open loop: the first arrivals have had their answers. A
        trace has no ramp.

        Raises RunFailed where the rows of a file have run out before that.
        """
        if self.window_from_ns:
            return True
        if ran_out_ns(self.number, self.load, beats) != ABSENT:
            raise RunFailed("the rows ran out before the load was steady: take a larger file, or leave --once out")
        if isinstance(self.load, Concurrency):
            return self._turned(beats) >= self.load.value
        least_s = max(min(2 * page.slowest_ns / 1e9, self.most_s), self.least_s)
        return page.completed > 0 and monotonic_ns() > self.begun_ns + int(least_s * 1e9)

    def _turned(self, beats: Sequence[Beat]) -> int:
        """Streams that have finished a request; none as long as a worker has one from before the level."""
        own = [b for b in beats if b.level == self.number and (b.oldest_ns == ABSENT or b.oldest_ns >= self.begun_ns)]
        return sum(b.turned for b in own) if len(own) == len(beats) else 0


class Begun(NamedTuple):
    """The level that runs."""

    number: int
    load: Load
    page: Page
    doubts: Doubts
    ramp: RampEnd


class WindowEnd:
    """The end of a window that begins now, or began at `start_ns`."""

    def __init__(
        self,
        settings: Settings,
        page: Page,
        enough: Enough | None,
        spent: Callable[[], bool] = lambda: False,
        ran_out_ns: Callable[[], int] = lambda: ABSENT,
        start_ns: int = 0,
    ) -> None:
        """`spent` says that it has to end for what the run may spend, `ran_out_ns` when the rows of a file ran out;
        ABSENT as long as they have not."""
        longest_s = settings.max_duration_s if enough else settings.duration_s if settings.timed else _DAY_S
        self.start_ns = start_ns or monotonic_ns()
        self.end_ns = self.start_ns + int(longest_s * 1e9)
        """The latest that it can end."""
        self.by: EndedBy = "max_duration" if enough else "duration"
        """What has ended it, once it is over."""
        self._page, self._requests = page, settings.requests
        self._spent, self._ran_out_ns = spent, ran_out_ns
        self._enough = _looks(page, self.start_ns, enough) if enough else lambda: False
        page.count_from(self.start_ns)

    def over(self) -> bool:
        """Whether it has ended."""
        if monotonic_ns() >= self.end_ns:
            return True
        if (out_ns := self._ran_out_ns()) != ABSENT:
            self.by, self.end_ns = "rows", max(self.start_ns, out_ns)
        elif self._requests is not None and self._page.counted >= self._requests:
            self.by = "requests"
        elif self._spent():
            self.by = "allowance"
        elif self._enough():
            self.by = "precision"
        else:
            return False
        return True

    def expected_ns(self) -> int:
        """When it will end, as far as can be told: by the requests so far, where their number ends it."""
        if self._requests is None or not self._page.counted:
            return self.end_ns
        now = monotonic_ns()
        return min(self.end_ns, self.start_ns + (now - self.start_ns) * self._requests // self._page.counted)


def first_due_ns(load: Load, spread_s: float, now_ns: int) -> int:
    """When the first request of a level is due that the workers are told of at `now_ns`. A schedule must not begin
    before its connections are open; a stream opens its own as it starts. `spread_s` is what a request takes."""
    if not isinstance(load, Rate):
        return now_ns
    rows_ns = FIRST_ROWS_NS if load.speed else 0
    return now_ns + rows_ns + expected_in_flight(load, spread_s) * CONNECTING_NS


def ran_out_ns(level: int, load: Load, beats: Sequence[Beat]) -> int:
    """When the rows of a file ran out: in the closed loop for the first worker, then fewer requests are under way; in
    the open one for the last. ABSENT before."""
    known = [b.spent_ns for b in beats if b.level == level and b.spent_ns != ABSENT]
    if isinstance(load, Rate):
        return max(known) if known and len(known) == len(beats) else ABSENT
    return min(known, default=ABSENT)


def drawing(workload: Workload, beats: Sequence[Beat], told_ns: int) -> bool:
    """Whether a worker that was told at `told_ns` how to ask may still draw images: it does not beat meanwhile."""
    return bool(workload.images or workload.audio) and any(beat.now_ns < told_ns + _DRAWN_NS for beat in beats)


def _looks(page: Page, start_ns: int, enough: Enough) -> Callable[[], bool]:
    """Ask `enough` now and then: a look sorts in what is new and goes over all of it, so looks get rarer as a level
    grows."""
    due_ns = start_ns

    def look() -> bool:
        nonlocal due_ns
        now = monotonic_ns()
        if now < due_ns:
            return False
        due_ns = now + max(_EVERY_NS, (now - start_ns) // 10)
        return enough(page.trace(), Window(start_ns, now))

    return look
