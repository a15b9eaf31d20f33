"""How late the endpoint itself was: the truth it serves is only as good as this."""

from __future__ import annotations

from array import array

__all__ = ["Lateness"]

_BIN_NS = 10_000
_BINS = 100_000


class Lateness:
    """A histogram of send time less due time in bins of 10 us, up to 1 s."""

    def __init__(self) -> None:
        self.reset()

    def reset(self) -> None:
        """Forget everything."""
        self._bins = array("Q", bytes(8 * _BINS))
        self._max_ns = 0

    def add(self, late_ns: int) -> None:
        """Count one event."""
        index = late_ns // _BIN_NS
        self._bins[index if 0 <= index < _BINS else (0 if index < 0 else _BINS - 1)] += 1
        if late_ns > self._max_ns:
            self._max_ns = late_ns

    def report(self) -> dict[str, float | int | None]:
        """`count`, and `p50_ms`, `p99_ms` and `max_ms`, which are None where nothing was sent."""
        count = sum(self._bins)
        if not count:
            return {"count": 0, "p50_ms": None, "p99_ms": None, "max_ms": None}
        return {
            "count": count,
            "p50_ms": self._quantile(0.50, count),
            "p99_ms": self._quantile(0.99, count),
            "max_ms": self._max_ns / 1e6,
        }

    def _quantile(self, share: float, count: int) -> float:
        below = 0
        for index, bin in enumerate(self._bins):
            below += bin
            if below >= share * count:
                return (index + 1) * _BIN_NS / 1e6
        return self._max_ns / 1e6
