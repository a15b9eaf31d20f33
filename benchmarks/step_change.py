"""How often a step inside the window is reported: where the service turns 30% faster, and where nothing changes.

    python benchmarks/step_change.py --runs 200 --processes 2

Each run goes through the whole measuring step in virtual time with random lengths, and counts where its verdict
holds the reason `step_change`. From the middle of the window on, everything the engine does takes 1/1.3 of the time.
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing import get_context
from typing import Any
from unittest import mock

import msgspec
import numpy as np

from pacemark.figures.level import LevelResult
from pacemark.pace import Concurrency, Load, Rate
from pacemark.runs.simulated import virtual_measure
from pacemark.simulator import EngineSpec, named, simulate
from pacemark.simulator.engine.engine import Engine
from pacemark.simulator.engine.model import Model, Replica
from pacemark.simulator.engine.presets import Preset

FASTER = 1.3


class Quickened(Replica):
    """An engine that works faster from some moment on."""

    def __init__(self, spec: EngineSpec, seed: int, change_ns: float) -> None:
        super().__init__(Engine(spec, seed=seed))
        self._change_ns, self._seed = change_ns, seed

    def due_ns(self) -> int | None:
        """As ever, but the first step after the change is the first quick one."""
        if self.step is None and self._free_ns >= self._change_ns:
            spec = self.engine.spec
            costs = ("base_ms", "per_decode_ms", "per_prefill_token_ms", "per_kv_token_ms")
            quick = msgspec.structs.replace(spec, **{cost: getattr(spec, cost) / FASTER for cost in costs})
            other = Engine(quick, seed=self._seed)
            for name in ("_base_ns", "_decode_ns", "_prefill_ns", "_kv_ns"):
                setattr(self.engine, name, getattr(other, name))
            self._change_ns = math.inf
        return super().due_ns()


@contextmanager
def quickened(change_ns: float) -> Iterator[None]:
    """Every engine built inside the block changes at `change_ns`."""

    def build(preset: Preset, *, seed: int = 0) -> Model:
        assert isinstance(preset.timeline, EngineSpec)
        return Quickened(preset.timeline, seed, change_ns)

    with mock.patch("pacemark.simulator.engine.virtual.build", build):
        yield


@dataclass(frozen=True)
class Condition:
    """A load on a simulated endpoint, and how many requests its window holds."""

    name: str
    preset: str
    input_tokens: tuple[float, float]
    output_tokens: tuple[float, float]
    level: float
    """Up to 1: utilisation, an open loop at that share of the endpoint's capacity. Above: requests in parallel."""
    requests: int

    def offered(self) -> tuple[Load, float]:
        """The load, and the requests it makes per second."""
        batch: int = getattr(named(self.preset).timeline, "max_batch")  # noqa: B009 (a fixed timeline has none)
        streams = int(self.level) if self.level > 1 else batch
        trace = simulate(Concurrency(streams), self.preset, **self._lengths(), requests=40 * streams, seed=10**8)
        ended = np.sort(trace.ended_ns[trace.ended_ns <= trace.sent_ns[-1]])
        served = float((len(ended) - 10 * streams) / ((ended[-1] - ended[10 * streams - 1]) / 1e9))
        return (Concurrency(streams), served) if self.level > 1 else (Rate(self.level * served), self.level * served)

    def measure(self, offered: tuple[Load, float], seed: int, changed: bool) -> LevelResult:
        """One run, with a change in the middle of its window or without."""
        load, per_s = offered
        window_s = self.requests / per_s
        measure = virtual_measure(self.preset, **self._lengths(), duration_s=window_s, seed=seed)
        result = measure(load)
        if not changed:
            return result
        # Until the change both runs are the same, and so is the start of their windows.
        with quickened(result.window.end_ns - window_s / 2 * 1e9):
            again = virtual_measure(self.preset, **self._lengths(), duration_s=window_s, seed=seed)
            return again(load)

    def _lengths(self) -> dict[str, Any]:
        return {"input_tokens": self.input_tokens, "output_tokens": self.output_tokens}


SMALL: dict[str, Any] = {"preset": "demo", "input_tokens": (256.0, 0.5), "output_tokens": (64.0, 0.66)}
LARGE: dict[str, Any] = {"preset": "llama-8b-h100", "input_tokens": (512.0, 0.5), "output_tokens": (128.0, 0.66)}

CONDITIONS = [
    Condition("demo, 8 in parallel", **SMALL, level=8, requests=400),
    Condition("demo, 32 in parallel", **SMALL, level=32, requests=400),
    Condition("llama-8b-h100, 256 in parallel", **LARGE, level=256, requests=2000),
    Condition("demo, utilisation 0.5", **SMALL, level=0.5, requests=500),
    Condition("demo, utilisation 0.7", **SMALL, level=0.7, requests=1000),
    Condition("llama-8b-h100, utilisation 0.85", **LARGE, level=0.85, requests=3000),
    Condition("llama-8b-h100, utilisation 0.92", **LARGE, level=0.92, requests=4000),
]


def reported(condition: Condition, offered: tuple[Load, float], seeds: range) -> tuple[int, int]:
    """In how many runs a step was reported: without a change, and with one."""
    counts = [0, 0]
    for seed in seeds:
        for changed in (False, True):
            verdict = condition.measure(offered, seed, changed).level.verdict
            counts[changed] += any(reason.code == "step_change" for reason in verdict.reasons)
    return counts[0], counts[1]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=200)
    parser.add_argument("--processes", type=int, default=1)
    options = parser.parse_args()
    print("| condition | requests | unchanged: reported | 30% faster: reported |")
    print("| --- | ---: | ---: | ---: |")
    parts = [range(i, min(i + 5, options.runs)) for i in range(0, options.runs, 5)]
    with ProcessPoolExecutor(options.processes, mp_context=get_context("spawn")) as pool:
        for condition in CONDITIONS:
            offered = condition.offered()
            found = pool.map(reported, *zip(*((condition, offered, part) for part in parts), strict=True))
            totals = np.sum(list(found), axis=0) * 100 / options.runs
            print(f"| {condition.name} | {condition.requests} | {totals[0]:.1f}% | {totals[1]:.1f}% |", flush=True)


if __name__ == "__main__":
    main()
