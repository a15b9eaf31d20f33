"""How a run stands, read from its folder by a process that measures nothing: while it goes on, and after.

`run.db` is opened anew for every look, read-only and for short queries of plain columns: an open read would hold up the
writer's checkpoints, and a reader that stays would keep the log beside the database when the run closes it.
"""

from __future__ import annotations

import contextlib
import sqlite3
from collections.abc import Sequence
from pathlib import Path
from time import monotonic_ns
from typing import Any

import msgspec
import numpy as np

from pacemark.answers.step import Step
from pacemark.errors import BadInput
from pacemark.pace import Load, sought
from pacemark.reporting.sparks import lies
from pacemark.reporting.words import plain
from pacemark.runs.folder import RunFolder

__all__ = ["LevelNow", "Standing", "run_now", "watched_folder"]

LAST_S = 5.0
"""Over which the rate of this moment is taken."""
SILENT_S = 10.0
"""A run that has written nothing for so long, and has not said that it ended, was cut off."""
SERIES_S = 120
"""Seconds that the run over time goes back."""


class LevelNow(msgspec.Struct, frozen=True):
    """A level as far as it is known; times in ms, None where nobody can tell yet."""

    load: str
    phase: str
    """ramp, measuring, finishing or done."""
    left_s: float | None
    completed: int
    failed: int
    output_tokens_per_s: float | None
    """Of answers that have ended: the report has it exactly."""
    ttft_ms_p50: float | None
    ttft_ms_p95: float | None
    latency_ms_p50: float | None


class SearchNow(msgspec.Struct, frozen=True):
    """What a search knows; loads as it looks along them."""

    low: float | None
    high: float | None
    """Between which the answer lies with 95% probability; None where nothing is known of that side."""
    said: str
    """The same in words, and what comes next."""
    tried: list[tuple[float, str]]
    """Loads, and whether each met the budget: met, missed or open; the last may be next."""


class Standing(msgspec.Struct, frozen=True):
    """A run at one moment."""

    title: str
    goal: str
    """What is searched for; empty where levels were given."""
    ended: str | None
    """completed, interrupted, failed or cut off; None while it goes on."""
    levels: list[LevelNow]
    expected: int | None
    """How many levels there will be; None of a search."""
    tokens_per_s: float | None
    """Of the last `LAST_S` seconds, as are the next two."""
    in_flight: int
    stall_ms: float | None
    """How long the client's own loop was away at most."""
    idle_share: float | None
    """How idle the cores were that the client may use."""
    series: list[tuple[float, float, int]]
    """Seconds before now, output tokens/s, failures: one entry a second, by the ends of the requests."""
    search: SearchNow | None
    """None where nothing is searched for, or nothing known yet."""


def watched_folder(path: Path) -> Path:
    """The folder of a run; of a folder of runs the newest. Raises BadInput."""
    with contextlib.closing(RunFolder.open(path)) as folder:
        return folder.path


def run_now(folder: Path) -> Standing:
    """How the run in `folder` stands now. Raises BadInput where it cannot be read."""
    run = msgspec.json.decode((folder / "run.json").read_bytes(), type=dict[str, Any])
    try:
        with contextlib.closing(sqlite3.connect(f"file:{folder / 'run.db'}?mode=ro", uri=True, timeout=2.0)) as db:
            return _standing(db, run)
    except sqlite3.Error as error:
        raise BadInput(f"{folder}/run.db cannot be read: {error}") from None


def _standing(db: sqlite3.Connection, run: dict[str, Any]) -> Standing:
    (last_ns,) = db.execute("SELECT max(now_ns) FROM health").fetchone()
    now_ns = monotonic_ns()
    silent = last_ns is None or not 0 <= now_ns - last_ns < SILENT_S * 1e9
    ended = _ended(run) or ("cut off" if silent and last_ns is not None else None)
    if ended and last_ns is not None:
        now_ns = last_ns
    asked = "SELECT level, load, window_start_ns, window_end_ns, ended_by FROM level WHERE level >= 0 ORDER BY level"
    rows = db.execute(asked).fetchall()
    levels = [_level(db, row, now_ns, done=n < len(rows) - 1 or bool(ended)) for n, row in enumerate(rows)]
    pulses = "SELECT in_flight, stall_ns, idle_share FROM health WHERE now_ns > ? ORDER BY now_ns"
    beats = db.execute(pulses, (now_ns - int(LAST_S * 1e9),)).fetchall()
    workers = run.get("settings", {}).get("workers", 1)
    series = _series(db, now_ns)
    recent = [rate for ago, rate, _ in series if ago <= LAST_S]
    idle = [share for *_, share in beats if share >= 0]
    target = run.get("target", {})
    budget = run.get("settings", {}).get("budget")
    goal = f"A search for the most load within {budget}" if run.get("goal") == "search" else ""
    return Standing(
        title=plain(" at ".join(str(target[name]) for name in ("model", "url") if target.get(name))),
        goal=plain(goal),
        ended=ended,
        levels=levels,
        expected=len(run.get("loads", [])) or None,
        tokens_per_s=float(np.mean(recent)) if recent else None,
        in_flight=0 if ended else sum(row[0] for row in beats[-workers:]),
        stall_ms=max((row[1] for row in beats), default=0) / 1e6 if beats else None,
        idle_share=float(np.median(idle)) if idle else None,
        series=series,
        search=_search(db),
    )


_STATUS = {True: "met", False: "missed", None: "open"}


def _search(db: sqlite3.Connection) -> SearchNow | None:
    """The steps of a search; older runs did not store them."""
    try:
        rows = db.execute("SELECT step FROM search ORDER BY rowid").fetchall()
    except sqlite3.OperationalError:
        return None
    steps = [msgspec.json.decode(text, type=Step) for (text,) in rows]
    if not steps:
        return None
    last, probes = steps[-1], [step.probe for step in steps if step.probe is not None]
    tried = [(float(sought(probe.load)), _STATUS[probe.within]) for probe in probes]
    tried += [(float(sought(last.next)), "next")] if last.next is not None else []
    where = lies(last.low, last.high)
    parts = [f"the most lies {where}"] if where else []
    parts += [f"next {last.next}: {last.why}"] if last.next is not None else [last.why]
    return SearchNow(last.low, last.high, plain("; ".join(part for part in parts if part)), tried)


def _ended(run: dict[str, Any]) -> str | None:
    """How a run ended that has said so; version 0.1.0 said it in other words."""
    if "interrupted" not in run:
        return None
    return str(run.get("ended") or ("interrupted" if run["interrupted"] else "completed"))


def _level(db: sqlite3.Connection, row: Sequence[Any], now_ns: int, *, done: bool) -> LevelNow:
    number, load, start, end, _ = row
    over = "SELECT count(*), sum(error != '') FROM request WHERE level = ?"
    count, failed = db.execute(over, (number,)).fetchone()
    asked = "SELECT sent_ns, answer_ns, ended_ns, output_tokens FROM request WHERE level = ? AND error = ''"
    known = np.array(db.execute(asked, (number,)).fetchall(), dtype=np.int64).reshape(-1, 4)
    start, stop = start or 0, min(end, now_ns) if end else 0
    phase = "done" if done else "ramp" if not start else "measuring" if now_ns < end else "finishing"
    inside = known[(known[:, 0] > start) & (known[:, 0] <= stop)]
    spoke = inside[inside[:, 1] > 0]
    ttft, latency = (spoke[:, 1] - spoke[:, 0]) / 1e6, (inside[:, 2] - inside[:, 0]) / 1e6
    seconds, tokens = (stop - start) / 1e9, _between(known, start, stop)
    return LevelNow(
        load=plain(msgspec.json.decode(load, type=Load)),
        phase=phase,
        left_s=max(0.0, (end - now_ns) / 1e9) if phase == "measuring" else None,
        completed=count - (failed or 0),
        failed=failed or 0,
        output_tokens_per_s=tokens / seconds if seconds > 1 and tokens else None,
        ttft_ms_p50=_quantile(ttft, 0.50),
        ttft_ms_p95=_quantile(ttft, 0.95),
        latency_ms_p50=_quantile(latency, 0.50),
    )


def _between(known: np.ndarray[Any, np.dtype[np.int64]], start_ns: int, stop_ns: int) -> float:
    """Tokens in (start, stop] of answers (n, 4) that have ended, each spread over the time in which it came."""
    _, answer, ended, tokens = known.T
    begin = np.where((answer > 0) & (answer < ended), answer, ended - 1)
    share = np.clip(np.minimum(ended, stop_ns) - np.maximum(begin, start_ns), 0, None) / (ended - begin)
    return float((tokens * share).sum())


def _quantile(values: np.ndarray[Any, np.dtype[np.float64]], share: float) -> float | None:
    """None where not one value is expected beyond it."""
    return float(np.quantile(values, share, method="higher")) if len(values) * (1 - share) >= 1 else None


def _series(db: sqlite3.Connection, now_ns: int) -> list[tuple[float, float, int]]:
    """Tokens are spread over the time in which their answers came."""
    since = now_ns - SERIES_S * 10**9
    asked = "SELECT answer_ns, ended_ns, output_tokens, error != '' FROM request WHERE level >= 0 AND ended_ns > ?"
    rates, failures = np.zeros(SERIES_S), np.zeros(SERIES_S, np.int64)
    edges = since + np.arange(SERIES_S + 1, dtype=np.int64) * 10**9
    for answer, ended, tokens, failed in db.execute(asked, (since,)):
        place = min(SERIES_S - 1, max(0, (ended - since) // 10**9))
        if failed:
            failures[place] += 1
            continue
        begin = answer if 0 < answer < ended else ended - 1
        first = max(0, (begin - since) // 10**9)
        for step in range(first, place + 1):
            share = min(ended, edges[step + 1]) - max(begin, edges[step])
            rates[step] += tokens * max(0, share) / (ended - begin)
    first = int(np.flatnonzero(rates)[0]) if rates.any() else SERIES_S
    return [(float(SERIES_S - n), round(float(rates[n]), 1), int(failures[n])) for n in range(first, SERIES_S)]
