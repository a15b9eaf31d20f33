"""Events that are kept apart: what is measured with them is what is measured without, and what a lost file costs."""

from __future__ import annotations

import contextlib
import csv
import dataclasses
import json
import shutil
import sqlite3
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import pacemark
from pacemark.errors import RunFailed
from pacemark.instrument import apart, nodes
from pacemark.instrument.apart import EventLog, PartFile
from pacemark.pace import Concurrency
from pacemark.reporting.progress import Status
from pacemark.runs.bench import Bench
from pacemark.runs.folder import RunFolder
from pacemark.simulator import Served, serving
from pacemark.summary import Distribution, Figure, Level
from pacemark.trace import Exchange, trace_of
from support.afar import Machine, bench_afar, hired_afar
from support.cli_tools import pacemark as command
from support.samples import known
from support.servers import exchange

HOUR_NS = 3_600_000_000_000
BUDGET = "ttft p95 < 500ms, itl p95 < 60ms"


@dataclass
class Measured:
    """A run whose second level was kept apart, and the whole requests that its machines saw in that."""

    path: Path
    whole: list[Exchange]


@contextlib.contextmanager
def two_machines(patch: pytest.MonkeyPatch, streams: int = 4) -> Iterator[Served]:
    """An endpoint; from now on it is loaded from two machines, which keep events apart above `streams`."""
    patch.setattr(apart, "APART_STREAMS", streams)
    for module in (apart, nodes):
        patch.setattr(module, "CHUNK_BYTES", 4000)  # many are needed
    with serving("demo") as served, hired_afar(Machine(HOUR_NS), Machine(-HOUR_NS)) as hire:
        patch.setattr("pacemark.runs.conduct._hire", lambda settings, observe: hire)
        yield served


def note_what_is_put(patch: pytest.MonkeyPatch, whole: list[Exchange]) -> None:
    """Have all requests that are put into outline go to `whole` before."""
    put = EventLog.put

    def noted(log: EventLog, x: Exchange, part: int) -> Exchange:
        whole.append(x)
        return put(log, x, part)

    patch.setattr(EventLog, "put", noted)


def sweep(served: Served, out: Path, **more: Any) -> pacemark.Run:
    given: dict[str, Any] = {"concurrency": [2, 8], "duration": 1.0, "input_tokens": 16, "output_tokens": 12}
    return pacemark.sweep(served.url, model=served.model, nodes=2, out=out, budget=BUDGET, **given | more)


@pytest.fixture(scope="module")
def measured(tmp_path_factory: pytest.TempPathFactory) -> Measured:
    whole: list[Exchange] = []
    with pytest.MonkeyPatch.context() as patch, two_machines(patch) as served:
        note_what_is_put(patch, whole)
        run = sweep(served, tmp_path_factory.mktemp("runs"))
    return Measured(run.path, whole)


def different(one: Any, other: Any, where: str = "") -> Iterator[str]:
    """The places in which two summaries are not the same."""
    pairs = (
        [(key, one.get(key), other.get(key)) for key in {*one, *other}]
        if isinstance(one, dict) and isinstance(other, dict)
        else [(n, *pair) for n, pair in enumerate(zip(one, other, strict=True))]
        if isinstance(one, list) and isinstance(other, list)
        else []
    )
    for key, mine, theirs in pairs:
        yield from different(mine, theirs, f"{where}.{key}")
    if not pairs and one != other:
        yield f"{where}: {one} and {other}"


def summary(path: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((path / "summary.json").read_bytes())
    return found


@pytest.fixture
def copied(measured: Measured, tmp_path: Path) -> Path:
    """A copy of the run, to be spoilt."""
    return Path(shutil.copytree(measured.path, tmp_path / "copy"))


@pytest.mark.slow
def test_every_figure_is_that_of_a_run_without_part_files(measured: Measured, copied: Path) -> None:
    """The same requests, all in `run.db`, are summed up to the same."""
    pacemark.report(copied)
    with_them = summary(copied)
    for path in copied.glob("events-*.bin"):
        path.unlink()
    with contextlib.closing(sqlite3.connect(copied / "run.db")) as db, db:
        outlines = db.execute("SELECT count(*) FROM request WHERE place >= 0").fetchone()
        db.execute("UPDATE request SET place = -1")
        for x in measured.whole:
            row = (*apart.packed(x), x.level, x.index)
            db.execute("UPDATE request SET hi_ns=?, lo_ns=?, tokens=?, lag_ns=? WHERE level=? AND idx=?", row)
    assert outlines == (len(measured.whole),)
    assert len(measured.whole) > 20
    assert {x.level for x in measured.whole} == {1}
    assert with_them["levels"][1]["itl_ms"]["p95"]["value"] > 0
    pacemark.report(copied)
    assert list(different(summary(copied), with_them)) == []


@pytest.mark.slow
def test_a_poll_carries_scalars_and_the_database_too(measured: Measured) -> None:
    with contextlib.closing(sqlite3.connect(measured.path / "run.db")) as db:
        asked = "SELECT max(length(hi_ns)), max(length(lag_ns)), max(events) FROM request WHERE level = ?"
        assert db.execute(asked, (0,)).fetchone() == (8 * 12, db.execute(asked, (0,)).fetchone()[1], 12)
        assert db.execute(asked, (1,)).fetchone() == (16, 0, 12)
    assert [path.name for path in sorted(measured.path.glob("events-*"))] == ["events-0.bin", "events-1.bin"]


@pytest.mark.slow
def test_whatever_reads_a_run_reads_such_a_one(measured: Measured, copied: Path, tmp_path: Path) -> None:
    lived, again = pacemark.load(measured.path).levels[1], pacemark.report(copied).levels[1]
    assert (lived.itl_ms, lived.output_tokens_per_s) == (again.itl_ms, again.output_tokens_per_s)
    assert command("show", copied).returncode == 0
    rows = tmp_path / "rows.csv"
    done = command("export", copied, "--format", "csv", "--output", rows)
    assert done.returncode == 0, done.stderr
    assert all(row["events"] == row["output_tokens"] for row in csv.DictReader(rows.read_text().splitlines()))
    done = command("compare", copied, measured.path)
    assert done.returncode == 0, done.stderr
    done = command("find", "--from", copied, "--budget", BUDGET)
    assert done.returncode == 0, done.stderr


def spoilt(path: Path) -> Level:
    """The second level, summed up of what is left."""
    pacemark.report(path)
    level = pacemark.load(path).levels[1]
    assert [reason.code for reason in level.verdict.reasons].count("events_missing") == 1
    return level


@pytest.mark.slow
@pytest.mark.parametrize("left", [0.0, 0.5])
def test_a_part_file_that_is_lost_or_cut_off_takes_what_needs_it(measured: Measured, copied: Path, left: float) -> None:
    before = pacemark.report(copied).levels[1]
    part = copied / "events-1.bin"
    data = part.read_bytes()
    part.write_bytes(data[: int(left * len(data))])
    if not left:
        part.unlink()
    level = spoilt(copied)
    (said,) = (reason.message for reason in level.verdict.reasons if reason.code == "events_missing")
    assert "a part file (events-*.bin) in the run folder is missing or cut off" in said
    assert " #1)" in said
    for name in ("ttft_ms", "tpot_ms", "latency_ms", "requests", "requests_per_s", "output_tokens_per_s_by_cycle"):
        assert getattr(level, name) == getattr(before, name), name
    assert (level.itl_ms, level.output_tokens_per_s) == (Distribution(), Figure())
    assert level.total_tokens_per_s == Figure()
    assert level.experience.longest_stall_ms == Distribution()
    assert level.experience.fluidity == Figure()
    assert level.goodput is not None
    assert level.goodput.share == Figure()
    assert level.nodes
    assert [node.output_tokens_per_s is None for node in level.nodes] == [False, True]
    assert command("show", copied, "--detail").returncode == 0
    assert "a part file (events-*.bin)" in (copied / "report.html").read_text()
    part.write_bytes(data)  # put back, all is there again
    pacemark.report(copied)
    assert pacemark.load(copied).levels[1].itl_ms == before.itl_ms


@pytest.mark.slow
def test_a_run_that_was_cut_off_goes_on_with_part_files_of_its_own(tmp_path: Path, monkeypatch: Any) -> None:
    def stop(status: Status) -> None:
        if status.level_index == 1 and status.phase == "measuring":
            raise KeyboardInterrupt

    with two_machines(monkeypatch, streams=1) as served:
        path = sweep(served, tmp_path, concurrency=[4, 3, 2], observe=stop).path
        first = {path.name: path.read_bytes() for path in path.glob("events-*.bin")}
        run = pacemark.resume(path)
    assert sorted(first) == ["events-0.bin", "events-1.bin"]
    assert [path.name for path in sorted(path.glob("events-*.bin"))] == [f"events-{n}.bin" for n in range(4)]
    assert all((path / name).read_bytes() == data for name, data in first.items())
    assert [level.load for level in run.levels] == [Concurrency(4), Concurrency(3), Concurrency(2)]
    assert all("events_missing" not in {x.code for x in level.verdict.reasons} for level in run.levels)
    assert all(known(level.itl_ms.p50.value) > 0 for level in run.levels)
    again = pacemark.report(path)
    assert [level.itl_ms for level in again.levels] == [level.itl_ms for level in run.levels]


@contextlib.contextmanager
def bench(place: Path, *machines: Machine) -> Iterator[Bench]:
    with (
        bench_afar(*machines, duration_s=30.0) as ready,
        contextlib.closing(RunFolder.create(place, "x", {"schema": "x"})) as folder,
    ):
        ready.folder = folder
        ready.prepare()
        yield ready


@pytest.mark.slow(shared=True)
def test_of_a_machine_that_dies_scalars_stand(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(apart, "APART_STREAMS", 4)
    machine = Machine()
    with bench(tmp_path, Machine(), machine) as ready:
        timer = threading.Timer(0.8, lambda: setattr(machine, "gone", "no route to it"))
        timer.start()
        with pytest.raises(RunFailed, match="no route to it"):
            ready.measure(Concurrency(8))
        (result,) = ready.finish(drain=False)
    events = np.diff(result.trace.offsets)
    of_it = result.trace.index % 2 == 1
    assert (result.trace.outlined == (of_it & (events > 2))).all()  # of two events nothing is missing
    assert 0 < of_it.sum() < len(result.trace)
    assert (events == result.trace.output_tokens)[result.trace.error == ""].all()
    codes = {reason.code for reason in result.level.verdict.reasons}
    assert {"events_missing", "worker_died"} <= codes
    assert result.level.output_tokens_per_s == Figure()


@pytest.mark.slow(shared=True)
def test_a_level_that_ends_by_precision_sees_every_event(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(apart, "APART_STREAMS", 4)
    whole: list[Exchange] = []
    note_what_is_put(monkeypatch, whole)
    seen: list[tuple[int, bool]] = []

    def enough(trace: Any, window: object) -> bool:
        seen.append((len(trace), bool(trace.outlined.any())))
        return len(trace) > 40

    with bench(tmp_path, Machine(), Machine()) as ready:
        result = ready.measure(Concurrency(8), enough)
        ready.finish()
    assert result.level.ended_by == "precision"
    assert seen[-1][0] > 40
    assert not any(outlined for _, outlined in seen)
    order = {(x.index, x.sent_ns): x for x in whole}
    mine = [order[key] for key in zip(result.trace.index.tolist(), result.trace.sent_ns.tolist(), strict=True)]
    wanted = trace_of(mine)
    for field in dataclasses.fields(wanted):
        if field.name != "known_origins":
            both = (np.asarray(getattr(trace, field.name)) for trace in (result.trace, wanted))
            got, true = (np.sort(column) if field.name == "lag_ns" else column for column in both)  # in no order
            assert np.array_equal(got, true), field.name


def test_what_a_file_does_not_hold_whole_is_not_read(tmp_path: Path) -> None:
    log = EventLog()
    one = exchange(0, [20, 25, 60], lo_ms=[20, 24, 60], tokens=[3, 1, 2])
    outline = log.put(one, 7)
    assert (outline.part, outline.place, outline.events) == (7, 0, 3)
    assert (outline.hi_ns.tolist(), outline.tokens.tolist()) == ([20_000_000, 60_000_000], [3, 3])
    other = log.put(exchange(0, [], index=1), 7)
    assert other.place > 0
    data = log.read(0)
    log.close()
    path = tmp_path / "part"
    path.write_bytes(data)
    assert PartFile(path).events(0, 0, 0) == apart.packed(one)
    assert PartFile(path).events(0, 1, other.place) == (b"", None, None, b"")
    assert PartFile(path).events(0, 1, 0) is None  # another's place
    assert PartFile(path).events(0, 0, 4) is None
    for length in range(other.place):
        path.write_bytes(data[:length])
        assert PartFile(path).events(0, 0, 0) is None
