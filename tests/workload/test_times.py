"""Times: every way of writing one, to the nanosecond, and the step to which a file rounds them."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import numpy as np
import pytest

from pacemark.errors import BadInput
from pacemark.workload.times import NS, Quantum, instant, unit_of

NOON = 1_764_244_800_000_000_000  # 2025-11-27T12:00:00Z


@pytest.mark.parametrize(
    ("text", "ns"),
    [
        ("2025-11-27T12:00:00Z", 0),
        ("2025-11-27 12:00:00.1234567", 123_456_700),
        ("2025-11-27T12:00:00.123456789123Z", 123_456_789),
        ("2025-11-27T13:00:00.5+01:00", 500_000_000),
        ("2025-11-27 04:30:00-0730", 0),
        ("2025-11-27 12:00", 0),
        (" 2025-11-27 12:00:01 UTC", 1_000_000_000),
        ("2025-11-27", -43_200_000_000_000),
        (datetime(2025, 11, 27, 12, 0, 0, 250), 250_000),
        (datetime(2025, 11, 27, 14, tzinfo=timezone(timedelta(hours=2))), 0),
    ],
)
def test_dates(text: Any, ns: int) -> None:
    assert unit_of(text) == "date"
    assert instant(text, "") - NOON == ns


@pytest.mark.parametrize("unit", NS)
def test_numbers_that_can_only_be_of_one_unit(unit: str) -> None:
    for at in (datetime(2002, 1, 1, tzinfo=UTC), datetime(2095, 1, 1, tzinfo=UTC)):
        count = int(at.timestamp()) * 1_000_000_000 // NS[unit]
        assert unit_of(count) == unit_of(str(count)) == unit
        assert instant(count, unit) == int(at.timestamp()) * 1_000_000_000
    assert unit_of(93.0) == unit_of(3000) == unit_of("0") == unit_of(True) == unit_of(None) == ""


def test_what_is_no_time_is_refused() -> None:
    values: list[Any] = [
        "2025-02-30",
        "2025-11-27 25:00",
        "soon",
        "",
        None,
        True,
        [],
        float("nan"),
        float("inf"),
        "1e400",
    ]
    for value in values:
        with pytest.raises(BadInput):
            instant(value, "s")
    with pytest.raises(BadInput, match="the time 5 has no unit that can be known: say --unit ns, us, ms"):
        instant(5, "")
    with pytest.raises(BadInput, match="too large"):
        instant(10**25, "ms")


@pytest.mark.parametrize("step_ms", [0.001, 1, 3_000, 60_000])
def test_the_step_of_rounded_times_is_found(step_ms: float) -> None:
    random = np.random.default_rng(7)
    exact = np.cumsum(random.exponential(5e9, 3000))
    quantum = Quantum()
    for at in np.floor(exact / (step_ms * 1e6)) * step_ms * 1e6 + 17:
        quantum.add(int(at))
    assert quantum.found_ms() == step_ms


def test_times_that_are_not_rounded_have_no_step() -> None:
    random = np.random.default_rng(8)
    for scale in (1e3, 1e6, 1e9, 1e12):
        quantum = Quantum()
        for at in np.cumsum(random.exponential(scale, 3000)):
            quantum.add(int(at))
        assert quantum.found_ms() is None
    assert Quantum().found_ms() is None
