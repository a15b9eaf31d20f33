"""The reasons of a run's verdicts, a line each."""

from typing import Any

import msgspec
import pytest

from pacemark.figures.remedy import keep_up, longer
from pacemark.pace import Concurrency, Load, Rate
from pacemark.reporting.reasons import loads_of, main_reason, run_reasons
from pacemark.runs.simulated import virtual_measure
from pacemark.summary import Basis, Client, Distribution, Figure, Level, Reason, Requests, Summary, Verdict
from support import samples
from support.sampled import first


def level(load: Load, *codes: str, status: Any = "suspect", **fields: Any) -> Level:
    plain = samples.level(load, tokens_per_s=100, ttft_ms=(10, 20), tpot_ms=(5, 6), latency_ms=(900, 1000))
    verdict = Verdict(status if codes else "valid", [Reason(code, f"{code} in full") for code in codes])
    return msgspec.structs.replace(plain, verdict=verdict, **fields)


def of(*levels: Level) -> list[str]:
    return run_reasons(Summary(target={}, workload={}, levels=list(levels)))


LACKING = {
    "requests": Requests(40, 0, 40),
    "window_s": 10.0,
    "ttft_ms": Distribution(p50=Figure(10, 9, 11), p95=Figure(20, 19, None)),
    "basis": {"ttft_ms": Basis(n=40, note="p95: about 40 more requests needed")},
}


def test_a_reason_of_several_levels_is_one_line_and_names_quantile_and_remedy() -> None:
    levels = [level(Concurrency(n), "no_interval", status="valid", **LACKING) for n in (1, 2, 4)]
    said = of(*levels, level(Concurrency(8)))
    assert said == ["concurrency 1 to 4: too few requests for an interval of p95 of TTFT; --duration 25s would do"]


def test_doubts_stand_before_notes_and_what_is_unknown_is_told_in_full() -> None:
    said = of(level(Concurrency(1), "no_interval", "new_code", **LACKING), level(Concurrency(2)))
    assert [line.partition(":")[2].strip().split(" ")[0] for line in said] == ["new_code", "too"]
    assert said[0] == "concurrency 1: new_code in full"


def test_more_than_four_reasons_are_counted() -> None:
    codes = [f"odd_{n}" for n in range(8)]
    said = of(level(Concurrency(1), *codes))
    assert len(said) == 4
    assert said[-1].startswith("and 5 more reasons: see the report")


def test_loads_are_named_together() -> None:
    levels = [level(Concurrency(n)) for n in (1, 2, 4, 8, 16)]
    assert loads_of(levels, levels) == "all levels"
    assert loads_of(levels[1:4], levels) == "concurrency 2 to 8"
    assert loads_of([levels[0], levels[2]], levels) == "concurrency 1, 4"
    assert loads_of(levels[:1], levels) == "concurrency 1"
    rates = [level(Rate(n)) for n in (1, 2, 3, 4)]
    assert loads_of(rates[:3], rates) == "1 to 3 requests/s"


@pytest.mark.parametrize(("idle", "remedy"), [(0.0, "a machine with free cores"), (0.6, "use more --workers")])
def test_nobody_is_told_to_use_more_workers_where_no_core_is_idle(idle: float, remedy: str) -> None:
    client = Client(clock="kernel", idle_share=idle)
    (said,) = of(level(Concurrency(1), "client_lag", client=client))
    assert remedy in said
    assert remedy in keep_up(idle)


def test_the_main_reason_is_no_note() -> None:
    assert main_reason(level(Concurrency(1), "no_interval", "unsteady")).startswith("the token rate had not settled")
    assert main_reason(level(Concurrency(1))) == ""


def test_a_search_is_not_told_of_a_duration_that_it_does_not_take() -> None:
    find = samples.found().find
    few = level(Concurrency(1), "few_requests", requests=Requests(5, 0, 5))
    summary = Summary(target={}, workload={}, levels=[few, level(Concurrency(2), "no_interval", **LACKING)], find=find)
    assert run_reasons(summary) == ["concurrency 1: only 5 requests"]


@pytest.mark.parametrize("streams", first(1, [8, 2, 32]))
def test_the_duration_that_is_said_to_do_does(streams: int) -> None:
    """In virtual time, from ten seeds: most levels of the time that was named have all their intervals."""
    done = 0
    for seed in range(10):
        first = virtual_measure("demo", duration_s=4.0, seed=seed)(Concurrency(streams)).level
        flag, _, named = longer([first]).partition(" ")
        assert flag == "--duration"
        seconds = float(named[:-1]) * (60 if named.endswith("m") else 1)
        again = virtual_measure("demo", duration_s=seconds, seed=seed + 100)(Concurrency(streams)).level
        done += not {"no_interval", "few_requests"} & {reason.code for reason in again.verdict.reasons}
    assert done >= 8
