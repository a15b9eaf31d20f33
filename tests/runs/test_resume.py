"""Runs that were cut off, gone on with: by a real SIGKILL, on real sockets."""

from __future__ import annotations

import contextlib
import os
import random
import re
import shutil
import signal
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

import pacemark
from pacemark.errors import BadInput
from pacemark.files import held
from pacemark.pace import Concurrency
from pacemark.reporting.progress import Status
from pacemark.runs.conclude import summary_of, summed_up
from pacemark.runs.folder import RunFolder
from pacemark.runs.record import read
from pacemark.runs.serverside import with_server
from pacemark.runs.timeline import timeline_of
from pacemark.simulator import Served, serving
from pacemark.summary import Level
from support.cli_tools import Asked, Reply, only_run, server, started, streamed
from support.cli_tools import pacemark as command
from support.servers import exchange
from support.waiting import wait_for

SWEEP = ("--concurrency", "1,2,3", "--duration", "0.4", "--input-tokens", 16, "--output-tokens", 4, "--seed", 5)


@pytest.fixture(scope="module")
def endpoint() -> Iterator[Served]:
    with serving("demo") as served:
        yield served


def asked(path: Path, query: str) -> list[Any]:
    """Rows of a run.db that may be written just now; none where its tables are not there yet."""
    with contextlib.closing(sqlite3.connect(f"file:{path}/run.db?mode=ro", uri=True)) as db:
        try:
            return db.execute(query).fetchall()
        except sqlite3.OperationalError:
            return []


ENDED = "SELECT level FROM level WHERE ended_by != 'interrupted' ORDER BY level"
BEGUN = "SELECT level FROM level ORDER BY level"


def cut_off(tmp_path: Path, *words: object, query: str, rows: int) -> Path:
    """The folder of a run whose process was killed as soon as `query` gave so many rows of it."""
    out = tmp_path / "runs"
    with started(*words, "--out", out) as process:
        wait_for(lambda: out.is_dir() and any(len(asked(path, query)) >= rows for path in out.iterdir()), 60)
        process.send_signal(signal.SIGKILL)
        process.communicate(timeout=30)
    wait_for(lambda: not process_group_alive(process.pid))
    return only_run(out)


def process_group_alive(pid: int) -> bool:
    """Whether the process is there."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def levels_of(path: Path) -> list[Level]:
    """The levels as a report of the run would tell them."""
    with contextlib.closing(RunFolder.open(path)) as folder:
        record = read(folder.run())
        return summary_of(with_server(summed_up(folder, record), folder), record, None).levels


@pytest.mark.slow(shared=True)
def test_a_run_that_was_killed_goes_on_with_what_is_left(endpoint: Served, tmp_path: Path) -> None:
    path = cut_off(tmp_path, "sweep", endpoint.url, *SWEEP, query=ENDED, rows=1)
    ended = [level for (level,) in asked(path, ENDED)]
    assert ended in ([0], [0, 1])
    before = levels_of(path)[: len(ended)]
    said: list[str] = []
    run = pacemark.resume(path, observe=lambda status: said.append(status.note))
    assert f"{path}: {len(ended)} of 3 levels measured before; going on" in said
    assert [level.load for level in run.levels] == [Concurrency(n) for n in (1, 2, 3)]
    assert {level.ended_by for level in run.levels} == {"duration"}
    assert run.levels[: len(ended)] == before
    assert [again["level"] for again in run.summary.run["resumed"]] == [len(ended)]
    assert run.summary.run["ended"] == "completed"
    # What was begun is under a number of its own, so that no prompt is sent twice.
    numbers = [level for (level,) in asked(path, BEGUN)]
    measured = [number for number in numbers if number >= 0]
    aside = [-2 - number for number in numbers if number < -1]
    assert len(measured) == 3
    assert not set(measured) & set(aside)
    assert measured[: len(ended)] == ended
    # A report counts all of them, and nothing is left to do.
    reported = levels_of(path)
    assert [x.ttft_ms for x in reported] == [x.ttft_ms for x in run.levels]
    assert [x.output_tokens_per_s for x in reported] == [x.output_tokens_per_s for x in run.levels]
    sent = asked(path, "SELECT count(*) FROM request")
    again = command("resume", path, "--json")
    assert again.returncode == 0, again.stderr
    assert "nothing is left to measure" in again.stderr
    assert msgspec.json.decode(again.stdout)["levels"] == msgspec.to_builtins(run.levels)
    assert asked(path, "SELECT count(*) FROM request") == sent


@pytest.mark.slow
def test_a_run_that_was_killed_before_its_first_level_is_measured_whole(endpoint: Served, tmp_path: Path) -> None:
    path = cut_off(tmp_path, "sweep", endpoint.url, *SWEEP, query="SELECT * FROM session", rows=1)
    run = pacemark.resume(path)
    assert [level.load for level in run.levels] == [Concurrency(n) for n in (1, 2, 3)]
    assert run.summary.run["resumed"]


@pytest.mark.slow(shared=True)
def test_what_ctrl_c_cut_off_is_measured_anew_and_grids_know_their_lengths(endpoint: Served, tmp_path: Path) -> None:
    def stop(status: Status) -> None:
        if status.level_index == 2 and status.phase == "measuring":
            raise KeyboardInterrupt

    lengths: Any = {"input_tokens": [16, 64], "output_tokens": [2, 4]}
    stopped = pacemark.sweep(endpoint.url, **lengths, duration=0.3, out=tmp_path, observe=stop)
    assert stopped.interrupted
    run = pacemark.resume(stopped.path)
    assert not run.interrupted
    cells = [(level.asked.input_tokens, level.asked.output_tokens) for level in run.levels if level.asked]
    assert cells == [(16, 2), (16, 4), (64, 2), (64, 4)]
    assert [x.ttft_ms for x in run.levels[:2]] == [x.ttft_ms for x in stopped.levels[:2]]
    assert all(12 < (level.input_tokens or 0) < 80 for level in run.levels)


@pytest.mark.slow
def test_a_search_goes_on_from_its_probes(endpoint: Served, tmp_path: Path) -> None:
    words = ("--budget", "ttft p95 < 40ms", "--input-tokens", 64, "--output-tokens", 4, "--most", 4)
    path = cut_off(tmp_path, "find", endpoint.url, *words, "--max-requests", 4000, query=ENDED, rows=2)
    ended = asked(path, ENDED)
    requests = asked(path, "SELECT count(*) FROM request WHERE level >= 0")[0][0]
    steps: list[Any] = []
    run = pacemark.resume(path, tell=steps.append)
    find = run.summary.find
    assert not isinstance(find, msgspec.UnsetType)
    stored = asked(path, "SELECT load FROM level WHERE level >= 0 ORDER BY level")
    assert [probe.load.value for probe in find.probes] == [msgspec.json.decode(load)["value"] for (load,) in stored]
    assert len(find.probes) >= len(ended)
    assert find.spent.requests > requests / 2
    assert run.summary.run["allowance"]["requests"] == 4000
    assert len(steps) <= len(find.probes) - len(ended) + 1
    assert run.summary.run["resumed"][0]["level"] == len(ended)


@pytest.mark.slow(shared=True)
def test_a_level_whose_endpoint_went_away_is_measured_again(tmp_path: Path) -> None:
    words: Any = {"input_tokens": 16, "output_tokens": 4, "duration": 1.0, "out": tmp_path}
    with serving("demo") as served:

        def kill(status: Status) -> None:
            if status.level_index == 1 and status.phase == "measuring":
                with contextlib.suppress(ProcessLookupError):
                    os.kill(served.pid, signal.SIGKILL)

        before = pacemark.sweep(served.url, concurrency=[1, 2], **words, observe=kill)
    assert before.levels[1].verdict.status == "invalid"
    said: list[str] = []
    with serving("demo") as again:
        run = pacemark.resume(before.path, target=again.url, observe=lambda status: said.append(status.note))
    assert any(re.match(r"the endpoint was away for \d+% of concurrency 2: it is measured again", x) for x in said)
    assert [level.load for level in run.levels] == [Concurrency(1), Concurrency(2)]
    assert run.levels[0].ttft_ms == before.levels[0].ttft_ms
    assert not any(level.errors for level in run.levels)
    assert [again["level"] for again in run.summary.run["resumed"]] == [1]


@pytest.mark.slow(shared=True)
def test_a_level_that_is_invalid_for_other_reasons_stays(tmp_path: Path) -> None:
    def refuses_half(asked: Asked) -> Reply:
        return Reply(500, b"no") if asked.number > 8 and asked.number % 2 else streamed(asked)

    with server(refuses_half) as url:
        run = pacemark.sweep(url, model="m", concurrency=[1, 2], duration=0.3, out=tmp_path)
        assert {level.verdict.status for level in run.levels} == {"invalid"}
        sent = asked(run.path, "SELECT count(*) FROM request")
        assert pacemark.resume(run.path).levels == run.levels
    assert asked(run.path, "SELECT count(*) FROM request") == sent


# --- what cannot be gone on with


@pytest.mark.slow(shared=True)
def test_a_run_that_is_going_on_is_left_to_its_process(endpoint: Served, tmp_path: Path) -> None:
    with started("sweep", endpoint.url, *SWEEP, "--out", tmp_path) as process:
        wait_for(lambda: any(path.exists() for path in tmp_path.glob("*/run.json")), 60)
        with pytest.raises(BadInput, match="is being written by another process"):
            pacemark.resume(only_run(tmp_path))
        process.send_signal(signal.SIGKILL)
        process.communicate(timeout=30)


@pytest.mark.slow(shared=True)
def test_one_process_at_a_time_writes_a_run(endpoint: Served, tmp_path: Path) -> None:
    run = pacemark.run(endpoint.url, concurrency=1, duration=0.3, output_tokens=2, out=tmp_path)
    lock = held(run.path)
    assert lock is not None
    with pytest.raises(BadInput, match="being written by another process"):
        pacemark.resume(run.path)
    os.close(lock)
    assert pacemark.resume(run.path).summary == run.summary


@pytest.mark.slow(shared=True)
def test_headers_are_given_again(tmp_path: Path) -> None:
    seen: list[str | None] = []

    def keyed(asked: Asked) -> Reply:
        seen.append(asked.headers.get("X-Key"))
        return streamed(asked)

    def stop(status: Status) -> None:
        if status.level_index == 1 and status.phase == "measuring":
            raise KeyboardInterrupt

    with server(keyed) as url:
        words: Any = {"concurrency": [1, 2], "duration": 0.2, "model": "m", "out": tmp_path, "observe": stop}
        run = pacemark.sweep(url, **words, headers={"X-Key": "s3cret-value"})
        kept = (run.path / "run.json").read_bytes()
        with pytest.raises(BadInput, match="the run sent the header X-Key, whose value is not stored"):
            pacemark.resume(run.path)
        assert (run.path / "run.json").read_bytes() == kept
        assert len(pacemark.resume(run.path, headers={"X-Key": "s3cret-value"}).levels) == 2
    assert set(seen) == {"s3cret-value"}
    with pytest.raises(BadInput, match="no option 'header'"):
        pacemark.resume(run.path, header="x")  # type: ignore[call-arg]


@pytest.mark.slow(shared=True)
def test_a_failed_attempt_leaves_the_run_as_it_was(tmp_path: Path) -> None:
    def stop(status: Status) -> None:
        if status.level_index == 1 and status.phase == "measuring":
            raise KeyboardInterrupt

    with server(streamed) as url:
        run = pacemark.sweep(url, model="m", concurrency=[1, 2], duration=0.2, out=tmp_path, observe=stop)
    before = (asked(run.path, "SELECT * FROM level"), (run.path / "run.json").read_bytes())
    with pytest.raises(BadInput, match="connection refused"):
        pacemark.resume(run.path)
    assert (asked(run.path, "SELECT * FROM level"), (run.path / "run.json").read_bytes()) == before


# --- sessions


TIMES = "scheduled_ns first_byte_sent_ns sent_ns headers_ns first_event_ns answer_ns ended_ns done_ns".split()


@pytest.mark.slow(shared=True)
def test_another_start_of_the_machine_has_another_clock(endpoint: Served, tmp_path: Path) -> None:
    def stop(status: Status) -> None:
        if status.level_index == 1 and status.phase == "measuring":
            raise KeyboardInterrupt

    words: Any = {"duration": 0.3, "input_tokens": 16, "output_tokens": 4, "out": tmp_path, "observe": stop}
    path = pacemark.sweep(endpoint.url, concurrency=[1, 2], **words).path
    before = levels_of(path)[:1]
    later = 10**15  # the first session was measured long after a start of the machine
    with sqlite3.connect(path / "run.db") as db:
        db.execute("UPDATE session SET boot = 'before'")
        for table, names in {
            "level": ["begun_ns", "window_start_ns", "window_end_ns"],
            "health": ["now_ns"],
            "request": TIMES,
        }.items():
            there = {row[1] for row in db.execute(f"PRAGMA table_info({table})")}
            for name in there & set(names):
                db.execute(f"UPDATE {table} SET {name} = {name} + {later} WHERE {name} > 0")
        times = db.execute("SELECT rowid, hi_ns, lo_ns FROM request").fetchall()
        for row, *packed in times:
            moved = [None if x is None else shifted(x, later) for x in packed]
            db.execute("UPDATE request SET hi_ns = ?, lo_ns = ? WHERE rowid = ?", (*moved, row))
    db.close()
    run = pacemark.resume(path)
    assert run.levels[:1] == before
    assert [level.ended_by for level in run.levels] == ["duration"] * 2
    assert all(0.2 < (level.window_s or 0) < 2 for level in run.levels)
    boots = asked(path, "SELECT boot FROM session ORDER BY rowid")
    assert boots[0] == ("before",)
    assert boots[1] != boots[0]


def shifted(packed: bytes, by: int) -> bytes:
    values = memoryview(packed).cast("q")
    return b"".join((value + by).to_bytes(8, "little", signed=True) for value in values)


def test_sessions_follow_each_other_on_the_axis_of_a_run(tmp_path: Path) -> None:
    folder = RunFolder.create(tmp_path, "m", {})
    refused = exchange(50, error="http_429", status=429, level=0)
    answered = exchange(10, [200, 220, 240], level=0)
    folder.begin_level(0, Concurrency(1), 1)
    folder.add(refused)
    folder.add(answered)
    folder.begin_level(1, Concurrency(2), 1)
    folder.set_aside(1)
    folder.begin_session()
    assert folder.last_number() == 1
    folder.begin_level(2, Concurrency(2), 1)
    folder.add(msgspec.structs.replace(refused, level=2))
    folder.close()
    stored = RunFolder.open(folder.path)
    first, second = stored.sessions()
    assert (0 in first, 1 in first, 2 in first, 2 in second) == (True, True, False, True)
    line = timeline_of([], stored)
    stored.close()
    assert not isinstance(line, msgspec.UnsetType)
    assert sum(line.throttled) == 2
    assert len(line.throttled) == len(line.output_tokens_per_s)
    assert line.step_s * sum(line.output_tokens_per_s) == pytest.approx(answered.output_tokens)


def test_a_run_of_before_there_were_sessions_has_one(tmp_path: Path) -> None:
    golden = Path(__file__).parent.parent / "golden" / "run"
    with contextlib.closing(RunFolder.open(Path(shutil.copytree(golden, tmp_path / "run")))) as folder:
        (session,) = folder.sessions()
        assert all(level.level in session for level in folder.levels())
        assert len(summed_up(folder, read(folder.run()))) == 4


# --- any moment


@pytest.mark.slow
def test_no_moment_of_a_kill_loses_more_than_a_second(endpoint: Served, tmp_path: Path) -> None:
    rng = random.Random(3)
    for number in range(20):
        out = tmp_path / str(number)
        wait_s = rng.uniform(0.3, 5.0)
        with started("sweep", endpoint.url, *SWEEP, "--out", out) as process:
            with contextlib.suppress(Exception):
                process.wait(wait_s)
            process.send_signal(signal.SIGKILL)
            process.communicate(timeout=30)
        runs = sorted(out.glob("*/run.json")) if out.is_dir() else []
        if not runs:  # killed before there was a folder
            continue
        path = runs[0].parent
        ended = [level for (level,) in asked(path, ENDED)]
        before = levels_of(path)[: len(ended)] if ended else []
        run = pacemark.resume(path)
        assert [level.load for level in run.levels] == [Concurrency(n) for n in (1, 2, 3)], wait_s
        for now, then in zip(run.levels, before, strict=False):  # a run that was whole is told as it was told then
            assert (now.ttft_ms, now.latency_ms, now.output_tokens_per_s) == (
                then.ttft_ms, then.latency_ms, then.output_tokens_per_s,
            ), wait_s  # fmt: skip
        assert run.summary.run["ended"] == "completed"


@pytest.mark.slow
def test_a_resumed_run_that_is_killed_again_goes_on_again(endpoint: Served, tmp_path: Path) -> None:
    path = cut_off(tmp_path, "sweep", endpoint.url, *SWEEP, query=ENDED, rows=1)
    with started("resume", path) as process:
        wait_for(lambda: len(asked(path, ENDED)) >= 2, 60)
        process.kill()
        process.communicate(timeout=30)
    before = levels_of(path)[:2]
    run = pacemark.resume(path)
    assert [level.load.value for level in run.levels] == [1, 2, 3]
    assert [x.ttft_ms for x in run.levels[:2]] == [x.ttft_ms for x in before]
    assert [part["level"] for part in run.summary.run["resumed"]] == [1, 2]


def test_a_run_that_an_older_version_began_is_written_on(tmp_path: Path) -> None:
    path = Path(shutil.copytree(Path(__file__).parents[1] / "golden" / "run", tmp_path / "20260101T000000Z-golden"))
    before = levels_of(path)
    with contextlib.closing(RunFolder.again(path)) as folder:
        number = folder.last_number() + 1
        folder.begin_session()
        folder.begin_level(number, Concurrency(16), 0)
        folder.add(exchange(0, [1, 2, 3], level=number, turn=3, served_by="b"))
        folder.commit(at_once=True)
        trace = folder.trace(number)
        assert (trace.turn.tolist(), trace.served_by.tolist()) == ([3], ["b"])
        assert set(folder.trace(0).turn.tolist()) == {-1}
    assert [level.ttft_ms for level in levels_of(path)[: len(before)]] == [level.ttft_ms for level in before]
