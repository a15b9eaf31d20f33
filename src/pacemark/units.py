"""Numbers as people read them: three significant digits, with their unit."""

from __future__ import annotations


def number(value: float) -> str:
    """`value` with three significant digits, and every digit of its integer part.

    >>> number(23918.4), number(87.3), number(0.4512)
    ('23,918', '87.3', '0.451')
    """
    if value == 0 or abs(value) >= 99.95:
        return f"{value:,.0f}"
    return f"{value:#.3g}"


def duration(ms: float) -> str:
    """`ms` milliseconds, in the unit that reads best: ms below one second, else s."""
    return f"{number(ms)} ms" if abs(ms) < 999.5 else f"{number(ms / 1000)} s"
