"""What was ordered: one value for the flags, the Python face, `run.json` and everything that carries a run out.

Defaults and checks of what a user may give stand here and nowhere else. Nothing in a `Scenario` is secret: headers
are not part of it, and a key is named by the variable that holds it.
"""

from __future__ import annotations

import difflib
import math
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, get_type_hints

import msgspec

from pacemark.budget import Budget
from pacemark.budget import parse as parse_budget
from pacemark.errors import BadInput
from pacemark.machine import STREAMS_PER_WORKER, most_workers, workers_for
from pacemark.pace import Arrivals, Concurrency, Load, Rate
from pacemark.summary import Asked
from pacemark.traffic import Recording as Recording
from pacemark.traffic import TrafficWords, given, workload_of
from pacemark.traffic import Workload as Workload
from pacemark.values import at_least, lasting, positive, refuse_kinds, seconds, share

CONCURRENCY = (1, 2, 4, 8, 16, 32, 64)
"""The levels of a sweep that names none."""


class Words(TrafficWords, total=False):
    """What may be given with any target. The flags of the CLI have these names."""

    model: str
    api: str
    duration: float | str
    """Steady load to measure at each level: seconds, "20s" or "2m"; the ramp before it and the hold after it come on
    top."""
    requests: int | None
    """End a level once so many requests of its window have ended, or by `duration`, if that is given too and is over
    first."""
    precision: float | str | None
    """Measure each level until its intervals are this tight, and for `duration` if that is given: 0.05 or "5%"."""
    max_duration: float | str
    """Longest time to measure a level when `precision` is given."""
    repeats: int
    """Measure every level this many times, in turn."""
    budget: str
    """Limits to count goodput against: `ttft p95 < 500ms, tpot p95 < 50ms`."""
    stream: bool
    workers: int | str
    nodes: int | None
    """Load from so many machines of a Ray cluster, `workers` on each; None: from this machine alone."""
    ray: str
    """The address of that cluster; `auto` is the one that this machine is part of."""
    timeout: float | str
    stall_timeout: float | str | None
    """Longest time between two events of an answer, in seconds; None: as long as `timeout` allows."""
    wait: float | str
    """How long to wait for an endpoint that is not ready: seconds, or "120s"."""
    ignore_eos: bool
    """Ask for answers of the whole length, where the server lets that be asked."""
    api_key_env: str
    ca_file: str
    insecure: bool
    profile: str
    """A profile of ~/.databrickscfg, for targets in a Databricks workspace."""
    tokenizer: str | Path | None
    metrics: str | Sequence[str]
    """Where the server exports its metrics: URLs, or `auto` for the target's own host."""
    metrics_map: str
    """Names of metrics that are not known: `running=my_running, kv_used=my_cache*0.01`."""
    fresh_connections: bool
    keep_bodies: bool
    """Keep what was sent and answered, word for word, in `bodies.db` of the run folder."""
    max_in_flight: int
    labels: Mapping[str, str] | Sequence[str]
    """What to remember of the server or the occasion, such as `gpu=h100`; kept with the run."""
    max_error_share: float | str | None
    """Stop the run once more of a level fails: 0.05 or "5%"."""
    max_requests: int | None
    """Stop the run before it has sent more, over all levels; the same for `max_tokens`, in and out, and `max_cost`."""
    max_tokens: int | None
    max_cost: float | None
    price_per_hour: float | None
    price_per_million: float | None
    """What a million tokens cost, in and out."""
    ask_above: float
    """Begin no run that is likely to cost more, unless `yes` or a `max_cost` is given or the target is this machine."""
    yes: bool


DOCUMENTS = 8
"""Of a request to rerank or score, where nobody says how many."""

DEMO: Words = {"input_tokens": 256, "output_tokens": 64, "duration": 4.0}
"""What the demo asks for, where nothing else is said."""
SEARCH: Words = {"duration": 10.0, "max_duration": 60.0}
"""The same for a search."""
CHECK: Words = {"output_tokens": 16, "timeout": 60.0}
"""The same for a look at the endpoint."""


class Settings(msgspec.Struct, frozen=True):
    """How to measure, as opposed to what."""

    duration_s: float = 20.0
    max_duration_s: float = 120.0
    requests: int | None = None
    """End a level once so many requests of its window have ended."""
    timed: bool = True
    """Whether `duration_s` ends a level; not where `requests` alone was given."""
    precision: float | None = None
    """Measure until the intervals are this tight (0.05: 5%), for `least_s` at least and `max_duration_s` at most."""
    least_s: float = 0.0
    budget: Budget | None = None
    """Limits that goodput is counted against. As JSON: its text, empty for none."""
    workers: int = 1
    """On each machine."""
    nodes: int = 0
    """Machines of a Ray cluster that carry the load; 0: this one alone."""
    ray: str = "auto"
    """The address of that cluster."""
    stream: bool = True
    timeout_s: float = 600.0
    fresh_connections: bool = False
    keep_bodies: bool = False
    max_in_flight: int = 0
    seed_given: bool = False
    """The seed was not drawn for this run, so that an earlier one may have sent the same prompts."""
    wait_s: float = 0.0
    """How long to wait for an endpoint that is not ready yet."""
    ignore_eos: bool = True
    """Try whether the server takes `ignore_eos` and `min_tokens`."""
    stall_timeout_s: float | None = None
    """Longest time between two events of an answer; None: no limit but `timeout_s`."""
    max_error_share: float | None = None
    """Stop the run once more of a level fails."""


class Access(msgspec.Struct, frozen=True):
    """The way to the endpoint, as far as it is no secret."""

    model: str = ""
    api: str = "chat"
    api_key_env: str = ""
    ca_file: str = ""
    insecure: bool = False
    profile: str = ""
    tokenizer: str = ""
    metrics: list[str] = []
    """Where the server's metrics are read; `auto`: at the target's own host."""
    metrics_map: str = ""


# --- goals


class Levels(msgspec.Struct, frozen=True, tag_field="goal", tag="levels"):
    """These loads one after the other, and all of them `repeats` times."""

    loads: tuple[Load, ...]
    repeats: int = 1


class Grid(msgspec.Struct, frozen=True, tag_field="goal", tag="grid"):
    """A length grid: every pair of lengths at one load, and all of them `repeats` times."""

    load: Load
    cells: tuple[Asked, ...]
    repeats: int = 1


class Search(msgspec.Struct, frozen=True, tag_field="goal", tag="search"):
    """The largest load that meets the budget; which ones to try shows as it goes."""

    load: Literal["concurrency", "rate", "speed"] = "concurrency"
    arrivals: Arrivals = "poisson"
    burstiness: float = 1.0
    within: float = 0.05
    """How narrow the answer's interval should be, as a share of it."""
    most: float = 4096
    confirm: bool = False
    """Try the answer of the closed loop in the open one."""


class Check(msgspec.Struct, frozen=True, tag_field="goal", tag="check"):
    """A handful of requests that tell what the endpoint is."""


Goal = Levels | Grid | Search | Check


def steps(goal: Goal) -> Sequence[tuple[Load, Asked | None]]:
    """Every level that is known beforehand, in order, with the lengths that it asks for where they change."""
    match goal:
        case Levels(loads, repeats):
            return [(load, None) for load in loads] * repeats
        case Grid(load, cells, repeats):
            return [(load, cell) for cell in cells] * repeats
    return []


def one_level(
    concurrency: int | None, rate: float | None, arrivals: Arrivals, burstiness: float, words: Words
) -> Levels:
    """The goal of `run`. Raises BadInput unless there is one load."""
    if given(words.get("trace")):
        return _replayed(concurrency, rate, words, most=1)
    if (concurrency is None) == (rate is None):
        raise BadInput("give one load: --concurrency N or --rate R")
    _refuse_process(rate is not None, arrivals, burstiness)
    load = _closed(concurrency) if concurrency is not None else _open(rate or 0.0, arrivals, burstiness)
    return Levels((load,), _repeats(words))


def curve(
    concurrency: Sequence[int] | None,
    rate: Sequence[float] | None,
    arrivals: Arrivals,
    burstiness: float,
    words: Words,
) -> Levels | Grid:
    """The goal of `sweep`: levels of load, or a grid where several lengths are given. Raises BadInput."""
    if given(words.get("trace")):
        return _replayed(concurrency, rate, words)
    _refuse_process(rate is not None, arrivals, burstiness)
    pairs = _cells(words)
    if len(pairs) > 1:
        if rate is not None or (concurrency is not None and len(concurrency) != 1):
            raise BadInput("several lengths are measured at one load: give one --concurrency, and no --rate")
        return Grid(_closed(concurrency[0] if concurrency else 1), pairs, _repeats(words))
    if concurrency is not None and rate is not None:
        raise BadInput("give one kind of load: --concurrency or --rate")
    loads: tuple[Load, ...] = (
        tuple(_open(r, arrivals, burstiness) for r in rate)
        if rate is not None
        else tuple(_closed(c) for c in (concurrency if concurrency is not None else CONCURRENCY))
    )
    if not loads:
        raise BadInput("no load level given: for example --concurrency 1,2,4,8")
    return Levels(loads, _repeats(words))


def _replayed(concurrency: Any, rate: Any, words: Words, most: int = 99) -> Levels:
    """A trace at each of its speeds. How many requests a second that is shows when the file is read."""
    if concurrency is not None or rate is not None:
        raise BadInput("--trace needs no other load: leave --concurrency and --rate out; --speed 2 is twice as fast")
    if words.get("precision"):
        raise BadInput("--precision ends a level early, and a part of a trace is another trace: leave it out")
    speeds = words.get("speed") or 1.0
    speeds = list(speeds) if isinstance(speeds, Sequence) else [speeds]
    if len(speeds) > most:
        raise BadInput("run plays a trace at one speed: sweep takes several")
    loads = tuple(Rate(value, "trace", speed=value) for value in (positive("--speed", x) for x in speeds))
    return Levels(loads, _repeats(words))


def _by_rows(words: Words) -> bool:
    """Whether the rows of a file end a level."""
    return bool(words.get("once")) or given(words.get("trace"))


IDLE = "says how to measure a TARGET, and the run of --from has been measured: leave it out"


def refuse_search(goal: Search, words: Words, target: str, stored: bool) -> None:
    """Raise BadInput where `find` lacks a budget or one place to look, or could not confirm what it finds."""
    if not words.get("budget"):
        raise BadInput("find needs a budget: for example --budget 'ttft p95 < 500ms, tpot p95 < 50ms'")
    if stored == bool(target):
        raise BadInput("give one place to find it: a TARGET to measure, or --from RUN")
    idle = sorted(words.keys() - {"budget", "observe", "command", "out"}) + ["most"] * (goal.most != Search().most)
    if stored and idle:
        raise BadInput(f"--{idle[0].replace('_', '-')} {IDLE}")
    share("--within", goal.within)
    positive("--most", goal.most)
    _refuse_process(goal.load == "rate", goal.arrivals, goal.burstiness)
    if goal.load == "speed" and words.get("speed"):
        raise BadInput("find looks for the --speed of a --trace itself: leave it out")
    if goal.confirm and (goal.load != "concurrency" or stored):
        why = "a stored run can try nothing" if stored else "a rate is found in the open loop already"
        raise BadInput(f"--confirm tries the answer of a closed loop in the open one: {why}")


# --- the order as a whole


class Scenario(msgspec.Struct, frozen=True):
    """What was ordered, checked."""

    target: str
    """As given: a URL, `sim:PRESET` or `databricks:ENDPOINT`."""
    goal: Goal
    workload: Workload = Workload()
    settings: Settings = Settings()
    access: Access = Access()

    @property
    def loads(self) -> list[Load]:
        """The load of every level that is known beforehand."""
        return [load for load, _ in steps(self.goal)]


def ordered(target: str, goal: Goal, words: Words) -> Scenario:
    """The order that `words` make. Raises BadInput for any of them that cannot work."""
    if not isinstance(target, str):
        raise BadInput(f"the target {str(target)[:60]!r} is no text: give a URL, such as 'http://host:8000/v1'")
    refuse_kinds(words, get_type_hints(Words))
    seed = words.get("seed")
    _refuse_idle(goal, words)
    # Of a grid the bench gets ready with the longest, so that one that the context cannot hold is refused at once.
    longest = _cells(words)[-1] if isinstance(goal, Grid) else None
    workload = workload_of(words, longest)
    stall, most, nodes = words.get("stall_timeout"), words.get("requests"), _nodes(target, words)
    settings = Settings(
        duration_s=lasting("--duration", words.get("duration", 20.0)),
        max_duration_s=lasting("--max-duration", words.get("max_duration", 120.0)),
        requests=None if most is None else at_least("--requests", most, 1),
        timed=(most is None and not _by_rows(words)) or "duration" in words,
        precision=share("--precision", words.get("precision")),
        least_s=lasting("--duration", words["duration"]) if words.get("precision") and "duration" in words else 0.0,
        budget=parse_budget(text) if (text := words.get("budget", "")) else None,
        workers=_workers(words.get("workers", "auto"), [load for load, _ in steps(goal)], nodes),
        nodes=nodes,
        ray=words.get("ray", "auto"),
        stream=words.get("stream", True),
        timeout_s=lasting("--timeout", words.get("timeout", 600.0)),
        fresh_connections=words.get("fresh_connections", False),
        keep_bodies=words.get("keep_bodies", False),
        max_in_flight=at_least("--max-in-flight", words.get("max_in_flight", 0), 0),
        seed_given=seed is not None,
        wait_s=seconds("--wait", words.get("wait", 0.0)),
        ignore_eos=_ignore_eos(words),
        stall_timeout_s=None if stall is None else lasting("--stall-timeout", stall),
        max_error_share=share("--max-error-share", words.get("max_error_share")),
    )
    tokenizer, metrics = words.get("tokenizer"), words.get("metrics", "")
    if words.get("metrics_map") and not metrics:
        raise BadInput("--metrics-map names metrics that are to be read: give --metrics URL or auto too")
    access = Access(
        model=words.get("model", ""),
        api=words.get("api", "chat"),
        api_key_env=words.get("api_key_env", ""),
        ca_file=words.get("ca_file", ""),
        insecure=words.get("insecure", False),
        profile=words.get("profile", ""),
        tokenizer="" if tokenizer is None else str(tokenizer),
        metrics=list(filter(None, metrics.split(",") if isinstance(metrics, str) else metrics)),
        metrics_map=words.get("metrics_map", ""),
    )
    return Scenario(target, goal, workload, settings, access)


def _refuse_idle(goal: Goal, words: Words) -> None:
    """Raises BadInput for words that would do nothing for this goal."""
    closed = isinstance(goal, Search) and goal.load == "concurrency" and not goal.confirm
    if words.get("max_in_flight") and (closed or any(isinstance(load, Concurrency) for load, _ in steps(goal))):
        raise BadInput("--max-in-flight is of an open loop; in a closed one --concurrency says how many")
    if words.get("ask_above"):
        positive("--ask-above", words["ask_above"])


def _ignore_eos(words: Words) -> bool:
    """Whether answers are asked to go on past their end. A call, or JSON, ends where it is whole, and engines fail that
    are held to both. Raises BadInput where both were asked for."""
    formed = bool(words.get("tools") or words.get("response_format"))
    if formed and words.get("ignore_eos"):
        raise BadInput("--ignore-eos would write on past the end of a call or of JSON: leave it out")
    return words.get("ignore_eos", not formed)


def _refuse_process(open_loop: bool, arrivals: str, burstiness: float) -> None:
    """Raises BadInput for words of arrivals that would do nothing."""
    if not open_loop and (arrivals != "poisson" or burstiness != 1.0):
        raise BadInput("--arrivals and --burstiness are of an open loop: give --rate, or leave them out")
    if arrivals in ("poisson", "constant") and burstiness != 1.0:
        raise BadInput(f"--burstiness is of gamma arrivals, and these are {arrivals}: give --arrivals gamma")


def _repeats(words: Words) -> int:
    return at_least("--repeats", words.get("repeats", 1), 1, 10_000)


def _closed(value: int) -> Concurrency:
    return Concurrency(at_least("--concurrency", value, 1))


def _open(value: float, arrivals: Arrivals, burstiness: float) -> Rate:
    if arrivals not in ("poisson", "constant", "gamma"):
        raise BadInput(f"--arrivals {arrivals!r} is not known: use poisson, constant or gamma")
    cv = {"poisson": 1.0, "constant": 0.0}.get(arrivals, burstiness)
    if arrivals == "gamma":
        positive("--burstiness", burstiness)
    return Rate(positive("--rate", value), arrivals, cv)


def _cells(words: Words) -> tuple[Asked, ...]:
    """Every pair of an input with an output length, shortest first; none of a distribution. Raises BadInput."""
    each: list[list[int]] = []
    for name in ("input_tokens", "output_tokens"):
        value: Any = words.get(name, getattr(Workload(), name))
        values = list(value) if isinstance(value, Sequence) and not isinstance(value, str) else [value]
        flag = f"--{name.replace('_', '-')}"
        if not values:
            raise BadInput(f"{flag}: give at least one length, for example 256,1024,4096")
        if len(values) == 1 and isinstance(values[0], str):
            return ()
        each.append(sorted({at_least(flag, length, 1) for length in values}))
    return tuple(Asked(i, o) for i in each[0] for o in each[1])


def _nodes(target: str, words: Words) -> int:
    """Machines to load from; 0 for this one alone. Raises BadInput."""
    nodes = words.get("nodes")
    if nodes is None:
        if words.get("ray", "auto") != "auto":
            raise BadInput("--ray says which cluster: say with --nodes how many of its machines to load from")
        return 0
    if target.startswith("sim:"):
        raise BadInput(f"{target} runs on this machine alone, so --nodes has nothing to load: give the URL of a server")
    return at_least("--nodes", nodes, 1)


def _workers(value: int | str, loads: Sequence[Load], nodes: int) -> int:
    """As many as the load needs, and no more than leave a core to the rest of the machine; on each of `nodes` machines,
    of which it is not known yet how many cores they have."""
    if value == "auto":
        # In open loop nobody knows the streams beforehand; answers of five seconds are taken for granted.
        streams = max((load.value * (1 if isinstance(load, Concurrency) else 5) for load in loads), default=1)
        return max(1, math.ceil(streams / nodes / STREAMS_PER_WORKER)) if nodes else workers_for(streams)
    try:
        count = at_least("--workers", int(value), 1)
    except (TypeError, ValueError):
        raise BadInput(f"--workers {value!r} is neither a number nor auto") from None
    if not nodes and count > (most := most_workers()):
        raise BadInput(
            f"--workers {count}: this machine has CPUs for {most} at the very most; auto takes what is needed"
        )
    return count


def refuse_unknown(given: Mapping[str, Any], known: Iterable[str]) -> None:
    """Raises BadInput for an option that does not exist, with the nearest that does."""
    known = list(known)
    for name in given:
        if name not in known:
            near = difflib.get_close_matches(name, known, 1)
            raise BadInput(f"there is no option {name!r}" + (f": did you mean {near[0]!r}?" if near else ""))
