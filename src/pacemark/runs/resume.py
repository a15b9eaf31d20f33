"""A run that was cut off, gone on with: what had finished stands, and what is left is measured into the same folder."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TypedDict

import msgspec

from pacemark.answers.step import Step
from pacemark.endpoint.target import Target
from pacemark.errors import BadInput
from pacemark.files import legible
from pacemark.machine import room_for
from pacemark.pace import Concurrency, Rate
from pacemark.reporting.observing import observing
from pacemark.reporting.progress import Status, told
from pacemark.runs.bench import Bench
from pacemark.runs.conclude import concluded, found_before, summed_up
from pacemark.runs.conduct import Notices, Options, carried_out, driven, endpoint_opened, rest_of, search_on
from pacemark.runs.folder import RunFolder, StoredLevel
from pacemark.runs.record import RunRecord, gone_on, read, written
from pacemark.runs.recording import rows_of
from pacemark.runs.run import Run
from pacemark.runs.trouble import away_share
from pacemark.scenario import Grid, Levels, Scenario, Search, steps
from pacemark.values import seconds

__all__ = ["Anew", "resumed"]


class Anew(TypedDict, total=False):
    """What a run does not remember, and may be given again."""

    target: str
    """Its URL, where that held a secret."""
    headers: Sequence[str] | Mapping[str, str]
    wait: float | str
    observe: Callable[[Status], None]


def resumed(path: Path, anew: Anew, tell: Callable[[Step], None]) -> Run:
    """Measure what is left of the run in `path`. One with nothing left is given as it is, and nothing is sent.

    Levels that had ended are summed up from their requests. The level that was cut off is measured anew, with prompts
    that were not sent before; what there was of it stays in `run.db`, set aside. The same goes for a level for most of
    which the endpoint was away, and for those after it. Raises BadInput, also where another process writes the run, and
    RunFailed.
    """
    if "observe" not in anew:
        with observing() as observe:
            return resumed(path, {**anew, "observe": observe}, tell)
    with contextlib.closing(RunFolder.again(path)) as folder:
        record = read(folder.run())
        goal, observe = record.scenario.goal, anew["observe"]
        _refuse(folder, record)
        begun = folder.levels()
        whole = _done(begun, record)
        done = _while_there(folder, whole, observe)
        ended = record.ended == "completed" or (not isinstance(goal, Search) and len(done) >= len(steps(goal)))
        if ended and done == whole:
            observe(told(f"{folder.path}: nothing is left to measure"))
            return _as_it_is(folder, record)
        observe(told(f"{folder.path}: {_stands(record, done)}; going on"))
        said, options = Notices(), Options(headers=anew.get("headers", ()))

        def body(bench: Bench, folder: RunFolder, record: RunRecord) -> Run:
            for level in begun[len(done) :]:
                folder.set_aside(level.level)
            learned = record.learned
            results = summed_up(folder, record)
            bench.go_on(results, folder.last_number(), learned.known_prompts if learned else bench.known_prompts)
            folder.begin_session()
            record = gone_on(record, len(done))
            folder.write_run(written(record))
            if isinstance(goal, Search):
                return search_on(bench, folder, record, goal, tell)
            bench.teller.levels = len(steps(goal))
            rest = rest_of(goal, len(done))
            return driven(bench, folder, record, lambda: rest(bench))

        rows = rows_of(record.scenario, None)
        with endpoint_opened(_order(record, anew), options, said, observe) as at:
            _refuse_without_headers(record, at[0])
            return carried_out(at, folder, record, said, observe, body, options, rows)


def _refuse(folder: RunFolder, record: RunRecord) -> None:
    """Raises BadInput for a run that cannot be gone on with."""
    if record.command.split()[1:2] == ["compare"]:
        raise BadInput(f"{folder.path} was measured for a gate, as long as that needed: repeat `{record.command}`")
    if not isinstance(record.scenario.goal, (Levels, Grid, Search)):
        raise BadInput(f"{folder.path} is of a kind that ends by itself: repeat the command")


def _done(begun: Sequence[StoredLevel], record: RunRecord) -> list[StoredLevel]:
    """The levels that stand. Of a search also those that gave no result, which told it where to look next: the last
    that was begun may have been cut off instead."""
    if isinstance(record.scenario.goal, Search):
        cut = bool(begun) and begun[-1].ended_by == "interrupted"
        return list(begun[: len(begun) - cut])
    until = next((n for n, level in enumerate(begun) if level.ended_by == "interrupted"), len(begun))
    return list(begun[:until])


def _while_there(
    folder: RunFolder, ended: Sequence[StoredLevel], observe: Callable[[Status], None]
) -> list[StoredLevel]:
    """The levels before the first for most of whose time the endpoint was away; which that is, is said."""
    with legible(folder.path / "run.db"):
        for n, level in enumerate(ended):
            trace = folder.trace(level.level, open_loop=isinstance(level.load, Rate))
            if (share := away_share(trace, level.window)) > 0.5:
                after = ", and what followed," if n + 1 < len(ended) else ""
                observe(told(f"the endpoint was away for {share:.0%} of {level.load}: it{after} is measured again"))
                return list(ended[:n])
    return list(ended)


def _stands(record: RunRecord, done: Sequence[StoredLevel]) -> str:
    planned = len(steps(record.scenario.goal))
    return f"{len(done)} {f'of {planned} ' if planned else ''}levels measured before"


def _as_it_is(folder: RunFolder, record: RunRecord) -> Run:
    """A run with nothing left. One that was killed before its summary has it written now."""
    if record.ended == "completed":
        with contextlib.suppress(BadInput):
            return Run(folder.summary(), folder.path)
    record = msgspec.structs.replace(record, ended="completed", failure=None)
    budget = record.scenario.settings.budget
    find = found_before(folder, budget) if budget is not None else None
    return concluded(folder, summed_up(folder, record), record, find)


def _order(record: RunRecord, anew: Anew) -> Scenario:
    """The order as it was, by the model that was found then. Raises BadInput where its URL is not known whole."""
    order = record.scenario
    target = anew.get("target") or order.target
    if "***" in target:
        raise BadInput(f"the URL {target} held a secret, which is not stored: give it again with --target")
    access = order.access
    if not target.startswith(("sim:", "databricks:")):
        access = msgspec.structs.replace(access, model=record.target.get("model") or access.model)
    settings = order.settings
    if wait := anew.get("wait"):
        settings = msgspec.structs.replace(settings, wait_s=seconds("--wait", wait))
    # What an earlier part of the run sent is known to the server; that says nothing of other runs.
    settings = msgspec.structs.replace(settings, seed_given=False)
    streams = max((load.value for load in order.loads if isinstance(load, Concurrency)), default=0)
    if streams and not settings.nodes:
        room_for(streams, target, settings.workers)
    return msgspec.structs.replace(order, target=target, access=access, settings=settings)


def _refuse_without_headers(record: RunRecord, place: Target) -> None:
    """Raises BadInput where the run sent a header that is not given now: values are not stored."""
    given = {name.lower() for name in place.headers}
    for name in record.header_names:
        if name.lower() not in given:
            key = " (or its key in PACEMARK_API_KEY)" if name.lower() == "authorization" else ""
            raise BadInput(f"the run sent the header {name}, whose value is not stored: give --header{key} again")
