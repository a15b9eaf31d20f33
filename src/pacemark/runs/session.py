"""A part of a run that one process measured: since the run was begun, or since it was resumed.

Times of two sessions have nothing to do with each other: the machine may have been started again between them, and its
clock with it. Each level is of one session.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

import msgspec
import numpy as np
from numpy.typing import NDArray

from pacemark.instrument.commands import PROBE_LEVEL
from pacemark.machine import boot_id
from pacemark.trace import Int64, Scrape, Sight

__all__ = ["Session", "begin", "sessions"]

_TABLE = "CREATE TABLE IF NOT EXISTS session (first_level INTEGER, first_sight INTEGER, boot TEXT, started TEXT)"
_SERVER = "CREATE TABLE IF NOT EXISTS server (level INTEGER, scrape TEXT)"
"""Looks at the server's metrics, by the level that ran or was about to."""
_SEARCH = "CREATE TABLE IF NOT EXISTS search (step TEXT)"
"""What a search has learned, step by step."""
_NO_END = 1 << 62
_BLOCK = 10_000
"""Rows that are fetched at once."""


class Sums(NamedTuple):
    """Requests of a session, and the tokens of those that were answered."""

    answered: int
    failed: int
    input_tokens: int | None
    """None where one answer did not say."""
    output_tokens: int
    """Shown and hidden."""


@dataclass(frozen=True, slots=True)
class Session:
    """A session as it stands in `run.db`."""

    db: sqlite3.Connection
    levels: tuple[int, int]
    """The first and the last level."""
    looks: tuple[int, int]
    """The first and the last row of the looks at the endpoint."""

    def __contains__(self, level: int) -> bool:
        return self.levels[0] <= level <= self.levels[1]

    def sights(self) -> list[Sight]:
        """Every look at the endpoint, in order; none in runs that were stored before there were any."""
        try:
            asked = "SELECT sight FROM endpoint WHERE rowid BETWEEN ? AND ? ORDER BY now_ns"
            rows = self.db.execute(asked, self.looks).fetchall()
        except sqlite3.OperationalError:
            return []
        return [msgspec.json.decode(text, type=Sight) for (text,) in rows]

    def scrapes(self) -> list[Scrape]:
        """Every look at the server's metrics, in order; none in runs that were stored before there were any."""
        try:
            asked = "SELECT scrape FROM server WHERE level BETWEEN ? AND ? ORDER BY rowid"
            rows = self.db.execute(asked, self.levels).fetchall()
        except sqlite3.OperationalError:
            return []
        return sorted((msgspec.json.decode(text, type=Scrape) for (text,) in rows), key=lambda look: look.now_ns)

    def span(self) -> tuple[int, int] | None:
        """When the first request of any level was sent, and when the last one ended; None where there are none."""
        asked = "SELECT min(sent_ns), max(ended_ns) FROM request WHERE level BETWEEN ? AND ?"
        row = self.db.execute(asked, self.levels).fetchone()
        return None if row[0] is None else (int(row[0]), int(row[1]))

    def ready_ns(self) -> int:
        """When the last request before any level ended; 0 where there were none."""
        row = self.db.execute("SELECT max(ended_ns) FROM request WHERE level = ?", (PROBE_LEVEL,)).fetchone()
        return int(row[0] or 0)

    def sums(self) -> Sums:
        """The answered requests of all levels, counted."""
        asked = (
            "SELECT sum(error = ''), sum(error != ''), min(iif(error = '', input_tokens, 0)), "
            "sum(iif(error = '', input_tokens, 0)), sum(iif(error = '', output_tokens + hidden_tokens, 0)) "
            "FROM request WHERE level BETWEEN ? AND ?"
        )
        answered, failed, least, tokens_in, tokens_out = self.db.execute(asked, self.levels).fetchone()
        return Sums(answered or 0, failed or 0, tokens_in if (least or 0) >= 0 else None, tokens_out or 0)

    def ended(self, error: str) -> Int64:
        """When each request ended that failed with `error`."""
        asked = "SELECT ended_ns FROM request WHERE level BETWEEN ? AND ? AND error = ?"
        rows = self.db.execute(asked, (*self.levels, error))
        return np.asarray([ns for (ns,) in rows], dtype=np.int64)

    def spans(self) -> Iterator[tuple[Int64, Int64, NDArray[np.bool_]]]:
        """When each request was sent and when it ended, and whether it failed; a block at a time."""
        asked = "SELECT sent_ns, ended_ns, error != '' FROM request WHERE level BETWEEN ? AND ?"
        rows = self.db.execute(asked, self.levels)
        for block in iter(lambda: rows.fetchmany(_BLOCK), []):
            sent, ended, failed = np.array(block, dtype=np.int64).T
            yield sent, ended, failed.astype(np.bool_)


def begin(db: sqlite3.Connection, first_level: int, now: str) -> None:
    """Note that a session begins, on this start of the machine."""
    for table in (_TABLE, _SERVER, _SEARCH):
        db.execute(table)
    if first_level and not db.execute("SELECT 1 FROM session").fetchone():  # begun before sessions were noted
        db.execute("INSERT INTO session VALUES (0, 1, '', '')")
    (looks,) = db.execute("SELECT coalesce(max(rowid), 0) FROM endpoint").fetchone()
    db.execute("INSERT INTO session VALUES (?, ?, ?, ?)", (first_level, looks + 1, boot_id(), now))


def sessions(db: sqlite3.Connection) -> list[Session]:
    """The sessions of a run, in order; of one that was stored before there were any, all of it."""
    try:
        begun = db.execute("SELECT first_level, first_sight FROM session ORDER BY rowid").fetchall()
    except sqlite3.OperationalError:
        begun = []
    begun = begun or [(0, 1)]
    ends = [(level - 1, look - 1) for level, look in begun[1:]] + [(_NO_END, _NO_END)]
    pairs = zip(begun, ends, strict=True)
    return [Session(db, (first[0], last[0]), (first[1], last[1])) for first, last in pairs]
