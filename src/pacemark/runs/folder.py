"""The run folder: written while the run goes on, read back by everything that reports.

`run.json` says what was run, `run.db` holds every request, `summary.json` the figures, `report.html` the report.
Nothing secret is written to any of them.
"""

from __future__ import annotations

import contextlib
import datetime
import os
import re
import sqlite3
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
import numpy as np
from numpy.typing import NDArray

from pacemark.answers.step import Step
from pacemark.errors import BadInput, RunFailed
from pacemark.files import held, legible, unwritable, write_whole
from pacemark.instrument.apart import first_part
from pacemark.instrument.commands import PROBE_LEVEL, Body
from pacemark.nodes import NodePart
from pacemark.pace import Load
from pacemark.runs.parts import keep_parts, parts_of
from pacemark.runs.record import SCHEMA as RUN_SCHEMA
from pacemark.runs.requests import RequestTable
from pacemark.runs.session import Session, begin, sessions
from pacemark.runs.verbatim import Verbatim
from pacemark.summary import SCHEMA, EndedBy, Summary
from pacemark.trace import ABSENT, Beat, Exchange, Int64, Scrape, Sight, Trace, Window

_TABLES = """
CREATE TABLE level (level INTEGER PRIMARY KEY, load TEXT, begun_ns INTEGER, window_start_ns INTEGER,
  window_end_ns INTEGER, ended_by TEXT, died TEXT);
CREATE TABLE health (level INTEGER, worker INTEGER, now_ns INTEGER, in_flight INTEGER, reads INTEGER,
  cpu_ns INTEGER, wait_ns INTEGER, idle_share REAL, stall_ns INTEGER, reconnects INTEGER,
  throttled_ns INTEGER);
CREATE TABLE endpoint (now_ns INTEGER, sight TEXT);
"""


_BEAT = "level worker now_ns in_flight reads cpu_ns wait_ns idle_share stall_ns reconnects throttled_ns".split()
COMMIT_S = 0.5
_TRIES = 20


class StoredLevel(NamedTuple):
    """A level as it stands in `run.db`. The window is empty where the level was cut off before it."""

    level: int
    load: Load
    window: Window
    ended_by: EndedBy
    died: tuple[str, ...]
    """The workers that ended while it ran."""


class RunFolder:
    """One run on disk."""

    def __init__(self, path: Path, lock: int | None = None) -> None:
        """`lock`: what `held` gave, where this process is to write."""
        self.path = path
        self._db = sqlite3.connect(path / "run.db", isolation_level=None)
        self._requests = RequestTable(self._db, path)
        self._committed_s = 0.0
        self._run: dict[str, Any] = {}
        self._lock = lock
        self._bodies: Verbatim | None = None
        self._first_level = 0
        self.first_part = 0
        """Of the part files of the session that writes."""

    @classmethod
    def create(cls, out: Path, slug: str, run: dict[str, Any]) -> RunFolder:
        """A new folder `<utc-time>-<slug>` under `out`. Raises BadInput where `out` is no place for one, RunFailed
        where nothing may be written there."""
        name = folder_name(slug)
        try:
            for attempt in range(100):
                path = out / (name if not attempt else f"{name}-{attempt + 1}")
                try:
                    out.mkdir(parents=True, exist_ok=True)
                    path.mkdir(mode=0o700)  # what a server said is nobody else's
                    break
                except FileExistsError:
                    if not out.is_dir():
                        raise
            folder = cls(path, held(path))
            folder.write_run(run)
            folder._write_on()
            folder.begin_session()
            return folder
        except (OSError, sqlite3.Error) as error:
            refused = unwritable(out, error)
        raise refused  # out here, for what failed says already what to do

    def _write_on(self) -> None:
        """Get ready to write; what was not committed when the last writer was killed never was."""
        self._db.execute("PRAGMA journal_mode=WAL")
        self._db.execute("PRAGMA synchronous=NORMAL")
        self._db.execute("BEGIN")
        if not self._db.execute("SELECT 1 FROM sqlite_master WHERE name = 'level'").fetchone():
            for statement in _TABLES.split(";")[:-1]:
                self._db.execute(statement)
        self._requests.create()
        there = {row[1] for row in self._db.execute("PRAGMA table_info(health)")}
        for name in _BEAT:  # of which an older version knew less
            if name not in there:
                self._db.execute(f"ALTER TABLE health ADD COLUMN {name} INTEGER DEFAULT 0")
        self.commit(at_once=True)

    @classmethod
    def again(cls, path: Path) -> RunFolder:
        """An existing run, to be gone on with. Raises BadInput as `open` does, and where another process writes it."""
        path = _whole(_newest(path))
        folder = cls(path, held(path))
        try:
            folder._write_on()
        except (sqlite3.Error, ValueError) as error:  # SQLite names what is in it, and that need not be UTF-8
            folder.close()
            raise BadInput(f"{folder.path}/run.db cannot be written: {error}") from None
        return folder

    @classmethod
    def open(cls, path: Path) -> RunFolder:
        """An existing run; `path` may also be a folder of runs, whose newest is taken. Raises BadInput."""
        path = _whole(_newest(path))
        folder = cls(path)
        try:
            with legible(path / "run.db"):
                folder._db.execute("SELECT count(*) FROM level").fetchone()
        except BadInput:
            folder.close()
            raise
        return folder

    # --- writing

    def write_run(self, run: dict[str, Any]) -> None:
        """Write `run.json`."""
        self._run = run
        write_whole(self.path / "run.json", msgspec.json.format(msgspec.json.encode(run), indent=2) + b"\n")

    def begin_session(self) -> None:
        """Note that from here on times are those of this process and this start of the machine."""
        now = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
        self._first_level = self.last_number() + 1
        self.first_part = first_part(self.path)
        begin(self._db, self._first_level, now)
        self.commit(at_once=True)

    def set_aside(self, level: int) -> None:
        """Take a level out of the run that was cut off and will be measured anew. Its rows stay, below all levels."""
        for table in ("request", "health", "level"):
            self._db.execute(f"UPDATE {table} SET level = ? WHERE level = ?", (_aside(level), level))
        self.commit(at_once=True)

    def last_number(self) -> int:
        """The highest number that a level was ever begun with; -1 before the first."""
        (low, high) = self._db.execute("SELECT min(level), max(level) FROM level").fetchone()
        return max(-1, high, _aside(low)) if low is not None else -1

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
        self._requests.add(x)

    def add_bodies(self, bodies: Sequence[Body]) -> None:
        """Keep what was sent and answered, beside `run.db`."""
        self._bodies = self._bodies or Verbatim(self.path)
        self._bodies.add(bodies)

    def add_beat(self, beat: Beat) -> None:
        """Keep one pulse of a worker."""
        row = [getattr(beat, name) for name in _BEAT]
        self._db.execute(f"INSERT INTO health ({', '.join(_BEAT)}) VALUES ({', '.join('?' * len(_BEAT))})", row)

    def set_parts(self, level: int, parts: Sequence[NodePart]) -> None:
        """Keep what each of several machines was to a level."""
        keep_parts(self._db, level, parts)

    def add_sight(self, sight: Sight) -> None:
        """Keep one look at the endpoint."""
        row = (sight.now_ns, msgspec.json.encode(sight).decode())
        self._db.execute("INSERT INTO endpoint VALUES (?, ?)", row)

    def add_scrape(self, level: int, scrape: Scrape) -> None:
        """Keep one look at the server's metrics while `level` runs; before the first level it counts to that one."""
        self._db.execute(
            "INSERT INTO server VALUES (?, ?)", (max(level, self._first_level), msgspec.json.encode(scrape).decode())
        )

    def add_step(self, step: Step) -> None:
        """Keep what a search has learned; numbers may be numpy's."""
        text = msgspec.json.encode(step, enc_hook=lambda number: number.item()).decode()
        self._db.execute("INSERT INTO search VALUES (?)", (text,))

    def commit(self, at_once: bool = False) -> None:
        """Make what was added last, at most every COMMIT_S seconds unless `at_once`.

        Raises RunFailed where somebody has removed the folder: what was measured is put there again first.
        """
        now = time.monotonic()
        if at_once or now - self._committed_s >= COMMIT_S:
            self._db.execute("COMMIT")
            if not (self.path / "run.db").exists():
                self._restore()
                raise RunFailed(f"{self.path} was removed while it was written")
            self._db.execute("BEGIN")
            self._committed_s = now

    def _restore(self) -> None:
        """Make the folder again, from the database that is still open."""
        self.path.mkdir(mode=0o700, parents=True, exist_ok=True)
        whole = sqlite3.connect(self.path / "run.db", isolation_level=None)
        self._db.backup(whole)
        self._db.close()
        self._db, self._requests = whole, RequestTable(whole, self.path)
        self.write_run(self._run)
        self._write_on()

    def write_summary(self, summary: Summary) -> None:
        """Write `summary.json`."""
        write_whole(self.path / "summary.json", msgspec.json.format(msgspec.json.encode(summary), indent=2) + b"\n")

    def close(self) -> None:
        """Commit, fold the write-ahead log into the database and let go of it."""
        if self._db.in_transaction:
            self._db.execute("COMMIT")
            for _ in range(_TRIES):  # someone looks at it now and then; the log of one who stays is left beside it
                with contextlib.suppress(sqlite3.OperationalError):
                    self._db.execute("PRAGMA journal_mode=DELETE")
                    break
                time.sleep(0.05)
        self._db.close()
        if self._bodies is not None:
            self._bodies.close()
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    # --- reading

    def run(self) -> dict[str, Any]:
        """`run.json`. Raises BadInput where it cannot be read."""
        with legible(self.path / "run.json"):
            run = msgspec.json.decode((self.path / "run.json").read_bytes(), type=dict[str, Any])
            _refuse_other(run.get("schema", RUN_SCHEMA), RUN_SCHEMA)
            return run

    def summary(self) -> Summary:
        """`summary.json`. Raises BadInput where the run has none."""
        try:
            summary = msgspec.json.decode((self.path / "summary.json").read_bytes(), type=Summary)
            _refuse_other(summary.schema, SCHEMA)
            return summary
        except OSError:
            how = "pacemark resume goes on with it, pacemark report sums up what there is"
            raise BadInput(f"{self.path} was cut off before its summary: {how}") from None
        except (ValueError, RecursionError) as error:
            raise BadInput(f"{self.path}/summary.json is not of a schema this version reads: {error}") from None

    def levels(self) -> list[StoredLevel]:
        """Every level begun, in order, but those that were set aside. Raises BadInput where they cannot be read."""
        asked = "SELECT level, load, window_start_ns, window_end_ns, ended_by, died FROM level WHERE level >= 0"
        with legible(self.path / "run.db"):
            return [
                StoredLevel(
                    level,
                    msgspec.json.decode(load, type=Load),
                    Window(start or 0, end or 0),
                    msgspec.convert(ended_by or "interrupted", EndedBy),
                    tuple((died or "").splitlines()),
                )
                for level, load, start, end, ended_by, died in self._db.execute(f"{asked} ORDER BY level")
            ]

    def beats(self, level: int) -> list[Beat]:
        """The pulses of the workers while a level ran."""
        there = {name for _, name, *_ in self._db.execute("PRAGMA table_info(health)")}
        names = [name for name in _BEAT if name in there]  # older runs know less
        rows = self._db.execute(f"SELECT {', '.join(names)} FROM health WHERE level = ? ORDER BY now_ns", (level,))
        return [Beat(**dict(zip(names, row, strict=True)), oldest_ns=ABSENT, turned=0, idle=False) for row in rows]

    def parts(self, level: int) -> list[NodePart]:
        """What each of several machines was to a level."""
        return parts_of(self._db, level)

    def sessions(self) -> list[Session]:
        """The parts of the run, in order."""
        return sessions(self._db)

    def trace(self, level: int, *, open_loop: bool = False) -> Trace:
        """A level's requests, read straight into columns, without an object for each."""
        return self._requests.trace(level, open_loop=open_loop)

    def output(self, session: Session) -> Iterator[tuple[Int64, NDArray[np.float64]]]:
        """Events of the answered requests of a session, a block at a time: when, and how many tokens."""
        return self._requests.output(session.levels)


def _aside(level: int) -> int:
    """The number that a level has once it is set aside, and back: below that of the first requests."""
    return 2 * PROBE_LEVEL - level


def folder_name(slug: str) -> str:
    """What a folder is called that is made now: `<utc-time>-<slug>`."""
    now = datetime.datetime.now(datetime.UTC)
    return f"{now:%Y%m%dT%H%M%SZ}-{re.sub(r'[^a-zA-Z0-9.]+', '-', slug).strip('-.').lower()[:40] or 'run'}"


def _whole(path: Path) -> Path:
    """`path`, a run that has its requests: opened without them SQLite would make it empty ones. Raises BadInput."""
    if not (path / "run.db").is_file():
        raise BadInput(f"{path} is no whole run: there is no run.db in it")
    return path


def _refuse_other(schema: object, known: str) -> None:
    """Raises ValueError for what another version has written, in which a figure may mean something else."""
    if schema != known:
        raise ValueError(f"it is of {str(schema)[:60]}, and this is {known}: read it with the pacemark that wrote it")


def _newest(path: Path) -> Path:
    """The folder of a run: `path`, or of a folder of runs the newest. Raises BadInput."""
    if (path / "run.json").exists():
        return path
    runs = sorted(p.parent for p in path.glob("*/run.json")) if path.is_dir() else []
    if not runs:
        raise BadInput(f"{path} is no run: there is no run.json in it; runs are stored below ./runs")
    return runs[-1]
