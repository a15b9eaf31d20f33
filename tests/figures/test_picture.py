"""What can be drawn of a level: its distribution read off at fixed shares, and a stretch of its requests."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from pacemark.figures import metrics
from pacemark.figures.picture import LANES, MOST, SHARES, LevelPicture, pictured
from pacemark.pace import Concurrency, Load, Rate
from pacemark.runs.simulated import virtual_measure


def picture(load: Load, seconds: float = 10.0) -> tuple[LevelPicture, np.ndarray[tuple[int], np.dtype[np.float64]]]:
    """The picture of a level, and the TTFT of its requests."""
    found = virtual_measure("demo", duration_s=seconds, output_tokens=(64.0, 0.6))(load)
    sample = metrics.started_in(found.trace, found.window.start_ns, found.window.end_ns)
    return pictured(found, str(load)), metrics.ttft_ms(found.trace)[sample]


def test_a_distribution_is_that_of_the_window() -> None:
    drawn, values = picture(Concurrency(8))
    read = dict(zip([*SHARES[: len(drawn.spreads["ttft_ms"]) - 1], 1.0], drawn.spreads["ttft_ms"], strict=True))
    assert read[0.0] == pytest.approx(values.min(), rel=1e-4)
    assert read[1.0] == pytest.approx(values.max(), rel=1e-4)
    for share in (0.5, 0.95):
        assert read[share] == pytest.approx(np.quantile(values, share, method="inverted_cdf"), rel=1e-4)
    assert list(read.values()) == sorted(read.values())
    assert 0.999 not in read, "a hundred requests do not tell it"


@pytest.mark.parametrize("load", [Concurrency(8), Concurrency(64), Rate(12.0)], ids=str)
def test_requests_of_one_lane_do_not_overlap(load: Load) -> None:
    lanes = picture(load)[0].lanes
    assert 5 < len(lanes) <= MOST
    assert {one.lane for one in lanes} <= set(range(LANES))
    for _, own in itertools.groupby(sorted(lanes, key=lambda x: (x.lane, x.sent)), key=lambda x: x.lane):
        for before, after in itertools.pairwise(own):
            assert before.ended <= after.due + 0.01
    for one in lanes:
        assert one.first is not None
        assert 0 <= one.due <= one.sent < one.first < one.ended


def test_a_picture_of_many_requests_is_as_small_as_one_of_few() -> None:
    few, many = (picture(Concurrency(8), seconds)[0] for seconds in (10.0, 100.0))
    assert len(many.spreads["ttft_ms"]) <= len(SHARES)
    assert len(many.lanes) < 2 * len(few.lanes)
