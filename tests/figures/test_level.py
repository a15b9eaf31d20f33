"""Several measurements of one load are one level, held against what the simulator is known to do."""

from __future__ import annotations

import dataclasses
import functools

import msgspec
import numpy as np
import pytest

from pacemark.answers.search import find
from pacemark.figures import health, metrics
from pacemark.figures.client import STAMP_ERROR_MS, bound_ms
from pacemark.figures.health import Health, health_of
from pacemark.figures.level import Enough, LevelResult, precise, sum_up
from pacemark.figures.pooling import pooled, widened
from pacemark.pace import Concurrency, Load, Rate
from pacemark.runs.simulated import virtual_measure
from pacemark.simulator import simulate
from pacemark.summary import Figure, Level, Verdict
from pacemark.trace import ABSENT, Beat, Trace, Window, trace_of
from support.samples import known
from support.servers import MS, exchange

LOAD = Concurrency(4)
LENGTHS = {"input_tokens": (256, 0.5), "output_tokens": (64, 0.5)}


@functools.cache
def runs() -> tuple[LevelResult, ...]:
    measure = virtual_measure("demo", **LENGTHS, duration_s=12.0, seed=3)  # type: ignore[arg-type]
    return tuple(measure(LOAD) for _ in range(2))


@functools.cache
def truth() -> Level:
    return virtual_measure("demo", **LENGTHS, duration_s=400.0, seed=9)(LOAD).level  # type: ignore[arg-type]


def test_two_runs_keep_every_figure_and_interval_that_one_has() -> None:
    one, two = runs()[0].level, pooled(runs())
    assert two.repeats == 2

    def leaves(value: object, path: str = "") -> set[str]:
        if isinstance(value, dict):
            return {leaf for k, v in value.items() for leaf in leaves(v, f"{path}.{k}")}
        return {path} if value is not None else set()

    lost = leaves(msgspec.to_builtins(one)) - leaves(msgspec.to_builtins(two))
    assert lost == set()
    assert two.basis["ttft_ms"].n == sum(run.level.basis["ttft_ms"].n for run in runs())
    assert two.basis["ttft_ms"].scatter.keys() == one.basis["ttft_ms"].scatter.keys()
    assert known(two.window_s) == pytest.approx(sum(known(run.level.window_s) for run in runs()))
    assert two.experience.fluidity.value is not None


def test_the_figures_of_two_runs_are_those_of_all_their_requests() -> None:
    two = pooled(runs())
    tokens = sum(metrics.tokens_in(r.trace, r.window.start_ns, r.window.end_ns)[1].sum() for r in runs())
    assert two.output_tokens_per_s.value == pytest.approx(tokens / sum(r.window.seconds for r in runs()))
    waits = np.concatenate(
        [metrics.ttft_ms(r.trace)[metrics.started_in(r.trace, r.window.start_ns, r.window.end_ns)] for r in runs()]
    )
    assert two.ttft_ms.p50.value == pytest.approx(float(np.quantile(waits, 0.5, method="inverted_cdf")))
    assert two.output_tokens == pytest.approx(64, rel=0.1)
    assert isinstance(two.between_runs, dict)
    between = two.between_runs["output_tokens_per_s"]
    assert between.values == [r.level.output_tokens_per_s.value for r in runs()]
    assert between.deviation == pytest.approx(float(np.std(between.values, ddof=1)))  # type: ignore[arg-type]


def test_windows_of_other_lengths_count_by_their_length() -> None:
    whole = runs()[0]
    half = Window(whole.window.start_ns, (whole.window.start_ns + whole.window.end_ns) // 2)
    cut = sum_up(LOAD, whole.trace, half, Health())
    both = pooled([cut, runs()[1]])
    rates = [known(level.output_tokens_per_s.value) for level in (cut.level, runs()[1].level)]
    seconds = [cut.window.seconds, runs()[1].window.seconds]
    assert both.output_tokens_per_s.value == pytest.approx(np.average(rates, weights=seconds))
    assert both.requests.in_window == cut.level.requests.in_window + runs()[1].level.requests.in_window


@pytest.mark.slow(shared=True)
def test_the_interval_of_two_runs_holds_the_truth() -> None:
    held, widths, alone = [], [], []
    for seed in range(12):
        measure = virtual_measure("demo", **LENGTHS, duration_s=12.0, seed=100 + seed)  # type: ignore[arg-type]
        results = [measure(LOAD) for _ in range(2)]
        for name in ("output_tokens_per_s", "ttft_ms", "tpot_ms"):
            figure, exact, single = (
                getattr(level, name) if name == "output_tokens_per_s" else getattr(level, name).p50
                for level in (pooled(results), truth(), results[0].level)
            )
            assert figure.low is not None
            assert figure.high is not None
            held.append(figure.low <= exact.value <= figure.high)
            widths.append((figure.high - figure.low) / figure.value)
            alone.append((single.high - single.low) / single.value)
    assert np.mean(held) >= 0.88
    assert np.median(widths) < np.median(alone)  # and it is worth measuring twice


def test_runs_that_differ_widen_the_interval_of_the_whole() -> None:
    inside = [Figure(100.0, 98.0, 102.0), Figure(101.0, 99.0, 103.0)]
    assert widened(Figure(100.5, 99.1, 101.9), inside) == Figure(100.5, 99.1, 101.9)
    apart = [Figure(100.0, 98.0, 102.0), Figure(120.0, 118.0, 122.0), Figure(110.0, 108.0, 112.0)]
    wide = widened(Figure(110.0, 108.8, 111.2), apart)
    assert known(wide.low) < 90 < 110 < 130 < known(wide.high)  # the t interval of three values: 110 +- 24.8
    assert known(wide.low) > 80
    # Without an interval of its own the whole has that of the runs, from three on.
    assert widened(Figure(110.0), apart).low == pytest.approx(110 - 24.84, abs=0.01)
    assert widened(Figure(110.0), apart[:2]) == Figure(110.0)
    assert widened(Figure(), apart) == Figure()


def test_differing_runs_are_covered() -> None:
    """Values of three runs that scatter three times as much as each run's own interval says."""
    rng = np.random.default_rng(1)
    held = []
    for _ in range(2000):
        values = rng.normal(100.0, np.hypot(3.0, 1.0), 3)
        within = [Figure(v, v - 1.96, v + 1.96) for v in values]
        mean = float(values.mean())
        wide = widened(Figure(mean, mean - 1.96 / 3**0.5, mean + 1.96 / 3**0.5), within)
        held.append(known(wide.low) <= 100.0 <= known(wide.high))
    assert np.mean(held) > 0.87


def test_the_worst_verdict_counts_but_for_what_more_requests_mend() -> None:
    def with_verdict(result: LevelResult, status: str, code: str) -> LevelResult:
        verdict = msgspec.convert({"status": status, "reasons": [{"code": code, "message": "x"}]}, Verdict)
        return dataclasses.replace(result, level=msgspec.structs.replace(result.level, verdict=verdict))

    one, two = runs()
    assert pooled([one, with_verdict(two, "suspect", "little")]).verdict.status == "suspect"
    assert pooled([one, with_verdict(two, "invalid", "errors")]).verdict.status == "invalid"
    few = pooled([one, with_verdict(two, "suspect", "few_requests")]).verdict
    assert few.status == "valid"
    assert "few_requests" not in {reason.code for reason in few.reasons}


def test_precision_ends_a_level_and_not_before_its_duration() -> None:
    lengths, many = {"input_tokens": 64, "output_tokens": 16}, Concurrency(16)
    short, long = (
        virtual_measure("demo", **lengths, max_duration_s=60.0, seed=5)(many, precise(0.5, least_s)).level
        for least_s in (0.0, 20.0)
    )
    assert [short.ended_by, long.ended_by] == ["precision", "precision"]
    assert short.window_s is not None
    assert long.window_s is not None
    assert short.window_s < 20 <= long.window_s < 30


def test_a_load_that_a_search_measured_twice_keeps_its_intervals() -> None:
    results: list[LevelResult] = []
    measure = virtual_measure("demo", **LENGTHS, max_duration_s=60.0, seed=5)  # type: ignore[arg-type]

    def measured(load: Load, enough: Enough | None = None) -> LevelResult:
        results.append(measure(load, enough))
        return results[-1]

    find(measured, "tpot p95 < 12ms", precision=0.02)
    twice = next((r.load for r in results if sum(x.load == r.load for x in results) > 1), results[-1].load)
    same = [r for r in results if r.load == twice]
    level = pooled(same if len(same) > 1 else [*same, measure(twice)])
    assert level.repeats >= 2
    assert level.output_tokens_per_s.low is not None
    assert level.ttft_ms.p50.high is not None
    assert level.basis["tpot_ms"].scatter


def test_an_open_loop_beyond_capacity_has_no_latency_in_two_runs_either() -> None:
    trace = dataclasses.replace(
        simulate(Rate(120.0), "demo", input_tokens=256, output_tokens=64, requests=1500, seed=2), open_loop=True
    )
    window = Window(int(trace.scheduled_ns[100]), int(trace.scheduled_ns[-1]))
    level = pooled([sum_up(Rate(120.0), trace, window, Health())] * 2)
    assert level.verdict.status == "invalid"
    assert level.ttft_ms.p50 == Figure()


# --- traces


def test_traces_joined_have_the_requests_of_all() -> None:
    parts = [r.trace for r in runs()]
    whole = Trace.joined(parts)
    assert len(whole) == sum(map(len, parts))
    assert whole.exact
    for name in (metrics.ttft_ms, metrics.tpot_ms, metrics.latency_ms, metrics.longest_stall_ms):
        assert np.array_equal(name(whole), np.concatenate([name(p) for p in parts]), equal_nan=True)


def test_a_trace_that_grows_by_batches_is_the_trace_of_all() -> None:
    many = [exchange(7 * (i * 37 % 50), [900 + i, 950 + i], index=i, lo_ms=[900 + i, 940 + i]) for i in range(50)]
    grown = Trace.joined([trace_of(many[:20]), trace_of(many[20:25]), trace_of(many[25:])]).in_order()
    whole = trace_of(many)
    for name in Trace.__slots__:
        if name != "lag_ns":
            assert np.array_equal(getattr(grown, name), getattr(whole, name)), name
    assert sorted(grown.lag_ns.tolist()) == sorted(whole.lag_ns.tolist())


# --- the client


def test_what_the_client_can_have_added_to_the_ttft() -> None:
    """Half of the first events may have come 4 ms before their stamp; sending took up to 2 ms."""
    rows = [
        exchange(10 * i, [10 * i + 50, 10 * i + 60], lo_ms=[10 * i + 46, 10 * i + 60], send_ns=2 * MS)
        for i in range(100)
    ]
    trace = trace_of(rows)
    good = metrics.succeeded(trace)
    kernel = health_of(trace, [])
    assert bound_ms(trace, good, kernel) == pytest.approx(STAMP_ERROR_MS + 4.0 + 2.0)
    late = dataclasses.replace(kernel, clock="user", stall_ns=7 * MS)
    assert bound_ms(trace, good, late) == pytest.approx(STAMP_ERROR_MS + 4.0 + 2.0 + 7.0)
    assert bound_ms(trace, good, dataclasses.replace(kernel, clock="virtual")) is None
    assert bound_ms(trace, np.zeros(100, np.bool_), kernel) is None


def pulse(worker: int, now_ms: int, cpu_ms: int, wait_ms: int, idle: float, stall_ms: int, reconnects: int) -> Beat:
    return Beat(
        worker, now_ms * MS, 0, 1, ABSENT, 0, 9, cpu_ms * MS, wait_ms * MS, idle, stall_ms * MS, reconnects, False
    )


def test_health_from_the_pulses_and_the_reads() -> None:
    rows = [
        exchange(i, [i + 20, i + 30], lag_ns=np.array([1000, 2000], np.int32), send_ns=5, coalesced_reads=1)
        for i in range(4)
    ]
    beats = [
        pulse(0, 0, 10, 0, 0.9, 1, 1), pulse(0, 100, 60, 10, 0.5, 3, 2), pulse(0, 200, 110, 20, 0.7, 2, 4),
        pulse(1, 0, 0, 0, ABSENT, 0, 0), pulse(1, 200, 20, 100, 0.2, 9, 0),
    ]  # fmt: skip
    found = health_of(trace_of(rows), beats, ["worker 1 ended"])
    assert found.throttled_share == 0.0
    beats[2:] = [msgspec.structs.replace(beats[2], throttled_ns=30 * MS), *beats[3:]]
    assert health_of(trace_of(rows), beats).throttled_share == pytest.approx(0.15)
    assert (found.clock, found.reads, found.coalesced_reads) == ("kernel", 8, 4)
    assert sorted(found.lag_ns.tolist()) == [1000] * 4 + [2000] * 4
    assert found.send_ns.tolist() == [5] * 4
    assert found.cpu_ns == 120 * MS
    assert found.worker_cpu_share == pytest.approx((0.5, 0.1))
    assert found.worker_wait_share == pytest.approx((0.1, 0.5))
    assert found.idle_share == pytest.approx(0.2)
    assert (found.stall_ns, found.reconnects, found.died) == (9 * MS, 3, ("worker 1 ended",))


def test_reads_without_a_stamp_are_on_the_users_clock() -> None:
    rows = [exchange(i, [i + 20], lag_ns=np.array([-1, -1, 400], np.int32)) for i in range(3)]
    found = health_of(trace_of(rows), [])
    assert (found.clock, found.reads, found.lag_ns.tolist()) == ("user", 9, [400] * 3)


def test_the_health_of_two_runs_adds_up_and_keeps_the_worst() -> None:
    one = Health("kernel", np.array([1], np.int32), np.array([2]), 10, 1, 100, (0.2,), (0.1,), 0.8, 5, 1, ("a",))
    two = Health("kernel", np.array([3], np.int32), np.array([4]), 20, 2, 200, (0.1, 0.9), (), 0.4, 3, 0, ("a", "b"))
    both = health.joined([one, two])
    assert (both.reads, both.coalesced_reads, both.cpu_ns, both.reconnects) == (30, 3, 300, 1)
    assert both.worker_cpu_share == (0.2, 0.9)
    assert (both.idle_share, both.stall_ns, both.died) == (0.4, 5, ("a", "b"))
    assert both.lag_ns.tolist() == [1, 3]


def test_events_that_were_passed_over_are_counted_and_cast_no_doubt() -> None:
    whole = [exchange(250 * i, [250 * i + 50 + 50 * k for k in range(4)]) for i in range(40)]
    odd = [msgspec.structs.replace(x, unread_events=2) for x in whole]
    window = Window(0, 10_000 * MS)
    plain, counted = (sum_up(Concurrency(1), trace_of(x, False), window, Health()).level for x in (whole, odd))
    assert plain.unread_events is msgspec.UNSET
    assert counted.unread_events == 2 * counted.requests.in_window > 0
    assert counted.verdict == plain.verdict


def test_an_answer_of_which_some_is_hidden_is_not_counted_as_short() -> None:
    some = [exchange(250 * i, [250 * i + 50 + 50 * k for k in range(4)], asked_tokens=10) for i in range(40)]
    whole = [msgspec.structs.replace(x, hidden_tokens=6) for x in some]
    levels = [sum_up(Concurrency(1), trace_of(x, False), Window(0, 10_000 * MS), Health()).level for x in (some, whole)]
    assert levels[0].requests.short > 0 == levels[1].requests.short
