"""Summaries as runs leave them, for the tests of everything that shows one.

The figures follow the step-time model of a continuous-batching engine, so that their curve has the shape of a
real one: latency flat at low load, then throughput flat and latency rising with the queue.
"""

from __future__ import annotations

from typing import Literal, TypeVar

from hypothesis import strategies as st

from pacemark.answers.curve import operating_points
from pacemark.pace import Concurrency, Load, Rate
from pacemark.summary import (
    Client,
    Distribution,
    Figure,
    Find,
    Level,
    Probe,
    Reason,
    Requests,
    Spent,
    Spread,
    Summary,
    Verdict,
)

TOKENS = 128
SLOTS = 24
TARGET = {"url": "http://127.0.0.1:8000/v1", "model": "demo-8b", "api": "chat"}
WORKLOAD = {"input_tokens": 512, "output_tokens": TOKENS, "seed": 7, "cache": "cold", "streaming": True}
RUN = {
    "schema": "pacemark/run/1",
    "command": "pacemark sweep http://127.0.0.1:8000/v1 --model demo-8b --concurrency 1,2,4,8,16,32,64",
    "started": "2026-03-02T14:05:11+00:00",
    "host": {"system": "Linux 6.8", "python": "3.11.9", "cpus": 2},
    "versions": {"pacemark": "0.1.0", "numpy": "2.4.6"},
    "settings": {"duration_s": 20.0, "workers": 2, "stream": True, "max_in_flight": None},
    "interrupted": False,
    "failure": None,
}


T = TypeVar("T")


def known(value: T | None) -> T:
    """`value`, which the test knows to be there."""
    assert value is not None
    return value


def figure(value: float, share: float = 0.02) -> Figure:
    """`value` with an interval of plus and minus `share` of it."""
    return Figure(value, value * (1 - share), value * (1 + share))


def distribution(centre: float, tail: float, share: float = 0.02) -> Distribution:
    """A skewed distribution with median `centre` and p95 `tail`."""
    return Distribution(
        mean=figure(centre * 0.7 + tail * 0.3, share),
        p50=figure(centre, share),
        p90=figure(centre + (tail - centre) * 0.8, share * 1.5),
        p95=figure(tail, share * 2),
        p99=figure(tail + (tail - centre) * 0.6, share * 4),
    )


def level(
    load: Load,
    *,
    tokens_per_s: float | None,
    ttft_ms: tuple[float, float] | None,
    tpot_ms: tuple[float, float] | None,
    latency_ms: tuple[float, float] | None,
    status: Literal["valid", "suspect", "invalid"] = "valid",
    reasons: list[Reason] | None = None,
    errors: dict[str, int] | None = None,
    short: int = 0,
    share: float = 0.01,
) -> Level:
    """One level; pairs are (median, p95) and None is a figure that could not be had."""

    def both(pair: tuple[float, float] | None) -> Distribution:
        return Distribution() if pair is None else distribution(*pair)

    failed = sum((errors or {}).values())
    per_s = None if tokens_per_s is None else tokens_per_s / TOKENS
    completed = 0 if per_s is None else round(20 * per_s)
    return Level(
        load=load,
        window_s=None if per_s is None else 20.1,
        requests=Requests(completed=completed, failed=failed, in_window=round(0.9 * completed), short=short),
        errors=errors or {},
        output_tokens_per_s=Figure() if tokens_per_s is None else figure(tokens_per_s, share),
        total_tokens_per_s=Figure() if tokens_per_s is None else figure(5 * tokens_per_s, share),
        requests_per_s=Figure() if per_s is None else figure(per_s, share),
        input_tokens=512.4,
        output_tokens=None if per_s is None else float(TOKENS),
        ttft_ms=both(ttft_ms),
        tpot_ms=both(tpot_ms),
        itl_ms=both(tpot_ms),
        latency_ms=both(latency_ms),
        client=Client(
            clock="kernel",
            lag_ms=Spread(0.03, 0.21, 1.4),
            cpu_us_per_event=17.2,
            coalesced_share=0.0004,
            lateness_ms=Spread(0.05, 0.4, 1.1) if isinstance(load, Rate) else None,
        ),
        verdict=Verdict(status=status, reasons=reasons or []),
    )


def engine_level(concurrency: int) -> Level:
    """What an engine with 24 slots, 8 ms + 0.25 ms a stream a step and 16 ms of prefill gives."""
    running = min(concurrency, SLOTS)
    tpot = 8 + 0.25 * running + 16 * running / TOKENS
    cycle = 24 + (TOKENS - 1) * tpot
    queue = cycle * max(0, concurrency - SLOTS) / SLOTS
    ttft = 24 + 1.5 * running + queue
    latency = ttft + (TOKENS - 1) * tpot
    return level(
        Concurrency(concurrency),
        tokens_per_s=1000 * concurrency * TOKENS / (cycle + queue + 1.5 * running),
        ttft_ms=(ttft, ttft * 1.1 + 12),
        tpot_ms=(tpot, tpot * 1.04),
        latency_ms=(latency, latency * 1.05 + 40),
    )


def _summary(levels: list[Level], **changes: object) -> Summary:
    parts = {"target": TARGET, "workload": WORKLOAD, "run": RUN, "operating_points": operating_points(levels)}
    return Summary(levels=levels, **(parts | changes))  # type: ignore[arg-type]


def sweep() -> Summary:
    """Seven levels with a knee, all valid."""
    return _summary([engine_level(n) for n in (1, 2, 4, 8, 16, 32, 64)])


def troubled() -> Summary:
    """A sweep whose top fails: one suspect level, one invalid with figures, one where nothing came back."""
    late = Reason("client_late", "The client took 31% of one core per worker: it was too busy to be trusted.")
    drift = Reason("drift", "Throughput fell by 6% from the first half of the window to the second.")
    refused = Reason("all_failed", "Every request failed: HTTP 503 'model is overloaded, try again'.")
    return _summary(
        [
            *(engine_level(n) for n in (1, 4)),
            level(
                Concurrency(16),
                tokens_per_s=1410,
                ttft_ms=(52, 71),
                tpot_ms=(11.2, 12),
                latency_ms=(1474, 1600),
                status="suspect",
                reasons=[drift],
                errors={"http_429": 3},
                short=2,
            ),
            level(
                Concurrency(64),
                tokens_per_s=1050,
                ttft_ms=(2900, 4100),
                tpot_ms=(24, 31),
                latency_ms=(5948, 8000),
                status="invalid",
                reasons=[late, drift],
                errors={"timeout": 11, "http_429": 180},
            ),
            level(
                Concurrency(128),
                tokens_per_s=None,
                ttft_ms=None,
                tpot_ms=None,
                latency_ms=None,
                status="invalid",
                reasons=[refused],
                errors={"http_503": 512},
            ),
        ]
    )


def single() -> Summary:
    """One level of an endpoint that does not stream: no TTFT, no TPOT."""
    one = level(Concurrency(8), tokens_per_s=640, ttft_ms=None, tpot_ms=None, latency_ms=(1600, 1710))
    return _summary([one], workload=WORKLOAD | {"streaming": False})


def open_loop() -> Summary:
    """Poisson arrivals up to and over capacity."""
    capacity = 12.0
    rows = []
    for rate in (1.0, 2.5, 5.0, 7.5, 10.0, 11.5):
        busy = rate / capacity
        ttft = 30 + 20 * busy + 25 * busy / (1 - busy)
        tpot = 8 + 7 * busy
        latency = ttft + (TOKENS - 1) * tpot
        rows.append(
            level(
                Rate(rate),
                tokens_per_s=rate * TOKENS,
                ttft_ms=(ttft, ttft * (1.2 + 2 * busy)),
                tpot_ms=(tpot, tpot * 1.15),
                latency_ms=(latency, latency * 1.1 + 2 * ttft * busy),
                share=0.03,
            )
        )
    unstable = Reason("unstable", "The backlog grew throughout the window: the rate is beyond capacity.")
    rows.append(
        level(
            Rate(14.0),
            tokens_per_s=12 * TOKENS,
            ttft_ms=(2400, 4900),
            tpot_ms=(15, 17),
            latency_ms=(4300, 6900),
            status="invalid",
            reasons=[unstable],
        )
    )
    return _summary(rows)


def found() -> Summary:
    """What `pacemark find` leaves: three levels and the search."""
    budget = "tpot p95 < 20ms, ttft p95 < 200ms"
    levels = [engine_level(n) for n in (8, 16, 24, 28)]
    return _summary(
        levels,
        operating_points=operating_points(levels, lambda x: (x.ttft_ms.p95.value or 0) < 200),
        find=Find(
            budget=budget,
            load="concurrency",
            resolved=True,
            answer=Figure(26, 24, 27),
            binds="ttft p95",
            probes=[
                Probe(Concurrency(8), True, "every limit met by 40%"),
                Probe(Concurrency(28), False, "ttft p95 is 548 ms"),
                Probe(Concurrency(24), True, "ttft p95 is 78 ms"),
            ],
            spent=Spent(requests=1240, seconds=96.0),
        ),
    )


pairs = st.none() | st.tuples(st.floats(0.01, 1e6), st.floats(1, 5)).map(lambda p: (p[0], p[0] * p[1]))
loads = st.integers(1, 4096).map(Concurrency) | st.floats(0.01, 1e4).map(Rate)
any_level = st.builds(
    level,
    loads,
    tokens_per_s=st.none() | st.floats(0, 1e6),
    ttft_ms=pairs,
    tpot_ms=pairs,
    latency_ms=pairs,
    status=st.sampled_from(["valid", "suspect", "invalid"]),
    share=st.floats(0, 3),
)
