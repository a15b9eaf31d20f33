"""An endpoint whose speed changes by itself."""

from __future__ import annotations

import numpy as np
import pytest

from pacemark.errors import BadInput
from pacemark.pace import Concurrency
from pacemark.simulator import Unsteady, customised, named, simulate


def test_it_wanders_within_its_bounds_and_not_by_chance() -> None:
    swing = Unsteady(kind="wanders", by=0.2, period_s=100.0, seed=3)
    slow = np.array([swing.slowness(float(t)) for t in range(2000)])
    assert 0.8 <= slow.min() < 0.85
    assert 1.15 < slow.max() <= 1.2
    assert slow.mean() == pytest.approx(1.0, abs=0.01)
    assert np.abs(np.diff(slow)).max() < 0.02
    assert [swing.slowness(float(t)) for t in range(9)] == slow[:9].tolist()
    assert Unsteady(kind="wanders", by=0.2, period_s=100.0, seed=4).slowness(5.0) != slow[5]


def test_it_jumps_once() -> None:
    jump = Unsteady(kind="jumps", by=-0.25, period_s=60.0)
    assert [jump.slowness(t) for t in (0.0, 59.9, 60.0, 9000.0)] == [1.0, 1.0, 0.75, 0.75]


def test_a_neighbour_stays_for_a_third_of_the_time() -> None:
    neighbour = Unsteady(kind="neighbour", by=0.3, period_s=90.0, seed=1)
    slow = np.array([neighbour.slowness(t / 4) for t in range(4 * 9000)])
    assert set(slow) == {1.0, 1.3}
    assert (slow > 1).mean() == pytest.approx(1 / 3, abs=0.01)
    assert np.count_nonzero(np.diff(slow) > 0) == 100


def test_every_step_takes_so_many_times_as_long() -> None:
    lengths = {"input_tokens": 64, "output_tokens": 16, "requests": 40, "turnaround_ms": 0.0}
    plain = simulate(Concurrency(1), "demo", **lengths)  # type: ignore[arg-type]
    change = {"kind": "jumps", "by": 0.5, "period_s": 10.0}
    slower = customised(named("demo"), {"unsteady": change})
    before, after = (
        simulate(Concurrency(1), slower, **lengths, lived_ns=lived_s * 1_000_000_000)  # type: ignore[arg-type]
        for lived_s in (0, 20)
    )
    assert np.array_equal(before.ended_ns, plain.ended_ns), "it is not yet old enough"
    assert after.ended_ns[-1] == pytest.approx(1.5 * plain.ended_ns[-1], rel=1e-6)


@pytest.mark.parametrize("change", [{"kind": "jumps", "by": -1.0}, {"kind": "wanders", "by": 1.5}, {"kind": "dances"}])
def test_what_makes_no_sense_is_refused(change: dict[str, object]) -> None:
    with pytest.raises(BadInput):
        customised(named("demo"), {"unsteady": change})
