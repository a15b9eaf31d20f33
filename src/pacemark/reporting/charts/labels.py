"""Where text can stand in a chart without covering anything: plain geometry, in pixels."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from itertools import pairwise
from math import ceil

Spot = tuple[float, float]
Box = tuple[float, float, float, float]
"""Left, top, right and bottom; y grows downwards."""

_WIDE, _TALL = 7.0, 14.0
"""Of a character of 12-pixel type, on the safe side."""


def free_box(text: str, at: Spot, taken: Iterable[Box], size: tuple[int, int]) -> Box | None:
    """A box for `text` near `at` that overlaps none of `taken` and stays inside a plot of `size`.

    Tried are below, right, left and above, then places aslant, then all of them farther off; None where all
    are taken.
    """
    wide = _WIDE * len(text) + 2
    for reach in (12.0, 18.0, 26.0):
        beside, below = reach + wide / 2, reach + _TALL / 2
        straight = [(0.0, below), (beside, 0.0), (-beside, 0.0), (0.0, -below)]
        aslant = [(side * wide / 2, way * below) for way in (1, -1) for side in (0.5, -0.5, 0.9, -0.9, 1.1, -1.1)]
        for right, down in straight + aslant:
            box = around((at[0] + right, at[1] + down), wide / 2, _TALL / 2)
            inside = box[0] >= 0 and box[1] >= 0 and box[2] <= size[0] and box[3] <= size[1]
            if inside and not any(overlap(box, other) for other in taken):
                return box
    return None


def around(at: Spot, across: float, down: float) -> Box:
    """The box that reaches `across` to both sides of `at`, and `down` above and below it."""
    return at[0] - across, at[1] - down, at[0] + across, at[1] + down


def along(line: Sequence[Spot]) -> Iterator[Box]:
    """Small boxes every few pixels along a polyline: what a label must not cover."""
    for (x0, y0), (x1, y1) in pairwise(line):
        steps = max(1, ceil(max(abs(x1 - x0), abs(y1 - y0)) / 3))
        for n in range(steps + 1):
            yield around((x0 + (x1 - x0) * n / steps, y0 + (y1 - y0) * n / steps), 1.0, 1.0)


def overlap(a: Box, b: Box) -> bool:
    """Whether two boxes share any area."""
    return a[0] < b[2] and b[0] < a[2] and a[1] < b[3] and b[1] < a[3]
