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
from pacemark.budget import parse as parse_budget
from pacemark.calibration import warning as beyond_calibration
from pacemark.comparison import Compared, compare_runs
from pacemark.curve import operating_points
from pacemark.endpoint.target import Target, only_model, target
from pacemark.errors import BadInput, RunFailed
from pacemark.exchange import ABSENT, Exchange, trace_of
from pacemark.health import health_of
from pacemark.level import LevelResult, replicated, sum_up
from pacemark.measure import Bench, Settings
from pacemark.metrics import Window
from pacemark.pace import Arrivals, Concurrency, Load, Rate
from pacemark.progress import Status
from pacemark.search import Allowance, Step
from pacemark.search import find as search_for
from pacemark.store import RunFolder
from pacemark.summary import Find, Level, Summary
from pacemark.workload import Workload

if TYPE_CHECKING:
    import altair
    import pandas

DEFAULT_CONCURRENCY = (1, 2, 4, 8, 16, 32, 64)


class Options(TypedDict, total=False):
    """What every measuring function takes beside its target and loads. The flags of the CLI have these names."""

    model: str
    api: str
    input_tokens: int
    output_tokens: int
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

    def to_pandas(self) -> pandas.DataFrame:
        """One row per level; columns such as `ttft_ms.p50.value`. Needs pandas."""
        import pandas

        return pandas.json_normalize(msgspec.to_builtins(self.levels))

    def plot(self) -> altair.LayerChart:
        """The throughput-latency curve."""
        from pacemark.reporting.charts import curve_chart

        return curve_chart(self.summary)

    def _repr_mimebundle_(self, **_: Any) -> Any:
        return self.plot()._repr_mimebundle_()


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
    """Measure a throughput-latency curve, one level after the other. Raises as `run` does."""
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
    with _opened(target, options) as (place, workload, settings):
        with Bench(place, workload, settings, _counter(options)) as bench:
            bench.prepare()
            bench.finish()
        first, prompts, accepted = bench.first, bench.prompts, bench.options

    def since(ns: int) -> float | None:
        return None if ns == ABSENT else (ns - first.sent_ns) / 1e6

    last_ns = int(first.hi_ns[-1]) if len(first.hi_ns) else ABSENT
    return {
        "target": place.described(),
        "streams": first.first_event_ns != ABSENT,
        "reports_usage": first.tokens_source == "usage",
        "accepts": [n for n in ("ignore_eos", "min_tokens") if getattr(accepted, n)],
        "max_tokens_field": accepted.max_tokens_field,
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


def report(path: str | Path) -> Run:
    """Compute summary and report of a stored run anew from its requests. Raises BadInput where there are none."""
    folder = RunFolder.open(Path(path))
    try:
        record = folder.run()
        results = []
        budget = parse_budget(text) if (text := record["settings"].get("budget")) else None
        for level, load, window, ended_by, died in folder.levels():
            exchanges = list(folder.exchanges(level))
            if "interrupted" not in record:  # it was killed, so the window may not have come to its planned end
                known_ns = _known_until(exchanges, record["settings"]["workers"])
                window = Window(window.start_ns, min(window.end_ns, known_ns))
            trace = trace_of(exchanges, isinstance(load, Rate))
            health = health_of(exchanges, folder.beats(level), died)
            results.append(sum_up(load, trace, window, health, budget=budget, ended_by=ended_by))
        if not results:
            raise BadInput(f"{folder.path} holds no level: the run was cut off before its first request")
        return _concluded(folder, results, record)
    finally:
        folder.close()


def _known_until(exchanges: Sequence[Exchange], workers: int) -> int:
    """Up to when a level that was cut off is on record whole; what was in flight at its end is not on record.

    Each worker numbers its requests in the order it sends them, so the first number that is missing was sent no
    sooner than the one before it.
    """
    sent_ns = {x.index: x.sent_ns for x in exchanges}
    missing = (next(n for n in itertools.count(worker, workers) if n not in sent_ns) for worker in range(workers))
    return min(sent_ns.get(n - workers, 0) for n in missing)


def find(
    target: str,
    *,
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

    The answer is in `.summary.find`. `within` is how narrow its interval should be. Raises as `run` does.
    """
    if not options.get("budget"):
        raise BadInput("find needs a budget: for example --budget 'ttft p95 < 500ms, tpot p95 < 50ms'")
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

        return _levels(bench, folder, drive, record, lambda: answer[0] if answer else None)

    defaults: Options = {"duration": 10.0, "max_duration": 60.0}
    return _run(target, [], defaults | options, search)


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
    be as well; further options are those of `pacemark.simulator.server.Options`. Raises BadInput.
    """
    from pacemark.simulator import customised, named, server
    from pacemark.simulator.databricks import Workspace
    from pacemark.simulator.faults import read_faults

    if faults:
        options["faults"] = read_faults(faults)
    if databricks:
        options["databricks"] = Workspace(endpoint=databricks)
    chosen = customised(named(preset), dict(change or {}))
    server.run(server.Options(preset=chosen, host=host, port=port, **options))


# --- the one way from a target to a run


def _measure(where: str, loads: Sequence[Load], options: Options) -> Run:
    loads = list(loads) * _at_least("--repeats", options.get("repeats", 1), 1)

    def sweep_over(bench: Bench, folder: RunFolder, record: dict[str, Any]) -> Run:
        bench.levels_planned = len(loads)

        def drive() -> None:
            for load in loads:
                bench.measure(load)

        return _levels(bench, folder, drive, record)

    return _run(where, loads, options, sweep_over)


def _run(
    where: str, loads: Sequence[Load], options: Options, body: Callable[[Bench, RunFolder, dict[str, Any]], Run]
) -> Run:
    """Open the target and a run folder, prepare, and hand over to `body`."""
    with _opened(where, options, loads) as (place, workload, settings):
        if beyond := beyond_calibration(loads, place.tls):
            warnings.warn(beyond, stacklevel=4)
        record = _record(place, workload, settings, loads, options)
        folder = RunFolder.create(Path(options.get("out", "runs")), f"{place.host} {place.model}", record)
        try:
            with Bench(place, workload, settings, _counter(options), options.get("observe", _silent)) as bench:
                bench.folder = folder
                bench.prepare()
                record["workload"] |= {
                    "prompts": msgspec.to_builtins(bench.prompts),
                    "options": msgspec.to_builtins(bench.options),
                }
                folder.write_run(record)
                return body(bench, folder, record)
        finally:
            empty = not folder.levels()
            folder.close()
            if empty:  # nothing was measured, so nothing is left behind
                shutil.rmtree(folder.path)


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

    groups: dict[Load, list[Level]] = {}
    for result in results:
        groups.setdefault(result.load, []).append(result.level)
    repeats = record.get("repeats", 1)
    searched = isinstance(find, Find)
    levels = [replicated(g) for g in groups.values()] if repeats > 1 or searched else [r.level for r in results]
    if searched:
        levels.sort(key=lambda level: level.load.value)
    summary = Summary(
        target=record["target"],
        workload=record["workload"],
        levels=levels,
        operating_points=operating_points(levels),
        run={key: value for key, value in record.items() if key not in ("target", "workload")},
        find=msgspec.to_builtins(find) if isinstance(find, Find) else msgspec.UNSET,
    )
    folder.write_run(record)
    folder.write_summary(summary)
    write_html(summary, folder.path / "report.html")
    return Run(summary, folder.path)


@contextlib.contextmanager
def _opened(where: str, options: Options, loads: Sequence[Load] = ()) -> Iterator[tuple[Target, Workload, Settings]]:
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
    )
    with contextlib.ExitStack() as stack:
        if where.startswith("sim:"):
            from pacemark.simulator import serving

            served = stack.enter_context(serving(where.removeprefix("sim:")))
            url, model = served.url, options.get("model", "") or served.model
        else:
            url, model = where, options.get("model", "")
        place = target(
            url,
            model=model,
            api=options.get("api", "chat"),
            api_key_env=options.get("api_key_env", ""),
            headers=options.get("headers", ()),
            ca_file=options.get("ca_file", ""),
            insecure=options.get("insecure", False),
        )
        if not model:
            place = msgspec.structs.replace(place, model=only_model(place))
        yield place, workload, settings


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


def _at_least(flag: str, value: int, least: int) -> int:
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
