"""pacemark's client beside an aiohttp and an httpx client, against one fixed timeline, in one run.

    python benchmarks/client.py [--streams 1,32,128,512,1024] [--clients pacemark,aiohttp,httpx] [--repeats 3]
                                [--against DIR] [--one-core]

Truth: TTFT 200 ms, ITL 20 ms, 128 tokens; every stream starts its next request when its answer has ended. Latencies are
of the requests that began in the window, throughput is of the tokens that came in it, for every client alike. Each
client runs in a process of its own; its CPU time is of the whole process with its children, analysis included.
"of it endpoint" is how far the endpoint itself was off, by the time it sent each event: what is left is the client's.
"of it coordinating" is what pacemark's coordinating process spends of that while a level runs (its workers' readers
have understood the bytes by then). "pacemark-2" has two worker processes; "before" is the pacemark of another checkout,
DIR (--against), measured in turn with this one: a last line gives the share of the CPU time per event of before that is
spent now (median over pairs).
With --one-core all of a client is held on the first core and its endpoint on the others. With --repeats every figure is
the median over that many runs. "stolen" is the share of the time that the hypervisor gave to others meanwhile.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import resource
import subprocess
import sys
import time
import urllib.request
from pathlib import Path
from typing import Any

import numpy as np

from pacemark.beside import ONE_THREAD
from pacemark.simulator import serving

TTFT_MS, ITL_MS, TOKENS = 200.0, 20.0, 128
CYCLE_S = (TTFT_MS + (TOKENS - 1) * ITL_MS) / 1e3
CLIENTS = ("pacemark", "pacemark-2", "aiohttp", "httpx")


COLUMNS = (
    ("TTFT p50, ms", "ttft_p50", "+.2f"),
    ("of it endpoint", "first_p50", ".2f"),
    ("TTFT p99, ms", "ttft_p99", "+.2f"),
    ("of it endpoint", "first_p99", ".2f"),
    ("ITL p99, ms", "itl_p99", "+.2f"),
    ("of it endpoint", "gap_p99", ".2f"),
    ("tokens/s", "throughput", "+.2%"),
    ("CPU per event, us", "cpu_us", ".0f"),
    ("of it coordinating", "coordinating_us", ".2f"),
    ("stolen", "stolen", ".1%"),
)


def body(model: str, tag: str) -> dict[str, Any]:
    return {
        "model": model,
        "messages": [{"role": "user", "content": f"{tag} tell me a story about a lamp and a harbour"}],
        "max_tokens": TOKENS,
        "ignore_eos": True,
        "stream": True,
        "stream_options": {"include_usage": True},
    }


def measure_pacemark(
    url: str, model: str, streams: int, seconds: float, workers: int = 1, asked: Any = None, rows: Any = None
) -> dict[str, Any]:
    """`asked`: the workload, where it is another than the other clients have; `rows` of a file."""
    from pacemark.endpoint.target import target
    from pacemark.figures import metrics
    from pacemark.pace import Concurrency
    from pacemark.runs.bench import Bench
    from pacemark.scenario import Settings
    from pacemark.workload.words import Workload

    settings = Settings(duration_s=seconds, workers=workers)
    with Bench(target(url, model=model), asked or Workload(32, TOKENS, 1), settings, rows=rows) as bench:
        bench.prepare()
        coordinating = Coordinating(bench)
        result = bench.measure(Concurrency(streams))
        bench.finish()
    inside = metrics.started_in(result.trace, result.window.start_ns, result.window.end_ns)
    good = inside & metrics.succeeded(result.trace)
    gaps, _, _ = metrics.gaps(result.trace, good)
    return {
        "ttft_ms": metrics.ttft_ms(result.trace)[good].tolist(),
        "gaps_ms": gaps.tolist(),
        "tokens_per_s": result.level.output_tokens_per_s.value,
        "events": len(result.trace.hi_ns),
        "verdict": result.level.verdict.status,
        "coordinating_us": coordinating.cpu_s * 1e6 / max(1, len(result.trace.hi_ns)),
    }


class Coordinating:
    """What the coordinating process spends while a level runs, on real batches over real sockets: it takes them apart,
    writes them down, looks whether the level has said enough and tells where it stands. What it computes once, of all
    of them, when the level has ended is left out."""

    def __init__(self, bench: Any) -> None:
        self.cpu_s = 0.0
        self._conclude, bench._conclude = bench._conclude, self.conclude
        self._begun_s = time.process_time()

    def conclude(self, *given: Any) -> Any:
        """Stands in for the bench's own."""
        self.cpu_s = time.process_time() - self._begun_s
        return self._conclude(*given)


async def drive(stream_once: Any, streams: int, seconds: float) -> dict[str, Any]:
    """The load of pacemark's level, for a client that gives one async iterator of events per request."""
    ttft: list[float] = []
    gaps: list[float] = []
    arrivals: list[float] = []
    begin = time.perf_counter()
    window = (begin + 2 * CYCLE_S, begin + 2 * CYCLE_S + seconds)

    async def one(number: int) -> None:
        await asyncio.sleep(CYCLE_S * number / streams)
        count = 0
        while time.perf_counter() < window[1]:
            count += 1
            sent = last = time.perf_counter()
            first = True
            async for data in stream_once(f"{number}-{count}"):
                if b'"content":"' not in data or b'"content":""' in data:
                    continue
                json.loads(data)
                now = time.perf_counter()
                arrivals.append(now)
                if window[0] <= sent < window[1]:
                    (ttft if first else gaps).append((now - last) * 1e3)
                first, last = False, now

    await asyncio.gather(*(one(n) for n in range(streams)))
    inside = sum(window[0] < t <= window[1] for t in arrivals)
    return {"ttft_ms": ttft, "gaps_ms": gaps, "tokens_per_s": inside / seconds, "events": len(arrivals), "verdict": "-"}


def measure_aiohttp(url: str, model: str, streams: int, seconds: float) -> dict[str, Any]:
    import aiohttp

    async def run() -> dict[str, Any]:
        async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as session:

            async def once(tag: str) -> Any:
                async with session.post(f"{url}/chat/completions", json=body(model, tag)) as answer:
                    async for line in answer.content:
                        if line.startswith(b"data: {"):
                            yield line[6:]

            return await drive(once, streams, seconds)

    return asyncio.run(run())


def measure_httpx(url: str, model: str, streams: int, seconds: float) -> dict[str, Any]:
    import httpx

    async def run() -> dict[str, Any]:
        limits = httpx.Limits(max_connections=None, max_keepalive_connections=None)
        async with httpx.AsyncClient(limits=limits, timeout=120) as client:

            async def once(tag: str) -> Any:
                async with client.stream("POST", f"{url}/chat/completions", json=body(model, tag)) as answer:
                    async for line in answer.aiter_lines():
                        if line.startswith("data: {"):
                            yield line[6:].encode()

            return await drive(once, streams, seconds)

    return asyncio.run(run())


def child(name: str, url: str, model: str, streams: int, seconds: float) -> None:
    if name.startswith("pacemark"):
        found = measure_pacemark(url, model, streams, seconds, int(name.partition("-")[2] or 1))
    else:
        found = globals()[f"measure_{name}"](url, model, streams, seconds)
    ttft, gaps = np.asarray(found.pop("ttft_ms")), np.asarray(found.pop("gaps_ms"))
    found |= {
        "ttft_p50": float(np.quantile(ttft, 0.5)) - TTFT_MS,
        "ttft_p99": float(np.quantile(ttft, 0.99)) - TTFT_MS,
        "itl_p99": float(np.quantile(gaps, 0.99)) - ITL_MS,
        "throughput": found["tokens_per_s"] / (streams * TOKENS / CYCLE_S) - 1,
    }
    spent = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    found["cpu_us"] = sum(u.ru_utime + u.ru_stime for u in spent) * 1e6 / max(1, found["events"])
    print(json.dumps(found))


def ticks() -> tuple[int, int]:
    """Stolen and all time of the machine's cores so far (Linux; zero elsewhere)."""
    try:
        with open("/proc/stat") as file:
            fields = [int(field) for field in file.readline().split()[1:9]]
    except OSError:
        return 0, 1
    return fields[7], sum(fields)


def once(name: str, streams: int, seconds: float, against: str = "", one_core: bool = False) -> dict[str, Any]:
    """One client against an endpoint of its own. Raises RuntimeError where the client fails."""
    stolen, total = ticks()
    cores = sorted(os.sched_getaffinity(0)) if one_core else []
    home = Path(against) if name == "before" else Path(__file__).resolve().parents[1]
    with serving("fixed", ttft_ms=TTFT_MS, itl_ms=ITL_MS) as served:
        if one_core:
            os.sched_setaffinity(served.pid, set(cores[1:]))
        # A checkout is measured by its own benchmark: it knows its own names.
        command = [sys.executable, str(home / "benchmarks" / "client.py"), "--seconds", str(seconds)]
        command += ["--child", "pacemark" if name == "before" else name, served.url, served.model, str(streams)]
        done = subprocess.run(
            ["taskset", "-c", str(cores[0]), *command] if one_core else command,
            capture_output=True,
            text=True,
            timeout=300,
            check=False,
            # Ours as its command line starts, which asks for no threads; before as it was.
            env=os.environ | {"PYTHONPATH": str(home / "src")} | ({} if name == "before" else ONE_THREAD),
        )
        if done.returncode:
            raise RuntimeError("".join(done.stderr.strip().splitlines()[-1:]))
        late = json.loads(urllib.request.urlopen(served.url.removesuffix("/v1") + "/lateness").read())
    found: dict[str, Any] = json.loads(done.stdout)
    first, gap = late["first"], late["gap"]
    found |= {"first_p50": first["p50_ms"], "first_p99": first["p99_ms"], "gap_p99": gap["p99_ms"]}
    after = ticks()
    return found | {"stolen": (after[0] - stolen) / max(1, after[1] - total)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--streams", default="1,32,128,512,1024")
    parser.add_argument("--clients", default=",".join(CLIENTS))
    parser.add_argument("--seconds", type=float, default=6.0)
    parser.add_argument("--repeats", type=int, default=1)
    parser.add_argument("--against", default="", metavar="DIR", help="a checkout to measure beside this one")
    parser.add_argument("--one-core", action="store_true", help="hold a client on one core, its endpoint on the others")
    parser.add_argument("--child", nargs=4, metavar=("NAME", "URL", "MODEL", "STREAMS"), help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.child:
        name, url, model, streams = given.child
        child(name, url, model, int(streams), given.seconds)
        return
    print(f"| streams | client | {' | '.join(title for title, _, _ in COLUMNS)} | verdict |")
    print("| ---: | --- |" + " ---: |" * len(COLUMNS) + " --- |")
    names = [*(["before"] if given.against else []), *given.clients.split(",")]
    for count in (int(c) for c in given.streams.split(",")):
        runs: dict[str, list[dict[str, Any]]] = {name: [] for name in names}
        failed: dict[str, str] = {}
        for number in range(given.repeats):
            for name in [n for n in names[:: -1 if number % 2 else 1] if n not in failed]:
                try:
                    runs[name].append(once(name, count, given.seconds, given.against, given.one_core))
                except (RuntimeError, subprocess.TimeoutExpired) as error:
                    failed[name] = str(error)
        for name in names:
            show(count, name, runs[name], failed.get(name, ""))
        if given.against and not failed.keys() & {"before", "pacemark"}:
            pairs = zip(runs["pacemark"], runs["before"], strict=True)
            share = float(np.median([now["cpu_us"] / before["cpu_us"] for now, before in pairs]))
            print(f"CPU per event at {count} streams: {share:.1%} of before", flush=True)


def show(streams: int, name: str, runs: list[dict[str, Any]], failed: str) -> None:
    """One row of the table."""
    if failed:
        print(f"| {streams} | {name} | failed: {failed} |", flush=True)
        return
    middle = {k: float(np.median([run[k] for run in runs])) for k in runs[0] if k != "verdict"}
    shown = " | ".join(f"{middle[key]:{form}}" if key in middle else "-" for _, key, form in COLUMNS)
    verdicts = ", ".join(sorted({run["verdict"] for run in runs}))
    print(f"| {streams} | {name} | {shown} | {verdicts} |", flush=True)


if __name__ == "__main__":
    main()
