"""The Python face. Its words are those of the command line; both are thin."""

from __future__ import annotations

import contextlib
import dataclasses
import datetime
import itertools
import math
import os
import platform
import secrets
import shlex
import shutil
import sys
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypedDict, Unpack

import msgspec

import pacemark
from pacemark.answers.comparison import Compared, compare_runs
from pacemark.answers.confirmation import confirmed, forecast, implied_rate, long_enough, ways
from pacemark.answers.curve import operating_points
from pacemark.answers.fit import fits
from pacemark.answers.lengths import grid, slopes
from pacemark.answers.planning import Plan, parse_demand, parse_size, plan_for
from pacemark.answers.search import Allowance, Step
from pacemark.answers.search import find as search_for
from pacemark.answers.stored import comparable, find_from, meets
from pacemark.budget import parse as parse_budget
from pacemark.endpoint.databricks import SCHEME, Serving, exceeding
from pacemark.endpoint.databricks import serving as open_serving
from pacemark.endpoint.target import Target, only_model, target
from pacemark.endpoint.watch import watch_from
from pacemark.errors import BadInput, RunFailed
from pacemark.figures.health import health_of
from pacemark.figures.level import LevelResult, sum_up
from pacemark.figures.pooling import pooled
from pacemark.pace import Arrivals, Concurrency, Load, Rate
from pacemark.reporting.progress import Status
from pacemark.runs import tables
from pacemark.runs.bench import Bench, Settings
from pacemark.runs.calibration import warning as beyond_calibration
from pacemark.runs.folder import RunFolder
from pacemark.runs.tables import Rows
from pacemark.runs.timeline import timeline_of
from pacemark.summary import Asked, Confirmation, Find, Fits, Level, OperatingPoints, Spent, Summary
from pacemark.trace import ABSENT, Trace, Window
from pacemark.workload.words import Workload

if TYPE_CHECKING:
    import altair
    import pandas
    import pyarrow
    from pyspark.sql import DataFrame, SparkSession

DEFAULT_CONCURRENCY = (1, 2, 4, 8, 16, 32, 64)


class Options(TypedDict, total=False):
    """What every measuring function takes beside its target and loads. The flags of the CLI have these names."""

    model: str
    api: str
    input_tokens: int | Sequence[int]
    output_tokens: int | Sequence[int]
    """Several lengths of either make a sweep a length grid: every pair of them, at one concurrency."""
    duration: float
    """Seconds of steady load to measure at each level; the ramp before it and the hold after it come on top."""
    precision: float | str | None
    """Measure each level until its intervals are this tight: 0.05 or "5%"."""
    max_duration: float
    """Longest time to measure a level when `precision` is given."""
    repeats: int
    """Measure every level this many times, in turn."""
    budget: str
    """Limits to count goodput against: `ttft p95 < 500ms, tpot p95 < 50ms`."""
    stream: bool
    workers: int | str
    timeout: float
    seed: int | None
    out: str | Path
    api_key_env: str
    headers: Sequence[str] | Mapping[str, str]
    ca_file: str
    insecure: bool
    profile: str
    """A profile of ~/.databrickscfg, for targets in a Databricks workspace."""
    tokenizer: str | Path | None
    extra_body: Mapping[str, Any]
    fresh_connections: bool
    max_in_flight: int
    observe: Callable[[Status], None]
    """Called some twenty times a second with where the run stands."""
    command: Sequence[str]
    """How the run was asked for, to be written down; the CLI gives its own words."""


@dataclasses.dataclass(frozen=True)
class Run:
    """A finished run: its summary, and the folder that holds every request of it."""

    summary: Summary
    path: Path

    @property
    def levels(self) -> list[Level]:
        """The load levels, in the order they ran."""
        return self.summary.levels

    @property
    def interrupted(self) -> bool:
        """Whether it was stopped before its last level ended."""
        return bool(self.summary.run.get("interrupted"))

    @property
    def answer(self) -> str:
        """What to choose and why, in words: what the command line prints below its table."""
        from pacemark.reporting.terminal import answer

        return answer(self.summary)

    def to_pandas(self, rows: Rows = "levels") -> pandas.DataFrame:
        """A row per level, columns such as `ttft_ms_p95` and `ttft_ms_p95_low`; or a row per request. Needs pandas."""
        return tables.to_pandas(tables.table(self.summary, self.path, rows))

    def to_arrow(self, rows: Rows = "levels") -> pyarrow.Table:
        """The same for Arrow. Needs the extra `arrow`."""
        return tables.to_arrow(tables.table(self.summary, self.path, rows))

    def to_spark(self, rows: Rows = "levels", session: SparkSession | None = None) -> DataFrame:
        """The same for Spark, in `session` or the active one. The columns never change, so tables can be added to."""
        return tables.to_spark(tables.table(self.summary, self.path, rows), session)

    def plot(self) -> altair.LayerChart | altair.VConcatChart:
        """The throughput-latency curve; of a length grid, its lines."""
        from pacemark.reporting.charts.curve import main_chart

        return main_chart(self.summary)

    def _repr_mimebundle_(self, **_: Any) -> dict[str, Any]:
        from pacemark.reporting.notebook import bundle

        return bundle(self.summary)


def run(
    target: str,
    *,
    concurrency: int | None = None,
    rate: float | None = None,
    arrivals: Arrivals = "poisson",
    burstiness: float = 1.0,
    **options: Unpack[Options],
) -> Run:
    """Measure one load level: so many requests in parallel, or so many arriving per second.

    Raises BadInput for what cannot work, RunFailed where the endpoint gives no result.
    """
    if (concurrency is None) == (rate is None):
        raise BadInput("give one load: --concurrency N or --rate R")
    load = _concurrency(concurrency) if concurrency is not None else _rate(rate or 0.0, arrivals, burstiness)
    return _measure(target, [load], options)


def sweep(
    target: str,
    *,
    concurrency: Sequence[int] | None = None,
    rate: Sequence[float] | None = None,
    arrivals: Arrivals = "poisson",
    burstiness: float = 1.0,
    **options: Unpack[Options],
) -> Run:
    """Measure a throughput-latency curve, one level after the other. Raises as `run` does.

    Several `input_tokens` or `output_tokens` make it a length grid instead: every pair of lengths is a level, all at
    one concurrency (1 if not given), and `.summary.slopes` says what a token costs.
    """
    if cells := _cells(options):
        if rate is not None or (concurrency is not None and len(concurrency) != 1):
            raise BadInput("several lengths are measured at one load: give one --concurrency, and no --rate")
        return _measure(target, [_concurrency(concurrency[0] if concurrency else 1)], options, cells)
    if concurrency is not None and rate is not None:
        raise BadInput("give one kind of load: --concurrency or --rate")
    loads: list[Load] = (
        [_rate(r, arrivals, burstiness) for r in rate]
        if rate is not None
        else [_concurrency(c) for c in (concurrency if concurrency is not None else DEFAULT_CONCURRENCY)]
    )
    if not loads:
        raise BadInput("no load level given: for example --concurrency 1,2,4,8")
    return _measure(target, loads, options)


def demo(**options: Unpack[Options]) -> Run:
    """Sweep the embedded endpoint over 1 to 64 parallel requests, in under a minute."""
    defaults: Options = {"input_tokens": 256, "output_tokens": 64, "duration": 4.0}
    return _measure("sim:demo", [Concurrency(c) for c in DEFAULT_CONCURRENCY], defaults | options)


def check(target: str, **options: Unpack[Options]) -> dict[str, Any]:
    """Send a handful of requests and tell what the endpoint is and what it can report.

    Raises BadInput where it does not answer as an endpoint of that API.
    """
    with _opened(target, options) as (place, workload, settings, serving):
        with Bench(place, workload, settings, _counter(options), source=serving) as bench:
            bench.prepare()
            bench.finish()
        first, prompts, accepted = bench.first, bench.prompts, bench.options

    def since(ns: int) -> float | None:
        return None if ns == ABSENT else (ns - first.sent_ns) / 1e6

    last_ns = int(first.hi_ns[-1]) if len(first.hi_ns) else ABSENT
    return {
        "target": place.described(),
        **({"endpoint": serving.endpoint.described()} if serving is not None else {}),
        "streams": first.first_event_ns != ABSENT,
        "reports_usage": first.tokens_source == "usage",
        "accepts": [n for n in ("ignore_eos", "min_tokens") if getattr(accepted, n)],
        "max_tokens_field": accepted.max_tokens_field or None,
        "input_tokens": None if first.input_tokens == ABSENT else first.input_tokens,
        "output_tokens": first.output_tokens,
        "events": len(first.hi_ns),
        "finish_reason": first.finish_reason or None,
        "tokens_per_word": prompts.tokens_per_word,
        "prompt_length_from": prompts.source,
        "connect_ms": None if bench.connect_ns == ABSENT else bench.connect_ns / 1e6,
        "ttft_ms": since(int(first.hi_ns[0])) if first.first_event_ns != ABSENT and len(first.hi_ns) else None,
        "latency_ms": since(last_ns),
        "clock": "kernel" if len(first.lag_ns) and first.lag_ns[-1] >= 0 else "user",
    }


def load(path: str | Path) -> Run:
    """A stored run, from its folder; of a folder of runs, the newest. Raises BadInput where there is none."""
    folder = RunFolder.open(Path(path))
    try:
        return Run(folder.summary(), folder.path)
    finally:
        folder.close()


show = load


def log_to_mlflow(run: Run, *, experiment: str | None = None) -> str:
    """Log a run to MLflow as one run of its own: parameters, figures with the concurrency as step, report, summary and
    `run.db`. Returns the MLflow run's id.

    MLflow's tracking URI and experiment say where to, unless `experiment` names one. Raises BadInput where MLflow is
    missing, RunFailed where it does not take the run.
    """
    from pacemark.integrations.mlflow import log

    return log(run.summary, run.path, experiment)


def report(path: str | Path, *, budget: str = "") -> Run:
    """Compute summary and report of a stored run anew from its requests, with another `budget` where one is given.

    Raises BadInput where there are none.
    """
    folder = RunFolder.open(Path(path))
    try:
        record = folder.run()
        if budget:
            record["settings"]["budget"] = str(parse_budget(budget))
        results = _stored(folder, record)
        find: Find | None = None
        if not record["loads"] and (text := record["settings"].get("budget")):  # it was a search
            before = None if budget else _found_before(folder)
            find = before or find_from(comparable(results), parse_budget(text))
        return _concluded(folder, results, record, find)
    finally:
        folder.close()


def _found_before(folder: RunFolder) -> Find | None:
    """What a search found, if it came to its end."""
    with contextlib.suppress(BadInput, msgspec.ValidationError):
        return msgspec.convert(folder.summary().find, Find)
    return None


def _stored(folder: RunFolder, record: Mapping[str, Any]) -> list[LevelResult]:
    """The levels of a stored run, summed up anew. Raises BadInput where there are none."""
    results = []
    budget = parse_budget(text) if (text := record["settings"].get("budget")) else None
    sights = folder.sights()
    for level, load, window, ended_by, died in folder.levels():
        trace = folder.trace(level, open_loop=isinstance(load, Rate))
        if "interrupted" not in record:  # it was killed, so the window may not have come to its planned end
            known_ns = _known_until(trace, record["settings"]["workers"])
            window = Window(window.start_ns, min(window.end_ns, known_ns))
        health = health_of(trace, folder.beats(level), died)
        watch = watch_from(trace.refusals, sights)
        known: float | None = record["workload"].get("known_prompts")
        wanted = record["workload"].get("input_tokens")
        asked: Any = {"asked_input": wanted if isinstance(wanted, int) else None}
        given: Any = asked | {"budget": budget, "ended_by": ended_by, "watch": watch, "known_prompts": known}
        results.append(sum_up(load, trace, window, health, **given))
    if not results:
        raise BadInput(f"{folder.path} holds no level: the run was cut off before its first request")
    return results


def _refuse_grid(folder: RunFolder, record: Mapping[str, Any]) -> None:
    """Levels of different lengths must not be pooled for one answer."""
    if record.get("grid"):
        raise BadInput(f"{folder.path} is a length grid: it has one load, so there is none to choose")


def _known_until(trace: Trace, workers: int) -> int:
    """Up to when a level that was cut off is on record whole; what was in flight at its end is not on record.

    Each worker numbers its requests in the order it sends them, so the first number that is missing was sent no
    sooner than the one before it.
    """
    sent_ns: dict[int, int] = dict(zip(trace.index.tolist(), trace.sent_ns.tolist(), strict=True))
    missing = (next(n for n in itertools.count(worker, workers) if n not in sent_ns) for worker in range(workers))
    return min(sent_ns.get(n - workers, 0) for n in missing)


def find(
    target: str = "",
    *,
    from_run: str | Path | None = None,
    confirm: bool = False,
    rate: bool = False,
    arrivals: Arrivals = "poisson",
    burstiness: float = 1.0,
    within: float = 0.05,
    most: float = 4096,
    allowance: Allowance | None = None,
    tell: Callable[[Step], None] = lambda step: None,
    **options: Unpack[Options],
) -> Run:
    """Find the most load that meets the option `budget`: concurrency, or the open-loop rate.

    The answer is in `.summary.find`. `within` is how narrow its interval should be. `from_run` answers from the
    levels of an earlier run instead of a target: nothing is sent or written, and `.summary.find.next` is the load
    whose measurement would tighten the answer most. `confirm` then tries the answer in the open loop, with Poisson
    arrivals and with bursts; `.summary.find.confirmations` says what came of it. Raises as `run` does.
    """
    if not options.get("budget"):
        raise BadInput("find needs a budget: for example --budget 'ttft p95 < 500ms, tpot p95 < 50ms'")
    if (from_run is None) == (not target):
        raise BadInput("give one place to find it: a TARGET to measure, or --from RUN")
    if confirm and (rate or from_run is not None):
        why = "a rate is found in the open loop already" if rate else "a stored run can try nothing"
        raise BadInput(f"--confirm tries the answer of a closed loop in the open one: {why}")
    if from_run is not None:
        return _find_from(Path(from_run), options["budget"], rate=rate, within=within)
    limits = parse_budget(options["budget"])

    def search(bench: Bench, folder: RunFolder, record: dict[str, Any]) -> Run:
        answer: list[Find] = []

        def drive() -> None:
            kind: Literal["rate", "concurrency"] = "rate" if rate else "concurrency"
            process: Any = {"kind": kind, "arrivals": arrivals, "burstiness": burstiness}
            answer.append(
                search_for(
                    bench.measure, limits, **process, precision=within, most=most, allowance=allowance, observe=tell
                )
            )
            if confirm:
                answer[0] = _confirm(bench, answer[0], allowance or Allowance())

        return _levels(bench, folder, drive, record, lambda: answer[0] if answer else None)

    defaults: Options = {"duration": 10.0, "max_duration": 60.0}
    return _run(target, [], defaults | options, search)


def _confirm(bench: Bench, find: Find, allowance: Allowance) -> Find:
    """Offer the rate that the answer implies in the open loop. What cannot be tried within the allowance is noted."""
    streams = find.answer.value if find.answer else None
    rate = implied_rate(bench.results, streams) if streams else None
    untried, spent = [], find.spent
    for load in ways(rate) if rate else ():
        cost = forecast(load, bench.results)
        spent = Spent(spent.requests + cost.requests, spent.seconds + cost.seconds, spent.tokens + cost.tokens)
        if over := allowance.exceeded(spent):
            untried.append(Confirmation(load, None, None, f"not tried: it would exceed the allowance of {over}"))
            continue
        with contextlib.suppress(RunFailed):  # the level is kept, and judged with the others
            bench.measure(load, long_enough())
    return msgspec.structs.replace(find, confirmations=untried)


def _find_from(path: Path, budget: str, *, rate: bool, within: float) -> Run:
    limits = parse_budget(budget)
    folder = RunFolder.open(path)
    try:
        record = folder.run()
        _refuse_grid(folder, record)
        record["settings"]["budget"] = str(limits)
        results = comparable(_stored(folder, record), rate=rate)
        return Run(_summary(results, record, find_from(results, limits, precision=within)), folder.path)
    finally:
        folder.close()


def plan(
    path: str | Path,
    *,
    demand: str,
    budget: str = "",
    burstiness: float = 1.0,
    price_per_hour: float | None = None,
    provisioned: str = "",
) -> Plan:
    """Replicas that serve `demand`, such as "40 requests/s", within `budget`, each like the one that a run measured.

    Without `budget` that of the run counts. `burstiness` is the coefficient of variation of the gaps between requests,
    `price_per_hour` that of one replica, `provisioned` what it was bought as, such as "50 model units".

    Raises BadInput, also where no level of the run meets the budget.
    """
    wanted = parse_demand(demand)
    size = parse_size(provisioned) if provisioned else None
    _positive("--burstiness", burstiness)
    if price_per_hour is not None:
        _positive("--price-per-hour", price_per_hour)
    folder = RunFolder.open(Path(path))
    try:
        record = folder.run()
        _refuse_grid(folder, record)
        text = budget or record["settings"].get("budget", "")
        if not text:
            raise BadInput("plan needs a budget: for example --budget 'ttft p95 < 500ms, tpot p95 < 50ms'")
        limits = parse_budget(text)
        results = _stored(folder, record)
    finally:
        folder.close()
    return plan_for(results, wanted, limits, burstiness=burstiness, price_per_hour=price_per_hour, provisioned=size)


def compare(a: str | Path, b: str | Path) -> Compared:
    """Run B against run A, level by level. Raises BadInput where they share no level."""
    return compare_runs(load(a).summary, load(b).summary)


def serve(
    preset: str = "demo",
    *,
    host: str = "127.0.0.1",
    port: int = 8000,
    change: Mapping[str, Any] | None = None,
    faults: str | Path = "",
    databricks: str = "",
    **options: Any,
) -> None:
    """Run the embedded endpoint in this process until it is stopped.

    `change` sets fields of the preset, `faults` is a file of rules, `databricks` names an endpoint of a workspace to
    be as well; further options are those of `pacemark.simulator.server.server.Options`. Raises BadInput.
    """
    from pacemark.simulator import customised, named
    from pacemark.simulator.server import server
    from pacemark.simulator.server.databricks import Workspace
    from pacemark.simulator.server.faults import read_faults

    if faults:
        options["faults"] = read_faults(faults)
    if databricks:
        options["databricks"] = Workspace(endpoint=databricks)
    chosen = customised(named(preset), dict(change or {}))
    server.run(server.Options(preset=chosen, host=host, port=port, **options))


# --- the one way from a target to a run


def _cells(options: Options) -> list[Asked]:
    """The lengths of a grid; none where one length of each was given. They are left out of `options` then."""
    given: dict[str, Any] = {"input_tokens": options.get("input_tokens", 256)}
    given["output_tokens"] = options.get("output_tokens", 128)
    lengths = {name: list(value) if isinstance(value, Sequence) else [value] for name, value in given.items()}
    for name, values in lengths.items():
        flag = f"--{name.replace('_', '-')}"
        if not values:
            raise BadInput(f"{flag}: give at least one length, for example 256,1024,4096")
        for value in values:
            _at_least(flag, value, 1)
    cells = grid(lengths["input_tokens"], lengths["output_tokens"])
    # The bench gets ready with the longest, so that one that the context cannot hold is refused at once.
    options["input_tokens"], options["output_tokens"] = cells[-1].input_tokens, cells[-1].output_tokens
    return cells if len(cells) > 1 else []


def _measure(where: str, loads: Sequence[Load], options: Options, cells: Sequence[Asked] = ()) -> Run:
    loads = list(loads) * max(1, len(cells)) * _at_least("--repeats", options.get("repeats", 1), 1)

    def sweep_over(bench: Bench, folder: RunFolder, record: dict[str, Any]) -> Run:
        bench.levels_planned = len(loads)
        if cells:
            record["grid"] = msgspec.to_builtins(cells)
            record["workload"] |= {
                name: sorted({getattr(cell, name) for cell in cells}) for name in ("input_tokens", "output_tokens")
            }
            folder.write_run(record)

        def drive() -> None:
            for n, load in enumerate(loads):
                if cells:
                    bench.ask_for(cells[n % len(cells)])
                bench.measure(load)

        return _levels(bench, folder, drive, record)

    return _run(where, loads, options, sweep_over)


def _run(
    where: str, loads: Sequence[Load], options: Options, body: Callable[[Bench, RunFolder, dict[str, Any]], Run]
) -> Run:
    """Open the target and a run folder, prepare, and hand over to `body`."""
    with _opened(where, options, loads) as (place, workload, settings, serving):
        if beyond := beyond_calibration(loads, place.tls):
            warnings.warn(beyond, stacklevel=4)
        record = _record(place, workload, settings, loads, options)
        if serving is not None:
            record["endpoint"] = serving.endpoint.described()
        folder = RunFolder.create(Path(options.get("out", "runs")), f"{place.host} {record['target']['model']}", record)
        try:
            with Bench(place, workload, settings, _counter(options), options.get("observe", _silent), serving) as bench:
                bench.folder = folder
                bench.prepare()
                if serving is not None:
                    _forewarn(serving, bench, loads)
                record["workload"] |= {
                    "prompts": msgspec.to_builtins(bench.prompts),
                    "options": msgspec.to_builtins(bench.options),
                    "known_prompts": bench.known_prompts,
                }
                folder.write_run(record)
                done = body(bench, folder, record)
            if serving is not None and (line := exceeding(serving.endpoint, done.levels)):
                warnings.warn(line, stacklevel=4)
            return done
        finally:
            empty = not folder.levels()
            folder.close()
            if empty:  # nothing was measured, so nothing is left behind
                shutil.rmtree(folder.path)


def _forewarn(serving: Serving, bench: Bench, loads: Sequence[Load]) -> None:
    """Say which known limit the plan would exceed, before its first level."""
    first = bench.first
    latency_s = (first.ended_ns - first.sent_ns) / 1e9
    input_tokens = first.input_tokens if first.input_tokens > 0 else bench.workload.input_tokens
    output_tokens = 0 if bench.target.api == "embeddings" else bench.workload.output_tokens
    for line in serving.endpoint.planned(loads, latency_s, input_tokens, output_tokens):
        warnings.warn(line, stacklevel=5)


def _levels(
    bench: Bench,
    folder: RunFolder,
    drive: Callable[[], None],
    record: dict[str, Any],
    found: Callable[[], Find | None] = lambda: None,
) -> Run:
    """Run `drive` to its end, or to what stops it, and write up what was measured until then."""
    failure: RunFailed | None = None
    interrupted = False
    try:
        drive()
    except KeyboardInterrupt:
        interrupted = True
    except RunFailed as error:
        failure = error
    results = bench.finish(drain=not interrupted and failure is None)
    if results and not failure and not interrupted and not any(r.level.requests.completed for r in results):
        errors = ", ".join(f"{count} x {kind}" for kind, count in results[0].level.errors.items())
        failure = RunFailed(f"not one request was answered ({errors})")
    record |= {"interrupted": interrupted, "failure": str(failure) if failure else None}
    run = _concluded(folder, results, record, found())
    if failure is not None:
        raise RunFailed(f"{failure}; what was measured is in {folder.path}")
    return run


def _concluded(
    folder: RunFolder, results: Sequence[LevelResult], record: dict[str, Any], find: Find | None = None
) -> Run:
    """Write what people see of a run."""
    from pacemark.reporting.html import write_html

    summary = _summary(results, record, find)
    summary = msgspec.structs.replace(summary, timeline=timeline_of(results, folder))
    folder.write_run(record)
    folder.write_summary(summary)
    write_html(summary, folder.path / "report.html")
    return Run(summary, folder.path)


def _summary(results: Sequence[LevelResult], record: Mapping[str, Any], find: Find | None) -> Summary:
    """A run as its summary; `find` is the result of a search for a budget.

    What was measured in the open loop to confirm a search in the closed one is part of `find`, and no level.
    """
    if find is not None and find.load == "concurrency":
        untried = [tried for tried in find.confirmations if tried.level is None]
        find = msgspec.structs.replace(find, confirmations=confirmed(results, parse_budget(find.budget)) + untried)
        results = [r for r in results if isinstance(r.load, Concurrency)]
    cells = msgspec.convert(record.get("grid", []), list[Asked])
    together = record.get("repeats", 1) > 1 or find is not None
    groups: dict[tuple[Load, Asked | None, int], list[LevelResult]] = {}
    for n, result in enumerate(results):
        asked = cells[n % len(cells)] if cells else None
        groups.setdefault((result.load, asked, 0 if together else n), []).append(result)
    levels = [msgspec.structs.replace(pooled(same), asked=asked) for (_, asked, _), same in groups.items()]
    if find is not None:
        levels.sort(key=lambda level: level.load.value)
    budget = record["settings"].get("budget")
    points, laws = OperatingPoints(), Fits()
    if not cells:  # a grid has one load, so there is none to choose
        laws = fits(levels)
        if find is not None and find.answer is not None and find.answer.high is not None:
            laws = msgspec.structs.replace(laws, warning=None)  # a search went as far as its budget
        judge = meets(results, parse_budget(budget)) if budget else None
        points = operating_points(levels, judge, laws.scalability.knee if laws.scalability else None)
    return Summary(
        target=record["target"],
        workload=record["workload"],
        levels=levels,
        operating_points=points,
        fits=laws,
        run={key: value for key, value in record.items() if key not in ("target", "workload")},
        find=msgspec.UNSET if find is None else msgspec.to_builtins(find),
        slopes=slopes(levels) if cells else msgspec.UNSET,
    )


@contextlib.contextmanager
def _opened(
    where: str, options: Options, loads: Sequence[Load] = ()
) -> Iterator[tuple[Target, Workload, Settings, Serving | None]]:
    """Check everything the user gave, and start what has to be started."""
    workload = Workload(
        input_tokens=_at_least("--input-tokens", options.get("input_tokens", 256), 1),
        output_tokens=_at_least("--output-tokens", options.get("output_tokens", 128), 1),
        seed=_at_least("--seed", seed, 0) if (seed := options.get("seed")) is not None else secrets.randbits(32),
        extra={k: msgspec.Raw(msgspec.json.encode(v)) for k, v in options.get("extra_body", {}).items()},
    )
    settings = Settings(
        duration_s=_positive("--duration", options.get("duration", 20.0)),
        max_duration_s=_positive("--max-duration", options.get("max_duration", 120.0)),
        precision=share("--precision", options.get("precision")),
        budget=str(parse_budget(text)) if (text := options.get("budget", "")) else "",
        workers=_workers(options.get("workers", "auto"), loads),
        stream=options.get("stream", True),
        timeout_s=_positive("--timeout", options.get("timeout", 600.0)),
        fresh_connections=options.get("fresh_connections", False),
        max_in_flight=_at_least("--max-in-flight", options.get("max_in_flight", 0), 0),
        seed_given=options.get("seed") is not None,
    )
    with contextlib.ExitStack() as stack:
        if where.startswith("sim:"):
            from pacemark.simulator import serving as embedded

            served = stack.enter_context(embedded(where.removeprefix("sim:")))
            url, model = served.url, options.get("model", "") or served.model
        else:
            url, model = where, options.get("model", "")
        access: Any = {
            "headers": options.get("headers", ()),
            "ca_file": options.get("ca_file", ""),
            "insecure": options.get("insecure", False),
        }
        api, key = options.get("api", "chat"), options.get("api_key_env", "")
        serving: Serving | None = None
        if where.startswith(SCHEME):
            serving = open_serving(where.removeprefix(SCHEME), options.get("profile", ""))
            for line in serving.endpoint.warnings(workload.input_tokens):
                warnings.warn(line, stacklevel=5)
            place = serving.target(target(f"{serving.host}/serving-endpoints", model=model, api=api, **access))
        else:
            place = target(url, model=model, api=api, api_key_env=key, **access)
            if not model:
                place = msgspec.structs.replace(place, model=only_model(place))
        if place.api == "embeddings":  # an answer is one vector, whole
            workload = msgspec.structs.replace(workload, output_tokens=1)
            settings = msgspec.structs.replace(settings, stream=False)
        yield place, workload, settings, serving


def _record(
    place: Target, workload: Workload, settings: Settings, loads: Sequence[Load], options: Options
) -> dict[str, Any]:
    """What `run.json` says: all that is needed to repeat the run and to judge its host; nothing secret."""
    return {
        "schema": "pacemark/run/1",
        "command": shlex.join(place.redacted(word) for word in options.get("command", ())),
        "started": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "target": place.described(),
        "header_names": sorted(place.headers),
        "workload": msgspec.to_builtins(workload),
        "settings": msgspec.to_builtins(settings),
        "loads": msgspec.to_builtins(list(loads)),
        "repeats": options.get("repeats", 1),
        "host": {
            "system": platform.platform(),
            "python": platform.python_version(),
            "cpus": _cpus(),
            "implementation": sys.implementation.name,
        },
        "versions": {"pacemark": pacemark.__version__} | _versions("numpy", "scipy", "uvloop", "httptools", "msgspec"),
    }


def _versions(*names: str) -> dict[str, str]:
    from importlib.metadata import version

    return {name: version(name) for name in names}


def _silent(status: Status) -> None:
    """The default observer."""


def _counter(options: Options) -> Callable[[str], int] | None:
    path = options.get("tokenizer")
    if path is None:
        return None
    try:
        from tokenizers import Tokenizer
    except ImportError:
        raise BadInput("--tokenizer needs the extra: pip install 'pacemark[tokenizers]'") from None
    file = Path(path) / "tokenizer.json" if Path(path).is_dir() else Path(path)
    try:
        tokenizer = Tokenizer.from_file(str(file))
    except Exception as error:  # the library raises bare exceptions
        raise BadInput(f"--tokenizer {path}: cannot be read as a tokenizer.json ({error})") from None
    return lambda text: len(tokenizer.encode(text, add_special_tokens=False).ids)


def _concurrency(value: int) -> Concurrency:
    return Concurrency(_at_least("--concurrency", value, 1))


def _rate(value: float, arrivals: Arrivals, burstiness: float) -> Rate:
    if arrivals not in ("poisson", "constant", "gamma"):
        raise BadInput(f"--arrivals {arrivals!r} is not known: use poisson, constant or gamma")
    cv = {"poisson": 1.0, "constant": 0.0}.get(arrivals, burstiness)
    if arrivals == "gamma":
        _positive("--burstiness", burstiness)
    return Rate(_positive("--rate", value), arrivals, cv)


STREAMS_PER_WORKER = 512
"""What one worker carries at 50 tokens/s per stream with room to spare (docs/accuracy.md)."""


def _workers(value: int | str, loads: Sequence[Load]) -> int:
    """As many as the load needs, and no more than leave a core to the rest of the machine."""
    if value == "auto":
        # In open loop nobody knows the streams beforehand; answers of five seconds are taken for granted.
        streams = max((load.value * (1 if isinstance(load, Concurrency) else 5) for load in loads), default=1)
        return max(1, min(_cpus() - 1, math.ceil(streams / STREAMS_PER_WORKER)))
    try:
        return _at_least("--workers", int(value), 1)
    except ValueError:
        raise BadInput(f"--workers {value!r} is neither a number nor auto") from None


def _at_least(flag: str, value: object, least: int) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or value < least:
        raise BadInput(f"{flag} {value}: must be a whole number of at least {least}")
    return value


def share(flag: str, value: float | str | None) -> float | None:
    """A share from `0.05` or `5%`; None for nothing. Raises BadInput."""
    if value is None or value == "":
        return None
    text = str(value)
    try:
        share = float(text.removesuffix("%")) / (100 if text.endswith("%") else 1)
    except ValueError:
        share = 0.0
    if not 0 < share < 1:
        raise BadInput(f"{flag} {value}: give a share between 0 and 1, or a percentage such as 5%")
    return share


def _cpus() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _positive(flag: str, value: float) -> float:
    if not (isinstance(value, (int, float)) and math.isfinite(value) and value > 0):
        raise BadInput(f"{flag} {value}: must be a number above 0")
    return float(value)
