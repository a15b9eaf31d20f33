"""Endpoints ready to be simulated. The constants are illustrative: the right size, not a measurement.

Two rules give those of the H100 presets, and comments show the figures put in.

- A decode step reads the weights once and the keys and values of every sequence once, so its time is bytes
  over memory bandwidth; prefill does 2 FLOP for each parameter and token: the roofline argument of Pope et al.
  2022, "Efficiently scaling transformer inference" (arXiv 2211.05102).
- H100 SXM: 3.35 TB/s, 989 TFLOP/s dense bf16, 80 GB (NVIDIA H100 data sheet). Llama 3 8B and 70B: 8.03e9 and
  70.6e9 parameters, 32 and 80 layers, 8 key-value heads of 128 (arXiv 2407.21783, table 3), hence 131,072 and
  327,680 bytes of keys and values per token in 16 bits.

`docs/simulator.md` holds them against published benchmarks.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from random import Random
from typing import Any, Literal

import msgspec

from pacemark.errors import BadInput
from pacemark.simulator.engine.engine import Engine, EngineSpec
from pacemark.simulator.engine.model import Fixed, FixedSpec, Model, Replica
from pacemark.simulator.engine.replicas import Router, Scaling
from pacemark.simulator.engine.unsteady import Unsteady

__all__ = ["PRESETS", "Preset", "build", "customised", "named"]


class Preset(msgspec.Struct, frozen=True, kw_only=True):
    """A whole endpoint: what serves, and how it presents itself."""

    name: str
    summary: str
    model: str
    timeline: EngineSpec | FixedSpec
    replicas: int = 1
    """Each with an engine of its own, behind a router."""
    scaling: Scaling | None = None
    """Let the number of replicas follow the load instead."""
    unsteady: Unsteady | None = None
    """Let the speed of an engine change by itself."""
    answer_tokens: tuple[float, float] | None = None
    """Mean and coefficient of variation of the answer's natural (lognormal) length; None: as long as allowed.

    It counts only over HTTP, where a request may or may not ask to ignore the end of the answer.
    """
    default_max_tokens: int = 128
    """Where a request sets no limit."""
    tokens_per_event: int = 1
    """Tokens of one answer that are held back to be sent in one event; the last event may have fewer."""
    reasoning_tokens: int = 0
    """Chat answers open with so many tokens of reasoning, which count as output."""
    reasoning_field: Literal["reasoning_content", "reasoning"] = "reasoning_content"
    """Where they are found in a delta or message: vLLM and DeepSeek use the first, OpenRouter the second."""

    def natural_length(self, random: Random) -> int:
        """One answer's natural length in tokens; the default limit where `answer_tokens` is None."""
        if self.answer_tokens is None:
            return self.default_max_tokens
        mean, cv = self.answer_tokens
        sigma = math.sqrt(math.log1p(cv**2))
        return max(1, round(random.lognormvariate(math.log(mean) - sigma**2 / 2, sigma)))


def build(preset: Preset, *, seed: int = 0, lived_ns: int = 0) -> Model:
    """The preset's model, idle at time 0, when it is `lived_ns` old."""
    spec = preset.timeline
    if isinstance(spec, FixedSpec):
        return Fixed(spec)
    scaling = preset.scaling or Scaling(min_replicas=preset.replicas, max_replicas=preset.replicas)
    if scaling.min_replicas == scaling.max_replicas == 1:
        return Replica(Engine(spec, seed=seed), unsteady=preset.unsteady, lived_ns=lived_ns)

    def replica(n: int, ready_ns: int) -> Replica:
        engine = Engine(spec, seed=seed + n)
        return Replica(engine, ready_ns=ready_ns, unsteady=preset.unsteady, lived_ns=lived_ns)

    return Router(scaling, replica, spec.max_batch)


_H100_8B = EngineSpec(
    # 16.1 GB of bf16 weights at 80% of 3.35 TB/s is 6 ms; scheduling and kernel launches 1 ms.
    base_ms=7.0,
    # Sampling, detokenising, the linear layers' share that grows with the batch.
    per_decode_ms=0.04,
    # 2 x 8.03e9 FLOP at 65% of 989 TFLOP/s.
    per_prefill_token_ms=0.025,
    # 131,072 bytes at 80% of 3.35 TB/s.
    per_kv_token_ms=0.000049,
    max_batch=256,
    token_budget=2048,
    # 90% of 80 GB less 16 GB of weights and 4 GB of activations: 397,000 tokens.
    kv_blocks=24_800,
)

PRESETS: dict[str, Preset] = {
    preset.name: preset
    for preset in (
        Preset(
            name="demo",
            summary="a small replica whose curve bends at 32 parallel requests (256 in, 64 out)",
            model="demo-8b",
            # Chosen, not derived: the knee of the throughput-latency curve falls inside 1..64 parallel requests.
            timeline=EngineSpec(
                base_ms=8.8,
                per_decode_ms=0.08,
                per_prefill_token_ms=0.0155,
                max_batch=32,
                token_budget=1024,
                kv_blocks=8192,
            ),
        ),
        Preset(
            name="llama-8b-h100",
            summary="an 8B model in bf16 on one H100",
            model="llama-3.1-8b-instruct",
            timeline=_H100_8B,
        ),
        Preset(
            name="llama-8b-8xh100",
            summary="an 8B model in bf16, eight replicas on one H100 each",
            model="llama-3.1-8b-instruct",
            timeline=_H100_8B,
            replicas=8,
        ),
        Preset(
            name="llama-70b-h100",
            summary="a 70B model with 4-bit weights on one H100",
            model="llama-3.3-70b-instruct",
            timeline=EngineSpec(
                # 40 GB of 4-bit weights and scales at 75% of 3.35 TB/s is 16 ms; 1 ms of overhead.
                base_ms=17.0,
                per_decode_ms=0.1,
                # 2 x 70.6e9 FLOP at 50% of 989 TFLOP/s.
                per_prefill_token_ms=0.143,
                # 327,680 bytes at 80% of 3.35 TB/s.
                per_kv_token_ms=0.000122,
                max_batch=128,
                token_budget=2048,
                # 90% of 80 GB less 40 GB of weights and 4 GB of activations: 85,000 tokens.
                kv_blocks=5_300,
            ),
        ),
        Preset(
            name="llama-70b-8xh100",
            summary="a 70B model in bf16, tensor parallel over eight H100s",
            model="llama-3.3-70b-instruct",
            timeline=EngineSpec(
                # 141 GB of bf16 weights over eight GPUs at 80% of 3.35 TB/s each is 6.6 ms; the rest is 160
                # all-reduces of some 40 us and 1 ms of overhead.
                base_ms=14.0,
                per_decode_ms=0.06,
                # 2 x 70.6e9 FLOP at 50% of 8 x 989 TFLOP/s is 0.036 ms.
                per_prefill_token_ms=0.036,
                # 327,680 bytes over eight GPUs at 80% of 3.35 TB/s each.
                per_kv_token_ms=0.0000153,
                max_batch=256,
                token_budget=8192,
                # 90% of 640 GB less 141 GB of weights and 32 GB of activations: 1,230,000 tokens.
                kv_blocks=77_000,
            ),
        ),
        Preset(
            name="cpu-1b",
            summary="a 1.1B model in 4 bits under llama.cpp on eight CPU cores, four slots",
            model="tinyllama-1.1b-q4",
            timeline=EngineSpec(
                # llama-bench on eight ARM cores (geerlingguy/ai-benchmarks, issue 54: llama 1B Q4_K, 636 MiB):
                # 194.5 prompt tokens/s, so 5.1 ms each; a token decoded along with others costs the same
                # arithmetic; 38.8 tokens/s alone is 25.8 ms a step, which leaves 20.7 ms for reading the weights.
                base_ms=20.7,
                per_decode_ms=5.1,
                per_prefill_token_ms=5.1,
                # From 512 to 4096 prompt tokens the same machine falls to 132.7 tokens/s: 2.4 ms for 1,800 more
                # tokens of context on average.
                per_kv_token_ms=0.0013,
                max_batch=4,
                token_budget=512,
                kv_blocks=1024,
            ),
        ),
        Preset(
            name="fixed",
            summary="a timeline of its own for each request, whatever the load: TTFT 200 ms, ITL 20 ms",
            model="fixed",
            timeline=FixedSpec(),
        ),
    )
}


def named(name: str) -> Preset:
    """The preset of that name; raises BadInput, which lists the names, where there is none."""
    try:
        return PRESETS[name]
    except KeyError:
        raise BadInput(f"no preset {name!r}; there are {', '.join(PRESETS)}") from None


def customised(preset: Preset, changes: Mapping[str, Any]) -> Preset:
    """`preset` with fields of its own or of its timeline changed, as in {"ttft_ms": 100, "replicas": 2}.

    Raises BadInput for an unknown field or a value of the wrong type.
    """
    whole = msgspec.to_builtins(preset)
    for field, value in changes.items():
        if field in preset.timeline.__struct_fields__:
            whole["timeline"][field] = value
        elif field in preset.__struct_fields__:
            whole[field] = value
        else:
            fields = [f for f in preset.__struct_fields__ if f != "timeline"] + list(preset.timeline.__struct_fields__)
            raise BadInput(f"preset {preset.name} has no {field!r}; it has {', '.join(fields)}")
    try:
        return msgspec.convert(whole, Preset, strict=False)
    except msgspec.ValidationError as error:
        raise BadInput(f"preset {preset.name}: {error}") from None
