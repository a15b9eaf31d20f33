"""The command line over real sockets; as a process where that is what is tested, within this one elsewhere."""

from __future__ import annotations

import csv
import fcntl
import json
import os
import pty
import re
import shutil
import signal
import struct
import subprocess
import sys
import termios
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from typer.main import get_command

from pacemark.cli import app
from pacemark.runs.folder import RunFolder
from pacemark.simulator import Served, serving
from support.cli_tools import (
    SHORT,
    Asked,
    Reply,
    as_json,
    assert_refused,
    only_run,
    pacemark,
    prompt_tokens,
    server,
    started,
    stored_requests,
    streamed,
)
from support.inside import inside
from support.needed import needed
from support.waiting import wait_for

KEY = "sk-live-4f9a7c2e8b1d6035"
COMMANDS: dict[str, Any] = vars(get_command(app))["commands"]
NOBODY = "http://127.0.0.1:9/v1"
"""The discard port: nothing listens there."""


@pytest.fixture(scope="module")
def endpoint() -> Iterator[Served]:
    with serving("demo") as served:
        yield served


# --- bad input: one line, exit code 2, no traceback


@pytest.mark.parametrize(
    ("words", "parts"),
    [
        (["check", NOBODY, "--model", "m"], ["no server at http://127.0.0.1:9/v1", "connection refused"]),
        (["run", NOBODY, "--model", "m", "--concurrency", "1"], ["no server at http://127.0.0.1:9/v1"]),
        (["check", "127.0.0.1:8000/v1"], ["must start with http://", "http://127.0.0.1:8000/v1"]),
        (["check", "ftp://host/v1"], ["'ftp://host/v1'", "http://host:8000/v1"]),
        (["check", "http://host:eighty/v1"], ["no usable port"]),
        (["check", "http://user:word@host/v1"], ["--api-key-env"]),
        (["check", "http://no-such-host.invalid/v1", "--model", "m"], ["no address for host 'no-such-host.invalid'"]),
        (["run", NOBODY], ["--concurrency N", "--rate R"]),
        (["run", NOBODY, "--concurrency", "1", "--rate", "1"], ["--concurrency N", "--rate R"]),
        (["run", NOBODY, "--concurrency", "0"], ["--concurrency 0", "at least 1"]),
        (["run", NOBODY, "--concurrency", "many"], ["--concurrency 'many'", "a whole number, such as 8"]),
        (["run", NOBODY, "--rate", "-2"], ["--rate -2", "above 0"]),
        (["run", NOBODY, "--rate", "2", "--arrivals", "bursty"], ["--arrivals 'bursty'", "poisson"]),
        (["sweep", NOBODY, "--concurrency", "1,two"], ["--concurrency '1,two'", "1,2,4,8"]),
        (["sweep", NOBODY, "--concurrency", "1,0"], ["--concurrency 0", "at least 1"]),
        (["sweep", NOBODY, "--output-tokens", "-1"], ["--output-tokens -1", "at least 1"]),
        (["sweep", NOBODY, "--input-tokens", "0"], ["--input-tokens 0", "at least 1"]),
        (["sweep", NOBODY, "--duration", "nan"], ["--duration nan", "above 0"]),
        (["sweep", NOBODY, "--workers", "some"], ["--workers 'some'", "auto"]),
        (["sweep", NOBODY, "--api", "chatty"], ["--api 'chatty'", "completions"]),
        (["sweep", NOBODY, "--header", "no colon"], ["--header", "Name: value"]),
        (["sweep", NOBODY, "--header", "Content-Length: 3"], ["--header Content-Length"]),
        (["sweep", NOBODY, "--wait", "soon"], ["--wait soon", "120s"]),
        (["run", NOBODY, "--concurrency", "1", "--stall-timeout", "0"], ["--stall-timeout 0", "above 0"]),
        (["find", NOBODY], ["'--budget'", "such as 'ttft p95 < 500ms"]),
        (["plan", "runs"], ["'--demand'", "'40 requests/s'"]),
        (["check"], ["'TARGET'", "http://host:8000/v1"]),
        (["find", NOBODY, "--budget", "x"], ["x"]),
        (["find", NOBODY, "--budget", "ttft p95 < 1s", "--most", "-1", "--max-tokens", "0"], ["--most -1"]),
        (
            ["find", NOBODY, "--budget", "ttft p95 < 1s", "--max-requests", "0", "--max-tokens", "0"],
            ["--max-requests 0"],
        ),
        (["find", NOBODY, "--budget", "ttft p95 < 1s", "--max-cost", "1"], ["--price-per-hour"]),
        (["run", NOBODY, "--concurrency", "40000000", "--workers", "1"], ["this machine", "open"]),
        (["run", NOBODY, "--concurrency", "40000000", "--workers", "4000000"], ["this machine", "ports"]),
        (["check", "http://host/v1#top"], ["fragment"]),
        (["check", "http://host/v1/embeddings", "--api", "completions"], ["--api completions"]),
        (["run", NOBODY, "--concurrency", "1", "--model", "m\udcff"], ["'m\\udcff'", "UTF-8"]),
        (["sweep", NOBODY, "--extra-body", "{"], ["--extra-body", "JSON object"]),
        (["sweep", NOBODY, "--extra-body", "[1]"], ["--extra-body", "JSON object"]),
        (["sweep", NOBODY, "--api-key-env", "NO_SUCH_KEY"], ["--api-key-env NO_SUCH_KEY", "not set"]),
        # Of a flag given twice the last counts, so that a script can put a user's words after its own.
        (["sweep", NOBODY, "--api-key-env", "HOME", "--api-key-env", "NO_KEY"], ["--api-key-env NO_KEY", "not set"]),
        (["sweep", NOBODY, "--ca-file", "no/such.pem"], ["--ca-file 'no/such.pem'"]),
        (["sweep", NOBODY, "--tokenizer", "no/such.json", "--model", "m"], ["--tokenizer no/such.json"]),
        (["sweep", NOBODY, "--concurency", "1"], ["--concurency", "--concurrency"]),
        (["sweep", NOBODY, "--concurrency"], ["--concurrency", "requires an argument"]),
        (["run", NOBODY, "--concurrency", "1", "--label", "a=1", "--label", "a=2"], ["--label a is given twice"]),
        (["run", NOBODY, "--concurrency", "1", "--budget", ""], ["--budget is empty"]),
        (["run", NOBODY, "--concurrency", "1", "--header="], ["--header is empty"]),
        (["show", ""], ["an empty word"]),
        (["find", "sim:demo", "--budget", "ttft p95 < 1s", "--budget=tpot p95 < 1s"], ["--budget is given twice"]),
        (["sweep"], ["TARGET"]),
        (["swep", NOBODY], ["'swep'", "'sweep'"]),
        (["sweep", "sim:no-such-preset"], ["'no-such-preset'", "demo"]),
        (["serve", "--port", "99999"], ["--port 99999", "between 0 and 65535"]),
        (["watch", "--port", "-1"], ["--port -1", "at least 0"]),
        (["watch", "--port", "99999"], ["--port 99999", "at most 65,535"]),
        (["calibrate", "--streams", "4,-1", "--json"], ["--streams -1", "at least 1"]),
        (["calibrate", "--workers", "0", "--json"], ["--workers 0", "at least 1"]),
        (["serve", "--preset", "no-such-preset"], ["'no-such-preset'", "demo"]),
        (["show", "no/such/run"], ["no/such/run", "no run"]),
        (["report", "no/such/run"], ["no/such/run", "no run"]),
        (["export", "no/such/run"], ["no/such/run", "no run"]),
        (["export", ".", "--format", "xml"], ["--format 'xml'", "use csv, parquet, openmetrics"]),
    ],
    ids=lambda value: " ".join(value).replace("/", "_") if value[0].islower() else "",
)
def test_bad_input_is_one_line_and_exit_code_2(words: list[str], parts: list[str], tmp_path: Path) -> None:
    assert_refused(inside(*words, cwd=tmp_path), *parts)
    assert not list(tmp_path.glob("runs/*"))


@pytest.mark.parametrize("name", COMMANDS)
def test_what_is_no_number_is_refused_in_words_of_our_own(name: str, tmp_path: Path) -> None:
    flags = [p.opts[0] for p in COMMANDS[name].params if p.type_descriptor.annotation in (int, float)]
    for flag in flags:
        assert_refused(inside(name, f"{flag}=many", cwd=tmp_path), f"{flag} 'many'", "number, such as")


def test_bad_input_of_a_process(tmp_path: Path) -> None:
    assert_refused(pacemark("run", NOBODY, cwd=tmp_path), "--concurrency N", "--rate R")


def test_an_unknown_model_shows_what_the_server_says(endpoint: Served, tmp_path: Path) -> None:
    done = inside("run", endpoint.url, "--model", "gpt-0", "--concurrency", 1, cwd=tmp_path)
    assert_refused(done, "The model `gpt-0` does not exist; this is `demo-8b`; check the URL", "404", "--model")
    assert not list(tmp_path.glob("runs/*"))


def test_a_401_names_the_flag_and_never_the_key(tmp_path: Path) -> None:
    def refuse(asked: Asked) -> Reply:
        return as_json({"error": {"message": f"invalid key {asked.headers['Authorization']}"}}, 401)

    with server(refuse) as url:
        words = ("sweep", url, "--model", "m", "--api-key-env", "SOME_KEY")
        done = inside(*words, env={"SOME_KEY": KEY}, cwd=tmp_path)
    assert_refused(done, "401", "invalid key ***", "--api-key-env")
    assert KEY not in done.stderr


def test_an_endpoint_that_does_not_stream(tmp_path: Path) -> None:
    def whole(asked: Asked) -> Reply:
        usage = {"prompt_tokens": prompt_tokens(asked), "completion_tokens": 1}
        return as_json({"choices": [{"message": {"content": "word"}, "finish_reason": "stop"}], "usage": usage})

    with server(whole) as url:
        done = inside("run", url, "--model", "m", "--concurrency", 1, cwd=tmp_path)
    assert_refused(done, "does not stream", "--no-stream")


def test_a_page_that_is_no_endpoint(tmp_path: Path) -> None:
    with server(lambda asked: Reply(200, b"<html>welcome</html>", "text/html")) as url:
        done = inside("check", url, "--model", "m", cwd=tmp_path)
    assert_refused(done, "is no chat endpoint", "--api")


def test_out_below_a_file_cannot_be_written(endpoint: Served, tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_text("in the way")
    done = inside("run", endpoint.url, "--concurrency", 1, "--out", file / "runs")
    assert_refused(done, f"--out {file}/runs", "Not a directory")


@pytest.mark.xdist_group("swept")
def test_export_to_a_path_that_cannot_be_written(swept: Swept, tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_text("in the way")
    assert_refused(inside("export", swept.folder, "--output", file / "x.csv"), "Not a directory")


# --- help


def test_without_a_word_it_shows_the_help() -> None:
    done = inside()
    assert done.returncode == 0
    assert done.stderr == ""
    for command in ("run", "sweep", "check", "demo", "show", "report", "export", "serve"):
        assert re.search(rf"^  {command} ", done.stdout, re.MULTILINE)
    assert done.stdout == inside("--help").stdout


def test_help_loads_nothing_heavy() -> None:
    env = os.environ | {"PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
    args = [sys.executable, "-X", "importtime", "-m", "pacemark.cli", "--help"]
    done = subprocess.run(args, env=env, capture_output=True, text=True, timeout=60)
    loaded = {line.rsplit("|", 1)[-1].strip() for line in done.stderr.splitlines()}
    assert "typer" in loaded
    heavy = {"numpy", "scipy", "altair", "vl_convert", "uvloop", "sqlite3", "rich.live", "rich.console"}
    assert not loaded & heavy


def test_a_python_without_docstrings_is_refused_before_anything_is_measured() -> None:
    args = [sys.executable, "-m", "pacemark.cli", "run", "sim:demo"]
    done = subprocess.run(args, env=os.environ | {"PYTHONOPTIMIZE": "2"}, capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stdout) == (2, "")
    assert "PYTHONOPTIMIZE" in done.stderr
    assert done.stderr.count("\n") == 1


# --- a whole sweep, with everything that is made of it


class Swept(NamedTuple):
    """A sweep that was run once for all the tests below."""

    done: subprocess.CompletedProcess[str]
    folder: Path
    url: str


@pytest.fixture(scope="module")
def swept(endpoint: Served, tmp_path_factory: pytest.TempPathFactory) -> Swept:
    out = tmp_path_factory.mktemp("sweep") / "runs of mine"
    keys = ("--api-key-env", "SOME_KEY", "--header", f"X-Also-Secret: {KEY}-2")
    words = ("sweep", endpoint.url, "--concurrency", "1,2", *SHORT, "--seed", 7, *keys, "--out", out, "--json")
    done = inside(*words, env={"SOME_KEY": KEY})
    assert done.returncode == 0, done.stderr
    return Swept(done, only_run(out), endpoint.url)


def trusted(swept: Swept, path: Path) -> tuple[Path, Any]:
    """A copy of the sweep, and its summary, none of whose levels was doubted, however busy the machine was."""
    shutil.copytree(swept.folder, path)
    summary = strict((path / "summary.json").read_bytes())
    for level in summary["levels"]:
        level["verdict"] = {**level["verdict"], "status": "valid"}
    (path / "summary.json").write_text(json.dumps(summary))
    return path, summary


def strict(text: str | bytes) -> Any:
    """JSON without NaN and infinity, which Python would read."""

    def refuse(constant: str) -> None:
        raise AssertionError(f"{constant} is no JSON")

    return json.loads(text, parse_constant=refuse)


FIGURE = {"value", "low", "high"}
SPREAD = {"p50", "p99", "max"}
QUANTILES = {"mean", "p50", "p90", "p95", "p99"}


@pytest.mark.xdist_group("swept")
class TestSweep:
    def test_json_alone_is_on_standard_output(self, swept: Swept) -> None:
        assert strict(swept.done.stdout) == strict((swept.folder / "summary.json").read_bytes())

    def test_the_summary_keeps_its_contract(self, swept: Swept) -> None:
        summary = strict((swept.folder / "summary.json").read_bytes())
        assert summary["schema"] == "pacemark/summary/1"
        assert summary["target"] == {"url": swept.url, "model": "demo-8b", "api": "chat"}
        assert summary["workload"]["input_tokens"] == 32
        assert [x["load"] for x in summary["levels"]] == [{"kind": "concurrency", "value": n} for n in (1, 2)]
        for level in summary["levels"]:
            assert level["window_s"] == pytest.approx(0.5)
            assert {"completed", "failed", "in_window"} <= level["requests"].keys()
            assert level["requests"]["completed"] >= level["requests"]["in_window"] > 0
            assert level["errors"] == {}
            for name in ("output_tokens_per_s", "total_tokens_per_s", "requests_per_s"):
                assert level[name].keys() == FIGURE
                assert level[name]["value"] > 0
            for name in ("ttft_ms", "tpot_ms", "itl_ms", "latency_ms"):
                assert level[name].keys() >= QUANTILES
                assert all(level[name][q].keys() == FIGURE for q in QUANTILES)
                assert level[name]["mean"]["value"] > 0
            assert level["client"]["clock"] in ("kernel", "user")
            assert level["client"]["lag_ms"].keys() == SPREAD
            assert {"cpu_us_per_event", "coalesced_share"} <= level["client"].keys()
            assert level["verdict"]["status"] in ("valid", "suspect", "invalid")
            assert all(reason.keys() == {"code", "message"} for reason in level["verdict"]["reasons"])
        points = summary["operating_points"]
        assert points.keys() == {"lowest_latency", "balanced", "within_budget", "highest_throughput"}
        assert points["within_budget"] is None
        assert all(point.keys() == {"load", "output_tokens_per_s", "why"} for point in points.values() if point)

    def test_the_run_folder_is_complete(self, swept: Swept) -> None:
        names = {path.name for path in swept.folder.iterdir()}
        assert names == {"run.json", "run.db", "summary.json", "report.html"}
        assert re.fullmatch(r"\d{8}T\d{6}Z-[a-z0-9.-]+", swept.folder.name)
        run = strict((swept.folder / "run.json").read_bytes())
        assert run["workload"]["seed"] == 7
        assert run["command"].startswith(f"pacemark sweep {swept.url} --concurrency 1,2")
        assert "'X-Also-Secret: ***'" in run["command"]
        assert run["interrupted"] is False

    def test_no_secret_is_anywhere(self, swept: Swept) -> None:
        assert KEY not in swept.done.stdout + swept.done.stderr
        for path in swept.folder.iterdir():
            assert KEY.encode() not in path.read_bytes(), path.name

    def test_progress_is_plain_lines_without_a_terminal(self, swept: Swept) -> None:
        warning, *lines = swept.done.stderr.splitlines()
        assert warning.startswith("warning: --header X-Also-Secret: ")
        assert re.fullmatch(rf"{swept.url}: 2 levels of [\d.]+ s; getting ready", lines[0])
        assert [line.split()[0] for line in lines[1:]] == ["concurrency", "1", "2"]  # for JSON follows, and no table

    def test_show_tells_what_the_run_told(self, swept: Swept) -> None:
        shown = inside("show", swept.folder)
        assert shown.returncode == 0
        assert shown.stderr == ""
        assert all(len(line) <= 80 for line in shown.stdout.splitlines() if not line.startswith("report: "))
        assert "TTFT" in shown.stdout
        assert "Verdict" in shown.stdout
        assert "output tokens/s" in shown.stdout
        assert inside("show", swept.folder, "--json").stdout == swept.done.stdout

    def test_the_detailed_view_reconciles_with_other_tools(self, swept: Swept) -> None:
        shown = inside("show", swept.folder, "--detail")
        assert shown.returncode == 0, shown.stderr
        plain = inside("show", swept.folder).stdout
        assert shown.stdout.startswith(plain)
        detail = shown.stdout.removeprefix(plain)
        assert all(len(line) <= 80 for line in detail.splitlines())
        for part in ("MLPerf certified", "to the headers", "to the first event of any kind", "first answer token",
                     "from when it was due", "longest stall", "fluidity", "words per minute", "Little's law",
                     "independent ones", "ended by its duration"):  # fmt: skip
            assert detail.count(part) >= 2, part
        # A p99 of some dozen requests is a bound and no point.
        assert re.search(r"TTFT p99 +> \d", detail)

    def test_a_run_does_not_differ_from_itself(self, swept: Swept, tmp_path: Path) -> None:
        run, _ = trusted(swept, tmp_path / "run")
        done = inside("compare", run, run, "--json", "--fail-if", "ttft p50 > +1%")
        assert done.returncode == 4, done.stderr  # so few requests cannot tell 1%
        assert "warning: A and B are the same run" in done.stderr
        levels = strict(done.stdout)["levels"]
        assert [x["load"]["value"] for x in levels] == [1, 2]
        verdicts = {m["verdict"] for x in levels for m in x["metrics"].values()}
        assert verdicts <= {"no difference shown", "undecidable"}

    def test_a_condition_that_surely_holds_is_exit_code_1(self, swept: Swept, tmp_path: Path) -> None:
        slower, summary = trusted(swept, tmp_path / "slower")
        for level, factor in zip(summary["levels"], (1.0, 1.5), strict=True):
            level["output_tokens_per_s"] = {"value": 100 / factor, "low": 99 / factor, "high": 101 / factor}
        (slower / "summary.json").write_text(json.dumps(summary))
        done = inside("compare", slower, slower, "--fail-if", "throughput < -5%")
        assert done.returncode == 0, done.stderr
        same = tmp_path / "same"
        shutil.copytree(slower, same)
        assert "same run" not in inside("compare", slower, same).stderr
        for level in summary["levels"]:
            level["output_tokens_per_s"] = {"value": 100.0, "low": 99.0, "high": 101.0}
        (same / "summary.json").write_text(json.dumps(summary))
        done = inside("compare", same, slower, "--fail-if", "throughput < -5%")
        assert done.returncode == 1
        assert done.stderr.startswith("pacemark: throughput < -5%: concurrency 2: -33.3% (")
        assert done.stderr.count("\n") == 1
        assert "lower" in done.stdout
        assert inside("compare", same, slower, "--fail-if", "throughput < -50%").returncode == 0

    def test_the_newest_of_a_folder_of_runs_is_shown(self, swept: Swept) -> None:
        assert inside("show", swept.folder.parent, "--json").stdout == swept.done.stdout

    def test_a_report_made_anew_is_the_same(self, swept: Swept) -> None:
        before = strict(swept.done.stdout)
        (swept.folder / "report.html").unlink()
        done = inside("report", swept.folder, "--json")
        assert done.returncode == 0, done.stderr
        assert (swept.folder / "report.html").stat().st_size > 100_000
        after = strict(done.stdout)
        assert after["operating_points"] == before["operating_points"]
        for old, new in zip(before["levels"], after["levels"], strict=True):
            for name in ("load", "window_s", "errors", "output_tokens_per_s", "ttft_ms", "tpot_ms", "itl_ms"):
                assert new[name] == old[name], name

    def test_export_to_csv(self, swept: Swept) -> None:
        done = inside("export", swept.folder)
        assert done.stdout == f"{swept.folder}/requests.csv\n"
        with (swept.folder / "requests.csv").open(newline="") as file:
            rows = list(csv.DictReader(file))
        (swept.folder / "requests.csv").unlink()
        summary = strict(swept.done.stdout)
        counted = [level["requests"]["in_window"] for level in summary["levels"]]
        counts = [sum(r["load_value"] == n and r["in_window"] == "True" for r in rows) for n in ("1", "2")]
        assert counts == counted
        assert all(float(r["ttft_ms"]) > 0 and float(r["latency_ms"]) > 0 for r in rows if not r["error"])

    def test_export_to_parquet(self, swept: Swept, tmp_path: Path) -> None:
        parquet = needed("pyarrow.parquet")
        path = tmp_path / "some.parquet"
        done = inside("export", swept.folder, "--format", "parquet", "--output", path)
        assert done.stdout == f"{path}\n", done.stderr
        table = parquet.read_table(path)
        assert table.num_rows == stored_requests(swept.folder.parent)
        assert set(table.column("load_value").to_pylist()) == {1, 2}
        tpot_ms = [value for value in table.column("tpot_ms").to_pylist() if value is not None]
        # On a busy machine an answer can come in one read, whose events came at one time.
        assert min(tpot_ms) >= 0 < max(tpot_ms)


# --- failures under way


def test_a_key_that_the_server_repeats_is_not_kept(tmp_path: Path) -> None:
    def flaky(asked: Asked) -> Reply:
        if asked.number < 8 or asked.number % 2:
            return streamed(asked)
        return as_json({"error": {"message": f"{'x' * (260 + asked.number * 7 % 60)} {asked.headers['X-Key']}"}}, 500)

    with server(flaky) as url:
        words = ("run", url, "--model", "m", "--concurrency", 2, *SHORT, "--header", f"X-Key: {KEY}")
        done = inside(*words, cwd=tmp_path)
    assert done.returncode == 3, done.stderr  # half of the requests failed, so the level is invalid
    assert "http_500" in done.stdout
    assert KEY[:8] not in done.stdout + done.stderr
    folder = only_run(tmp_path / "runs")
    assert b"xxx ***" in (folder / "run.db").read_bytes()
    for path in folder.iterdir():
        assert KEY[:8].encode() not in path.read_bytes(), path.name


def test_an_endpoint_that_fails_every_request_is_given_up(tmp_path: Path) -> None:
    def doomed(asked: Asked) -> Reply:
        return streamed(asked) if asked.number < 6 else as_json({"error": {"message": "out of memory"}}, 503)

    with server(doomed) as url:
        done = inside("run", url, "--model", "m", "--concurrency", 8, "--duration", 20, cwd=tmp_path)
    assert done.returncode == 3
    assert done.stdout == ""
    assert "http_503" in done.stderr.splitlines()[-1]
    assert "out of memory" in done.stderr.splitlines()[-1]
    assert "Traceback" not in done.stderr


def test_ctrl_c_keeps_what_had_finished(endpoint: Served, tmp_path: Path) -> None:
    words = ("run", endpoint.url, "--concurrency", 4, "--duration", 60, "--output-tokens", 8, "--json")
    with started(*words, cwd=tmp_path) as process:
        wait_for(lambda: stored_requests(tmp_path / "runs") > 20)
        process.send_signal(signal.SIGINT)
        stdout, stderr = process.communicate(timeout=60)
    assert process.returncode == 130
    folder = only_run(tmp_path / "runs")
    assert stderr.splitlines()[-1] == (
        f"pacemark: stopped; what had finished is in runs/{folder.name}; to go on: pacemark resume runs/{folder.name}"
    )
    summary = strict(stdout)
    assert summary["run"]["interrupted"] is True
    (level,) = summary["levels"]
    assert level["requests"]["completed"] >= 20
    assert 0 < level["window_s"] < 30
    assert level["output_tokens_per_s"]["value"] > 0
    assert "interrupted" in (folder / "report.html").read_text()
    again = inside("show", folder)
    assert again.returncode == 0


@pytest.mark.slow(shared=True)
def test_ctrl_c_between_two_levels_keeps_the_first(
    endpoint: Served, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    begin = RunFolder.begin_level

    def cut_off(folder: RunFolder, level: int, *rest: Any) -> None:
        begin(folder, level, *rest)
        if level == 1:
            raise KeyboardInterrupt

    monkeypatch.setattr(RunFolder, "begin_level", cut_off)
    words = ("--concurrency", "1,2", "--duration", "0.3", "--output-tokens", 4)
    done = inside("sweep", endpoint.url, *words, cwd=tmp_path)
    assert done.returncode == 130, done.stderr
    assert "to go on: pacemark resume" in done.stderr
    folder = only_run(tmp_path / "runs")
    (level,) = strict((folder / "summary.json").read_text())["levels"]
    assert level["load"]["value"] == 1
    monkeypatch.undo()
    assert inside("resume", folder).returncode == 0
    assert len(strict((folder / "summary.json").read_text())["levels"]) == 2


def test_ctrl_c_before_the_first_level_leaves_nothing(tmp_path: Path) -> None:
    def slow(asked: Asked) -> Reply:
        time.sleep(3)
        return streamed(asked)

    words = ("--model", "m", "--concurrency", 1)
    with server(slow) as url, started("run", url, *words, cwd=tmp_path) as process:
        wait_for(lambda: list(tmp_path.glob("runs/*/run.json")))
        time.sleep(0.2)
        process.send_signal(signal.SIGINT)
        stdout, stderr = process.communicate(timeout=30)
    assert process.returncode == 130
    assert stdout == ""
    assert stderr == f"{url}: a level of 20 s; getting ready\npacemark: stopped\n"
    assert not list(tmp_path.glob("runs/*"))


@pytest.mark.slow
def test_a_killed_run_can_be_reported(endpoint: Served, tmp_path: Path) -> None:
    words = ("run", endpoint.url, "--concurrency", 4, "--duration", 60, "--output-tokens", 8)
    with started(*words, cwd=tmp_path) as process:
        wait_for(lambda: stored_requests(tmp_path / "runs") > 40)
        process.kill()
    kept = stored_requests(tmp_path / "runs")
    assert_refused(inside("show", cwd=tmp_path), "cut off", "pacemark report")
    done = inside("report", "--json", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    (level,) = strict(done.stdout)["levels"]
    assert level["requests"]["completed"] == kept
    assert 0 < level["window_s"] < 30
    assert not [reason for reason in level["verdict"]["reasons"] if reason["code"] == "underfilled"]
    assert inside("show", "--json", cwd=tmp_path).stdout == done.stdout


# --- other ways to ask


@pytest.mark.parametrize(("precision", "longest_s", "ended"), [("95%", 30, "precision"), ("0.01%", 2, "max_duration")])
@pytest.mark.slow
def test_what_ended_a_level_is_said(
    endpoint: Served, tmp_path: Path, precision: str, longest_s: int, ended: str
) -> None:
    flags = ("--precision", precision, "--max-duration", longest_s, "--input-tokens", "32", "--output-tokens", "4")
    done = inside("run", endpoint.url, "--concurrency", "8", *flags, "--out", tmp_path)
    assert done.returncode == 0, done.stderr
    summary = strict((only_run(tmp_path) / "summary.json").read_bytes())
    assert summary["levels"][0]["ended_by"] == ended
    words = {"precision": "ended by its precision", "max_duration": "ended by its longest duration"}
    detail = inside("show", only_run(tmp_path), "--detail").stdout
    assert words[ended] in " ".join(detail.split())
    assert words[ended].replace("ended", "Ended") in (only_run(tmp_path) / "report.html").read_text()


def test_without_streaming_there_is_no_ttft(endpoint: Served, tmp_path: Path) -> None:
    words = ("run", endpoint.url, "--concurrency", 2, *SHORT, "--no-stream", "--api", "completions", "--json")
    done = inside(*words, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    (level,) = strict(done.stdout)["levels"]
    for name in ("ttft_ms", "tpot_ms", "itl_ms"):
        assert all(level[name][q] == {"value": None, "low": None, "high": None} for q in QUANTILES)
    assert level["latency_ms"]["mean"]["value"] > 0
    assert level["output_tokens_per_s"]["value"] > 0
    assert level["output_tokens"] == 8


def test_check_tells_what_the_endpoint_is(endpoint: Served, tmp_path: Path) -> None:
    done = inside("check", endpoint.url, "--json", cwd=tmp_path)
    found = strict(done.stdout)
    assert done.stderr == ""
    assert found["target"] == {"url": endpoint.url, "model": "demo-8b", "api": "chat"}
    assert found["streams"] is True
    assert found["reports_usage"] is True
    assert found["accepts"] == ["ignore_eos", "min_tokens"]
    assert found["metrics"] == [endpoint.url.replace("/v1", "/metrics")]
    assert found["input_tokens"] == pytest.approx(256, rel=0.1)
    assert found["output_tokens"] == 16
    assert 0 < found["ttft_ms"] < found["latency_ms"]
    assert not list(tmp_path.iterdir())
    text = inside("check", endpoint.url, cwd=tmp_path).stdout
    assert re.search(r"^output tokens +16$", text, re.MULTILINE)


def test_check_names_the_proxy_that_it_went_through(endpoint: Served, tmp_path: Path) -> None:
    place = endpoint.url.removesuffix("/v1")  # it takes a whole URL in the request line, as proxies do
    done = inside("check", "http://llm.invalid/v1", "--json", env={"http_proxy": place, "no_proxy": ""}, cwd=tmp_path)
    assert strict(done.stdout)["target"]["proxy"] == place.removeprefix("http://")


def test_serve_serves_until_it_is_stopped(tmp_path: Path) -> None:
    with started("serve", "--port", 0, cwd=tmp_path) as process:
        assert process.stdout is not None
        url = json.loads(process.stdout.readline())["url"]
        assert inside("check", url).returncode == 0
        process.send_signal(signal.SIGINT)
        assert process.communicate(timeout=60)[1] == ""
    assert process.returncode == 0


# --- on a terminal


def read_terminal(process: subprocess.Popen[str], side: int) -> str:
    """All that `process` wrote to its pseudo-terminal."""
    data = b""
    while True:
        try:
            part = os.read(side, 65536)
        except OSError:  # Linux reports the other side's end as an error
            break
        if not part:
            break
        data += part
    process.wait(timeout=30)
    return data.decode()


@pytest.mark.slow(shared=True)
def test_the_live_view_fits_80_columns(endpoint: Served, tmp_path: Path) -> None:
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 80, 0, 0))
    words = ("run", endpoint.url, "--concurrency", 16, "--duration", 1, "--output-tokens", 8)
    env = {"TERM": "xterm-256color", "COLUMNS": "", "NO_COLOR": "", "LC_ALL": "C.UTF-8"}
    with started(*words, cwd=tmp_path, env=env, stdout=theirs, stderr=theirs) as process:
        os.close(theirs)
        seen = read_terminal(process, ours)
        os.close(ours)
    assert process.returncode == 0, seen
    text = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", seen)
    lines = [part for line in text.split("\n") for part in line.split("\r")]
    assert any("measuring" in line and "concurrency 16" in line for line in lines)
    assert any("in flight" in line and "tok/s" in line for line in lines)
    long = [line for line in lines if len(line) > 80 and not line.startswith("report: ")]
    assert not long
    assert "\x1b[?25h" in seen  # the cursor is given back
