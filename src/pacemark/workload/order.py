"""In which order the rows of a file are asked for: whole sessions, by the seed alone."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from pacemark.pace import GOLDEN
from pacemark.workload.row import Rows

__all__ = ["Order", "sampled"]

_ORDER = 6
"""What is drawn with one seed, apart."""


class Order:
    """The sessions of a file in an order of their own. A row of no session is one by itself.

    Each level begins at another place, as far from those of the levels before as can be, so that what one level sent
    is sent by another as late as possible.
    """

    def __init__(self, rows: Rows, seed: int, share: float = 1.0) -> None:
        """`share` of the sessions are taken."""
        self._rows, self._starts = _sessions(rows)
        units = len(rows) if self._starts is None else len(self._starts) - 1
        self._order = _drawn(units, seed, share)

    def __len__(self) -> int:
        return len(self._order)

    @property
    def alone(self) -> bool:
        """Whether no row has a session."""
        return self._starts is None

    def rows_of(self, level: int, number: int) -> list[int]:
        """The rows of the session `number` of `level`, from 0; after the last the first comes again."""
        unit = int(self._order[(int(level * GOLDEN % 1.0 * len(self)) + number) % len(self)])
        if self._starts is None or self._rows is None:
            return [unit]
        return [int(k) for k in self._rows[self._starts[unit] : self._starts[unit + 1]]]


def sampled(rows: Rows, seed: int, share: float) -> NDArray[np.int64]:
    """The rows of `share` of the sessions, in the order of the file; the sessions are those of `Order`."""
    members, starts = _sessions(rows)
    units = _drawn(len(rows) if starts is None else len(starts) - 1, seed, share)
    if members is None or starts is None:
        return np.sort(units)
    taken = np.zeros(len(starts) - 1, dtype=np.bool_)
    taken[units] = True
    return np.sort(members[np.repeat(taken, np.diff(starts))])


def _drawn(units: int, seed: int, share: float) -> NDArray[np.int64]:
    return np.random.default_rng([seed, _ORDER]).permutation(units)[: max(1, round(share * units))]


def _sessions(rows: Rows) -> tuple[NDArray[np.int64] | None, NDArray[np.int64] | None]:
    """The rows (n,), those of a session together and in their order, and where each session starts, with the end; None
    where every row is one by itself."""
    of = rows.sessions()
    if not of.any():
        return None, None
    _, first, which = np.unique(of, return_index=True, return_inverse=True)
    unit = np.where(of == 0, np.arange(len(of)), first[which])
    members = np.argsort(unit, kind="stable")
    return members, np.flatnonzero(np.r_[True, np.diff(unit[members]) != 0, True])
