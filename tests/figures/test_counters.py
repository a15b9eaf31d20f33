"""A level by its server's counters: what they grew by is what the client saw, and where not it is said why."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from pacemark.figures.counters import findings_of, server_of
from pacemark.metered import Agreement, Server
from pacemark.trace import Exchange, Scrape, Trace, Window, trace_of
from support.servers import MS, exchange

WINDOW = Window(1_000 * MS, 9_000 * MS)


def answers(count: int = 40, **fields: Any) -> list[Exchange]:
    """Two streams of answers back to back: 40 ms to the first token, then nine more in 90 ms, every 250 ms."""
    return [
        exchange(250 * (i - i % 2) + 3, [250 * (i - i % 2) + 43 + 10 * k for k in range(10)], input_tokens=7, **fields)
        for i in range(count)
    ]


def counters(trace: Trace, at_ms: float, *, network_ms: float = 2.0, queue_ms: float = 10.0) -> dict[str, float]:
    """What a server would have counted by then, to which all things happen `network_ms` sooner; its queue and prefill
    are TTFT without that."""
    at = (at_ms + network_ms) * MS
    first, last = trace.hi_ns[trace.offsets[:-1]], trace.hi_ns[trace.offsets[1:] - 1]
    begun, ended = first <= at, last <= at
    ttft_s = (first - trace.sent_ns) / 1e9 - network_ms / 1e3
    return {
        "requests": float(ended.sum()),
        "input_tokens": float(trace.input_tokens[begun].sum()),
        "output_tokens": float((trace.hi_ns <= at).sum()),
        "running": float(((trace.sent_ns < at_ms * MS) & (last > at_ms * MS)).sum()),
        "waiting": 0.0,
        "ttft_sum": float(ttft_s[begun].sum()),
        "ttft_count": float(begun.sum()),
        "ttft_le_0.03": float((ttft_s[begun] <= 0.03).sum()),
        "ttft_le_inf": float(begun.sum()),
        "queue_sum": queue_ms / 1e3 * ended.sum(),
        "queue_count": float(ended.sum()),
        "prefill_sum": float((ttft_s[ended] - queue_ms / 1e3).sum()),
        "prefill_count": float(ended.sum()),
        "decode_sum": float(((last - first) / 1e9)[ended].sum()),
        "decode_count": float(ended.sum()),
    }


def look(at_ms: float, values: dict[str, float], engine: str = "vLLM") -> Scrape:
    return Scrape(round(at_ms * MS), 2 * MS, [engine], values)


def looks(trace: Trace, **how: float) -> list[Scrape]:
    return [look(at, counters(trace, at, **how)) for at in (0.0, *(1001.0 + 1000 * n for n in range(9)), 20_000.0)]


def told(server: Server | None) -> dict[str, Agreement]:
    assert server is not None
    return {check.what: check for check in server.checks}


def test_a_server_that_counts_right_agrees_in_everything() -> None:
    trace = trace_of(answers())
    server = server_of(trace, WINDOW, looks(trace))
    checks = told(server)
    assert {what: check.agrees for what, check in checks.items()} == dict.fromkeys(checks, True)
    assert server is not None
    assert (server.engine, server.looks, server.seconds) == ("vLLM", 9, 8.0)
    assert checks["output_tokens"].client == pytest.approx(checks["output_tokens"].server, rel=0.02)
    assert checks["ttft_ms"].client == pytest.approx(40.0)
    assert checks["ttft_ms"].server == pytest.approx(38.0)
    phases = server.phases
    assert (phases.queue_ms, phases.prefill_ms, phases.decode_ms) == pytest.approx((10.0, 28.0, 90.0))
    assert phases.client_ms is not None
    assert phases.network_ms == pytest.approx(2.0 - phases.client_ms)
    assert findings_of(server) == []


def test_what_nobody_told_is_unknown_and_never_nothing() -> None:
    trace = trace_of(answers())
    bare = [look(x.now_ns / MS, {"output_tokens": x.values["output_tokens"]}) for x in looks(trace)]
    server = server_of(trace, WINDOW, bare)
    checks = told(server)
    assert server is not None
    assert {what for what, check in checks.items() if check.agrees is not None} == {"output_tokens"}
    assert all(check.server is None for what, check in checks.items() if what != "output_tokens")
    assert (server.running, server.preemptions, server.power_w, server.prefix_hits) == (None, None, None, None)
    assert (server.phases.queue_ms, server.phases.prefill_ms, server.phases.network_ms) == (None, None, None)
    assert findings_of(server) == []
    assert server_of(trace, WINDOW, bare[:1]) is None
    assert server_of(trace, WINDOW, [msgspec.structs.replace(x, values={}, problem="gone") for x in bare]) is None


def test_counters_that_began_anew_tell_nothing() -> None:
    trace = trace_of(answers())
    again = [
        x if x.now_ns < 5_000 * MS else msgspec.structs.replace(x, values=dict.fromkeys(x.values, 0.0))
        for x in looks(trace)
    ]
    checks = told(server_of(trace, WINDOW, again))
    assert checks["requests"].server is None
    assert checks["requests"].agrees is None


def test_the_traffic_of_another_client_is_named() -> None:
    mine, both = trace_of(answers()), trace_of(answers() + answers())
    (finding,) = findings_of(server_of(mine, WINDOW, looks(both)))  # type: ignore[arg-type]
    assert (finding.status, finding.code) == ("suspect", "other_traffic")
    assert "50% of its work was for another client" in finding.message


def test_a_replica_that_is_not_read_is_named() -> None:
    whole, half = trace_of(answers() + answers()), trace_of(answers())
    (finding,) = findings_of(server_of(whole, WINDOW, looks(half)))  # type: ignore[arg-type]
    assert (finding.status, finding.code) == ("note", "counted_less")
    assert "--metrics" in finding.message


def test_what_holds_first_tokens_back_is_named() -> None:
    trace = trace_of(answers())
    (finding,) = findings_of(server_of(trace, WINDOW, looks(trace, network_ms=29.0)))  # type: ignore[arg-type]
    assert (finding.status, finding.code) == ("note", "held_back")
    assert "29 of 40 ms of TTFT pass outside the server" in finding.message


def test_tokens_that_are_counted_at_the_end_of_an_answer() -> None:
    trace = trace_of(answers())
    late = [
        look(x.now_ns / MS, x.values | {"output_tokens": 10 * x.values["requests"]}, "SGLang") for x in looks(trace)
    ]
    assert told(server_of(trace, WINDOW, late))["output_tokens"].agrees is True


def test_shares_below_the_edges_of_the_servers_buckets() -> None:
    slow = [exchange(250 * i + 3, [250 * i + 3 + (20 if i % 4 else 60)], input_tokens=7) for i in range(40)]
    trace = trace_of(slow)
    server = server_of(trace, WINDOW, looks(trace, queue_ms=0.0))
    assert server is not None
    (edge,) = server.ttft_within
    assert (edge.ttft_ms, edge.client, edge.server) == pytest.approx((30.0, 0.75, 0.75), abs=0.01)


def test_a_queue_that_is_only_counted_is_timed_by_littles_law() -> None:
    trace = trace_of(answers())
    few = ("output_tokens", "running", "prefill_sum", "decode_sum", "requests")
    some = [look(x.now_ns / MS, {k: x.values[k] for k in few} | {"waiting": 3.0}, "llama.cpp") for x in looks(trace)]
    server = server_of(trace, WINDOW, some)
    assert server is not None
    answered = told(server)["requests"].client
    assert answered is not None
    assert server.phases.queue_ms == pytest.approx(1e3 * 3.0 * 8.0 / answered, rel=0.05)
    assert server.phases.prefill_ms == pytest.approx(28.0, rel=0.05)


def test_energy_by_the_counter_or_else_by_the_power() -> None:
    trace = trace_of(answers())
    base = looks(trace)
    power = [look(x.now_ns / MS, x.values | {"power_w": 500.0, "gpus": 2.0}) for x in base]
    server = server_of(trace, WINDOW, power)
    assert server is not None
    tokens = told(server)["output_tokens"].client
    assert tokens is not None
    assert server.joules_per_1k_tokens == pytest.approx(1e3 * 500 * 8 / tokens)
    assert server.gpu_seconds_per_1k_tokens == pytest.approx(1e3 * 2 * 8 / tokens)
    counted = [look(x.now_ns / MS, x.values | {"energy_j": x.now_ns / 1e9 * 100, "power_w": 500.0}) for x in base]
    by_counter = server_of(trace, WINDOW, counted)
    assert by_counter is not None
    assert by_counter.joules_per_1k_tokens == pytest.approx(1e3 * 100 * 8 / tokens)
