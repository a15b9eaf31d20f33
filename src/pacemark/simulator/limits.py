"""Rate limits, answered with 429 and Retry-After."""

from __future__ import annotations

import math

from pacemark.simulator.asks import Refusal

__all__ = ["Limits"]


class Limits:
    """At most `requests_per_s` on average, `burst` of them at once, and `parallel` in flight; None: no limit."""

    def __init__(self, requests_per_s: float | None, burst: int | None, parallel: int | None) -> None:
        self._rate = requests_per_s
        self._size = float(burst or max(1, math.ceil(requests_per_s or 1)))
        self._tokens = self._size
        self._parallel = parallel
        self._filled_ns: int | None = None

    def admit(self, now_ns: int, in_flight: int) -> None:
        """Count one request; raises Refusal (429) where it is one too many."""
        if self._parallel is not None and in_flight >= self._parallel:
            raise self._refusal(1.0, f"more than {self._parallel} requests in parallel")
        if self._rate is None:
            return
        if self._filled_ns is not None:
            self._tokens = min(self._size, self._tokens + (now_ns - self._filled_ns) / 1e9 * self._rate)
        self._filled_ns = now_ns
        if self._tokens < 1.0:
            raise self._refusal((1.0 - self._tokens) / self._rate, f"more than {self._rate:g} requests per second")
        self._tokens -= 1.0

    def _refusal(self, wait_s: float, why: str) -> Refusal:
        seconds = max(1, math.ceil(wait_s))
        return Refusal(
            429,
            f"Rate limit reached: {why}. Try again in {seconds} s.",
            kind="requests",
            code="rate_limit_exceeded",
            headers=(f"retry-after: {seconds}",),
        )
