"""What draws and writes reports is slow to load, so it is loaded early."""

from __future__ import annotations

import contextlib
import threading

from pacemark.reporting import drawing

__all__ = ["start"]


def start() -> None:
    """Load in the background what draws, and make its script where there is none yet: a second that nobody waits for.

    Not while a load is being measured: it takes a whole core.
    """
    threading.Thread(target=_started, name="drawing", daemon=True).start()


def _started() -> None:
    with contextlib.suppress(Exception):  # whoever draws meets it again, and can say where
        from pacemark.reporting import html  # noqa: F401 - a second, which this thread has

        drawing.svg({"data": {"values": []}, "mark": "point"})
        drawing.script()
