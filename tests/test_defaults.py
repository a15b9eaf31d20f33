"""What is not said means the same on the command line and in Python."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

import msgspec
import pytest

from pacemark import api, cli
from pacemark.answers.allowance import SEARCH_S
from pacemark.api import Options
from pacemark.commands.compare import compare_command
from pacemark.flags import options_of
from pacemark.pace import Concurrency
from pacemark.runs.against import LONGEST_S
from pacemark.scenario import CHECK, DEMO, SEARCH, Check, Goal, Levels, Scenario, Search, Words, ordered
from pacemark.values import lasting, share


def said(command: Callable[..., None]) -> dict[str, Any]:
    """The flags of a command by their names, with their defaults."""
    parameters = inspect.signature(command).parameters.values()
    return {p.name: p.default for p in parameters if p.default is not inspect.Parameter.empty}


def order(goal: Goal, words: Words) -> Scenario:
    """The order, whatever seed was drawn for it."""
    made = ordered("http://127.0.0.1:1/v1", goal, words)
    return msgspec.structs.replace(made, workload=msgspec.structs.replace(made.workload, seed=0))


_FLAGS = {*Options.__annotations__, "header", "label"}
ONE = Levels((Concurrency(1),))
COMMANDS: list[tuple[Callable[..., None], Goal, Words]] = [
    (cli.run_command, ONE, {}),
    (cli.sweep_command, ONE, {}),
    (cli.demo_command, ONE, DEMO),
    (cli.check_command, Check(), CHECK),
    (cli.find_command, Search(), SEARCH),
]
"""A command, a goal of its kind, and the words that its function in Python starts from."""


@pytest.mark.parametrize(("command", "goal", "words"), COMMANDS, ids=lambda x: getattr(x, "__name__", ""))
def test_the_options_that_are_left_out_are_the_same(command: Callable[..., None], goal: Goal, words: Words) -> None:
    flags = {name: value for name, value in said(command).items() if name in _FLAGS}
    if command is cli.find_command:
        flags.pop("max_duration")  # of the whole search there: below
    assert len(flags) > 2
    given: Any = {**words, **options_of(flags)}
    assert order(goal, given) == order(goal, words)


@pytest.mark.parametrize(
    ("command", "function"),
    [
        (cli.run_command, api.run),
        (cli.sweep_command, api.sweep),
        (cli.find_command, api.find),
        (cli.plan_command, api.plan),
        (cli.report_command, api.report),
        (compare_command, api.compare),
        (cli.serve_command, api.serve),
    ],
    ids=lambda x: x.__name__,
)
def test_the_parameters_that_are_left_out_are_the_same(command: Callable[..., None], function: Any) -> None:
    parameters = inspect.signature(function).parameters.values()
    defaults = {p.name: p.default for p in parameters if p.default is not inspect.Parameter.empty}
    flags = said(command)
    both = defaults.keys() & flags.keys()
    assert both
    for name in both:
        flag, default = flags[name], defaults[name]
        if name == "within":
            flag = share("--within", flag)
        assert (flag or None) == (default or None), name


def test_the_longest_times_are_the_same() -> None:
    assert lasting("--max-duration", said(cli.find_command)["max_duration"]) == SEARCH_S
    assert lasting("--max-duration", said(compare_command)["max_duration"]) == LONGEST_S
