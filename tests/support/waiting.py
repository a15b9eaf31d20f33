"""Waiting for something to become true, and trying again where the machine is shared."""

from __future__ import annotations

import contextlib
import functools
import time
from collections.abc import Callable


def wait_for(condition: Callable[[], object], seconds: float = 30.0) -> None:
    """Poll until `condition()` holds."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "waited too long"
        time.sleep(0.02)


TRIES: dict[str, int] = {}
"""Times that each test of `in_three_tries` was run, by its name; pytest prints them at its end."""


def in_three_tries(test: Callable[[], None]) -> Callable[[], None]:
    """A shared machine may be disturbed for a while; an instrument that is wrong is wrong in every try."""

    @functools.wraps(test)
    def tried() -> None:
        for number in (1, 2):
            TRIES[test.__name__] = number
            with contextlib.suppress(AssertionError):
                return test()
        TRIES[test.__name__] = 3
        return test()

    return tried
