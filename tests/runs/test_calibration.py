"""How much this machine measures honestly: a small calibration over real sockets, and what is kept of one."""

from __future__ import annotations

import platform
from pathlib import Path

import msgspec
import pytest

import pacemark
from pacemark.pace import Concurrency, Load, Rate
from pacemark.runs.calibration import LIMITS, Calibration, Point, calibrate, remember, warning

POINT = Point(8, False, 0.5, -0.5, 0.001, 0.1, 0.05, 5.0)


@pytest.fixture
def memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    return tmp_path / "pacemark" / "calibration.json"


@pytest.mark.slow
def test_a_calibration_of_two_numbers_of_streams() -> None:
    told: list[Point] = []
    found = pacemark.calibrate((2, 4), tls=(False,), duration_s=1.5, tell=told.append)
    assert told == found.points
    assert [(p.streams, p.tls) for p in found.points] == [(2, False), (4, False)]
    assert (found.workers, found.host) == (1, platform.node())
    for point in found.points:
        # The endpoint's timeline is known, so the client cannot be early by more than what the clocks differ;
        # how late it is depends on what else this machine does.
        assert -5 < point.ttft_p99_error_ms < 500
        assert -5 < point.itl_p99_error_ms < 500
        assert abs(point.throughput_error) < 0.5
        assert point.server_late_p99_ms >= 0
    assert found.plain == max((p.streams for p in found.points if p.honest), default=0)
    assert found.tls == 0


def test_it_ends_after_two_misses_in_a_row(monkeypatch: pytest.MonkeyPatch) -> None:
    errors = {1: 0.0, 2: 2.0, 4: 0.0, 8: 2.0, 16: 2.0, 32: 0.0}

    def point(streams: int, tls: bool, *_: object) -> Point:
        return msgspec.structs.replace(POINT, streams=streams, tls=tls, itl_p99_error_ms=errors[streams])

    monkeypatch.setattr("pacemark.runs.calibration.measure_point", point)
    found = calibrate(tuple(errors))
    assert [p.streams for p in found.points] == [1, 2, 4, 8, 16] * 2
    assert (found.plain, found.tls) == (4, 4)


@pytest.mark.parametrize("name", LIMITS)
def test_a_point_is_honest_within_every_limit(name: str) -> None:
    assert POINT.honest
    for sign in (1, -1):
        assert msgspec.structs.replace(POINT, **{name: sign * LIMITS[name]}).honest
        assert not msgspec.structs.replace(POINT, **{name: sign * LIMITS[name] * 1.01}).honest


def test_what_was_found_is_remembered_for_this_machine(memory: Path) -> None:
    loads: list[Load] = [Concurrency(8), Concurrency(100), Rate(1e6)]
    assert warning(loads, tls=False) == ""
    assert remember(Calibration(64, 32, 1, platform.node(), [POINT])) == memory
    assert "concurrency 100 is more than the 64" in warning(loads, tls=False)
    assert "more than the 32" in warning(loads, tls=True)
    assert warning(loads[:1], tls=True) == ""
    assert warning([Rate(1e6)], tls=True) == ""
    remember(Calibration(64, 32, 1, "another machine", [POINT]))
    assert warning(loads, tls=False) == ""
    memory.write_text("{")
    assert warning(loads, tls=False) == ""
