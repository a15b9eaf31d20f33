"""What the requests of a level were like: what was asked for beside what the server counted."""

from __future__ import annotations

from typing import Literal

import msgspec
import numpy as np
from numpy.typing import NDArray

from pacemark.content import Upload
from pacemark.figures import metrics
from pacemark.figures.caching import cached_of, counted_share
from pacemark.figures.distributions import spread_of
from pacemark.summary import Cached, Level, Sizes, Traffic, Turns
from pacemark.trace import UNTOLD, Sight, Trace

__all__ = ["traffic_of", "upload_of", "with_counters"]


def traffic_of(trace: Trace, good: NDArray[np.bool_]) -> Traffic | None:
    """Of the answered requests `good` (n,) of a window; None where nobody knows what was asked for."""
    asked, own = trace.asked_input[good], trace.shared_tokens[good] == UNTOLD
    if not len(asked) or ((asked < 0) & ~own).any():
        return None
    asked = asked[asked >= 0]
    told = good & trace.tokens_from_usage
    return Traffic(
        asked_input=_sizes(asked),
        counted_input=_sizes(trace.input_tokens[told & (trace.input_tokens > 0)]),
        asked_output=_sizes(trace.asked_tokens[good]),
        cached=cached_of(trace, good) or msgspec.UNSET,
        turns=_turns(trace, good) or msgspec.UNSET,
        counted_output=_sizes((trace.output_tokens + trace.hidden_tokens)[good]),
    )


_LARGE_BYTES = 65_536


def upload_of(trace: Trace, good: NDArray[np.bool_]) -> Upload | None:
    """How the answered requests `good` (n,) were sent; None where they are small, and so sent in one call."""
    sizes = trace.sent_bytes[good]
    if not len(sizes) or sizes.mean() < _LARGE_BYTES:
        return None
    return Upload(float(sizes.mean()), spread_of(metrics.upload_ms(trace)[good]))


def _turns(trace: Trace, good: NDArray[np.bool_]) -> list[Turns]:
    """First and later turns apart; none where there are no later ones."""
    later = good & (trace.turn > 0)
    if not later.any():
        return []
    ttft, latency = metrics.ttft_ms(trace), metrics.latency_ms(trace)
    parts: list[tuple[Literal["first", "later"], NDArray[np.bool_]]] = [("first", good & ~later), ("later", later)]
    return [
        Turns(
            which,
            int(of.sum()),
            spread_of(ttft[of]),
            spread_of(latency[of]),
            _sizes(trace.input_tokens[of & trace.tokens_from_usage & (trace.input_tokens > 0)]).mean,
        )
        for which, of in parts
    ]


def _sizes(tokens: NDArray[np.int64]) -> Sizes:
    if not len(tokens):
        return Sizes()
    return Sizes(float(tokens.mean()), float(np.quantile(tokens, 0.95, method="higher")))


def with_counters(level: Level, sights: tuple[Sight, ...]) -> Level:
    """The level with what the server's own counters say of its cache."""
    traffic = level.traffic
    if not isinstance(traffic, Traffic) or not isinstance(traffic.cached, Cached):
        return level
    cached = msgspec.structs.replace(traffic.cached, server=counted_share(sights))
    return msgspec.structs.replace(level, traffic=msgspec.structs.replace(traffic, cached=cached))
