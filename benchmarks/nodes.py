"""What an event of several machines costs the process that coordinates them, beside what one of one machine costs it.

    python benchmarks/nodes.py [--seconds 5] [--streams 256]

First at full speed: agents on two nodes of a Ray cluster that this starts here answer every poll with requests of 128
events, made once, as their workers' readers would give them; the coordinating process takes them in as a run does, into
the pages of a level and into run.db. "one machine" takes the same bytes from its own memory. With "part files" nodes
keep the events and tell scalars; what it costs to bring the events to the run folder after the level is told beside it.
"cores" is how much of the machine it could get hold of meanwhile. Then under load: `--streams` from one machine and
from both nodes, against one fixed timeline, where what comes by time (pulses, polls, the display) counts too. CPU time
is of the whole process, with the threads of Ray; how many streams of 50 tokens/s that makes for one core is
1 / (50 x CPU per event). "ratio" is that CPU to what two nodes take without part files.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import resource
import tempfile
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from pacemark.endpoint.target import target
from pacemark.instrument import apart
from pacemark.instrument.agent import NodeAgent, Polled
from pacemark.instrument.apart import CHUNK_BYTES, EventLog
from pacemark.instrument.commands import Batch, Reading, Setup, decode_batch, encode_batch
from pacemark.instrument.fleet import Fleet
from pacemark.integrations import ray as on_ray
from pacemark.nodes import NodeFacts
from pacemark.pace import Concurrency
from pacemark.runs.bench import Bench
from pacemark.runs.folder import RunFolder
from pacemark.runs.ledger import Fetch, Ledger
from pacemark.scenario import Settings, Workload
from pacemark.simulator import serving
from pacemark.trace import ABSENT, Beat, Exchange

TOKENS, REQUESTS, BATCHES = 128, 20, 16
"""Events of a request, requests of a batch, batches of an answer: 41,000 events, some 0.7 MB."""
STREAM_TOKENS_PER_S = 50


def batch() -> bytes:
    """Requests as a reader gives them: every event in a read of its own."""
    hi_ns = 10**15 + np.arange(1, TOKENS + 1, dtype=np.int64) * 20_000_000
    exchanges = [
        Exchange(
            level=0, index=n, stream=n, scheduled_ns=10**15, first_byte_sent_ns=10**15, sent_ns=10**15, send_ns=30_000,
            headers_ns=10**15 + 10**7, first_event_ns=int(hi_ns[0]), answer_ns=int(hi_ns[0]), ended_ns=int(hi_ns[-1]),
            connect_ns=ABSENT, status=200, error="", detail="", finish_reason="length", asked_tokens=TOKENS,
            input_tokens=256, cached_tokens=0, output_tokens=TOKENS, tokens_source="usage", hi_ns=hi_ns, lo_ns=hi_ns,
            tokens=np.ones(TOKENS, np.float32), lag_ns=np.full(TOKENS, 50_000, np.int32), coalesced_reads=0,
            events=TOKENS, gap_ns=20_000_000,
        )
        for n in range(REQUESTS)
    ]  # fmt: skip
    return encode_batch(Batch(exchanges, Beat(0, 10**15, 0, 1, ABSENT, 1, 0, 0, 0, 0.5, 0, 0, False)))


MESSAGE = batch()


def in_outline() -> tuple[bytes, bytes]:
    """The same where events are kept apart: what is told of them, and what is kept."""
    log, whole = EventLog(), decode_batch(MESSAGE)
    told = encode_batch(Batch([log.put(x, 0) for x in whole.exchanges], whole.beat))
    kept = log.read(0)
    log.close()
    return told, kept


OUTLINE, KEPT = in_outline()
EVENT_BYTES = len(KEPT) / TOKENS / REQUESTS
FETCHED_BYTES = 64 << 20
"""What each node has kept of the level that is fetched."""


class Canned(NodeAgent):
    """An agent whose answers are made beforehand, so that the coordinating process alone sets the pace."""

    def open(self, *_: Any) -> NodeFacts:
        """There are no workers to start."""
        return self._facts

    def poll(self, wait_s: float) -> Polled:
        """What many workers might give."""
        now_ns = self._now_ns()
        return Polled(now_ns, now_ns, [MESSAGE] * BATCHES, [], 1)


class Apart(Canned):
    """The same with part files."""

    def poll(self, wait_s: float) -> Polled:
        """What many workers might give, in outline."""
        now_ns = self._now_ns()
        return Polled(now_ns, now_ns, [OUTLINE] * BATCHES, [], 1)

    def events(self, start: int) -> bytes:
        """A part of the file."""
        return KEPT * (CHUNK_BYTES // len(KEPT)) + KEPT[: CHUNK_BYTES % len(KEPT)] if start < FETCHED_BYTES else b""


@contextlib.contextmanager
def cluster() -> Iterator[str]:
    """Address of a Ray cluster of a head that gives no CPUs and two nodes."""
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    from ray.cluster_utils import Cluster

    room = 200 << 20
    head = {"num_cpus": 0, "include_dashboard": False, "object_store_memory": room}
    started: Any = Cluster(initialize_head=True, head_node_args=head)
    try:
        for _ in range(2):
            started.add_node(num_cpus=1, object_store_memory=room)
        on_ray._LOOPBACK = True
        yield started.address
    finally:
        started.shutdown()


def cpu_s() -> float:
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


def taken_in(receive: Callable[[], Iterator[Batch]], seconds: float, fetch: Fetch | None) -> tuple[float, float, float]:
    """Events a second, CPU microseconds an event, and cores used, of taking in what `receive` gives; `fetch`: its
    events are kept apart."""
    with tempfile.TemporaryDirectory() as place:
        folder = RunFolder.create(Path(place), "nodes", {"schema": "none"})
        ledger = Ledger(lambda text: text)
        ledger.folder = folder
        ledger.open(0, fetch=fetch)
        began_s, used_s, events = time.monotonic(), cpu_s(), 0
        while (passed_s := time.monotonic() - began_s) < seconds:
            for found in receive():
                for exchange in found.exchanges:
                    ledger.add(exchange)
                    events += TOKENS
                ledger.add_beat(found.beat)
            folder.commit()
        used_s = cpu_s() - used_s
        folder.close()
    return events / passed_s, used_s / events * 1e6, used_s / passed_s


def of_memory() -> Iterator[Batch]:
    """What one machine's readers give: the same bytes, decoded."""
    for _ in range(BATCHES):
        yield decode_batch(MESSAGE)


def fetched_us(fleet: Fleet) -> float:
    """CPU microseconds an event of bringing those of two nodes to a folder."""
    with tempfile.TemporaryDirectory() as place:
        used_s = cpu_s()
        fleet.fetch(Path(place), 0)
        used_s = cpu_s() - used_s
        size = sum(path.stat().st_size for path in Path(place).iterdir())
    return used_s * 1e6 / (size / EVENT_BYTES)


def hired(agent: type[NodeAgent], address: str) -> Fleet:
    """Two nodes with such an agent."""
    real, on_ray.NodeAgent = on_ray.NodeAgent, agent  # type: ignore[attr-defined]
    try:
        return on_ray.hired_on(2, address)(target("http://127.0.0.1:9"), Setup(0, 1, [], 5.0, 0), Reading())
    finally:
        on_ray.NodeAgent = real  # type: ignore[attr-defined]


def at_full_speed(address: str, seconds: float) -> None:
    print("\nat full speed              events/s   CPU us/event   ratio   cores   streams of 50 tokens/s for one core")
    found = {"one machine": [taken_in(of_memory, seconds, None) for _ in range(2)][-1]}  # the second time it is warm
    for name, agent in (("two nodes on Ray", Canned), ("the same, part files", Apart)):
        with contextlib.closing(hired(agent, address)) as fleet:
            fetch = fleet.fetch if agent is Apart else None
            found[name] = [taken_in(partial(fleet.receive, 0.05), seconds, fetch) for _ in range(2)][-1]
            after_us = fetched_us(fleet) if fetch else 0.0
    whole_us = found["two nodes on Ray"][1]
    for name, (rate, each_us, cores) in found.items():
        streams = 1e6 / each_us / STREAM_TOKENS_PER_S
        ratio = f"{each_us / whole_us:.2f}"
        print(f"{name:24} {rate:10,.0f} {each_us:14.3f} {ratio:>7} {cores:7.2f} {streams:12,.0f}")
    print(f"to the run folder, after the level: {after_us:.3f} us/event, {EVENT_BYTES:.1f} bytes each")


def under_load(address: str, streams: int, seconds: float) -> None:
    print(f"\n{streams} streams        events/s   CPU us/event   cores   TTFT p50, ms   output tokens/s")
    with serving("fixed", ttft_ms=200.0, itl_ms=20.0) as served:
        place = target(served.url, model=served.model)
        for name, nodes in (("one machine", 0), ("two nodes on Ray", 2), ("with part files", 2)):
            apart.APART_STREAMS = 0 if name == "with part files" else 20_000
            more: Any = {"hire": on_ray.hired_on(nodes, address)} if nodes else {}
            settings = Settings(duration_s=seconds, nodes=nodes, workers=1 if nodes else 2)
            with tempfile.TemporaryDirectory() as out, Bench(place, Workload(32, TOKENS, 1), settings, **more) as bench:
                bench.folder = RunFolder.create(Path(out), "nodes", {"schema": "none"})
                bench.prepare()
                began_s, used_s = time.monotonic(), cpu_s()
                result = bench.measure(Concurrency(streams))
                passed_s, used_s = time.monotonic() - began_s, cpu_s() - used_s
                bench.finish()
                bench.folder.close()
            events, level = result.health.reads, result.level
            print(
                f"{name:18} {events / passed_s:9,.0f} {used_s / events * 1e6:14.2f} {used_s / passed_s:7.2f} "
                f"{level.ttft_ms.p50.value or 0.0:14.1f} {level.output_tokens_per_s.value or 0.0:17,.0f}"
            )


def main() -> None:
    words = argparse.ArgumentParser(description="What coordinating several machines costs.")
    words.add_argument("--seconds", type=float, default=5.0)
    words.add_argument("--streams", type=int, default=256)
    given = words.parse_args()
    with cluster() as address:
        at_full_speed(address, given.seconds)
        under_load(address, given.streams, given.seconds)


if __name__ == "__main__":
    main()
