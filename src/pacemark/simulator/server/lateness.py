"""How late the endpoint itself was: the truth it serves is only as good as this."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["Lateness"]

_BIN_NS = 10_000
_BINS = 100_000
_KEPT = 1 << 16
"""Events that are counted together: one at a time, counting would be a tenth of what an event costs."""
_NONE = -(2**62)


class _Histogram:
    """Counts in bins of 10 us, up to 0.5 s either side of 0; the mean and the maximum are exact."""

    def __init__(self) -> None:
        self._bins = np.zeros(_BINS, dtype=np.int64)
        self._count = self._sum_ns = self._max_ns = 0

    def add(self, values_ns: NDArray[np.int64]) -> None:
        """Count values."""
        if len(values_ns):
            self._bins += np.bincount(np.clip(values_ns // _BIN_NS + _BINS // 2, 0, _BINS - 1), minlength=_BINS)
            self._count += len(values_ns)
            self._sum_ns += int(values_ns.sum())
            self._max_ns = max(self._max_ns, int(values_ns.max()))

    def report(self) -> dict[str, Any]:
        """`count`, and `mean_ms`, `p50_ms`, `p99_ms` and `max_ms`, which are None where nothing was counted."""
        if not self._count:
            return {"count": 0, "mean_ms": None, "p50_ms": None, "p99_ms": None, "max_ms": None}
        return {
            "count": self._count,
            "mean_ms": self._sum_ns / self._count / 1e6,
            "p50_ms": self._quantile(0.50),
            "p99_ms": self._quantile(0.99),
            "max_ms": self._max_ns / 1e6,
        }

    def _quantile(self, share: float) -> float:
        index = int(np.searchsorted(np.cumsum(self._bins), share * self._count))
        return (index + 1 - _BINS // 2) * _BIN_NS / 1e6


class Lateness:
    """Send time less due time of every event; of the first event of each answer; and what it did to the gaps."""

    def __init__(self) -> None:
        self.reset()

    def reset(self) -> None:
        """Forget everything."""
        self._late: list[int] = []
        self._before: list[int] = []
        self._all, self._first, self._gap = _Histogram(), _Histogram(), _Histogram()

    def add(self, late_ns: int, before_ns: int | None) -> None:
        """Count one event; `before_ns` is how late the same answer's event before it was, None for its first."""
        self._late.append(late_ns)
        self._before.append(_NONE if before_ns is None else before_ns)
        if len(self._late) >= _KEPT:
            self._count()

    def report(self) -> dict[str, Any]:
        """The figures of all events, with those of `first` events and of the `gap` errors beside them."""
        self._count()
        return self._all.report() | {"first": self._first.report(), "gap": self._gap.report()}

    def _count(self) -> None:
        late, before = np.array(self._late, dtype=np.int64), np.array(self._before, dtype=np.int64)
        self._late, self._before = [], []
        first = before == _NONE
        self._all.add(late)
        self._first.add(late[first])
        self._gap.add((late - before)[~first])
