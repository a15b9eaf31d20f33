"""What the summary of a large stored run costs: time and peak memory, from the blocks in `run.db` to `summary.json`.

    python benchmarks/summary.py                       a million requests of 32 tokens, in one level
    python benchmarks/summary.py --requests 100000 --tokens 256

The run is made up: a closed loop whose times are drawn, a tenth of its requests with events that were read together.
It is written once, in parts that fit into memory, and then read and summed up in a process of its own, whose peak of
resident memory is what is told.
"""

from __future__ import annotations

import argparse
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import msgspec
import numpy as np

from pacemark.pace import Concurrency
from pacemark.runs.folder import RunFolder
from pacemark.trace import ABSENT, Exchange, Window

STREAMS = 512


def write(path: Path, requests: int, tokens: int) -> Path:
    """A run of one level; returns its folder."""
    rng = np.random.default_rng(1)
    record = {
        "schema": "pacemark/run/1",
        "target": {"url": "http://127.0.0.1:8000/v1", "model": "made-up", "api": "chat"},
        "workload": {"input_tokens": 256, "output_tokens": tokens, "seed": 1},
        "settings": {"duration_s": 60.0, "workers": 1},
        "loads": [{"kind": "concurrency", "value": STREAMS}],
        "interrupted": False,
        "failure": None,
    }
    folder = RunFolder.create(path, "summary", record)
    begin = sent_ns = 10**15
    folder.begin_level(0, Concurrency(STREAMS), begin)
    for index in range(requests):
        stream = index % STREAMS
        if stream == 0:
            sent_ns = begin + index // STREAMS * (250_000_000 + 21_000_000 * tokens)
            gaps = rng.integers(18_000_000, 22_000_000, (STREAMS, tokens))
            gaps[:, 0] += rng.integers(180_000_000, 230_000_000, STREAMS)
            times = sent_ns + np.arange(STREAMS)[:, None] * 1_000_000 + np.cumsum(gaps, axis=1)
        start, hi_ns = sent_ns + stream * 1_000_000, times[stream]
        lo_ns = hi_ns
        if index % 10 == 0:
            lo_ns = hi_ns.copy()
            lo_ns[5], hi_ns[5] = hi_ns[4], hi_ns[6]
        folder.add(
            Exchange(
                level=0, index=index, stream=stream, scheduled_ns=start, first_byte_sent_ns=start,
                sent_ns=start, send_ns=20_000, headers_ns=int(hi_ns[0]) - 1000, first_event_ns=int(hi_ns[0]) - 500,
                answer_ns=int(hi_ns[0]), ended_ns=int(hi_ns[-1]), connect_ns=ABSENT, status=200, error="", detail="",
                finish_reason="length", asked_tokens=tokens, input_tokens=256, cached_tokens=0, output_tokens=tokens,
                tokens_source="usage", hi_ns=hi_ns, lo_ns=lo_ns, tokens=np.ones(tokens, np.float32),
                lag_ns=np.full(tokens + 2, 30_000, np.int32), coalesced_reads=int(index % 10 == 0),
            )
        )  # fmt: skip
        folder.commit()
    folder.set_window(0, Window(begin + 5 * 10**9, sent_ns), "duration")
    folder.close()
    return folder.path


def sum_up(path: Path) -> None:
    """Sum the run up and say what that cost. The report's charts are part of it."""
    import pacemark.reporting.html

    before_s, before_cpu_s = time.monotonic(), time.process_time()
    run = pacemark.report(path)
    found = {
        "seconds": time.monotonic() - before_s,
        "cpu_s": time.process_time() - before_cpu_s,
        "peak": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
        "in_window": run.levels[0].requests.in_window,
    }
    print(msgspec.json.encode(found).decode())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--requests", type=int, default=1_000_000)
    parser.add_argument("--tokens", type=int, default=32)
    parser.add_argument("--folder", type=Path, help="where to keep the made-up run, or to find it again")
    parser.add_argument("--sum-up", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.sum_up is not None:
        sum_up(options.sum_up)
        return
    with tempfile.TemporaryDirectory() as scratch:
        out = options.folder or Path(scratch)
        kept = sorted(path.parent for path in out.glob("*/run.db"))
        folder = kept[-1] if kept else write(out, options.requests, options.tokens)
        command = [sys.executable, __file__, "--sum-up", str(folder)]
        found = msgspec.json.decode(subprocess.run(command, check=True, capture_output=True).stdout)
        size = (folder / "run.db").stat().st_size
    print(
        f"{found['in_window']:,} requests in the window, {size / 2**30:.2f} GiB on disk: summed up in "
        f"{found['seconds']:.1f} s ({found['cpu_s']:.1f} s of CPU), {found['peak'] / 2**30:.2f} GiB at most"
    )


if __name__ == "__main__":
    main()
