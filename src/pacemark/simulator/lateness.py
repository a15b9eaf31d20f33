"""How late the endpoint itself was: the truth it serves is only as good as this."""

from __future__ import annotations

from array import array
from typing import Any

__all__ = ["Histogram", "Lateness"]

_BIN_NS = 10_000
_BINS = 100_000


class Histogram:
    """Counts in bins of 10 us, up to 0.5 s either side of 0; the mean and the maximum are exact."""

    def __init__(self) -> None:
        self._bins = array("Q", bytes(8 * _BINS))
        self._count = self._sum_ns = self._max_ns = 0

    def add(self, value_ns: int) -> None:
        """Count one value."""
        self._bins[min(max(value_ns // _BIN_NS + _BINS // 2, 0), _BINS - 1)] += 1
        self._count += 1
        self._sum_ns += value_ns
        if value_ns > self._max_ns:
            self._max_ns = value_ns

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
        below = 0
        for index, bin in enumerate(self._bins):
            below += bin
            if below >= share * self._count:
                return (index + 1 - _BINS // 2) * _BIN_NS / 1e6
        return self._max_ns / 1e6


class Lateness:
    """Send time less due time of every event; of the first event of each answer; and what it did to the gaps."""

    def __init__(self) -> None:
        self.reset()

    def reset(self) -> None:
        """Forget everything."""
        self._all, self._first, self._gap = Histogram(), Histogram(), Histogram()

    def add(self, late_ns: int, before_ns: int | None) -> None:
        """Count one event; `before_ns` is how late the same answer's event before it was, None for its first."""
        self._all.add(late_ns)
        if before_ns is None:
            self._first.add(late_ns)
        else:
            self._gap.add(late_ns - before_ns)

    def report(self) -> dict[str, Any]:
        """The figures of all events, with those of `first` events and of the `gap` errors beside them."""
        return self._all.report() | {"first": self._first.report(), "gap": self._gap.report()}
