"""The embedded endpoint over real sockets beside the same engine in virtual time.

    python benchmarks/real_vs_virtual.py [--preset llama-8b-h100] [--streams 1,8,32,64,128] [--seconds 10]

Both are measured the same way: throughput inside the window, and mean TPOT and median TTFT of the requests that began
in it. The endpoint answers at natural lengths of 64 tokens on average (coefficient of variation 0.4): with answers of
one length a closed loop never forgets how its streams were started. Virtual time draws from the lengths that occurred
and is told how long a stream really took to send its next request; its figures are medians over five seeds, and
"spread" is the standard deviation of its median TTFT over windows as long as the real one. "endpoint late" is how late
the endpoint was by its own account, which is no part of the engine.
"""

from __future__ import annotations

import argparse
import json
import urllib.request

import numpy as np

from pacemark.endpoint.target import target
from pacemark.figures import metrics
from pacemark.figures.health import Health
from pacemark.figures.level import sum_up
from pacemark.pace import Concurrency
from pacemark.runs.bench import Bench
from pacemark.scenario import Settings
from pacemark.simulator import serving, simulate
from pacemark.summary import Level
from pacemark.trace import Trace, Window
from pacemark.workload.words import Workload

SEEDS = range(5)
LENGTHS = (64.0, 0.4)


def figures(level: Level) -> tuple[float, float, float]:
    """Output tokens/s, mean TPOT and median TTFT in ms."""
    found = level.output_tokens_per_s.value, level.tpot_ms.mean.value, level.ttft_ms.p50.value
    assert None not in found
    return found  # type: ignore[return-value]


def turnaround_ms(trace: Trace) -> float:
    """How long a stream takes from the end of an answer to sending its next request, the median."""
    order = np.lexsort((trace.sent_ns, trace.stream))
    same = np.diff(trace.stream[order]) == 0
    pauses = (trace.sent_ns[order][1:] - trace.ended_ns[order][:-1])[same]
    return float(np.median(pauses)) / 1e6


def real(preset: str, streams: int, seconds: float) -> tuple[tuple[float, float, float], Trace, float]:
    """Its figures, its trace, and how late the endpoint was (p99, ms)."""
    with serving(preset, strict=True, answer_tokens=LENGTHS) as served:
        place = target(served.url, model=served.model)
        with Bench(place, Workload(256, 512, 2), Settings(duration_s=seconds)) as bench:
            bench.prepare()
            result = bench.measure(Concurrency(streams))
            late = json.loads(urllib.request.urlopen(served.url.removesuffix("/v1") + "/lateness").read())
            bench.finish(drain=False)
    return figures(result.level), result.trace, late["p99_ms"]


def virtual(preset: str, streams: int, trace: Trace, seconds: float) -> tuple[float, float, float, float]:
    """The same load with the lengths and the turnaround of the real one: its figures, and the last one's spread."""
    # What the ramp cut short is no natural length.
    good = metrics.succeeded(trace) & (trace.asked_tokens == trace.asked_tokens.max())
    inputs, outputs = trace.input_tokens[good], trace.output_tokens[good]
    found, spread = [], []
    for seed in SEEDS:
        run = simulate(
            Concurrency(streams),
            preset,
            input_tokens=lambda rng, n: rng.choice(inputs, n),
            output_tokens=lambda rng, n: rng.choice(outputs, n),
            duration_s=40.0,
            turnaround_ms=turnaround_ms(trace),
            seed=seed,
        )
        found.append(figures(sum_up(Concurrency(streams), run, Window(10**10, 4 * 10**10), Health()).level))
        ttft_ms, part = metrics.ttft_ms(run), run.sent_ns // int(seconds * 1e9)
        spread += [float(np.median(ttft_ms[part == n])) for n in range(1, int(40 / seconds))]
    tokens, tpot, ttft = np.median(found, axis=0)
    return float(tokens), float(tpot), float(ttft), float(np.std(spread))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--preset", default="llama-8b-h100")
    parser.add_argument("--streams", default="1,8,32,64,128")
    parser.add_argument("--seconds", type=float, default=10.0)
    options = parser.parse_args()
    print("| streams | tokens/s | mean TPOT | TTFT p50, real | virtual | spread | difference | endpoint late p99 |")
    print("| ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: |")
    for streams in (int(n) for n in options.streams.split(",")):
        measured, trace, late_ms = real(options.preset, streams, options.seconds)
        expected = virtual(options.preset, streams, trace, options.seconds)
        tokens, tpot = (measured[i] / expected[i] - 1 for i in (0, 1))
        print(
            f"| {streams} | {tokens:+.2%} | {tpot:+.2%} | {measured[2]:.2f} ms | {expected[2]:.2f} ms"
            f" | {expected[3]:.2f} ms | {measured[2] - expected[2]:+.2f} ms | {late_ms:.2f} ms |",
            flush=True,
        )


if __name__ == "__main__":
    main()
