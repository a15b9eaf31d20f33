"""Pictures of one line: a sparkline, and the bracket of a search."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pacemark.answers.step import Step
from pacemark.pace import Concurrency, Rate
from pacemark.reporting.sparks import bracket, lies, sparkline
from pacemark.summary import Probe, Spent


def step(low: float | None, high: float | None, then: int | None = 12) -> Step:
    return Step(None, low, high, None if then is None else Concurrency(then), "why", Spent(1, 1.0), None)


PROBES = [Probe(Concurrency(1), True, ""), Probe(Concurrency(8), None, ""), Probe(Concurrency(64), False, "")]


def test_a_sparkline_is_as_high_as_its_values() -> None:
    assert sparkline([0, 1, 4, 8]) == " ▁▄█"
    assert sparkline([0, 1, 4, 8], plain=True) == " .=@"
    assert sparkline([]) == ""
    assert sparkline([0.0, 0.0]) == "  "


def track(line: str) -> str:
    return line.split()[1]


def test_the_bracket_has_each_load_at_its_place() -> None:
    line = bracket(step(8, 16), PROBES, 37)
    assert line.startswith("1 ✓───")
    assert line.endswith("───✗ 64  most between 8 and 16")
    places = [track(line).index(mark) for mark in "✓?◆✗"]
    assert places == [0, 18, 22, 36]
    assert [n for n, mark in enumerate(track(line)) if mark == "━"] == [19, 20, 21, 23, 24]
    assert bracket(step(8, 16), PROBES, plain=True).isascii()


def test_the_bracket_is_open_where_nothing_is_known() -> None:
    assert track(bracket(step(8, None, None), PROBES)).endswith("━━✗")
    assert "━" not in bracket(step(None, None), PROBES)
    assert bracket(step(None, None, None), []) == ""


LOADS = st.floats(0.01, 99_999)


@given(st.lists(LOADS, max_size=9), st.none() | LOADS, st.none() | LOADS, st.booleans())
def test_it_always_fits(loads: list[float], low: float | None, high: float | None, plain: bool) -> None:
    line = bracket(step(low, high), [Probe(Rate(load), True, "") for load in loads], plain=plain)
    assert len(f"  {line}") <= 80


SIDES = [(8, 16, "between 8 and 16"), (4096, None, "above 4,096"), (None, 3, "below 3")]


@pytest.mark.parametrize(("low", "high", "words"), SIDES)
def test_where_it_lies(low: float | None, high: float | None, words: str) -> None:
    assert lies(low, high) == words
    assert lies(None, None) == ""
