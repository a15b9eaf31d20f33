"""Time to the microsecond: kernel receive stamps on sockets, and wake-ups on an absolute deadline.

uvloop rounds its timers to whole milliseconds, which is too coarse both for a schedule and for a truth;
a Linux timerfd is not. Where there is none, the loop's own timer serves.
"""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import heapq
import itertools
import os
import socket
import struct
import sys
from collections.abc import Callable
from time import monotonic_ns, time_ns
from typing import Final

SO_TIMESTAMPING: Final = 37
_RX_SOFTWARE, _SOFTWARE = 1 << 3, 1 << 4
NO_STAMP: Final = -1
"""Lag of a read that the kernel did not stamp."""
_stamp_in: Final = struct.Struct("qq").unpack_from
ANCILLARY_BYTES: Final = socket.CMSG_SPACE(48) if hasattr(socket, "CMSG_SPACE") else 0

_MONOTONIC, _ABSOLUTE = 1, 1


def stamp_reads(sock: socket.socket) -> bool:
    """Ask the kernel to stamp what arrives on `sock`. False where this system cannot.

    The stamps come with `recvmsg` as three timespecs of CLOCK_REALTIME, of which the first is the software
    receive stamp of the last byte returned (Linux 4.14 and later; Documentation/networking/timestamping).
    """
    if not sys.platform.startswith("linux"):
        return False
    try:
        sock.setsockopt(socket.SOL_SOCKET, SO_TIMESTAMPING, _RX_SOFTWARE | _SOFTWARE)
    except OSError:
        return False
    return True


def lag_of(ancillary: list[tuple[int, int, bytes]]) -> int:
    """How long ago in ns a read's last byte came, by the `ancillary` data (not empty) that `recvmsg` gave with it."""
    seconds, nanoseconds = _stamp_in(ancillary[0][2])
    lag_ns = time_ns() - seconds * 1_000_000_000 - nanoseconds
    return lag_ns if lag_ns > 0 else 0


class _TimeSpec(ctypes.Structure):
    _fields_ = (("sec", ctypes.c_long), ("nsec", ctypes.c_long))


class _TimerSpec(ctypes.Structure):
    _fields_ = (("interval", _TimeSpec), ("value", _TimeSpec))


class Timer:
    """Calls back at one absolute time of `time.monotonic_ns`, within tens of microseconds on Linux."""

    def __init__(self, loop: asyncio.AbstractEventLoop, ring: Callable[[], None]) -> None:
        self._loop = loop
        self._ring = ring
        self._handle: asyncio.TimerHandle | None = None
        self._set = False
        self._fd = -1
        if sys.platform.startswith("linux"):
            self._settime = ctypes.CDLL(None, use_errno=True).timerfd_settime
            self._fd = ctypes.CDLL(None, use_errno=True).timerfd_create(_MONOTONIC, os.O_NONBLOCK | os.O_CLOEXEC)
        if self._fd >= 0:
            self._spec = _TimerSpec()
            self._pointer = ctypes.byref(self._spec)
            loop.add_reader(self._fd, self._expired)

    def set(self, when_ns: int) -> None:
        """Ring at `when_ns`, at once if that has passed; replaces the deadline set before."""
        self._set = True
        if self._fd >= 0:
            value = self._spec.value
            value.sec, value.nsec = divmod(max(when_ns, 1), 1_000_000_000)
            self._settime(self._fd, _ABSOLUTE, self._pointer, None)
            return
        self.clear()
        self._handle = self._loop.call_later(max(0, when_ns - monotonic_ns()) / 1e9, self._ring)

    def clear(self) -> None:
        """Do not ring."""
        if self._fd >= 0:
            self._spec.value.sec = self._spec.value.nsec = 0
            self._settime(self._fd, _ABSOLUTE, self._pointer, None)
        elif self._handle:
            self._handle.cancel()
            self._handle = None

    def close(self) -> None:
        """Give the timer back."""
        self.clear()
        if self._fd >= 0:
            self._loop.remove_reader(self._fd)
            os.close(self._fd)
            self._fd = -1

    def _expired(self) -> None:
        # Setting a timerfd anew makes it unreadable, so only a deadline that nobody follows up must be read away.
        self._set = False
        self._ring()
        if not self._set:
            with contextlib.suppress(BlockingIOError):
                os.read(self._fd, 8)


class Alarm:
    """Wakes coroutines at absolute times of the monotonic clock, as punctually as `Timer` rings."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._order = itertools.count()
        self._sleepers: list[tuple[int, int, asyncio.Future[None]]] = []
        self._timer = Timer(loop, self._ring)

    async def until(self, when_ns: int) -> None:
        """Return at `when_ns` of `time.monotonic_ns`, or at once if that has passed."""
        if when_ns <= monotonic_ns():
            return
        future: asyncio.Future[None] = self._loop.create_future()
        heapq.heappush(self._sleepers, (when_ns, next(self._order), future))
        if self._sleepers[0][2] is future:
            self._timer.set(when_ns)
        await future

    def close(self) -> None:
        """Give the timer back; whoever still sleeps is cancelled."""
        self._timer.close()
        for _, _, future in self._sleepers:
            future.cancel()

    def _ring(self) -> None:
        now = monotonic_ns()
        while self._sleepers and self._sleepers[0][0] <= now:
            future = heapq.heappop(self._sleepers)[2]
            if not future.done():
                future.set_result(None)
        if self._sleepers:
            self._timer.set(self._sleepers[0][0])
