"""That nothing grows while a run goes on, in the time that a test has; `make soak` takes half an hour."""

from __future__ import annotations

from pathlib import Path

import pytest

from pacemark.simulator import serving
from support.soaking import growth, soaked


@pytest.mark.slow
@pytest.mark.parametrize("load", [("--concurrency", "48"), ("--rate", "60")], ids=["closed", "open"])
def test_nothing_grows_but_the_columns_of_what_was_measured(load: tuple[str, ...], tmp_path: Path) -> None:
    with serving("fixed", ttft_ms=50, itl_ms=10) as served:
        looks = soaked(served.url, load, 40.0, tmp_path)
    by = {name: growth(seen) for name, seen in looks.items()}
    assert min(len(seen) for seen in looks.values()) > 30
    assert by["reader"].rss_kb < 4_000
    assert by["worker"].rss_kb < 8_000
    assert by["coordinator"].rss_kb < 30_000
    assert by["worker"].threads == by["reader"].threads == 0  # the other one draws its report in one
    assert max(by["coordinator"].descriptors, by["reader"].descriptors) <= 1
    assert by["worker"].descriptors <= (2 if load[0] == "--concurrency" else 60)  # an open loop's connections
