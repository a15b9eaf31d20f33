"""Looks at a level that runs: whether it has enough."""

from __future__ import annotations

from collections.abc import Callable
from time import monotonic_ns

from pacemark.figures.level import Enough
from pacemark.runs.ledger import Page
from pacemark.trace import Window

__all__ = ["looks"]

_EVERY_NS = 200_000_000


def looks(page: Page, start_ns: int, enough: Enough) -> Callable[[], bool]:
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
