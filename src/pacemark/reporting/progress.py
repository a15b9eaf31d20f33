"""What a run says of itself while it runs, and its display on standard error.

Whoever measures imports `Status` from here, so rich is imported only once something is shown.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from types import TracebackType
from typing import TYPE_CHECKING, Literal, Self

from pacemark.answers.step import Step
from pacemark.pace import Concurrency, Load
from pacemark.reporting.rows import heading, level_row
from pacemark.reporting.sparks import Sought, sparkline
from pacemark.summary import Level
from pacemark.units import number

if TYPE_CHECKING:
    from rich.console import Console, RenderableType
    from rich.live import Live

Phase = Literal["preparing", "warm-up", "ramp", "measuring", "finishing", "reporting"]


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
    ended: Level | None = None
    """The level that has just ended."""
    step: Step | None = None
    """What a search has learned; all else of such a status is of no account."""


def told(text: str, step: Step | None = None) -> Status:
    """A line for the user, or what a search has learned, as a status."""
    return Status(0, None, Concurrency(1), "preparing", 0.0, None, None, 0, 0, 0, text, step=step)


_PLAIN_EVERY_S = 15.0
_LIVE_EVERY_S = 0.2
_SPARK_S = 48
"""Seconds that the sparkline goes back, with a letter for each."""


class Progress:
    """Shows each `Status` on standard error: live on a terminal, else as plain lines, never on standard output.

    A level that has ended leaves a row. Where the table follows, which has them all, a terminal keeps them only until
    then, and in plain lines a level that took less than fifteen seconds leaves none. In plain lines something is said
    besides only after fifteen seconds of nothing. It starts no thread: whoever calls `update` pays for the drawing, at
    most five times a second.
    """

    def __init__(
        self,
        console: Console | None = None,
        clock: Callable[[], float] = time.monotonic,
        *,
        table_follows: bool = False,
    ) -> None:
        """Show on `console`, by default standard error; `clock` gives seconds."""
        from rich.console import Console

        self._console = console or Console(stderr=True)
        self._clock = clock
        self._live: Live | None = None
        self._shown: tuple[int, Load, str] | None = None
        self._shown_s = self._clock()
        self._headed = False
        self._table_follows = table_follows
        self._rows: list[str] = []
        """That the table will replace."""
        self._row_s = self._shown_s
        self._speeds: deque[float] = deque(maxlen=_SPARK_S)
        """Output tokens/s, one for each second."""
        self._spark_s = self._shown_s
        self._sought = Sought()

    def __enter__(self) -> Self:
        """Take over the last lines of the terminal, if it is one."""
        if self._console.is_terminal:
            from rich.live import Live  # 30 ms that only a live display needs

            self._live = Live(console=self._console, auto_refresh=False, transient=True, redirect_stdout=False)
            self._live.start()
            self._live.update(_waiting("getting ready"), refresh=True)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        """Give the terminal back; nothing of the live display stays."""
        if self._live is not None:
            self._live.stop()
            self._live = None
        for row in self._rows if error is not None else ():
            self.note(row)

    def update(self, status: Status) -> None:
        """Show `status`, if it is time to."""
        if status.step is not None:
            return self._sought.learn(status.step)
        if status.note:
            return self.note(status.note)
        if status.ended is not None:
            return self._row(status.ended, searching=status.levels is None)
        stage = (status.level_index, status.load, status.phase)
        now = self._clock()
        if self._live is not None:
            if now - self._spark_s >= 1.0:
                self._spark_s = now
                self._speeds.append(status.tokens_per_s or 0.0)
            if stage != self._shown or now - self._shown_s >= _LIVE_EVERY_S:
                self._shown, self._shown_s = stage, now
                self._live.update(self._drawn(status), refresh=True)
        elif now - self._shown_s >= _PLAIN_EVERY_S:
            at = (
                "" if status.phase == "reporting" else f"{_where(status)}: {status.phase}, {', '.join(_counts(status))}"
            )
            self.note(at or "writing the report")

    def _row(self, level: Level, *, searching: bool) -> None:
        short = self._clock() - self._row_s < _PLAIN_EVERY_S
        self._row_s = self._clock()
        if self._table_follows and not searching and (short or self._live is not None):
            self._rows += [level_row(level)] if self._rows else [heading(level), level_row(level)]
            return
        for row in [level_row(level)] if self._headed else [heading(level), level_row(level)]:
            self.note(row)
        self._headed = True

    def _drawn(self, status: Status) -> RenderableType:
        """The head and as many of the last rows as there is room for, and where the run stands."""
        from rich.console import Group
        from rich.text import Text

        most = max(1, self._console.height - 8)
        shown = [*self._rows[:1], *self._rows[1:][-most:]]
        lines = [*shown, _live_view(status), *(self._pictures() if status.phase != "reporting" else [])]
        return Group(*(Text(x, no_wrap=True, overflow="crop") if isinstance(x, str) else x for x in lines))

    def _pictures(self) -> list[str]:
        """How the rate went, and where the answer of a search lies, a line each, in 80 columns."""
        plain = not (self._console.encoding or "").lower().startswith("utf")
        found = []
        if len(self._speeds) > 1:
            top = f"{number(max(self._speeds))} tok/s" if any(self._speeds) else "tok/s"
            found.append(f"  {sparkline(self._speeds, plain=plain)} {top} at most")
        if line := self._sought.drawn(plain=plain):
            found.append(f"  {line}")
        return found

    def note(self, text: str) -> None:
        """A line that stays, above the live display: a finished level, a probe and its verdict."""
        if self._live is not None:
            from rich.text import Text

            self._live.console.print(Text(_printable(text)))
        else:
            self._shown_s = self._clock()
            self._console.file.write(_printable(text) + "\n")
            self._console.file.flush()


def _printable(text: str) -> str:
    """On one line and without control characters; spaces stay, for rows have columns."""
    return "".join(c if c.isprintable() else " " for c in text)


def _waiting(text: str) -> RenderableType:
    from rich.text import Text

    return Text(f"{text} ...", style="dim")


def _live_view(status: Status) -> RenderableType:
    from rich.console import Group
    from rich.progress_bar import ProgressBar
    from rich.table import Table
    from rich.text import Text

    if status.phase == "reporting":
        return _waiting("writing the report")
    bar = Table.grid(padding=(0, 1))
    total = status.elapsed_s + status.remaining_s if status.remaining_s is not None else None
    bar.add_row(
        Text(_where(status), style="bold"),
        Text(status.phase, style="cyan"),
        ProgressBar(total=total, completed=status.elapsed_s, width=24, pulse=total is None),
    )
    return Group(bar, Text("  " + "   ".join(_counts(status)), no_wrap=True, overflow="ellipsis"))


def _where(status: Status) -> str:
    of = "" if status.levels is None else f"/{status.levels}"
    return f"[{status.level_index + 1}{of}] {status.load}"


def _times(status: Status) -> str:
    left = "" if status.remaining_s is None else f", {status.remaining_s:.0f} s left"
    return f"{status.elapsed_s:.0f} s{left}"


def _counts(status: Status) -> list[str]:
    rate = [] if status.tokens_per_s is None else [f"{number(status.tokens_per_s)} tok/s"]
    failed = f"{status.errors:,} {'error' if status.errors == 1 else 'errors'}"
    return [_times(status), *rate, f"{status.in_flight:,} in flight", f"{status.completed:,} done", failed]
