"""One cell of the fault matrix: a fault of the embedded endpoint, met in one way."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterator
from itertools import product
from pathlib import Path
from typing import Any, NamedTuple

import pacemark
from pacemark.runs.folder import RunFolder
from pacemark.simulator import serving
from pacemark.simulator.server.faults import FAULTS, OUTAGES
from support.stored import exchanges


class Cell(NamedTuple):
    """How the endpoint is asked."""

    fault: str
    streamed: bool
    tls: bool
    open_loop: bool

    def __str__(self) -> str:
        words = ("streamed" if self.streamed else "whole", "TLS" if self.tls else "plain")
        return " ".join((self.fault, *words, "open" if self.open_loop else "closed"))


class Met(NamedTuple):
    """What came of it."""

    kinds: Counter[str]
    """Failed requests by the kind that was reported."""
    completed: int
    missing: int
    """Requests that were sent and are not on record."""
    seconds: float
    """From the first request of the level to the end of the run."""


def cells() -> Iterator[Cell]:
    """All of the matrix."""
    for fault, streamed, tls, open_loop in product(FAULTS, (True, False), (False, True), (False, True)):
        yield Cell(fault, streamed, tls, open_loop)


def met(cell: Cell, out: Path) -> Met:
    """Measure a level that the fault befalls once pacemark knows the endpoint.

    Kept connections never notice that new ones are refused, so that fault gets a new one for each request.
    """
    fault: dict[str, Any] = {"kind": cell.fault, "after_requests": 25, "seconds": 0.3, "size": 1_000_000}
    if cell.fault not in OUTAGES:
        fault["share"] = 0.3
    load: dict[str, Any] = {"rate": 60.0} if cell.open_loop else {"concurrency": 4}
    with serving("fixed", ttft_ms=10, itl_ms=1, faults=[fault], seed=5, tls=cell.tls) as served:
        run = pacemark.run(
            served.url, **load, duration=0.8, input_tokens=30, output_tokens=12, out=out, workers=1, timeout=20.0,
            stream=cell.streamed, fresh_connections=cell.fault == "refuse", ca_file=served.ca_file,
        )  # fmt: skip
        begun_s = run.summary.run["began"][0] / 1e9
        seconds = time.monotonic() - begun_s
    folder = RunFolder.open(run.path)
    found = list(exchanges(folder, 0))
    folder.close()
    kinds = Counter(x.error for x in found if x.error)
    missing = max(x.index for x in found) + 1 - len({x.index for x in found})
    assert len(found) - sum(kinds.values()) == run.levels[0].requests.completed
    counted = [x for x in found if not x.error and (cell.streamed or x.tokens_source == "usage")]
    assert all(x.output_tokens == x.asked_tokens for x in counted)
    return Met(kinds, len(found) - sum(kinds.values()), missing, seconds)
