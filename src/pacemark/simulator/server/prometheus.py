"""What a monitoring system sees: counters and histograms in Prometheus' text form."""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter, deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate

from prometheus_client import generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric

from pacemark.simulator.engine.engine import EngineSpec
from pacemark.simulator.engine.model import Occupancy
from pacemark.simulator.engine.presets import Preset

__all__ = ["Histogram", "Meter", "exposition", "gauge", "written"]

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

    def scaled(self, factor: float) -> Histogram:
        """The same values in another unit."""
        other = Histogram([factor * bound for bound in self.bounds])
        other.counts, other.sum = list(self.counts), factor * self.sum
        return other

    def family(self, name: str, help: str, labels: Mapping[str, str]) -> Metric:
        """As Prometheus has it: the buckets cumulative."""
        bounds = [*map(str, self.bounds), "+Inf"]
        buckets = list(zip(bounds, accumulate(self.counts), strict=True))
        family = HistogramMetricFamily(name, help, labels=list(labels))
        family.add_metric(list(labels.values()), buckets, self.sum)
        return family


class Meter:
    """Counts what the endpoint has served."""

    def __init__(self) -> None:
        self.prompt_tokens = 0
        self.looked_up = 0
        """Prompt tokens of finished requests."""
        self.cached_tokens = 0
        self.output_tokens = 0
        self.finished: Counter[str] = Counter()
        self.ttft_s = Histogram(_TTFT_S)
        self.tpot_s = Histogram(_TOKEN_S)
        self.latency_s = Histogram(_LATENCY_S)
        self.queue_s = Histogram(_LATENCY_S)
        self.prefill_s = Histogram(_LATENCY_S)
        self.decode_s = Histogram(_LATENCY_S)
        self.inference_s = Histogram(_LATENCY_S)
        self.recent: deque[tuple[int, int]] = deque()
        """(monotonic ns, HTTP status) of the answers of the last minute."""

    def answered(self, now_ns: int, status: int) -> None:
        """Count an answer to a request for output, good or bad."""
        self.recent.append((now_ns, status))
        while self.recent[0][0] < now_ns - 60_000_000_000:
            self.recent.popleft()

    def last_minute(self, now_ns: int) -> Counter[int]:
        """Answers of the minute before `now_ns` by the first digit of their status."""
        return Counter(status // 100 for at, status in self.recent if at > now_ns - 60_000_000_000)

    def first_token(self, prompt: int, ttft_s: float) -> None:
        """Count a request whose prompt has been read: its first token is there."""
        self.prompt_tokens += prompt
        self.ttft_s.add(ttft_s)

    def served(self, reason: str, prompt: int, cached: int, output: int, times_ns: tuple[int, int, int, int]) -> None:
        """Count a request that got all its tokens. `times_ns`: it arrived, the engine took it up, first and last token
        came."""
        arrived, began, first, last = times_ns
        self.finished[reason] += 1
        self.looked_up += prompt
        self.cached_tokens += cached
        self.latency_s.add((last - arrived) / 1e9)
        self.queue_s.add((began - arrived) / 1e9)
        self.prefill_s.add((first - began) / 1e9)
        self.decode_s.add((last - first) / 1e9)
        self.inference_s.add((last - began) / 1e9)
        if output > 1:
            self.tpot_s.add((last - first) / 1e9 / (output - 1))


def gauge(name: str, help: str, labels: Mapping[str, str], value: float) -> Metric:
    """A family of one sample."""
    family = GaugeMetricFamily(name, help, labels=list(labels))
    family.add_metric(list(labels.values()), value)
    return family


def written(families: Iterable[Metric]) -> bytes:
    """The text form (version 0.0.4)."""
    return generate_latest(_Collected(list(families)))


@dataclass(frozen=True)
class _Collected:
    """All that `generate_latest` asks of a registry."""

    families: list[Metric]

    def collect(self) -> list[Metric]:
        return self.families


def exposition(meter: Meter, occupancy: Occupancy, preset: Preset) -> bytes:
    """The text form, under the names that vLLM gives its metrics (vllm/v1/metrics, release 0.33)."""
    return written(_families(meter, occupancy, preset))


def _families(meter: Meter, occupancy: Occupancy, preset: Preset) -> Iterator[Metric]:
    labels = {"engine": "0", "model_name": preset.model}
    for name, help, now in (
        ("num_requests_running", "Requests in the batch.", occupancy.running),
        ("num_requests_waiting", "Requests waiting for a place in it.", occupancy.waiting),
        ("kv_cache_usage_perc", "Share of the KV cache in use; 1 is full.", occupancy.kv_used),
    ):
        yield gauge(f"vllm:{name}", help, labels, now)
    for name, help, count in _counts(meter, occupancy, preset):
        family = CounterMetricFamily(f"vllm:{name}", help, labels=list(labels))
        family.add_metric(list(labels.values()), count)
        yield family
    success = CounterMetricFamily("vllm:request_success", "Finished requests.", labels=[*labels, "finished_reason"])
    for reason in ("stop", "length"):
        success.add_metric([*labels.values(), reason], meter.finished[reason])
    yield success
    yield meter.ttft_s.family("vllm:time_to_first_token_seconds", "Arrival to first token.", labels)
    per_token = "Mean gap between a request's tokens."
    yield meter.tpot_s.family("vllm:request_time_per_output_token_seconds", per_token, labels)
    yield meter.latency_s.family("vllm:e2e_request_latency_seconds", "Arrival to last token.", labels)
    yield meter.queue_s.family("vllm:request_queue_time_seconds", "Arrival to its place in the batch.", labels)
    yield meter.prefill_s.family("vllm:request_prefill_time_seconds", "From there to its first token.", labels)
    yield meter.decode_s.family("vllm:request_decode_time_seconds", "First to last token.", labels)
    yield meter.inference_s.family("vllm:request_inference_time_seconds", "Both together.", labels)


def _counts(meter: Meter, occupancy: Occupancy, preset: Preset) -> Iterator[tuple[str, str, int]]:
    yield "num_preemptions", "Requests put back into the queue.", occupancy.preemptions
    yield "prompt_tokens", "Prompt tokens read.", meter.prompt_tokens
    yield "generation_tokens", "Tokens generated.", meter.output_tokens
    if not isinstance(spec := preset.timeline, EngineSpec):
        return
    if spec.prefix_cache:
        yield "prefix_cache_queries", "Prompt tokens looked up in the prefix cache.", meter.looked_up
        yield "prefix_cache_hits", "Prompt tokens found there.", meter.cached_tokens
    if spec.speculation:
        yield "spec_decode_num_drafts", "Proposals made.", occupancy.drafts // spec.speculation.drafts
        yield "spec_decode_num_draft_tokens", "Tokens proposed.", occupancy.drafts
        yield "spec_decode_num_accepted_tokens", "Proposed tokens kept.", occupancy.accepted
