"""The user's own rules for when a run is to be stopped: too much of it fails, or it has spent what it may."""

from __future__ import annotations

import math
from collections.abc import Sequence
from time import monotonic_ns

from pacemark.answers.allowance import Allowance, added, spent_on
from pacemark.figures.level import LevelResult
from pacemark.instrument.commands import UNLIMITED
from pacemark.pace import Concurrency, Load
from pacemark.runs.ledger import Ledger, Page
from pacemark.summary import Spent
from pacemark.trace import Beat

__all__ = ["Reached", "StopRules"]

_SURELY = 3.0
"""Standard errors between what was seen and the rule, before a level is stopped for its failures under way."""


_HEARD_S = 0.15
"""How long a worker may send on before it hears that it is to stop, and before what it sent is heard of."""


class Reached(Exception):
    """A rule of the user's ends the run; the message says which."""

    def __init__(self, why: str, *, failed: bool = False) -> None:
        """`failed`: it is a condition that was to hold, and no end of what may be spent."""
        super().__init__(why)
        self.failed = failed


class StopRules:
    """Watches over a run, level by level. What the requests before the first level cost is not counted."""

    def __init__(self, ledger: Ledger, max_error_share: float | None = None) -> None:
        """`ledger` takes in all that comes back."""
        self._ledger = ledger
        self._most_failed = max_error_share
        self.allowance: Allowance | None = None
        """What may be spent; None also where a search keeps its allowance itself."""
        self._before = Spent(0, 0.0)
        self._begun_ns = 0

    def count(self, results: Sequence[LevelResult]) -> None:
        """Take over what an earlier part of the run has spent."""
        for result in results:
            self._before = added(self._before, spent_on(result))

    def begin(self, load: Load, beats: Sequence[Beat]) -> int:
        """A level begins now; gives how many requests it may send at the most. Raises Reached where what is left is not
        enough for its ramp and its end."""
        in_flight = sum(beat.in_flight for beat in beats)
        if not self._begun_ns:
            self._begun_ns = monotonic_ns()
        elif over := self._over(in_flight + (2 * load.value if isinstance(load, Concurrency) else load.value)):
            raise Reached(f"what is left of the allowance of {over} is too little for {load}")
        most = None if self.allowance is None else self.allowance.requests
        return UNLIMITED if most is None else most - self._before.requests - self._ledger.requests - in_flight

    def check(self, page: Page, load: Load, beats: Sequence[Beat]) -> None:
        """Raises Reached as soon as a level under way breaks a rule."""
        total = page.failed + page.completed
        if self._most_failed is not None and page.failed and _least_share(page.failed, total) > self._most_failed:
            raise self._too_many(page.failed, total, page.kinds.most_common(1)[0][0], load)
        if over := self._over(sum(beat.in_flight for beat in beats) + 1):  # one more than there are
            raise Reached(f"the allowance of {over} was used up at {load}")

    def soon(self, page: Page, load: Load) -> bool:
        """Whether a window has to end now, for its last answers to be had within the allowance: until they are in, a
        closed loop sends up to two more from each stream, and an open loop goes on for twice its longest answer. What
        the workers send until they hear of it comes on top."""
        tail_s, run_s = page.slowest_ns / 1e9, (monotonic_ns() - self._begun_ns) / 1e9
        tail = 2 * load.value * (1 if isinstance(load, Concurrency) else tail_s)
        return self._over(tail + self._ledger.requests * min(1.0, _HEARD_S / run_s), tail_s) is not None

    def ended(self, result: LevelResult) -> None:
        """A level has come to its end. Raises Reached where what may be spent ended it, or where too much of it failed,
        few as its requests may be."""
        requests = result.level.requests
        total = requests.failed + requests.completed
        if self._most_failed is not None and total and requests.failed / total > self._most_failed:
            kind = max(result.level.errors, key=lambda kind: result.level.errors[kind], default="")
            raise self._too_many(requests.failed, total, kind, result.load)
        if result.level.ended_by == "allowance" and self.allowance is not None:
            raise Reached(f"the level at {result.load} had to end for the allowance of {self.allowance.parts()}")

    def _over(self, more: float, more_s: float = 0.0) -> str | None:
        """What of the allowance `more` requests like those that have ended would exceed, in words."""
        if self.allowance is None:
            return None
        requests, tokens = self._ledger.requests, self._ledger.tokens
        seconds = (monotonic_ns() - self._begun_ns) / 1e9 + more_s
        spent = Spent(requests + math.ceil(more), seconds, tokens + math.ceil(more * tokens / max(1, requests)))
        return self.allowance.exceeded(added(self._before, spent))

    def _too_many(self, failed: int, total: int, kind: str, load: Load) -> Reached:
        most = f"{self._most_failed or 0:.3g}"
        return Reached(
            f"{failed:,} of {total:,} requests at {load} failed (most of them {kind}), which is more than the share of "
            f"{most} that --max-error-share allows",
            failed=True,
        )


def _least_share(failed: int, total: int) -> float:
    """The share of failures that is surely exceeded: the lower end of Wilson's interval (Wilson, 1927, JASA 22)."""
    share, z = failed / total, _SURELY
    middle = share + z * z / (2 * total)
    spread = z * math.sqrt(share * (1 - share) / total + z * z / (4 * total * total))
    return (middle - spread) / (1 + z * z / total)
