"""The Python face. Its words are those of the command line; both are thin."""

from __future__ import annotations

import dataclasses
import functools
import inspect
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, ParamSpec, TypedDict, TypeVar, Unpack, get_type_hints

import msgspec

from pacemark import scenario
from pacemark.answers.allowance import SEARCH_S, Allowance
from pacemark.answers.comparison import compare_runs
from pacemark.answers.family import corrected
from pacemark.answers.gate import gated, parse_condition
from pacemark.answers.planning import Plan, parse_demand
from pacemark.answers.sizes import parse_size
from pacemark.answers.step import Step
from pacemark.budget import parse as parse_budget
from pacemark.errors import BadInput
from pacemark.pace import Arrivals, Concurrency
from pacemark.runs import against, checking, conclude, conduct
from pacemark.runs.conduct import Options
from pacemark.runs.folder import RunFolder
from pacemark.runs.resume import Anew, resumed
from pacemark.runs.run import ComparedRuns, ContestOfRuns, Run
from pacemark.runs.together import write_index, write_together
from pacemark.runs.versus import ROUNDS, SLICE_S, contested
from pacemark.traffic import given
from pacemark.values import positive, refuse_kinds, share

__all__ = [
    "Options", "Run", "ServeOptions", "check", "compare", "demo", "find", "index", "load", "log_to_mlflow", "plan",
    "report", "resume", "run", "serve", "share", "show", "sweep", "together", "versus",
]  # fmt: skip

_OPTIONS = tuple(Options.__annotations__)
_Given = ParamSpec("_Given")
_Found = TypeVar("_Found")


def _looked_at(face: Callable[_Given, _Found]) -> Callable[_Given, _Found]:
    """`face`, which raises BadInput for an argument of another kind than it takes, and no TypeError from the depths."""
    bind = inspect.signature(face).bind

    @functools.wraps(face)
    def called(*args: _Given.args, **named: _Given.kwargs) -> _Found:
        found = bind(*args, **named).arguments
        refuse_kinds(found.pop("options", {}), get_type_hints(Options))
        refuse_kinds(found, get_type_hints(face), none=False)
        return face(*args, **named)

    return called


@_looked_at
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
    scenario.refuse_unknown(options, _OPTIONS)
    goal = scenario.one_level(concurrency, rate, arrivals, burstiness, options)
    return conduct.measured(target, goal, options)


@_looked_at
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
    scenario.refuse_unknown(options, _OPTIONS)
    goal = scenario.curve(concurrency, rate, arrivals, burstiness, options)
    return conduct.measured(target, goal, options)


def demo(**options: Unpack[Options]) -> Run:
    """Sweep the embedded endpoint over 1 to 64 parallel requests, in under a minute."""
    goal = scenario.Levels(tuple(Concurrency(streams) for streams in scenario.CONCURRENCY))
    return conduct.measured("sim:demo", goal, {**scenario.DEMO, **options})


def check(target: str, **options: Unpack[Options]) -> dict[str, Any]:
    """Send a handful of requests and tell what the endpoint is and what it can report.

    Raises BadInput where it does not answer as an endpoint of that API.
    """
    found: dict[str, Any] = msgspec.to_builtins(
        checking.checked(target, scenario.Check(), {**scenario.CHECK, **options})
    )
    return found


@_looked_at
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


@_looked_at
def report(path: str | Path, *, budget: str = "") -> Run:
    """Compute summary and report of a stored run anew from its requests, with another `budget` where one is given.

    Raises BadInput where there are none.
    """
    return conclude.anew(Path(path), parse_budget(budget) if budget else None)


@_looked_at
def together(paths: Sequence[str | Path], *, output: str | Path = "together.html") -> Path:
    """Write one page of several stored runs, 2 to 8: the curve of each, and how each differs from the first. Raises
    BadInput."""
    return write_together([Path(path) for path in paths], Path(output))


@_looked_at
def index(folder: str | Path = "runs", *, output: str | Path = "") -> Path:
    """Write a page of the runs in a folder: the newest answers, how they went over time, and a link to each report; to
    `index.html` in the folder if nothing else is said. Raises BadInput."""
    return write_index(Path(folder), Path(output) if output else Path(folder) / "index.html")


@_looked_at
def resume(path: str | Path, *, tell: Callable[[Step], None] = lambda step: None, **anew: Unpack[Anew]) -> Run:
    """Go on with a run that was cut off, into its own folder, with what it was ordered with; of a folder of runs, the
    newest. `.summary.run["resumed"]` says from which level on. A level for most of which the endpoint was away
    (connections failed, and it had no request) is measured again with those after it, which is said. A run with nothing
    left to measure is given as it is.

    `headers` are not stored and are given again, `wait` is how long to wait for an endpoint that is not ready. Raises
    BadInput, also where another process writes the run, and RunFailed.
    """
    scenario.refuse_unknown(anew, Anew.__annotations__)
    return resumed(Path(path), anew, tell)


@_looked_at
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

    The answer is in `.summary.find`. `within` is how narrow its interval should be, `allowance` what the search may
    spend: 900 s if not given. `from_run` answers from the levels of an earlier run instead of a target: nothing is sent
    or written, and `.summary.find.next` is the load whose measurement would tighten the answer most. `confirm` then
    tries the answer in the open loop, with Poisson arrivals and with bursts; `.summary.find.confirmations` says what
    came of it. Raises as `run` does.
    """
    scenario.refuse_unknown(options, _OPTIONS)
    traced = given(options.get("trace"))
    if traced and rate:
        raise BadInput("--trace has arrivals of its own: leave --rate out; find looks for its --speed")
    kind: Any = "speed" if traced else "rate" if rate else "concurrency"
    goal = scenario.Search(kind, arrivals, burstiness, within, most, confirm)
    scenario.refuse_search(goal, options, target, stored=from_run is not None)
    if from_run is not None:
        if allowance is not None:
            raise BadInput(f"allowance {scenario.IDLE}")
        return conclude.answered(Path(from_run), parse_budget(options["budget"]), goal)
    for name, most in dataclasses.asdict(allowance or Allowance(SEARCH_S)).items():
        if most is not None:
            positive(f"allowance.{name}", most)
    words: Options = {**options} if traced else {**scenario.SEARCH, **options}
    return conduct.searched(target, goal, words, allowance or Allowance(SEARCH_S), tell)


@_looked_at
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
    positive("--burstiness", burstiness)
    if price_per_hour is not None:
        positive("--price-per-hour", price_per_hour)
    limits = parse_budget(budget) if budget else None
    return conclude.planned(Path(path), wanted, limits, burstiness=burstiness, price=price_per_hour, size=size)


@_looked_at
def compare(
    a: str | Path = "",
    b: str | Path = "",
    *,
    target: str = "",
    baseline: str | Path = "",
    fail_if: Sequence[str] = (),
    **options: Unpack[Options],
) -> ComparedRuns:
    """Run B against run A, level by level; with `fail_if`, conditions such as "ttft p95 > +5%", `.conditions` says
    which passed, failed, or are undecided, and about how many more requests decide them.

    Instead of a stored run B a `target` is measured against a `baseline`, with the baseline's own lengths and loads,
    until the conditions are decided, for the option `max_duration` in all at most (600 s if not given); `.b.run` is
    then the folder of the new run. Further options are those of the way to the target, `out`, `seed`, `workers`,
    `labels` and `observe`.

    Raises BadInput where they share no level, and for a condition of another form; with a target also as `run` does.
    """
    _refuse_sides(target, a, b, baseline, fail_if, options)
    if target:
        one, two = against.measured_against(target, Path(baseline), [parse_condition(x) for x in fail_if], options)
    else:
        one, two = load(a), load(b)
    cut_off = two.summary.run.get("ended") in ("interrupted", "failed") or two.summary.run.get("stopped")
    lacking = against.wanted_levels(one.summary) if target or cut_off else ()
    found = gated(compare_runs(one.summary, two.summary, wanted=lacking), fail_if, alone=bool(target))
    found = corrected(found, one.levels, two.levels)
    sides = {"a": (found.a, one), "b": (found.b, two)}
    named = {name: msgspec.structs.replace(side, run=str(run.path)) for name, (side, run) in sides.items() if side}
    return ComparedRuns(**{**msgspec.structs.asdict(found), **named})


def _refuse_sides(
    target: str, a: str | Path, b: str | Path, baseline: str | Path, fail_if: Sequence[str], options: Mapping[str, Any]
) -> None:
    """Raises BadInput unless there are two runs, or a target, a baseline and conditions to decide."""
    if bool(target) != bool(baseline) or bool(a) != bool(b) or bool(target) == bool(a):
        raise BadInput("compare takes two runs, A and B, or --target URL with --baseline RUN")
    if target and not fail_if:
        raise BadInput("--target is measured until conditions are decided: give one, --fail-if 'ttft p95 > +5%'")
    if options and not target:
        raise BadInput(f"{next(iter(options))!r} is an option of a target, and two stored runs were given")


@_looked_at
def versus(
    targets: Sequence[str],
    *,
    concurrency: Sequence[int] | None = None,
    rate: Sequence[float] | None = None,
    arrivals: Arrivals = "poisson",
    burstiness: float = 1.0,
    rounds: int = ROUNDS,
    prices: Sequence[float] = (),
    fail_if: Sequence[str] = (),
    **options: Unpack[Options],
) -> ContestOfRuns:
    """Tell which of 2 to 4 `targets` is better: each is measured in every one of `rounds`, for the option `duration`
    at every load (10 s if not given), one at a time and in an order that changes, so that what drifts cancels.

    `.winner` is the one that is better than every other in something and worse in nothing, or None; `prices` are those
    of an hour of each, from which `.cheapest` follows, and what a million output tokens cost. `fail_if` are conditions
    such as `ttft p95 > +5%` that the others must not meet against the first; `.conditions` says what became of them.
    The options `model` and `api_key_env` may name one for each target, separated by commas. Raises as `run` does.
    """
    scenario.refuse_unknown(options, _OPTIONS)
    wanted = [8] if concurrency is None and rate is None else concurrency
    goal = scenario.curve(wanted, rate, arrivals, burstiness, {})
    assert isinstance(goal, scenario.Levels)
    words: Options = {"duration": SLICE_S, **options}
    found = contested(targets, goal.loads, words, rounds=rounds, prices=prices, fail_if=fail_if)
    return ContestOfRuns(**msgspec.structs.asdict(found))


class ServeOptions(TypedDict, total=False):
    """Further options of `serve`, as `pacemark.simulator.server.options.ServerOptions` has them."""

    seed: int
    strict: bool
    api_key_env: str
    requests_per_s: float | None
    burst: int | None
    parallel: int | None
    tls: bool
    certfile: str
    keyfile: str
    until_eof: bool


def serve(
    preset: str = "demo",
    *,
    host: str = "127.0.0.1",
    port: int = 8000,
    change: Mapping[str, Any] | None = None,
    faults: str | Path = "",
    databricks: str = "",
    **options: Unpack[ServeOptions],
) -> None:
    """Run the embedded endpoint in this process until it is stopped.

    `change` sets fields of the preset, `faults` is a file of rules, `databricks` names an endpoint of a workspace to
    be as well; further options are those of `ServeOptions`. Raises BadInput.
    """
    from pacemark.simulator import customised, named
    from pacemark.simulator.server import server
    from pacemark.simulator.server.databricks import Workspace
    from pacemark.simulator.server.faults import read_faults

    if not 0 <= port <= 65535:  # asyncio takes such a number modulo 65536
        raise BadInput(f"--port {port}: must be between 0 and 65535; 0 is any that is free")
    serving = server.ServerOptions(
        preset=customised(named(preset), dict(change or {})),
        host=host,
        port=port,
        faults=read_faults(faults) if faults else [],
        databricks=Workspace(endpoint=databricks) if databricks else None,
        **options,
    )
    server.run(serving)
