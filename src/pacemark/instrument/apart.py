"""Events that are kept apart from their requests: in files, one of each machine.

Above `APART_STREAMS` streams the process that coordinates several machines is told scalars while a level runs. Each
machine writes the events of its requests to a file of its own, and the file is brought to the run folder when the level
has ended: a part file, `events-<number>.bin`. What travels is an exchange in outline, with its first event and its last
(all that TTFT, TPOT and latency need) and the place of the others: the number of the part file and where in it.
"""

from __future__ import annotations

import mmap
import os
import re
import struct
import tempfile
import threading
from pathlib import Path
from typing import NamedTuple

import msgspec
import numpy as np

from pacemark.pace import Concurrency, Load
from pacemark.trace import Exchange

__all__ = [
    "CHUNK_BYTES",
    "EventLog",
    "Packed",
    "PartFile",
    "PartFiles",
    "first_part",
    "kept_apart",
    "packed",
    "part_path",
]

APART_STREAMS = 20_000
"""Streams up to which the coordinating process takes every event while a level runs."""
CHUNK_BYTES = 2 << 20
"""What one answer holds at the most of a machine's events."""
_BUFFER_BYTES = 1 << 20
_HEAD = struct.Struct("<4sqq4I")
"""Before the events of a request: that it is a record, level, index, and how many bytes each of its columns has."""
_MAGIC = b"evts"
_NAME = re.compile(r"events-(\d+)\.bin")


class Packed(NamedTuple):
    """The event arrays of a request as they are stored, little-endian."""

    hi_ns: bytes
    """int64, as is the next."""
    lo_ns: bytes | None
    """None where it equals `hi_ns`."""
    tokens: bytes | None
    """float32; None where the output tokens spread evenly over the events."""
    lag_ns: bytes
    """int32."""


def packed(x: Exchange) -> Packed:
    """The event arrays of a request."""
    even = bool(np.all(x.tokens == x.tokens[0])) if len(x.tokens) else True
    exact = bool(np.array_equal(x.hi_ns, x.lo_ns))
    return Packed(
        x.hi_ns.astype("<i8").tobytes(),
        None if exact else x.lo_ns.astype("<i8").tobytes(),
        None if even else x.tokens.astype("<f4").tobytes(),
        x.lag_ns.astype("<i4").tobytes(),
    )


def kept_apart(load: Load, latency_s: float) -> bool:
    """Whether a load is so high that its events are kept apart; in the open loop by Little's law."""
    return load.value * (1 if isinstance(load, Concurrency) else latency_s) > APART_STREAMS


def part_path(folder: Path, number: int) -> Path:
    """Where a part file stands in a run folder."""
    return folder / f"events-{number}.bin"


def first_part(folder: Path) -> int:
    """The first number that no part file in `folder` has: a run that is gone on with has new machines."""
    found = (_NAME.fullmatch(path.name) for path in folder.glob("events-*.bin"))
    return 1 + max((int(name[1]) for name in found if name), default=-1)


class EventLog:
    """What one machine keeps: a file without a name, which is gone with the process."""

    def __init__(self) -> None:
        self._file = tempfile.TemporaryFile(buffering=_BUFFER_BYTES)  # noqa: SIM115
        self._end = 0
        self._lock = threading.Lock()  # one thread writes, another reads

    def put(self, x: Exchange, part: int) -> Exchange:
        """Keep the events of `x`, for the part file of that number; gives it in outline. Raises OSError."""
        columns = [column or b"" for column in packed(x)]
        record = b"".join([_HEAD.pack(_MAGIC, x.level, x.index, *map(len, columns)), *columns])
        with self._lock:
            place = self._end
            self._file.write(record)
            self._end += len(record)
        return msgspec.structs.replace(_outline(x), part=part, place=place)

    def read(self, start: int) -> bytes:
        """What was written from `start` on, `CHUNK_BYTES` at the most."""
        with self._lock:
            self._file.flush()
            return os.pread(self._file.fileno(), CHUNK_BYTES, start)

    def close(self) -> None:
        """Let go of it."""
        self._file.close()


def _outline(x: Exchange) -> Exchange:
    hi_ns, lo_ns, tokens = x.hi_ns, x.lo_ns, x.tokens
    if len(hi_ns) > 2:
        hi_ns, lo_ns = hi_ns[[0, -1]], lo_ns[[0, -1]]
        tokens = np.asarray([tokens[0], tokens[1:].sum(dtype=np.float64)], np.float32)
    return msgspec.structs.replace(x, hi_ns=hi_ns, lo_ns=lo_ns, tokens=tokens, lag_ns=x.lag_ns[:0])


class PartFile:
    """A part file in a run folder."""

    def __init__(self, path: Path) -> None:
        """One that is not there holds nothing."""
        self._data: mmap.mmap | bytes = b""
        if path.is_file() and path.stat().st_size:
            with path.open("rb") as file:
                self._data = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)

    def events(self, level: int, index: int, place: int) -> Packed | None:
        """The events of a request; None where the file does not hold them whole."""
        start = place + _HEAD.size
        if start > len(self._data):
            return None
        magic, *whose, hi, lo, tokens, lag = _HEAD.unpack_from(self._data, place)
        lo, tokens, lag = (hi := start + hi) + lo, hi + lo + tokens, hi + lo + tokens + lag  # where each ends
        if magic != _MAGIC or whose != [level, index] or lag > len(self._data):
            return None
        data = self._data
        return Packed(data[start:hi], data[hi:lo] or None, data[lo:tokens] or None, data[tokens:lag])


class PartFiles:
    """Those of a run folder, as they stand now."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._open: dict[int, PartFile] = {}

    def whole(
        self, outline: Packed, part: int, place: int, level: int, index: int, events: int, output_tokens: int
    ) -> tuple[Packed, bool]:
        """The events of a request in outline, and whether all of them are known: what is missing is drawn."""
        if part not in self._open:
            self._open[part] = PartFile(part_path(self._folder, part))
        found = self._open[part].events(level, index, place)
        if found is not None and len(found.hi_ns) == 8 * events:
            return found, True
        return (outline, True) if events <= 2 else (_drawn(outline, events, output_tokens), False)


def _drawn(outline: Packed, events: int, output_tokens: int) -> Packed:
    """As many events evenly between the first and the last, which are known."""
    first_ns, last_ns = np.frombuffer(outline.hi_ns, "<i8").tolist()
    hi_ns = first_ns + np.arange(events) * (last_ns - first_ns) // (events - 1)
    lo_ns = hi_ns.copy()
    lo_ns[[0, -1]] = np.frombuffer(outline.lo_ns or outline.hi_ns, "<i8")
    both = np.frombuffer(outline.tokens, "<f4") if outline.tokens else np.full(2, output_tokens / 2)
    tokens = np.full(events, both[1] / (events - 1), "<f4")
    tokens[0] = both[0]
    return Packed(hi_ns.tobytes(), lo_ns.tobytes() if outline.lo_ns else None, tokens.tobytes(), outline.lag_ns)
