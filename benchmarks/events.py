"""What a level of many events takes of memory, from its first request to its figures.

    python benchmarks/events.py [--millions 1 10 100] [--events 1000]

Requests as a reader sends them, made up in the fashion of a closed loop of 512 streams, go into the page of a level and
are summed up by the code that sums up every run. A tenth of them have events that were read together, so that no time
is known exactly and each event has two. Each size is a process of its own; what is told is the most resident memory of
it less what it had before the first request, and the time.
"""

from __future__ import annotations

import argparse
import resource
import subprocess
import sys
import time
from collections.abc import Iterator

import msgspec
import numpy as np

from pacemark.figures.health import health_of
from pacemark.figures.level import sum_up
from pacemark.pace import Concurrency
from pacemark.runs.ledger import Page
from pacemark.trace import ABSENT, Exchange, Window

STREAMS = 512


def answered(
    requests: int, events: int, level: int = 0, streams: int = STREAMS, begin: int | None = None
) -> Iterator[Exchange]:
    """Requests of a closed loop that begins at `begin` (ns), in the order in which they end."""
    rng = np.random.default_rng(level)
    begin = (1 + level) * 10**15 if begin is None else begin
    for index in range(requests):
        turn, stream = divmod(index, streams)
        sent_ns = begin + turn * (250_000_000 + 21_000_000 * events) + stream * 1_000_000
        gaps = rng.integers(18_000_000, 22_000_000, events)
        gaps[0] += rng.integers(180_000_000, 230_000_000)
        hi_ns = sent_ns + np.cumsum(gaps)
        lo_ns = hi_ns
        if index % 10 == 0:
            lo_ns = hi_ns.copy()
            lo_ns[5], hi_ns[5] = hi_ns[4], hi_ns[6]
        yield Exchange(
            level=level, index=index, stream=stream, scheduled_ns=sent_ns, first_byte_sent_ns=sent_ns, sent_ns=sent_ns,
            send_ns=20_000, headers_ns=int(hi_ns[0]) - 1000, first_event_ns=int(hi_ns[0]) - 500,
            answer_ns=int(hi_ns[0]), ended_ns=int(hi_ns[-1]), connect_ns=ABSENT, status=200, error="", detail="",
            finish_reason="length", asked_tokens=events, input_tokens=256, cached_tokens=0, output_tokens=events,
            tokens_source="usage", hi_ns=hi_ns, lo_ns=lo_ns, tokens=np.ones(events, np.float32),
            lag_ns=np.full(events + 2, 30_000, np.int32), coalesced_reads=int(index % 10 == 0),
        )  # fmt: skip


def peak() -> int:
    """The most resident memory that this process ever had, in bytes."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def measured(requests: int, events: int) -> dict[str, float]:
    """What one size takes."""
    page, before, begun_s = Page(), peak(), time.process_time()
    first_ns = last_ns = 0
    for exchange in answered(requests, events):
        page.add(exchange)
        first_ns, last_ns = first_ns or exchange.sent_ns, exchange.sent_ns
    came, came_s = peak(), time.process_time()
    trace = page.trace()
    joined = peak()
    level = sum_up(
        Concurrency(STREAMS), trace, Window(first_ns + (last_ns - first_ns) // 10, last_ns), health_of(trace, [])
    ).level
    assert level.itl_ms.p50.value is not None
    done_s = time.process_time()
    return {
        "came": came - before, "joined": joined - before, "peak": peak() - before, "came_s": came_s - begun_s,
        "figures_s": done_s - came_s,
    }  # fmt: skip


def main() -> None:
    """Measure each size and print a line."""
    words = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    words.add_argument("--millions", type=float, nargs="+", default=[1, 10, 100])
    words.add_argument("--events", type=int, default=1000)
    words.add_argument("--size", type=int, help=argparse.SUPPRESS)
    given = words.parse_args()
    if given.size is not None:
        print(msgspec.json.encode(measured(given.size, given.events)).decode())
        return
    for millions in given.millions:
        requests = max(STREAMS * 3, round(millions * 1e6) // given.events)
        command = [sys.executable, __file__, "--size", str(requests), "--events", str(given.events)]
        found = msgspec.json.decode(subprocess.run(command, check=True, capture_output=True).stdout)
        count = requests * given.events
        came, joined, most = (found[name] / 1e9 for name in ("came", "joined", "peak"))
        print(
            f"{count / 1e6:6.1f} million events: {came:.3f} GB as they came, {joined:.3f} GB joined, {most:.3f} GB at "
            f"most ({found['peak'] / count:.1f} bytes an event); {found['came_s']:.1f} s to take in, "
            f"{found['figures_s']:.1f} s for the figures",
            flush=True,
        )


if __name__ == "__main__":
    main()
