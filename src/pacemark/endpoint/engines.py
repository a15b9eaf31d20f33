"""Where each serving engine keeps its figures: the names of its Prometheus metrics, by ours.

A name may have labels that a sample must have, with alternatives (`name{reason=stop|length}`), a factor to our unit
(`name*0.001`), and several may be added up (`a + b`), which is known where all of them are. Of a histogram, in seconds,
its sum, its count and its buckets are taken; `queue_sum` names one of these by itself. Sources, as of 2026-11: vllm
0.33 (`v1/metrics/loggers.py`), sglang 0.5.23 (`observability/metrics_collector.py`), text-generation-inference's
router, llama.cpp's `tools/server`, the pages on metrics of TensorRT-LLM, Triton and Dynamo, and DCGM exporter's
`default-counters.csv`.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from pacemark.errors import BadInput

if TYPE_CHECKING:
    from pacemark.endpoint.prometheus import Sample

__all__ = ["COUNTED_AT_END", "ENGINES", "NAMED", "Names", "mapped", "read_figures"]

HISTOGRAMS = ("ttft", "queue", "prefill", "decode")
_VALUES = (
    "running waiting kv_used requests input_tokens output_tokens prefix_queries prefix_hits preemptions power_w "
    "energy_j".split()
)
NAMED = (*_VALUES, *HISTOGRAMS, *(f"{name}_{part}" for name in HISTOGRAMS for part in ("sum", "count")))
"""What can be told of a server: gauges, counters, and histograms in seconds."""
COUNTED_AT_END = {"SGLang", "TGI", "llama.cpp", "TensorRT-LLM", "Triton"}
"""Engines that count a request's output tokens when it has ended, and not as they come."""

ENGINES: dict[str, dict[str, str]] = {
    "Dynamo": {
        "running": "dynamo_frontend_inflight_requests", "waiting": "dynamo_frontend_queued_requests",
        "requests": "dynamo_frontend_requests_total{status=success}",
        "input_tokens": "dynamo_frontend_input_sequence_tokens_sum",
        "output_tokens": "dynamo_frontend_output_tokens_total", "ttft": "dynamo_frontend_time_to_first_token_seconds",
    },
    "vLLM": {
        "running": "vllm:num_requests_running", "waiting": "vllm:num_requests_waiting",
        "kv_used": "vllm:kv_cache_usage_perc", "preemptions": "vllm:num_preemptions_total",
        "requests": "vllm:request_success_total{finished_reason=stop|length|repetition}",
        "input_tokens": "vllm:prompt_tokens_total", "output_tokens": "vllm:generation_tokens_total",
        "prefix_queries": "vllm:prefix_cache_queries_total", "prefix_hits": "vllm:prefix_cache_hits_total",
        "ttft": "vllm:time_to_first_token_seconds", "queue": "vllm:request_queue_time_seconds",
        "prefill": "vllm:request_prefill_time_seconds", "decode": "vllm:request_decode_time_seconds",
    },
    "SGLang": {
        "running": "sglang:num_running_reqs", "waiting": "sglang:num_queue_reqs", "kv_used": "sglang:token_usage",
        "requests": "sglang:num_requests_total", "input_tokens": "sglang:prompt_tokens_total",
        "output_tokens": "sglang:generation_tokens_total", "prefix_queries": "sglang:prompt_tokens_total",
        "prefix_hits": "sglang:cached_tokens_total", "ttft": "sglang:time_to_first_token_seconds",
        "queue": "sglang:queue_time_seconds",
    },
    "TGI": {
        "running": "tgi_batch_current_size", "waiting": "tgi_queue_size", "requests": "tgi_request_success",
        "input_tokens": "tgi_request_input_length_sum", "output_tokens": "tgi_request_generated_tokens_sum",
        "queue": "tgi_request_queue_duration",
    },
    "llama.cpp": {
        "running": "llamacpp:requests_processing", "waiting": "llamacpp:requests_deferred",
        "input_tokens": "llamacpp:prompt_tokens_total + llamacpp:prompt_tokens_cached_total",
        "output_tokens": "llamacpp:tokens_predicted_total", "prefix_hits": "llamacpp:prompt_tokens_cached_total",
        "prefix_queries": "llamacpp:prompt_tokens_total + llamacpp:prompt_tokens_cached_total",
        "prefill_sum": "llamacpp:prompt_seconds_total", "decode_sum": "llamacpp:tokens_predicted_seconds_total",
    },
    "TensorRT-LLM": {
        "running": "trtllm_num_requests_running", "waiting": "trtllm_num_requests_waiting",
        "kv_used": "trtllm_kv_cache_utilization", "requests": "trtllm_request_success_total",
        "ttft": "trtllm_time_to_first_token_seconds", "queue": "trtllm_request_queue_time_seconds",
    },
    "Triton": {
        "running": "nv_trt_llm_request_metrics{request_type=scheduled}",
        "waiting": "nv_trt_llm_request_metrics{request_type=waiting}",
        "kv_used": "nv_trt_llm_kv_cache_block_metrics{kv_cache_block_type=fraction}",
        "requests": "nv_inference_request_success", "queue_sum": "nv_inference_queue_duration_us*1e-6",
        "queue_count": "nv_inference_request_success",
    },
    "DCGM": {
        "power_w": "DCGM_FI_DEV_POWER_USAGE", "energy_j": "DCGM_FI_DEV_TOTAL_ENERGY_CONSUMPTION*0.001",
    },
}  # fmt: skip
"""An earlier one counts where one process stands before others: a front end sees each request once."""


@dataclass(frozen=True, slots=True)
class _Name:
    """One metric of an engine."""

    name: str
    labels: tuple[tuple[str, frozenset[str]], ...]
    factor: float

    def fits(self, sample: Sample) -> bool:
        return all(sample.labels.get(label) in values for label, values in self.labels)


class Names:
    """The names of one engine, ready to be looked for."""

    def __init__(self, engine: str, names: Mapping[str, str]) -> None:
        """Raises BadInput where a name cannot be read, or is given to no figure of ours."""
        self.engine = engine
        self._terms: dict[str, list[tuple[str, _Name]]] = {}
        """By the name of a sample: the parts of the figures that it is added to."""
        self._needed: dict[str, int] = {}
        for figure, text in names.items():
            if figure not in NAMED:
                raise BadInput(f"--metrics-map {figure}: there is no such figure; there are {', '.join(NAMED)}")
            parts = [f"{figure}_{part}" for part in ("sum", "count", "bucket")] if figure in HISTOGRAMS else [figure]
            for term in text.split(" + "):
                for part in parts:
                    name = _name(term)
                    whole = name.name + part.removeprefix(figure)
                    self._terms.setdefault(whole, []).append((part, name))
                    self._needed[part] = len(text.split(" + "))

    def figures(self, samples: Iterable[Sample]) -> dict[str, float]:
        """Our figures in these samples, summed over their labels; of a bucket `ttft_le_0.1`, and `gpus` beside
        power."""
        found: dict[str, float] = {}
        seen: dict[str, set[str]] = {}
        for sample in samples:
            for part, name in self._terms.get(sample.name, ()):
                if not name.fits(sample):
                    continue
                key = part
                if part.endswith("_bucket"):
                    key = f"{part.removesuffix('_bucket')}_le_{float(sample.labels.get('le', 'inf')):g}"
                found[key] = found.get(key, 0.0) + sample.value * name.factor
                seen.setdefault(part, set()).add(name.name)
                if part == "power_w":
                    found["gpus"] = found.get("gpus", 0.0) + 1
                if part == "kv_used":
                    found["_caches"] = found.get("_caches", 0.0) + 1
        if caches := found.pop("_caches", 0.0):
            found["kv_used"] /= caches
        partly = {part for part, names in seen.items() if len(names) < self._needed[part]}
        return {key: value for key, value in found.items() if key not in partly}

    def __contains__(self, sample_name: str) -> bool:
        return sample_name in self._terms


def _name(text: str) -> _Name:
    matched = re.fullmatch(r"\s*([A-Za-z_:][\w:]*)\s*(?:\{([^{}]*)\})?\s*(?:\*\s*([\d.eE+-]+))?\s*", text)
    try:
        if matched is None:
            raise ValueError
        name, labels, factor = matched.groups()
        pairs = [label.split("=", 1) for label in (labels or "").split(",") if label]
        wanted = tuple((label.strip(), frozenset(values.replace('"', "").split("|"))) for label, values in pairs)
        return _Name(name, wanted, float(factor) if factor else 1.0)
    except ValueError:
        raise BadInput(f"--metrics-map {text.strip()!r}: write it as name, name{{label=value}} or name*0.001") from None


def mapped(text: str) -> dict[str, str]:
    """The names of `running=my_running, kv_used=my_cache*0.01`. Raises BadInput."""
    names: dict[str, str] = {}
    for pair in re.split(r",(?![^{]*\})", text):
        figure, is_, name = pair.partition("=")
        if not (is_ and name.strip()):
            raise BadInput(f"--metrics-map {pair.strip()!r}: write it as running=name_of_the_metric")
        names[figure.strip()] = name.strip()
    Names("", names)
    return names


def read_figures(text: str, tables: Iterable[Names]) -> dict[str, dict[str, float]]:
    """Our figures in an answer of Prometheus' text form, by the engine whose names they have; empty where none has."""
    from pacemark.endpoint.prometheus import samples_in  # its parser: 70 ms that only who reads metrics needs

    tables = list(tables)
    lines = [line for line in text.splitlines() if any(re.split(r"[{ ]", line, maxsplit=1)[0] in t for t in tables)]
    samples = list(samples_in("\n".join(lines)))
    found = {table.engine: table.figures(samples) for table in tables}
    return {engine: figures for engine, figures in found.items() if figures}
