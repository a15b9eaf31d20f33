"""A target measured against a stored run: the scenario of that again, until the conditions of a gate are decided."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from pathlib import Path
from time import monotonic

import msgspec

from pacemark.answers.decision import deciding, stands
from pacemark.answers.gate import Condition
from pacemark.errors import BadInput
from pacemark.machine import room_for
from pacemark.pace import Concurrency
from pacemark.runs.bench import HOLD_S, Bench
from pacemark.runs.conduct import Options, conducted
from pacemark.runs.folder import RunFolder
from pacemark.runs.record import RunRecord, read
from pacemark.runs.run import Run
from pacemark.scenario import Goal, Grid, Levels, Scenario, Search, ordered, refuse_unknown
from pacemark.summary import Level, Summary
from pacemark.values import lasting

__all__ = ["FREE", "measured_against", "wanted_levels"]

FREE = {
    "model", "api_key_env", "headers", "ca_file", "insecure", "profile", "wait", "workers", "seed", "out", "labels",
    "observe", "command", "max_duration", "max_error_share", "max_requests", "max_tokens", "max_cost",
    "price_per_hour", "price_per_million", "ask_above", "yes",
}  # fmt: skip
"""The options that are the new run's own; all else is as the baseline had it."""
LONGEST_S = 600.0
"""For all levels together, where nothing else is said."""
LEAST_S = 1.0
"""A level that would be shorter is not begun."""


def measured_against(where: str, baseline: Path, conditions: Sequence[Condition], options: Options) -> tuple[Run, Run]:
    """The baseline, and a run of its levels on the target `where` that is as long as the conditions need.

    It takes about `max_duration` at most, ramps and tails included, of which each level may have an equal part; what
    one leaves over the later ones share. It ends with the first level that fails a condition. Raises BadInput and
    RunFailed.
    """
    refuse_unknown(options, FREE)
    longest_s = lasting("--max-duration", options.get("max_duration", LONGEST_S))
    with contextlib.closing(RunFolder.open(baseline)) as folder:
        before = Run(folder.summary(), folder.path)
        record = read(folder.run())
    levels = wanted_levels(before.summary)
    if not levels:
        raise BadInput(f"{baseline} has no level that could be relied on, so nothing can be held against it")
    scenario = _order(where, record, levels, options)
    streams = max((x.load.value for x in levels if isinstance(x.load, Concurrency)), default=0)
    if streams and not scenario.settings.nodes:
        room_for(streams, where, scenario.settings.workers)

    def drive(bench: Bench) -> None:
        end_s = monotonic() + longest_s
        for n, a in enumerate(levels):
            window_s = (end_s - monotonic()) / (len(levels) - n) - _around_s(a)
            if window_s < LEAST_S and n:
                break
            window_s = max(window_s, LEAST_S)
            bench.settings = msgspec.structs.replace(bench.settings, max_duration_s=window_s)
            if a.asked is not None:
                bench.ask_for(a.asked)
            b = bench.measure(a.load, deciding(a, conditions, window_s)).level
            if b.verdict.status != "invalid" and "failed" in stands(a, b, conditions):
                break

    return before, conducted(scenario, options, drive)


def wanted_levels(baseline: Summary) -> list[Level]:
    """The levels that are measured again: those that can be relied on; of a search the one of its answer."""
    sound = list({(x.load, x.asked): x for x in baseline.levels if x.verdict.status != "invalid"}.values())
    chosen = baseline.operating_points.within_budget
    if isinstance(baseline.find, msgspec.UnsetType) or chosen is None:
        return sound
    return [level for level in sound if level.load == chosen.load]


def _order(where: str, record: RunRecord, levels: Sequence[Level], options: Options) -> Scenario:
    """The baseline's order with another target, its own way there, and other random numbers: the same prompts again
    would be in the server's cache."""
    before = record.scenario
    model = options.get("model") or ("" if where.startswith("sim:") else before.access.model)
    words: Options = {**options, "model": model, "api": before.access.api}
    new = ordered(where, _goal(before.goal, levels), words)
    settings = msgspec.structs.replace(
        before.settings,
        workers=new.settings.workers,
        seed_given=new.settings.seed_given,
        wait_s=new.settings.wait_s,
        max_error_share=new.settings.max_error_share,
        precision=None,
    )
    return msgspec.structs.replace(
        new,
        workload=msgspec.structs.replace(before.workload, seed=new.workload.seed),
        settings=settings,
        access=msgspec.structs.replace(new.access, tokenizer=before.access.tokenizer),
    )


def _goal(before: Goal, levels: Sequence[Level]) -> Goal:
    if isinstance(before, Grid):
        return Grid(before.load, tuple(level.asked for level in levels if level.asked is not None))
    if isinstance(before, (Levels, Search)):
        return Levels(tuple(dict.fromkeys(level.load for level in levels)))
    raise BadInput("the baseline is of a kind that cannot be repeated here: measure the target as it was, and compare")


def _around_s(a: Level) -> float:
    """About how long the ramp before a level's window and the tail behind it take, by the baseline."""
    slowest = a.latency_ms.p99.value or a.latency_ms.p99.low or a.latency_ms.p95.value or a.latency_ms.p50.value or 0.0
    return 3 * slowest / 1e3 + (0.0 if isinstance(a.load, Concurrency) else HOLD_S)
