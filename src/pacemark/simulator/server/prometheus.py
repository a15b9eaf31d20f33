"""What a monitoring system sees: counters and histograms in Prometheus' text form."""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter, deque
from collections.abc import Iterable, Sequence

from pacemark.simulator.engine.engine import EngineSpec
from pacemark.simulator.engine.model import Occupancy
from pacemark.simulator.engine.presets import Preset

__all__ = ["Histogram", "Meter", "exposition"]

_TTFT_S = (0.001, 0.005, 0.01, 0.02, 0.04, 0.06, 0.08, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0, 20.0, 40.0, 80.0)
_TOKEN_S = (0.01, 0.025, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0, 20.0, 40.0, 80.0)
_LATENCY_S = (0.3, 0.5, 0.8, 1.0, 1.5, 2.0, 2.5, 5.0, 10.0, 15.0, 20.0, 30.0, 40.0, 50.0, 60.0, 120.0, 240.0, 480.0)


class Histogram:
    """Counts per bucket, and the sum."""

    def __init__(self, bounds: Sequence[float]) -> None:
        self.bounds = bounds
        self.counts = [0] * (len(bounds) + 1)
        self.sum = 0.0

    def add(self, value: float) -> None:
        """Count one value; a bucket holds what is at most its bound."""
        self.counts[bisect_left(self.bounds, value)] += 1
        self.sum += value

    def lines(self, name: str, labels: str) -> Iterable[str]:
        """Samples of the text form, the buckets cumulative."""
        total = 0
        for bound, count in zip((*map(str, self.bounds), "+Inf"), self.counts, strict=True):
            total += count
            yield f'{name}_bucket{{{labels},le="{bound}"}} {total}'
        yield f"{name}_count{{{labels}}} {total}"
        yield f"{name}_sum{{{labels}}} {self.sum:.9g}"


class Meter:
    """Counts what the endpoint has served."""

    def __init__(self) -> None:
        self.prompt_tokens = 0
        self.cached_tokens = 0
        self.output_tokens = 0
        self.finished: Counter[str] = Counter()
        self.ttft_s = Histogram(_TTFT_S)
        self.tpot_s = Histogram(_TOKEN_S)
        self.latency_s = Histogram(_LATENCY_S)
        self.recent: deque[tuple[int, int]] = deque()
        """(monotonic ns, HTTP status) of the answers of the last minute."""

    def answered(self, now_ns: int, status: int) -> None:
        """Count an answer to a request for output, good or bad."""
        self.recent.append((now_ns, status))
        while self.recent[0][0] < now_ns - 60_000_000_000:
            self.recent.popleft()

    def served(self, reason: str, prompt: int, cached: int, output: int, ttft_s: float, latency_s: float) -> None:
        """Count a request that got all its tokens."""
        self.finished[reason] += 1
        self.prompt_tokens += prompt
        self.cached_tokens += cached
        self.ttft_s.add(ttft_s)
        self.latency_s.add(latency_s)
        if output > 1:
            self.tpot_s.add((latency_s - ttft_s) / (output - 1))


def exposition(meter: Meter, occupancy: Occupancy, preset: Preset) -> bytes:
    """The text form (version 0.0.4), under the names that vLLM gives its metrics (vllm/v1/metrics, release 0.11)."""
    labels = f'engine="0",model_name="{preset.model}"'
    lines: list[str] = []

    def family(name: str, kind: str, help: str, samples: Iterable[str]) -> None:
        lines.extend((f"# HELP {name} {help}", f"# TYPE {name} {kind}", *samples))

    def gauge(name: str, help: str, value: float) -> None:
        family(f"vllm:{name}", "gauge", help, [f"vllm:{name}{{{labels}}} {value:.9g}"])

    def counter(name: str, help: str, value: int) -> None:
        family(f"vllm:{name}", "counter", help, [f"vllm:{name}_total{{{labels}}} {value}"])

    gauge("num_requests_running", "Requests in the batch.", occupancy.running)
    gauge("num_requests_waiting", "Requests waiting for a place in it.", occupancy.waiting)
    gauge("kv_cache_usage_perc", "Share of the KV cache in use; 1 is full.", occupancy.kv_used)
    counter("num_preemptions", "Requests put back into the queue.", occupancy.preemptions)
    counter("prompt_tokens", "Prompt tokens of finished requests.", meter.prompt_tokens)
    counter("generation_tokens", "Tokens generated.", meter.output_tokens)
    if isinstance(spec := preset.timeline, EngineSpec):
        if spec.prefix_cache:
            counter("prefix_cache_queries", "Prompt tokens looked up in the prefix cache.", meter.prompt_tokens)
            counter("prefix_cache_hits", "Prompt tokens found there.", meter.cached_tokens)
        if spec.speculation:
            proposals = occupancy.drafts // spec.speculation.drafts
            counter("spec_decode_num_drafts", "Proposals made.", proposals)
            counter("spec_decode_num_draft_tokens", "Tokens proposed.", occupancy.drafts)
            counter("spec_decode_num_accepted_tokens", "Proposed tokens kept.", occupancy.accepted)
    family(
        "vllm:request_success",
        "counter",
        "Finished requests.",
        [
            f'vllm:request_success_total{{{labels},finished_reason="{reason}"}} {meter.finished[reason]}'
            for reason in ("stop", "length")
        ],
    )
    for name, help, histogram in (
        ("time_to_first_token_seconds", "Arrival to first token.", meter.ttft_s),
        ("request_time_per_output_token_seconds", "Mean gap between a request's tokens.", meter.tpot_s),
        ("e2e_request_latency_seconds", "Arrival to last token.", meter.latency_s),
    ):
        family(f"vllm:{name}", "histogram", help, histogram.lines(f"vllm:{name}", labels))
    return ("\n".join(lines) + "\n").encode()
