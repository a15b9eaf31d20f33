"""Requests say which run they are of; a run beside the tables that its service kept of it."""

from __future__ import annotations

import csv
import datetime
import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import pytest

import pacemark
from pacemark.endpoint.tags import body_tags, header_tags, request_id
from pacemark.errors import BadInput
from pacemark.runs.bench import Bench
from pacemark.runs.folder import RunFolder
from pacemark.runs.usage import beside, beside_in_words
from pacemark.version import __version__
from support.inside import inside
from support.needed import needed
from support.servers import event
from support.workspaces import NAME, QUICK, TARGET, no_settings, workspace

pytestmark = [
    pytest.mark.usefixtures("no_connections_left"),
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
    pytest.mark.filterwarnings(f"ignore:{NAME} :UserWarning"),
]


@pytest.fixture
def run(stored_run: Path) -> Path:
    """A stored run whose wall clock is known: its monotonic clock shifted by a thousand seconds."""
    file = stored_run / "run.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"began": [0, AHEAD_NS]}))
    return stored_run


AHEAD_NS = 1_790_000_000 * 10**9


def rows_of(run: Path, **more: Any) -> list[dict[str, Any]]:
    """Three rows in the window of each level, one long after, and one of somebody else."""
    folder = RunFolder.open(run)
    windows = [level.window for level in folder.levels()]
    folder.close()
    times = [w.start_ns + n * (w.end_ns - w.start_ns) // 4 for w in windows for n in (1, 2, 3)]
    own: dict[str, Any] = {
        "client_request_id": request_id(run.name),
        "status_code": 200,
        "input_tokens": 40,
        "output_tokens": 8,
    }
    rows = [own | {"time_to_first_byte_ms": 30.0 + n % 3, "at_ns": at} for n, at in enumerate(times)]
    rows += [own | {"at_ns": times[-1] + 10**13}, own | {"client_request_id": "of-somebody", "at_ns": times[0]}]
    return [
        {k: v for k, v in row.items() if k != "at_ns"} | {"at": (row["at_ns"] + AHEAD_NS) / 1e9} | more for row in rows
    ]


@pytest.mark.slow(shared=True)
def test_rows_belong_to_the_level_in_whose_window_they_lie(run: Path, tmp_path: Path) -> None:
    pyarrow, parquet = needed("pyarrow"), needed("pyarrow.parquet")
    rows = [
        {k: v for k, v in row.items() if k != "at"}
        | {"event_time": datetime.datetime.fromtimestamp(row["at"], datetime.UTC)}
        for row in rows_of(run)
    ]
    parquet.write_table(pyarrow.Table.from_pylist(rows), tmp_path / "usage.parquet")
    found = beside(run, tmp_path / "usage.parquet")
    assert (found.matched_by, found.rows) == ("tag", 13)
    assert [level.requests for level in found.levels] == [3, 3, 3, 3]
    assert {level.first_byte_ms_p50 for level in found.levels} == {31.0}
    assert {(level.input_tokens, level.output_tokens) for level in found.levels} == {(40.0, 8.0)}
    assert all(level.ttft_ms_p50 and level.measured_requests > 3 for level in found.levels)
    said = list(beside_in_words(found))
    assert said[0].startswith("13 rows of the run, found by tag")
    assert said[1].startswith("concurrency 1: requests 3 / ")
    shown = inside("report", run, "--join", tmp_path / "usage.parquet", "--json")
    assert json.loads(shown.stdout)["levels"][0]["requests"] == 3, shown.stderr


def test_other_tables_are_read_by_their_own_names(run: Path, tmp_path: Path) -> None:
    """An inference table as CSV, its request time as text and in UTC, without a tag but with the user agent."""
    file = tmp_path / "payload.csv"
    with file.open("w", newline="") as stream:
        writer = csv.DictWriter(stream, ["request_time", "execution_duration_ms", "user_agent", "status_code"])
        writer.writeheader()
        for n, row in enumerate(rows_of(run)):
            at = datetime.datetime.fromtimestamp(row["at"], datetime.UTC).strftime("%Y-%m-%d %H:%M:%S.%f")
            writer.writerow(
                {
                    "request_time": at,
                    "execution_duration_ms": 100,
                    "user_agent": "pacemark/0.2.0",
                    "status_code": 429 if n == 0 else 200,
                }
            )
    found = beside(run, file)
    assert found.matched_by == "user agent"
    assert found.levels[0].requests == 3  # four, of which one was turned away
    assert (found.levels[1].latency_ms_p50, found.levels[1].first_byte_ms_p50) == (100.0, None)


def test_what_cannot_be_joined(run: Path, stored_run: Path, tmp_path: Path) -> None:
    file = tmp_path / "other.csv"
    file.write_text("client_request_id,event_time\nsomebody,2026-11-01T00:00:00\n")
    with pytest.raises(BadInput, match="holds no request of"):
        beside(run, file)
    with pytest.raises(BadInput, match="no such file"):
        beside(run, tmp_path / "gone.parquet")
    bad = tmp_path / "bad.parquet"
    bad.write_bytes(b"no parquet")
    with pytest.raises(BadInput, match="is no Parquet file"):
        beside(run, bad)
    record = stored_run / "run.json"
    record.write_text(json.dumps({k: v for k, v in json.loads(record.read_text()).items() if k != "began"}))
    with pytest.raises(BadInput, match="does not know its wall clock"):
        beside(stored_run, file)


class TestTags:
    @pytest.fixture(autouse=True)
    def no_configuration(self, monkeypatch: pytest.MonkeyPatch) -> None:
        no_settings(monkeypatch)

    @pytest.mark.slow(shared=True)
    def test_requests_say_which_run_they_are_of(self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
        """Where fields are refused that are not known, these are taken; they are no part of the workload."""
        bodies: list[Any] = []
        real = Bench.prepare

        def noted(self: Any) -> None:
            real(self)
            bodies.append(json.loads(self._template))

        monkeypatch.setattr(Bench, "prepare", noted)
        with workspace(monkeypatch):
            run = pacemark.run(TARGET, concurrency=1, duration=0.5, out=tmp_path, **QUICK)
        assert body_tags(run.path.name).items() <= bodies[0].items()
        assert run.summary.workload["extra"] == {}
        assert json.loads((run.path / "run.json").read_text())["began"][0] > 0

    @pytest.mark.slow(shared=True)
    def test_an_endpoint_that_does_not_know_them_is_asked_without(
        self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
    ) -> None:
        with workspace(monkeypatch, strict=True):
            run = pacemark.run(TARGET, concurrency=1, duration=0.5, out=tmp_path, **QUICK)
        assert run.levels[0].requests.failed == 0

    def test_the_gateway_gets_them_as_a_header(self) -> None:
        assert json.loads(header_tags("x")["Databricks-Ai-Gateway-Request-Tags"]) == {"pacemark_run": "x"}

    @pytest.mark.slow(shared=True)
    @pytest.mark.filterwarnings("ignore")
    def test_what_a_gateway_wrote_down_stands_beside_what_was_measured(
        self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
    ) -> None:
        """A gateway that keeps its own usage table, by its own clock and tags, as real requests come to it."""
        arrow, parquet = needed("pyarrow"), needed("pyarrow.parquet")
        with gateway() as (root, rows):
            monkeypatch.setenv("DATABRICKS_HOST", root)
            monkeypatch.setenv("DATABRICKS_TOKEN", "dapi-anything")
            run = pacemark.run(
                "databricks:/ai-gateway/mlflow/v1",
                model="main.chat.bot",
                concurrency=2,
                duration=2.0,
                out=tmp_path,
                **QUICK,
            )
        assert {tuple(row["request_tags"].items()) for row in rows} == {(("pacemark_run", run.path.name),)}
        assert {row["user_agent"].split()[0] for row in rows} == {f"pacemark/{__version__}"}
        rows += [row | {"request_tags": {"team": "a"}, "output_tokens": 900} for row in rows]  # of somebody else
        tags = arrow.map_(arrow.string(), arrow.string())
        table = arrow.Table.from_pylist(
            [row | {"request_tags": list(row["request_tags"].items())} for row in rows],
            arrow.schema([(name, tags if name == "request_tags" else kind) for name, kind in kinds(arrow)]),
        )
        parquet.write_table(table, tmp_path / "usage.parquet")
        shown = inside("report", run.path, "--join", tmp_path / "usage.parquet", "--json")
        found = json.loads(shown.stdout)
        (level,) = found["levels"]
        assert (found["matched_by"], found["rows"]) == ("tag", len(rows) // 2)
        assert abs(level["requests"] - level["measured_requests"]) <= 2
        assert level["input_tokens"] == pytest.approx(level["measured_input_tokens"])
        assert level["output_tokens"] == level["measured_output_tokens"] == 8
        assert 20 <= level["first_byte_ms_p50"] <= level["ttft_ms_p50"]
        assert 40 <= level["latency_ms_p50"] <= level["measured_latency_ms_p50"]


def kinds(arrow: Any) -> list[tuple[str, Any]]:
    """Columns of system.ai_gateway.usage."""
    numbers = ("input_tokens", "output_tokens", "latency_ms", "time_to_first_byte_ms", "status_code")
    words = ("user_agent", "destination_model", "request_tags")
    at = ("event_time", arrow.timestamp("us", tz="UTC"))
    return [at, *((name, arrow.int64()) for name in numbers), *((name, arrow.string()) for name in words)]


@contextmanager
def gateway() -> Iterator[tuple[str, list[dict[str, Any]]]]:
    """A host with a chat route that takes 20 ms to its first byte and 20 ms more, and the rows of its usage table."""
    rows: list[dict[str, Any]] = []

    class Gateway(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            begun, at = time.monotonic(), datetime.datetime.now(datetime.UTC)
            asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            prompt, count = len(asked["messages"][0]["content"].split()), asked.get("max_tokens", 8)
            piece = event({"choices": [{"delta": {"content": "word "}}]})
            usage = {"prompt_tokens": prompt, "completion_tokens": count, "total_tokens": prompt + count}
            ending = (
                event({"choices": [{"delta": {}, "finish_reason": "length"}], "usage": usage}) + b"data: [DONE]\n\n"
            )
            time.sleep(0.02)
            first_ms = int((time.monotonic() - begun) * 1e3)
            self.send_response(200)
            self.send_header("Content-Type", "text/event-stream")
            self.send_header("Content-Length", str(count * len(piece) + len(ending)))
            self.end_headers()
            self.wfile.write(piece)
            time.sleep(0.02)
            latency_ms = int((time.monotonic() - begun) * 1e3)
            rows.append(
                {
                    "event_time": at, "input_tokens": prompt, "output_tokens": count, "latency_ms": latency_ms,
                    "time_to_first_byte_ms": first_ms, "status_code": 200, "destination_model": asked["model"],
                    "user_agent": self.headers["User-Agent"],
                    "request_tags": json.loads(self.headers["Databricks-Ai-Gateway-Request-Tags"]),
                }
            )  # fmt: skip
            self.wfile.write((count - 1) * piece + ending)

        def do_GET(self) -> None:
            self.send_response(404)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, format: str, *args: Any) -> None:
            """Nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Gateway)
    thread = Thread(target=server.serve_forever, args=(0.05,), daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}", rows
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
