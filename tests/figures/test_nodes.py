"""A level of several machines: what is said of each, and which of them is at fault."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import msgspec
import numpy as np

from pacemark.figures.health import Health, health_of
from pacemark.figures.level import LevelResult, sum_up
from pacemark.figures.pooling import pooled
from pacemark.nodes import NodeLevel, NodePart
from pacemark.pace import Concurrency
from pacemark.simulator import simulate
from pacemark.summary import Level
from pacemark.trace import ABSENT, Beat, Window

SECOND_NS = 1_000_000_000
WINDOW = Window(3 * SECOND_NS, 20 * SECOND_NS)
QUIET = (10_000, 80_000, 200_000)


def beats(worker: int, busy: float = 0.1, waits: float = 0.0) -> list[Beat]:
    """Pulses of a worker over 20 s, of which it was so busy and waited so long."""
    return [
        Beat(worker, s * SECOND_NS, 0, 1, ABSENT, 1, 0, int(busy * s * SECOND_NS), int(waits * s * SECOND_NS),
             0.5, 100_000, 0, False)
        for s in range(21)
    ]  # fmt: skip


def part(number: int, name: str, **changes: Any) -> NodePart:
    found = NodePart(number, name, boot=name, bound_ns=300_000, reads=1000, stamped=1000, lag_ns=QUIET)
    return msgspec.structs.replace(found, **changes)


def measured(*parts: NodePart, pulses: list[Beat] | None = None, died: tuple[str, ...] = ()) -> LevelResult:
    """Sixteen streams over these machines, with one worker each."""
    trace = simulate(Concurrency(16), "demo", input_tokens=256, output_tokens=64, duration_s=20.0)
    trace = replace(trace, index=np.arange(len(trace)))
    pulses = pulses or [beat for n in range(len(parts)) for beat in beats(n)]
    return sum_up(Concurrency(16), trace, WINDOW, health_of(trace, pulses, died, parts))


def codes(level: Level) -> dict[str, str]:
    return {reason.code: reason.message for reason in level.verdict.reasons}


def of(level: Level) -> list[NodeLevel]:
    assert isinstance(level.nodes, list)
    return level.nodes


def test_each_machine_has_its_share_of_the_level() -> None:
    level = measured(part(0, "a"), part(1, "b"), part(2, "c")).level
    assert [node.name for node in of(level)] == ["a", "b", "c"]
    assert sum(node.requests for node in of(level)) == level.requests.in_window
    rate = sum(node.output_tokens_per_s or 0.0 for node in of(level))
    assert level.output_tokens_per_s.value is not None
    assert abs(rate / level.output_tokens_per_s.value - 1) < 0.02
    assert {node.status for node in of(level)} == {"valid"}
    assert [node.lag_ms_p99 for node in of(level)] == [0.08] * 3


def test_one_machine_alone_has_no_table() -> None:
    assert measured().level.nodes is msgspec.UNSET


def test_the_busy_one_of_many_is_named() -> None:
    parts = [part(n, f"m{n}") for n in range(8)]
    pulses = [beat for n in range(8) for beat in beats(n, busy=0.95 if n == 5 else 0.1)]
    level = measured(*parts, pulses=pulses).level
    assert codes(level)["client_busy"].startswith("on m5: a worker of this client was busy 95%")
    assert [node.status for node in of(level)] == ["valid"] * 5 + ["suspect"] + ["valid"] * 2
    assert "busy 95%" in of(level)[5].why


def test_several_in_trouble_are_named_together_and_the_worst_decides() -> None:
    pulses = [beat for n, waits in enumerate((0.5, 0.2, 0.0)) for beat in beats(n, waits=waits)]
    level = measured(part(0, "a"), part(1, "b"), part(2, "c"), pulses=pulses).level
    assert codes(level)["client_starved"].startswith("on a, b: this client was ready to run but had no CPU for 50%")
    assert level.verdict.status == "invalid"
    assert [node.status for node in of(level)] == ["invalid", "suspect", "valid"]


def test_a_machine_that_reads_late_is_named() -> None:
    level = measured(part(0, "a"), part(1, "b", lag_ns=(1_000_000, 40_000_000, 90_000_000))).level
    assert codes(level)["client_lag"].startswith("on b: this client read answers up to 40.0 ms after")


def test_a_clock_that_is_not_known_well_enough_is_said() -> None:
    assert "clocks" not in codes(measured(part(0, "a", bound_ns=4_900_000), part(1, "b")).level)
    level = measured(part(0, "a", bound_ns=7_300_000), part(1, "b")).level
    assert codes(level)["clocks"].startswith("the clock of a is known to 7.3 ms only")
    assert level.verdict.status == "suspect"


def test_a_clock_that_jumped_is_said() -> None:
    level = measured(part(0, "a"), part(1, "b", jumped_ns=750_000_000)).level
    assert "the clock of b, or of the coordinator, jumped by 750 ms under way" in codes(level)["clocks"]
    assert [node.status for node in of(level)] == ["valid", "suspect"]


def test_workers_behind_others_are_said() -> None:
    assert "at niceness 15" in codes(measured(part(0, "a"), part(1, "b", niceness=15)).level)["niceness"]


def test_nodes_of_one_machine_are_a_note() -> None:
    level = measured(part(0, "a", boot="x"), part(1, "b", boot="x")).level
    assert "a and b are on one machine" in codes(level)["one_machine"]
    assert level.verdict.status == "valid"
    assert "one_machine" not in codes(measured(part(0, "a"), part(1, "b")).level)


def test_a_lost_machine_is_no_part_to_rely_on() -> None:
    lost = part(1, "b", lost="silent for 2 s", reads=0, stamped=0, lag_ns=None)
    level = measured(part(0, "a"), lost, died=("b is lost: silent for 2 s",)).level
    assert [node.status for node in of(level)] == ["valid", "invalid"]
    assert (of(level)[1].why, of(level)[1].lag_ms_p99) == ("silent for 2 s", None)
    assert level.verdict.status == "invalid"


def test_repetitions_are_one_table() -> None:
    runs = [measured(part(0, "a"), part(1, "b", bound_ns=bound)) for bound in (200_000, 900_000)]
    a, b = of(pooled(runs))
    assert a.requests == sum(of(run.level)[0].requests for run in runs)
    assert (a.offset_bound_ms, b.offset_bound_ms) == (0.3, 0.9)
    assert pooled([sum_up(r.load, r.trace, r.window, Health()) for r in runs]).nodes is msgspec.UNSET
