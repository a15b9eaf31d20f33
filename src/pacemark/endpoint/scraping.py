"""The metrics of servers, read once a second and whenever asked to, by a niced process that has nothing else to do.

Nothing of it runs in a process that measures: the workers know nothing of it, and the coordinating one gets a line of
JSON for each look.
"""

from __future__ import annotations

import contextlib
import os
import queue
import select
import subprocess
import sys
import threading
import time
from collections.abc import Iterable, Mapping, Sequence
from http.client import HTTPException
from time import monotonic_ns
from urllib.parse import urlsplit

import msgspec

from pacemark import beside
from pacemark.endpoint.address import WireError
from pacemark.endpoint.engines import ENGINES, Names, mapped, read_figures
from pacemark.endpoint.offered import fetched
from pacemark.endpoint.target import Target, target
from pacemark.errors import BadInput
from pacemark.trace import Scrape

__all__ = ["YOURS", "Scraper", "exporters", "main"]

EVERY_S = 1.0
YOURS = "your map"
"""Stands for the engine whose names the user gave."""
_AUTO = ("/metrics", "/prometheus/metrics")
"""Where servers have their metrics, below their host; the second is TensorRT-LLM's."""
_TIMEOUT_S = 2.0
_NICER = 10


def exporters(place: Target, urls: Sequence[str], own: str = "") -> list[Target]:
    """Where to read metrics; `auto` stands for the host of `place` itself, and may find none. `own` are further names.

    Raises BadInput where one cannot be read, or has no metric that is known.
    """
    tables = _tables(mapped(own) if own else {})
    found = []
    for url in urls:
        candidates = [_exporter(place, "".join(_origin(place)) + path) for path in _AUTO] if url == "auto" else []
        candidates = candidates or [_exporter(place, url if urlsplit(url).path.strip("/") else f"{url}/metrics")]
        answers = [(candidate, *_read(candidate, tables)) for candidate in candidates]
        taken = next((candidate for candidate, figures, _ in answers if figures), None)
        if taken is not None:
            found.append(taken)
        elif url != "auto":
            why = answers[0][2] or "none of its metrics is known: name them with --metrics-map"
            raise BadInput(f"--metrics {place.redacted(url)}: {why}")
    return found


def _exporter(place: Target, url: str) -> Target:
    """Metrics at `url`, opened as `place` is if it is the same server: no key goes to another."""
    bare = target(url, ca_file=place.ca_file, insecure=place.insecure)
    headers = place.headers if _origin(bare) == _origin(place) else {}
    return msgspec.structs.replace(bare, headers=headers)


def _origin(place: Target) -> tuple[str, str]:
    parts = urlsplit(place.url)
    return f"{parts.scheme}://", parts.netloc


def _tables(own: Mapping[str, str]) -> list[Names]:
    return [Names(engine, names) for engine, names in ({YOURS: own} | ENGINES).items() if names]


def _read(exporter: Target, tables: Iterable[Names]) -> tuple[dict[str, dict[str, float]], str]:
    """Figures by engine, and what went wrong."""
    try:
        query = f"?{exporter.query}" if exporter.query else ""
        status, body = fetched(exporter, query, timeout_s=_TIMEOUT_S)
    except (OSError, HTTPException, WireError) as error:
        return {}, exporter.redacted(f"cannot be read ({getattr(error, 'reason', error)})")
    if status != 200:
        return {}, f"answers {status}"
    return read_figures(body.decode("utf-8", "replace"), tables), ""


def _together(answers: Sequence[dict[str, dict[str, float]]]) -> tuple[list[str], dict[str, float]]:
    """The figures of all servers: those of one engine summed, and of several engines the first in the table."""
    engines = [name for name in (YOURS, *ENGINES) if any(name in answer for answer in answers)]
    values: dict[str, float] = {}
    for engine in engines:
        each = [answer[engine] for answer in answers if engine in answer]
        for key in {key: None for figures in each for key in figures if key not in values}:
            told = [figures[key] for figures in each if key in figures]
            if len(told) == len(each):  # what one of several replicas keeps to itself is known of none
                values[key] = sum(told) / (len(told) if key == "kv_used" else 1)
    return engines, values


class Scraper:
    """The process that reads `exporters`, as the coordinating process has it."""

    def __init__(self, exporters: Sequence[Target], own: str = "") -> None:
        """`own`: names of metrics that no table has."""
        self._news: queue.SimpleQueue[Scrape] = queue.SimpleQueue()
        self._last_ns = 0
        self._process = subprocess.Popen(
            beside.command("pacemark.endpoint.scraping"),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            start_new_session=True,  # Ctrl-C is for the coordinator
            env=beside.environment(),
        )
        self._tell(msgspec.json.encode(_Order(list(exporters), own)))
        self._thread = threading.Thread(target=self._listen, name="pacemark-metrics", daemon=True)
        self._thread.start()

    def look(self, wait_s: float = 0.0) -> None:
        """Have the metrics read now, beside once a second; come back when they are, or after `wait_s`."""
        asked_ns = monotonic_ns()
        self._tell(b"")
        while self._last_ns < asked_ns < monotonic_ns() < asked_ns + wait_s * 1e9 and self._process.poll() is None:
            time.sleep(0.002)

    def news(self) -> list[Scrape]:
        """What was read since the last call."""
        found = []
        while not self._news.empty():
            found.append(self._news.get())
        return found

    def close(self) -> None:
        """End the process."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.kill()  # it holds nothing that could be lost
        self._process.wait()
        self._thread.join(1.0)
        self._process.stdout.close()
        with contextlib.suppress(BrokenPipeError):
            self._process.stdin.close()

    def _tell(self, line: bytes) -> None:
        assert self._process.stdin is not None
        with contextlib.suppress(OSError, ValueError):  # it has ended, and nothing more is known of the server
            self._process.stdin.write(line + b"\n")
            self._process.stdin.flush()

    def _listen(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            try:
                scrape = msgspec.json.decode(line, type=Scrape)
            except msgspec.DecodeError:  # cut off by its end
                continue
            self._news.put(scrape)
            self._last_ns = scrape.now_ns


class _Order(msgspec.Struct):
    """What the process is to read."""

    exporters: list[Target]
    own: str


def main() -> None:
    """Read the order from standard input, and look: once a second, and at each further line."""
    os.nice(_NICER)
    source = sys.stdin.fileno()
    order = msgspec.json.decode(sys.stdin.buffer.readline(), type=_Order)
    tables = _tables(mapped(order.own) if order.own else {})
    due_s = time.monotonic()
    while True:
        asked, _, _ = select.select([source], [], [], max(0.0, due_s - time.monotonic()))
        if asked and not os.read(source, 4096):
            return
        begun_ns = monotonic_ns()
        answers = [_read(exporter, tables) for exporter in order.exporters]
        took_ns = monotonic_ns() - begun_ns
        problem = "; ".join(dict.fromkeys(said for figures, said in answers if not figures))
        engines, values = _together([figures for figures, _ in answers]) if not problem else ([], {})
        scrape = Scrape(begun_ns + took_ns // 2, took_ns, engines, values, problem)
        sys.stdout.buffer.write(msgspec.json.encode(scrape) + b"\n")
        sys.stdout.buffer.flush()
        due_s = max(due_s + EVERY_S, time.monotonic()) if not asked else due_s


if __name__ == "__main__":
    main()
