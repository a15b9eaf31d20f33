"""Comparing runs: verdicts, and conditions that fail a build."""

from __future__ import annotations

import msgspec
import pytest

from pacemark.answers.comparison import compare_runs, refuse_if_other
from pacemark.errors import BadInput
from pacemark.pace import Concurrency
from pacemark.summary import Figure, Summary
from support.samples import sweep, troubled


def slower(summary: Summary, factor: float) -> Summary:
    """The same run with every TTFT p95 `factor` times as long, known to 1%."""
    levels = []
    for level in summary.levels:
        value = (level.ttft_ms.p95.value or 100.0) * factor
        figure = Figure(value, 0.99 * value, 1.01 * value)
        levels.append(msgspec.structs.replace(level, ttft_ms=msgspec.structs.replace(level.ttft_ms, p95=figure)))
    return msgspec.structs.replace(summary, levels=levels)


def test_a_run_against_itself_shows_no_difference() -> None:
    found = compare_runs(sweep(), sweep())
    assert len(found.levels) == len(sweep().levels)
    verdicts = {c.verdict for level in found.levels for c in level.metrics.values()}
    assert verdicts <= {"no difference shown", "undecidable"}


def test_a_longer_ttft_is_slower() -> None:
    found = compare_runs(slower(sweep(), 1.0), slower(sweep(), 1.3))
    assert {level.metrics["ttft_ms.p95"].verdict for level in found.levels} == {"slower"}


def test_the_json_names_its_schema() -> None:
    plain = msgspec.to_builtins(compare_runs(sweep(), sweep()))
    assert plain["schema"] == "pacemark/compare/1"
    metrics = plain["levels"][0]["metrics"]["output_tokens_per_s"]
    assert metrics.keys() == {"a", "b", "difference", "ratio", "verdict"}
    assert metrics["ratio"].keys() == {"value", "low", "high"}


def test_runs_without_a_common_load_cannot_be_compared() -> None:
    other = msgspec.structs.replace(sweep(), levels=[])
    with pytest.raises(BadInput, match="no load level in common"):
        compare_runs(sweep(), other)


def test_what_two_runs_differ_in_is_said_and_a_gate_over_other_lengths_is_refused() -> None:
    one = sweep()
    two = msgspec.structs.replace(
        one, workload=one.workload | {"input_tokens": 64}, target=one.target | {"model": "other"}
    )
    assert compare_runs(one, one).differences == []
    found = compare_runs(one, two)
    assert [(d.what, d.b, d.blocks) for d in found.differences] == [
        ("model", "other", False),
        ("input tokens", "64", True),
    ]
    with pytest.raises(BadInput, match=r"512 against 64.*--even-if-different"):
        refuse_if_other(found)
    refuse_if_other(compare_runs(one, msgspec.structs.replace(one, target=two.target)))


def test_an_invalid_level_is_left_out_by_name() -> None:
    found = compare_runs(troubled(), troubled())
    assert all("invalid" in line for line in found.left_out)
    assert [line.split(":")[0] for line in found.left_out] == ["concurrency 64", "concurrency 128"]
    assert Concurrency(64) not in [level.load for level in found.levels]
