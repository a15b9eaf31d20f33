"""A new budget, answered from levels that were measured before."""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest

import pacemark as face
from pacemark.answers.stored import find_from
from pacemark.answers.weighing import comparable, meets
from pacemark.budget import parse
from pacemark.errors import BadInput
from pacemark.figures.conditions import demands
from pacemark.figures.level import LevelResult
from pacemark.pace import Concurrency, Load, Rate
from pacemark.runs.simulated import virtual_measure
from pacemark.simulator import simulate
from pacemark.summary import Figure, Find, Reason, Verdict
from pacemark.trace import Trace
from support.cli_tools import assert_refused
from support.inside import inside
from support.samples import known

pytestmark = pytest.mark.xdist_group("stored")  # its simulations are made once

LENGTHS: dict[str, Any] = {"input_tokens": (256, 0.3), "output_tokens": (64, 0.3)}


@pytest.fixture(scope="module")
def swept() -> list[LevelResult]:
    """The usual sweep of the demo preset: levels that double."""
    measure = virtual_measure("demo", duration_s=10.0, seed=2, **LENGTHS)
    return [measure(Concurrency(n)) for n in (1, 2, 4, 8, 16, 32, 64)]


@functools.cache
def simulated(streams: int) -> Trace:
    """Four thousand requests of the demo preset."""
    return simulate(Concurrency(streams), "demo", requests=4000, seed=77, **LENGTHS)


def optimum(limit_ms: float) -> int:
    """The most streams whose p95 TPOT is below `limit_ms`, from long simulations."""

    def tpot(streams: int) -> float:
        budget = parse(f"tpot p95 < {limit_ms}ms")
        scores = demands(budget, simulated(streams), np.arange(4000) > 6 * streams)[0].scores
        return float(np.quantile(scores, 0.95))

    low, high = 1, 32
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if tpot(middle) < 1 else (low, middle)
    return low


def figure(find: Find) -> Figure:
    return known(find.answer)


def following(find: Find) -> Load:
    assert find.next is not None
    return find.next


@pytest.mark.slow(shared=True)
@pytest.mark.parametrize("limit_ms", [10.2, 11.3, 12.4])
def test_the_interval_holds_the_truth(swept: list[LevelResult], limit_ms: float) -> None:
    found = find_from(swept, parse(f"tpot p95 < {limit_ms}ms"))
    answer = figure(found)
    assert known(answer.low) <= optimum(limit_ms) <= known(answer.high)
    assert found.binds == "tpot p95"
    assert found.spent.requests == 0
    assert [probe.load.value for probe in found.probes] == [1, 2, 4, 8, 16, 32, 64]


def test_the_next_probe_lies_in_the_interval_and_tightens_it(swept: list[LevelResult]) -> None:
    budget = parse("ttft p95 < 300ms")
    before = find_from(swept, budget)
    low, high = known(figure(before).low), known(figure(before).high)
    load = following(before)
    assert low <= load.value <= high + 1
    measure = virtual_measure("demo", duration_s=10.0, seed=9, **LENGTHS)
    after = figure(find_from([*swept, measure(load)], budget))
    assert known(after.high) - known(after.low) < 0.75 * (high - low)
    assert "narrow the interval" in before.next_why


def test_far_above_the_stored_levels_twice_the_last_is_next(swept: list[LevelResult]) -> None:
    low = [result for result in swept if result.load.value <= 4]
    found = find_from(low, parse("tpot p95 < 100ms"))
    assert following(found) == Concurrency(8)
    assert "above the stored levels" in found.next_why


@pytest.mark.slow(shared=True)
def test_an_answer_that_is_narrow_enough_is_resolved_and_wants_no_more(swept: list[LevelResult]) -> None:
    measure = virtual_measure("demo", duration_s=30.0, seed=10, **LENGTHS)
    budget = parse("tpot p95 < 11.3ms")
    near = optimum(11.3)
    found = find_from([*swept, *(measure(Concurrency(near + n)) for n in (-1, 0, 1, 2))], budget, precision=0.1)
    assert found.resolved
    assert found.next is None
    assert abs(known(figure(found).value) - near) <= 1


def test_above_the_stored_levels_the_answer_is_open(swept: list[LevelResult]) -> None:
    found = find_from(swept[:4], parse("ttft p95 < 20s"))
    assert figure(found).value == 8
    assert figure(found).high is None
    assert not found.resolved
    assert following(found).value > 8
    assert "may lie higher" in found.why


def test_below_them_there_is_none(swept: list[LevelResult]) -> None:
    found = find_from(swept, parse("ttft p50 < 1ms"))
    assert found.answer is None
    assert "not even one request at a time" in found.why
    assert found.next is None
    higher = find_from(swept[3:], parse("tpot p95 < 9.5ms"))
    assert higher.answer is None
    assert "not even concurrency 8" in higher.why
    assert 1 <= following(higher).value < 8


def test_what_no_request_has_is_refused(swept: list[LevelResult]) -> None:
    measure = virtual_measure("demo", output_tokens=1, duration_s=3.0)
    with pytest.raises(BadInput, match="no request at concurrency 2 has what the budget limits: tpot p95"):
        find_from([measure(Concurrency(2))], parse("tpot p95 < 50ms"))


def test_levels_of_one_kind_are_compared(swept: list[LevelResult]) -> None:
    measure = virtual_measure("demo", duration_s=5.0, **LENGTHS)
    rates = [measure(Rate(10.0)), measure(Rate(20.0)), measure(Rate(20.0, "gamma", 2.0))]
    assert comparable([*swept, *rates]) == swept
    assert [r.load for r in comparable([*swept, *rates], rate=True)] == [Rate(10.0), Rate(20.0)]
    assert comparable(rates) == rates[:2]
    with pytest.raises(BadInput, match="no level at an open-loop rate"):
        comparable(swept, rate=True)


def test_levels_that_the_client_spoilt_do_not_count(swept: list[LevelResult]) -> None:
    def spoilt(code: str) -> list[LevelResult]:
        verdict = Verdict("invalid", [Reason(code, "")])
        return [msgspec_replace(swept[0], verdict), *swept[1:]]

    assert len(comparable(spoilt("cached_prompts"))) == len(swept) - 1
    assert len(comparable(spoilt("worker_died"))) == len(swept) - 1
    assert len(comparable(spoilt("rate_limited"))) == len(swept)


def msgspec_replace(result: LevelResult, verdict: Verdict) -> LevelResult:
    level = msgspec.structs.replace(result.level, verdict=verdict)
    return LevelResult(result.load, level, result.trace, result.window, result.health)


def test_levels_are_judged_by_a_budget(swept: list[LevelResult]) -> None:
    inside = meets(swept, parse("tpot p95 < 11.5ms"))
    assert [r.load.value for r in swept if inside(r.level)] == [1, 2, 4, 8, 16]
    unknown = meets([virtual_measure("demo", output_tokens=1, duration_s=3.0)(Concurrency(2))], parse("tpot p95 < 1s"))
    assert not unknown(swept[1].level)


def test_a_rate_beyond_capacity_meets_nothing() -> None:
    measure = virtual_measure("demo", input_tokens=256, output_tokens=64, duration_s=20.0)
    result = measure(Rate(60.0))
    assert [reason.code for reason in result.level.verdict.reasons] == ["beyond_capacity"]
    assert not meets([result], parse("latency p95 < 1000s"))(result.level)


# --- the commands, on a stored run


class TestCommands:
    def test_find_from_sends_and_writes_nothing(self, stored_run: Path) -> None:
        before = {path.name: path.stat().st_mtime_ns for path in stored_run.iterdir()}
        done = inside("find", "--from", stored_run, "--budget", "ttft p95 < 2s")
        assert done.returncode == 0, done.stderr
        text = " ".join(done.stdout.split())
        assert "Doubtful (stored levels): concurrency" in text  # the level is suspect, and the first line says so
        assert "Measure next: concurrency" in text
        assert "nothing was sent or written" in text
        assert all(len(line) <= 80 for line in done.stdout.splitlines() if str(stored_run) not in line)
        assert {path.name: path.stat().st_mtime_ns for path in stored_run.iterdir()} == before

    def test_it_has_the_block_find(self, stored_run: Path) -> None:
        run = face.find(from_run=stored_run, budget="ttft p95 < 2s")
        found = run.summary.find
        assert isinstance(found, Find)
        assert run.summary.answer == found
        answer = known(found.answer)
        assert known(answer.low) <= known(answer.value)
        assert isinstance(following(found), Concurrency)
        best = known(run.summary.operating_points.within_budget).load
        assert all(known(x.ttft_ms.p50.value) < 2000 for x in run.levels if x.load == best)
        assert run.path == stored_run

    @pytest.mark.slow(shared=True)
    def test_report_takes_another_budget(self, stored_run: Path) -> None:
        again = face.report(stored_run, budget="ttft p95 < 2s")
        assert known(again.summary.operating_points.within_budget).load in [level.load for level in again.levels]
        assert all(level.goodput is not None for level in again.levels)
        assert again.summary.find is msgspec.UNSET
        assert face.load(stored_run).summary.operating_points == again.summary.operating_points

    @pytest.mark.parametrize(
        ("words", "parts"),
        [
            (["find", "--budget", "ttft p95 < 1s"], ["TARGET", "--from RUN"]),
            (["find", "--from", "no/such", "--budget", "ttft p95 < 1s"], ["no/such", "no run"]),
            (["find", "sim:demo", "--budget", "ttft p95 < 1s", "--max-requests", "0"], ["--max-requests 0"]),
            (["find", "sim:demo", "--budget", "ttft p95 < 1s", "--max-cost", "3"], ["--max-cost", "--price-per-hour"]),
            (["find", "sim:demo", "--budget", "ttft p95 < 1s", "--confirm", "--rate"], ["--confirm", "open loop"]),
        ],
    )
    def test_bad_input_is_one_line_and_exit_code_2(self, words: list[str], parts: list[str], tmp_path: Path) -> None:
        assert_refused(inside(*words, cwd=tmp_path), *parts)

    def test_one_place_to_find_it(self, stored_run: Path) -> None:
        with pytest.raises(BadInput, match="give one place"):
            face.find("sim:demo", from_run=stored_run, budget="ttft p95 < 1s")

    @pytest.mark.parametrize(
        "flag",
        [
            ("--input-tokens", "4096"), ("--model", "other"), ("--no-stream",), ("--most", "8"), ("--seed", "1"),
            ("--header", "a: b"), ("--max-requests", "9"), ("--live",),
        ],
    )  # fmt: skip
    def test_what_was_never_asked_of_it(self, stored_run: Path, flag: tuple[str, ...]) -> None:
        done = inside("find", "--from", stored_run, "--budget", "ttft p95 < 2s", *flag)
        assert_refused(done, flag[0].replace("--no-", "--"), "--from")

    def test_words_that_are_of_the_answer_may_stand_there(self, stored_run: Path) -> None:
        words = ("--within", "10%", "--within", "20%", "--out", stored_run.parent, "--max-duration", "5s", "--json")
        assert inside("find", "--from", stored_run, "--budget", "ttft p95 < 2s", *words).returncode == 0

    def test_what_was_never_asked_of_it_in_python(self, stored_run: Path) -> None:
        given: list[Any] = [{"headers": {"a": "b"}}, {"seed": 1}, {"most": 8}, {"allowance": face.Allowance(5.0)}]
        for words in given:
            with pytest.raises(BadInput, match=rf"{next(iter(words))} says how to measure .* leave it out"):
                face.find(from_run=stored_run, budget="ttft p95 < 2s", **words)

    def test_rates_that_were_never_measured(self, stored_run: Path) -> None:
        with pytest.raises(BadInput, match="no level at an open-loop rate"):
            face.find(from_run=stored_run, rate=True, budget="ttft p95 < 2s")
