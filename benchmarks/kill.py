"""Runs that are killed at a random moment of their levels, and what that costs.

    python benchmarks/kill.py [--kills 100] [--minutes 60] [--seed 1]

Each time a sweep of the embedded endpoint is begun and SIGKILL is sent, in turn, to the coordinating process, to a
worker and to a reader; then it is resumed, and must keep the levels that had ended as they were and measure the rest.
Prints for each kill how much of what had been answered is not on record (the time from the last request there to the
kill, while requests end all the time), and whether requests before that are missing; and last the largest loss, and by
how much the figures of resumed runs differ from those of a run that nobody killed.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import random
import signal
import sqlite3
import subprocess
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

import pacemark
from pacemark.api import Run
from pacemark.runs.folder import RunFolder
from pacemark.simulator import serving
from support.processes import alive, family

LEVELS = [2, 4, 8]
WORDS = ("--concurrency", "2,4,8", "--duration", "1", "--input-tokens", "16", "--output-tokens", "4", "--workers", "1")
WHO = ("coordinator", "worker", "reader")


def begun(url: str, out: Path) -> subprocess.Popen[bytes]:
    """A sweep under way, in a process of its own."""
    command = [sys.executable, "-m", "pacemark.cli", "sweep", url, *WORDS, "--out", str(out)]
    return subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


def killed(process: subprocess.Popen[bytes], who: str) -> int:
    """Kill one of the family; when that was, on the monotonic clock in ns."""
    ours = [pid for pid in family(process.pid)[1:] if b"instrument.worker" in Path(f"/proc/{pid}/cmdline").read_bytes()]
    pid = {"coordinator": process.pid, "worker": min(ours, default=0), "reader": max(ours, default=0)}[who]
    now = time.monotonic_ns()
    if pid:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    process.wait(60)
    while any(map(alive, ours)):
        time.sleep(0.02)
    return now


def on_record(path: Path, at_ns: int) -> tuple[float | None, int]:
    """Seconds before `at_ns` that the last request on record ended; and how many before it are not there, beside those
    that were in flight. None where no level was under way then."""
    with contextlib.closing(sqlite3.connect(path / "run.db")) as db:
        try:
            rows = db.execute("SELECT level, idx, ended_ns FROM request WHERE level >= 0 AND ended_ns <= ?", (at_ns,))
            found = rows.fetchall()
            open_level = db.execute("SELECT count(*) FROM level WHERE ended_by = 'interrupted'").fetchone()[0]
        except sqlite3.OperationalError:  # killed before its tables were there
            return None, 0
    numbers: dict[int, set[int]] = {}
    for level, number, _ in found:
        numbers.setdefault(level, set()).add(number)
    missing = sum(len(set(range(max(of) - 2 * LEVELS[-1])) - of) for of in numbers.values())
    last = max((ended for *_, ended in found), default=None)
    return None if last is None or not open_level else (at_ns - last) / 1e9, missing


def level_begun(out: Path) -> bool:
    """Whether the run below `out` has begun a level."""
    for path in out.glob("*/run.db"):
        with contextlib.closing(sqlite3.connect(path)) as db, contextlib.suppress(sqlite3.OperationalError):
            return bool(db.execute("SELECT count(*) FROM level").fetchone()[0])
    return False


def lasted_s(run: Run) -> float:
    """From the first request of the first level to the end of the last one."""
    with contextlib.closing(RunFolder.open(run.path)) as folder:
        begun_ns, ended_ns = folder.sessions()[0].span() or (0, 0)
    return (ended_ns - begun_ns) / 1e9


def once(url: str, rng: random.Random, who: str, within_s: float) -> tuple[float | None, int, Run | None]:
    """One kill: what it lost, what is missing, and the run as it was resumed; None where none had been begun."""
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "runs"
        process = begun(url, out)
        while process.poll() is None and not level_begun(out):
            time.sleep(0.02)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(rng.uniform(0.0, within_s))
        at_ns = killed(process, who)
        paths = [path.parent for path in out.glob("*/run.json")]
        if not paths:
            return None, 0, None
        lost, missing = on_record(paths[0], at_ns)
        before: list[object] = []
        with contextlib.suppress(pacemark.BadInput):  # no level had begun
            before = [x.ttft_ms for x in pacemark.report(paths[0]).levels if x.ended_by != "interrupted"]
        run = pacemark.resume(paths[0])
        assert [level.load.value for level in run.levels] == LEVELS
        assert run.summary.run["ended"] == "completed"
        assert [x.ttft_ms for x in run.levels[: len(before)]] == before
        return lost, missing, run


def main() -> None:
    words = argparse.ArgumentParser(description=__doc__)
    words.add_argument("--kills", type=int, default=100)
    words.add_argument("--minutes", type=float, default=60.0, help="no kill is begun after so long")
    words.add_argument("--seed", type=int, default=1)
    given = words.parse_args()
    rng = random.Random(given.seed)
    losses, gone, apart, resumed, done = [], 0, 0.0, 0, 0
    until_s = time.monotonic() + 60 * given.minutes
    with serving("demo") as served, tempfile.TemporaryDirectory() as folder:
        whole = pacemark.sweep(
            served.url, concurrency=LEVELS, duration=1.0, input_tokens=16, output_tokens=4, workers=1, out=folder
        )
        for number in range(given.kills):
            if time.monotonic() > until_s:
                break
            done += 1
            who = WHO[number % 3]
            lost, missing, run = once(served.url, rng, who, lasted_s(whole))
            if run is not None:
                resumed += 1
                pairs = zip(run.levels, whole.levels, strict=True)
                differ = [abs((a.ttft_ms.p50.value or 0) / (b.ttft_ms.p50.value or 1) - 1) for a, b in pairs]
                apart = max(apart, *differ)
            losses += [] if lost is None else [lost]
            gone += missing
            said = "no level was under way" if lost is None else f"{lost:.2f} s lost"
            print(f"{number + 1:4} {who:12} {said}, {missing} missing before", flush=True)
    print(f"{done} kills, {len(losses)} with a level under way, {resumed} resumed; the largest loss is")
    print(
        f"{max(losses):.2f} s, {gone} requests are missing before; median TTFT of resumed levels within {apart:.1%} of"
    )
    print("an uninterrupted run's")


if __name__ == "__main__":
    main()
