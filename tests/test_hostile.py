"""A server that wishes its client ill: markup, terminal escapes and megabytes in every place that it may fill.

Whatever shows something of a run is looked at: the terminal, a page in a browser, a notebook, and every export.
"""

from __future__ import annotations

import contextlib
import json
import os
import pty
import re
import shutil
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import NamedTuple
from xml.etree import ElementTree

import pytest
from playwright.sync_api import Browser, sync_playwright
from prometheus_client.openmetrics.parser import text_string_to_metric_families

import pacemark
from pacemark.runs.viewer import Viewer
from support.cli_tools import only_run, started
from support.inside import inside
from support.needed import missing

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
MARKUP = "</script><script>window.hit=1</script><img src=x onerror=window.hit=2>"
ESCAPES = "\x1b]0;owned\x07\x1b[2J\x1b[31m\x9b5m\x08\u202e\r\n"
HOSTILE = f"{MARKUP}{ESCAPES}[a](javascript:alert(1)) `|`"
IN_A_HEADER = "".join(c for c in HOSTILE if " " <= c <= "\xff")
"""Other bytes end the request: the answer is not HTTP."""
LONG = "x" * 10_000_000
OURS = re.compile(rb"\x1b\[(\?25[lh]|[0-9;]*[mKA]|2K|1A)")
"""What a live display writes by itself."""


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server_version, sys_version = IN_A_HEADER, ""

    def do_GET(self) -> None:
        self.reply(200, json.dumps({"object": "list", "data": [{"id": HOSTILE, "owned_by": HOSTILE}]}).encode())

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["Content-Length"]))
        with LOCK:
            self.server.asked = number = getattr(self.server, "asked", 0) + 1  # type: ignore[attr-defined]
        if number > 5 and number % 4 == 0:
            error = {"message": HOSTILE + LONG, "type": HOSTILE, "code": HOSTILE}
            return self.reply(429 if number % 8 else 500, json.dumps({"error": error}).encode())
        text = LONG if number == 7 else HOSTILE
        chunk = {"model": HOSTILE, "system_fingerprint": HOSTILE, "choices": [{"delta": {"content": text}}]}
        finish = HOSTILE if number > 5 and number % 4 == 1 else "length"
        last = {
            "choices": [{"delta": {}, "finish_reason": finish}],
            "usage": {"prompt_tokens": 9, "completion_tokens": 4},
        }
        events = [chunk] * 4 + [last]
        body = b"".join(b"data: %b\n\n" % json.dumps(event).encode() for event in events) + b"data: [DONE]\n\n"
        return self.reply(200, body, "text/event-stream")

    def reply(self, status: int, body: bytes, kind: str = "application/json") -> None:
        self.send_response(status, IN_A_HEADER)
        for name in ("served-model-name", "x-request-id", "retry-after", "openai-processing-ms", "x-envoy-upstream"):
            self.send_header(name, IN_A_HEADER)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        with contextlib.suppress(OSError):
            self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None: ...


LOCK = threading.Lock()


@contextlib.contextmanager
def hostile() -> Iterator[str]:
    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as httpd:
        httpd.daemon_threads = True
        serving = threading.Thread(target=httpd.serve_forever)
        serving.start()
        yield f"http://127.0.0.1:{httpd.server_port}/v1"
        httpd.shutdown()
        serving.join()


@pytest.fixture
def endpoint() -> Iterator[str]:
    with hostile() as url:
        yield url


class Measured(NamedTuple):
    folder: Path
    screen: bytes
    """All that was written to the terminal."""


@pytest.fixture(scope="module")
def measured(tmp_path_factory: pytest.TempPathFactory) -> Measured:
    """A sweep in a terminal of 80 columns."""
    cwd = tmp_path_factory.mktemp("hostile")
    ours, theirs = pty.openpty()
    env = {"TERM": "xterm-256color", "COLUMNS": "80", "LINES": "24"}
    short = ("--duration", "1s", "--input-tokens", "8", "--output-tokens", "4")
    words = ("--concurrency", "1,2", *short)
    with (
        hostile() as endpoint,
        started("sweep", endpoint, *words, cwd=cwd, env=env, stdout=theirs, stderr=theirs) as process,
    ):
        os.close(theirs)
        written = b""
        with contextlib.suppress(OSError):  # the other end is closed
            while block := os.read(ours, 65536):
                written += block
        process.wait(60)
    os.close(ours)
    assert process.returncode in (0, 3), written[-2000:]
    return Measured(only_run(cwd / "runs"), written)


def harmless(text: bytes) -> None:
    """Nothing in it but text and what a live display writes by itself."""
    rest = OURS.sub(b"", text).replace(b"\r\n", b"").replace(b"\n", b"").replace(b"\r", b"").decode()
    assert [c for c in rest if not c.isprintable()] == []
    assert len(text) < 200_000


@pytest.mark.slow(shared=True)
@pytest.mark.xdist_group("hostile")
def test_the_terminal_keeps_its_title_its_colours_and_its_lines(measured: Measured) -> None:
    harmless(measured.screen)
    assert b"tok/s" in measured.screen


@pytest.mark.slow(shared=True)
@pytest.mark.parametrize(
    "words",
    [("show",), ("show", "--detail"), ("list",), ("report",), ("compare", "RUN"), ("export", "--format", "csv")],
)
def test_commands_that_look_back(measured: Measured, words: tuple[str, ...]) -> None:
    place = measured.folder.parent if words[0] == "list" else measured.folder
    done = inside(words[0], place, *(measured.folder if word == "RUN" else word for word in words[1:]))
    assert done.returncode in (0, 3), done.stderr
    harmless(done.stdout.encode() + done.stderr.encode())


def test_a_first_look_at_the_endpoint(endpoint: str) -> None:
    for words, code in ((("check", endpoint), 0), (("run", endpoint, "--model", "other", "--concurrency", "0"), 2)):
        done = inside(*words)
        assert done.returncode == code, done.stderr
        harmless(done.stdout.encode() + done.stderr.encode())


@pytest.mark.slow(shared=True)
@pytest.mark.xdist_group("hostile")
def test_exports_can_be_read(measured: Measured, tmp_path: Path) -> None:
    for name in ("openmetrics", "junit", "markdown", "guidellm", "aiperf", "csv"):
        done = inside("export", measured.folder, "--format", name, "--output", tmp_path / name)
        assert done.returncode == 0, done.stderr
    assert list(text_string_to_metric_families((tmp_path / "openmetrics").read_text()))  # type: ignore[no-untyped-call]
    assert ElementTree.parse(tmp_path / "junit").getroot().tag == "testsuites"
    assert json.loads((tmp_path / "guidellm").read_bytes())["benchmarks"]
    text = (tmp_path / "markdown").read_text()
    harmless(text.encode())
    assert "<script" not in text
    assert not re.search(r"(?<!\\)\[a\]\(", text)
    assert sum(path.stat().st_size for path in tmp_path.rglob("*") if path.is_file()) < 5_000_000


@pytest.mark.slow(shared=True)
@pytest.mark.xdist_group("hostile")
def test_a_notebook_shows_text_alone(measured: Measured) -> None:
    shown = pacemark.load(measured.folder)._repr_mimebundle_()
    assert "<script" not in shown["text/html"]
    assert "<img" not in shown["text/html"]
    harmless(shown["text/plain"].encode())
    harmless(repr(pacemark.load(measured.folder)).encode())


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    if CHROMIUM is None:
        missing("chromium")
    with sync_playwright() as playwright:
        yield playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])


def opened(browser: Browser, url: str, wait: str) -> None:
    """Open a page: nothing that came from outside ran, and nothing was asked for elsewhere."""
    page = browser.new_page()
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    page.goto(url)
    page.wait_for_selector(wait)
    assert page.evaluate("window.hit") is None
    assert page.locator("img").count() == 0
    assert [x for x in asked if not x.startswith(("file:", "data:", "blob:", url.partition("?")[0]))] == []
    page.close()


@pytest.mark.slow(shared=True)
def test_pages_run_nothing_but_their_own(browser: Browser, measured: Measured, tmp_path: Path) -> None:
    run = measured.folder
    assert (run / "report.html").stat().st_size < 5_000_000
    opened(browser, (run / "report.html").as_uri(), "svg")
    opened(browser, Path(pacemark.together([run, run], output=tmp_path / "both.html")).as_uri(), "svg")
    opened(browser, Path(pacemark.index(run.parent)).as_uri(), "h1")


@pytest.mark.slow(shared=True)
@pytest.mark.xdist_group("hostile")
def test_the_live_page_too(browser: Browser, measured: Measured) -> None:
    viewer = Viewer(measured.folder, port=0)
    serving = threading.Thread(target=viewer.serve)
    serving.start()
    try:
        opened(browser, viewer.url, "#levels td")
    finally:
        viewer.close()
        serving.join()
