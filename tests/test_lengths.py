"""Lengths as users write them, and what is drawn of them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from pacemark.errors import BadInput
from pacemark.lengths import Draws, Lengths, lengths

FLAG = "--input-tokens"


def sample(text: object, n: int = 40_000) -> np.ndarray:
    return lengths(FLAG, text)(np.random.default_rng(1), n)


@pytest.mark.parametrize(
    ("text", "mean", "deviation"),
    [
        (1000, 1000, 0),
        ("1000", 1000, 0),
        ("lognormal(1000, cv=0.8)", 1000, 800),
        ("LogNormal( 1000 , sd=300)", 1000, 300),
        ("normal(1000, 200)", 1000, 200),
        ("normal(1000, cv=0.1)", 1000, 100),
        ("uniform(200,2000)", 1100, 519.9),
        ("1000:0.7,4000:0.3", 1900, 1374.8),
        ("1000:7, 4000:3", 1900, 1374.8),
    ],
)
def test_what_is_drawn_has_the_moments_that_were_asked_for(text: object, mean: float, deviation: float) -> None:
    drawn = sample(text)
    assert drawn.mean() == pytest.approx(mean, rel=0.015)
    assert drawn.std() == pytest.approx(deviation, rel=0.05, abs=0.01)
    of = lengths(FLAG, text)
    assert of.mean == pytest.approx(mean)
    assert of.deviation == pytest.approx(deviation, rel=1e-3)
    assert drawn.dtype == np.int64
    assert (drawn > of.longest).mean() < 0.003
    assert of.fixed == (1000 if deviation == 0 else None)


def test_bounds_are_kept() -> None:
    drawn = sample("lognormal(100, cv=2, min=40, max=500)")
    assert (drawn.min(), drawn.max()) == (40, 500)
    assert sample("normal(10, 50)").min() == 1
    assert lengths(FLAG, "lognormal(100, cv=2, max=500)").longest == 500
    assert lengths(FLAG, "lognormal(100, cv=0.1, max=100000)").longest < 140
    assert set(sample("uniform(3, 5)").tolist()) == {3, 4, 5}
    assert lengths(FLAG, "normal(70, 0)").fixed == 70


def test_a_file_gives_its_own_lengths(tmp_path: Path) -> None:
    file = tmp_path / "seen.txt"
    file.write_text("10, 20\n30\n\n30 40\n")
    of = lengths(FLAG, f"@{file}")
    assert (of.mean, of.longest) == (26, 40)
    counts = np.unique(of(np.random.default_rng(0), 50_000), return_counts=True)
    assert counts[0].tolist() == [10, 20, 30, 40]
    assert counts[1] / 50_000 == pytest.approx([0.2, 0.2, 0.4, 0.2], abs=0.01)
    file.write_text("10\n12.5\n")
    with pytest.raises(BadInput, match=r"line 2: '12.5' is no length"):
        lengths(FLAG, f"@{file}")
    file.write_text("\n")
    with pytest.raises(BadInput, match="there is no length in it"):
        lengths(FLAG, f"@{file}")
    with pytest.raises(BadInput, match="cannot be read"):
        lengths(FLAG, f"@{tmp_path / 'gone'}")


@pytest.mark.parametrize(
    "text",
    [
        0, -1, True, 1.5, None, [1, 2], "", "x", "0", "-5", "@", "lognormal(1000)", "lognormal(1000, 0.8)", "normal(5)",
        "normal(5, sd=1, cv=1)", "lognormal(0, cv=1)", "lognormal(nan, cv=1)", "lognormal(9, cv=-1)", "normal(9, x)",
        "normal(9, 1, middle=2)", "lognormal(9, cv=1, min=8, max=4)", "uniform(5)", "uniform(5, 1)", "uniform(0, 4)",
        "uniform(1, 4, cv=1)", "gamma(4, 1)", "10:0.5,x:1", "10:0", "0:1", "10:nan", "10:1,",
    ],
)  # fmt: skip
def test_what_is_no_length_is_refused_in_one_line(text: object) -> None:
    with pytest.raises(BadInput) as refused:
        lengths(FLAG, text)
    assert str(refused.value).startswith(FLAG)
    assert "\n" not in str(refused.value)


def test_a_draw_hangs_on_its_place_alone() -> None:
    of = lengths(FLAG, "lognormal(500, cv=1)")
    places = [(level, index) for level in (-1, 0, 1, 7) for index in (0, 1, 255, 256, 5000)]
    one = Draws(of, 3, 1)
    forward = [one(*place) for place in places]
    other = Draws(of, 3, 1)
    assert [other(*place) for place in reversed(places)][::-1] == forward
    assert [Draws(of, 3, 2)(*place) for place in places] != forward
    assert [Draws(of, 4, 1)(*place) for place in places] != forward
    many = [one(2, index) for index in range(4000)]
    assert np.mean(many) == pytest.approx(500, rel=0.06)
    assert np.corrcoef(many[1:], many[:-1])[0, 1] == pytest.approx(0, abs=0.05)
    assert Draws(Lengths("fixed", 9.0, 0.0, 9, 9), 3, 1)(0, 0) == 9
