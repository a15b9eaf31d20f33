"""From a run folder to what people see: levels summed up, a summary, a report. Nothing is sent here."""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import msgspec

from pacemark.answers.confirmation import confirmed
from pacemark.answers.curve import operating_points
from pacemark.answers.fit import fits
from pacemark.answers.held import Answered, answer_of, marked
from pacemark.answers.lengths import slopes
from pacemark.answers.planning import Demand, Plan, plan_for
from pacemark.answers.sizes import Size, sold_in
from pacemark.answers.stored import find_from
from pacemark.answers.weighing import comparable
from pacemark.budget import Budget
from pacemark.budget import parse as parse_budget
from pacemark.endpoint.watch import watch_from
from pacemark.errors import BadInput, RunFailed
from pacemark.figures.health import health_of
from pacemark.figures.level import LevelResult, sum_up
from pacemark.figures.picture import LevelPicture, pictured
from pacemark.figures.pooling import pooled
from pacemark.files import legible
from pacemark.pace import Concurrency, Load, Rate
from pacemark.reporting import warmup
from pacemark.runs.folder import RunFolder
from pacemark.runs.record import RunRecord, read, written
from pacemark.runs.run import Run
from pacemark.runs.serverside import server_run, with_server
from pacemark.runs.timeline import timeline_of
from pacemark.scenario import Grid, Search
from pacemark.summary import Asked, Find, Fits, Level, OperatingPoints, Summary
from pacemark.trace import Trace, Window

__all__ = ["anew", "answered", "concluded", "found_before", "planned", "summed_up"]


# --- what a stored run gives


def anew(path: Path, budget: Budget | None) -> Run:
    """Summary and report of a stored run from its requests, with another `budget` where one is given.

    Raises BadInput where there are none.
    """
    with contextlib.closing(RunFolder.open(path)) as folder:
        warmup.start()
        before = read(folder.run())
        record = _for_budget(before, budget)
        results = stored(folder, record)
        find: Find | None = None
        limits = record.scenario.settings.budget
        if isinstance(record.scenario.goal, Search) and limits is not None:
            find = found_before(folder, limits) or find_from(comparable(results), limits)
        return concluded(folder, results, record, find)


def answered(path: Path, budget: Budget, goal: Search) -> Run:
    """A search in the levels of a stored run. Nothing is written. Raises BadInput where it holds no such levels."""
    with contextlib.closing(RunFolder.open(path)) as folder:
        record = _for_budget(read(folder.run()), budget)
        _refuse_grid(folder, record)
        results = comparable(stored(folder, record), rate=goal.load == "rate")
        _refuse_arrivals(goal, results[0].load)
        found = find_from(results, budget, precision=goal.within)
        if before := found_before(folder, budget, found.load):  # one answer to one budget: that of the search itself
            found = (
                before if before.resolved else msgspec.structs.replace(before, next=found.next, next_why=found.next_why)
            )
        return Run(summary_of(results, record, found), folder.path)


def _refuse_arrivals(goal: Search, load: Load) -> None:
    """Raises BadInput where the arrivals that were asked for are not those of the run."""
    if not isinstance(load, Rate) or goal.arrivals == "poisson":  # which nobody need have asked for
        return
    if goal.arrivals != load.arrivals or (goal.arrivals == "gamma" and goal.burstiness != load.burstiness):
        measured = f"{load.arrivals} arrivals (CV {load.burstiness:g})"
        raise BadInput(f"--arrivals {goal.arrivals}: the rates of the run were measured with {measured}")


def planned(
    path: Path, demand: Demand, budget: Budget | None, *, burstiness: float, price: float | None, size: Size | None
) -> Plan:
    """Replicas like the one that a run measured; without `budget` that of the run counts. Raises BadInput."""
    with contextlib.closing(RunFolder.open(path)) as folder:
        record = read(folder.run())
        _refuse_grid(folder, record)
        limits = budget or record.scenario.settings.budget
        if limits is None:
            raise BadInput("plan needs a budget: for example --budget 'ttft p95 < 500ms, tpot p95 < 50ms'")
        results = stored(folder, record)
        before = found_before(folder, limits)
    sold = sold_in(record.endpoint) if record.endpoint or size else None
    sold = msgspec.structs.replace(sold, size=size) if sold and size else sold
    return plan_for(results, demand, limits, burstiness=burstiness, price_per_hour=price, sold=sold, find=before)


def _for_budget(record: RunRecord, budget: Budget | None) -> RunRecord:
    """The record with another budget, where one is given."""
    if budget is None:
        return record
    settings = msgspec.structs.replace(record.scenario.settings, budget=budget)
    return msgspec.structs.replace(record, scenario=msgspec.structs.replace(record.scenario, settings=settings))


def found_before(folder: RunFolder, budget: Budget, kind: str | None = None) -> Find | None:
    """What a search for this budget found, if it came to its end."""
    with contextlib.suppress(BadInput):
        found = folder.summary().find or None
        if found is not None and found.budget == str(budget) and kind in (None, found.load):
            return found
    return None


def _refuse_grid(folder: RunFolder, record: RunRecord) -> None:
    """Levels of different lengths must not be pooled for one answer."""
    if isinstance(record.scenario.goal, Grid):
        raise BadInput(f"{folder.path} is a length grid: it has one load, so there is none to choose")


def stored(folder: RunFolder, record: RunRecord) -> list[LevelResult]:
    """The levels of a stored run, summed up anew. Raises BadInput where there are none."""
    if results := summed_up(folder, record):
        return results
    raise BadInput(f"{folder.path} holds no level: the run was cut off before its first request")


def summed_up(folder: RunFolder, record: RunRecord) -> list[LevelResult]:
    """The levels of a stored run, if there are any. Raises BadInput where they are not what was stored."""
    with legible(folder.path / "run.db"):
        return _summed_up(folder, record)


def _summed_up(folder: RunFolder, record: RunRecord) -> list[LevelResult]:
    results = []
    settings, learned = record.scenario.settings, record.learned
    sights = [(session, session.sights()) for session in folder.sessions()]
    workload = record.scenario.workload
    known = frozenset(range(workload.prefix_groups)) if workload.prime else frozenset[int]()
    alike = not (isinstance(record.scenario.goal, Grid) or workload.recording)
    for level, load, window, ended_by, died in folder.levels():
        trace = replace(folder.trace(level, open_loop=isinstance(load, Rate)), known_origins=known)
        known = trace.origins()
        seen = next((looks for session, looks in sights if level in session), [])
        if record.ended is None and ended_by == "interrupted":  # killed, perhaps before the window's planned end
            until_ns = _known_until(trace, settings.workers * max(1, settings.nodes))
            window = Window(window.start_ns, min(window.end_ns, until_ns))
        results.append(
            sum_up(
                load,
                trace,
                window,
                health_of(trace, folder.beats(level), died, folder.parts(level)),
                budget=settings.budget,
                ended_by=ended_by,
                watch=watch_from(trace.refusals, seen),
                known_prompts=learned.known_prompts if learned else None,
                asked_input=workload.input.mean if alike else None,
                template_tokens=learned.prompts.counted_overhead if learned else None,
                max_in_flight=settings.max_in_flight,
            )
        )
    return results


def _known_until(trace: Trace, workers: int) -> int:
    """Up to when a level that was cut off is on record whole; what was in flight at its end is not on record.

    Each worker numbers its requests in the order it sends them, so the first number that is missing was sent no
    sooner than the one before it.
    """
    sent_ns: dict[int, int] = dict(zip(trace.index.tolist(), trace.sent_ns.tolist(), strict=True))
    numbers = range(min(workers, len(sent_ns) + 1))  # of more workers than requests one has none
    missing = (next(n for n in itertools.count(worker, workers) if n not in sent_ns) for worker in numbers)
    return min(sent_ns.get(n - workers, 0) for n in missing)


# --- writing it up


def concluded(
    folder: RunFolder,
    results: Sequence[LevelResult],
    record: RunRecord,
    find: Find | None = None,
    tell: Callable[[str], None] | None = None,
) -> Run:
    """Write what people see of a run: first what no figure can be lost with, then the page. Raises RunFailed where that
    cannot be drawn, or hands what there is to say of it to `tell`."""
    from pacemark.reporting.html import write_html

    summary = summary_of(with_server(results, folder), record, find)
    timeline, server = timeline_of(results, folder), server_run(folder)
    summary = msgspec.structs.replace(summary, timeline=timeline, server=server)
    folder.write_run(written(record))
    folder.write_summary(summary)
    try:
        write_html(summary, folder.path / "report.html", _pictures(results, record))
    except RunFailed as problem:
        if tell is None:
            raise
        tell(str(problem))
    return Run(summary, folder.path)


def _pictures(results: Sequence[LevelResult], record: RunRecord) -> list[LevelPicture]:
    """What can be drawn of each load, or of each cell of a grid; of one measured several times, the last."""
    cells = record.scenario.goal.cells if isinstance(record.scenario.goal, Grid) else ()
    names = [str(cells[n % len(cells)] if cells else result.load) for n, result in enumerate(results)]
    last = {name: result for name, result in zip(names, results, strict=True) if result.window.seconds > 0}
    return [pictured(result, name) for name, result in last.items()]


def summary_of(results: Sequence[LevelResult], record: RunRecord, find: Find | None) -> Summary:
    """A run as its summary; `find` is the result of a search for a budget.

    What was measured in the open loop to confirm a search in the closed one is part of `find`, and no level.
    """
    if find is not None and find.load == "concurrency":
        untried = [tried for tried in find.confirmations if tried.level is None]
        find = msgspec.structs.replace(find, confirmations=confirmed(results, parse_budget(find.budget)) + untried)
        results = [r for r in results if isinstance(r.load, Concurrency)]
    budget = record.scenario.settings.budget
    is_grid = isinstance(record.scenario.goal, Grid)
    said_of = Answered() if budget is None or is_grid else answer_of(results, budget, find=find)
    levels = [_marked(level, said_of) for level in _levels(results, record, find)]
    points, laws = OperatingPoints(), Fits()
    if not is_grid:  # a grid has one load, so there is none to choose
        laws = fits(levels)
        if find is not None and find.answer is not None and find.answer.high is not None:
            laws = msgspec.structs.replace(laws, warning=None)  # a search went as far as its budget
        points = operating_points(
            levels, lambda level: level.load == said_of.chosen, laws.scalability.knee if laws.scalability else None
        )
    said = written(record)
    return Summary(
        target=said.pop("target"),
        workload=said.pop("workload"),
        levels=levels,
        operating_points=points,
        fits=laws,
        run=said,
        find=msgspec.UNSET if find is None else find,
        slopes=slopes(levels) if is_grid else msgspec.UNSET,
        answer=said_of.find or msgspec.UNSET,
    )


def _marked(level: Level, answered: Answered) -> Level:
    """The level with what it says of the budget."""
    held = answered.held.get(level.load)
    return level if held is None else msgspec.structs.replace(level, budget=held)


def _levels(results: Sequence[LevelResult], record: RunRecord, find: Find | None) -> list[Level]:
    """The levels with what each asked for; those of one load as one, where it was measured several times."""
    goal = record.scenario.goal
    cells = goal.cells if isinstance(goal, Grid) else ()
    together = find is not None or getattr(goal, "repeats", 1) > 1
    groups: dict[tuple[Load, Asked | None, int], list[LevelResult]] = {}
    for n, result in enumerate(results):
        asked = cells[n % len(cells)] if cells else None
        groups.setdefault((result.load, asked, 0 if together else n), []).append(result)
    levels = [msgspec.structs.replace(pooled(same), asked=asked) for (_, asked, _), same in groups.items()]
    if cells and (budget := record.scenario.settings.budget) is not None:
        levels = [marked(level, same, budget) for level, same in zip(levels, groups.values(), strict=True)]
    return sorted(levels, key=lambda level: level.load.value) if find is not None else levels
