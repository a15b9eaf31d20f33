"""A timer on an absolute deadline that calls back within tens of microseconds of it."""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import os
import sys
import time
from collections.abc import Callable

__all__ = ["Timer"]

_MONOTONIC, _ABSOLUTE = 1, 1


class _TimeSpec(ctypes.Structure):
    _fields_ = (("sec", ctypes.c_long), ("nsec", ctypes.c_long))


class _TimerSpec(ctypes.Structure):
    _fields_ = (("interval", _TimeSpec), ("value", _TimeSpec))


class Timer:
    """One deadline at a time on the clock of `time.monotonic_ns`.

    uvloop rounds its own timers to milliseconds, so on Linux the kernel's timerfd rings instead.
    """

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
        self._handle = self._loop.call_later(max(0, when_ns - time.monotonic_ns()) / 1e9, self._ring)

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
