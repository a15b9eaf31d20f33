"""What ends a level's window."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import pacemark
from pacemark.errors import BadInput
from pacemark.figures.metrics import started_in
from pacemark.pace import Concurrency, Load, Rate
from pacemark.runs.simulated import virtual_measure
from pacemark.simulator import Served, serving


@pytest.fixture(scope="module")
def endpoint() -> Iterator[Served]:
    with serving("demo") as served:
        yield served


@pytest.mark.parametrize("load", [Concurrency(4), Rate(12.0)])
@pytest.mark.parametrize("requests", [1, 50, 300])
def test_in_virtual_time_a_level_ends_with_its_last_request(load: Load, requests: int) -> None:
    result = virtual_measure("demo", duration_s=1e4, requests=requests)(load)
    assert result.level.ended_by == "requests"
    begun = started_in(result.trace, result.window.start_ns, result.window.end_ns)
    ended = begun & (result.trace.ended_ns <= result.window.end_ns)
    # What is still in flight as it ends is measured too: to leave it out would favour short answers.
    assert np.count_nonzero(ended) == requests
    assert result.level.requests.in_window == np.count_nonzero(begun)


def test_in_virtual_time_the_duration_may_come_first() -> None:
    level = virtual_measure("demo", duration_s=2.0, requests=10_000)(Concurrency(4)).level
    assert level.ended_by == "duration"
    assert level.window_s == pytest.approx(2.0, rel=0.1)


SHORT: dict[str, Any] = {"input_tokens": 32, "output_tokens": 8}


@pytest.mark.slow(shared=True)
def test_requests_end_a_level_over_sockets(endpoint: Served, tmp_path: Path) -> None:
    run = pacemark.sweep(endpoint.url, concurrency=[1, 3], requests=20, out=tmp_path, **SHORT)
    for level, streams in zip(run.levels, (1, 3), strict=True):
        assert level.ended_by == "requests"
        # Those in flight at the end, and what ended while the workers' reports were under way.
        assert 20 <= level.requests.in_window <= 20 + 4 * streams
    settings = json.loads((run.path / "run.json").read_bytes())["settings"]
    assert (settings["requests"], settings["timed"]) == (20, False)
    assert pacemark.report(run.path).levels[1].ended_by == "requests"


@pytest.mark.slow(shared=True)
def test_the_duration_ends_it_where_both_are_given(endpoint: Served, tmp_path: Path) -> None:
    run = pacemark.run(endpoint.url, concurrency=2, requests=10**6, duration=0.5, out=tmp_path, **SHORT)
    assert run.levels[0].ended_by == "duration"


def test_no_requests_are_refused() -> None:
    with pytest.raises(BadInput, match="--requests 0"):
        pacemark.run("sim:demo", concurrency=1, requests=0)
