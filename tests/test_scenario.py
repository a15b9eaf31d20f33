"""What was ordered: defaults, checks, and what of it is written down and read back."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest

from pacemark.budget import parse
from pacemark.endpoint.target import target
from pacemark.errors import BadInput
from pacemark.pace import Concurrency, Rate
from pacemark.runs.record import Learned, begun, read, written
from pacemark.scenario import Check, Goal, Grid, Levels, Search, Words, curve, one_level, ordered, steps
from pacemark.summary import Asked
from pacemark.workload.words import Prompts

URL = "http://127.0.0.1:9/v1"
GOLDEN = Path(__file__).parent / "golden" / "run" / "run.json"
GOALS: list[Goal] = [
    Levels((Concurrency(2), Rate(5.0, "gamma", 2.0)), 3),
    Grid(Concurrency(1), (Asked(16, 4), Asked(16, 8), Asked(64, 4), Asked(64, 8)), 2),
    Search("rate", "gamma", 3.0, within=0.1, most=64),
]


def order(**words: Any) -> Any:
    return ordered(URL, Check(), Words(**words))  # type: ignore[typeddict-item]


def test_what_is_not_said_has_a_default() -> None:
    made = order()
    assert (made.workload.input_tokens, made.workload.output_tokens) == (256, 128)
    settings = made.settings
    assert (settings.duration_s, settings.max_duration_s, settings.timeout_s) == (20.0, 120.0, 600.0)
    assert (settings.wait_s, settings.ignore_eos, settings.stall_timeout_s) == (0.0, True, None)
    assert settings.budget is None
    assert not settings.seed_given
    assert order().workload.seed != made.workload.seed


def test_what_is_said_counts() -> None:
    made = order(seed=0, budget="TTFT p95<0.5s", wait="2m", ignore_eos=False, stall_timeout=3, precision="5%")
    assert made.workload.seed == 0
    assert made.settings.seed_given
    assert made.settings.budget == parse("ttft p95 < 500ms")
    assert (made.settings.wait_s, made.settings.stall_timeout_s) == (120.0, 3.0)
    assert not made.settings.ignore_eos
    assert made.settings.precision == pytest.approx(0.05)
    assert made.settings.least_s == 0
    assert order(precision="5%", duration="9s").settings.least_s == 9


def test_numbers_of_numpy_are_numbers() -> None:
    words = Words(seed=np.int64(7), requests=np.int32(5), repeats=np.uint8(3))  # type: ignore[typeddict-item]
    goal = curve([np.int64(2)], None, "poisson", 1.0, words)  # type: ignore[list-item]
    made = ordered(URL, goal, words)
    assert goal == Levels((Concurrency(2),), 3)
    assert one_level(None, np.float32(2.5), "poisson", 1.0, Words()) == Levels((Rate(2.5),))  # type: ignore[arg-type]
    assert (type(made.workload.seed), made.workload.seed, made.settings.requests) == (int, 7, 5)


@pytest.mark.parametrize(("text", "seconds"), [(0, 0.0), (1.5, 1.5), ("120", 120.0), ("120s", 120.0), ("1500ms", 1.5)])
def test_how_long_to_wait(text: float | str, seconds: float) -> None:
    assert order(wait=text).settings.wait_s == pytest.approx(seconds)


@pytest.mark.parametrize(
    ("words", "part"),
    [
        ({"input_tokens": 0}, "--input-tokens 0: must be a whole number of at least 1"),
        ({"output_tokens": [1, 2]}, "--output-tokens [1, 2]: must be a whole number"),
        ({"wait": "soon"}, "--wait soon: give seconds"),
        ({"wait": -1}, "--wait -1"),
        ({"wait": float("inf")}, "--wait inf"),
        ({"wait": True}, "--wait True"),
        ({"stall_timeout": 0}, "--stall-timeout 0: must be a number above 0"),
        ({"workers": "many"}, "--workers 'many' is neither a number nor auto"),
        ({"workers": 10**6}, "--workers 1000000: this machine has CPUs for"),
        ({"budget": "ttft < 5"}, "in the budget"),
        ({"extra_body": [1]}, "must be a mapping"),
        ({"extra_body": {"a": object()}}, "cannot be written as JSON"),
        ({"extra_body": {"n": 2}}, "n = 2 asks for several answers"),
        ({"extra_body": {"n": "3"}}, "several answers"),
        ({"extra_body": {"model": "m"}}, "use --model"),
        ({"extra_body": {"stream": False}}, "--no-stream"),
        ({"extra_body": {"ignore_eos": False}}, "--no-ignore-eos"),
        *(({"extra_body": {name: []}}, "--input-tokens") for name in ("messages", "prompt", "input")),
        *(
            ({"extra_body": {name: 9}}, "--output-tokens")
            for name in ("max_tokens", "max_completion_tokens", "min_tokens", "max_output_tokens", "n_predict")
        ),
    ],
)
def test_what_cannot_work_is_refused_in_one_line(words: Any, part: str) -> None:
    with pytest.raises(BadInput) as refused:
        order(**words)
    assert part in str(refused.value)
    assert "\n" not in str(refused.value)


def test_other_fields_of_the_body_are_kept_as_json() -> None:
    made = order(extra_body={"temperature": 0.5, "n": 1, "stop": ("a",), "chat_template_kwargs": {"thinking": False}})
    assert made.workload.extra == {
        "temperature": 0.5, "n": 1, "stop": ["a"], "chat_template_kwargs": {"thinking": False},
    }  # fmt: skip


def test_the_levels_of_a_goal() -> None:
    assert list(steps(one_level(4, None, "poisson", 1.0, {"repeats": 2}))) == [(Concurrency(4), None)] * 2
    assert [load.value for load, _ in steps(curve(None, None, "poisson", 1.0, {}))] == [1, 2, 4, 8, 16, 32, 64]
    grid = curve([2], None, "poisson", 1.0, {"input_tokens": [64, 16, 64], "output_tokens": 8, "repeats": 2})
    assert list(steps(grid)) == [(Concurrency(2), Asked(16, 8)), (Concurrency(2), Asked(64, 8))] * 2
    assert list(steps(Search())) == []


def test_one_length_in_a_list_is_no_grid() -> None:
    words: Words = {"input_tokens": [64], "output_tokens": [8]}
    goal = curve([1, 2], None, "poisson", 1.0, words)
    assert isinstance(goal, Levels)
    assert ordered(URL, goal, words).workload.input_tokens == 64


@pytest.mark.parametrize("goal", GOALS, ids=lambda goal: type(goal).__name__)
@pytest.mark.parametrize("ended", [None, "completed", "interrupted", "failed"])
def test_a_record_is_read_as_it_was_written(goal: Goal, ended: Any) -> None:
    given: Words = {"seed": 3, "budget": "tpot p95 < 50ms", "extra_body": {"top_k": 3}, "profile": "dev"}
    if isinstance(goal, Grid):
        given |= {"input_tokens": [16, 64], "output_tokens": [4, 8]}
    place = target(URL, model="m", headers={"X-Key": "very secret"})
    record = begun(ordered(URL, goal, given), place, ["pacemark", "run", "very secret"], {"name": "e"})
    learned = Learned(Prompts(7, 3, "usage", 1.2, 10.0), {"stream": True}, 0.5)
    failure = "it did" if ended == "failed" else None
    for known in (None, learned):
        now = msgspec.structs.replace(record, learned=known, ended=ended, failure=failure)
        text = json.dumps(written(now))
        assert "very secret" not in text
        assert read(json.loads(text)) == now


def test_a_record_of_version_0_1_0_is_read() -> None:
    before = json.loads(GOLDEN.read_text())
    record = read(before)
    assert record.scenario.goal == Levels(tuple(Concurrency(n) for n in (1, 2, 4, 8)))
    assert record.scenario.settings.budget == parse("ttft p95 < 500ms, tpot p95 < 50ms")
    assert record.scenario.access.model == "demo-8b"
    assert record.ended == "completed"
    assert record.learned is not None
    again = written(record)
    for name in before.keys() - {"settings", "workload"}:
        assert again[name] == before[name], name
    for name in ("settings", "workload"):
        assert again[name].keys() >= before[name].keys()
        for inner, value in before[name].items():
            kept = again[name][inner]
            assert kept.items() >= value.items() if isinstance(value, dict) else kept == value


def test_what_a_record_of_before_leaves_unsaid() -> None:
    before = json.loads(GOLDEN.read_text())
    killed = read({k: v for k, v in before.items() if k not in ("interrupted", "failure")})
    assert killed.ended is None
    assert read(before | {"interrupted": True}).ended == "interrupted"
    assert read(before | {"failure": "not one request was answered"}).ended == "failed"
    assert isinstance(read(before | {"loads": []}).scenario.goal, Search)
    cells = [{"input_tokens": n, "output_tokens": 8} for n in (16, 64)]
    lengths = before["workload"] | {"input_tokens": [16, 64], "output_tokens": [8]}
    grid = read(before | {"grid": cells, "workload": lengths, "loads": before["loads"][:1] * 4, "repeats": 2})
    assert grid.scenario.goal == Grid(Concurrency(1), (Asked(16, 8), Asked(64, 8)), 2)
    assert grid.scenario.workload.input_tokens == 64


@pytest.mark.parametrize("broken", [{}, {"settings": 3}, {"loads": [{"kind": "odd"}]}])
def test_a_record_that_is_none_is_refused(broken: Any) -> None:
    stored = (json.loads(GOLDEN.read_text()) | broken) if broken else {}
    with pytest.raises(BadInput, match=r"run\.json is not of a schema"):
        read(stored)
