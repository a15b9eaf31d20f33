"""Time to the microsecond: kernel receive stamps on sockets, and wake-ups on an absolute deadline.

uvloop rounds its timers to whole milliseconds, which is too coarse both for a schedule and for a truth;
a Linux timerfd is not. Where there is none, the loop's own timer serves.
"""

from __future__ import annotations

import asyncio
import ctypes
import heapq
import itertools
import os
import socket
import struct
import sys
import time
from typing import Final

SO_TIMESTAMPING: Final = 37
_RX_SOFTWARE: Final = 1 << 3
_SOFTWARE: Final = 1 << 4
NO_STAMP: Final = -1
"""Lag of a read that the kernel did not stamp."""
_STAMP: Final = struct.Struct("qq")
_ANCILLARY_BYTES: Final = socket.CMSG_SPACE(48) if hasattr(socket, "CMSG_SPACE") else 0

_CLOCK_MONOTONIC: Final = 1
_NONBLOCK: Final = os.O_NONBLOCK if hasattr(os, "O_NONBLOCK") else 0
_ABSTIME: Final = 1


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


def read_stamped(sock: socket.socket, size: int) -> tuple[bytes, int]:
    """Up to `size` bytes, and how long ago in ns the last of them came; NO_STAMP where the kernel did not say.

    Raises BlockingIOError where there is nothing to read, and OSError as `recvmsg` does.
    """
    data, ancillary, _, _ = sock.recvmsg(size, _ANCILLARY_BYTES)
    if not ancillary:
        return data, NO_STAMP
    seconds, nanoseconds = _STAMP.unpack_from(ancillary[0][2])
    return data, max(0, time.time_ns() - seconds * 1_000_000_000 - nanoseconds)


class _TimeSpec(ctypes.Structure):
    _fields_ = (("sec", ctypes.c_long), ("nsec", ctypes.c_long))


class _ITimerSpec(ctypes.Structure):
    _fields_ = (("interval", _TimeSpec), ("value", _TimeSpec))


class Alarm:
    """Wakes coroutines at absolute times of the monotonic clock, within tens of microseconds on Linux."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._order = itertools.count()
        self._sleepers: list[tuple[int, int, asyncio.Future[None]]] = []
        self._fd = -1
        if sys.platform.startswith("linux"):
            self._libc = ctypes.CDLL(None, use_errno=True)
            self._fd = self._libc.timerfd_create(_CLOCK_MONOTONIC, _NONBLOCK)
        if self._fd >= 0:
            loop.add_reader(self._fd, self._ring)

    async def until(self, when_ns: int) -> None:
        """Return at `when_ns` of `time.monotonic_ns`, or at once if that has passed."""
        if self._fd < 0:
            await asyncio.sleep(max(0, when_ns - time.monotonic_ns()) / 1e9)
            return
        if when_ns <= time.monotonic_ns():
            return
        future: asyncio.Future[None] = self._loop.create_future()
        heapq.heappush(self._sleepers, (when_ns, next(self._order), future))
        if self._sleepers[0][2] is future:
            self._set(when_ns)
        await future

    def close(self) -> None:
        """Give the timer back; whoever still sleeps is cancelled."""
        if self._fd >= 0:
            self._loop.remove_reader(self._fd)
            os.close(self._fd)
            self._fd = -1
        for _, _, future in self._sleepers:
            future.cancel()

    def _set(self, when_ns: int) -> None:
        spec = _ITimerSpec(_TimeSpec(0, 0), _TimeSpec(when_ns // 10**9, when_ns % 10**9))
        self._libc.timerfd_settime(self._fd, _ABSTIME, ctypes.byref(spec), None)

    def _ring(self) -> None:
        try:
            os.read(self._fd, 8)
        except BlockingIOError:
            return
        now = time.monotonic_ns()
        while self._sleepers and self._sleepers[0][0] <= now:
            future = heapq.heappop(self._sleepers)[2]
            if not future.done():
                future.set_result(None)
        if self._sleepers:
            self._set(self._sleepers[0][0])
