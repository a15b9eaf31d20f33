"""How a command ends before its time: by Ctrl-C or a signal, or where nothing more can be written."""

from __future__ import annotations

import contextlib
import errno
import os
import signal
import sys
import threading
import time
from collections.abc import Iterator
from types import FrameType
from typing import Any

from pacemark.errors import BadInput, RunFailed
from pacemark.reporting.ascii import degrade

_AGAIN_S = 0.25
"""A signal that follows sooner is the same one: `timeout` and a closing terminal send theirs twice."""
_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EIO}


class Stop:
    """The signal that told this process to stop, if one did."""

    def __init__(self) -> None:
        self.number = 0
        self._at_s = 0.0
        self._terminals = [fd for fd in (0, 1, 2) if os.isatty(fd)]

    @property
    def code(self) -> int:
        """The exit code: 130 after Ctrl-C, 143 after SIGTERM, 129 after SIGHUP."""
        return 128 + (self.number or signal.SIGINT)

    def heed(self, number: int, frame: FrameType | None = None) -> None:
        """Raise KeyboardInterrupt, so that what there is gets written; a second one ends this process at once.

        Workers and the embedded endpoint notice that this process is gone, and go too.
        """
        now = time.monotonic()
        if self.number:
            if number != signal.SIGHUP and now - self._at_s > _AGAIN_S:
                self._leave()
            return
        self.number, self._at_s = number, now
        if number == signal.SIGHUP:  # the terminal is gone, and writing to it fails
            nowhere = os.open(os.devnull, os.O_RDWR)
            for fd in self._terminals:
                os.dup2(nowhere, fd)
        raise KeyboardInterrupt

    def _leave(self) -> None:
        cursor = b"\x1b[?25h" if 2 in self._terminals else b""  # the live display hides it
        with contextlib.suppress(OSError):
            os.write(2, cursor + b"\npacemark: stopped at once; `pacemark resume` goes on from what was stored\n")
        os._exit(self.code)


@contextlib.contextmanager
def heeding_signals() -> Iterator[Stop]:
    """SIGINT, SIGTERM and SIGHUP stop what runs within, as Ctrl-C does. One that the caller ignores, as nohup does,
    stays ignored."""
    stop = Stop()
    before: dict[int, Any] = {}
    if threading.current_thread() is threading.main_thread():
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            if signal.getsignal(number) is not signal.SIG_IGN:
                before[number] = signal.signal(number, stop.heed)
    try:
        yield stop
    finally:
        for held, handler in before.items():
            signal.signal(held, handler)


# --- where nothing more can be written


def open_standard_streams() -> None:
    """Put /dev/null where a standard stream is closed, so that no file or socket of ours takes its place; and let no
    character that the terminal cannot show end a command."""
    for fd in (0, 1, 2):
        try:
            os.fstat(fd)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # takes the lowest number that is free: this one
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:
            setattr(sys, name, os.fdopen(os.open(os.devnull, os.O_WRONLY), "w"))
    degrade(sys.stdout, sys.stderr)


def note(line: str) -> None:
    """A line on standard error, if there is anyone left to read it."""
    with contextlib.suppress(OSError, ValueError):
        sys.stderr.write(line + "\n")
        sys.stderr.flush()


def failed(message: str, code: int) -> int:
    """Say in one line why a command failed; returns its exit code."""
    note(f"pacemark: {' '.join(message.split())}")
    return code


def flushed() -> str:
    """Write out what standard output still holds; returns why it cannot be, else nothing.

    After a failure nothing more is tried: not at the interpreter's end either, which would complain.
    """
    try:
        sys.stdout.flush()
    except OSError as error:
        nowhere = os.open(os.devnull, os.O_WRONLY)
        with contextlib.suppress(OSError, ValueError):
            os.dup2(nowhere, sys.stdout.fileno())
            sys.stdout.flush()
        os.close(nowhere)
        if error.errno != errno.EPIPE:
            return _lost(error)
    return ""


def reason(error: OSError) -> str:
    """What an error of the system that nobody foresaw was, and where. One without a file is standard output's."""
    if error.filename is None and error.errno in _FULL:
        return _lost(error)
    return f"{error.strerror or error}{f': {error.filename}' if error.filename else ''}"


def _lost(error: OSError) -> str:
    return f"standard output cannot be written: {error.strerror or error}; what was stored is whole"


@contextlib.contextmanager
def storing(out: str) -> Iterator[None]:
    """A run that cannot be written any further ends as RunFailed, which says where what there is can be found."""
    try:
        yield
    except BadInput:  # which says by itself what cannot be written
        raise
    except Exception as error:
        if reason := _unwritten(error):
            advice = "nothing was measured; name another place: --out"
            if "read-only" in reason.lower():
                advice = "copy it to a folder that you may write to, and go on there"
            elif os.path.isdir(out):
                advice = f"once there is room, `pacemark resume {out}` goes on, and `pacemark report {out}` tells what "
                advice += "was stored until then"
            raise RunFailed(f"the run cannot be written below {out}: {reason}; {advice}") from None
        raise


def _unwritten(error: BaseException | None) -> str:
    """Why storing failed, if that is what failed. Tidying up after the first failure may have failed too."""
    base = sys.modules.get("sqlite3")  # not loaded for the sake of this
    reason = ""
    while error is not None:
        if isinstance(error, OSError) and error.errno in _FULL:
            reason = error.strerror or str(error)
        elif base is not None and isinstance(error, base.OperationalError):
            reason = str(error)
        error = error.__context__
    return reason
