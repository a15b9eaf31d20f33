"""Traces that become one, in little more room than it takes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pacemark.trace import PER_REQUEST, Trace, pieces_of

__all__ = ["Joining"]


class Joining:
    """Traces on their way to be one, in the order sent.

    Column after column is put together, and its pieces are let go of before the next is begun: all at once, the events
    of a level would be there twice. Whatever interrupts `trace`, nothing is lost: it goes on when it is called again.
    """

    def __init__(self, parts: Sequence[Trace | Joining]) -> None:
        """`parts`: at least one, all of one kind of loop."""
        traces = [part.trace() if isinstance(part, Joining) else part for part in parts]
        sent_ns = np.concatenate([part.sent_ns for part in traces])
        counts = np.concatenate([np.diff(part.offsets) for part in traces])
        self._starts, self._counts = np.cumsum(counts) - counts, counts
        sorted_already = bool(np.all(sent_ns[1:] >= sent_ns[:-1]))
        self._order = None if sorted_already else np.argsort(sent_ns, kind="stable")
        exact = all(part.exact for part in traces)
        events = ("hi_ns", "tokens") if exact else ("hi_ns", "lo_ns", "tokens")
        self._todo = {n: [getattr(part, n) for part in traces] for n in (*PER_REQUEST, *events, "lag_ns")}
        self._done: dict[str, Any] = {}
        self._else: dict[str, Any] = {
            "open_loop": traces[0].open_loop,
            "exact": exact,
            "refusals": tuple(said for part in traces for said in part.refusals),
            "known_origins": traces[0].known_origins,
        }

    def trace(self) -> Trace:
        """The one trace."""
        for name in list(self._todo):
            self._todo[name] = [np.concatenate(self._todo[name])]
            self._done[name] = _once(self._in_order(name, self._todo[name][0]))
            del self._todo[name]
        counts = self._counts if self._order is None else self._counts[self._order]
        return Trace(
            **{"lo_ns": self._done["hi_ns"]} | self._done,
            **self._else,
            offsets=np.concatenate([[0], np.cumsum(counts)]).astype(np.int64),
        )

    def _in_order(self, name: str, column: NDArray[Any]) -> NDArray[Any]:
        if self._order is None or name == "lag_ns":  # lags are in no order
            return column
        if name in PER_REQUEST:
            return column[self._order]
        return pieces_of(column, self._starts[self._order], self._counts[self._order])


def _once(column: NDArray[Any]) -> NDArray[Any]:
    """A column that says the same everywhere, as many do, is kept as one value; it cannot be written to then."""
    if len(column) < 2 or not bool((column == column[0]).all()):
        return column
    return np.broadcast_to(column[:1].copy(), column.shape)
