"""Helpers for tests that use pacemark from outside: its command line, and small servers for it to meet."""

from __future__ import annotations

import json
import os
import re
import sqlite3
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, NamedTuple

JSON = dict[str, Any]
SHORT = ("--duration", "0.5", "--input-tokens", "32", "--output-tokens", "8")
"""Flags of a run that takes about a second."""


def pacemark(*words: object, timeout: float = 60.0, **more: Any) -> subprocess.CompletedProcess[str]:
    """Run the command line to its end."""
    return subprocess.run(**_call(words, more), capture_output=True, text=True, timeout=timeout)


@contextmanager
def started(*words: object, **more: Any) -> Iterator[subprocess.Popen[str]]:
    """The command line while it runs, its output piped; killed at the end if it has not ended by itself."""
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE} | more
    with subprocess.Popen(**_call(words, pipes), text=True) as process:
        try:
            yield process
        finally:
            process.kill()


def _call(words: tuple[object, ...], more: JSON) -> JSON:
    env = {k: v for k, v in os.environ.items() if k != "PACEMARK_API_KEY"}
    paths = os.pathsep.join(path for path in sys.path if path)
    args = [sys.executable, "-m", "pacemark.cli", *map(str, words)]
    given = more.pop("env", {})
    return {"args": args, "stdin": subprocess.DEVNULL, "env": env | {"PYTHONPATH": paths} | given, **more}


def assert_refused(done: subprocess.CompletedProcess[str], *parts: str, code: int = 2) -> None:
    """One line on standard error that holds `parts`, nothing on standard output, and the exit code.

    Where the order itself was in order, lines before it say that the endpoint is being met, and for how long by now.
    """
    assert done.returncode == code, done.stderr
    assert done.stdout == ""
    assert done.stderr.endswith("\n")
    ready, _, rest = done.stderr.partition("; getting ready\n")
    said = re.sub(r"^waiting for .*\n", "", rest, flags=re.MULTILINE) if "\n" not in ready and rest else done.stderr
    assert said.count("\n") == 1, done.stderr
    assert said.startswith("pacemark: ")
    for part in parts:
        assert part in said


def only_run(out: Path) -> Path:
    """The one run folder below `out`."""
    (folder,) = out.iterdir()
    return folder


def stored_requests(out: Path) -> int:
    """Requests of levels that the runs below `out` have committed so far."""
    total = 0
    for path in out.glob("*/run.db"):
        with closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True)) as db:
            try:
                total += db.execute("SELECT count(*) FROM request WHERE level >= 0").fetchone()[0]
            except sqlite3.OperationalError:  # its tables are not there yet
                continue
    return total


class Asked(NamedTuple):
    """A request as a small server sees it; `number` counts from 0."""

    number: int
    path: str
    headers: dict[str, str]
    body: JSON


class Reply(NamedTuple):
    """What a small server sends back."""

    status: int
    body: bytes
    kind: str = "application/json"


def as_json(value: object, status: int = 200) -> Reply:
    """A JSON answer."""
    return Reply(status, json.dumps(value).encode())


def prompt_tokens(asked: Asked) -> int:
    """As many tokens as a chat prompt has words."""
    return len(asked.body["messages"][0]["content"].split())


def streamed(asked: Asked, words: int = 8) -> Reply:
    """A whole chat answer as an event stream, sent at once."""
    chunks: list[JSON] = [{"choices": [{"delta": {"content": f"word{n} "}}]} for n in range(words)]
    chunks.append({"choices": [{"delta": {}, "finish_reason": "length"}]})
    chunks.append({"choices": [], "usage": {"prompt_tokens": prompt_tokens(asked), "completion_tokens": words}})
    lines = [f"data: {json.dumps(chunk)}\n\n" for chunk in chunks]
    return Reply(200, "".join([*lines, "data: [DONE]\n\n"]).encode(), "text/event-stream")


class _Quiet(ThreadingHTTPServer):
    """Says nothing of clients that leave, on the standard error that tests look at."""

    def handle_error(self, request: object, client_address: object) -> None:
        if not isinstance(sys.exception(), ConnectionError):
            super().handle_error(request, client_address)  # type: ignore[arg-type]


@contextmanager
def server(answer: Callable[[Asked], Reply]) -> Iterator[str]:
    """An HTTP server on a free port that answers every POST by `answer`; yields its base URL."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        wbufsize = -1  # head and body leave together

        def do_POST(self) -> None:
            data = self.rfile.read(int(self.headers["Content-Length"]))
            with lock:
                number, self.server.asked = self.server.asked, self.server.asked + 1  # type: ignore[attr-defined]
            reply = answer(Asked(number, self.path, dict(self.headers.items()), json.loads(data)))
            self.send_response(reply.status)
            self.send_header("Content-Type", reply.kind)
            self.send_header("Content-Length", str(len(reply.body)))
            self.end_headers()
            self.wfile.write(reply.body)

        def log_message(self, format: str, *args: object) -> None: ...

    lock = threading.Lock()
    with _Quiet(("127.0.0.1", 0), Handler) as httpd:
        httpd.asked = 0  # type: ignore[attr-defined]
        httpd.daemon_threads = True
        httpd.block_on_close = False
        thread = threading.Thread(target=httpd.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        try:
            yield f"http://127.0.0.1:{httpd.server_port}/v1"
        finally:
            httpd.shutdown()
            thread.join()
