"""Figures judged together: Holm's steps, and what becomes of the verdicts and intervals of two runs."""

from __future__ import annotations

import msgspec
import pytest

from pacemark.answers.comparison import SAME, Compared, compare_runs
from pacemark.answers.family import corrected, holm
from pacemark.answers.gate import gated
from pacemark.summary import Figure, Summary
from support.samples import sweep


def test_holm_goes_on_until_one_fails() -> None:
    # 0.012 < 0.05 / 4, 0.016 < 0.05 / 3, 0.03 > 0.05 / 2; the last fails with it, though 0.04 < 0.05.
    found = holm([0.04, 0.012, 0.03, 0.016])
    assert [x.differs for x in found] == [False, True, False, True]
    assert [x.divisor for x in found] == [2, 4, 2, 3]
    assert [x.adjusted for x in found] == pytest.approx([0.06, 0.048, 0.06, 0.048])
    assert holm([]) == []


def with_p95(summary: Summary, *values: float) -> Summary:
    """The same run with these TTFT p95 at its first loads, each known to 5%."""
    levels = list(summary.levels)
    for n, value in enumerate(values):
        ttft = msgspec.structs.replace(levels[n].ttft_ms, p95=Figure(value, 0.95 * value, 1.05 * value))
        levels[n] = msgspec.structs.replace(levels[n], ttft_ms=ttft, basis={})
    return msgspec.structs.replace(summary, levels=levels)


def both(*changed: float) -> tuple[Compared, Compared]:
    """A run with and without such changes of its first TTFT p95: each figure by itself, and all together."""
    a, b = with_p95(sweep(), *(100.0 for _ in changed)), with_p95(sweep(), *(100.0 * x for x in changed))
    alone = compare_runs(a, b)
    return alone, corrected(alone, a.levels, b.levels)


def test_a_difference_that_one_of_many_figures_shows_is_none() -> None:
    alone, together = both(1.1)
    assert alone.levels[0].metrics["ttft_ms.p95"].verdict == "slower"
    found = together.levels[0].metrics["ttft_ms.p95"]
    assert found.verdict == SAME
    assert found.ratio.low is not None
    assert found.ratio.low < 1.0
    assert found.ratio.value == alone.levels[0].metrics["ttft_ms.p95"].ratio.value


def test_a_large_one_stays_and_its_interval_leaves_out_one() -> None:
    alone, together = both(1.5)
    by_itself, found = (x.levels[0].metrics["ttft_ms.p95"] for x in (alone, together))
    assert found.verdict == "slower"
    assert 1.0 < (found.ratio.low or 0.0) < (by_itself.ratio.low or 0.0)
    assert (found.difference.low or 0.0) < (by_itself.difference.low or 0.0)


def test_a_verdict_is_there_exactly_where_the_interval_leaves_out_one() -> None:
    _, together = both(1.5, 0.6, 1.12, 1.05)
    seen = set()
    for level in together.levels:
        for found in level.metrics.values():
            if found.ratio.low is not None and found.ratio.high is not None and found.verdict != "undecidable":
                assert (found.verdict != SAME) == (not found.ratio.low <= 1.0 <= found.ratio.high)
                seen.add(found.verdict)
    assert {"slower", "faster", SAME} <= seen


def test_a_condition_of_a_gate_is_judged_by_itself() -> None:
    a, b = with_p95(sweep(), 100.0), with_p95(sweep(), 110.0)
    gate = gated(compare_runs(a, b), ["ttft p95 > +1%"])
    assert corrected(gate, a.levels, b.levels).conditions == gate.conditions
    assert gate.conditions[0].status == "failed"


def test_a_run_does_not_differ_from_itself() -> None:
    levels = sweep().levels
    found = corrected(compare_runs(sweep(), sweep()), levels, levels)
    assert {x.verdict for level in found.levels for x in level.metrics.values()} <= {SAME, "undecidable"}
