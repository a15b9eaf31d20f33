"""The words of bounds, notes and endings, and a level told in full."""

from __future__ import annotations

import msgspec
import pytest
from rich.console import Console

from pacemark.pace import Concurrency, Rate
from pacemark.reporting.details import details
from pacemark.reporting.html import html
from pacemark.reporting.terminal import table
from pacemark.reporting.words import interval, reasons, value
from pacemark.runs.simulated import virtual_measure
from pacemark.summary import Distribution, Figure, Level, Reason, Verdict
from support.samples import engine_level, single


def printed(level: Level) -> str:
    console = Console(width=80)
    with console.capture() as capture:
        console.print(details(level))
    return capture.get()


def test_a_quantile_that_the_sample_cannot_support_is_a_bound_and_never_a_point() -> None:
    assert (value(Figure(None, 640.0, None)), interval(Figure(None, 640.0, None))) == ("> 640", "")
    assert (value(Figure(700.0, 640.0, None)), interval(Figure(700.0, 640.0, None))) == ("700", "above 640")
    assert (value(Figure(7.0, 6.0, 8.0)), interval(Figure(7.0, 6.0, 8.0))) == ("7.00", "6.00 to 8.00")
    assert (value(Figure()), interval(Figure())) == ("-", "")
    summary = single()
    bound = Distribution(p50=Figure(500.0, 480.0, 520.0), p95=Figure(None, 640.0, None))
    level = msgspec.structs.replace(summary.levels[0], latency_ms=bound)
    summary = msgspec.structs.replace(summary, levels=[level])
    console = Console(width=80)
    with console.capture() as capture:
        console.print(table(summary))
    assert ">640" in capture.get()
    assert "&gt; 640" in html(summary)


def test_a_note_is_shown_as_one_whatever_the_verdict() -> None:
    few = Reason("no_interval", "no interval: TTFT (insufficient: about 900 more requests needed); run longer")
    drift = Reason("unsteady", "it had not settled; run longer")
    level = engine_level(4)
    valid = msgspec.structs.replace(level, verdict=Verdict("valid", [few]))
    suspect = msgspec.structs.replace(level, verdict=Verdict("suspect", [few, drift]))
    assert reasons(valid) == [f"note: {few.message}"]
    assert reasons(suspect) == [f"note: {few.message}", f"suspect: {drift.message}"]
    summary = msgspec.structs.replace(single(), levels=[valid])
    console = Console(width=200)
    with console.capture() as capture:
        console.print(table(summary))
    assert "concurrency 4: too few requests for an interval of p95; --duration 25s would do" in capture.get()
    assert f"note: {few.message}" in html(summary)


@pytest.mark.parametrize("load", [Concurrency(8), Rate(20.0)])
def test_a_level_is_told_in_80_columns(load: Concurrency | Rate) -> None:
    level = virtual_measure("demo", duration_s=4.0)(load).level
    told = printed(level)
    assert all(len(line) <= 80 for line in told.splitlines())
    for part in ("TTFT p99", "TPOT p50", "ITL p95", "to the headers", "tokens/s per user", "worth "):
        assert part in told
    assert ("Little's law" in told) == isinstance(load, Concurrency)
    assert ("sent late" in told) == isinstance(load, Rate)


def test_a_level_without_figures_is_told_too() -> None:
    level = virtual_measure("demo", duration_s=0.01)(Concurrency(1)).level
    assert "concurrency 1: " in printed(level)
