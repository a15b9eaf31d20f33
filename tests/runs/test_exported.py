"""Queue and model times as an endpoint exports them: gauges of a minute, or histograms that go on."""

from __future__ import annotations

import msgspec
from rich.console import Console

from pacemark.endpoint.prometheus import metrics_in
from pacemark.pace import Concurrency
from pacemark.reporting.details import everything
from pacemark.runs.exported import MODEL, QUEUE, mean_ms
from pacemark.summary import Seen, Span, Timeline
from pacemark.trace import Sight
from support import samples


def looks(*told: tuple[float, float, float]) -> list[Sight]:
    """Looks that tell of so many requests in the last minute, and of a histogram's sum and count."""
    return [
        Sight(n * 10**10, metrics={"request_count_total": minute, f"{QUEUE}_sum": total, f"{QUEUE}_count": count})
        for n, (minute, total, count) in enumerate(told)
    ]


def test_a_histogram_of_the_minute_is_taken_as_it_is() -> None:
    assert mean_ms(looks((60, 600, 60), (80, 400, 80), (80, 400, 80)), QUEUE) == [10.0, 5.0, 5.0]


def test_of_one_that_goes_on_what_it_grew_by_counts() -> None:
    assert mean_ms(looks((60, 9000, 900), (60, 9300, 960), (60, 10500, 1020)), QUEUE) == [10.0, 5.0, 20.0]


def test_one_that_starts_anew_is_no_negative_time() -> None:
    assert mean_ms(looks((10, 9000, 900), (10, 200, 100)), QUEUE) == [10.0, 2.0]


def test_nothing_told_is_nothing() -> None:
    assert mean_ms([Sight(1), *looks((0, 0, 0))], QUEUE) == [None, None]
    assert mean_ms(looks((1, 1, 1)), MODEL) == [None]


def test_it_is_read_from_the_text_that_the_service_exports() -> None:
    text = """# TYPE model_queue_time_ms histogram
model_queue_time_ms_bucket{endpoint_name="e",le="5"} 1 1788718020000
model_queue_time_ms_sum{endpoint_name="e"} 30 1.788718e+12
model_queue_time_ms_count{endpoint_name="e"} 3 1.788718e+12
request_count_total{endpoint_name="e"} 3 1788718020000
"""
    assert mean_ms([Sight(1, metrics=metrics_in(text))], QUEUE) == [10.0]


def test_the_details_show_it_by_level() -> None:
    seen = [Seen(5.0, "ready", 4.0, 10.0, 100.0), Seen(15.0, "ready", 4.0, 30.0, 100.0), Seen(50.0, "ready")]
    timeline = Timeline(1.0, [], [], [Span(Concurrency(4), 0.0, 20.0), Span(Concurrency(8), 40.0, 60.0)], seen)
    console = Console(width=80, record=True, file=open("/dev/null", "w"))  # noqa: SIM115
    console.print(everything(msgspec.structs.replace(samples.sweep(), timeline=timeline)))
    console.file.close()
    (line,) = [x for x in console.export_text().splitlines() if x.split()[-3:] == ["20.0", "100", "2"]]
    assert line.startswith("concurrency 4")
