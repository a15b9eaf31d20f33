"""How much load this machine can measure honestly: the client against an endpoint whose timeline is known.

The endpoint reports how late it was itself, so that what is left over is the client's error. On a machine that
both share it is an upper bound: a remote endpoint takes no CPU from the client.
"""

from __future__ import annotations

import platform
import urllib.request
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from pacemark.endpoint.target import target
from pacemark.figures import metrics
from pacemark.files import cache_folder
from pacemark.nodes import NodeFacts
from pacemark.pace import Concurrency, Load
from pacemark.reporting.progress import Status
from pacemark.runs.bench import Bench
from pacemark.scenario import Settings, Workload
from pacemark.values import at_least

STREAMS = (32, 64, 128, 256, 512, 768, 1024, 1536, 2048)
TTFT_MS, ITL_MS, TOKENS = 200.0, 20.0, 64
CYCLE_S = (TTFT_MS + (TOKENS - 1) * ITL_MS) / 1e3
LIMITS = {"ttft_p99_error_ms": 1.0, "itl_p99_error_ms": 1.0, "throughput_error": 0.005}


class Point(msgspec.Struct, frozen=True):
    """The client's error at one number of streams."""

    streams: int
    tls: bool
    ttft_p99_error_ms: float
    itl_p99_error_ms: float
    throughput_error: float
    server_late_p99_ms: float
    """How late the endpoint was: where this is large, the machine is full, whoever is to blame."""
    lag_p99_ms: float | None
    cpu_us_per_event: float | None

    @property
    def honest(self) -> bool:
        """Whether every error is within its limit."""
        return all(abs(getattr(self, name)) <= limit for name, limit in LIMITS.items())


class Calibration(msgspec.Struct, frozen=True):
    """The most streams, of TOKENS tokens every ITL_MS, that this machine measures within LIMITS; 0 if none."""

    plain: int
    tls: int
    workers: int
    host: str
    points: list[Point]


def calibrate(
    streams: Sequence[int] = STREAMS,
    *,
    tls: Sequence[bool] = (False, True),
    workers: int = 1,
    duration_s: float = 4.0,
    observe: Callable[[Status], None] = lambda status: None,
    tell: Callable[[Point], None] = lambda point: None,
) -> Calibration:
    """Raise the number of streams until the client's errors pass the limits twice in a row. Raises BadInput."""
    counts = [at_least("--streams", count, 1) for count in streams]
    at_least("--workers", workers, 1)
    points: list[Point] = []
    for secure in tls:
        missed = 0
        for count in counts:
            point = measure_point(count, secure, workers, duration_s, observe)
            points.append(point)
            tell(point)
            missed = 0 if point.honest else missed + 1
            if missed == 2:
                break
    plain, encrypted = (
        max((p.streams for p in points if p.tls is secure and p.honest), default=0) for secure in (False, True)
    )
    return Calibration(plain, encrypted, workers, platform.node(), points)


def measure_point(streams: int, tls: bool, workers: int, duration_s: float, observe: Callable[[Status], None]) -> Point:
    """One level against the fixed timeline, and the client's error in it."""
    from pacemark.simulator import serving

    with serving("fixed", ttft_ms=TTFT_MS, itl_ms=ITL_MS, tls=tls) as served:
        place = target(served.url, model=served.model, insecure=tls)
        workload = Workload(input_tokens=32, output_tokens=TOKENS, seed=streams)
        with Bench(place, workload, Settings(duration_s=duration_s, workers=workers), observe=observe) as bench:
            bench.prepare()
            _ask(served.url, "/lateness/reset", b"")
            result = bench.measure(Concurrency(streams))
            late = _ask(served.url, "/lateness", None)
            bench.finish()
    good = metrics.succeeded(result.trace)
    ttft = metrics.ttft_ms(result.trace)[good]
    if tls:
        # Over TLS the endpoint counts from when it read the request. It sends the headers at that moment, so their
        # time is the endpoint's, not the client's; plain requests are counted from the kernel's stamp.
        ttft -= metrics.ttfb_ms(result.trace)[good]
    sending = float(np.quantile(result.health.send_ns, 0.99)) / 1e6 if tls else 0.0
    gaps, _, _ = metrics.gaps(result.trace, good)
    expected = streams * TOKENS / (CYCLE_S + late["mean_ms"] / 1e3)
    rate = result.level.output_tokens_per_s.value or 0.0
    return Point(
        streams=streams,
        tls=tls,
        ttft_p99_error_ms=float(np.quantile(ttft, 0.99)) - TTFT_MS - late["first"]["p99_ms"] + sending,
        itl_p99_error_ms=float(np.quantile(gaps, 0.99)) - ITL_MS - late["gap"]["p99_ms"],
        throughput_error=rate / expected - 1,
        server_late_p99_ms=late["p99_ms"],
        lag_p99_ms=result.level.client.lag_ms.p99,
        cpu_us_per_event=result.level.client.cpu_us_per_event,
    )


def _ask(url: str, path: str, data: bytes | None) -> Any:
    """One request to the embedded endpoint, which runs on this machine and may have made its own certificate."""
    import ssl

    root = url.removesuffix("/v1")
    context = ssl._create_unverified_context() if root.startswith("https") else None
    with urllib.request.urlopen(root + path, data=data, context=context, timeout=10) as answer:
        return msgspec.json.decode(answer.read() or b"null")


# --- remembered between runs


def remember(calibration: Calibration) -> Path:
    """Keep the result for this user on this machine."""
    path = _memory()
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(msgspec.json.format(msgspec.json.encode(calibration), indent=2))
    return path


def warning(loads: Sequence[Load], tls: bool, nodes: Sequence[NodeFacts] = ()) -> str:
    """One line where `loads` go beyond what this machine was calibrated for, or `nodes`, of which the smallest counts;
    else empty."""
    most = max((load.value for load in loads if isinstance(load, Concurrency)), default=0)
    if nodes:
        least = min((node for node in nodes if node.calibrated), key=lambda node: node.calibrated[tls], default=None)
        if least is None or most <= least.calibrated[tls] * len(nodes):
            return ""
        each = f"{most / len(nodes):,.0f} streams on each of {len(nodes)} nodes"
        return f"{each} are more than the {least.calibrated[tls]} that {least.name} was calibrated for: see the verdict"
    try:
        known = msgspec.json.decode(_memory().read_bytes(), type=Calibration)
    except (OSError, msgspec.DecodeError):
        return ""
    limit = known.tls if tls else known.plain
    if known.host != platform.node() or most <= limit:
        return ""
    return f"concurrency {most} is more than the {limit} that this machine was calibrated for: see the client's verdict"


def _memory() -> Path:
    return cache_folder() / "calibration.json"
