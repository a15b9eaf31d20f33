"""The run folder: written while the run goes on, read back by everything that reports.

`run.json` says what was run, `run.db` holds every request, `summary.json` the figures, `report.html` the report.
Nothing secret is written to any of them.
"""

from __future__ import annotations

import contextlib
import datetime
import re
import sqlite3
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
import numpy as np

from pacemark.errors import BadInput
from pacemark.exchange import ABSENT, Exchange
from pacemark.loadgen import Beat
from pacemark.metrics import Window
from pacemark.pace import Load
from pacemark.summary import EndedBy, Summary

_TABLES = """
CREATE TABLE level (level INTEGER PRIMARY KEY, load TEXT, begun_ns INTEGER, window_start_ns INTEGER,
  window_end_ns INTEGER, ended_by TEXT, died TEXT);
CREATE TABLE request (level INTEGER, idx INTEGER, stream INTEGER, scheduled_ns INTEGER, first_byte_sent_ns INTEGER,
  sent_ns INTEGER, send_ns INTEGER, headers_ns INTEGER, first_event_ns INTEGER, answer_ns INTEGER, ended_ns INTEGER,
  connect_ns INTEGER, status INTEGER, error TEXT, detail TEXT, finish_reason TEXT, asked_tokens INTEGER,
  input_tokens INTEGER, cached_tokens INTEGER, output_tokens INTEGER, tokens_source TEXT, events INTEGER,
  coalesced_reads INTEGER, hi_ns BLOB, lo_ns BLOB, tokens BLOB, lag_ns BLOB);
CREATE TABLE health (level INTEGER, worker INTEGER, now_ns INTEGER, in_flight INTEGER, reads INTEGER,
  cpu_ns INTEGER, wait_ns INTEGER, idle_share REAL, stall_ns INTEGER, reconnects INTEGER);
"""
_PLAIN = (
    "level index stream scheduled_ns first_byte_sent_ns sent_ns send_ns headers_ns first_event_ns answer_ns ended_ns "
    "connect_ns status error detail finish_reason asked_tokens input_tokens cached_tokens output_tokens "
    "tokens_source"
).split()
_INSERT = f"INSERT INTO request VALUES ({','.join('?' * (len(_PLAIN) + 6))})"
_BEAT = "level worker now_ns in_flight reads cpu_ns wait_ns idle_share stall_ns reconnects".split()
COMMIT_S = 0.5


class StoredLevel(NamedTuple):
    """A level as it stands in `run.db`. The window is empty where the level was cut off before it."""

    level: int
    load: Load
    window: Window
    ended_by: EndedBy
    died: tuple[str, ...]
    """The workers that ended while it ran."""


class RunFolder:
    """One run on disk. Event times are packed little-endian int64; a NULL `lo_ns` equals `hi_ns`, and NULL
    `tokens` means that the output tokens spread evenly over the events."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._db = sqlite3.connect(path / "run.db", isolation_level=None)
        self._committed_s = 0.0

    @classmethod
    def create(cls, out: Path, slug: str, run: dict[str, Any]) -> RunFolder:
        """A new folder `<utc-time>-<slug>` under `out`. Raises BadInput where it cannot be made."""
        now = datetime.datetime.now(datetime.UTC)
        name = f"{now:%Y%m%dT%H%M%SZ}-{re.sub(r'[^a-zA-Z0-9.]+', '-', slug).strip('-.').lower()[:40] or 'run'}"
        try:
            for attempt in range(100):
                path = out / (name if not attempt else f"{name}-{attempt + 1}")
                try:
                    path.mkdir(parents=True)
                    break
                except FileExistsError:
                    if not out.is_dir():
                        raise
            folder = cls(path)
            folder.write_run(run)
            folder._db.execute("PRAGMA journal_mode=WAL")
            folder._db.execute("PRAGMA synchronous=NORMAL")
            folder._db.executescript(_TABLES)
        except (OSError, sqlite3.Error) as error:
            reason = error.strerror if isinstance(error, OSError) else str(error)
            raise BadInput(f"--out {out}: cannot write there ({reason}); name a folder you may write to") from None
        folder._db.execute("BEGIN")
        return folder

    @classmethod
    def open(cls, path: Path) -> RunFolder:
        """An existing run; `path` may also be a folder of runs, whose newest is taken. Raises BadInput."""
        if not (path / "run.json").exists():
            runs = sorted(p.parent for p in path.glob("*/run.json")) if path.is_dir() else []
            if not runs:
                raise BadInput(f"{path} is no run: there is no run.json in it; runs are stored below ./runs")
            path = runs[-1]
        if not (path / "run.db").is_file():
            raise BadInput(f"{path} is no whole run: there is no run.db in it")
        folder = cls(path)
        try:
            folder._db.execute("SELECT count(*) FROM level").fetchone()
        except sqlite3.Error as error:
            folder.close()
            raise BadInput(f"{path}/run.db cannot be read: {error}") from None
        return folder

    # --- writing

    def write_run(self, run: dict[str, Any]) -> None:
        """Write `run.json`."""
        (self.path / "run.json").write_bytes(msgspec.json.format(msgspec.json.encode(run), indent=2) + b"\n")

    def begin_level(self, level: int, load: Load, begun_ns: int) -> None:
        """Note that a level has begun."""
        row = (level, msgspec.json.encode(load).decode(), begun_ns)
        self._db.execute("INSERT INTO level (level, load, begun_ns) VALUES (?, ?, ?)", row)

    def set_window(self, level: int, window: Window, ended_by: str = "interrupted", died: tuple[str, ...] = ()) -> None:
        """Note the window of a level: as planned when it opens, and as it was when it has closed."""
        row = (window.start_ns, window.end_ns, ended_by, "\n".join(died), level)
        self._db.execute(
            "UPDATE level SET window_start_ns = ?, window_end_ns = ?, ended_by = ?, died = ? WHERE level = ?", row
        )

    def add(self, x: Exchange) -> None:
        """Keep one request."""
        even = bool(np.all(x.tokens == x.tokens[0])) if len(x.tokens) else True
        exact = bool(np.array_equal(x.hi_ns, x.lo_ns))
        self._db.execute(
            _INSERT,
            (
                *(getattr(x, name) for name in _PLAIN),
                len(x.hi_ns),
                x.coalesced_reads,
                x.hi_ns.astype("<i8").tobytes(),
                None if exact else x.lo_ns.astype("<i8").tobytes(),
                None if even else x.tokens.astype("<f4").tobytes(),
                x.lag_ns.astype("<i4").tobytes(),
            ),
        )

    def add_beat(self, beat: Beat) -> None:
        """Keep one pulse of a worker."""
        row = [getattr(beat, name) for name in _BEAT]
        self._db.execute(f"INSERT INTO health VALUES ({','.join('?' * len(_BEAT))})", row)

    def commit(self, at_once: bool = False) -> None:
        """Make what was added last, at most every COMMIT_S seconds unless `at_once`."""
        now = time.monotonic()
        if at_once or now - self._committed_s >= COMMIT_S:
            self._db.execute("COMMIT")
            self._db.execute("BEGIN")
            self._committed_s = now

    def write_summary(self, summary: Summary) -> None:
        """Write `summary.json`."""
        (self.path / "summary.json").write_bytes(msgspec.json.format(msgspec.json.encode(summary), indent=2) + b"\n")

    def close(self) -> None:
        """Commit, fold the write-ahead log into the database and let go of it."""
        if self._db.in_transaction:
            self._db.execute("COMMIT")
            with contextlib.suppress(sqlite3.OperationalError):  # someone reads it; the log then stays beside it
                self._db.execute("PRAGMA journal_mode=DELETE")
        self._db.close()

    # --- reading

    def run(self) -> dict[str, Any]:
        """`run.json`."""
        return msgspec.json.decode((self.path / "run.json").read_bytes(), type=dict[str, Any])

    def summary(self) -> Summary:
        """`summary.json`. Raises BadInput where the run has none."""
        try:
            return msgspec.json.decode((self.path / "summary.json").read_bytes(), type=Summary)
        except OSError:
            raise BadInput(f"{self.path} was cut off before its summary; rebuild it with pacemark report") from None
        except msgspec.DecodeError as error:
            raise BadInput(f"{self.path}/summary.json is not of a schema this version reads: {error}") from None

    def levels(self) -> list[StoredLevel]:
        """Every level begun, in order."""
        rows = self._db.execute(
            "SELECT level, load, window_start_ns, window_end_ns, ended_by, died FROM level ORDER BY level"
        )
        return [
            StoredLevel(
                level,
                msgspec.json.decode(load, type=Load),
                Window(start or 0, end or 0),
                ended_by or "interrupted",
                tuple((died or "").splitlines()),
            )
            for level, load, start, end, ended_by, died in rows
        ]

    def beats(self, level: int) -> list[Beat]:
        """The pulses of the workers while a level ran."""
        rows = self._db.execute(f"SELECT {', '.join(_BEAT)} FROM health WHERE level = ? ORDER BY now_ns", (level,))
        return [Beat(**dict(zip(_BEAT, row, strict=True)), oldest_ns=ABSENT, turned=0, idle=False) for row in rows]

    def exchanges(self, level: int) -> Iterator[Exchange]:
        """The requests of a level, in the order they ended."""
        columns = ", ".join("idx" if name == "index" else name for name in _PLAIN)
        rows = self._db.execute(
            f"SELECT {columns}, coalesced_reads, hi_ns, lo_ns, tokens, lag_ns FROM request WHERE level = ?", (level,)
        )
        for *plain, coalesced, hi, lo, tokens, lag in rows:
            fields = dict(zip(_PLAIN, plain, strict=True))
            hi_ns = np.frombuffer(hi, "<i8")
            spread = np.full(len(hi_ns), fields["output_tokens"] / max(1, len(hi_ns)), np.float32)
            yield Exchange(
                **fields,
                hi_ns=hi_ns,
                lo_ns=hi_ns if lo is None else np.frombuffer(lo, "<i8"),
                tokens=spread if tokens is None else np.frombuffer(tokens, "<f4"),
                lag_ns=np.frombuffer(lag, "<i4"),
                coalesced_reads=coalesced,
            )
