"""Where engines keep their figures: the table itself, and names that a user gives."""

from __future__ import annotations

import pytest
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

from pacemark.endpoint.engines import COUNTED_AT_END, ENGINES, Names, mapped, read_figures
from pacemark.errors import BadInput

TABLES = [Names(engine, names) for engine, names in ENGINES.items()]


def test_every_name_of_the_table_can_be_read() -> None:
    assert len(TABLES) == len(ENGINES)
    assert set(ENGINES) > COUNTED_AT_END


def test_figures_are_those_that_prometheus_own_client_exported() -> None:
    registry = CollectorRegistry()
    waiting = Gauge("vllm:num_requests_waiting", "-", ["engine"], registry=registry)
    used = Gauge("vllm:kv_cache_usage_perc", "-", ["engine"], registry=registry)
    done = Counter("vllm:request_success", "-", ["finished_reason", "engine"], registry=registry)
    ttft = Histogram("vllm:time_to_first_token_seconds", "-", ["engine"], buckets=(0.1, 1), registry=registry)
    for engine, seconds in (("0", 0.05), ("1", 0.5)):
        waiting.labels(engine).set(3)
        used.labels(engine).set(seconds)
        ttft.labels(engine).observe(seconds)
        for reason in ("stop", "length", "abort"):
            done.labels(reason, engine).inc()
    found = read_figures(generate_latest(registry).decode(), TABLES)
    assert list(found) == ["vLLM"]
    told = found["vLLM"]
    assert told["waiting"] == 6  # of both engines
    assert told["kv_used"] == pytest.approx(0.275)  # their mean
    assert told["requests"] == 4  # without those that were aborted
    assert told["ttft_count"] == 2
    assert told["ttft_sum"] == pytest.approx(0.55)
    assert [told[f"ttft_le_{edge}"] for edge in ("0.1", "1", "inf")] == [1, 2, 2]


@pytest.mark.parametrize(
    ("text", "engine", "figures"),
    [
        ("llamacpp:prompt_tokens_total 7", "", {}),  # what was cached is not told, so the whole is not known
        (
            "llamacpp:prompt_tokens_total 7\nllamacpp:prompt_tokens_cached_total 5",
            "llama.cpp",
            {"input_tokens": 12, "prefix_hits": 5, "prefix_queries": 12},
        ),
        ('nv_trt_llm_request_metrics{model="m",request_type="waiting",version="1"} 4', "Triton", {"waiting": 4}),
        ("nv_inference_queue_duration_us 2500000", "Triton", {"queue_sum": 2.5}),
        (
            'DCGM_FI_DEV_POWER_USAGE{gpu="0"} 300\nDCGM_FI_DEV_POWER_USAGE{gpu="1"} 310',
            "DCGM",
            {"power_w": 610, "gpus": 2},
        ),
        ("DCGM_FI_DEV_TOTAL_ENERGY_CONSUMPTION 5000", "DCGM", {"energy_j": 5}),
        ("tgi_queue_size 2\nother 3", "TGI", {"waiting": 2}),
        ("sglang:num_running_reqs NaN-like words\n# HELP x\n", "", {}),
    ],
)
def test_names_labels_factors_and_sums(text: str, engine: str, figures: dict[str, float]) -> None:
    assert read_figures(text, TABLES) == ({engine: figures} if engine else {})


def test_names_of_the_users_own() -> None:
    names = mapped("running=my_running{kind=chat|text}, kv_used=my_cache*0.01, queue=my_wait_seconds")
    text = 'my_running{kind="chat"} 2\nmy_running{kind="other"} 9\nmy_cache 50\nmy_wait_seconds_sum 3\n'
    assert read_figures(text, [Names("own", names)]) == {"own": {"running": 2, "kv_used": 0.5, "queue_sum": 3}}


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("running", "write it as running=name"),
        ("runing=x", "no such figure; there are running"),
        ("running=x{a}", "name{label=value}"),
        ("running=x*abc", "name*0.001"),
        ("running=a b", "write it as"),
    ],
)
def test_a_map_that_cannot_be_read_is_refused_in_one_line(text: str, said: str) -> None:
    with pytest.raises(BadInput, match="--metrics-map ") as refused:
        mapped(text)
    assert said in str(refused.value)
