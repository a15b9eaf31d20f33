"""What a live page costs the run that it shows: `python benchmarks/live.py --pairs 6`.

Runs of the embedded endpoint with a page and without, in turn; the page is asked once a second, as a browser does. It
tells the client's own lag at p99, and the paired difference with its 95% t interval.
"""

from __future__ import annotations

import argparse
import contextlib
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from scipy import special

import pacemark
from pacemark.runs.live import LiveView

_ASKS = """
import sys, time, urllib.request
while True:
    time.sleep(1)
    urllib.request.urlopen(sys.argv[1].replace("/?", "/state?")).read()
"""


@contextlib.contextmanager
def watched(out: Path) -> Iterator[None]:
    """A live page of the next run in `out`, and somebody who looks at it."""
    asking: list[subprocess.Popen[bytes]] = []

    def look(status: object) -> None:
        if url := view.news():
            asking.append(subprocess.Popen([sys.executable, "-c", _ASKS, url], stderr=subprocess.DEVNULL))

    with LiveView(out) as view:
        time.sleep(5)  # until it is there: the run is short
        observers.append(look)
        yield
        observers.clear()
        for process in asking:
            process.kill()
            process.wait()
        assert asking, "nobody looked"


observers: list[object] = []


def lag_ms(streams: int, seconds: float, live: bool) -> float:
    """The client's lag at p99 in one run."""

    def observe(status: object) -> None:
        for look in observers:
            look(status)  # type: ignore[operator]

    with tempfile.TemporaryDirectory() as folder, watched(Path(folder)) if live else contextlib.nullcontext():
        run = pacemark.run(
            "sim:demo", concurrency=streams, duration=seconds, output_tokens=64, workers=1, out=folder, observe=observe
        )
    found = run.levels[0].client.lag_ms.p99
    assert found is not None
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pairs", type=int, default=6)
    parser.add_argument("--streams", type=int, default=32)
    parser.add_argument("--seconds", type=float, default=6.0)
    options = parser.parse_args()
    rows = []
    for n in range(options.pairs):
        order = (True, False) if n % 2 else (False, True)
        each = {live: lag_ms(options.streams, options.seconds, live) for live in order}
        rows.append((each[False], each[True]))
        print(f"lag p99 without {each[False]:.3f} ms, with a live page {each[True]:.3f} ms", flush=True)
    differences = np.array([b - a for a, b in rows])
    half = special.stdtrit(len(rows) - 1, 0.975) * differences.std(ddof=1) / len(rows) ** 0.5
    mean = differences.mean()
    print(f"difference {mean:+.3f} ms ({mean - half:+.3f} to {mean + half:+.3f}) over {len(rows)} pairs")


if __name__ == "__main__":
    main()
