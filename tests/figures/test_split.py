"""Split traffic, taken apart by the model that answered: from columns, and over real sockets."""

from __future__ import annotations

import itertools
import json
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import msgspec
import numpy as np
import pytest

import pacemark
from pacemark.figures.split import by_model
from pacemark.runs.folder import RunFolder
from pacemark.trace import trace_of
from support.inside import inside
from support.servers import exchange


def test_each_model_has_its_own_medians() -> None:
    rows = []
    for t in range(20):
        slow = 1 + t % 2
        row = exchange(t * 20, [t * 20 + 10 * slow, t * 20 + 15 * slow])
        rows.append(msgspec.structs.replace(row, served_by="ab"[t % 2]))
    trace = trace_of(rows)
    a, b = by_model(trace, np.ones(20, np.bool_))
    assert (a.model, a.requests, a.ttft_ms_p50, a.latency_ms_p50) == ("a", 10, 10.0, 15.0)
    assert (b.model, b.requests, b.ttft_ms_p50, b.latency_ms_p50) == ("b", 10, 20.0, 30.0)
    assert by_model(trace, trace.served_by == "a") == []


class TwoModels(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    turns = itertools.count()

    def do_POST(self) -> None:
        asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        slow = next(self.turns) % 2
        time.sleep(0.02 * slow)
        count = asked.get("max_tokens", 8)
        pieces: list[dict[str, Any]] = [{"choices": [{"delta": {"content": "word "}}]}] * count
        pieces.append({"choices": [{"delta": {}, "finish_reason": "length"}]})
        pieces.append({"choices": [], "usage": {"prompt_tokens": 16, "completion_tokens": count}})
        body = b"".join(b"data: " + json.dumps(piece).encode() + b"\n\n" for piece in pieces) + b"data: [DONE]\n\n"
        self.send_response(200)
        self.send_header("Content-Type", "text/event-stream")
        self.send_header("Content-Length", str(len(body)))
        self.send_header("served-model-name", "slow" if slow else "fast")
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: Any) -> None:
        """Nothing."""


@pytest.mark.slow(shared=True)
@pytest.mark.filterwarnings("ignore")
def test_over_real_sockets_and_from_the_folder(tmp_path: Path) -> None:
    server = ThreadingHTTPServer(("127.0.0.1", 0), TwoModels)
    thread = Thread(target=server.serve_forever, args=(0.05,), daemon=True)
    thread.start()
    try:
        url = f"http://127.0.0.1:{server.server_address[1]}/v1"
        run = pacemark.run(url, model="m", concurrency=1, duration=1.0, input_tokens=16, output_tokens=8, out=tmp_path)
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
    served = run.levels[0].served
    assert isinstance(served, list)
    fast, slow = served
    assert (fast.model, slow.model) == ("fast", "slow")
    assert abs(fast.requests - slow.requests) <= 2
    assert (slow.latency_ms_p50 or 0) > (fast.latency_ms_p50 or 0) + 15
    assert pacemark.report(run.path).levels[0].served == served
    folder = RunFolder.open(run.path)
    assert set(folder.trace(1).served_by) <= {"fast", "slow"} or set(folder.trace(0).served_by) <= {"fast", "slow"}
    folder.close()
    assert "Answered by" in inside("show", run.path, "--detail").stdout


@pytest.mark.slow(shared=True)
def test_runs_that_were_stored_before_have_none(stored_run: Path) -> None:
    assert isinstance(pacemark.report(stored_run).levels[0].served, msgspec.UnsetType)
