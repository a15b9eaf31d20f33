"""A run in the forms of GuideLLM and AIPerf.

What their own classes require stands here as guidellm 0.8.1 and aiperf 0.13.0 have it, for the packages need torch and
139 others. They have read such files: docs/exports.md.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

import pacemark
from pacemark.runs.export import export
from pacemark.summary import Level
from support.inside import inside

SPREAD = set("mean median mode variance std_dev min max count total_sum percentiles".split())
SHARES = set("p001 p01 p05 p10 p25 p50 p75 p90 p95 p99 p999".split())
BENCHMARK = {
    "config": "run_id run_index strategy constraints profile requests backend environment",
    "scheduler_state": "",
    "scheduler_metrics": "start_time request_start_time measure_start_time measure_end_time request_end_time end_time "
    "requests_made queued_time_avg resolve_start_delay_avg resolve_targeted_start_delay_avg request_start_delay_avg "
    "request_targeted_start_delay_avg request_time_avg resolve_end_delay_avg resolve_time_avg finalized_delay_avg "
    "processed_delay_avg",
    "metrics": "request_totals requests_per_second request_concurrency request_latency prompt_token_count "
    "request_streaming_iterations_count output_token_count total_token_count time_to_first_token_ms "
    "time_to_first_output_token_ms time_per_output_token_ms inter_token_latency_ms time_to_last_round_trip_ms "
    "avg_round_trip_time_ms prompt_tokens_per_second output_tokens_per_second tokens_per_second "
    "output_tokens_per_iteration iter_tokens_per_iteration text image video audio tool_call",
    "requests": "successful errored incomplete",
}
"""By part of a benchmark: the fields that it must have."""
RECORD = set("session_num request_start_ns request_end_ns worker_id record_processor_id benchmark_phase".split())


def strict(text: str | bytes) -> Any:
    """JSON without the NaN and infinity that are none."""
    return json.loads(text, parse_constant=pytest.fail)


@pytest.fixture
def levels(stored_run: Path) -> list[Level]:
    return pacemark.load(stored_run).levels


def distributions(part: dict[str, Any]) -> list[dict[str, Any]]:
    """Every distribution in a part, the empty ones too."""
    found = [part] if "percentiles" in part else []
    return found + [x for inner in part.values() if isinstance(inner, dict) for x in distributions(inner)]


def test_guidellm_finds_all_that_it_requires(stored_run: Path, levels: list[Level]) -> None:
    path = export(stored_run, "guidellm")
    assert path == stored_run / "benchmarks.json"
    report = strict(path.read_bytes())
    assert report["metadata"]["version"] == 2
    assert report["config"]["spec"]["profile"] == {"kind": "concurrent", "streams": [1, 2, 4, 8]}
    assert len(report["benchmarks"]) == len(levels)
    for benchmark in report["benchmarks"]:
        for part, fields in BENCHMARK.items():
            assert benchmark[part].keys() >= set(fields.split())
        assert set(benchmark["metrics"]["text"]) == {"tokens", "words", "characters"}
        spreads = distributions(benchmark["metrics"])
        assert all(spread.keys() >= SPREAD and spread["percentiles"].keys() == SHARES for spread in spreads)
        assert len(spreads) == 4 * (18 + 6)  # by status; 18 metrics, and 6 of the tokens of texts


def test_guidellm_is_told_the_same_figures(stored_run: Path, levels: list[Level]) -> None:
    report = strict(export(stored_run, "guidellm").read_bytes())
    for level, benchmark in zip(levels, report["benchmarks"], strict=True):
        told = {name: of["successful"] for name, of in benchmark["metrics"].items() if "successful" in of}
        assert told["time_to_first_token_ms"]["percentiles"]["p50"] == pytest.approx(level.ttft_ms.p50.value)
        assert told["time_to_first_token_ms"]["percentile_cis"]["p50"]["lower"] == level.ttft_ms.p50.low
        assert told["inter_token_latency_ms"]["mean"] == pytest.approx(level.tpot_ms.mean.value)
        assert told["request_latency"]["percentiles"]["p50"] == pytest.approx((level.latency_ms.p50.value or 0) / 1e3)
        assert told["output_tokens_per_second"]["mean"] == pytest.approx(level.output_tokens_per_s.value, rel=0.01)
        assert told["requests_per_second"]["mean"] == pytest.approx(level.requests_per_s.value, rel=0.01)
        assert told["request_concurrency"]["median"] == level.load.value
        assert benchmark["config"]["strategy"] == {"type_": "concurrent", "streams": level.load.value}


def test_aiperf_finds_a_folder_for_each_level(stored_run: Path, levels: list[Level]) -> None:
    folder = export(stored_run, "aiperf")
    assert sorted(path.name for path in folder.iterdir()) == [f"concurrency_{n}" for n in (1, 2, 4, 8)]
    for level in levels:
        run = folder / f"concurrency_{level.load.value}"
        told = strict((run / "profile_export_aiperf.json").read_bytes())
        assert told["time_to_first_token"]["unit"] == "ms"
        assert told["time_to_first_token"]["p50"] == pytest.approx(level.ttft_ms.p50.value)
        assert told["output_token_throughput"]["avg"] == pytest.approx(level.output_tokens_per_s.value)
        assert told["request_count"]["avg"] == level.requests.in_window
        (phase,) = told["input_config"]["phases"]
        assert (phase["type"], phase["concurrency"]) == ("concurrency", level.load.value)
        records = [strict(line) for line in (run / "profile_export.jsonl").read_text().splitlines()]
        assert len(records) == level.requests.in_window
        assert all(record["metadata"].keys() >= RECORD for record in records)
        assert {record["metrics"]["request_latency"]["unit"] for record in records} == {"ms"}


@pytest.mark.slow(shared=True)
@pytest.mark.parametrize("words", [("--rate", 30, "--arrivals", "gamma"), ("--concurrency", 2, "--no-stream")])
def test_runs_of_other_kinds(tmp_path: Path, words: tuple[Any, ...]) -> None:
    short = ("--duration", "1s", "--input-tokens", 16, "--output-tokens", 4, "--out", tmp_path)
    assert inside("run", "sim:demo", *words, *short).returncode == 0
    (benchmark,) = strict(export(tmp_path, "guidellm").read_bytes())["benchmarks"]
    assert benchmark["metrics"]["output_token_count"]["successful"]["median"] == 4
    (folder,) = export(tmp_path, "aiperf").iterdir()
    told = strict((folder / "profile_export_aiperf.json").read_bytes())
    assert ("time_to_first_token" in told) == ("--rate" in words)
    assert told["input_config"]["phases"][0]["type"] == ("gamma" if "--rate" in words else "concurrency")
