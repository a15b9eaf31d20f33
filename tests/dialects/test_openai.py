"""What the bytes of an answer mean, for the servers that people use and the ways in which they fail."""

import gzip
import json
import zlib
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pacemark.dialects.openai import DIALECTS, Options, attempts, fill, template, understand
from pacemark.trace import ABSENT
from support.servers import DONE, MS, delta, event, raw, usage

ROLE = delta(role="assistant", content="")


def each_in_its_read(*events: bytes, start: int = 100, step: int = 10, **fields: Any) -> Any:
    """An answer of which every event arrived alone, the first after `start` ms."""
    sizes = np.cumsum([len(e) for e in events]).tolist()
    return raw(b"".join(events), [(start + step * i, size) for i, size in enumerate(sizes)], **fields)


def ms(times: Any) -> list[float]:
    return [float(t) / MS for t in times]


# --- requests


def test_a_request_has_its_holes_filled() -> None:
    body = template(DIALECTS["chat"], 'a "model"', Options(), {"temperature": 0.5, "n": [1, 2]})
    assert json.loads(fill(body, "salt and words", 64)) == {
        "model": 'a "model"',
        "messages": [{"role": "user", "content": "salt and words"}],
        "max_tokens": 64,
        "min_tokens": 64,
        "ignore_eos": True,
        "stream": True,
        "stream_options": {"include_usage": True},
        "temperature": 0.5,
        "n": [1, 2],
    }


def test_options_go_from_the_most_telling_to_the_plainest() -> None:
    bodies = [json.loads(fill(template(DIALECTS["completions"], "m", o, {}), "hi", 3)) for o in attempts(True)]
    assert bodies[0]["ignore_eos"] is True
    assert bodies[0]["min_tokens"] == 3
    assert [b.get("max_completion_tokens") for b in bodies if "max_tokens" not in b] == [3]
    assert bodies[-1] == {"model": "m", "prompt": "hi", "max_tokens": 3, "stream": True}
    assert not any("stream" in template(DIALECTS["chat"], "m", o, {}).decode() for o in attempts(False))


# --- tokens and their times


@pytest.mark.trap("the role header counts as the first token")
def test_a_role_header_is_not_a_token() -> None:
    x = understand(each_in_its_read(ROLE, delta(content="a"), delta(content="b"), delta("stop"), usage(7, 2), DONE))
    assert x.error == ""
    assert ms(x.hi_ns) == [110, 120]
    assert ms([x.first_event_ns, x.answer_ns]) == [100, 110]
    assert (x.output_tokens, x.tokens_source, x.input_tokens, x.finish_reason) == (2, "usage", 7, "stop")


@pytest.mark.parametrize("header", [delta(role="assistant", content=None), delta(role="assistant"), delta()])
def test_nor_is_a_header_without_content(header: bytes) -> None:
    x = understand(each_in_its_read(header, delta(content="a"), delta("stop"), usage(7, 1), DONE))
    assert ms(x.hi_ns) == [110]


def test_a_server_may_name_the_role_in_every_event() -> None:
    """An empty delta is a token where the count says so; only the first with a role is the header."""
    same = {"role": "assistant"}
    x = understand(
        each_in_its_read(
            delta(**same, content=""), delta(**same, content=""), delta(**same, content="b"), usage(7, 2), DONE
        )
    )
    assert ms(x.hi_ns) == [110, 120]


def test_an_event_before_the_role_header_does_not_hide_it() -> None:
    filters = event({"choices": [], "prompt_filter_results": []})
    x = understand(each_in_its_read(filters, ROLE, delta(content="a"), delta(content="b"), usage(7, 3), DONE))
    assert ms(x.hi_ns) == [120, 130]


def test_empty_deltas_are_tokens_as_far_as_usage_says() -> None:
    body = [ROLE, delta(content=""), delta(content=""), delta(content="c"), delta("length", content="")]
    for counted, times in ((1, [130]), (2, [110, 130]), (3, [110, 120, 130]), (9, [110, 120, 130, 140])):
        x = understand(each_in_its_read(*body, usage(7, counted), DONE))
        assert ms(x.hi_ns) == times
        assert x.tokens.sum() == pytest.approx(counted)
    assert ms(understand(each_in_its_read(*body, DONE)).hi_ns) == [130]


def test_reasoning_comes_before_the_answer() -> None:
    for name in ("reasoning_content", "reasoning"):
        x = understand(
            each_in_its_read(ROLE, delta(**{name: "hm"}), delta(**{name: "so"}), delta(content="42"), usage(7, 3), DONE)
        )
        assert ms(x.hi_ns) == [110, 120, 130]
        assert ms([x.answer_ns]) == [130]


def test_tool_calls_are_output() -> None:
    call = {"index": 0, "function": {"arguments": '{"a":'}}
    x = understand(each_in_its_read(ROLE, delta(tool_calls=[call]), delta(tool_calls=[call]), usage(7, 2), DONE))
    assert ms(x.hi_ns) == [110, 120]
    assert x.error == ""


def test_content_in_parts_as_databricks_sends_it() -> None:
    thought = [{"type": "reasoning", "summary": [{"type": "summary_text", "text": "hm"}]}]
    said = [{"type": "text", "text": "42"}]
    x = understand(
        each_in_its_read(
            delta(role="assistant", content=thought),
            delta(role="assistant", content=said),
            delta(role="assistant", content="!"),
            usage(7, 3),
            DONE,
        )
    )
    assert x.error == ""
    assert ms(x.hi_ns) == [100, 110, 120]
    assert ms([x.answer_ns]) == [110]


def test_several_tokens_in_an_event_are_counted_by_usage() -> None:
    x = understand(each_in_its_read(ROLE, delta(content="a b"), delta(content="c d"), usage(7, 5), DONE))
    assert x.output_tokens == 5
    assert x.tokens.tolist() == [2.5, 2.5]


def test_without_usage_events_are_counted_and_it_says_so() -> None:
    x = understand(each_in_its_read(ROLE, delta(content="a b"), delta(content="c"), delta("stop"), DONE))
    assert (x.output_tokens, x.tokens_source, x.input_tokens, x.error) == (2, "events", ABSENT, "")


def test_without_usage_a_tokenizer_counts() -> None:
    body = each_in_its_read(ROLE, delta(content="a b"), delta(content=" c"), delta("stop"), DONE)
    x = understand(body, lambda text: len(text.split()))
    assert (x.output_tokens, x.tokens_source) == (3, "tokenizer")
    with_usage = each_in_its_read(ROLE, delta(content="a b"), usage(7, 2), DONE)
    assert understand(with_usage, lambda text: 99).output_tokens == 2


@given(
    st.lists(st.sampled_from(["a", " ", "id7", "stop", "", '"', "\n", "é", "\\", "content"]) | st.text(max_size=3)),
    st.sampled_from(["content", "reasoning", "text"]),
    st.integers(1, 9),
)
def test_events_that_are_alike_are_read_as_if_each_were_decoded(texts: list[str], field: str, turn: int) -> None:
    """Line ends of the other kind turn the short cut off."""

    def said(text: str, number: int) -> bytes:
        choice = {"index": 0, "text": text} if field == "text" else {"index": 0, "delta": {field: text}}
        return event({"id": "id7", "created": number // turn, "choices": [choice]})

    events = [ROLE, *(said(text, number) for number, text in enumerate(texts)), delta("stop"), DONE]
    short, long = (
        understand(each_in_its_read(*(e.replace(b"\n", end) for e in events)), lambda text: len(text))
        for end in (b"\n", b"\r\n")
    )
    for name in ("error", "output_tokens", "tokens_source", "answer_ns", "first_event_ns"):
        assert getattr(short, name) == getattr(long, name)
    assert short.hi_ns.tolist() == long.hi_ns.tolist()
    assert short.lo_ns.tolist() == long.lo_ns.tolist()


def test_a_usage_of_nought_beside_output_is_not_believed() -> None:
    x = understand(each_in_its_read(ROLE, delta(content="a"), delta(content="b"), usage(7, 0), DONE))
    assert (x.output_tokens, x.tokens_source) == (2, "events")


def test_usage_null_or_running_in_every_event() -> None:
    def said(text: str, counted: Any) -> bytes:
        return event({"choices": [{"delta": {"content": text}}], "usage": counted})

    x = understand(each_in_its_read(said("a", None), said("b", None), usage(7, 2), DONE))
    assert (x.output_tokens, x.tokens_source) == (2, "usage")
    running = [said("a", {"prompt_tokens": 7, "completion_tokens": n}) for n in (2, 4, 6)]
    assert understand(each_in_its_read(*running, DONE)).output_tokens == 6


def test_cached_tokens_are_noted() -> None:
    x = understand(
        each_in_its_read(delta(content="a"), usage(70, 1, prompt_tokens_details={"cached_tokens": 64}), DONE)
    )
    assert x.cached_tokens == 64
    y = understand(each_in_its_read(delta(content="a"), usage(70, 1, prompt_tokens_details=None), DONE))
    assert y.cached_tokens == ABSENT


def test_completions_stream_text() -> None:
    events = [event({"choices": [{"text": t, "finish_reason": None}]}) for t in ("a", "b")]
    x = understand(each_in_its_read(*events, event({"choices": [{"text": "", "finish_reason": "length"}]}), DONE))
    assert (ms(x.hi_ns), x.finish_reason) == ([100, 110], "length")


def test_comments_and_blank_data_are_passed_over() -> None:
    x = understand(
        each_in_its_read(b": ping\n\n", ROLE, event(b""), delta(content="a"), b": ping\n\n", usage(7, 1), DONE)
    )
    assert (x.error, ms(x.hi_ns), ms([x.first_event_ns])) == ("", [130], [110])


# --- arrival as an interval


def test_an_event_alone_in_its_read_has_an_exact_time() -> None:
    x = understand(each_in_its_read(ROLE, delta(content="a"), delta(content="b"), delta("stop"), DONE))
    assert np.array_equal(x.lo_ns, x.hi_ns)
    assert x.coalesced_reads == 0


def test_events_read_at_once_can_have_come_since_the_read_before() -> None:
    parts = [ROLE, delta(content="a"), delta(content="b"), delta(content="c"), delta("stop"), DONE]
    sizes = np.cumsum([len(p) for p in parts]).tolist()
    x = understand(raw(b"".join(parts), [(100, sizes[0]), (150, sizes[3]), (160, sizes[4]), (170, sizes[5])]))
    assert ms(x.hi_ns) == [150, 150, 150]
    assert ms(x.lo_ns) == [100, 100, 150]
    assert x.coalesced_reads == 1


def test_the_first_read_is_bounded_by_the_sending() -> None:
    body = delta(content="a") + delta(content="b")
    x = understand(raw(body + delta("stop") + DONE, [(100, len(body)), (110, 10**6)]))
    assert ms(x.lo_ns) == [0, 100]


def test_an_event_split_over_reads_arrives_with_its_last_byte() -> None:
    a, b = delta(content="a"), delta(content="b")
    end = len(a) + len(b)
    x = understand(raw(a + b + DONE, [(100, 3), (110, len(a)), (120, len(a) + 5), (130, end), (140, end + len(DONE))]))
    assert ms(x.hi_ns) == ms(x.lo_ns) == [110, 130]


def test_the_stamp_of_a_read_is_that_of_its_last_byte() -> None:
    """Where half of the next event follows in the same read, this event can have come earlier."""
    a, b = delta(content="a"), delta(content="b")
    end = len(a) + len(b)
    x = understand(raw(a + b + DONE, [(100, 1), (120, len(a) + 5), (130, end), (140, end + len(DONE))]))
    assert ms(x.hi_ns) == [120, 130]
    assert ms(x.lo_ns) == [100, 130]
    assert x.coalesced_reads == 0


@given(st.lists(st.integers(1, 400), max_size=12), st.integers(1, 9))
def test_any_cutting_into_reads_bounds_the_true_times(cuts: list[int], tokens: int) -> None:
    """Each byte truly arrives at its offset in ms; whatever the reads, lo and hi enclose the event's last byte."""
    events = [delta(content=str(i)) for i in range(tokens)]
    body = b"".join(events) + DONE
    sizes = sorted({c % len(body) for c in cuts if c % len(body)} | {len(body)})
    x = understand(raw(body, [(size, size) for size in sizes]))
    true = np.cumsum([len(e) for e in events])
    # The last token is taken to have come with the [DONE] that was read with it: servers write them together.
    assert np.all(x.lo_ns[:-1] // MS <= true[:-1])
    assert np.all(x.hi_ns // MS >= true)
    assert np.all(x.lo_ns <= x.hi_ns)
    assert np.all(np.diff(x.hi_ns) >= 0)
    assert x.output_tokens == tokens


def test_a_lag_beyond_reason_stays_in_its_column() -> None:
    record = raw(delta(content="a") + DONE)
    rows = np.frombuffer(record.reads, np.int64).copy()
    for lag in (2**40, -(2**40)):
        rows[1] = lag
        changed = type(record)(**{**{f: getattr(record, f) for f in record.__struct_fields__}, "reads": rows.tobytes()})
        assert -1 <= understand(changed).lag_ns[0] <= 2**31 - 1
        assert (understand(changed).lag_ns[0] > 0) == (lag > 0)


# --- answers that do not stream


def test_a_whole_answer_has_a_latency_and_no_first_token() -> None:
    body = json.dumps(
        {
            "object": "chat.completion",
            "choices": [{"message": {"role": "assistant", "content": "a b c"}, "finish_reason": "stop"}],
            "usage": {"prompt_tokens": 7, "completion_tokens": 3},
        }
    ).encode()
    x = understand(raw(body, [(90, 10), (100, len(body))], streamed=False))
    assert (x.error, x.output_tokens, x.first_event_ns, x.answer_ns) == ("", 3, ABSENT, ABSENT)
    assert (ms(x.hi_ns), x.tokens.tolist()) == ([100], [3])


def test_a_whole_answer_with_the_role_and_nothing_else_is_empty() -> None:
    body = json.dumps({"choices": [{"message": {"role": "assistant", "content": None}}]}).encode()
    assert understand(raw(body, streamed=False)).error == "empty"


@pytest.mark.parametrize("body", [b"<html>hello</html>", b"", b"[1, 2]", b"\xff\xfe", b'{"choices": 3}'])
def test_what_is_no_completion_is_a_bad_answer(body: bytes) -> None:
    x = understand(raw(body, streamed=False))
    assert x.error == "bad_answer"
    assert x.output_tokens == 0


# --- compression


@pytest.mark.parametrize(("encoding", "wbits"), [("gzip", 31), ("deflate", 15)])
def test_a_compressed_stream_keeps_the_times_of_its_reads(encoding: str, wbits: int) -> None:
    machine = zlib.compressobj(wbits=wbits)
    body, reads = b"", []
    for i, part in enumerate((ROLE, delta(content="a"), delta(content="b"), usage(7, 2) + DONE)):
        body += machine.compress(part) + machine.flush(zlib.Z_SYNC_FLUSH)
        reads.append((100 + 10 * i, len(body)))
    body += machine.flush()
    x = understand(raw(body, [*reads, (150, len(body))], encoding=encoding))
    assert (x.error, ms(x.hi_ns), x.output_tokens) == ("", [110, 120], 2)


def test_a_broken_compression_is_an_error_and_not_a_crash() -> None:
    assert understand(raw(b"not gzip at all", encoding="gzip")).error == "truncated"
    assert understand(raw(b"not gzip at all", encoding="gzip", streamed=False)).error == "bad_answer"
    whole = gzip.compress(b'{"message": "no such model"}')
    assert understand(raw(whole, status=404, encoding="gzip", streamed=False)).detail == "no such model"


# --- failures


@pytest.mark.parametrize(
    ("status", "body", "detail"),
    [
        (401, b'{"error": {"message": "Incorrect API key", "type": "invalid_request_error"}}', "Incorrect API key"),
        (404, b'{"error_code": "RESOURCE_DOES_NOT_EXIST", "message": "No endpoint"}', "No endpoint"),
        (400, b'{"object": "error", "message": "too long", "code": 400}', "too long"),
        (422, b'{"detail": [{"loc": ["body", "n"]}]}', '[{"loc":["body","n"]}]'),
        (422, b'{"error": "bad things", "error_type": "validation"}', "bad things"),
        (502, b"<html><head><title>502</title></head>\n<body>Bad  Gateway</body></html>", "502 Bad Gateway"),
        (500, b"plain\ntext", "plain text"),
        (500, b"", ""),
        (500, b"\xff\xfe", "\ufffd\ufffd"),
        (500, b'{"error": {"message": "a\\u001b[31mb"}}', "a [31mb"),
        (429, b'"slow down"', "slow down"),
        (308, b"", ""),
    ],
)
def test_an_http_error_keeps_the_servers_own_words(status: int, body: bytes, detail: str) -> None:
    x = understand(raw(body, status=status, streamed=False))
    assert (x.error, x.detail) == (f"http_{status}", detail)
    assert (x.output_tokens, len(x.hi_ns)) == (0, 0)


def test_an_http_error_may_come_as_an_event_stream() -> None:
    x = understand(raw(event({"error": {"message": "no"}}), status=500))
    assert x.error == "http_500"


def test_a_long_message_is_kept_whole() -> None:
    """It is cut after it was redacted: half a key at the cut could not be recognised any more."""
    key = "sk-" + "k" * 60
    x = understand(raw(b"word " * 58 + key.encode() + b" " + b"more " * 50, status=401, streamed=False))
    assert key in x.detail


def test_an_error_object_in_a_stream() -> None:
    failures = [
        {"error": {"message": "out of memory", "code": 500}},
        {"error_code": "INTERNAL_ERROR", "message": "out of memory"},
        {"object": "error", "message": "out of memory"},
    ]
    for failure in failures:
        x = understand(each_in_its_read(ROLE, delta(content="a"), event(failure), DONE))
        assert (x.error, x.detail) == ("stream_error", "out of memory")
        assert ms(x.hi_ns) == [110]
        y = understand(raw(json.dumps(failure).encode(), streamed=False))
        assert (y.error, y.detail) == ("server_error", "out of memory")


@pytest.mark.parametrize(
    "payload", [b'{"choices": [', b"\xff\xfe", b"[1]", b"hello", b'{"choices": [{"delta": {"content": {"a": 1}}}]}']
)
def test_an_event_that_is_no_chunk(payload: bytes) -> None:
    x = understand(each_in_its_read(ROLE, delta(content="a"), event(payload), delta(content="b"), DONE))
    assert x.error == "bad_stream"
    assert x.output_tokens == 1


def test_a_stream_that_breaks_off_is_no_success() -> None:
    assert understand(each_in_its_read(ROLE, delta(content="a"))).error == "truncated"
    assert understand(each_in_its_read(ROLE, delta(content="a"), b'data: {"choi')).error == "bad_stream"
    x = understand(each_in_its_read(ROLE, delta(content="a"), b'data: {"choi', error="reset"))
    assert (x.error, x.output_tokens) == ("reset", 1)


def test_a_missing_done_is_forgiven_after_a_finish_reason() -> None:
    assert understand(each_in_its_read(ROLE, delta(content="a"), delta("stop"))).error == ""
    assert understand(each_in_its_read(ROLE, delta(content="a"), DONE)).error == ""


def test_an_answer_without_output_is_empty() -> None:
    assert understand(each_in_its_read(ROLE, delta("stop"), usage(7, 0), DONE)).error == "empty"
    assert understand(raw(b"", streamed=True)).error == "truncated"


def test_a_transport_failure_before_the_answer() -> None:
    record = raw(b"", error="refused", status=0, streamed=False)
    bare = type(record)(**{**{f: getattr(record, f) for f in record.__struct_fields__}, "reads": b""})
    x = understand(bare)
    assert (x.error, x.output_tokens, len(x.hi_ns), len(x.lag_ns)) == ("refused", 0, 0, 0)


@given(st.binary(max_size=200), st.booleans(), st.sampled_from([0, 200, 204, 429, 500]))
def test_no_bytes_at_all_raise(body: bytes, streams: bool, status: int) -> None:
    x = understand(raw(body, status=status, streamed=streams))
    assert x.error or len(x.hi_ns) or status == 0
