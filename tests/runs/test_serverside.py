"""Whole runs beside their server's own metrics: the embedded endpoint's, whose truth is known."""

from __future__ import annotations

import http.client
import json
import socket
import threading
from contextlib import ExitStack
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import msgspec
import pytest

import pacemark
from pacemark.errors import BadInput
from pacemark.metered import Server, ServerRun
from pacemark.pace import Concurrency
from pacemark.reporting.charts.server import moments_part, phases_part
from pacemark.reporting.server import where_time_goes
from pacemark.simulator import Served, serving
from pacemark.summary import Level, Summary, Timeline

SHORT: Any = {"input_tokens": 32, "output_tokens": 8, "duration": 1.0}


def run_of(summary: Summary) -> ServerRun:
    assert isinstance(summary.server, ServerRun)
    return summary.server


@pytest.mark.slow(shared=True)
def test_client_and_server_agree_to_the_token(tmp_path: Path) -> None:
    run = pacemark.sweep("sim:demo", concurrency=[1, 4], metrics="auto", out=tmp_path, **SHORT)
    whole = run_of(run.summary)
    assert whole.engines == ["vLLM"]
    assert {check.what: check.agrees for check in whole.checks} == dict.fromkeys(
        ("requests", "input_tokens", "output_tokens"), True
    )
    for level in run.levels:
        assert isinstance(level.server, Server)
        assert level.server.phases.queue_ms is not None
        assert "other_traffic" not in {reason.code for reason in level.verdict.reasons}
    assert isinstance(run.summary.timeline, Timeline)
    moments = run.summary.timeline.server
    assert {moment.running for moment in moments} & {1.0, 4.0}
    assert {moment.preemptions for moment in moments} == {0.0}
    assert all(moment.power_w is None for moment in moments)
    charts = [*phases_part(run.summary, 400), *moments_part(run.summary, 400)]
    assert [chart.title.text for chart in charts] == [
        "Where the time goes", "Requests in the server", "KV cache in use, prefix hits",
    ]  # fmt: skip
    again = pacemark.report(run.path)  # the looks are stored
    assert run_of(again.summary) == whole
    for level, before in zip(again.levels, run.levels, strict=True):
        assert isinstance(level.server, Server)
        assert isinstance(before.server, Server)
        assert [check.server for check in level.server.checks] == [check.server for check in before.server.checks]


@pytest.mark.slow(shared=True)
def test_without_metrics_nothing_is_told(tmp_path: Path) -> None:
    run = pacemark.run("sim:demo", concurrency=1, out=tmp_path, **SHORT)
    stored = json.loads((run.path / "summary.json").read_text())
    assert "server" not in stored
    told = stored["levels"][0]["server"]  # by the answers themselves
    assert (told["engine"], told["looks"], told["kv_used"]) == ("its answers", 0, None)
    assert [check["agrees"] for check in told["checks"]] == [True]


def keep_asking(served: Served, stop: threading.Event) -> None:
    """A second client, one answer after the other."""
    url = urlsplit(served.url)
    body = {"model": served.model, "messages": [{"role": "user", "content": "a b c"}], "max_tokens": 20}
    while not stop.is_set():
        connection = http.client.HTTPConnection(str(url.hostname), url.port, timeout=20)
        connection.request("POST", "/v1/chat/completions", json.dumps(body), {"Content-Type": "application/json"})
        assert connection.getresponse().read()
        connection.close()


@pytest.mark.slow(shared=True)
def test_a_second_clients_traffic_is_found_and_named(tmp_path: Path) -> None:
    stop = threading.Event()
    with serving("demo") as served:
        other = threading.Thread(target=keep_asking, args=(served, stop))
        other.start()
        try:
            run = pacemark.run(served.url, concurrency=2, metrics="auto", out=tmp_path, **SHORT)
        finally:
            stop.set()
            other.join()
    (level,) = run.levels
    (reason,) = [reason for reason in level.verdict.reasons if reason.code == "other_traffic"]
    assert level.verdict.status != "valid"
    assert "for another client" in reason.message
    for check in run_of(run.summary).checks:
        assert check.agrees is False
        assert (check.server or 0) > (check.client or 0)


@pytest.mark.slow(shared=True)
def test_where_the_time_goes_is_said_by_load(tmp_path: Path) -> None:
    run = pacemark.sweep("sim:demo", concurrency=[2, 80], metrics="auto", out=tmp_path, **SHORT)
    said = where_time_goes(run.summary)
    assert said == "most of TTFT is prefill up to 2 parallel requests; from 80 parallel requests on it is queue"
    few, many = run.levels
    to_and_fro = [few, mixed(few), few, mixed(few), many]
    levels = [msgspec.structs.replace(x, load=Concurrency(2**n)) for n, x in enumerate(to_and_fro)]
    said = where_time_goes(msgspec.structs.replace(run.summary, levels=levels))
    assert said == "most of TTFT is prefill up to 4 parallel requests; from 16 parallel requests on it is queue"
    assert not phases_part(msgspec.structs.replace(run.summary, levels=[]), 400)


def mixed(level: Level) -> Level:
    """The level with as much of each phase as of any other."""
    server = server_of(level)
    alike = msgspec.structs.replace(server.phases, queue_ms=5.0, prefill_ms=5.0, network_ms=5.0)
    return msgspec.structs.replace(level, server=msgspec.structs.replace(server, phases=alike))


def server_of(level: Level) -> Server:
    assert isinstance(level.server, Server)
    return level.server


@pytest.mark.slow(shared=True)
@pytest.mark.parametrize("api", ["chat", "ollama"])
def test_each_answer_tells_of_its_own_times(tmp_path: Path, api: str) -> None:
    """TTFT = network and client + queue + prefill, of each request."""
    run = pacemark.run("sim:demo", concurrency=8, api=api, out=tmp_path, **SHORT)
    (level,) = run.levels
    assert isinstance(level.server, Server)
    (check,) = level.server.checks
    assert check.agrees is True
    phases = level.server.phases
    parts = [phases.client_ms, phases.network_ms, phases.queue_ms, phases.prefill_ms]
    assert sum(part for part in parts if part is not None) == pytest.approx(level.ttft_ms.mean.value, rel=1e-6)


@pytest.mark.slow(shared=True)
def test_a_server_that_is_waited_for_is_read_once_it_is_up(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    held = ExitStack()
    later = threading.Timer(1.0, lambda: held.enter_context(serving("demo", port=port)))
    later.start()
    try:
        run = pacemark.run(
            f"http://127.0.0.1:{port}/v1",
            model="demo-8b",
            concurrency=1,
            wait=30,
            metrics="auto",
            out=tmp_path,
            **SHORT,
        )
    finally:
        later.join()
        held.close()
    assert run_of(run.summary).engines == ["vLLM"]


@pytest.mark.slow(shared=True)
def test_a_map_names_what_is_not_known(tmp_path: Path) -> None:
    with serving("demo") as served:
        url = served.url.removesuffix("/v1") + "/metrics"
        own = "requests=vllm:request_success_total"
        run = pacemark.run(served.url, concurrency=1, metrics=[url], metrics_map=own, out=tmp_path, **SHORT)
    assert run_of(run.summary).engines == ["your map", "vLLM"]
    assert list(run.summary.run["access"]["metrics"]) == [url]


def test_a_map_without_a_place_to_read_is_refused() -> None:
    with pytest.raises(BadInput, match="--metrics-map names metrics that are to be read: give --metrics"):
        pacemark.run("sim:demo", concurrency=1, metrics_map="running=x")


@pytest.mark.slow(shared=True)
def test_no_metrics_to_be_found_are_no_failure(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    from support.cli_tools import server, streamed

    with server(streamed) as url:
        run = pacemark.run(url, model="m", concurrency=1, requests=3, metrics="auto", out=tmp_path, **SHORT)
    assert run.levels[0].requests.completed >= 3
    assert not run.summary.server


@pytest.mark.slow(shared=True)
def test_a_load_that_is_measured_twice_has_one_server(tmp_path: Path) -> None:
    run = pacemark.run("sim:demo", concurrency=2, repeats=2, metrics="auto", out=tmp_path, **SHORT)
    (level,) = run.levels
    assert level.repeats == 2
    assert isinstance(level.server, Server)
    assert level.server.seconds > 1.5  # two windows of a second
    assert level.server.phases.prefill_ms is not None
    assert level.server.running is not None
