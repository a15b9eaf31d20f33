"""What the engine must do on average, in closed form: a check on it, and a planner's shortcut.

In steady state every second holds n steps, and each answered request brings its own share of work, so that

    base x n + X (per_decode E[O - 1] + per_prefill E[P] + per_kv E[H]) = 1        (the engine is never idle)
    min(C, B) x n = X E[K + O - 1]                                                 (every place is taken)

with X requests per second, P prompt and O output tokens, K steps of prefill, C requests in parallel, B places in
the batch and H the resident tokens summed over a request's steps. Solved for X this is the renewal-reward argument
(a request is a cycle that brings a fixed reward of work; Ross, Introduction to Probability Models, section 7.4).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from pacemark.simulator.engine.engine import EngineSpec

__all__ = ["Capacity", "capacity"]


@dataclass(frozen=True, slots=True)
class Capacity:
    """Steady state of one replica under closed-loop load."""

    requests_per_s: float
    output_tokens_per_s: float
    step_ms: float
    """Mean step."""
    tpot_ms: float
    """Mean time per output token after the first, weighted by tokens. Linear in the places taken: a decoding
    request sees its own decode cost and the mean work of all the others, but never its own prefill."""
    in_batch: float
    """Mean number of requests that hold a place."""


def capacity(
    spec: EngineSpec, concurrency: int, prompt_tokens: ArrayLike, output_tokens: ArrayLike, chunks: ArrayLike = 1
) -> Capacity:
    """Exact for an engine that is never idle, given the lengths (one number, or one for each request).

    `chunks` is how many steps prefilled a request. It is 1 where prompts fit the token budget together; prompts that
    meet in one step may need more. Speculation, preemption and prefix hits are outside the theory. Where the spec
    reserves output blocks, the KV cache bounds the batch too and the result is an upper bound, short by what
    the last blocks cannot be used for.
    """
    p, o = np.atleast_1d(np.asarray(prompt_tokens, float)), np.atleast_1d(np.asarray(output_tokens, float))
    steps = np.asarray(chunks, float) + o - 1
    held = (o - 1) * p + (o - 1) * (o - 2) / 2
    places = float(min(concurrency, spec.max_batch))
    if spec.reserve_output:
        blocks = np.ceil((p + o) / spec.block_tokens)
        # A request holds its blocks for all its steps, so places x E[blocks x steps] / E[steps] is at most kv_blocks.
        places = min(places, spec.kv_blocks * float(np.mean(steps)) / float(np.mean(blocks * steps)))
    decode_ms = spec.per_decode_ms * float(np.mean(o - 1)) + spec.per_kv_token_ms * float(np.mean(held))
    own_ms = decode_ms / max(float(np.mean(o - 1)), 1e-12)
    work_ms = decode_ms + spec.per_prefill_token_ms * float(np.mean(p))
    mean_steps = float(np.mean(steps))
    rate = 1000.0 / (spec.base_ms * mean_steps / places + work_ms)
    return Capacity(
        requests_per_s=rate,
        output_tokens_per_s=rate * float(np.mean(o)),
        step_ms=spec.base_ms + places * work_ms / mean_steps,
        tpot_ms=spec.base_ms + own_ms + (places - 1) * work_ms / mean_steps,
        in_batch=places,
    )
