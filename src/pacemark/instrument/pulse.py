"""How a worker fares: what the machine says of its cores and of its waiting."""

from __future__ import annotations

import os
from time import monotonic_ns

from pacemark.cpu import quota, throttled_ns
from pacemark.trace import ABSENT


class Cores:
    """How idle the cores are that this process may run on (Linux, /proc/stat)."""

    EVERY_NS = 500_000_000

    def __init__(self) -> None:
        self._read_ns = 0
        self._before: dict[str, tuple[int, int]] = {}
        self._share = float(ABSENT)

    def idle_share(self) -> float:
        """Idle share since the last look, which is at most half a second ago; ABSENT where it cannot be known."""
        now = monotonic_ns()
        if now - self._read_ns < self.EVERY_NS:
            return self._share
        self._read_ns = now
        try:
            mine = {f"cpu{n}" for n in os.sched_getaffinity(0)}
            with open("/proc/stat") as file:
                rows = [line.split() for line in file if line.startswith("cpu")]
        except (OSError, AttributeError):
            return self._share
        ticks = {name: (int(t[3]) + int(t[4]), sum(map(int, t[:8]))) for name, *t in rows if name in mine}
        known = ticks.keys() & self._before.keys()
        idle, total = (sum(ticks[name][i] - self._before[name][i] for name in known) for i in (0, 1))
        self._before = ticks
        self._share = idle / total if total > 0 else float(ABSENT)
        return self._share


class Throttling:
    """How long the CPU quota of this container has stopped it."""

    EVERY_NS = 500_000_000

    def __init__(self) -> None:
        self._limited = quota() is not None
        self._read_ns = 0
        self._throttled_ns = 0

    def throttled_ns(self) -> int:
        """As of half a second ago at most; 0 without a quota."""
        now = monotonic_ns()
        if self._limited and now - self._read_ns >= self.EVERY_NS:
            self._read_ns, self._throttled_ns = now, throttled_ns() or 0
        return self._throttled_ns


def waited_ns() -> int:
    """Time this process spent on a run queue (Linux, Documentation/scheduler/sched-stats); 0 where that is unknown."""
    try:
        with open("/proc/self/schedstat", "rb") as file:
            return int(file.read().split()[1])
    except (OSError, IndexError, ValueError):
        return 0
