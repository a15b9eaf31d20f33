"""How commands end before their time: signals, a full disk, an output that nobody reads, and this machine's limits."""

from __future__ import annotations

import json
import os
import resource
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from pacemark import ending, machine
from pacemark.errors import BadInput, RunFailed
from pacemark.simulator import Served, serving
from support.cli_tools import Asked, Reply, only_run, pacemark, server, started, stored_requests, streamed
from support.processes import alive, family
from support.sampled import first
from support.waiting import wait_for

LONG = ("--concurrency", 4, "--duration", 60, "--output-tokens", 8)
SHORT = ("--concurrency", 2, "--duration", "0.5", "--input-tokens", 16, "--output-tokens", 4)


@pytest.fixture(scope="module")
def endpoint() -> Iterator[Served]:
    with serving("demo") as served:
        yield served


# --- signals


def test_ctrl_c_while_the_command_line_loads_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "typer.py").write_text("import time; print('loading', flush=True); time.sleep(60)")
    paths = os.pathsep.join([str(tmp_path), *filter(None, sys.path)])
    command = [sys.executable, "-P", "-m", "pacemark", "check", "sim:demo"]
    env, pipe = os.environ | {"PYTHONPATH": paths}, subprocess.PIPE
    with subprocess.Popen(command, env=env, stdout=pipe, stderr=pipe, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "loading\n"
        process.send_signal(signal.SIGINT)
        assert process.communicate(timeout=60) == ("", "pacemark: stopped\n")
    assert process.returncode == 130


@pytest.mark.slow(shared=True)
@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGHUP, 129)])
def test_a_signal_ends_a_run_as_ctrl_c_does(tmp_path: Path, number: signal.Signals, code: int) -> None:
    own = tmp_path / "tmp"
    own.mkdir()
    with started("run", "sim:demo", *LONG, cwd=tmp_path, env={"TMPDIR": str(own)}) as process:
        wait_for(lambda: stored_requests(tmp_path / "runs") > 20, 60)
        ours = family(process.pid)
        process.send_signal(number)
        stdout, stderr = process.communicate(timeout=60)
    assert process.returncode == code, stderr
    folder = only_run(tmp_path / "runs")
    assert stderr.splitlines()[-1] == (
        f"pacemark: stopped; what had finished is in runs/{folder.name}; to go on: pacemark resume runs/{folder.name}"
    )
    assert "report: " in stdout
    assert {path.name for path in folder.iterdir()} == {"run.json", "run.db", "summary.json", "report.html"}
    assert len(ours) >= 3  # itself, a worker and the embedded endpoint
    wait_for(lambda: not any(map(alive, ours)))
    assert list(own.iterdir()) == []


def test_what_dies_leaves_nobody_and_no_file(tmp_path: Path) -> None:
    own = tmp_path / "tmp"
    own.mkdir()
    with started("run", "sim:demo", *LONG, cwd=tmp_path, env={"TMPDIR": str(own)}) as process:
        wait_for(lambda: stored_requests(tmp_path / "runs") > 20, 60)
        ours = family(process.pid)
        process.kill()
        process.communicate(timeout=30)
        wait_for(lambda: not any(map(alive, ours)))
    assert list(own.iterdir()) == []
    assert {path.name for path in only_run(tmp_path / "runs").iterdir()} >= {"run.json", "run.db"}


@pytest.mark.slow(shared=True)
@pytest.mark.parametrize("gone", ["run", "runs"])
def test_a_folder_that_vanishes_is_made_again_with_what_was_measured(tmp_path: Path, gone: str) -> None:
    runs = tmp_path / "runs"
    with started("run", "sim:demo", *LONG, cwd=tmp_path) as process:
        wait_for(lambda: stored_requests(runs) > 20, 60)
        folder, before = only_run(runs), stored_requests(runs)
        shutil.rmtree(folder if gone == "run" else runs)
        _, stderr = process.communicate(timeout=60)
    assert process.returncode == 3, stderr
    (line,) = [x for x in stderr.splitlines() if x.startswith("pacemark: ")]
    assert (
        line
        == f"pacemark: runs/{folder.name} was removed while it was written; what was measured is in runs/{folder.name}"
    )
    assert {path.name for path in folder.iterdir()} == {"run.json", "run.db", "summary.json", "report.html"}
    assert stored_requests(runs) >= before


@pytest.mark.slow(shared=True)
def test_a_folder_that_cannot_be_made_again_is_one_line(tmp_path: Path) -> None:
    runs = tmp_path / "runs"
    with started("run", "sim:demo", *LONG, cwd=tmp_path) as process:
        wait_for(lambda: stored_requests(runs) > 20, 60)
        shutil.rmtree(runs)
        runs.write_text("in the way")
        _, stderr = process.communicate(timeout=60)
    assert process.returncode == 3, stderr
    assert len([x for x in stderr.splitlines() if x.startswith("pacemark: ")]) == 1
    assert "Traceback" not in stderr


def test_a_second_ctrl_c_ends_at_once_and_leaves_nobody(tmp_path: Path) -> None:
    def slow(asked: Asked) -> Reply:
        time.sleep(0 if asked.number < 12 else 20)
        return streamed(asked)

    with (
        server(slow) as url,
        started("run", url, "--model", "m", *LONG[:4], "--timeout", 30, cwd=tmp_path) as process,
    ):
        wait_for(lambda: stored_requests(tmp_path / "runs") > 0, 60)
        ours = family(process.pid)
        # Whatever the first has begun, the second does not wait for it: the process stands still in between.
        process.send_signal(signal.SIGINT)
        time.sleep(0.4)
        process.send_signal(signal.SIGINT)
        process.communicate(timeout=30)
        assert process.returncode == 130
        wait_for(lambda: not any(map(alive, ours)))


def test_a_signal_that_comes_twice_at_a_time_is_one(tmp_path: Path) -> None:
    stop = ending.Stop()
    with pytest.raises(KeyboardInterrupt):
        stop.heed(signal.SIGTERM)
    stop.heed(signal.SIGTERM)  # as `timeout` sends it, to the process and to its group
    stop.heed(signal.SIGHUP)
    assert stop.code == 143


def test_handlers_are_given_back_and_ignored_signals_stay_ignored() -> None:
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    terminate = signal.getsignal(signal.SIGTERM)
    try:
        with ending.heeding_signals() as stop:
            assert signal.getsignal(signal.SIGHUP) is signal.SIG_IGN  # nohup
            assert signal.getsignal(signal.SIGTERM) == stop.heed
        assert signal.getsignal(signal.SIGTERM) == terminate
    finally:
        signal.signal(signal.SIGHUP, before)


# --- outputs


def shell(line: str, *words: object, cwd: Path, env: dict[str, str] | None = None) -> subprocess.CompletedProcess[str]:
    """A line of sh in which "$@" is pacemark with these words."""
    paths = os.pathsep.join(path for path in sys.path if path)
    command = ["sh", "-c", line, "sh", sys.executable, "-P", "-m", "pacemark.cli", *map(str, words)]
    env = os.environ | {"PYTHONPATH": paths} | (env or {})
    return subprocess.run(command, cwd=cwd, env=env, capture_output=True, text=True, timeout=120)


FULL = "pacemark: standard output cannot be written: No space left on device; what was stored is whole"


@pytest.mark.slow(shared=True)
@pytest.mark.parametrize(
    ("line", "code", "errors"),
    [
        ('exec "$@" >/dev/full', 3, [FULL]),
        ('exec "$@" <&- >&- 2>/dev/full', 0, []),
        ('"$@" 2>&1 | head -1; exit 0', 0, []),
    ],
)
def test_an_output_that_cannot_be_written_costs_no_run(
    endpoint: Served, tmp_path: Path, line: str, code: int, errors: list[str]
) -> None:
    done = shell(line, "run", endpoint.url, *SHORT, cwd=tmp_path)
    assert done.returncode == code, done.stderr
    assert [x for x in done.stderr.splitlines() if not x.endswith("; getting ready")] == errors
    assert (only_run(tmp_path / "runs") / "report.html").stat().st_size > 100_000


@pytest.mark.parametrize("words", first(1, ["--help", "show run"]))
def test_short_outputs_into_nothing(stored: Path, words: str) -> None:
    full = shell('exec "$@" >/dev/full', *words.split(), cwd=stored.parent)
    assert full.returncode == 3
    assert full.stderr == f"{FULL}\n"
    piped = shell('"$@" | true', *words.split(), cwd=stored.parent)
    assert (piped.returncode, piped.stderr) == (0, "")


@pytest.fixture
def stored(tmp_path: Path) -> Path:
    """The stored run of the golden tests, whose model has a name that ASCII has not."""
    folder = Path(shutil.copytree(Path(__file__).parent / "golden" / "run", tmp_path / "run"))
    path = folder / "summary.json"
    path.write_text(path.read_text().replace('"model": "demo-8b"', '"model": "通义🙂"'))
    return folder


def test_threads_that_never_end_do_not_keep_a_command_that_drew_from_ending(stored: Path) -> None:
    code = (
        "import atexit, sys, threading; from pacemark.cli import main; atexit.register(print, 'tidied');"
        "threading.Thread(target=threading.Event().wait).start(); main()"
    )
    command = [sys.executable, "-c", code, "report", str(stored)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    assert done.stdout.endswith("\ntidied\n")


@pytest.mark.slow(shared=True)
@pytest.mark.parametrize("encoding", ["ascii", "latin-1"])
def test_a_terminal_without_utf8(stored: Path, encoding: str) -> None:
    env = {"PYTHONIOENCODING": encoding, "LC_ALL": "C"}
    shown = pacemark("show", stored, "--detail", env=env)
    assert (shown.returncode, shown.stderr) == (0, "")
    assert "TTFT" in shown.stdout
    as_json = pacemark("show", stored, "--json", env=env)
    assert as_json.returncode == 0
    assert as_json.stdout.isascii()
    assert r'"model": "\u901a\u4e49\ud83d\ude42"' in as_json.stdout


def test_a_full_disk_is_one_line(endpoint: Served, tmp_path: Path) -> None:
    done = shell('ulimit -f 128; exec "$@"', "run", endpoint.url, "--concurrency", 32, "--duration", 8, cwd=tmp_path)
    assert done.returncode == 3, done.stderr
    (line,) = [x for x in done.stderr.splitlines() if x.startswith("pacemark: ")]
    assert line.startswith("pacemark: the run cannot be written below runs: ")
    assert "pacemark report runs" in line


def test_the_first_of_several_failures_to_store_is_told() -> None:
    def fail_twice() -> None:
        try:
            raise OSError(28, "No space left on device")
        finally:
            raise OSError(5, "Input/output error")

    def refuse() -> None:
        try:
            raise OSError(28, "No space left on device")
        except OSError:
            raise BadInput("--out here: cannot write there") from None

    with pytest.raises(RunFailed, match=r"below here: No space left on device;"), ending.storing("here"):
        fail_twice()
    with pytest.raises(RunFailed, match=r"Read-only file system; copy it to a folder"), ending.storing("here"):
        raise OSError(30, "Read-only file system")
    with pytest.raises(BadInput, match="cannot write there"), ending.storing("here"):
        refuse()
    with pytest.raises(FileNotFoundError), ending.storing("here"):
        raise FileNotFoundError(2, "No such file")


# --- this machine


def test_too_few_file_descriptors_are_said_before_the_start(tmp_path: Path) -> None:
    words = ("run", "http://127.0.0.1:9/v1", "--model", "m", "--concurrency", 128)
    done = shell('ulimit -n 64; exec "$@"', *words, cwd=tmp_path)
    assert done.returncode == 2
    assert "open 64 files" in done.stderr
    assert "ulimit -n" in done.stderr
    assert done.stderr.count("\n") == 1
    assert not (tmp_path / "runs").exists()


def test_a_soft_limit_is_raised_as_far_as_need_be() -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (200, hard))
        machine.room_for(300, workers=1)
        assert resource.getrlimit(resource.RLIMIT_NOFILE)[0] == 300 + machine.OWN_FILES
        assert machine.most_streams(100) == 100
        with pytest.raises(BadInput, match="ports"):
            machine.room_for(70_000, workers=100_000)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


@pytest.mark.slow(shared=True)
def test_the_embedded_endpoint_takes_two_files_for_a_stream(tmp_path: Path) -> None:
    words = ("run", "sim:demo", "--concurrency", 300, "--requests", 300, *SHORT[4:])
    done = shell('ulimit -n 500; exec "$@"', *words, cwd=tmp_path)
    assert done.returncode == 2
    assert "need 640" in done.stderr
    done = shell('ulimit -Sn 200; exec "$@"', *words, cwd=tmp_path)
    assert done.returncode in (0, 3), done.stderr  # a loaded machine may make the level invalid
    assert "Traceback" not in done.stderr
    assert json.loads((only_run(tmp_path / "runs") / "summary.json").read_bytes())["levels"][0]["errors"] == {}


def test_a_file_named_as_a_module_of_the_library_harms_nobody(tmp_path: Path) -> None:
    for name in ("random", "json", "typing", "numpy"):
        (tmp_path / f"{name}.py").write_text("raise SystemExit('not the one you meant')\n")
    program = "from pacemark.simulator import serving\nwith serving('demo') as served: print(served.model)"
    paths = os.pathsep.join(path for path in sys.path if path)
    command = [sys.executable, "-P", "-c", program]
    env = os.environ | {"PYTHONPATH": paths}
    done = subprocess.run(command, cwd=tmp_path, env=env, capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stdout) == (0, "demo-8b\n"), done.stderr
