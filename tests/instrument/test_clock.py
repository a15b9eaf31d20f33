"""The timer: never early, one deadline at a time, with a timerfd and without."""

from __future__ import annotations

import asyncio
import itertools
import sys
import time

import pytest
import uvloop

from pacemark.instrument.clock import Timer


@pytest.fixture(params=["timerfd", "loop"])
def kind(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    if request.param == "timerfd" and not sys.platform.startswith("linux"):
        pytest.skip("a timerfd needs Linux")
    if request.param == "loop":
        monkeypatch.setattr(sys, "platform", "elsewhere")
    return str(request.param)


async def rings(plan: list[tuple[float, float]], seconds: float) -> list[float]:
    """Times of ringing, in seconds; `plan` says at which time which deadline is set."""
    start = time.monotonic_ns()
    rung: list[float] = []
    timer = Timer(asyncio.get_running_loop(), lambda: rung.append((time.monotonic_ns() - start) / 1e9))
    for at, deadline in plan:
        await asyncio.sleep(max(0.0, at - (time.monotonic_ns() - start) / 1e9))
        timer.set(start + round(deadline * 1e9))
    await asyncio.sleep(seconds)
    timer.close()
    return rung


@pytest.mark.parametrize(
    ("plan", "expected"),
    [
        ([(0, 0.02)], [0.02]),
        ([(0, -5.0)], [0.0]),
        ([(0, 5.0), (0.01, 0.03)], [0.03]),
        ([(0, 0.02), (0.005, 0.06)], [0.06]),
    ],
)
def test_it_rings_once_and_never_early(kind: str, plan: list[tuple[float, float]], expected: list[float]) -> None:
    rung = uvloop.run(rings(plan, 0.3))
    assert len(rung) == len(expected)
    for when, due in zip(rung, expected, strict=True):
        # uvloop's own timers may be a millisecond early; a timerfd may not.
        assert when >= due - (0.0 if kind == "timerfd" else 0.0015)


def test_it_can_be_set_from_its_own_ringing(kind: str) -> None:
    async def chain() -> list[int]:
        loop, done = asyncio.get_running_loop(), asyncio.Event()
        stamps: list[int] = []

        def ring() -> None:
            stamps.append(time.monotonic_ns())
            if len(stamps) < 5:
                timer.set(stamps[-1] + 2_000_000)
            else:
                done.set()

        timer = Timer(loop, ring)
        timer.set(time.monotonic_ns())
        await asyncio.wait_for(done.wait(), 10)
        timer.close()
        return stamps

    stamps = uvloop.run(chain())
    assert all(b - a >= 1_000_000 for a, b in itertools.pairwise(stamps))
