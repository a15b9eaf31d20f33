"""The live page of a run: what it tells while a run goes on and after, and whom it tells nothing."""

from __future__ import annotations

import http.client
import json
import shutil
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import sync_playwright

import pacemark
from pacemark.answers.step import Step
from pacemark.errors import BadInput
from pacemark.pace import Concurrency
from pacemark.reporting.live import live_script
from pacemark.runs.folder import RunFolder
from pacemark.runs.viewer import Viewer
from pacemark.runs.watching import SearchNow, run_now, watched_folder
from pacemark.summary import Probe, Spent
from support.inside import inside
from support.needed import missing
from support.waiting import wait_for

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")


@pytest.fixture
def viewer(stored_run: Path) -> Iterator[Viewer]:
    made = Viewer(stored_run, port=0)
    serving = threading.Thread(target=made.serve)
    serving.start()
    yield made
    made.close()
    serving.join()


def asked(viewer: Viewer, path: str, method: str = "GET", headers: Mapping[str, str] | None = None) -> tuple[int, Any]:
    connection = http.client.HTTPConnection("127.0.0.1", viewer.port, timeout=20)
    connection.request(method, path, headers=dict(headers or {}))
    answer = connection.getresponse()
    body = answer.read()
    connection.close()
    return answer.status, (answer.headers, body)


def test_a_finished_run_is_told_as_its_summary_has_it(stored_run: Path) -> None:
    summary = json.loads((stored_run / "summary.json").read_text())
    found = run_now(stored_run)
    assert found.ended == "completed"
    assert [x.phase for x in found.levels] == ["done"] * 4
    for told, level in zip(found.levels, summary["levels"], strict=True):
        assert told.output_tokens_per_s == pytest.approx(level["output_tokens_per_s"]["value"], rel=0.05)
        assert told.latency_ms_p50 == pytest.approx(level["latency_ms"]["p50"]["value"], rel=0.1)
    assert max(rate for _, rate, _ in found.series) > 100


def test_a_run_that_was_cut_off_says_so(stored_run: Path) -> None:
    run = json.loads((stored_run / "run.json").read_text())
    for name in ("ended", "interrupted", "failure"):
        run.pop(name, None)
    (stored_run / "run.json").write_text(json.dumps(run))
    assert run_now(stored_run).ended == "cut off"


@pytest.mark.slow(shared=True)
def test_a_run_is_followed_to_its_end_and_ends_as_one_file(tmp_path: Path) -> None:
    short: dict[str, Any] = {"concurrency": [1, 2], "duration": 1.5, "output_tokens": 8, "workers": 1, "out": tmp_path}
    running = threading.Thread(target=lambda: pacemark.sweep("sim:demo", **short))
    running.start()
    wait_for(lambda: any(tmp_path.glob("*/run.db-wal")))
    time.sleep(0.5)  # its tables are there
    folder, phases = watched_folder(tmp_path), set()
    while running.is_alive():
        now = run_now(folder)
        assert now.expected == 2
        phases |= {x.phase for x in now.levels}
        time.sleep(0.05)
    running.join()
    assert {"measuring", "done"} <= phases
    assert run_now(folder).ended == "completed"
    assert {path.name for path in folder.iterdir()} == {"report.html", "run.db", "run.json", "summary.json"}


@pytest.mark.parametrize(
    ("path", "method", "headers", "status"),
    [
        ("/?token={0}", "GET", {}, 200),
        ("/state", "GET", {"X-Token": "{0}"}, 200),
        ("/state", "GET", {"X-Token": "{0}", "Host": "localhost:9000"}, 200),
        ("/", "GET", {}, 403),
        ("/state?token=x{0}", "GET", {}, 403),
        ("/state?token={0}", "GET", {"Host": "evil.example"}, 403),
        ("/state?token={0}", "GET", {"Host": "127.0.0.1.evil.example:8787"}, 403),
        ("/run.db?token={0}", "GET", {}, 404),
        ("/../run.json?token={0}", "GET", {}, 404),
        ("/state?token={0}", "POST", {}, 501),
    ],
)
def test_who_may_ask(viewer: Viewer, path: str, method: str, headers: Mapping[str, str], status: int) -> None:
    given = {name: value.format(viewer.token) for name, value in headers.items()}
    found, (told, body) = asked(viewer, path.format(viewer.token), method, given)
    assert found == status
    if status == 200:
        assert told["Cache-Control"] == "no-store"
        assert "unsafe-eval" not in told["Content-Security-Policy"]
        assert "Access-Control-Allow-Origin" not in told
    elif status in (403, 404):
        assert viewer.token.encode() not in body


@pytest.mark.slow(shared=True)
def test_the_page_in_a_browser(viewer: Viewer) -> None:
    if CHROMIUM is None:
        missing("opening the page needs Chromium on the PATH")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox", "--disable-gpu"])
        page = browser.new_page(viewport={"width": 400, "height": 900})
        troubles: list[str] = []
        page.on("console", lambda message: troubles.append(message.text))
        page.on("pageerror", lambda error: troubles.append(str(error)))
        page.on("request", lambda request: troubles.append(request.url))
        for again in (False, True):
            page.reload() if again else page.goto(viewer.url)
            page.locator("#levels td").filter(has_text="concurrency 8").wait_for()
            page.locator("#curve svg text").filter(has_text="Output tokens/s").wait_for()
            assert "The run has ended" in page.locator("#now").inner_text()
            assert page.evaluate("document.documentElement.scrollWidth") <= 400
        assert [x for x in troubles if not x.startswith((f"http://127.0.0.1:{viewer.port}/", "data:,"))] == []
        assert Axe().run(page).response["violations"] == []
        browser.close()


def test_a_search_shows_where_its_answer_lies(stored_run: Path) -> None:
    first = Step(None, None, None, Concurrency(8), "to begin with", Spent(0, 0.0), None)
    probe = Probe(Concurrency(8), True, "ttft p95 is 9 ms")
    folder = RunFolder.again(stored_run)
    folder.begin_session()
    assert run_now(stored_run).search is None
    for step in (first, replace(first, probe=probe, low=8.0, high=33.0, next=Concurrency(16), why="between")):
        folder.add_step(step)
    folder.close()
    found = run_now(stored_run).search
    said = "the most lies between 8 and 33; next concurrency 16: between"
    assert found == SearchNow(8.0, 33.0, said, [(8.0, "met"), (16.0, "next")])


def test_what_cannot_be_watched(viewer: Viewer, tmp_path: Path) -> None:
    (tmp_path / "nothing").mkdir()
    done = inside("watch", tmp_path / "nothing")
    assert done.returncode == 2
    assert "is no run" in done.stderr
    with pytest.raises(BadInput, match="--port"):
        Viewer(tmp_path, port=viewer.port)


@pytest.mark.slow
def test_a_page_beside_a_run_ends_with_it(tmp_path: Path) -> None:
    """Asked for over its own address while the run goes on."""
    live_script()  # made once for a machine, which takes longer than the run
    words = ["--concurrency", "2", "--duration", "15", "--output-tokens", "8", "--out", str(tmp_path), "--live"]
    running = subprocess.Popen(
        [sys.executable, "-m", "pacemark.cli", "run", "sim:demo", *words],
        stderr=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    assert running.stderr is not None
    url = next(line for line in running.stderr if line.startswith(b"live: ")).decode().split()[1]
    with urllib.request.urlopen(url.replace("/?", "/state?"), timeout=20) as answer:
        told = json.load(answer)
    assert told["ended"] is None
    assert told["expected"] == 1
    _, rest = running.communicate(timeout=60)
    assert running.returncode == 0, rest
    with pytest.raises(urllib.error.URLError):
        urllib.request.urlopen(url, timeout=5)
    (folder,) = tmp_path.iterdir()
    assert not (folder / "run.db-wal").exists()
