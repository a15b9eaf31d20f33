"""What a fleet's worth of an endpoint is called where it is bought."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

import pacemark as face
from pacemark.answers.sizes import Size, Sold, advice, parse_size, sold_in
from pacemark.errors import BadInput
from pacemark.pace import Concurrency
from pacemark.summary import Level
from support import samples


def level(latency_ms: float = 2000.0) -> Level:
    return samples.level(
        Concurrency(4), tokens_per_s=100, ttft_ms=(10, 20), tpot_ms=(5, 6), latency_ms=(latency_ms, latency_ms)
    )


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("50 model units", (50, "model units")), ("1 model unit", (1, "model units")),
        ("9,500 tokens/s", (9500, "tokens/s")), ("16 requests in parallel", (16, "requests in parallel")),
        ("8 concurrency", (8, "requests in parallel")), ("Medium", (16, "requests in parallel")),
        (" small", (4, "requests in parallel")),
    ],
)  # fmt: skip
def test_a_size_is_understood(text: str, size: Size) -> None:
    assert parse_size(text) == size


@pytest.mark.parametrize("text", ["", "50", "0 model units", "tiny", "9500 tokens"])
def test_a_size_that_is_none_is_refused(text: str) -> None:
    with pytest.raises(BadInput, match="--provisioned"):
        parse_size(text)


def test_model_units_scale_and_a_burst_is_said() -> None:
    (units,) = advice(3, level(), 10.0, None, Sold((50, "model units")))
    assert units.text.startswith("ask for 150 model units (3 x the 50 that were measured)")
    _, burst = advice(3, level(), 10.0, None, Sold((50, "model units"), bursts=True))
    assert "would be too few" in burst.text


def test_a_band_is_whole_chunks() -> None:
    (band,) = advice(2, level(), 10.0, 1e4, Sold((9500, "tokens/s"), chunk=970))
    assert "ask for a band up to 19,000 tokens/s (2 x the 9,500 that were measured)" in band.text
    assert "20 chunks of 970, 19,400 tokens/s" in band.text


@pytest.mark.parametrize(
    ("rate", "latency_ms", "says"),
    [
        (1.0, 2000.0, "are 2.00 requests in parallel, so 4 (workload size Small)"),
        (7.0, 2000.0, "so 16 (workload size Medium)"),
        (8.0, 2000.0, "so 16 (workload size Medium)"),
        (8.1, 2000.0, "so 20 (workload size Large)"),
        (40.0, 2000.0, "so 80 (more than a workload size"),
    ],
)
def test_concurrency_is_rate_times_latency(rate: float, latency_ms: float, says: str) -> None:
    """Databricks' own rule, and Little's law."""
    (found,) = advice(1, level(latency_ms), rate, None, Sold((16, "requests in parallel")))
    assert says in found.text


def test_where_nothing_is_known_each_unit_is_spoken_of() -> None:
    units, band, concurrency = advice(2, level(), 10.0, 12_345.0, Sold())
    assert "--provisioned" in units.text
    assert "12,345 tokens/s" in band.text
    assert "sold by its concurrency" in concurrency.text
    assert all(x.source.startswith("https://docs.databricks.com/") and x.dated for x in (units, band, concurrency))


def test_what_the_workspace_said_is_what_was_bought() -> None:
    assert sold_in({"model_units": 50, "may_burst": True}) == Sold((50, "model units"), 0, True)
    assert sold_in({"max_tokens_per_s": 9500, "throughput_chunk": 950}) == Sold((9500, "tokens/s"), 950)
    assert sold_in({"max_concurrency": 16}) == Sold((16, "requests in parallel"))
    assert sold_in(None) == sold_in({"state": "ready"}) == Sold()


def test_a_plan_takes_it_from_the_stored_run(stored_run: Path) -> None:
    asked: Any = {"demand": "40 requests/s", "budget": "ttft p95 < 1s"}
    assert face.plan(stored_run, **asked).advice == []
    file = stored_run / "run.json"
    record = json.loads(file.read_text())
    file.write_text(json.dumps(record | {"endpoint": {"model_units": 50, "may_burst": True}}))
    plan = face.plan(stored_run, **asked)
    assert f"ask for {50 * plan.fleets[0].replicas} model units" in plan.advice[0].text
    assert "too few" in plan.advice[1].text
    (said,) = face.plan(stored_run, provisioned="Medium", **asked).advice
    assert "sold by its concurrency" in said.text
