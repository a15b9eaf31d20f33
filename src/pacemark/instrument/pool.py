"""The warm connections of one worker."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
from collections import deque
from collections.abc import Iterator, Sequence

from pacemark.endpoint.address import Address, WireError
from pacemark.instrument.answer import Answer
from pacemark.instrument.connection import Connection
from pacemark.instrument.opening import opened

CONNECT_S = 15.0
AT_ONCE = 32
FORGIVEN = 3
"""Requests lost to a server that closes what it promised to keep, before every request gets a new connection."""


class Pool:
    """Connections that rest between two requests, and the way to new ones."""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        addresses: Sequence[Address],
        timeout_s: float,
        *,
        keeps: bool,
        numbers: Iterator[int],
    ) -> None:
        """`keeps`: whether a connection serves more than one request. `numbers`: those that connections are given."""
        self._loop = loop
        self._addresses = itertools.cycle(addresses)
        self._spare = len(addresses) - 1
        self._timeout_s = min(CONNECT_S, timeout_s)
        self._keeps = keeps
        self._numbers = numbers
        self._resting: deque[Connection] = deque()
        self.reconnects = 0

    def idle(self) -> Connection | None:
        """A warm connection, if there is one."""
        while self._resting:
            connection = self._resting.popleft()  # rested longest: behind a balancer all get their share
            if not connection.closed:
                return connection
            self.reconnects += 1
        return None

    def keep(self, connection: Connection) -> None:
        """Take back a connection whose request has ended."""
        if not self._keeps:
            connection.close()
        elif not connection.closed:
            self._resting.append(connection)

    def lost(self) -> None:
        """A server closed a kept connection just as it was used."""
        self.reconnects += 1
        self._keeps = self.reconnects < FORGIVEN

    async def open(self) -> Connection:
        """A connection to the next address; one that does not answer is passed over while there are others. Raises
        WireError."""
        for _ in range(self._spare):
            with contextlib.suppress(WireError):
                return await self._opened()
        return await self._opened()

    async def _opened(self) -> Connection:
        connection = await opened(self._loop, next(self._addresses), self._timeout_s)
        connection.number = next(self._numbers)
        return connection

    async def warm(self, count: int) -> None:
        """Open connections ahead of need, a few at a time. A failure here will show in the requests."""
        missing = count - len(self._resting) if self._keeps else 0
        while missing > 0:
            tried = await asyncio.gather(*(self.open() for _ in range(min(AT_ONCE, missing))), return_exceptions=True)
            self._resting.extend(c for c in tried if isinstance(c, Connection))
            if any(isinstance(c, BaseException) for c in tried):
                return
            missing -= len(tried)

    def close(self) -> None:
        """Close what rests."""
        for connection in self._resting:
            connection.close()


def given_up(answer: Answer) -> bool:
    """Whether a kept connection turned out to be closed before a byte of the answer came."""
    return answer.error in ("closed", "reset") and not answer.reads
