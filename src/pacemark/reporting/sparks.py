"""Small pictures in one line of text: how a figure went, and where the answer of a search lies."""

from __future__ import annotations

import math
from collections.abc import Sequence

from pacemark.answers.step import Step
from pacemark.pace import sought
from pacemark.summary import Probe

__all__ = ["Sought", "bracket", "lies", "sparkline"]

_BARS = " ▁▂▃▄▅▆▇█"
_PLAIN_BARS = " ._-=+*#@"
_MARKS = {True: "✓", False: "✗", None: "?", "next": "◆", "outside": "─", "inside": "━"}
_PLAIN_MARKS = {True: "o", False: "x", None: "?", "next": "*", "outside": "-", "inside": "="}
"""For a terminal without Unicode. By whether a level meets the budget; the load that comes next; and the line."""


def sparkline(values: Sequence[float], *, plain: bool = False) -> str:
    """A letter for each of `values`, as high as it is between 0 and the greatest."""
    bars, top = _PLAIN_BARS if plain else _BARS, max(values, default=0.0) or 1.0
    return "".join(bars[math.ceil(max(0.0, value) / top * (len(bars) - 1))] for value in values)


def lies(low: float | None, high: float | None) -> str:
    """Between which loads the answer lies, as far as is known: empty where nothing is."""
    if low is not None and high is not None:
        return f"between {_load(low)} and {_load(high)}"
    return f"above {_load(low)}" if low is not None else f"below {_load(high)}" if high is not None else ""


def _load(load: float) -> str:
    return f"{load:,.0f}" if load >= 100 else f"{load:.3g}"


class Sought:
    """What a search has told so far, step by step."""

    def __init__(self) -> None:
        self._step: Step | None = None
        self._probes: list[Probe] = []

    def __bool__(self) -> bool:
        """Whether there is a search at all."""
        return self._step is not None

    def learn(self, step: Step) -> None:
        """Take in one step."""
        self._step = step
        self._probes += [step.probe] if step.probe is not None else []

    def drawn(self, *, plain: bool = False) -> str:
        """Where the answer lies, in one line; empty where nothing is known yet."""
        return "" if self._step is None else bracket(self._step, self._probes, plain=plain)


def bracket(step: Step, probes: Sequence[Probe], width: int = 30, *, plain: bool = False) -> str:
    """The loads that a search has tried, on a line of `width` letters whose scale is logarithmic, with what became of
    them, the load that comes next, and a thick line where the answer lies; and the same in words."""
    marks = _PLAIN_MARKS if plain else _MARKS
    tried = [(sought(probe.load), marks[probe.within]) for probe in probes]
    if step.next is not None:
        tried.append((sought(step.next), marks["next"]))
    if not tried:
        return ""
    loads = [load for load in (*(load for load, _ in tried), step.low or 0, step.high or 0) if load > 0]
    least, most = min(loads, default=1.0), max(loads, default=1.0)
    span = math.log(most / least) or 1.0

    def place(load: float) -> int:
        return min(width - 1, max(0, round(math.log(max(load, least) / least) / span * (width - 1))))

    line = [marks["outside"]] * width
    if step.low is not None or step.high is not None:
        begin = place(step.low or least)
        end = place(step.high) if step.high is not None else width - 1
        line[begin : end + 1] = [marks["inside"]] * (end + 1 - begin)
    for load, mark in tried:
        line[place(load)] = mark
    where = lies(step.low, step.high)
    return f"{_load(least)} {''.join(line)} {_load(most)}{f'  most {where}' if where else ''}"
