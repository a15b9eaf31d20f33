"""How the monotonic clock of another machine stands to ours, by round trips; and times moved from one to the other.

Machines agree on the time of day to some milliseconds at best, and on the monotonic clock not at all. A question which
is answered with the time bounds the offset between two clocks by half of what it took (Cristian, 1989, Distributed
Computing 3; the four stamps are those of RFC 5905, section 8). Within a level an offset is one constant, so that no
difference of two times of one machine is touched.
"""

from __future__ import annotations

import math
from collections import deque
from typing import NamedTuple

import msgspec

from pacemark.instrument.commands import Batch, Begin, Command
from pacemark.trace import ABSENT, Beat, Exchange

DRIFT_PPM = 100.0
"""No two clocks run away from each other faster: quartz in computers keeps within 50 ppm of its nominal pace."""
KEPT = 128
"""Round trips that are remembered: with some twenty a second those of six seconds, and older ones are worth little."""


class Round(NamedTuple):
    """One question and its answer; two stamps of each clock."""

    asked_ns: int
    received_ns: int
    """There, as is the next."""
    answered_ns: int
    heard_ns: int

    @property
    def offset_ns(self) -> int:
        """Their clock less ours, in the middle of the round."""
        return (self.received_ns - self.asked_ns + self.answered_ns - self.heard_ns) // 2

    @property
    def bound_ns(self) -> int:
        """The most that the offset is off, however unequal the ways there and back were."""
        return max(0, self.heard_ns - self.asked_ns - (self.answered_ns - self.received_ns)) // 2 + 1


class Offset(NamedTuple):
    """An offset, and the most that it was off at a time of ours."""

    offset_ns: int
    bound_ns: int
    at_ns: int


class NodeClock:
    """The clock of one machine."""

    def __init__(self) -> None:
        self._offsets: deque[Offset] = deque(maxlen=KEPT)
        self._first: Offset | None = None
        self._of_level: dict[int, Offset] = {}
        self._jumped_ns = 0

    def hear(self, answer: Round) -> None:
        """Learn from a round trip. What contradicts all before it is no drift: one of the two clocks jumped, as that of
        a virtual machine that was paused may; what was known until then is forgotten."""
        new = Offset(answer.offset_ns, answer.bound_ns, (answer.asked_ns + answer.heard_ns) // 2)
        if self._offsets:
            known = self.at(new.at_ns)
            if abs(new.offset_ns - known.offset_ns) > new.bound_ns + known.bound_ns:
                self._jumped_ns = max(self._jumped_ns, abs(new.offset_ns - known.offset_ns))
                self._offsets.clear()
                self._first = None
        self._offsets.append(new)

    def at(self, now_ns: int) -> Offset:
        """The best that is known: of the round trips the shortest, unless it is so long ago that drift costs more."""
        best = min(self._offsets, key=lambda one: _aged(one, now_ns))
        return Offset(best.offset_ns, _aged(best, now_ns), best.at_ns)

    def begin(self, level: int, now_ns: int) -> Offset:
        """Settle on one offset for `level`."""
        self._jumped_ns = 0
        found = self._of_level[level] = self.at(now_ns)
        self._first = self._first or found
        return found

    def of(self, level: int) -> Offset:
        """The offset of a level that was begun."""
        return self._of_level[level]

    @property
    def jumped_ns(self) -> int:
        """The farthest that it jumped since the last level was begun."""
        return self._jumped_ns

    def drift_ppm(self, now_ns: int) -> tuple[float, float] | None:
        """How fast it runs away from ours since the first level was begun, and the most that this is off; None where
        more than `DRIFT_PPM` would be no wonder."""
        now = self.at(now_ns)
        if self._first is None or now.at_ns <= self._first.at_ns:
            return None
        passed_ns = now.at_ns - self._first.at_ns
        rounds = [one for one in self._offsets if one.at_ns == now.at_ns]
        most = (rounds[-1].bound_ns + self._first.bound_ns) / passed_ns * 1e6
        return None if most > DRIFT_PPM else ((now.offset_ns - self._first.offset_ns) / passed_ns * 1e6, most)


def _aged(one: Offset, now_ns: int) -> int:
    return one.bound_ns + math.ceil(abs(now_ns - one.at_ns) * DRIFT_PPM / 1e6)


# --- times moved

EXCHANGE_TIMES = (
    "scheduled_ns", "first_byte_sent_ns", "sent_ns", "headers_ns", "first_event_ns", "answer_ns", "ended_ns",
    "call_ns", "called_ns", "done_ns",
)  # fmt: skip
"""The fields of an exchange that are points in time, or ABSENT; all others in ns but its events are spans."""
BEAT_TIMES = ("now_ns", "oldest_ns", "spent_ns")


def command_there(command: Command, offset_ns: int) -> Command:
    """A command as a machine with that offset is to be told it."""
    if isinstance(command, Begin):
        return msgspec.structs.replace(command, start_ns=command.start_ns + offset_ns)
    return command


def batch_here(batch: Batch, offsets_ns: dict[int, int]) -> Batch:
    """What came from a machine, in our time; `offsets_ns` are those of its levels."""
    exchanges = [_exchange_here(x, offsets_ns[x.level]) for x in batch.exchanges]
    beat = _beat_here(batch.beat, offsets_ns[batch.beat.level])
    return msgspec.structs.replace(batch, exchanges=exchanges, beat=beat)


def _exchange_here(x: Exchange, offset_ns: int) -> Exchange:
    hi_ns = x.hi_ns - offset_ns
    lo_ns = hi_ns if x.lo_ns is x.hi_ns else x.lo_ns - offset_ns
    return msgspec.structs.replace(x, **_points(x, EXCHANGE_TIMES, offset_ns), hi_ns=hi_ns, lo_ns=lo_ns)


def _beat_here(beat: Beat, offset_ns: int) -> Beat:
    return msgspec.structs.replace(beat, **_points(beat, BEAT_TIMES, offset_ns))


def _points(of: Exchange | Beat, names: tuple[str, ...], offset_ns: int) -> dict[str, int]:
    known = ((name, getattr(of, name)) for name in names)
    return {name: at_ns - offset_ns for name, at_ns in known if at_ns != ABSENT}
