"""A gate decides, or says what it lacks; it is never silent."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import msgspec
import pytest

import pacemark as face
from pacemark.answers.comparison import Compared, Outcome, compare_runs
from pacemark.answers.gate import gated
from pacemark.errors import BadInput
from pacemark.pace import Concurrency
from pacemark.reporting.compared import markdown
from pacemark.runs.simulated import virtual_measure
from pacemark.simulator import EngineSpec, Preset, customised, named
from pacemark.summary import Figure, Reason, Summary, Verdict
from support.inside import inside
from support.samples import known, sweep, troubled


def with_ttft(summary: Summary, value: float | None, share: float = 0.01) -> Summary:
    """The same run with this TTFT p95 at every level, known to `share`; without an interval where that is 0."""
    figure = Figure(value, *((1 + side) * value for side in (-share, share))) if value and share else Figure(value)
    levels = [
        msgspec.structs.replace(level, ttft_ms=msgspec.structs.replace(level.ttft_ms, p95=figure))
        for level in summary.levels
    ]
    return msgspec.structs.replace(summary, levels=levels)


def judged(a: Summary, b: Summary, condition: str) -> Outcome:
    return gated(compare_runs(a, b), [condition]).conditions[0]


@pytest.mark.parametrize(
    ("value", "share", "condition", "status"),
    [
        (130, 0.01, "ttft p95 > +5%", "failed"),
        (130, 0.01, "ttft p95 > +50%", "passed"),
        (80, 0.01, "ttft p95 < -5%", "failed"),
        (106, 0.05, "ttft p95 > +5%", "undecided"),
        (309, 0.0, "ttft p95 > +5%", "undecided"),
        (None, 0.0, "ttft p95 > +5%", "undecided"),
    ],
)
def test_a_condition_has_passed_failed_or_is_undecided(
    value: float | None, share: float, condition: str, status: str
) -> None:
    found = judged(with_ttft(sweep(), 100), with_ttft(sweep(), value, share), condition)
    assert found.status == status
    assert {level.status for level in found.levels} == {status}
    assert (found.needs_requests is not None) == (status == "undecided")
    if status == "undecided":
        assert all(level.needs_requests for level in found.levels)
        assert "more requests in each run decide it" in found.why
    assert len(found.levels) == len(sweep().levels)


def test_the_wider_the_interval_the_more_it_needs() -> None:
    needs = [
        known(judged(with_ttft(sweep(), 100, share), with_ttft(sweep(), 112, share), "ttft p95 > +5%").needs_requests)
        for share in (0.06, 0.12, 0.24)
    ]
    assert needs == sorted(needs)
    assert needs[2] > 8 * needs[0]


def test_a_level_that_only_a_could_measure_is_no_pass() -> None:
    one = sweep()
    levels = [
        msgspec.structs.replace(x, verdict=bad.verdict) if x.load == Concurrency(64) else x
        for x, bad in zip(one.levels, [troubled().levels[3]] * len(one.levels), strict=True)
    ]
    worse = msgspec.structs.replace(one, levels=levels)
    found = judged(one, worse, "throughput < -5%")
    assert found.status == "undecided"
    assert "concurrency 64: invalid in B" in found.why
    assert judged(worse, one, "throughput < -5%").status == "passed"


@pytest.mark.parametrize("code", ["errors", "short_answers"])
def test_a_level_at_which_b_did_less_is_no_pass(code: str) -> None:
    one = sweep()
    doubt = Verdict("suspect", [Reason(code, "5% of the requests came to less")])
    less = msgspec.structs.replace(one, levels=[msgspec.structs.replace(x, verdict=doubt) for x in one.levels])
    found = judged(one, less, "throughput < -5%")
    assert found.status == "undecided"
    assert "in B and not in A: 5% of the requests came to less" in found.why
    assert judged(less, one, "throughput < -5%").status == "passed"
    assert judged(less, less, "throughput < -5%").status == "passed"


def test_levels_that_a_stopped_run_did_not_come_to_are_no_pass(stored_run: Path, tmp_path: Path) -> None:
    other = two_runs(stored_run, tmp_path, 1.0, 0.01)
    summary = json.loads((other / "summary.json").read_text())
    summary["levels"].pop()
    (other / "summary.json").write_text(json.dumps(summary))
    assert face.compare(stored_run, other, fail_if=["ttft p95 > +5%"]).conditions[0].status == "passed"
    (other / "summary.json").write_text(json.dumps(summary | {"run": summary["run"] | {"ended": "interrupted"}}))
    (outcome,) = face.compare(stored_run, other, fail_if=["ttft p95 > +5%"]).conditions
    assert (outcome.status, "not measured in B" in outcome.why) == ("undecided", True)


@pytest.mark.parametrize(
    "text", ["ttft p95", "ttft > 5%", "speed p95 > 5%", "throughput p95 < 3%", "ttft p95 > 5", "throughput < -100%"]
)
def test_a_condition_of_another_form_is_refused(text: str) -> None:
    with pytest.raises(BadInput, match="--fail-if"):
        gated(compare_runs(sweep(), sweep()), [text])


# --- against a known truth


def slowed(factor: float) -> Preset:
    """The demo preset with everything `factor` times as long."""
    preset = named("demo")
    spec = preset.timeline
    assert isinstance(spec, EngineSpec)
    costs = ("base_ms", "per_decode_ms", "per_prefill_token_ms", "per_kv_token_ms")
    return customised(preset, {cost: getattr(spec, cost) * factor for cost in costs})


def measured(preset: Preset, seed: int) -> Summary:
    """A level of about 400 requests."""
    lengths: Any = {"input_tokens": (256.0, 0.5), "output_tokens": (64.0, 0.66)}
    level = virtual_measure(preset, **lengths, duration_s=33.0, seed=seed)(Concurrency(8)).level
    return Summary(target={}, workload={}, levels=[level])


@pytest.mark.slow
def test_ten_percent_more_at_400_requests_is_failed_or_undecided_with_a_number() -> None:
    found: list[Outcome] = []
    for pair in range(20):
        compared = compare_runs(measured(named("demo"), 2 * pair), measured(slowed(1.1), 2 * pair + 1))
        found += gated(compared, ["ttft p95 > +5%", "tpot p50 > +5%"]).conditions
    assert sum(x.status == "passed" for x in found) <= 2
    assert all(x.needs_requests for x in found if x.status == "undecided")
    assert sum(x.status == "failed" for x in found if x.condition.startswith("tpot")) >= 15


# --- the command


def two_runs(stored_run: Path, tmp_path: Path, factor: float, share: float) -> Path:
    """A copy whose TTFT p95 is `factor` times that of the stored run, both known to `share`."""
    other = Path(shutil.copytree(stored_run, tmp_path / "20260102T000000Z-other"))
    for path, value in ((stored_run, 100.0), (other, 100.0 * factor)):
        summary = json.loads((path / "summary.json").read_text())
        for level in summary["levels"]:
            level["ttft_ms"]["p95"] = {"value": value, "low": value * (1 - share), "high": value * (1 + share)}
            level["basis"]["ttft_ms"]["scatter"] = {}
            level["client"]["bound_ms"] = None
        (path / "summary.json").write_text(json.dumps(summary))
    return other


@pytest.mark.parametrize(
    ("factor", "share", "more", "code"),
    [
        (3.09, 0.01, [], 1),
        (1.0, 0.01, [], 0),
        (1.04, 0.1, [], 4),
        (1.04, 0.1, ["--undecided", "fail"], 1),
        (1.04, 0.1, ["--undecided", "pass"], 0),
    ],
)
def test_the_exit_code_is_the_verdict(
    factor: float, share: float, more: list[str], code: int, stored_run: Path, tmp_path: Path
) -> None:
    other = two_runs(stored_run, tmp_path, factor, share)
    done = inside("compare", stored_run, other, "--fail-if", "ttft p95 > +5%", "--json", *more)
    assert done.returncode == code, done.stderr
    (outcome,) = json.loads(done.stdout)["conditions"]
    assert outcome["status"] == {0: "passed", 1: "failed", 4: "undecided"}[code if not more else 4]
    assert len(outcome["levels"]) == 4
    assert "ttft p95 > +5%" in done.stderr or code == 0
    if share == 0.1:
        assert "more requests in each run decide it" in done.stderr


def test_who_is_who_comes_first_then_only_what_differs(stored_run: Path, tmp_path: Path) -> None:
    other = two_runs(stored_run, tmp_path, 3.09, 0.01)
    few = inside("compare", stored_run, other).stdout
    lines = few.splitlines()
    assert lines[0].startswith(f"A: {stored_run.name}, demo-8b, http://")
    assert "TTFT ms p95" in few
    assert any(line.startswith("B: 20260102T000000Z-other") for line in lines)
    assert "no difference shown" not in few
    every = inside("compare", stored_run, other, "--all").stdout
    assert "no difference shown" in every
    assert len(every.splitlines()) > len(lines) + 20


def test_markdown_carries_the_gate(stored_run: Path, tmp_path: Path) -> None:
    other = two_runs(stored_run, tmp_path, 3.09, 0.01)
    done = inside("compare", stored_run, other, "--markdown", "--fail-if", "ttft p95 > +5%")
    assert done.returncode == 1
    assert done.stdout.startswith("- failed: ttft p95 > +5%: concurrency 1: +209.0%")
    assert "| concurrency 8 | TTFT ms p95 | 100 | 309 |" in done.stdout
    found = face.compare(stored_run, other, fail_if=["ttft p95 > +5%"])
    assert isinstance(found, Compared)
    assert markdown(found) == done.stdout.rstrip("\n")
