"""What a prompt cache knew of the requests of a level: what it should have known, and what the server says of it."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from pacemark.figures.evidence import Evidence, Finding
from pacemark.summary import Cached, Traffic
from pacemark.trace import UNTOLD, Int64, Sight, Trace

__all__ = ["cached_of", "cached_prompts", "cache_told", "counted_share", "expected_tokens", "mixed_cache", "ready",
           "rows_again", "suspected_cache"]  # fmt: skip

_Mask = NDArray[np.bool_]


def ready(trace: Trace) -> _Mask:
    """Which requests (n,) begin as an earlier one did whose answer had begun when they were sent.

    A later turn of a conversation always does; so does a request of a trace, whose order says what came before it.
    """
    known = np.isin(trace.origin, list(trace.known_origins))
    begun = np.diff(trace.offsets) > 0
    origins, which = np.unique(trace.origin, return_inverse=True)
    first_ns = np.full(len(origins), np.iinfo(np.int64).max)
    np.minimum.at(first_ns, which[begun], trace.hi_ns[trace.offsets[:-1][begun]])
    since = first_ns[which]
    return np.asarray((trace.origin < 0) | (trace.turn > 0) | known | (since < trace.sent_ns), dtype=np.bool_)


def expected_tokens(trace: Trace) -> Int64:
    """Tokens (n,) of each prompt that a cache without an end would know from what was sent before."""
    return np.where((trace.shared_tokens > 0) & ready(trace), trace.shared_tokens, 0)


_COLD, _WARM = 0.01, 0.95


def cached_of(trace: Trace, good: _Mask) -> Cached | None:
    """Of the answered requests `good` (n,); None where they were not made to share anything."""
    shared = np.maximum(trace.shared_tokens, 0)
    asked = int(trace.asked_input[good].sum())
    if not asked or not shared[good].any():
        return None
    expected = int(expected_tokens(trace)[good].sum())
    told = good & (trace.cached_tokens >= 0) & (trace.input_tokens > 0)
    warm = expected >= _WARM * int(shared[good].sum())
    return Cached(
        state="cold" if expected < _COLD * asked else "warm" if warm else "mixed",
        expected=expected / asked,
        usage=float(trace.cached_tokens[told].sum() / trace.input_tokens[told].sum()) if told.any() else None,
    )


_COUNTERS = (
    ("prefix_cache_hits_total", "prefix_cache_queries_total"),
    ("prefix_cache_hits", "prefix_cache_queries"),
    ("sglang:cached_tokens_total", "sglang:prompt_tokens_total"),
)
"""Names that end so: tokens found in the cache, and tokens looked for (vLLM 0.33, SGLang 0.5)."""


def counted_share(sights: tuple[Sight, ...]) -> float | None:
    """The share of prompt tokens that the server's own counters say it had cached, between the first look and the
    last; whatever else it served is in it. None where it was not looked at twice, or exports no such counters."""
    known = [sight.metrics for sight in sights if sight.metrics]
    if len(known) < 2:
        return None
    for pair in _COUNTERS:
        hits, asked = (_grown(known[0], known[-1], name) for name in pair)
        if hits is not None and asked:
            return hits / asked
    return None


def _grown(before: dict[str, float], after: dict[str, float], ending: str) -> float | None:
    names = [name for name in after if name.endswith(ending) and name in before]
    return sum(after[name] - before[name] for name in names) if names else None


# --- checks


def cached_prompts(e: Evidence) -> Finding | None:
    """Every prompt is new but for what it was made to share: a cache that knows more shows that it was not."""
    known = e.good & (e.trace.cached_tokens >= 0) & (e.trace.input_tokens > 0)
    known &= e.trace.shared_tokens != UNTOLD  # what a file's own prompts share is theirs
    if not known.any():
        return None
    known &= (e.trace.shared_tokens <= 0) | ready(e.trace)  # who comes first of a prefix may find it, or may not
    asked, expected = e.trace.input_tokens[known], expected_tokens(e.trace)[known]
    cached = np.maximum(e.trace.cached_tokens[known] - expected, 0)
    if not len(asked):
        return None
    # The chat template and a start token open every prompt; no salt can come before them.
    share = _share_beyond(_START, cached, asked)
    if share <= 0.01:
        return None
    opening = e.template_tokens
    if _prefix_alone(cached, asked) if opening is None else _share_beyond(opening, cached, asked) <= 0.01:
        text = f"the server took {np.median(cached):.0f} tokens of each prompt from its cache: the chat template that "
        return Finding("note", "cached_template", text + "opens them all; the prompts were new to it")
    return Finding(
        "invalid", "cached_prompts", f"the server took {share:.1%} of the input from its prompt cache; use a new --seed"
    )


_START = 8.0
"""Tokens that may open a prompt without any template."""


def _share_beyond(opening: float, cached: NDArray[np.int64], asked: NDArray[np.int64]) -> float:
    """The share of `asked` (n,) that came from the cache beyond the first `opening` tokens of each."""
    return float(np.maximum(cached - max(opening, _START), 0).sum() / asked.sum())


BLOCK = 16
"""Tokens in the smallest block of a prefix cache."""


def _prefix_alone(cached: NDArray[np.int64], asked: NDArray[np.int64]) -> bool:
    """Whether what was cached (n,) is a prefix common to all: as long in each, whole blocks, and not most of `asked`.

    Of prompts known whole, all but the last block is cached.
    """
    same = len(cached) > 1 and int(cached.min()) == int(cached.max()) and int(cached[0]) % BLOCK == 0
    return same and 2 * int(cached[0]) <= int(asked.min())


def suspected_cache(e: Evidence) -> Finding | None:
    """A server that does not tell of its cache still answers sooner what it was asked before."""
    if e.known_prompts is None or e.known_prompts >= 0.7:
        return None
    return Finding(
        "suspect",
        "suspected_cache",
        f"the first token of a prompt of this seed came in {e.known_prompts:.0%} of the time that a new prompt takes: "
        "the server seems to know the prompts from an earlier run; use a new --seed",
    )


def mixed_cache(e: Evidence) -> Finding | None:
    """Figures of requests whose beginning was in the cache and of others whose was not are of two kinds."""
    cached = _cached(e)
    if cached is None or cached.state != "mixed":
        return None
    shared = (e.trace.shared_tokens > 0) & e.good
    first = float((shared & ~ready(e.trace)).sum() / shared.sum())
    return Finding(
        "suspect",
        "mixed_cache",
        f"the cache was mixed: {first:.0%} of the requests in the window came before an answer to another of the same "
        "beginning; add --prime, or run longer",
    )


def rows_again(e: Evidence) -> Finding | None:
    """Rows of a file that are sent again: a cache answers them sooner than it would ever answer a user."""
    rows = (e.trace.shared_tokens == UNTOLD) & (e.trace.turn <= 0)
    opening = e.good & rows
    before = np.isin(e.trace.origin, list(e.trace.known_origins)) | ~_first_of(e.trace.origin)
    again = opening & before
    share = float(again.sum() / max(1, opening.sum()))
    if share <= _COLD:
        return None
    most = int(np.unique(e.trace.origin[rows], return_counts=True)[1].max())
    told = again & (e.trace.cached_tokens >= 0)
    cold = told.any() and e.trace.cached_tokens[told].sum() <= _COLD * e.trace.input_tokens[told].sum()
    return Finding(
        "note" if cold else "suspect",
        "rows_again",
        f"{share:.0%} of the requests in the window are of rows that had been sent before, the most frequent {most:,} "
        f"times in this level; "
        + ("none was in the server's cache" if cold else "a cache may flatter: take a larger file, or --once"),
    )


def _first_of(values: Int64) -> _Mask:
    """Which of `values` (n,) stand there for the first time."""
    first = np.zeros(len(values), dtype=np.bool_)
    first[np.unique(values, return_index=True)[1]] = True
    return first


_OFF = 0.05
"""By how much the share that was cached may differ from what is to be expected."""


def cache_told(e: Evidence) -> Finding | None:
    """Expected and told, where prompts share their beginnings."""
    cached = _cached(e)
    if cached is None:
        return None
    told = [f"{share:.1%} by {who}" for who, share in _told(cached)]
    text = f"the cache was {cached.state}: {cached.expected:.1%} of the input is to be expected from it; it was "
    if not told:
        return Finding("note", "cache", text + "not told how much of it the server had there")
    text += " and ".join(told)
    most = max(share for _, share in _told(cached))
    if most < cached.expected - _OFF:
        text += "; the server gave prefixes up, sends alike requests to different replicas, or keeps no such cache"
    return Finding("note", "cache", text)


def _told(cached: Cached) -> list[tuple[str, float]]:
    told = (("usage", cached.usage), ("the server's counters", cached.server))
    return [(who, share) for who, share in told if share is not None]


def _cached(e: Evidence) -> Cached | None:
    traffic = e.level.traffic
    return traffic.cached or None if isinstance(traffic, Traffic) else None
