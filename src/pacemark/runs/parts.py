"""What each machine was to each level of a run: a table of `run.db`, there where a run had several machines."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence

import msgspec

from pacemark.nodes import NodePart

__all__ = ["keep_parts", "parts_of"]


def keep_parts(db: sqlite3.Connection, level: int, parts: Sequence[NodePart]) -> None:
    """Keep what the machines were to a level, instead of what was kept before."""
    if parts:
        db.execute("CREATE TABLE IF NOT EXISTS node (level INTEGER, part TEXT)")
        db.execute("DELETE FROM node WHERE level = ?", (level,))
        rows = [(level, msgspec.json.encode(part).decode()) for part in parts]
        db.executemany("INSERT INTO node VALUES (?, ?)", rows)


def parts_of(db: sqlite3.Connection, level: int) -> list[NodePart]:
    """What the machines were to a level; nothing where there was but one."""
    try:
        rows = db.execute("SELECT part FROM node WHERE level = ? ORDER BY rowid", (level,)).fetchall()
    except sqlite3.OperationalError:
        return []
    return [msgspec.json.decode(part, type=NodePart) for (part,) in rows]
