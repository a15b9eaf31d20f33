"""What requests of megabytes cost the streams beside them on one worker's loop, sent in slices and in one piece.

    python benchmarks/media.py [--streams 32] [--images 2x1024x1024] [--rate 10] [--seconds 6] [--repeats 3]

Streams of text from the embedded endpoint (TTFT 200 ms, ITL 20 ms) share the loop, and the code of a worker, with
requests that go to a server of their own and are read and thrown away there: none ("alone"), such with images, sent as
pacemark sends them ("slices"), and the same handed to the kernel as fast as it takes them ("one piece"). "held": CPU
time for which a call that sends has the loop to itself (p99), which no other process on the machine changes; "made":
time to put a request together. How late the loop came to the streams' reads holds what other processes took too; the
kernel's stamps keep it out of the latencies. All kinds in turn, in one run; medians over the repeats.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import subprocess
import sys
import time
from typing import Any

import numpy as np
import uvloop

from pacemark.endpoint.target import resolve, target
from pacemark.instrument import connection, opening
from pacemark.media import MEDIA_HOLE, images
from pacemark.simulator import serving
from pacemark.traffic import Workload
from pacemark.workload.media import Media

TTFT_MS, ITL_MS, TOKENS = 200.0, 20.0, 128
SLICE_BYTES = connection.SLICE_BYTES
KINDS = {"alone": 0, "slices": SLICE_BYTES, "one piece": 1 << 30}
"""Bytes that are sent at once; 0: no large requests."""


def main() -> None:
    """Print a line for each kind."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--streams", type=int, default=32)
    parser.add_argument("--images", default="2x1024x1024")
    parser.add_argument("--rate", type=float, default=10.0, help="large requests a second")
    parser.add_argument("--seconds", type=float, default=6.0)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--sink", action="store_true", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.sink:
        asyncio.run(sink())
        return
    runs: dict[str, list[dict[str, float]]] = {kind: [] for kind in KINDS}
    with subprocess.Popen([sys.executable, __file__, "--sink"], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as away:
        assert away.stdout is not None
        port = int(away.stdout.readline())
        for number in range(given.repeats):
            for kind in list(KINDS)[:: -1 if number % 2 else 1]:
                for module in (connection, opening):
                    vars(module)["SLICE_BYTES"] = KINDS[kind] or SLICE_BYTES
                rate = given.rate if KINDS[kind] else 0.0
                with serving("fixed", ttft_ms=TTFT_MS, itl_ms=ITL_MS) as served:
                    runs[kind].append(uvloop.run(measured(served, port, given, rate)))
        away.kill()
    size = max(run["mb"] for run in runs["slices"])
    print(f"{given.streams} streams; {given.rate:g} requests of {size:.1f} MB a second beside them")
    print("           TTFT p50     p99   read late p99   made ms   held ms   sent in ms")
    for kind, found in runs.items():
        at = {name: float(np.median([run[name] for run in found])) for name in found[0]}
        print(
            f"{kind:10} {at['ttft_p50']:+8.2f} {at['ttft_p99']:+7.2f} {at['late_p99']:15.3f} {at['made_ms']:9.2f} "
            f"{at['held_ms']:9.2f} {at['sent_ms']:12.2f}"
        )


async def measured(served: Any, port: int, given: argparse.Namespace, rate: float) -> dict[str, float]:
    """Errors of TTFT in ms, how late reads were, and what a large request took."""
    loop, place = asyncio.get_running_loop(), target(served.url, model=served.model)
    head, address = place.head("/chat/completions"), resolve(place)[0]
    fields = {"model": served.model, "stream": True, "max_tokens": TOKENS, "ignore_eos": True}
    body = json.dumps(fields | {"messages": [{"role": "user", "content": "hello"}]}).encode()
    text = b"%b%d\r\n\r\n%b" % (head, len(body), body)
    end = time.monotonic() + given.seconds
    ttft: list[float] = []
    late: list[float] = []
    made, sent, held, sizes = [0.0], [0.0], [0.0], [0]
    media, order = Media(Workload(images=given.images)), images(given.images)

    async def stream(number: int) -> None:
        await asyncio.sleep(number * TTFT_MS / 1e3 / given.streams)
        wire = await opening.opened(loop, address)
        while time.monotonic() < end:
            answer = await wire.request(text, 60.0)
            assert answer.status == 200, answer.error
            reads = np.asarray(answer.reads).reshape(-1, 3)
            since_ms = (reads[:, 0] - answer.sent_ns) / 1e6
            ttft.append(since_ms[since_ms > TTFT_MS / 2][0])  # the role comes at once
            late.extend(reads[:, 1] / 1e6)
        wire.close()

    async def large() -> None:
        holes = json.dumps({"images": [MEDIA_HOLE] * (order.number if order else 0)}).encode()
        away = target(f"http://127.0.0.1:{port}")
        wire, due = await opening.opened(loop, resolve(away)[0]), time.monotonic()
        wire._sock = Timed(wire._sock, held)  # type: ignore[assignment]
        while (due := due + 1 / rate) < end:
            await asyncio.sleep(max(0.0, due - time.monotonic()))
            begun = time.monotonic()
            request = media.alone(away.head("/"), holes)
            made.append((time.monotonic() - begun) * 1e3)
            answer = await wire.request(request, 60.0)
            assert answer.status == 200, answer.error
            sent.append((answer.sent_by_ns - answer.first_byte_sent_ns) / 1e6)
            sizes.append(len(request))
        wire.close()

    await asyncio.gather(*(stream(n) for n in range(given.streams)), *([large()] if rate else []))
    skipped = given.streams  # the first answer of each, while connections are opened and pictures are drawn
    return {
        "ttft_p50": float(np.quantile(ttft[skipped:], 0.5)) - TTFT_MS,
        "ttft_p99": float(np.quantile(ttft[skipped:], 0.99)) - TTFT_MS,
        "late_p99": float(np.quantile(late, 0.99)),
        "made_ms": float(np.median(made[1:] or made)),
        "sent_ms": float(np.median(sent[1:] or sent)),
        "held_ms": float(np.quantile(held[1:] or held, 0.99)),
        "mb": max(sizes) / 1e6,
    }


class Timed:
    """A socket that notes the CPU time of every call that sends, in ms."""

    def __init__(self, sock: Any, held: list[float]) -> None:
        self._sock, self._held = sock, held

    def send(self, data: memoryview) -> int:
        """As a socket's."""
        begun_ns = time.thread_time_ns()
        try:
            sent: int = self._sock.send(data)
            return sent
        finally:
            self._held.append((time.thread_time_ns() - begun_ns) / 1e6)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._sock, name)


async def sink() -> None:
    """A server that reads whatever it is sent; it ends with its standard input."""

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while head := await reader.readline():
            while not head.endswith(b"\r\n\r\n"):
                head += await reader.readline()
            left = next(int(line[15:]) for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:"))
            while left:
                left -= len(await reader.read(min(left, 1 << 20)))
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}")
        writer.close()

    server = await asyncio.start_server(handle, "127.0.0.1", 0, limit=1 << 20)
    print(server.sockets[0].getsockname()[1], flush=True)
    await asyncio.get_running_loop().run_in_executor(None, sys.stdin.read)


if __name__ == "__main__":
    main()
