"""Files that are whole or not there, and where what can be made again is kept."""

from __future__ import annotations

import contextlib
import errno
import os
import sqlite3
import time
from collections.abc import Iterator
from pathlib import Path

from pacemark.errors import BadInput, PacemarkError, RunFailed


def write_whole(path: Path, data: bytes) -> None:
    """Write a file under another name first, so that whoever reads it, or is stopped, never has half of it.

    Raises OSError.
    """
    part = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        part.write_bytes(data)
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)


@contextlib.contextmanager
def legible(file: Path) -> Iterator[None]:
    """For reading `file` within: where it holds something else than was stored there, BadInput says so."""
    try:
        yield
    except (sqlite3.Error, OSError, ValueError, TypeError, OverflowError, RecursionError, MemoryError) as error:
        raise BadInput(f"{file} cannot be read: {' '.join(str(error).split()) or type(error).__name__}") from None


_NO_PLACE = {errno.ENOTDIR, errno.EEXIST, errno.ENOENT, errno.ENAMETOOLONG, errno.ELOOP, errno.EINVAL}


def unwritable(out: Path, error: OSError | sqlite3.Error) -> PacemarkError:
    """Why there can be no run below `out`."""
    reason = error.strerror if isinstance(error, OSError) else str(error)
    if isinstance(error, FileExistsError):  # what mkdir says, though a folder may be there already
        reason = "it is a file"
    text = f"--out {out}: cannot write there ({reason}); name a folder you may write to"
    return (BadInput if isinstance(error, OSError) and error.errno in _NO_PLACE else RunFailed)(text)


_FREED_WITHIN_S = 1.0


def held(folder: Path) -> int | None:
    """Be the only one that writes to `folder` for as long as this process lives, or until what this returns is closed;
    None where the system has no such locks. Raises BadInput where another process does.

    The folder is locked, and no file in it: closing any file of sqlite's would give up the locks of its own. A process
    that was killed while it started another leaves the lock to that one until it runs its own program: a moment, which
    is waited for.
    """
    try:
        import fcntl
    except ImportError:  # not on Windows
        return None
    lock = os.open(folder, os.O_RDONLY)
    until_s = time.monotonic() + _FREED_WITHIN_S
    while True:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return lock
        except BlockingIOError:
            if time.monotonic() >= until_s:
                os.close(lock)
                raise BadInput(f"{folder} is being written by another process: wait for its end, or stop it") from None
        except OSError:  # some file systems know no locks
            os.close(lock)
            return None
        time.sleep(0.02)


def cache_folder() -> Path:
    """Where this user keeps what can be made again: $XDG_CACHE_HOME/pacemark, or ~/.cache/pacemark."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "pacemark"
