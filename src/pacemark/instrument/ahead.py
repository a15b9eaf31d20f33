"""Requests of an open loop, put together before they are due."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Callable, Iterator
from time import monotonic_ns

from pacemark.instrument.reports import Request

EARLY_NS = 1_000_000
"""No request is put together that close to the time at which another is due."""


async def ahead(
    dues: Iterator[int], put_together: Callable[[], Request | None], most: int
) -> AsyncIterator[tuple[int, Request | None]]:
    """Each of `dues`, times of the monotonic clock in ns, with its request, or None where there was nothing to ask.

    Up to `most` are put together beforehand, as far as there is time, so that a burst waits for none of its own.
    """
    waiting: deque[tuple[int, Request | None]] = deque()
    took_ns = 0
    while True:
        while len(waiting) < most:
            begun_ns = monotonic_ns()
            if waiting and waiting[0][0] - begun_ns < 2 * took_ns + EARLY_NS:
                break
            if (due_ns := next(dues, None)) is None:
                break
            waiting.append((due_ns, put_together()))
            took_ns = max(monotonic_ns() - begun_ns, took_ns // 2)
            await asyncio.sleep(0)
        if not waiting:
            return
        yield waiting.popleft()
