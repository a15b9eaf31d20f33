"""When the window of a level is over: after its time, its requests or its cost, or once it is known well enough."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from time import monotonic_ns

from pacemark.figures.level import Enough
from pacemark.runs.ledger import Page
from pacemark.scenario import Settings
from pacemark.summary import EndedBy
from pacemark.trace import ABSENT, Beat, Window

__all__ = ["WindowEnd", "spent_ns", "turned"]

_EVERY_NS = 200_000_000
_DAY_S = 86_400.0
"""The longest that a window can last that only its requests end."""


class WindowEnd:
    """The end of a window that begins now."""

    def __init__(
        self,
        settings: Settings,
        page: Page,
        enough: Enough | None,
        spent: Callable[[], bool] = lambda: False,
        ran_out_ns: Callable[[], int] = lambda: ABSENT,
    ) -> None:
        """`spent` says that it has to end for what the run may spend, `ran_out_ns` when the rows of a file ran out;
        ABSENT as long as they have not."""
        longest_s = settings.max_duration_s if enough else settings.duration_s if settings.timed else _DAY_S
        self.start_ns = monotonic_ns()
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


def turned(beats: Sequence[Beat], level: int, begun_ns: int) -> int:
    """Streams that have finished a request of the level; none as long as a worker has one from before it."""
    known = [b for b in beats if b.level == level and (b.oldest_ns == ABSENT or b.oldest_ns >= begun_ns)]
    return sum(b.turned for b in known) if len(known) == len(beats) else 0


def spent_ns(beats: Iterable[Beat], level: int) -> int:
    """When the rows ran out that a level sends once: when the first worker had none; ABSENT if they have not."""
    return min((b.spent_ns for b in beats if b.level == level and b.spent_ns != ABSENT), default=ABSENT)


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
