"""Where a run that was started from Python shows how it goes: in the notebook's cell, in the terminal, or nowhere."""

from __future__ import annotations

import contextlib
import sys
import time
from collections.abc import Callable, Iterator
from html import escape
from typing import Any

from pacemark.reporting.progress import Progress, Status
from pacemark.reporting.rows import heading, level_row
from pacemark.reporting.sparks import Sought
from pacemark.reporting.words import plain
from pacemark.summary import Level, Summary
from pacemark.units import number

__all__ = ["Cell", "observing"]

_EVERY_S = 0.5


@contextlib.contextmanager
def observing() -> Iterator[Callable[[Status], None]]:
    """An observer for as long as the block runs: it does nothing where nobody would see it."""
    if _in_notebook():
        yield Cell().update
    elif sys.stderr is not None and sys.stderr.isatty():
        with Progress() as progress:
            yield progress.update
    else:
        yield lambda status: None


def _in_notebook() -> bool:
    """Whether a kernel runs this, so that there is a cell to write to."""
    shell = getattr(sys.modules.get("IPython"), "get_ipython", lambda: None)()
    return getattr(shell, "kernel", None) is not None


class Cell:
    """What stands below a notebook's cell: a row for each level that has ended, the moment below them, and the curve.
    Of a search it is told where its answer lies, and no curve.

    The outputs are replaced and not added to, so a saved notebook keeps the rows and the curve alone. The curve is
    drawn when a level has ended, in the ramp of the next one.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        """`clock` gives seconds."""
        self._clock = clock
        self._lines: list[str] = []
        self._levels: list[Level] = []
        self._sought = Sought()
        self._shown_s = float("-inf")
        self._rows = Output()
        self._curve = Output()

    def update(self, status: Status) -> None:
        """Show `status`, if it is time to."""
        if status.step is not None:
            return self._sought.learn(status.step)
        if status.note:
            self._lines.append(plain(status.note))
        elif status.ended is not None:
            self._lines += [] if self._levels else [heading(status.ended)]
            self._lines.append(level_row(status.ended))
            self._levels.append(status.ended)
        elif self._clock() - self._shown_s < _EVERY_S:
            return
        self._shown_s = self._clock()
        moment = (
            [] if status.note or status.ended is not None else [_moment(status), *filter(None, [self._sought.drawn()])]
        )
        text = "\n".join([*self._lines, *moment])
        self._rows.show({"text/plain": text, "text/html": f"<pre>{escape(text)}</pre>"})
        if status.ended is not None and status.ended.asked is None and not self._sought:
            self._draw()

    def _draw(self) -> None:
        """The curve of the levels that have ended, in the forms that a run has of it."""
        from pacemark.reporting.notebook import picture

        self._curve.show(picture(Summary(target={}, workload={}, levels=self._levels)))


class Output:
    """One output of a notebook's cell, which is replaced each time."""

    def __init__(self) -> None:
        self._handle: Any = None

    def show(self, forms: dict[str, Any]) -> None:
        """Show something, given by its MIME types."""
        from IPython.display import display

        if self._handle is None:
            self._handle = display(forms, raw=True, display_id=True)
        else:
            self._handle.update(forms, raw=True)


def _moment(status: Status) -> str:
    left = "" if status.remaining_s is None else f", {status.remaining_s:.0f} s left"
    rate = "" if status.tokens_per_s is None else f", {number(status.tokens_per_s)} tokens/s"
    if status.phase == "reporting":
        return "writing the report ..."
    return f"{status.load}: {status.phase}, {status.elapsed_s:.0f} s{left}{rate}, {status.completed:,} done"
