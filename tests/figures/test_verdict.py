"""Each check, where it must speak and where it must not."""

import dataclasses
from collections.abc import Sequence
from typing import Any

import msgspec
import numpy as np
import pytest

from pacemark.figures import metrics, verdict
from pacemark.figures.evidence import Evidence, Finding
from pacemark.figures.health import Health
from pacemark.figures.verdict import judge, verdict_of
from pacemark.figures.window import Change
from pacemark.pace import Concurrency, Load, Rate
from pacemark.summary import Basis, Distribution, Figure
from pacemark.trace import ABSENT, Exchange, Watch, Window, trace_of
from support.samples import engine_level
from support.servers import MS, exchange

WINDOW = Window(0, 10_000 * MS)
PAIR = Concurrency(2)
EMPTY = msgspec.structs.replace(
    engine_level(2), output_tokens_per_s=Figure(), itl_ms=Distribution(), latency_ms=Distribution()
)


def requests(count: int = 40, **fields: Any) -> list[Exchange]:
    """Two streams, back to back through the window: 10 tokens in 500 ms each."""
    return [
        exchange(250 * i - 250 * (i % 2) + 1, [250 * i - 250 * (i % 2) + 51 + 50 * k for k in range(10)], **fields)
        for i in range(count)
    ]


def evidence(exchanges: Sequence[Exchange], load: Load = PAIR, **fields: Any) -> Evidence:
    trace = trace_of(exchanges, isinstance(load, Rate))
    names = {
        "itl": "itl_ms",
        "latency": "latency_ms",
        "output": "output_tokens_per_s",
        "by_cycle": "output_tokens_per_s_by_cycle",
    }
    figures = {field: fields.pop(name) for name, field in names.items() if name in fields}
    notes = fields.pop("lacking", {})
    figures["basis"] = {f"{name.lower()}_ms": Basis(n=40, note=note) for name, note in notes.items()}
    window = fields.setdefault("window", WINDOW)
    sample = metrics.started_in(trace, window.start_ns, window.end_ns)
    given: dict[str, Any] = {
        "health": Health(clock="kernel"),
        "sample": sample,
        "good": sample & metrics.succeeded(trace),
    }
    return Evidence(msgspec.structs.replace(EMPTY, load=load, **figures), trace, **(given | fields))


TOLD = (
    "longer_than_asked input_length in_one_piece held_open tokens_uneven hidden_tokens mixed_cache cache_told "
    "filter_batches rows_again several_models"
).split()
"""Checks with tests of their own below."""
GOOD = requests()


def found(e: Evidence) -> dict[str, str]:
    """Codes and what each does to the status."""
    return {f.code: f.status for f in checked(e)}


def checked(e: Evidence) -> list[Finding]:
    return [f for check in verdict.CHECKS if (f := check(e)) is not None]


def test_a_good_level_is_valid_without_reasons() -> None:
    assert found(evidence(GOOD)) == {}
    assert judge(evidence(GOOD)).status == "valid"
    assert judge(evidence(GOOD)).reasons == []


@pytest.mark.parametrize(
    ("fields", "code", "status"),
    [
        ({"window": Window(0, 0)}, "no_window", "invalid"),
        ({"health": Health(died=("worker 1 (process 7) ended: signal 9",))}, "worker_died", "invalid"),
        ({"ended_by": "interrupted"}, "interrupted", "suspect"),
        ({"settled": False}, "unsteady", "suspect"),
        ({"change": Change(5, 100.0, 150.0, 0.001)}, "step_change", "suspect"),
        ({"beyond": True}, "beyond_capacity", "invalid"),
        ({"lacking": {"TTFT": "insufficient: about 900 more requests needed"}}, "no_interval", "note"),
        ({"known_prompts": 0.4}, "suspected_cache", "suspect"),
        ({"health": Health(worker_wait_share=(0.0, 0.2))}, "client_starved", "suspect"),
        ({"health": Health(worker_wait_share=(0.5, 0.0))}, "client_starved", "invalid"),
        ({"health": Health(throttled_share=0.06)}, "client_throttled", "suspect"),
        ({"health": Health(stall_ns=3000 * MS)}, "client_stalled", "suspect"),
        ({"health": Health(worker_cpu_share=(0.1, 0.95))}, "client_busy", "suspect"),
        ({"health": Health(lag_ns=np.full(100, 60 * MS, np.int32))}, "client_lag", "suspect"),
        ({"output": Figure(100.0, 99.0, 101.0), "by_cycle": Figure(110.0)}, "little", "suspect"),
    ],
)
def test_what_was_noted_elsewhere_is_said(fields: dict[str, Any], code: str, status: str) -> None:
    assert found(evidence(GOOD, **fields)).get(code) == status


@pytest.mark.parametrize(
    "fields",
    [
        {"health": Health(worker_wait_share=(0.1,), worker_cpu_share=(0.8,), lag_ns=np.full(100, 2 * MS, np.int32))},
        {"health": Health(stall_ns=400 * MS)},
        {"output": Figure(100.0, 99.0, 101.0), "by_cycle": Figure(103.0)},
        {"output": Figure(100.0, 85.0, 115.0), "by_cycle": Figure(110.0)},
        {"output": Figure(), "by_cycle": Figure(110.0)},
        {"output": Figure(100.0), "by_cycle": Figure()},
        {"known_prompts": 0.9},
        {"itl": Distribution(p50=Figure(200.0)), "health": Health(lag_ns=np.full(100, 60 * MS, np.int32))},
        {"latency": Distribution(p50=Figure(200.0)), "health": Health(lag_ns=np.full(100, 60 * MS, np.int32))},
        {"itl": Distribution(p99=Figure(20.0, 20.0, 20.4)), "gaps": 1000},
        {"itl": Distribution(p99=Figure(20.0, 5.0, 40.0)), "gaps": 50},
    ],
)
def test_what_is_within_bounds_is_not_mentioned(fields: dict[str, Any]) -> None:
    assert found(evidence(GOOD, **fields)) == {}


@pytest.mark.parametrize(("of", "said"), [("itl", "tokens come every 30.0 ms"), ("latency", "an answer takes 30.0 ms")])
def test_a_late_client_is_held_against_what_answers_have(of: str, said: str) -> None:
    fields: dict[str, Any] = {of: Distribution(p50=Figure(30.0)), "health": Health(lag_ns=np.full(100, 60 * MS))}
    (finding,) = checked(evidence(GOOD, **fields))
    assert said in finding.message


def test_a_client_that_was_suspended_does_not_blame_the_server_for_what_piled_up() -> None:
    pooled: dict[str, Any] = {"itl": Distribution(p99=Figure(20.0, 18.0, 400.0)), "gaps": 1000}
    for away_ms, whose in ((0, "find what buffers"), (3000, "this client read late")):
        said = {f.code: f.message for f in checked(evidence(GOOD, **pooled, health=Health(stall_ns=away_ms * MS)))}
        assert whose in said["coalesced"]


def test_a_dead_worker_is_named() -> None:
    reasons = judge(evidence(GOOD, health=Health(died=("worker 1 (process 7) ended: signal 9",)))).reasons
    assert "worker 1 (process 7) ended: signal 9" in reasons[0].message


def test_what_decides_is_the_first_reason() -> None:
    """One line has room for one reason."""
    note, suspect, invalid = (Finding(s, s, s) for s in ("note", "suspect", "invalid"))
    whole = verdict_of([note, suspect, invalid])
    assert [reason.code for reason in whole.reasons] == ["invalid", "suspect", "note"]
    seen_later = verdict_of([invalid], verdict_of([note, suspect]))
    assert [reason.code for reason in seen_later.reasons] == ["invalid", "suspect", "note"]
    doubted_before = verdict_of([note], verdict_of([suspect]))
    assert [reason.code for reason in doubted_before.reasons] == ["suspect", "note"]


def test_the_worst_finding_decides() -> None:
    suspect = judge(evidence(GOOD, settled=False, lacking={"TTFT": "x"}))
    assert (suspect.status, {r.code for r in suspect.reasons}) == ("suspect", {"unsteady", "no_interval"})
    assert judge(evidence(GOOD, settled=False, beyond=True)).status == "invalid"
    assert judge(evidence(GOOD, lacking={"TTFT": "x"})).status == "valid"


@pytest.mark.trap("an error rate that is always 0")
@pytest.mark.parametrize(("failed", "status"), [(0, None), (2, "suspect"), (30, "invalid")])
def test_failures(failed: int, status: str | None) -> None:
    for kind, code in (("reset", "errors"), ("http_429", "rate_limited"), ("said_429", "rate_limited")):
        many = requests(80)
        broken = [exchange(x.sent_ns / MS, error=kind, ended_ns=x.ended_ns) for x in many[:failed]]
        e = evidence([*broken, *many[failed:]], window=Window(0, 20_000 * MS))
        assert found(e).get(code) == status


def test_refusals_by_a_rate_limit_are_told_apart_from_failures() -> None:
    mixed = [exchange(1 + i, error="http_429" if i < 3 else "reset") for i in range(5)] + GOOD
    said = {r.code: r.message for r in judge(evidence(mixed)).reasons}
    assert said.keys() == {"rate_limited", "errors"}
    assert said["rate_limited"].startswith("6.7% of 45 requests")
    assert said["errors"].startswith("4.4% of 45 requests")
    # Both together decide how bad it is.
    assert judge(evidence(mixed)).status == "invalid"
    assert judge(evidence(mixed[:1] + GOOD + requests())).status == "suspect"


def test_a_rate_limit_is_named_where_the_server_named_it() -> None:
    refused = [exchange(1 + i, error="http_429") for i in range(5)] + GOOD
    limited = Watch(limits=("output tokens per minute",))
    assert "rate limit on output tokens per minute (429)" in judge(evidence(refused, watch=limited)).reasons[0].message


EVERY: list[dict[str, Any]] = [
    {"window": Window(0, 0)},
    {"health": Health(died=("worker 1 (process 7) ended: signal 9",))},
    {"health": Health(worker_wait_share=(0.5,))},
    {"health": Health(idle_share=0.0)},
    {"health": Health(worker_cpu_share=(0.95,), lag_ns=np.full(100, 60 * MS, np.int32))},
    {"ended_by": "interrupted"},
    {"settled": False, "beyond": True, "change": Change(5, 100.0, 150.0, 0.001)},
    {"lacking": {"TTFT": "insufficient: about 900 more requests needed"}, "known_prompts": 0.4},
    {"output": Figure(100.0, 99.0, 101.0), "by_cycle": Figure(110.0)},
    {"itl": Distribution(p99=Figure(20.0, 5.0, 40.0)), "gaps": 1000},
]


def test_every_reason_says_what_to_do() -> None:
    """A finding, then what follows from it or what to do about it; one sentence without code words."""
    several = [exchange(x.sent_ns / MS, (x.hi_ns / MS).tolist(), tokens=[2] * 10, asked_tokens=40) for x in GOOD]
    some = [exchange(1 + i, error="reset") for i in range(5)] + [exchange(1 + i, error="http_429") for i in range(5)]
    late = [exchange(100 * i + 30, [100 * i + 80], scheduled_ms=100 * i) for i in range(1, 60)]
    judged = [judge(evidence(GOOD, **fields)) for fields in EVERY]
    judged += [
        judge(evidence(several + some)),
        judge(evidence(requests(5, tokens_source="events", cached_tokens=10, input_tokens=20), Concurrency(9))),
        judge(evidence(late, Rate(10.0))),
    ]
    said = {r.code: r.message for verdict in judged for r in verdict.reasons}
    watched = {
        "endpoint_changed", "endpoint_unseen", "endpoint_may_burst", "client_throttled", "client_stalled",
        "uneven_connections", *TOLD, "clocks", "slowed", "on_one_machine", "events_missing",
    }  # fmt: skip
    assert said.keys() >= {check.__name__ for check in verdict.CHECKS} - watched | {"no_interval"}
    assert all(f.code in verdict.NOTES for e in EVERY for f in checked(evidence(GOOD, **e)) if f.status == "note")
    for code, message in said.items():
        assert "; " in message or ", so " in message, code
        assert not message.endswith("."), code
        assert "_" not in message.replace("ignore_eos", ""), message
        assert len(message) < 300, code


def test_few_requests() -> None:
    assert found(evidence(requests(9))).get("few_requests") == "suspect"
    assert "few_requests" not in found(evidence(requests(10)))


def test_short_answers() -> None:
    assert found(evidence(requests(asked_tokens=20)))["short_answers"] == "suspect"
    assert "short_answers" not in found(evidence(requests(asked_tokens=10)))
    assert "short_answers" not in found(evidence(requests(asked_tokens=8)))
    one_of_many = [*requests(39), exchange(9751, [9800, 9990], asked_tokens=10)]
    assert "short_answers" in found(evidence(one_of_many[-30:]))


@pytest.mark.parametrize(
    ("asked", "said"),
    [(100, set()), (99, set()), (101, set()), (103, {"short_answers"}), (94, {"longer_than_asked"})],
)
def test_a_count_that_is_one_off_is_no_other_length(asked: int, said: set[str]) -> None:
    """Servers count the token that ends a text, or do not."""
    many = [exchange(250 * i + 1, [250 * i + 2 * k for k in range(1, 101)], asked_tokens=asked) for i in range(40)]
    assert {"short_answers", "longer_than_asked"} & set(found(evidence(many))) == said


@pytest.mark.parametrize(
    ("reason", "words"),
    [
        *((reason, "lower limit of its own") for reason in ("length", "max_tokens", "max_output_tokens", "MAX_TOKENS")),
        ("stop", "heed ignore_eos, or its API has none"),
        ("", "does not say why"),
    ],
)
def test_why_answers_are_short_is_told(reason: str, words: str) -> None:
    (message,) = [
        f.message
        for f in checked(evidence(requests(asked_tokens=20, finish_reason=reason)))
        if f.code == "short_answers"
    ]
    assert words in message


def test_tokens_counted_by_events() -> None:
    assert found(evidence(requests(tokens_source="events")))["token_count"] == "suspect"
    assert "token_count" not in found(evidence(requests(tokens_source="tokenizer")))  # as good as the server's


def test_it_is_told_how_many_answers_were_counted_by_events() -> None:
    some = [*requests(30), *requests(10, tokens_source="events")]
    (message,) = [f.message for f in checked(evidence(some)) if f.code == "token_count"]
    assert "for 25% of the answers" in message


def test_answers_that_are_not_streamed_among_others_that_are() -> None:
    whole = [msgspec.structs.replace(x, first_event_ns=ABSENT) for x in requests(10)]
    assert found(evidence([*requests(30), *whole]))["in_one_piece"] == "suspect"
    assert "in_one_piece" not in found(evidence(whole))  # as --no-stream has it


def test_a_gateway_that_falls_back_to_another_model() -> None:
    mixed = [*requests(30, served_by="m"), *requests(10, served_by="tiny")]
    (message,) = [f.message for f in checked(evidence(mixed)) if f.code == "several_models"]
    assert "25% of the answers came from another model (tiny) than the rest (m)" in message
    assert "several_models" not in found(evidence([*requests(30, served_by="m"), *requests(10)]))


def test_a_level_of_which_all_failed_names_the_failure() -> None:
    refused = evidence(requests(error="http_429"), window=Window(0, 0))
    (message,) = [f.message for f in checked(refused) if f.code == "no_window"]
    assert "40 of 40 requests failed (most by http_429)" in message
    assert "longer" not in message


def test_events_that_carry_several_tokens_are_noted() -> None:
    spec = [exchange(x.sent_ns / MS, (x.hi_ns / MS).tolist(), tokens=[2] * 10) for x in GOOD]
    assert found(evidence(spec)) == {"event_count": "note"}
    by_events = [
        exchange(x.sent_ns / MS, (x.hi_ns / MS).tolist(), tokens=[2] * 10, tokens_source="events") for x in GOOD
    ]
    assert "event_count" not in found(evidence(by_events))


def test_batches_of_a_content_filter_are_named_as_such() -> None:
    def batches(tokens: int, **fields: Any) -> list[Exchange]:
        return [exchange(x.sent_ns / MS, (x.hi_ns / MS).tolist(), tokens=[tokens] * 10, **fields) for x in GOOD]

    assert found(evidence(batches(5, filtered=True))) == {"event_count": "note", "filter_batches": "note"}
    assert found(evidence(batches(1, filtered=True))) == {}
    assert "filter_batches" not in found(evidence(batches(5)))


@pytest.mark.parametrize(
    ("input_tokens", "cached", "fires"),
    [(256, 0, False), (256, ABSENT, False), (256, 192, True), (256, 5, False), (ABSENT, 64, False), (4096, 4000, True)],
)
def test_cached_prompts(input_tokens: int, cached: int, fires: bool) -> None:
    codes = found(evidence(requests(input_tokens=input_tokens, cached_tokens=cached)))
    assert (codes.get("cached_prompts") == "invalid") == fires


def test_coalesced_events_make_the_tail_a_bound() -> None:
    wide = Distribution(p50=Figure(20.0), p99=Figure(20.0, 5.0, 40.0))
    assert found(evidence(GOOD, itl=wide, gaps=1000)) == {"coalesced": "suspect"}


@pytest.mark.parametrize(("late_ms", "status"), [(0.0, None), (0.5, None), (2.0, "suspect"), (30.0, "invalid")])
def test_late_sends(late_ms: float, status: str | None) -> None:
    late = [
        exchange(100 * i + late_ms, [100 * i + late_ms + 50 + 10 * k for k in range(10)], scheduled_ms=100 * i)
        for i in range(1, 60)
    ]
    assert found(evidence(late, Rate(10.0))).get("late_sends") == status
    assert "late_sends" not in found(evidence(late, Concurrency(1)))


def test_slots_left_empty() -> None:
    assert found(evidence(GOOD, Concurrency(3)))["underfilled"] == "suspect"
    assert "underfilled" not in found(evidence(GOOD, Rate(3.0)))
    # A request that runs on past the window, or began before it, fills its slot all the same.
    long = [exchange(-5000, [-4000, 20_000]), exchange(-5000, [-4000, 20_000], stream=1)]
    assert "underfilled" not in found(evidence(long))


def test_every_check_stands_an_empty_level() -> None:
    for load in (Concurrency(2), Rate(1.0)):
        for window in (Window(0, 0), WINDOW):
            assert judge(evidence([], load, window=window)).status == "invalid"


# --- lengths, and answers that come whole


@pytest.mark.parametrize(
    ("counted", "asked", "said"), [(2048, 8192, True), (8192, 8192, False), (8300, 8192, False), (9000, 8192, True)]
)
def test_another_input_length_than_asked_is_said_with_both_numbers(counted: int, asked: int, said: bool) -> None:
    (finding,) = [*checked(evidence(requests(input_tokens=counted), asked_input=asked)), None][:1]
    assert (finding is not None and finding.code == "input_length") == said
    if finding is not None:
        assert finding.status == "suspect"
        assert f"{counted:,}" in finding.message
        assert f"{asked:,}" in finding.message


def uneven(input_tokens: int, asked_input: int, tokens: int = 10) -> list[Exchange]:
    """Every tenth prompt is ten times as long as the others, and asks for `tokens` more tokens."""
    return [
        msgspec.structs.replace(x, input_tokens=256, asked_input=256, asked_tokens=x.output_tokens)
        if n % 10
        else msgspec.structs.replace(
            x, input_tokens=input_tokens, asked_input=asked_input, asked_tokens=x.output_tokens + 10 - tokens
        )
        for n, x in enumerate(requests())
    ]


def test_each_request_is_held_against_its_own_length() -> None:
    assert found(evidence(uneven(2560, 2560), asked_input=486)) == {}
    cut = evidence(uneven(2400, 2560), asked_input=486)
    (finding,) = checked(cut)
    assert finding.code == "input_length"
    assert "2,400 input tokens for the longest prompts where 2,560" in finding.message
    # An answer that is too long is none the less so where another one is too short.
    assert "longer_than_asked" in found(evidence(uneven(2560, 2560, tokens=18)))


def test_answers_longer_than_asked_are_suspect() -> None:
    long = evidence(requests(asked_tokens=5))
    assert found(long)["longer_than_asked"] == "suspect"
    (message,) = [f.message for f in checked(long) if f.code == "longer_than_asked"]
    assert "10 tokens" in message
    assert "5 were asked" in message


@pytest.mark.parametrize(
    ("cached", "code"),
    [
        ([64] * 40, "cached_template"),
        ([240] * 40, "cached_prompts"),
        ([64, 80] * 20, "cached_prompts"),
        ([70] * 40, "cached_prompts"),
        ([8] * 40, None),
    ],
)
def test_a_template_that_the_server_caches_is_only_noted(cached: list[int], code: str | None) -> None:
    many = [
        msgspec.structs.replace(x, input_tokens=256, cached_tokens=n) for x, n in zip(requests(), cached, strict=True)
    ]
    codes = found(evidence(many))
    assert {c for c in codes if c.startswith("cached")} == ({code} if code else set())
    assert judge(evidence(many)).status == ("invalid" if code == "cached_prompts" else "valid")


@pytest.mark.parametrize(
    ("cached", "template", "code"),
    [
        (64, 79.3, "cached_template"),
        (70, 79.3, "cached_template"),  # of any block, as long as it ends before the salt
        (128, 131.0, "cached_template"),
        (64, 13.0, "cached_prompts"),  # no template is that long here
        (240, 79.3, "cached_prompts"),
        (8, 79.3, None),
        (0, 79.3, None),
    ],
)
def test_no_more_than_the_opening_of_every_prompt_may_be_cached(cached: int, template: float, code: str | None) -> None:
    codes = found(evidence(requests(input_tokens=256, cached_tokens=cached), template_tokens=template))
    assert {c for c in codes if c.startswith("cached")} == ({code} if code else set())


def test_an_answer_of_which_some_is_hidden_is_not_short() -> None:
    e = evidence(requests(asked_tokens=30))
    assert found(e)["short_answers"] == "suspect"
    whole = dataclasses.replace(e.trace, hidden_tokens=np.full(len(e.trace), 20))
    assert "short_answers" not in found(dataclasses.replace(e, trace=whole))


@pytest.mark.parametrize(
    ("column", "value", "status"),
    [("in_one_piece", True, "suspect"), ("tpot_off", 0.2, "suspect"), ("hidden_tokens", 9, "note")],
)  # fmt: skip
def test_what_is_not_known_of_the_tokens_is_said(column: str, value: Any, status: str) -> None:
    e = evidence(GOOD)
    told: Any = {column: np.full(len(e.trace), value)}
    trace = dataclasses.replace(e.trace, **told)
    code = {"tpot_off": "tokens_uneven"}.get(column, column)
    assert found(dataclasses.replace(e, trace=trace)) == {code: status}


@pytest.mark.parametrize(("held_ms", "fires"), [(0, False), (10, False), (100, True)])
def test_a_body_that_ends_long_after_its_answer_is_suspect(held_ms: int, fires: bool) -> None:
    late = [
        msgspec.structs.replace(x, done_ns=x.ended_ns - held_ms * MS if n % 2 else ABSENT)
        for n, x in enumerate(requests())
    ]
    assert ("held_open" in found(evidence(late))) == fires
    said = [f.message for f in checked(evidence(late)) if f.code == "held_open"]
    assert all("100 ms after" in message and "; find" in message for message in said)
    assert "held_open" not in found(evidence(late, Rate(1.0)))
