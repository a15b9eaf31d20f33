"""A row of a file of traffic: what it asks, how long, when; and the rows of a file, which never stand in memory.

`Rows` keep an index of where each row lies: in the file itself where it can be read again from there (plain lines),
else in a copy in a folder of their own, which goes when they do. Sent to another process they read the same.
"""

from __future__ import annotations

import os
import shutil
import struct
import tempfile
import weakref
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, BinaryIO

import msgspec
import numpy as np

__all__ = ["FileFound", "LeftOut", "Row", "Rows", "Writing"]


class Row(msgspec.Struct, frozen=True, omit_defaults=True):
    """One request as a file has it. What the file does not say is None or empty."""

    number: int
    """Line or row in the file, from 1."""
    prompt: str | None = None
    messages: list[dict[str, Any]] | None = None
    body: dict[str, Any] | None = None
    """A whole request as it was recorded."""
    input_tokens: int | None = None
    output_tokens: int | None = None
    at_ms: float | None = None
    """When it arrived, since the first row."""
    session: str | None = None
    turn: int = 0
    """The place in its session, from 0."""
    blocks: tuple[int, ...] = ()
    """Ids of the blocks of the prompt: the same id, the same prompt up to the end of that block."""
    block_tokens: int = 0
    """Tokens of a whole block."""


class LeftOut(msgspec.Struct):
    """Rows that were not taken, for one reason."""

    reason: str
    rows: int
    first: int
    """The number of the first of them."""


class FileFound(msgspec.Struct):
    """What a file turned out to be, and what was made of it. It holds nothing of what the rows say."""

    format: str
    keys: dict[str, str] = {}
    """What was taken from which key or column: `prompt`, `messages`, `input_tokens`, `at_ms`, `session` and so on."""
    rows: int = 0
    """Rows taken."""
    left_out: list[LeftOut] = []
    unit: str = ""
    """The unit in which the file has its times."""
    quantum_ms: float | None = None
    """The step to which its times are rounded, where one was found."""
    sampling: float | None = None
    """The share of requests that was recorded, where the file says so; the true rate is the rows' by this."""
    throttled: int = 0
    """Requests that were refused for their rate (429); the load wanted was higher than the load served."""
    said: list[str] = []
    """What else a user must know: sorted, sampled, throttled, cut."""

    def leave(self, reason: str, number: int) -> None:
        """A row that is not taken."""
        for entry in self.left_out:
            if entry.reason == reason:
                entry.rows += 1
                return
        self.left_out.append(LeftOut(reason, 1, number))


_PLACE = struct.Struct("<qqq")  # offset, length, row number


class Rows:
    """The rows of a file, in its order. `rows[k]` and `for row in rows` read from disk; `len(rows)` is how many.

    Raises IndexError where there is no row k, and OSError where the file has gone since.
    """

    def __init__(self, found: FileFound, file: Path, index: Path, decode: Callable[[bytes, int], Row]) -> None:
        self.found = found
        self._file, self._index, self._decode = file, index, decode
        self._origin_ms = 0.0
        self._process, self._fds = 0, (-1, -1)

    def __len__(self) -> int:
        return self.found.rows

    def __getitem__(self, k: int) -> Row:
        if not 0 <= k < len(self):
            raise IndexError(k)
        file, index = self._files()
        return self._row(file, os.pread(index, _PLACE.size, k * _PLACE.size))

    def __iter__(self) -> Iterator[Row]:
        file, index = self._files()
        for start in range(0, len(self), 1024):
            places = os.pread(index, 1024 * _PLACE.size, start * _PLACE.size)
            for at in range(0, len(places), _PLACE.size):
                yield self._row(file, places[at : at + _PLACE.size])

    def _row(self, file: int, place: bytes) -> Row:
        offset, length, number = _PLACE.unpack(place)
        row = self._decode(os.pread(file, length, offset), number)
        if self._origin_ms and row.at_ms is not None:
            return msgspec.structs.replace(row, at_ms=row.at_ms - self._origin_ms)
        return row

    def _files(self) -> tuple[int, int]:
        if self._process != os.getpid():  # never opened, or by the process that this one was forked from
            self._fds = _opened(self._file), _opened(self._index)
            self._process = os.getpid()
            weakref.finalize(self, _close, self._process, self._fds)
        return self._fds

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_process": 0}

    def sort(self, at_ms: np.ndarray) -> None:
        """Put the rows in the order of `at_ms`, one for each, and count times from the earliest."""
        places = np.memmap(self._index, dtype="<i8", mode="r+", shape=(len(self), 3))
        places[:] = places[np.argsort(at_ms, kind="stable")]
        places.flush()
        self._origin_ms = float(at_ms.min())


def _opened(path: Path) -> int:
    return os.open(path, os.O_RDONLY | os.O_CLOEXEC)


def _close(process: int, files: tuple[int, int]) -> None:
    if process == os.getpid():
        for file in files:
            os.close(file)


class Writing:
    """Rows that are being found: `add` each, then `done`. With `file`, rows are read again from there."""

    def __init__(self, found: FileFound, file: Path | None = None, decode: Callable[[bytes, int], Row] | None = None):
        self.found = found
        self._folder = Path(tempfile.mkdtemp(prefix="pacemark-rows-"))  # for this user's eyes only
        self._kept = (self._folder / "rows").open("wb") if file is None else None
        self._index = (self._folder / "index").open("wb")
        self._clean = weakref.finalize(self, _abandon, os.getpid(), self._folder, self._kept, self._index)
        self._file, self._decode = file or self._folder / "rows", decode or _unpacked
        self._end = 0

    def add(self, row: Row, offset: int = 0, length: int = 0) -> None:
        """Take a row; `offset` and `length` tell its bytes in the file, where that is read again."""
        if self._kept is not None:
            packed = _pack(row)
            offset, length = self._end, len(packed)
            self._end += self._kept.write(packed)
        self._index.write(_PLACE.pack(offset, length, row.number))
        self.found.rows += 1

    def done(self) -> Rows:
        """The rows. Their folder goes with the last reference to them, at the latest as this process ends."""
        self._clean.detach()
        for file in (self._kept, self._index):
            if file is not None:
                file.close()
        rows = Rows(self.found, self._file, self._folder / "index", self._decode)
        weakref.finalize(rows, _remove, os.getpid(), self._folder)
        return rows


_pack = msgspec.msgpack.Encoder().encode
_decoder = msgspec.msgpack.Decoder(Row)


def _unpacked(packed: bytes, number: int) -> Row:
    return _decoder.decode(packed)


def _remove(process: int, folder: Path) -> None:
    if process == os.getpid():
        shutil.rmtree(folder, ignore_errors=True)


def _abandon(process: int, folder: Path, *files: BinaryIO | None) -> None:
    for file in files:
        if file is not None:
            file.close()
    _remove(process, folder)
