"""What was sent and answered, word for word, in a file of its own: only where a user asked for it.

It stands beside `run.db` and not in it: what is handed on of a run (the report, MLflow's artifacts) never has it.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from pathlib import Path

from pacemark.instrument.commands import Body

__all__ = ["Verbatim"]


class Verbatim:
    """`bodies.db` of a run folder: a row per request, with the numbers that it has in `run.db`."""

    def __init__(self, folder: Path) -> None:
        self._db = sqlite3.connect(folder / "bodies.db")
        # A kill loses nothing; a power cut is no reason to wait for the disk.
        self._db.execute("PRAGMA synchronous=OFF")
        self._db.execute("CREATE TABLE IF NOT EXISTS body (level INTEGER, idx INTEGER, sent BLOB, answered BLOB)")

    def add(self, bodies: Sequence[Body]) -> None:
        """Keep the bodies of some requests."""
        with self._db:
            self._db.executemany("INSERT INTO body VALUES (?, ?, ?, ?)", bodies)

    def close(self) -> None:
        """Let go of the file."""
        self._db.close()
