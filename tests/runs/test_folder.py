"""The run folder: what is written comes back, whatever happens to the writer."""

import csv
import errno
import os
import signal
import sqlite3
import subprocess
import sys
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pacemark.errors import BadInput, RunFailed
from pacemark.pace import Concurrency, Rate
from pacemark.runs.export import export
from pacemark.runs.folder import RunFolder
from pacemark.summary import Summary
from pacemark.trace import ABSENT, Beat, Exchange, Window, trace_of
from support.needed import needed
from support.servers import MS, exchange
from support.stored import exchanges

GOLDEN = Path(__file__).parents[1] / "golden" / "run"
RUN = {"command": "pacemark run", "versions": {"pacemark": "0.1.0"}}


def same(a: Exchange, b: Exchange) -> None:
    for name in Exchange.__struct_fields__:
        left, right = getattr(a, name), getattr(b, name)
        if isinstance(left, np.ndarray):
            assert left.dtype == right.dtype, name
            assert np.array_equal(left, right), name
        else:
            assert left == right, name


def beat(level: int = 0, now_ns: int = 5) -> Beat:
    return Beat(
        worker=1, now_ns=now_ns, level=level, in_flight=3, oldest_ns=4, turned=2, reads=99, cpu_ns=10, wait_ns=11,
        idle_share=0.5, stall_ns=12, reconnects=13, idle=False,
        throttled_ns=14,
    )  # fmt: skip


SAMPLES = {
    "plain": exchange(10, [200, 220, 240]),
    "uneven tokens": exchange(20, [200, 220], tokens=[3, 1]),
    "coalesced": exchange(30, [200, 220, 220], lo_ms=[200, 200, 220], coalesced_reads=1),
    "several tokens an event": exchange(40, [200, 220], tokens=[2.5, 2.5], output_tokens=5),
    "failed": exchange(50, error="http_429", detail='slow "down"; \u00e9\u4e16\u0000\'--', status=429),
    "not streamed": exchange(60, [300], tokens=[64], first_event_ns=ABSENT, answer_ns=ABSENT),
    "counted by events": exchange(70, [90], tokens_source="events", input_tokens=ABSENT),
    "unstamped": exchange(80, [90], lag_ns=np.array([-1], np.int32)),
}


@pytest.mark.parametrize("name", SAMPLES)
def test_a_request_comes_back_as_it_was(tmp_path: Path, name: str) -> None:
    folder = RunFolder.create(tmp_path, "m", RUN)
    folder.begin_level(0, Concurrency(1), 1)
    folder.add(SAMPLES[name])
    folder.close()
    with_reader = RunFolder.open(folder.path)
    (found,) = exchanges(with_reader, 0)
    with_reader.close()
    same(found, SAMPLES[name])


@given(
    st.lists(st.integers(0, 2**62), max_size=20),
    st.lists(st.integers(0, 10**9), min_size=20, max_size=20),
    st.lists(st.integers(1, 9), min_size=20, max_size=20),
    st.integers(0, 2**62),
)
def test_any_times_and_tokens_come_back(
    tmp_path_factory: pytest.TempPathFactory, times: list[int], earlier: list[int], tokens: list[int], sent: int
) -> None:
    hi = np.sort(np.asarray(times, np.int64))
    x = msgspec.structs.replace(
        exchange(),
        hi_ns=hi,
        lo_ns=hi - np.asarray(earlier[: len(hi)], np.int64),
        tokens=np.asarray(tokens[: len(hi)], np.float32),
        output_tokens=sum(tokens[: len(hi)]),
        lag_ns=np.asarray(earlier, np.int32),
        sent_ns=sent,
    )
    folder = RunFolder.create(tmp_path_factory.mktemp("any"), "m", RUN)
    folder.add(x)
    (found,) = exchanges(folder, 0)
    folder.close()
    same(found, x)


def test_levels_windows_and_pulses_come_back(tmp_path: Path) -> None:
    folder = RunFolder.create(tmp_path, "m", RUN)
    folder.begin_level(0, Concurrency(8), 100)
    folder.set_window(0, Window(200, 300))
    folder.begin_level(1, Rate(2.5, "gamma", 2.0), 400)
    folder.set_window(1, Window(500, 600), "duration", ("worker 0 ended: signal 9", "worker 1 ended"))
    folder.begin_level(2, Rate(5.0), 700)
    folder.add_beat(beat(1))
    folder.add_beat(beat(1, 2))
    for level in (0, 1, 1):
        folder.add(msgspec.structs.replace(SAMPLES["plain"], level=level))
    folder.close()
    folder = RunFolder.open(folder.path)
    first, second, third = folder.levels()
    assert (first.load, first.window, first.ended_by) == (Concurrency(8), Window(200, 300), "interrupted")
    assert second.load == Rate(2.5, "gamma", 2.0)
    assert (second.ended_by, second.died) == ("duration", ("worker 0 ended: signal 9", "worker 1 ended"))
    assert (third.window.seconds, third.died) == (0.0, ())
    assert [len(list(exchanges(folder, n))) for n in (0, 1, 2)] == [1, 2, 0]
    # What only the running worker needs is not kept.
    kept = msgspec.structs.replace(beat(1), oldest_ns=ABSENT, turned=0)
    assert folder.beats(1) == [msgspec.structs.replace(kept, now_ns=2), kept]
    assert folder.run() == RUN
    folder.close()


def test_a_trace_from_the_store_equals_the_trace_it_came_from(tmp_path: Path) -> None:
    folder = RunFolder.create(tmp_path, "m", RUN)
    for x in SAMPLES.values():
        folder.add(x)
    stored, kept = trace_of(list(exchanges(folder, 0))), trace_of(list(SAMPLES.values()))
    read = folder.trace(0)
    folder.close()
    for name in stored.__slots__:
        assert np.array_equal(getattr(stored, name), getattr(kept, name)), name
        assert np.array_equal(getattr(read, name), getattr(kept, name)), name
    assert read.coalesced_reads.sum() == 1
    assert read.refusals == (SAMPLES["failed"].detail,)


def test_columns_are_in_the_order_sent_whatever_order_requests_ended_in(tmp_path: Path) -> None:
    folder = RunFolder.create(tmp_path, "m", RUN)
    late, early = exchange(30, [40, 50, 60], index=1), exchange(10, [20], index=0)
    lost = exchange(20, error="reset", index=2)
    for x in (late, lost, early, msgspec.structs.replace(early, level=1)):
        folder.add(x)
    found, none = folder.trace(0, open_loop=True), folder.trace(7)
    folder.close()
    assert found.index.tolist() == [0, 2, 1]
    assert found.error.tolist() == ["", "reset", ""]
    assert (found.hi_ns // 1_000_000).tolist() == [20, 40, 50, 60]
    assert found.offsets.tolist() == [0, 1, 1, 4]
    assert found.exact
    assert found.open_loop
    assert (len(none), len(none.lag_ns), none.refusals) == (0, 0, ())


def test_a_finished_run_is_one_database_file(tmp_path: Path) -> None:
    folder = RunFolder.create(tmp_path, "m", RUN)
    folder.add(SAMPLES["plain"])
    folder.close()
    assert sorted(p.name for p in folder.path.iterdir()) == ["run.db", "run.json"]


WRITER = """
import os, sys
from pathlib import Path
sys.path[:0] = [sys.argv[2]]
from support.servers import exchange
from pacemark.pace import Concurrency
from pacemark.runs.folder import RunFolder
folder = RunFolder.create(Path(sys.argv[1]), "killed", {"command": "x"})
folder.begin_level(0, Concurrency(1), 1)
for i in range(100):
    folder.add(exchange(i, [i + 10], index=i))
folder.commit(at_once=True)
for i in range(100, 150):
    folder.add(exchange(i, [i + 10], index=i))
print(folder.path, flush=True)
sys.stdin.read()
"""


def test_a_killed_writer_loses_only_what_it_had_not_committed(tmp_path: Path) -> None:
    process = subprocess.Popen(
        [sys.executable, "-c", WRITER, str(tmp_path), str(Path(__file__).parents[1])],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env=os.environ | {"PYTHONPATH": os.pathsep.join(p for p in sys.path if p)},
    )
    with process:
        assert process.stdout
        path = Path(process.stdout.readline().strip())
        alive = RunFolder.open(path)
        assert len(list(exchanges(alive, 0))) == 100  # it can be read while it is written
        alive.close()
        process.send_signal(signal.SIGKILL)
    folder = RunFolder.open(path)
    assert [x.index for x in exchanges(folder, 0)] == list(range(100))
    assert folder.levels()[0].load == Concurrency(1)
    with pytest.raises(BadInput, match="pacemark report"):
        folder.summary()
    folder.close()


def test_commits_come_by_the_clock(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    now = [100.0]
    monkeypatch.setattr("pacemark.runs.folder.time.monotonic", lambda: now[0])
    folder = RunFolder.create(tmp_path, "m", RUN)

    def visible() -> int:
        other = sqlite3.connect(folder.path / "run.db")
        count = other.execute("SELECT count(*) FROM request").fetchone()[0]
        other.close()
        return int(count)

    folder.commit()
    folder.add(SAMPLES["plain"])
    now[0] += 0.3
    folder.commit()
    assert visible() == 0
    now[0] += 0.3
    folder.commit()
    assert visible() == 1
    folder.close()


def test_a_reader_does_not_stop_the_writer_from_closing(tmp_path: Path) -> None:
    folder = RunFolder.create(tmp_path, "m", RUN)
    folder._db.execute("PRAGMA busy_timeout=100")
    folder.add(SAMPLES["plain"])
    folder.commit(at_once=True)
    reader = RunFolder.open(folder.path)
    rows = exchanges(reader, 0)
    next(rows)
    folder.add(SAMPLES["coalesced"])
    folder.close()
    rows.close()  # type: ignore[attr-defined]
    reader.close()
    again = RunFolder.open(folder.path)
    assert len(list(exchanges(again, 0))) == 2
    again.close()


# --- folders


def test_names_are_safe_and_never_taken_twice(tmp_path: Path) -> None:
    paths = []
    for slug in ("../../etc/Model: a/b", "../../etc/Model: a/b", "", "..", "\u4e16"):
        folder = RunFolder.create(tmp_path / "runs", slug, RUN)
        folder.close()
        paths.append(folder.path)
    assert len(set(paths)) == 5
    assert all(p.parent == tmp_path / "runs" for p in paths)
    assert paths[0].name.endswith("-etc-model-a-b")


def test_a_folder_that_cannot_be_made(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(BadInput, match=r"--out .*file: cannot write there \(it is a file\); name a folder"):
        RunFolder.create(tmp_path / "file", "m", RUN)
    for out in (tmp_path / "file" / "below", Path("/proc/nowhere")):
        with pytest.raises(BadInput, match="--out"):
            RunFolder.create(out, "m", RUN)


def test_a_place_where_nothing_may_be_written_is_no_bad_input(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(*_: object, **__: object) -> None:
        raise OSError(errno.EROFS, "Read-only file system")

    monkeypatch.setattr(Path, "mkdir", refused)
    with pytest.raises(RunFailed, match=r"--out .*: cannot write there \(Read-only file system\)") as said:
        RunFolder.create(tmp_path, "m", RUN)
    assert said.value.__context__ is None


def test_the_newest_of_several_runs_is_opened(tmp_path: Path) -> None:
    for name in ("20260101T000000Z-b", "20260102T000000Z-a"):
        made = RunFolder.create(tmp_path, "m", {"name": name})
        made.close()
        made.path.rename(tmp_path / name)
    folder = RunFolder.open(tmp_path)
    assert folder.run() == {"name": "20260102T000000Z-a"}
    folder.close()


def test_what_is_no_run_is_refused_and_left_alone(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="no run"):
        RunFolder.open(tmp_path / "nothing")
    with pytest.raises(BadInput, match="no run"):
        RunFolder.open(tmp_path)
    (tmp_path / "run.json").write_text("{}")
    with pytest.raises(BadInput, match=r"no run\.db"):
        RunFolder.open(tmp_path)
    assert [p.name for p in tmp_path.iterdir()] == ["run.json"]
    (tmp_path / "run.db").write_bytes(b"this is not a database" * 100)
    with pytest.raises(BadInput, match="cannot be read"):
        RunFolder.open(tmp_path)


def test_a_summary_of_another_schema_is_refused(tmp_path: Path) -> None:
    folder = RunFolder.create(tmp_path, "m", RUN)
    folder.write_summary(Summary(target={}, workload={}, levels=[]))
    assert folder.summary() == Summary(target={}, workload={}, levels=[])
    (folder.path / "summary.json").write_text('{"levels": 3}')
    with pytest.raises(BadInput, match="schema"):
        folder.summary()
    folder.close()


# --- export


@pytest.fixture
def stored(tmp_path: Path) -> Path:
    folder = RunFolder.create(tmp_path, "m", RUN)
    folder.begin_level(0, Concurrency(2), 1)
    folder.set_window(0, Window(5 * MS, 45 * MS), "duration")
    for x in SAMPLES.values():
        folder.add(x)
    folder.begin_level(1, Rate(3.0), 1)
    folder.set_window(1, Window(0, 1), "duration")
    folder.add(exchange(150, [350], scheduled_ms=100, level=1))
    folder.close()
    return folder.path


def test_a_csv_has_a_row_per_request_and_blanks_for_what_is_not(stored: Path) -> None:
    with export(stored, "csv").open(newline="") as file:
        rows: list[dict[str, Any]] = list(csv.DictReader(file))
    assert len(rows) == len(SAMPLES) + 1
    plain, failed, unstreamed, due = rows[0], rows[4], rows[5], rows[-1]
    assert (plain["ttft_ms"], plain["tpot_ms"], plain["latency_ms"], plain["in_window"]) == (
        "190.0", "20.0", "230.0", "True",
    )  # fmt: skip
    assert (failed["error"], failed["ttft_ms"], failed["in_window"]) == ("http_429", "", "False")
    assert (unstreamed["ttft_ms"], unstreamed["latency_ms"]) == ("", "240.0")
    assert (due["load_kind"], due["ttft_ms"], due["send_delay_ms"]) == ("rate", "250.0", "50.0")
    assert rows[6]["input_tokens"] == ""


def test_parquet_holds_the_same(stored: Path, tmp_path: Path) -> None:
    parquet = needed("pyarrow.parquet")
    table = parquet.read_table(export(stored, "parquet", tmp_path / "x.parquet")).to_pydict()
    assert table["ttft_ms"][:3] == [190.0, 180.0, 170.0]
    assert table["ttft_ms"][5] is None
    assert table["load_value"][-1] == 3.0


def test_an_export_that_cannot_be(stored: Path, tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="csv, parquet"):
        export(stored, "xlsx")
    with pytest.raises(BadInput, match="cannot write"):
        export(stored, "csv", tmp_path / "no" / "such" / "x.csv")


def test_a_run_stored_before_quotas_were_looked_at_can_be_read(tmp_path: Path) -> None:
    folder = RunFolder.create(tmp_path, "m", RUN)
    folder.begin_level(0, Concurrency(1), 1)
    folder.add_beat(beat())
    folder.close()
    with sqlite3.connect(folder.path / "run.db") as db:
        db.execute("ALTER TABLE health DROP COLUMN throttled_ns")
    (found,) = RunFolder.open(folder.path).beats(0)
    assert (found.stall_ns, found.throttled_ns) == (12, 0)


def test_output_is_given_when_it_came_also_where_events_hold_unequal_numbers_of_tokens(tmp_path: Path) -> None:
    folder = RunFolder.create(tmp_path, "m", RUN)
    folder.begin_level(0, Concurrency(1), 1)
    kept = [SAMPLES[name] for name in ("plain", "uneven tokens", "several tokens an event", "failed", "uneven tokens")]
    for x in kept:
        folder.add(x)
    folder.close()
    stored = RunFolder.open(folder.path)
    (session,) = stored.sessions()
    ((times, tokens),) = stored.output(session)
    stored.close()
    assert times.tolist() == [200 * MS, 220 * MS, 240 * MS, *[200 * MS, 220 * MS] * 3]
    assert tokens.tolist() == [1, 1, 1, 3, 1, 2.5, 2.5, 3, 1]


def test_a_run_of_a_later_version_is_not_read_as_one_of_this(tmp_path: Path) -> None:
    folder = RunFolder.create(tmp_path, "late", RUN)
    path = folder.path
    folder.close()
    summary = (GOLDEN / "summary.json").read_text()
    (path / "summary.json").write_text(summary.replace("pacemark/summary/1", "pacemark/summary/2"))
    (path / "run.json").write_text('{"schema": "pacemark/run/2"}')
    opened = RunFolder.open(path)
    with pytest.raises(BadInput, match="it is of pacemark/summary/2, and this is pacemark/summary/1"):
        opened.summary()
    with pytest.raises(BadInput, match="it is of pacemark/run/2, and this is pacemark/run/1"):
        opened.run()
    opened.close()


def test_a_run_without_its_requests_is_not_gone_on_with(tmp_path: Path) -> None:
    folder = RunFolder.create(tmp_path, "x", RUN)
    folder.close()
    for file in folder.path.glob("run.db*"):
        file.unlink()
    with pytest.raises(BadInput, match=r"is no whole run: there is no run\.db in it"):
        RunFolder.again(folder.path)
    assert not list(folder.path.glob("run.db*"))
