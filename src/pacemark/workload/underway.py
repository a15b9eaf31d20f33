"""Sessions under way in one worker: who has which, and which rest while their users think."""

from __future__ import annotations

import heapq
from time import monotonic_ns
from typing import Generic, TypeVar

from pacemark.scenario import Workload
from pacemark.trace import ABSENT

__all__ = ["Underway"]

Member = TypeVar("Member")


class Underway(Generic[Member]):
    """Concurrency counts sessions: a stream has one session at a time, and is silent while its user thinks. Or it
    counts requests: a stream whose session is to rest takes up another one that is due, or begins one."""

    def __init__(self, workload: Workload) -> None:
        self._think_ns = int(workload.think_time_s * 1e9)
        self._by_session = workload.concurrency_of == "sessions"
        self._of_stream: dict[int, Member] = {}
        self._resting: list[tuple[int, int, Member]] = []
        self._out: dict[tuple[int, int], tuple[Member, int]] = {}
        self._count = 0

    def due(self, stream: int) -> Member | None:
        """The session that `stream` goes on with; None: a new one is to begin."""
        if stream in self._of_stream:
            return self._of_stream[stream]
        if self._resting and self._resting[0][0] <= monotonic_ns():
            return heapq.heappop(self._resting)[2]
        return None

    @property
    def empty(self) -> bool:
        """Whether no session is to go on."""
        return not (self._resting or self._out)

    def begin(self, session: Member, stream: int) -> None:
        """A new session, asked for by `stream`."""
        if self._by_session and stream != ABSENT:
            self._of_stream[stream] = session

    def asked(self, level: int, index: int, session: Member, stream: int) -> None:
        """A turn of `session` is sent."""
        self._out[level, index] = session, stream

    def answered(self, level: int, index: int) -> tuple[Member, int]:
        """Whose turn that was, and who asked."""
        return self._out.pop((level, index))

    def end(self, stream: int) -> None:
        """The session of `stream` is over."""
        self._of_stream.pop(stream, None)

    def rest(self, session: Member, stream: int) -> float:
        """Its user thinks; gives how many seconds the stream rests."""
        if stream in self._of_stream:
            return self._think_ns / 1e9
        self._count += 1
        heapq.heappush(self._resting, (monotonic_ns() + self._think_ns, self._count, session))
        return 0.0
