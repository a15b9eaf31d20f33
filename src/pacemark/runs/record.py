"""What `run.json` says: the order, and what was found out since. All that is needed to repeat a run and to judge its
host; nothing secret."""

from __future__ import annotations

import datetime
import platform
import shlex
import sys
import time
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from typing import Any, Literal

import msgspec

from pacemark.answers.allowance import Allowance
from pacemark.budget import parse as parse_budget
from pacemark.cpu import cpus
from pacemark.endpoint.target import Target
from pacemark.errors import BadInput
from pacemark.nodes import NodeFacts
from pacemark.pace import Load
from pacemark.scenario import Access, Goal, Grid, Levels, Scenario, Search, Settings, Workload
from pacemark.summary import Asked
from pacemark.version import __version__
from pacemark.workload.row import FileFound
from pacemark.workload.words import Prompts

__all__ = ["Learned", "Resumed", "RunRecord", "begun", "gone_on", "read", "written"]

SCHEMA = "pacemark/run/1"
_PACKAGES = ("numpy", "scipy", "uvloop", "httptools", "msgspec")


class Learned(msgspec.Struct, frozen=True):
    """What the first requests told."""

    prompts: Prompts
    options: dict[str, Any]
    """What the server accepts, as its dialect keeps it."""
    known_prompts: float | None
    """See `pacemark.figures.evidence.Evidence`."""


class Resumed(msgspec.Struct, frozen=True):
    """That a run was gone on with after it had been cut off."""

    at: str
    """UTC, as ISO 8601."""
    level: int
    """Which of the levels, from 0, was the first to be measured then."""


class RunRecord(msgspec.Struct, frozen=True, kw_only=True):
    """A run as it stands. It is replaced, never changed."""

    scenario: Scenario
    target: dict[str, str]
    """What may be shown of the endpoint."""
    command: str = ""
    started: str = ""
    """UTC, as ISO 8601."""
    began: tuple[int, int] | None = None
    """The same moment on the monotonic and the wall clock, in ns: what joins a run to tables of its service."""
    header_names: list[str] = []
    host: dict[str, Any] = {}
    versions: dict[str, str] = {}
    endpoint: dict[str, Any] | None = None
    """What its workspace says of it, where it is in one."""
    learned: Learned | None = None
    ended: Literal["completed", "interrupted", "failed"] | None = None
    """How the run ended; None while it runs, and for ever where it was killed."""
    failure: str | None = None
    """What it failed of."""
    stopped: str | None = None
    """Which rule of the user's ended it before its last level, if one did."""
    labels: dict[str, str] = {}
    """What the user wants remembered, such as gpu: h100."""
    file: FileFound | None = None
    """What its file turned out to be, where requests are the rows of one."""
    allowance: Allowance | None = None
    """What it may spend."""
    resumed: list[Resumed] = []
    nodes: list[NodeFacts] = []
    """The machines that carried the load, where it was not this one alone."""

    @property
    def ahead_ns(self) -> int:
        """The time of day at zero of the monotonic clock; 0 where that is not known."""
        begun_ns, at_ns = self.began or (0, 0)
        return at_ns - begun_ns


def begun(
    scenario: Scenario,
    place: Target,
    command: Sequence[str],
    endpoint: dict[str, Any] | None,
    labels: Mapping[str, str] | None = None,
) -> RunRecord:
    """The record of a run that begins now, on this machine."""
    return RunRecord(
        scenario=msgspec.structs.replace(scenario, target=place.redacted(scenario.target)),
        target=place.described(),
        command=shlex.join(place.redacted(word) for word in command),
        started=datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        began=(time.monotonic_ns(), time.time_ns()),
        header_names=sorted(place.headers),
        host={
            "system": platform.platform(),
            "python": platform.python_version(),
            "cpus": cpus(),
            "implementation": sys.implementation.name,
        },
        versions={"pacemark": __version__} | {name: version(name) for name in _PACKAGES},
        endpoint=endpoint,
        labels={place.redacted(name): place.redacted(value) for name, value in (labels or {}).items()},
    )


def gone_on(record: RunRecord, level: int) -> RunRecord:
    """The record of a run that goes on now, with its level number `level`."""
    now = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
    return msgspec.structs.replace(
        record, ended=None, failure=None, stopped=None, resumed=[*record.resumed, Resumed(now, level)]
    )


def written(record: RunRecord) -> dict[str, Any]:
    """The record as `run.json` holds it."""
    order, goal, learned = record.scenario, record.scenario.goal, record.learned
    workload = msgspec.to_builtins(order.workload)
    more: dict[str, Any] = {}
    if isinstance(goal, Grid):
        workload |= {name: sorted({getattr(cell, name) for cell in goal.cells}) for name in Asked.__struct_fields__}
        more["grid"] = msgspec.to_builtins(list(goal.cells))
    if isinstance(goal, Search):
        more["search"] = {k: v for k, v in msgspec.to_builtins(goal).items() if k != "goal"}
    for name in ("labels", "allowance", "file", "resumed", "nodes"):
        if value := getattr(record, name):
            more[name] = msgspec.to_builtins(value)
    if record.stopped is not None:
        more["stopped"] = record.stopped
    if record.endpoint is not None:
        more["endpoint"] = record.endpoint
    if record.ended is not None:
        more |= {"ended": record.ended, "interrupted": record.ended == "interrupted", "failure": record.failure}
    return {
        "schema": SCHEMA,
        "command": record.command,
        "started": record.started,
        **({"began": list(record.began)} if record.began else {}),
        "target": record.target,
        "header_names": record.header_names,
        "goal": msgspec.to_builtins(goal)["goal"],
        "workload": workload | (msgspec.to_builtins(learned) if learned is not None else {}),
        "settings": _settings(order.settings),
        "access": {"target": order.target} | msgspec.to_builtins(order.access),
        "loads": msgspec.to_builtins(order.loads),
        "repeats": getattr(goal, "repeats", 1),
        "host": record.host,
        "versions": record.versions,
        **more,
    }


def _settings(settings: Settings) -> dict[str, Any]:
    text = "" if settings.budget is None else str(settings.budget)
    plain: dict[str, Any] = msgspec.to_builtins(msgspec.structs.replace(settings, budget=None))
    here = () if settings.nodes else ("nodes", "ray")  # nobody needs to read of what was not used
    return {name: value for name, value in plain.items() if name not in here} | {"budget": text}


def read(stored: Mapping[str, Any]) -> RunRecord:
    """The record that `run.json` holds, also as version 0.1.0 wrote it. Raises BadInput where it is none."""
    try:
        return _read(stored)
    except (msgspec.ValidationError, KeyError, TypeError, ValueError) as error:
        raise BadInput(f"run.json is not of a schema this version reads: {error}") from None


def _read(stored: Mapping[str, Any]) -> RunRecord:
    goal, workload, access = _goal(stored), dict(stored["workload"]), dict(stored.get("access", {}))
    if isinstance(goal, Grid):
        workload |= msgspec.to_builtins(goal.cells[-1])
    settings = dict(stored["settings"])
    budget = parse_budget(text) if (text := settings.pop("budget", "")) else None
    shown = stored["target"]
    return msgspec.convert(
        {name: stored[name] for name in RunRecord.__struct_fields__ if name in stored and name != "failure"}
        | {
            "scenario": Scenario(
                access.pop("target", shown["url"]),
                goal,
                msgspec.convert(workload, Workload),
                msgspec.structs.replace(msgspec.convert(settings, Settings), budget=budget),
                msgspec.convert(access or {"model": shown["model"], "api": shown["api"]}, Access),
            ),
            "learned": msgspec.convert(workload, Learned) if "prompts" in workload else None,
            "ended": _ended(stored),
            "failure": stored.get("failure"),
        },
        RunRecord,
    )


def _goal(stored: Mapping[str, Any]) -> Goal:
    """What the run was to find out; version 0.1.0 did not say, but a search of its had no loads of its own."""
    loads = msgspec.convert(stored["loads"], tuple[Load, ...])
    repeats: int = stored.get("repeats", 1)
    if stored.get("grid"):
        return Grid(loads[0], msgspec.convert(stored["grid"], tuple[Asked, ...]), repeats)
    if stored.get("goal") == "search" or not loads:
        return msgspec.convert(stored.get("search", {}) | {"goal": "search"}, Search)
    return Levels(loads[: len(loads) // max(1, repeats)], repeats)


def _ended(stored: Mapping[str, Any]) -> str | None:
    if "interrupted" not in stored:
        return None
    return "interrupted" if stored["interrupted"] else "failed" if stored.get("failure") else "completed"
