"""Files that are whole or not there, and where what can be made again is kept."""

from __future__ import annotations

import os
from pathlib import Path


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


def cache_folder() -> Path:
    """Where this user keeps what can be made again: $XDG_CACHE_HOME/pacemark, or ~/.cache/pacemark."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "pacemark"
