"""A fixed timeline, measured over each API as over chat.

    python benchmarks/apis.py [--streams 64] [--seconds 4] [--rounds 3] [--apis messages,tgi]

The embedded endpoint gives TTFT 200 ms, ITL 20 ms and 64 tokens over every API that streams, and each is measured in
the same process of the same endpoint, in turns: what differs from chat is what that API's reading does. Prints chat's
error against the timeline, and for each API the difference from chat in the same round: the median over the rounds.
"""

from __future__ import annotations

import argparse
import statistics
from dataclasses import dataclass

import numpy as np

from pacemark.dialects.dialect import DIALECTS
from pacemark.endpoint.target import target
from pacemark.figures import metrics
from pacemark.pace import Concurrency
from pacemark.runs.bench import Bench
from pacemark.scenario import Settings
from pacemark.simulator import Served, serving
from pacemark.workload.words import Workload

TTFT_MS, ITL_MS, TOKENS = 200.0, 20.0, 64
BOUNDS = (1.5, 0.2, 1.0)
"""What may lie between an API and chat: TTFT p50 and ITL p50 in ms, tokens/s in percent."""
STREAMED = [name for name, dialect in DIALECTS.items() if dialect.streams and name != "agent"]


@dataclass(frozen=True)
class Measured:
    """Medians and rate of one level."""

    ttft_ms: float
    itl_ms: float
    tokens_per_s: float
    exact: bool
    """Every request was answered, and counted as long as was asked for."""

    def beside(self, other: Measured) -> tuple[float, float, float]:
        """What it has more: ms, ms, percent."""
        rate = 100 * (self.tokens_per_s / other.tokens_per_s - 1)
        return self.ttft_ms - other.ttft_ms, self.itl_ms - other.itl_ms, rate


def measured(served: Served, api: str, streams: int, seconds: float) -> Measured:
    """One level over `api`."""
    place = target(served.url, model=served.model, api=api)
    if api == "gemini":
        place = target(served.url.removesuffix("/v1"), model=served.model, api=api)
    with Bench(place, Workload(64, TOKENS, 1), Settings(duration_s=seconds)) as bench:
        bench.prepare()
        bench.measure(Concurrency(streams))
        result = bench.finish()[0]
    good = metrics.succeeded(result.trace)
    return Measured(
        float(np.nanmedian(metrics.ttft_ms(result.trace)[good])),
        float(np.median(metrics.gaps(result.trace, good)[0])),
        result.level.output_tokens_per_s.value or 0.0,
        bool(good.all() and (result.trace.output_tokens == result.trace.asked_tokens).all()),
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--streams", type=int, default=64)
    parser.add_argument("--seconds", type=float, default=4.0)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--apis", default=",".join(STREAMED))
    options = parser.parse_args()
    apis = [name for name in options.apis.split(",") if name != "chat"]
    rounds: list[dict[str, Measured]] = []
    with serving("fixed", ttft_ms=TTFT_MS, itl_ms=ITL_MS) as served:
        for turn in range(options.rounds):
            order = ["chat", *apis][:: -1 if turn % 2 else 1]
            rounds.append({api: measured(served, api, options.streams, options.seconds) for api in order})
    truth = Measured(TTFT_MS, ITL_MS, options.streams * TOKENS / (TTFT_MS + (TOKENS - 1) * ITL_MS) * 1e3, exact=True)
    print(f"{options.streams} streams, {options.rounds} rounds of {options.seconds:g} s: TTFT p50, ITL p50, tokens/s")
    for api in ("chat", *apis):
        pairs = [one[api].beside(truth if api == "chat" else one["chat"]) for one in rounds]
        ttft, itl, rate = (statistics.median(values) for values in zip(*pairs, strict=True))
        within = all(abs(x) <= bound for x, bound in zip((ttft, itl, rate), BOUNDS, strict=True))
        exact = all(one[api].exact for one in rounds)
        print(f"{api:16} {ttft:+7.2f} ms {itl:+7.2f} ms {rate:+7.2f}%  "
              f"{'of the timeline' if api == 'chat' else 'of chat'}"
              f"{'' if within else ', out of bounds'}{'' if exact else ', tokens not exact'}")  # fmt: skip


if __name__ == "__main__":
    main()
