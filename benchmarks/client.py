"""pacemark's client beside an aiohttp and an httpx client, against one fixed timeline, in one run.

    python benchmarks/client.py [--streams 1,32,128,512,1024] [--clients pacemark,aiohttp,httpx] [--seconds 6]

Truth: TTFT 200 ms, ITL 20 ms, 128 tokens; every stream starts its next request when its answer has ended. Each
client runs in a process of its own; its CPU time is of the whole process with its children, analysis included.
The endpoint's own lateness is printed beside every row: an error of that size is not the client's.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import resource
import subprocess
import sys
import time
import urllib.request
from typing import Any

import numpy as np

from pacemark.simulator import serving

TTFT_MS, ITL_MS, TOKENS = 200.0, 20.0, 128
CYCLE_S = (TTFT_MS + (TOKENS - 1) * ITL_MS) / 1e3
CLIENTS = ("pacemark", "aiohttp", "httpx")


def body(model: str, tag: str) -> dict[str, Any]:
    return {
        "model": model,
        "messages": [{"role": "user", "content": f"{tag} tell me a story about a lamp and a harbour"}],
        "max_tokens": TOKENS,
        "ignore_eos": True,
        "stream": True,
        "stream_options": {"include_usage": True},
    }


def measure_pacemark(url: str, model: str, streams: int, seconds: float) -> dict[str, Any]:
    from pacemark import metrics
    from pacemark.endpoint.target import target
    from pacemark.measure import Bench, Settings
    from pacemark.pace import Concurrency
    from pacemark.workload import Workload

    with Bench(target(url, model=model), Workload(32, TOKENS, 1), Settings(duration_s=seconds)) as bench:
        bench.prepare()
        result = bench.measure(Concurrency(streams))
        bench.finish()
    good = metrics.succeeded(result.trace)
    gaps, _, _ = metrics.gaps(result.trace, good)
    return {
        "ttft_ms": metrics.ttft_ms(result.trace)[good].tolist(),
        "gaps_ms": gaps.tolist(),
        "tokens_per_s": result.level.output_tokens_per_s.value,
        "events": len(result.trace.hi_ns),
        "verdict": result.level.verdict.status,
    }


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
                (ttft if first else gaps).append((now - last) * 1e3 if not first else (now - sent) * 1e3)
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
    found = globals()[f"measure_{name}"](url, model, streams, seconds)
    ttft, gaps = np.asarray(found.pop("ttft_ms")), np.asarray(found.pop("gaps_ms"))
    found |= {
        "ttft_p50": float(np.quantile(ttft, 0.5)),
        "ttft_p99": float(np.quantile(ttft, 0.99)),
        "itl_p99": float(np.quantile(gaps, 0.99)),
    }
    spent = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    found["cpu_us"] = sum(u.ru_utime + u.ru_stime for u in spent) * 1e6 / max(1, found["events"])
    print(json.dumps(found))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--streams", default="1,32,128,512,1024")
    parser.add_argument("--clients", default=",".join(CLIENTS))
    parser.add_argument("--seconds", type=float, default=6.0)
    parser.add_argument("--child", nargs=4, metavar=("NAME", "URL", "MODEL", "STREAMS"), help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.child:
        name, url, model, streams = given.child
        child(name, url, model, int(streams), given.seconds)
        return
    print("streams  client    TTFT p50  TTFT p99   ITL p99  tokens/s  CPU/event  endpoint late p99  verdict")
    print("                   error ms  error ms  error ms     error         us                 ms")
    for count in (int(c) for c in given.streams.split(",")):
        for name in given.clients.split(","):
            with serving("fixed", ttft_ms=TTFT_MS, itl_ms=ITL_MS) as served:
                command = [sys.executable, __file__, "--seconds", str(given.seconds)]
                command += ["--child", name, served.url, served.model, str(count)]
                done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
                if done.returncode:
                    print(f"{count:7}  {name:9} failed: {done.stderr.strip().splitlines()[-1:]}")
                    continue
                late = json.loads(urllib.request.urlopen(served.url.removesuffix("/v1") + "/lateness").read())
            found = json.loads(done.stdout)
            truth = count * TOKENS / CYCLE_S
            print(
                f"{count:7}  {name:9} {found['ttft_p50'] - TTFT_MS:8.2f}  {found['ttft_p99'] - TTFT_MS:8.2f}"
                f"  {found['itl_p99'] - ITL_MS:8.2f}  {found['tokens_per_s'] / truth - 1:+8.2%}"
                f"  {found['cpu_us']:9.1f}  {late['p99_ms']:17.2f}  {found['verdict']}",
                flush=True,
            )


if __name__ == "__main__":
    main()
