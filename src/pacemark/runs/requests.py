"""The requests of a run, with their events: a table of `run.db`.

Event times are packed little-endian int64; a NULL `lo_ns` equals `hi_ns`, and NULL `tokens` means that the output
tokens spread evenly over the events. Where `place` is not below 0, those are the first event and the last alone: all
stand in the part file of the number `part` (`pacemark.instrument.apart`), and are put back when a level is read.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from pacemark.instrument.apart import Packed, PartFiles, packed
from pacemark.trace import PER_REQUEST, TYPES, Exchange, Int64, Trace

__all__ = ["RequestTable"]


def _column(name: str) -> str:
    """A field's column: SQL keeps `index` for itself."""
    return "idx" if name == "index" else name


_PACKED = Packed._fields
"""Arrays of a request, each a blob."""
_FIELDS = {f.name: f for f in msgspec.structs.fields(Exchange) if f.name not in _PACKED}
"""The plain fields of a request: each is a column."""
_COLUMNS = [(_column(name), f.type) for name, f in _FIELDS.items()]
_TYPES = {int: "INTEGER", bool: "INTEGER", float: "REAL", str: "TEXT"}
_REQUEST = ", ".join([*(f"{name} {_TYPES[kind]}" for name, kind in _COLUMNS), *(f"{name} BLOB" for name in _PACKED)])
_NAMES = [*(name for name, _ in _COLUMNS), *_PACKED]
_HERE = "length(hi_ns) / 8"
"""How many events of a request are in the table. The column `events` says how many it has."""
_EVENTS = f"CASE WHEN place >= 0 THEN events ELSE {_HERE} END"
_INSERT = f"INSERT INTO request ({', '.join(_NAMES)}) VALUES ({', '.join('?' * len(_NAMES))})"
_BLOCK = 10_000
"""Rows that are fetched at once."""


class RequestTable:
    """The table, in an open database, and the part files beside that."""

    def __init__(self, db: sqlite3.Connection, folder: Path) -> None:
        self._db, self._folder = db, folder
        self._spans: tuple[int, dict[int, tuple[int, int]]] | None = None
        """After how many changes it was read, and for each level its first and last request."""

    def create(self) -> None:
        """Make it, where it is not there; give one that an older version made the columns that this one stores: its
        rows have the defaults."""
        there = {row[1] for row in self._db.execute("PRAGMA table_info(request)")}
        if not there:
            self._db.execute(f"CREATE TABLE request ({_REQUEST})")
            return
        for name, field in _FIELDS.items():
            if _column(name) not in there:
                default = f"'{field.default}'" if isinstance(field.default, str) else int(field.default)
                self._db.execute(
                    f"ALTER TABLE request ADD COLUMN {_column(name)} {_TYPES[field.type]} DEFAULT {default}"
                )

    def add(self, x: Exchange) -> None:
        """Keep one request."""
        self._db.execute(_INSERT, (*(getattr(x, name) for name in _FIELDS), *packed(x)))

    def trace(self, level: int, *, open_loop: bool = False) -> Trace:
        """A level's requests, read straight into columns, without an object for each."""
        column = self._columns(level)
        lost: list[int] = []
        rows = self._put_back(level, column, lost)
        column["outlined"] = np.zeros(len(column["events"]), np.bool_)
        order = np.argsort(column["sent_ns"], kind="stable")
        column = {name: values[order] for name, values in column.items()}
        counts, output = column["events"], column["output_tokens"]
        offsets = np.concatenate([[0], np.cumsum(counts)]).astype(np.int64)
        place = np.empty(len(order), np.int64)
        place[order] = np.arange(len(order))
        tokens = np.repeat((output / np.maximum(1, counts)).astype(np.float32), counts)
        hi_ns, bounds_ns, lag_ns = _events(rows, offsets[place], tokens)
        column["outlined"][place[lost]] = True
        known: dict[str, Any] = {n: column[n].astype(_KINDS[n], copy=False) for n in PER_REQUEST if n in column}
        return Trace(
            **known,
            tokens_from_usage=column["tokens_source"] == "usage",
            tokens_from_events=column["tokens_source"] == "events",
            offsets=offsets,
            hi_ns=hi_ns,
            lo_ns=hi_ns if bounds_ns is None else bounds_ns,
            tokens=tokens,
            open_loop=open_loop,
            exact=bounds_ns is None,
            lag_ns=lag_ns,
            refusals=tuple(self._refusals(level)) if (known["error"] == "http_429").any() else (),
        )

    def _columns(self, level: int) -> dict[str, NDArray[Any]]:
        """The plain columns of a level and how many events each has, in the order in which the requests ended.

        What a run did not store yet when it was written has the field's own default.
        """
        stored = {row[1] for row in self._db.execute("PRAGMA table_info(request)")}
        wanted = [name for name in (*PER_REQUEST, "tokens_source", "part", "place") if name in _FIELDS]
        kinds: dict[str, type] = {"events": int} | {n: _FIELDS[n].type for n in wanted if _column(n) in stored}
        asked = {"events": _EVENTS if "place" in stored else _HERE}
        words: dict[str, dict[str, int]] = {name: {} for name, kind in kinds.items() if kind is str}
        parts: dict[str, list[NDArray[Any]]] = {name: [] for name in kinds}
        found = self._rows(level, ", ".join(asked.get(name, _column(name)) for name in kinds))
        for block in iter(lambda: found.fetchmany(_BLOCK), []):
            for (name, kind), values in zip(kinds.items(), zip(*block, strict=True), strict=True):
                known = words.get(name)
                codes = values if known is None else [known.setdefault(word, len(known)) for word in values]
                parts[name].append(np.asarray(codes, np.float64 if kind is float else np.int64))
        count = sum(map(len, parts["events"]))
        column = {name: np.concatenate(part or [np.zeros(0, np.int64)]) for name, part in parts.items()}
        column |= {name: np.asarray(list(known), np.str_)[column[name]] for name, known in words.items()}
        return column | {n: np.full(count, _FIELDS[n].default) for n in wanted if n not in column}

    def _rows(self, level: int, columns: str, more: str = "") -> sqlite3.Cursor:
        """The requests of a level, in the order in which they ended. They lie together, so that the first and the last
        are looked for once, and not the whole file read for every level."""
        changes = self._db.total_changes
        if self._spans is None or self._spans[0] != changes:
            spans = self._db.execute("SELECT level, min(rowid), max(rowid) FROM request GROUP BY level")
            self._spans = (changes, {number: (first, last) for number, first, last in spans})
        asked = f"SELECT {columns} FROM request WHERE rowid BETWEEN ? AND ? AND level = ? {more} ORDER BY rowid"
        return self._db.execute(asked, (*self._spans[1].get(level, (1, 0)), level))

    def _refusals(self, level: int) -> list[str]:
        """What was said with each 429."""
        return [detail for (detail,) in self._rows(level, "detail", "AND error = 'http_429'")]

    def _put_back(self, level: int, column: dict[str, NDArray[Any]], lost: list[int]) -> Iterator[Any]:
        """The events of the requests of a level, in the order of the columns; to `lost` goes which are not all known,
        for a part file is missing or cut off."""
        rows = self._rows(level, ", ".join(_PACKED))
        if (column["place"] < 0).all():
            return rows
        files = PartFiles(self._folder)
        which = zip(*(column[name].tolist() for name in _KEY), strict=True)

        def whole(n: int, row: Any, part: int, place: int, *key: int) -> Any:
            found, known = files.whole(Packed._make(row), part, place, level, *key) if place >= 0 else (row, True)
            lost.extend([] if known else [n])
            return found

        return (whole(n, row, *key) for n, (row, key) in enumerate(zip(rows, which, strict=False)))

    def output(self, levels: tuple[int, int]) -> Iterator[tuple[Int64, NDArray[np.float64]]]:
        """Events of the answered requests from the first of `levels` to the last, a block at a time: when, and how many
        tokens."""
        stored = {row[1] for row in self._db.execute("PRAGMA table_info(request)")}
        key = "part, place, level, idx, events" if "place" in stored else "-1, -1"
        chosen = "level BETWEEN ? AND ? AND error = ''"
        asked = f"SELECT {', '.join(_PACKED)}, {key}, output_tokens FROM request WHERE {chosen}"
        rows, files = self._db.execute(asked, levels), PartFiles(self._folder)
        for block in iter(lambda: rows.fetchmany(_BLOCK), []):
            found = [files.whole(Packed(*row[:4]), *row[4:])[0] if row[5] >= 0 else row[:4] for row in block]
            counts = np.asarray([len(hi) // 8 for hi, *_ in found])
            shares = np.asarray([row[-1] for row in block]) / np.maximum(1, counts)
            tokens = np.repeat(shares, counts)
            starts = np.cumsum(counts) - counts
            for start, count, (_, _, uneven, _) in zip(starts.tolist(), counts.tolist(), found, strict=True):
                if uneven is not None:
                    tokens[start : start + count] = np.frombuffer(uneven, "<f4")
            yield np.frombuffer(b"".join(hi for hi, *_ in found), "<i8"), tokens


_KEY = ("part", "place", "index", "events", "output_tokens")
"""What it takes to find the events of a request in a part file."""
_KINDS = TYPES | {"outlined": np.bool_}


def _events(
    rows: Iterator[Any], starts: Int64, tokens: NDArray[np.float32]
) -> tuple[Int64, Int64 | None, NDArray[np.int32]]:
    """Event times of a level and the lag of its reads; `starts` says where the events of each row go. Uneven
    `tokens` are put in their place. The earlier bounds are None where every time is exact."""
    hi_ns, lags = np.empty(len(tokens), "<i8"), bytearray()
    lo_ns: Int64 | None = None
    into_hi = into_lo = hi_ns.view(np.uint8).data  # bytes into bytes: an array for each row takes longer
    for start, (hi, lo, uneven, lag) in zip(starts.tolist(), rows, strict=False):
        begin, end = 8 * start, 8 * start + len(hi)
        into_hi[begin:end] = hi
        if lo is not None and lo_ns is None:
            lo_ns = hi_ns.copy()
            into_lo = lo_ns.view(np.uint8).data
        if lo_ns is not None:
            into_lo[begin:end] = hi if lo is None else lo
        if uneven is not None:
            tokens[start : start + len(hi) // 8] = np.frombuffer(uneven, "<f4")
        lags += lag
    return hi_ns, lo_ns, np.frombuffer(lags, "<i4")
