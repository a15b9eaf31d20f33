"""Rate limits, answered with 429 and Retry-After."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Sequence
from typing import Literal

from pacemark.simulator.server.asks import Refusal

__all__ = ["Limits", "Quota"]


class Quota:
    """So many tokens or requests in any stretch of `window_s`, as `says` words it. Output counts as asked for."""

    def __init__(
        self, most: int, counts: Literal["input", "output", "tokens", "requests"], window_s: float, says: str
    ) -> None:
        self.most = most
        self.counts = counts
        self.window_s = window_s
        self.says = says
        self._spent: deque[tuple[int, int]] = deque()
        self._sum = 0

    def wait_s(self, now_ns: int, amount: int) -> float:
        """How long until `amount` more fits; 0 where it does."""
        horizon = now_ns - self.window_s * 1e9
        while self._spent and self._spent[0][0] <= horizon:
            self._sum -= self._spent.popleft()[1]
        left, wait_ns = self._sum, horizon
        for at_ns, spent in self._spent:
            if left + amount <= self.most:
                break
            left, wait_ns = left - spent, float(at_ns)
        return (wait_ns - horizon) / 1e9 if left + amount <= self.most else self.window_s

    def give_back(self, at_ns: int, amount: int) -> None:
        """Take `amount` off what was counted at `at_ns`, if that still counts."""
        for n, (then_ns, spent) in enumerate(self._spent):
            if then_ns == at_ns and spent >= amount:
                self._spent[n] = (then_ns, spent - amount)
                self._sum -= amount
                return

    def spend(self, now_ns: int, amount: int) -> None:
        """Count `amount`."""
        self._spent.append((now_ns, amount))
        self._sum += amount


class Limits:
    """At most `requests_per_s` on average, `burst` of them at once, and `parallel` in flight; None: no limit."""

    def __init__(
        self,
        requests_per_s: float | None,
        burst: int | None,
        parallel: int | None,
        quotas: Sequence[Quota] = (),
    ) -> None:
        self._quotas = quotas
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

    def admit_tokens(self, now_ns: int, prompt: int, output: int) -> None:
        """Reserve what a request may use; raises Refusal (429) where a quota has no room for it."""
        amounts = {"input": prompt, "output": output, "tokens": prompt + output, "requests": 1}
        for quota in self._quotas:
            wait_s = quota.wait_s(now_ns, amounts[quota.counts])
            if wait_s > 0:
                after = f"retry-after: {max(1, math.ceil(wait_s))}"
                raise Refusal(429, quota.says, kind="requests", code="rate_limit_exceeded", headers=(after,))
        for quota in self._quotas:
            quota.spend(now_ns, amounts[quota.counts])

    def give_back(self, at_ns: int, output: int) -> None:
        """Give back what a request that was admitted at `at_ns` did not use of the output it had asked for."""
        for quota in self._quotas:
            if quota.counts in ("output", "tokens") and output > 0:
                quota.give_back(at_ns, output)

    def _refusal(self, wait_s: float, why: str) -> Refusal:
        seconds = max(1, math.ceil(wait_s))
        return Refusal(
            429,
            f"Rate limit reached: {why}. Try again in {seconds} s.",
            kind="requests",
            code="rate_limit_exceeded",
            headers=(f"retry-after: {seconds}",),
        )
