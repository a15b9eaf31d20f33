"""A row of a file of traffic: what it asks, how long, when; and the rows of a file, which never stand in memory.

`Rows` keep an index of where each row lies: in the file itself where it can be read again from there (plain lines),
else in a copy in a folder of their own, which goes when they do. Sent to another process they read the same.
"""

from __future__ import annotations

import hashlib
import math
import os
import shutil
import struct
import tempfile
import weakref
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, BinaryIO

import msgspec
import numpy as np
from numpy.typing import NDArray

from pacemark.errors import BadInput

__all__ = ["Decode", "FileFound", "LeftOut", "Row", "Rows", "Writing", "turn_of", "turns"]


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
    answer: str | None = None
    """What was answered then."""


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
    input_tokens: float | None = None
    """Mean, of the rows that say it."""
    output_tokens: float | None = None
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


_PLACE = struct.Struct("<qqIII")
_PLACES = np.dtype([("offset", "<i8"), ("length", "<i8"), ("number", "<u4"), ("part", "<u4"), ("turn", "<u4")])
"""Where a row's bytes lie, its number, which turn of the conversation in those bytes it is (from 1; 0: none), and its
place in a session whose rows lie apart."""

Decode = Callable[[bytes, int], Row]
"""From a row's bytes and its number; a whole conversation is one row with all its messages."""


class Rows:
    """The rows of a file, in its order. `rows[k]` and `for row in rows` read from disk; `len(rows)` is how many.

    Raises IndexError where there is no row k, and OSError where the file has gone since.
    """

    def __init__(self, found: FileFound, file: Path, folder: Path, decode: Decode, origin_ms: float = 0.0) -> None:
        """`folder` holds what is known of every row beside its bytes."""
        self.found = found
        self._file, self._folder, self._decode, self._origin_ms = file, folder, decode, origin_ms
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

    @property
    def conversations(self) -> bool:
        """Whether rows are turns of conversations that stand in the file as a whole."""
        place = os.pread(self._files()[1], _PLACE.size, 0)
        return bool(_PLACE.unpack(place)[3])

    def times_ms(self) -> NDArray[np.float64]:
        """When each row (n,) came, since the first; NaN where the file does not say."""
        return np.asarray(np.memmap(self._folder / "times", dtype="<f8", mode="r")) - self._origin_ms

    def sessions(self) -> NDArray[np.uint64]:
        """Of which session each row (n,) is, as a number that tells sessions apart; 0 for a row of none."""
        return np.asarray(np.memmap(self._folder / "sessions", dtype="<u8", mode="r"))

    def keep(self, name: str, column: NDArray[Any]) -> None:
        """Keep a column of numbers beside the rows, for whoever reads them in another process."""
        np.save(self._folder / f"{name}.npy", column)

    def kept(self, name: str) -> NDArray[Any] | None:
        """A column that was kept; None if it was not."""
        path = self._folder / f"{name}.npy"
        return np.load(path, mmap_mode="r") if path.exists() else None

    def _row(self, file: int, place: bytes) -> Row:
        offset, length, number, part, turn = _PLACE.unpack(place)
        row = self._decode(os.pread(file, length, offset), number)
        if part:
            row = turn_of(row, part - 1)
        if self._origin_ms and row.at_ms is not None:
            row = msgspec.structs.replace(row, at_ms=row.at_ms - self._origin_ms)
        return msgspec.structs.replace(row, turn=turn) if turn else row

    def _files(self) -> tuple[int, int]:
        if self._process != os.getpid():  # never opened, or by the process that this one was forked from
            self._fds = _opened(self._file), _opened(self._folder / "index")
            self._process = os.getpid()
            weakref.finalize(self, _close, self._process, self._fds)
        return self._fds

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_process": 0}


def turns(messages: Sequence[dict[str, Any]]) -> list[int]:
    """Where each request of a conversation ends: after the last message before an answer, before the user speaks
    again without one, or at the end."""
    roles = [str(message.get("role")) for message in messages]
    after = [*roles[1:], "assistant"][: len(roles)]
    ends = [
        k + 1
        for k, (role, then) in enumerate(zip(roles, after, strict=True))
        if role != "assistant" and (then == "assistant" or role == then == "user")
    ]
    first = next((k for k, role in enumerate(roles) if role not in ("assistant", "system", "developer")), len(roles))
    return [end for end in ends if end > first]


def turn_of(row: Row, turn: int) -> Row:
    """The request `turn` of a conversation: all messages before its answer, and the answer as it was recorded."""
    messages = row.messages or []
    end = turns(messages)[turn]
    then = messages[end] if end < len(messages) else {}
    answer = then.get("content") if then.get("role") == "assistant" else None
    return msgspec.structs.replace(
        row, messages=messages[:end], turn=turn, answer=answer if isinstance(answer, str) else None
    )


def _opened(path: Path) -> int:
    return os.open(path, os.O_RDONLY | os.O_CLOEXEC)


def _close(process: int, files: tuple[int, int]) -> None:
    if process == os.getpid():
        for file in files:
            os.close(file)


class Writing:
    """Rows that are being found: `add` each, then `done`. With `file`, rows are read again from there."""

    def __init__(self, found: FileFound, file: Path | None = None, decode: Decode | None = None) -> None:
        self.found = found
        self._folder = Path(tempfile.mkdtemp(prefix="pacemark-rows-"))  # for this user's eyes only
        self._kept = (self._folder / "rows").open("wb") if file is None else None
        self._index = (self._folder / "index").open("wb")
        self._sessions = (self._folder / "sessions").open("wb")
        self._times = (self._folder / "times").open("wb")
        self._clean = weakref.finalize(self, _abandon, os.getpid(), self._folder, *self._all())
        self._lengths = _Means()
        self._file, self._decode = file or self._folder / "rows", decode or _unpacked
        self._end, self._session, self.sorting = 0, False, False

    def _all(self) -> Iterator[BinaryIO]:
        yield from (file for file in (self._kept, self._index, self._sessions, self._times) if file is not None)

    def add(
        self, row: Row, offset: int = 0, length: int = 0, *, parts: int = 0, to_sort: bool = False, counted: bool = True
    ) -> None:
        """Take a row, or the `parts` turns of a conversation.

        `offset` and `length` tell its bytes in the file, where that is read again; `counted`, that the rows of its
        session are to be counted, since the file does not.
        """
        if self._kept is not None:
            packed = _packed(row)
            offset, length = self._end, len(packed)
            self._end += self._kept.write(packed)
        # A conversation stands in its row as a whole: another of the same id does not go on with it.
        session = f"row {row.number}" if parts else row.session
        for part in range(1, parts + 1) if parts else (0,):
            self._index.write(_PLACE.pack(offset, length, row.number, part, 0))
            self._session |= row.session is not None and not parts and counted
            self._sessions.write(_NOBODY if session is None else _hashed(session))
            self._times.write(_TIME.pack(math.nan if row.at_ms is None else row.at_ms))
        self.sorting |= to_sort
        self.found.rows += parts or 1
        self._lengths.add(row, parts or 1)

    def done(self) -> Rows:
        """The rows, in order of time where they were to be sorted; those of one session are counted from 0.

        Their folder goes with the last reference to them, at the latest as this process ends.
        """
        self._clean.detach()
        for file in self._all():
            file.close()
        origin_ms = 0.0
        if self.found.rows and (self.sorting or self._session):
            places, sessions, times = (
                np.memmap(self._folder / name, dtype=of, mode="r+")
                for name, of in (("index", _PLACES), ("sessions", "<u8"), ("times", "<f8"))
            )
            if self.sorting:
                order = np.argsort(times, kind="stable")
                origin_ms = float(times[order[0]])
                places[:], sessions[:], times[:] = places[order], sessions[order], times[order]
            if self._session:
                _number(places, sessions)
            for column in (places, sessions, times):
                column.flush()
        self._lengths.tell(self.found)
        rows = Rows(self.found, self._file, self._folder, self._decode, origin_ms)
        weakref.finalize(rows, _remove, os.getpid(), self._folder)
        return rows


class _Means:
    """The mean lengths of the rows that say them."""

    def __init__(self) -> None:
        self._sums = [[0, 0], [0, 0]]

    def add(self, row: Row, times: int) -> None:
        for sums, tokens in zip(self._sums, (row.input_tokens, row.output_tokens), strict=True):
            if tokens is not None:
                sums[0] += times
                sums[1] += times * tokens

    def tell(self, found: FileFound) -> None:
        means = [total / rows if rows else None for rows, total in self._sums]
        found.input_tokens, found.output_tokens = means


_TIME = struct.Struct("<d")
_NOBODY = bytes(8)


def _hashed(session: str) -> bytes:
    return hashlib.blake2b(session.encode("utf-8", "surrogatepass"), digest_size=8).digest()


def _number(places: np.ndarray, sessions: np.ndarray) -> None:
    """Count the rows of every session, a sixteenth of the sessions at a time so that memory stays small."""
    for sixteenth in range(16):
        rows = np.flatnonzero((sessions >> 60 == sixteenth) & (sessions != 0))
        rows = rows[np.argsort(sessions[rows], kind="stable")]
        ids = sessions[rows]
        starts = np.flatnonzero(np.r_[True, ids[1:] != ids[:-1]])[: len(ids)]
        lengths = np.diff(np.r_[starts, len(ids)])
        places["turn"][rows] = np.arange(len(ids)) - np.repeat(starts, lengths)


_pack = msgspec.msgpack.Encoder().encode
_decoder = msgspec.msgpack.Decoder(Row)


def _packed(row: Row) -> bytes:
    try:
        return _pack(row)
    except (TypeError, ValueError, OverflowError, RecursionError) as error:
        # A number of more than 64 bits, half a character, an object: no JSON that a server would read.
        raise BadInput(f"it holds what no request can: {str(error)[:120]}") from None


def _unpacked(packed: bytes, number: int) -> Row:
    return _decoder.decode(packed)


def _remove(process: int, folder: Path) -> None:
    if process == os.getpid():
        shutil.rmtree(folder, ignore_errors=True)


def _abandon(process: int, folder: Path, *files: BinaryIO) -> None:
    for file in files:
        file.close()
    _remove(process, folder)
