"""What requests of unequal lengths, and of a large file, cost the client beside requests of one length, in one run.

    python benchmarks/traffic.py [--streams 512] [--repeats 3] [--rows 100000] [--kinds fixed,drawn,file]
    python benchmarks/traffic.py --rows 1000000 --streams 64 --kinds fixed,file --repeats 1       a file of 5 GB

The endpoint of benchmarks/client.py: TTFT 200 ms, ITL 20 ms. "fixed" asks for prompts of 1,000 and answers of 128
tokens, "drawn" for lognormal ones of that mean (coefficients of variation 0.8 and 0.5), "file" takes prompts of about
5 kB, of unequal lengths, from a file of so many rows. Every figure is the median over the repeats, which go through the
kinds in turn; last lines give the CPU time per event, reading the file included, as a share of that of the first kind
(median over pairs). The peak of memory is of the largest of pacemark's processes, pages of the file that it has looked
at included.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import resource
import subprocess
import sys
import tempfile
import urllib.request
from pathlib import Path
from typing import Any

import numpy as np

from client import ITL_MS, TOKENS, TTFT_MS, measure_pacemark
from pacemark.beside import ONE_THREAD
from pacemark.scenario import Recording
from pacemark.simulator import serving
from pacemark.traffic import Workload
from pacemark.workload.files import read
from pacemark.workload.prose import prose

TEXT_UNITS = 200_000


def main() -> None:
    """Print a line for each kind, and the shares."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--streams", type=int, default=512)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--rows", type=int, default=100_000)
    parser.add_argument("--kinds", default="fixed,drawn,file")
    parser.add_argument("--seconds", type=float, default=6.0)
    parser.add_argument("--child", nargs=4, metavar=("KIND", "URL", "MODEL", "FILE"), help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.child:
        print(json.dumps(measured(given.child, given.streams, given.seconds)))
        return
    kinds = given.kinds.split(",")
    runs: dict[str, list[dict[str, Any]]] = {kind: [] for kind in kinds}
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "traffic.jsonl"
        if "file" in kinds:
            write(file, given.rows)
            print(f"a file of {given.rows:,} rows, {file.stat().st_size / 1e9:.2f} GB")
        for number in range(given.repeats):
            for kind in kinds[:: -1 if number % 2 else 1]:
                runs[kind].append(once(kind, file, given.streams, given.seconds))
    print("          TTFT p50     p99  ITL p99  endpoint late p99  CPU us/event  peak MB")
    for kind, found in runs.items():
        at = {name: float(np.median([run[name] for run in found])) for name in found[0] if name != "verdict"}
        print(
            f"{kind:8} {at['ttft_p50']:+9.2f} {at['ttft_p99']:+7.2f} {at['itl_p99']:+8.2f} {at['late_p99']:18.2f} "
            f"{at['cpu_us']:13.1f} {at['peak_mb']:8.0f}   {', '.join(sorted({run['verdict'] for run in found}))}"
        )
    for kind in kinds[1:]:
        pairs = zip(runs[kind], runs[kinds[0]], strict=True)
        share = np.median([run["cpu_us"] / first["cpu_us"] for run, first in pairs])
        print(f"CPU per event, {kind}: {share:.1%} of {kinds[0]}")


def once(kind: str, file: Path, streams: int, seconds: float) -> dict[str, Any]:
    """A run in a process of its own against an endpoint of its own."""
    with serving("fixed", ttft_ms=TTFT_MS, itl_ms=ITL_MS) as served:
        command = [sys.executable, __file__, "--streams", str(streams), "--seconds", str(seconds), "--child", kind]
        done = subprocess.run(
            [*command, served.url, served.model, str(file)],
            stdout=subprocess.PIPE,
            check=True,
            timeout=600,
            env=os.environ | ONE_THREAD,
        )
        found: dict[str, Any] = json.loads(done.stdout)
        with urllib.request.urlopen(f"{served.root}/lateness") as answer:
            return found | {"late_p99": json.load(answer)["first"]["p99_ms"]}


def measured(child: list[str], streams: int, seconds: float) -> dict[str, Any]:
    """Errors of the latencies in ms, CPU time per event and memory of one run."""
    kind, url, model, file = child
    asked, rows = Workload(1000, TOKENS, 1), None
    if kind == "drawn":
        asked = Workload("lognormal(1000, cv=0.8)", f"lognormal({TOKENS}, cv=0.5)", 1)
    if kind == "file":
        asked, rows = Workload(1000, TOKENS, 1, recording=Recording(path=file)), read(Path(file))
    found = measure_pacemark(url, model, streams, seconds, asked=asked, rows=rows)
    spent = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return {
        "ttft_p50": float(np.quantile(found["ttft_ms"], 0.5)) - TTFT_MS,
        "ttft_p99": float(np.quantile(found["ttft_ms"], 0.99)) - TTFT_MS,
        "itl_p99": float(np.quantile(found["gaps_ms"], 0.99)) - ITL_MS,
        "cpu_us": sum(u.ru_utime + u.ru_stime for u in spent) * 1e6 / max(1, found["events"]),
        "peak_mb": max(u.ru_maxrss for u in spent) / 1024,
        "verdict": found["verdict"],
    }


def write(file: Path, rows: int) -> None:
    """A file of that many prompts, cut out of one long text."""
    text = prose("latin").text(np.random.default_rng(1), TEXT_UNITS)
    draw = random.Random(1)
    with file.open("w") as out:
        for _ in range(rows):
            size = min(len(text) // 2, int(draw.lognormvariate(8.3, 0.6)))
            begin = draw.randrange(len(text) - size)
            out.write(json.dumps({"prompt": text[begin : begin + size], "max_tokens": TOKENS}) + "\n")


if __name__ == "__main__":
    main()
