"""A run's figures as OpenMetrics text, for those who keep them in Prometheus."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Gauge
from prometheus_client.openmetrics.exposition import generate_latest

from pacemark.pace import Rate
from pacemark.reporting.words import plain
from pacemark.summary import LATENCIES, RATES, STATISTICS, VERDICTS, Figure, Level, Summary

__all__ = ["openmetrics"]

_ABOUT = ("model", "load", "input_tokens", "output_tokens")


def openmetrics(summary: Summary) -> str:
    """Every figure of every level, in seconds and per second, with the ends of its 95% interval as bounds of its own
    (`bound`: value, low, high); what a level does not have is left out."""
    registry = CollectorRegistry()
    rates = {name: _gauge(name.replace("_per_s", "_per_second"), "Per second.", registry) for name in RATES}
    times = {
        name: _gauge(f"{name.removesuffix('_ms')}_seconds", f"{words}.", registry, "statistic")
        for name, words in LATENCIES.items()
    }
    completed = Gauge("pacemark_requests_completed", "Answered requests.", _ABOUT, registry=registry)
    failed = Gauge("pacemark_requests_failed", "Failed requests.", _ABOUT, registry=registry)
    verdict = Gauge("pacemark_verdict", "1 for the verdict of the level.", (*_ABOUT, "verdict"), registry=registry)
    for level in summary.levels:
        about = _about(summary, level)
        for name, gauge in rates.items():
            _set(gauge, about, getattr(level, name))
        for name, gauge in times.items():
            for statistic in STATISTICS:
                figure = getattr(getattr(level, name), statistic)
                _set(gauge, about | {"statistic": statistic}, figure, unit=1e-3)
        completed.labels(**about).set(level.requests.completed)
        failed.labels(**about).set(level.requests.failed)
        for status in VERDICTS:
            verdict.labels(**about, verdict=status).set(level.verdict.status == status)
    text: bytes = generate_latest(registry)  # type: ignore[no-untyped-call]
    return text.decode()


def _gauge(name: str, words: str, registry: CollectorRegistry, *more: str) -> Gauge:
    return Gauge(f"pacemark_{name}", words, (*_ABOUT, *more, "bound"), registry=registry)


def _about(summary: Summary, level: Level) -> dict[str, str]:
    asked = level.asked
    lengths = {name: getattr(asked, name) if asked else summary.workload.get(name) for name in _ABOUT[2:]}
    load = f"{'rate' if isinstance(level.load, Rate) else 'concurrency'} {level.load.value:g}"
    return {"model": plain(summary.target.get("model") or ""), "load": load} | {n: str(v) for n, v in lengths.items()}


def _set(gauge: Gauge, about: dict[str, str], figure: Figure, unit: float = 1.0) -> None:
    for bound in ("value", "low", "high"):
        if (known := getattr(figure, bound)) is not None:
            gauge.labels(**about, bound=bound).set(known * unit)
