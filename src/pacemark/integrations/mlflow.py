"""A run in MLflow: its parameters, figures and files, so that benchmarks stand beside the models they are of."""

from __future__ import annotations

import contextlib
import logging
import warnings
from collections.abc import Iterator, Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from pacemark.errors import BadInput, RunFailed
from pacemark.pace import Concurrency
from pacemark.reporting.answer import search_of
from pacemark.reporting.terminal import answer
from pacemark.summary import VERDICTS, Distribution, Figure, Level, OperatingPoint, OperatingPoints, Slopes, Summary

__all__ = ["log", "metrics_of", "parameters_of", "require"]

FILES = ("report.html", "summary.json", "run.json", "run.db")
_MOST_LETTERS = 6000
"""The longest value of a parameter that MLflow takes."""
_BATCH = 100
"""The most parameters that one request to MLflow may bring; of metrics it may bring ten times as many."""


def require() -> None:
    """Raise BadInput where MLflow is missing: before a run, so that none is measured that cannot be logged."""
    if find_spec("mlflow") is None:
        raise BadInput("logging to MLflow needs packages: pip install mlflow-skinny sqlalchemy alembic")


def log(summary: Summary, path: Path, experiment: str | None = None) -> str:
    """Log one stored run as one MLflow run, and return that run's id.

    Where to is MLflow's own business: its tracking URI and its experiment, unless `experiment` names one. Within an
    active MLflow run it becomes a child of that. Raises BadInput where MLflow is missing, RunFailed where it does not
    take the run.
    """
    require()
    with _quiet():
        import mlflow
        from mlflow.entities import Metric, Param
        from mlflow.exceptions import MlflowException

    tags = {"mlflow.note.content": answer(summary), "pacemark.schema": summary.schema}
    if summary.levels:
        tags["pacemark.verdict"] = max((x.verdict.status for x in summary.levels), key=VERDICTS.index)
    status = "KILLED" if summary.run.get("interrupted") else "FAILED" if summary.run.get("failure") else "FINISHED"
    try:
        with _quiet():
            client = mlflow.MlflowClient()
            place = None  # where MLflow's own settings say
            if experiment:
                known = client.get_experiment_by_name(experiment)
                place = known.experiment_id if known else client.create_experiment(experiment)
            nested = mlflow.active_run() is not None
            run = mlflow.start_run(run_name=path.name, experiment_id=place, nested=nested, tags=tags)
            name = run.info.run_id
            try:
                params = [Param(key, value) for key, value in parameters_of(summary).items()]
                for n in range(0, len(params), _BATCH):
                    client.log_batch(name, params=params[n : n + _BATCH])
                stamp = run.info.start_time
                rows = [Metric(key, value, stamp, step) for key, value, step in metrics_of(summary)]
                for n in range(0, len(rows), 10 * _BATCH):
                    client.log_batch(name, metrics=rows[n : n + 10 * _BATCH])
                for file in [*(path / name for name in FILES), *sorted(path.glob("events-*.bin"))]:
                    if file.is_file():
                        client.log_artifact(name, str(file))
            except BaseException:
                status = "FAILED"
                raise
            finally:
                mlflow.end_run(status)
    except (MlflowException, OSError) as error:
        said = " ".join(str(error).split())[:400]
        again = f"the run itself is in {path}; log it again with: pacemark report {path} --mlflow"
        raise RunFailed(f"MLflow did not take the run ({said}); {again}") from None
    return str(name)


def parameters_of(summary: Summary) -> dict[str, str]:
    """What was asked: target, workload, settings, versions, host, by dotted names. No secret is among them."""
    parts = {"target": summary.target, "workload": summary.workload}
    parts |= {key: summary.run[key] for key in ("settings", "versions", "host", "endpoint") if key in summary.run}
    found = {name: str(value)[:_MOST_LETTERS] for name, value in _flat(parts) if value not in (None, "", [])}
    for name in ("command", "started", "repeats"):
        if summary.run.get(name):
            found[name] = str(summary.run[name])[:_MOST_LETTERS]
    return found


def metrics_of(summary: Summary) -> Iterator[tuple[str, float, int]]:
    """Figures as (name, value, step). The step is the concurrency; in open loop and in a length grid the level's
    number from 1, with `load` or the lengths as metrics beside it."""
    for number, level in enumerate(summary.levels, start=1):
        for name, value, step in _level(level, number):
            if value is not None:
                yield name, float(value), step
    for name, figure in (*_points(summary), *_search(summary), *_slopes(summary)):
        if figure is not None:
            yield name, float(figure), 0


_Named = Iterator[tuple[str, float | None]]


def _points(summary: Summary) -> _Named:
    for name in OperatingPoints.__struct_fields__:
        point: OperatingPoint | None = getattr(summary.operating_points, name)
        if point is not None:
            yield f"{name}.load", point.load.value
            yield f"{name}.output_tokens_per_s", point.output_tokens_per_s.value


def _search(summary: Summary) -> _Named:
    find = search_of(summary)
    if find and find.answer:
        for part in Figure.__struct_fields__:
            yield f"find.{part}", getattr(find.answer, part)


def _slopes(summary: Summary) -> _Named:
    if isinstance(summary.slopes, Slopes):
        for metric in ("ttft_ms", "latency_ms"):
            for side in ("input", "output"):
                figure = getattr(getattr(summary.slopes, metric), f"per_{side}_token_ms", Figure())
                for part, value in _ends(figure):
                    yield f"slopes.{metric}.per_{side}_token_ms{part}", value


def _level(level: Level, number: int) -> Iterator[tuple[str, float | None, int]]:
    load = level.load
    step = load.value if isinstance(load, Concurrency) and level.asked is None else number
    yield "load", float(load.value), step
    if level.asked is not None:
        yield "asked_input_tokens", level.asked.input_tokens, step
        yield "asked_output_tokens", level.asked.output_tokens, step
    for name in ("output_tokens_per_s", "total_tokens_per_s", "requests_per_s"):
        for part, value in _ends(getattr(level, name)):
            yield f"{name}{part}", value, step
    for name in ("ttft_ms", "tpot_ms", "itl_ms", "latency_ms"):
        spread: Distribution = getattr(level, name)
        for statistic in Distribution.__struct_fields__:
            for part, value in _ends(getattr(spread, statistic)):
                yield f"{name}.{statistic}{part}", value, step
    if level.goodput is not None:
        yield "goodput.share", level.goodput.share.value, step
        yield "goodput.requests_per_s", level.goodput.requests_per_s.value, step
    for field in ("completed", "failed", "in_window", "short"):
        yield f"requests.{field}", getattr(level.requests, field), step
    yield "valid", float(level.verdict.status == "valid"), step


def _ends(figure: Figure) -> Iterator[tuple[str, float | None]]:
    yield from (("", figure.value), (".low", figure.low), (".high", figure.high))


def _flat(facts: Mapping[str, Any], before: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in facts.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{before}{key}.")
        else:
            yield f"{before}{key}", value


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Without the news of MLflow's own inner life: database migrations, and what its libraries have deprecated."""
    loggers = [logging.getLogger(name) for name in ("mlflow", "alembic")]
    levels = [logger.level for logger in loggers]
    try:
        for logger in loggers:
            logger.setLevel(logging.WARNING)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
