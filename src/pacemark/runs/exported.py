"""Times that an endpoint exports of itself: how long requests waited for its model, and how long that took.

Databricks exports histograms beside its counts. The counts are gauges over the last minute although their names end in
`_total`; whether a histogram starts anew each minute is not documented, so it is taken for what its own count says:
where that is about the minute's requests it is the minute's, and else it goes on and what it grew by counts.
"""

from __future__ import annotations

from collections.abc import Sequence

from pacemark.trace import Sight

__all__ = ["MODEL", "QUEUE", "mean_ms"]

QUEUE, MODEL = "model_queue_time_ms", "model_prediction_latency_ms"


def mean_ms(sights: Sequence[Sight], name: str) -> list[float | None]:
    """The mean of the histogram `name` at each look, over the last minute or since the look before; None where nothing
    is told, or no request ended."""
    found: list[float | None] = []
    before = (0.0, 0.0)
    for sight in sights:
        total, count = (sight.metrics.get(f"{name}_{part}") for part in ("sum", "count"))
        if total is None or count is None:
            found.append(None)
            continue
        minute = count <= 1.5 * sight.metrics.get("request_count_total", 0.0)
        grown = (total, count) if minute or count < before[1] else (total - before[0], count - before[1])
        found.append(round(grown[0] / grown[1], 3) if grown[1] > 0 else None)
        before = (total, count)
    return found
