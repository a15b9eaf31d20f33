"""One run from its order to its report: open the endpoint, get ready, measure level by level, write it up."""

from __future__ import annotations

import contextlib
import dataclasses
import shutil
import sys
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec

from pacemark.answers.allowance import Allowance, allowed
from pacemark.answers.confirmation import forecast, implied_rate, long_enough, ways
from pacemark.answers.search import find as search_for
from pacemark.answers.step import Step
from pacemark.dialects.dialect import DIALECTS
from pacemark.endpoint.databricks import SCHEME, Route, Serving, exceeding
from pacemark.endpoint.databricks import serving as open_serving
from pacemark.endpoint.offered import context_of, only_model, unlisted
from pacemark.endpoint.speaking import AUTO, recognised_api
from pacemark.endpoint.target import Target, target
from pacemark.errors import BadInput, Failed, RunFailed
from pacemark.instrument.fleet import Hire, hired_here
from pacemark.pace import Concurrency
from pacemark.reporting import warmup
from pacemark.reporting.observing import observing
from pacemark.reporting.progress import Status, told
from pacemark.runs.bench import Bench
from pacemark.runs.calibration import warning as beyond_calibration
from pacemark.runs.conclude import concluded
from pacemark.runs.cost import say_cost
from pacemark.runs.folder import RunFolder
from pacemark.runs.record import Learned, RunRecord, begun, written
from pacemark.runs.recording import in_one_line, paced, refuse_unsuited, rows_of, too_long
from pacemark.runs.run import Run
from pacemark.runs.serverside import scraping
from pacemark.runs.stopping import Reached
from pacemark.scenario import (
    DOCUMENTS,
    Goal,
    Grid,
    Scenario,
    Search,
    Settings,
    Words,
    ordered,
    refuse_unknown,
    steps,
)
from pacemark.summary import Asked, Confirmation, Find, Spent
from pacemark.traffic import given
from pacemark.values import labelled
from pacemark.workload.row import Rows
from pacemark.workload.tokenizer import Tokenizer

__all__ = [
    "Notices", "Options", "carried_out", "conducted", "counter_of", "driven", "endpoint_opened", "measured",
    "rest_of", "search_on", "searched",
]  # fmt: skip


class Options(Words, total=False):
    """What every measuring function takes beside its target and loads."""

    headers: Sequence[str] | Mapping[str, str]
    out: str | Path
    observe: Callable[[Status], None]
    """Called some twenty times a second with where the run stands; without it a notebook's cell or a terminal shows
    it."""
    command: Sequence[str]
    """How the run was asked for, to be written down; the CLI gives its own words."""


# --- the goals


def measured(where: str, goal: Goal, options: Options) -> Run:
    """Measure the levels of `goal`, one after the other. Raises BadInput and RunFailed."""
    return conducted(ordered(where, goal, options), options, rest_of(goal))


def rest_of(goal: Goal, done: int = 0) -> Callable[[Bench], None]:
    """Measures the levels of `goal`, one after the other; the first `done` of them are left out."""

    def drive(bench: Bench) -> None:
        for load, asked in steps(goal)[done:]:
            if asked is not None:
                bench.ask_for(asked)
            bench.measure(load)

    return drive


def conducted(scenario: Scenario, options: Options, drive: Callable[[Bench], None]) -> Run:
    """Get ready for an order whose levels are known, `drive` the bench through them, and write up what came of it.

    Raises BadInput and RunFailed.
    """

    def body(bench: Bench, folder: RunFolder, record: RunRecord) -> Run:
        bench.teller.levels = len(steps(scenario.goal))
        return driven(bench, folder, record, lambda: drive(bench))

    return _run(scenario, options, body)


def searched(
    where: str, goal: Search, options: Options, allowance: Allowance | None, tell: Callable[[Step], None]
) -> Run:
    """Search for the largest load within the budget, which is among `options`. Raises BadInput and RunFailed."""

    def body(bench: Bench, folder: RunFolder, record: RunRecord) -> Run:
        return search_on(bench, folder, record, goal, tell)

    return _run(ordered(where, goal, options), options, body, allowance)


def search_on(bench: Bench, folder: RunFolder, record: RunRecord, goal: Search, tell: Callable[[Step], None]) -> Run:
    """Search to the end, from the levels that the bench has already. Raises RunFailed."""
    answer: list[Find] = []
    budget, allowance = record.scenario.settings.budget, record.allowance or Allowance()
    assert budget is not None
    closed = goal.load == "concurrency"
    known = [x for x in bench.results if isinstance(x.load, Concurrency) == closed]

    def learned(step: Step) -> None:
        folder.add_step(step)
        bench.observe(told("", step))
        tell(step)

    def drive() -> None:
        found = search_for(
            bench.measure,
            budget,
            kind=goal.load,
            arrivals=goal.arrivals,
            burstiness=goal.burstiness,
            precision=goal.within,
            most=goal.most,
            allowance=allowance,
            observe=learned,
            known=known,
            rest=bench.rest,
        )
        answer.append(found)
        if goal.confirm:
            answer[0] = _confirm(bench, found, allowance)

    return driven(bench, folder, record, drive, lambda: answer[0] if answer else None)


def _confirm(bench: Bench, find: Find, allowance: Allowance) -> Find:
    """Offer the rate that the answer implies in the open loop. What cannot be tried within the allowance is noted."""
    streams = find.answer.value if find.answer else None
    rate = implied_rate(bench.results, streams) if streams else None
    untried, spent = [], find.spent
    tried = {x.load for x in bench.results}  # before the run was cut off
    for load in ways(rate) if rate else ():
        if load in tried:
            continue
        cost = forecast(load, bench.results)
        spent = Spent(spent.requests + cost.requests, spent.seconds + cost.seconds, spent.tokens + cost.tokens)
        if over := allowance.exceeded(spent):
            untried.append(Confirmation(load, None, None, f"not tried: it would exceed the allowance of {over}"))
            continue
        with contextlib.suppress(RunFailed):  # the level is kept, and judged with the others
            bench.measure(load, long_enough())
    return msgspec.structs.replace(find, confirmations=untried)


# --- what they share


class Notices:
    """What a user should hear of at once, before money is spent: kept, and said as warnings."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def say(self, line: str) -> None:
        """Warn of it."""
        self.lines.append(line)
        # The warning is of the line that called pacemark, however deep in it this is.
        depth, frame = 1, sys._getframe()
        while frame.f_back and frame.f_globals.get("__name__", "").partition(".")[0] in ("pacemark", "contextlib"):
            depth, frame = depth + 1, frame.f_back
        warnings.warn(line, stacklevel=depth)


def _run(
    order: Scenario,
    options: Options,
    body: Callable[[Bench, RunFolder, RunRecord], Run],
    allowance: Allowance | None = None,
) -> Run:
    """Open the target and a run folder, get ready, and hand over to `body`."""
    refuse_unknown(options, Options.__annotations__)
    allowance = allowed(options, allowance)
    if "observe" not in options:
        with observing() as observe:
            return _run(order, {**options, "observe": observe}, body, allowance)
    said, labels, observe = Notices(), labelled(options), options["observe"]
    rows = rows_of(order, options.get("trace") if given(options.get("trace")) else options.get("data"))
    order = paced(order, rows, allowance.seconds if allowance is not None else None)
    if rows is not None:
        observe(told(in_one_line(order.workload.recording, rows.found)))
    with endpoint_opened(order, options, said, observe) as (place, scenario, serving):
        if rows is not None and order.access.api == AUTO:
            refuse_unsuited(rows, place.api)
        described = serving.endpoint.described() if serving is not None else None
        record = begun(scenario, place, options.get("command", ()), described, labels)
        record = msgspec.structs.replace(record, allowance=allowance, file=rows.found if rows is not None else None)
        slug = f"{place.host} {record.target['model']}"
        folder = RunFolder.create(Path(options.get("out", "runs")), slug, written(record))
        try:
            return carried_out((place, scenario, serving), folder, record, said, observe, body, options, rows)
        finally:
            empty = not folder.levels()
            folder.close()
            if empty:  # nothing was measured, so nothing is left behind
                shutil.rmtree(folder.path)


def carried_out(
    opened: tuple[Target, Scenario, Serving | Route | None],
    folder: RunFolder,
    record: RunRecord,
    said: Notices,
    observe: Callable[[Status], None],
    body: Callable[[Bench, RunFolder, RunRecord], Run],
    words: Words,
    rows: Rows | None = None,
) -> Run:
    """Get ready at an endpoint that is `opened`, note what it told, and hand over to `body`.

    Raises BadInput where the run is likely to cost more than goes unasked by `words`.
    """
    place, scenario, serving = opened
    if rows is not None and serving is None and (beyond := too_long(rows, context_of(place))):
        said.say(beyond)
    with _ready(place, scenario, serving, folder, observe, rows) as bench:
        if beyond := beyond_calibration(scenario.loads, place.tls, bench.nodes):
            said.say(beyond)
        record = msgspec.structs.replace(record, nodes=bench.nodes)
        if serving is not None:
            _forewarn(serving, bench, scenario, said)
        elif scenario.access.model and (strange := unlisted(place)):
            said.say(strange)
        if not isinstance(scenario.goal, Search):  # which keeps to its allowance itself
            bench.rules.allowance = record.allowance
        if record.learned is None:  # a run that goes on knows already
            if cost := say_cost(scenario, record.allowance, bench.first, place.host, words):
                bench.tell(cost)
            learned = Learned(bench.prompts, msgspec.to_builtins(bench.options), bench.known_prompts)
            record = msgspec.structs.replace(record, learned=learned)
            folder.write_run(written(record))
        done = body(bench, folder, record)
    if serving is not None and (line := exceeding(serving.endpoint, done.levels)):
        said.say(line)
    return dataclasses.replace(done, notices=tuple(said.lines))


@contextlib.contextmanager
def _ready(
    place: Target,
    scenario: Scenario,
    serving: Serving | Route | None,
    folder: RunFolder,
    observe: Callable[[Status], None],
    rows: Rows | None,
) -> Iterator[Bench]:
    """A bench that has met the endpoint, and writes to `folder`."""
    count_tokens = counter_of(scenario.access.tokenizer)
    tags, marked = serving.tags(folder.path.name) if serving is not None else ({}, {})
    place = place.renewed(marked) if marked else place
    hire = _hire(scenario.settings, observe)
    for extra in (tags, {}):
        workload = msgspec.structs.replace(scenario.workload, extra=extra | scenario.workload.extra)
        with Bench(place, workload, scenario.settings, count_tokens, observe, serving, rows, hire) as bench:
            bench.folder = folder
            try:
                bench.prepare()
            except BadInput as error:
                if any(name in str(error) for name in extra):  # the endpoint does not know them
                    continue
                raise
            with scraping(bench.target, scenario.access, observe) as scraper:  # now that it is up
                bench.read_metrics(scraper)
                yield bench
            return


def _hire(settings: Settings, observe: Callable[[Status], None]) -> Hire:
    """Where the workers are to be."""
    if not settings.nodes:
        return hired_here
    from pacemark.integrations.ray import hired_on

    return hired_on(settings.nodes, settings.ray, lambda line: observe(told(line)))


_AGAIN = "Ctrl-C again leaves at once, and `pacemark report` makes up for it"


def driven(
    bench: Bench,
    folder: RunFolder,
    record: RunRecord,
    drive: Callable[[], None],
    found: Callable[[], Find | None] = lambda: None,
) -> Run:
    """Run `drive` to its end, or to what stops it, and write up what was measured until then."""
    failure: RunFailed | Failed | None = None
    stopped: str | None = None
    interrupted = False
    try:
        drive()
    except KeyboardInterrupt:
        interrupted = True
        bench.tell(f"stopping: what has been measured is written up; {_AGAIN}")
    except RunFailed as error:
        failure = error
    except Reached as rule:
        stopped = str(rule)
        failure = Failed(stopped) if rule.failed else None
    warmup.start()
    try:
        results = bench.finish(drain=not interrupted and (failure is None or stopped is not None))
    except KeyboardInterrupt:  # the levels are whole: it is the last answers that are waited for no more
        results = bench.results
    if results and not failure and not interrupted and not any(r.level.requests.completed for r in results):
        errors = ", ".join(f"{count} x {kind}" for kind, count in results[0].level.errors.items())
        failure = RunFailed(f"not one request was answered ({errors})")
    record = msgspec.structs.replace(
        record,
        ended="interrupted" if interrupted else "failed" if failure else "completed",
        failure=str(failure) if failure else None,
        stopped=stopped,
    )
    try:
        run = concluded(folder, results, record, found(), bench.tell)
    except KeyboardInterrupt:  # once more, rather than lose it
        bench.tell(f"the report is being written; {_AGAIN}")
        run = concluded(folder, results, record, found(), bench.tell)
    if failure is not None:
        raise type(failure)(f"{failure}; what was measured is in {folder.path}")
    return run


@contextlib.contextmanager
def endpoint_opened(
    scenario: Scenario, options: Options, said: Notices, observe: Callable[[Status], None] = lambda status: None
) -> Iterator[tuple[Target, Scenario, Serving | Route | None]]:
    """The endpoint of an order, started where it is the embedded one, and the order as that endpoint needs it."""
    where, way = scenario.target, scenario.access
    access: Any = {"headers": options.get("headers", ()), "ca_file": way.ca_file, "insecure": way.insecure}
    access |= {"model": way.model, "api": "chat" if way.api == AUTO else way.api}
    serving: Serving | Route | None = None
    with contextlib.ExitStack() as stack:
        if where.startswith((SCHEME, "sim:")):
            observe(told(_greeting(where, scenario)))
        if where.startswith(SCHEME):
            serving = open_serving(where.removeprefix(SCHEME), way.profile, way.model)
            for line in serving.endpoint.warnings(scenario.workload.input.longest):
                said.say(line)
            place = serving.target(target(serving.base, **access))
        else:
            url = where
            if where.startswith("sim:"):
                from pacemark.simulator import serving as embedded

                served = stack.enter_context(embedded(where.removeprefix("sim:")))
                url, access["model"] = served.url, way.model or served.model
            place = target(url, api_key_env=way.api_key_env, **access)
            if url is where:
                observe(told(_greeting(place.described()["url"], scenario)))
        if way.api == AUTO:
            place = recognised_api(place, scenario.settings.wait_s, lambda line: observe(told(line)))
            observe(told(f"{place.described()['url']} is asked by --api {place.api}"))
            scenario = msgspec.structs.replace(scenario, access=msgspec.structs.replace(way, api=place.api))
        yield _with_model(place) if serving is None else place, _spoken(scenario, place.api), serving


def _with_model(place: Target) -> Target:
    """The target with its model, which it is asked for where nobody named one. Raises BadInput."""
    if not place.model:
        place = msgspec.structs.replace(place, model=only_model(place))
    if not (place.model or place.path) and "{model}" in DIALECTS[place.api].path:
        raise BadInput(f"--api {place.api} names the model in its path: give --model NAME")
    return place


def _greeting(where: str, scenario: Scenario) -> str:
    """What is told in the first second: who is asked, and for how long."""
    levels, settings = len(scenario.loads), scenario.settings
    most = f"{settings.duration_s:g} s" if settings.precision is None else f"at most {settings.max_duration_s:g} s"
    if settings.requests is None and not settings.timed:
        most = "all its rows"
    if settings.requests is not None:
        most = f"{settings.requests:,} requests" + (f" or {most}" if settings.timed or settings.precision else "")
    if not levels:
        return f"{where}: a search; getting ready"
    what = "a level" if levels == 1 else f"{levels} levels"
    return f"{where}: {what} of {most}; getting ready"


def _spoken(scenario: Scenario, api: str) -> Scenario:
    """The order as an API can fulfil it: an embedding is one vector, whole; a ranking marks every document."""
    dialect, workload, settings, goal = DIALECTS[api], scenario.workload, scenario.settings, scenario.goal
    if dialect.documents:
        documents = workload.documents if isinstance(workload.documents, int) else DOCUMENTS
        workload = msgspec.structs.replace(workload, output_tokens=documents)
        if isinstance(goal, Grid):
            cells = dict.fromkeys(Asked(cell.input_tokens, documents) for cell in goal.cells)
            goal = msgspec.structs.replace(goal, cells=tuple(cells))
    return msgspec.structs.replace(
        scenario,
        goal=goal,
        workload=msgspec.structs.replace(workload, output_tokens=dialect.output_of(workload.output_tokens)),
        settings=msgspec.structs.replace(settings, stream=settings.stream and dialect.streams),
    )


def _forewarn(serving: Serving | Route, bench: Bench, scenario: Scenario, said: Notices) -> None:
    """Say which known limit the plan would exceed, before its first level."""
    first = bench.first
    latency_s = (first.ended_ns - first.sent_ns) / 1e9
    input_tokens = first.input_tokens if first.input_tokens > 0 else bench.workload.input.mean
    output_tokens = bench.workload.output.mean if DIALECTS[bench.target.api].output_tokens is None else 0
    for line in serving.endpoint.planned(scenario.loads, latency_s, input_tokens, output_tokens):
        said.say(line)


def counter_of(path: str) -> Tokenizer | None:
    """Counts tokens by a tokenizer.json; None where none was named. Raises BadInput."""
    return Tokenizer(path) if path else None
