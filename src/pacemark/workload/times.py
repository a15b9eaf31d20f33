"""Times as files write them: numbers in some unit, or dates. All become whole nanoseconds, and no unit is guessed."""

from __future__ import annotations

import math
import re
from datetime import UTC, datetime, timedelta, timezone, tzinfo
from typing import Any

import numpy as np

from pacemark.errors import BadInput
from pacemark.units import duration, number

__all__ = ["NS", "UNITS", "Quantum", "instant", "quantum_said", "unit_of"]

NS = {"ns": 1, "us": 1_000, "ms": 1_000_000, "s": 1_000_000_000}
UNITS = "ns, us, ms or s"

_DATE = re.compile(
    r"(\d{4})-(\d\d)-(\d\d)(?:[T ](\d\d):(\d\d)(?::(\d\d)(?:[.,](\d{1,9})\d*)?)?)?\s*(Z|UTC|[+-]\d\d:?(?:\d\d)?)?", re.I
)
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def unit_of(value: Any) -> str:
    """The unit that a time has beyond doubt: that of a date, or of a number that lies between 2001 and 2096 in one unit
    alone. Empty where it may be any."""
    if isinstance(value, datetime) or (isinstance(value, str) and _DATE.fullmatch(value.strip())):
        return "date"
    count = _numeric(value)
    # Seconds since 1970 between 1e9 (2001) and 4e9 (2096); the same in ms, us and ns. The four never meet.
    return next((unit for unit, ns in NS.items() if count is not None and 1e18 <= abs(count) * ns < 4e18), "")


def instant(value: Any, unit: str) -> int:
    """`value` in nanoseconds, from 1970 for a date. Without its zone a date is taken as UTC.

    Raises BadInput for what is no time, and where a number comes and its unit is not known.
    """
    if isinstance(value, datetime):
        aware = value if value.tzinfo is not None else value.replace(tzinfo=UTC)
        return (aware - _EPOCH) // timedelta(microseconds=1) * 1000 + int(getattr(value, "nanosecond", 0))
    if isinstance(value, str) and (found := _DATE.fullmatch(value.strip())):
        return _dated(found)
    count = _numeric(value)
    if count is None:
        raise BadInput(f"{_shown(value)} is no time")
    if unit not in NS:
        raise BadInput(f"the time {_shown(value)} has no unit that can be known: say --unit {UNITS}")
    if abs(count) * NS[unit] >= 2**63:
        raise BadInput(f"the time {_shown(value)} is too large for {unit}")
    return count * NS[unit] if isinstance(count, int) else round(count * NS[unit])


def _dated(found: re.Match[str]) -> int:
    year, month, day, hour, minute, second = (int(x or 0) for x in found.groups()[:6])
    try:
        whole = datetime(year, month, day, hour, minute, second, tzinfo=_zone(found[8]))
        return (whole - _EPOCH) // timedelta(seconds=1) * NS["s"] + int((found[7] or "0").ljust(9, "0"))
    except (ValueError, OverflowError):
        raise BadInput(f"{found[0]!r} is no date") from None


def _zone(text: str | None) -> tzinfo:
    if not text or text.upper() in ("Z", "UTC"):
        return UTC
    digits = text[1:].replace(":", "").ljust(4, "0")
    return timezone((-1 if text[0] == "-" else 1) * timedelta(hours=int(digits[:2]), minutes=int(digits[2:])))


def _numeric(value: Any) -> int | float | None:
    if isinstance(value, str):
        try:
            value = int(value) if re.fullmatch(r"[+-]?\d{1,25}", value.strip()) else float(value)
        except ValueError:
            return None
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not math.isfinite(value):
        return None
    return value


def _shown(value: Any) -> str:
    return repr(value)[:40] if isinstance(value, (str, int, float)) else f"a {type(value).__name__}"


_STEPS_NS = np.array(
    [
        1_000,
        10_000,
        100_000,
        *(s * 1_000_000 for s in (1, 2, 5, 10, 20, 50, 100, 200, 250, 500)),
        *(s * NS["s"] for s in (1, 2, 3, 5, 10, 15, 20, 30, 60, 120, 300, 600, 900, 1800, 3600)),
    ],
    dtype=np.int64,
)
SHARE = 0.98
"""Of the stamps, as many must lie on multiples of a step: a few are off in a file put together of several."""
FEWEST = 20
"""Stamps apart from the first; fewer tell nothing."""


class Quantum:
    """Finds the step to which times are rounded: the largest of which nearly all are multiples, from the first on.

    A stamp belongs to a multiple if it is within a thousandth of the step of it: Mooncake's have 2999 ms beside 3000.
    By chance one in 500 does.
    """

    def __init__(self) -> None:
        self._first: int | None = None
        self._chunk: list[int] = []
        self._stamps, self._on = 0, np.zeros(len(_STEPS_NS), dtype=np.int64)

    def add(self, ns: int) -> None:
        """A time of the file."""
        if self._first is None:
            self._first = ns
        elif ns != self._first:
            self._chunk.append(ns - self._first)
            if len(self._chunk) == 4096:
                self._count()

    def _count(self) -> None:
        since = np.array(self._chunk, dtype=np.int64)[:, None]
        off = np.abs((since + _STEPS_NS // 2) % _STEPS_NS - _STEPS_NS // 2)
        self._on += ((off <= _STEPS_NS // 1000) & (np.abs(since) > _STEPS_NS // 2)).sum(axis=0)
        self._stamps += len(self._chunk)
        self._chunk = []

    def found_ms(self) -> float | None:
        """The step in ms; None where there is none, or too few stamps to tell."""
        if self._chunk:
            self._count()
        if self._stamps < FEWEST:
            return None
        steps = _STEPS_NS[self._on >= SHARE * self._stamps]
        return float(steps[-1]) / 1e6 if len(steps) else None


def quantum_said(quantum_ms: float, rows: int, span_ms: float) -> str:
    """What a step means where several rows share one; empty where it is too fine to matter."""
    each = rows * quantum_ms / span_ms if span_ms > 0 else 0.0
    if quantum_ms < 10 or each < 1.5:
        return ""
    return (
        f"times are rounded to {duration(quantum_ms)}, {number(each)} rows to a step: sent as they stand they come in "
        "bursts that nobody sent"
    )
