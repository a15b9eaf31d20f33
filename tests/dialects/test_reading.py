"""Which read brought which event, in compressed bodies too; and how tokens are shared out among the events."""

import gzip
import json
import zlib
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pacemark.dialects.dialect import DIALECTS
from pacemark.dialects.reading import UNREAD, understand
from pacemark.dialects.said import Said
from pacemark.trace import ABSENT
from support.events import ROLE, each_in_its_read, ms
from support.servers import DONE, MS, delta, event, raw, usage


def test_a_defect_in_a_reader_costs_one_answer_and_says_whose_it_is() -> None:
    def read(body: bytes, streamed: bool) -> Said:
        raise TypeError("unhashable type: 'list'")

    x = understand(each_in_its_read(delta(content="a"), DONE), DIALECTS["chat"]._replace(read=read))
    assert (x.error, x.status, x.output_tokens, len(x.hi_ns)) == (UNREAD, 200, 0, 0)
    assert "TypeError(\"unhashable type: 'list'\"); that is a defect of pacemark" in x.detail


# --- arrival as an interval


def test_a_wall_clock_that_is_set_forward_lets_nothing_come_before_it_was_asked_for() -> None:
    parts = [ROLE, delta(content="a"), delta(content="b"), delta("stop"), DONE]
    sizes = np.cumsum([len(p) for p in parts]).tolist()
    hour = 3_600_000
    x = understand(raw(b"".join(parts), list(zip([100, 150, 200 - hour, 210 - hour, 220 - hour], sizes, strict=True))))
    assert ms(x.hi_ns) == [150, 150]
    assert x.ended_ns == x.done_ns == 150 * MS
    assert x.lag_ns.tolist() == [1000, 1000, ABSENT, ABSENT, ABSENT]
    x = understand(raw(b"".join(parts), [(100 - hour, sizes[-1])]))
    assert x.headers_ns == x.first_event_ns == x.ended_ns == x.sent_ns


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


@pytest.mark.parametrize("size", [1, 7, 1000])
def test_a_stream_of_which_each_event_was_compressed_by_itself(size: int) -> None:
    body, ends = b"", []
    for part in (ROLE, delta(content="a"), delta(content="b"), usage(7, 2) + DONE):
        body += gzip.compress(part)
        ends.append(len(body))
    body += bytes(8)  # padding, which gzip's own tools pass over
    cuts = sorted({*range(size, len(body), size), *ends, len(body)})
    x = understand(raw(body, [(100 + i, end) for i, end in enumerate(cuts)], encoding="gzip"))
    assert (x.error, x.output_tokens, x.input_tokens) == ("", 2, 7)
    for hi, before, end in zip(ms(x.hi_ns), ends[:2], ends[1:3], strict=True):
        assert 100 + cuts.index(before) < hi <= 100 + cuts.index(end)


def test_a_broken_compression_is_an_error_and_not_a_crash() -> None:
    x = understand(raw(b"not gzip at all", encoding="gzip"))
    assert (x.error, x.detail) == ("stream_error", "not gzip at all")
    assert understand(raw(b"not gzip at all", encoding="gzip", streamed=False)).error == "bad_answer"
    whole = gzip.compress(b'{"message": "no such model"}')
    assert understand(raw(whole, status=404, encoding="gzip", streamed=False)).detail == "no such model"


@pytest.mark.parametrize("encoding", ["br", "zstd"])
def test_a_compression_that_nobody_asked_for_is_named(encoding: str) -> None:
    x = understand(raw(b"\x1b\x0b\x00\xf8\x8b\x90", encoding=encoding))
    assert x.error == "bad_encoding"
    assert f"compressed as {encoding}" in x.detail
    assert understand(raw(b"".join(SAID), encoding=encoding)).error == ""  # a header that only says so


def test_a_deflate_without_its_head() -> None:
    machine = zlib.compressobj(wbits=-15)
    body = machine.compress(delta(content="a") + DONE) + machine.flush()
    assert understand(raw(body, encoding="deflate")).output_tokens == 1


# --- what kind of answer it is


SAID = (ROLE, delta(content="a"), delta(content="b"), delta("stop"), usage(7, 2), DONE)


@pytest.mark.parametrize(
    "before", [b"", b"\xef\xbb\xbf", b"\n\n", b": hello\n\n", b"id: 1\nevent: x\n", b"retry: 10\n\n"]
)
def test_an_event_stream_is_known_by_how_it_begins(before: bytes) -> None:
    x = understand(each_in_its_read(before + SAID[0], *SAID[1:], streamed=False))
    assert (x.error, x.output_tokens, ms(x.hi_ns)) == ("", 2, [110, 120])
    assert x.first_event_ns != ABSENT


@pytest.mark.parametrize("space", [b"", b" \n"])
def test_one_json_is_known_even_if_it_is_called_a_stream(space: bytes) -> None:
    body = json.dumps({"choices": [{"message": {"content": "a b"}}], "usage": {"completion_tokens": 2}}).encode()
    x = understand(raw(space + body, streamed=True))
    assert (x.error, x.output_tokens, x.first_event_ns) == ("", 2, ABSENT)


def test_an_http_error_wrapped_in_an_event_is_unwrapped() -> None:
    x = understand(raw(b'event: error\ndata: {"error": {"message": "no"}}\n\n', status=400))
    assert (x.error, x.detail) == ("http_400", "no")


# --- streaming in name only


def test_one_event_with_all_tokens_is_one_piece() -> None:
    x = understand(each_in_its_read(ROLE, delta(content="a b c"), delta("stop"), usage(7, 3), DONE))
    assert (x.in_one_piece, x.output_tokens, x.tokens.tolist()) == (True, 3, [3.0])


def test_one_write_with_all_events_is_one_piece() -> None:
    body = b"".join(SAID)
    assert understand(raw(body, [(300, len(body))])).in_one_piece


def test_a_single_token_is_no_proof_and_neither_is_one_json() -> None:
    assert not understand(each_in_its_read(ROLE, delta(content="a"), usage(7, 1), DONE)).in_one_piece
    assert not understand(each_in_its_read(*SAID)).in_one_piece
    body = json.dumps({"choices": [{"message": {"content": "a b"}}], "usage": {"completion_tokens": 2}}).encode()
    assert not understand(raw(body, streamed=False)).in_one_piece


def test_the_end_is_known_where_the_connection_is_held_open() -> None:
    x = understand(each_in_its_read(*SAID))
    assert ms([x.done_ns]) == [150]
    y = understand(each_in_its_read(*SAID, error="timeout"))
    assert (y.error, y.output_tokens) == ("", 2)
    z = understand(each_in_its_read(*SAID[:3], error="timeout"))
    assert (z.error, z.done_ns, z.output_tokens) == ("timeout", ABSENT, 2)


@pytest.mark.parametrize(
    "last",
    [
        delta(content="abcdefghijkl"),
        event({"choices": [{"message": {"role": "assistant", "content": "abcdefghijkl"}, "finish_reason": "stop"}]}),
        event(
            {
                "choices": [{"delta": {"content": "abcdefghijkl"}, "finish_reason": "stop"}],
                "usage": {"completion_tokens": 3},
            }
        ),
    ],
)
def test_a_last_event_that_repeats_the_text_neither_ends_it_nor_counts(last: bytes) -> None:
    texts = [delta(content=text) for text in ("abcd", "efgh", "ijkl")]
    x = understand(each_in_its_read(ROLE, *texts, last, usage(7, 3), DONE))
    assert (ms(x.hi_ns), x.tokens.tolist()) == ([110, 120, 130], [1, 1, 1])
    y = understand(each_in_its_read(ROLE, *texts, last, DONE), "chat", len)
    assert (ms(y.hi_ns), y.output_tokens) == ([110, 120, 130], 12 if b"usage" not in last else 3)


def test_the_model_that_answered_is_known() -> None:
    text = event({"model": "tiny", "choices": [{"delta": {"content": 'say "model": "x"'}}]})
    assert understand(each_in_its_read(ROLE, text, usage(7, 1), DONE)).served_by == "tiny"


# --- how many tokens an event holds


def running(text: str, count: int, field: str = "content", **more: Any) -> bytes:
    counts = {"prompt_tokens": 7, "completion_tokens": count} | more
    return event({"choices": [{"delta": {field: text}}], "usage": counts})


def test_running_usage_counts_each_event() -> None:
    events = [running("a", 1), running("b c d e", 5), running("", 6), running("f g", 8)]
    x = understand(each_in_its_read(ROLE, *events, delta("length"), usage(7, 8), DONE))
    assert (ms(x.hi_ns), x.tokens.tolist(), x.tpot_off) == ([110, 120, 130, 140], [1, 4, 1, 2], 0)


def test_running_usage_alone_makes_an_empty_delta_before_the_first_text_a_token() -> None:
    events = [running("", 0), running("", 1), running("a", 2), running("b", 3)]
    x = understand(each_in_its_read(ROLE, *events, usage(7, 3), DONE))
    assert (ms(x.hi_ns), x.tokens.tolist()) == ([120, 130, 140], [1, 1, 1])


def test_counts_of_each_event_alone() -> None:
    x = understand(each_in_its_read(running("a", 1), running("b c", 2), running("d", 1), usage(7, 4), DONE))
    assert x.tokens.tolist() == [1, 2, 1]


@pytest.mark.parametrize("counts", [[1] * 6, [1, 3, 2, 1, 2, 1]])
def test_counts_of_each_event_alone_are_added_up_where_nothing_told_of_all(counts: list[int]) -> None:
    x = understand(each_in_its_read(ROLE, *(running("word " * n, n) for n in counts), delta("length"), DONE))
    assert (x.output_tokens, x.tokens_source, x.tokens.tolist()) == (sum(counts), "usage", counts)


@pytest.mark.parametrize(
    ("texts", "told", "counted"),
    [
        (["word "] * 30, 1, (30, "events")),  # a count that cannot be: a token of 150 letters
        (["word "] * 30, 29, (29, "usage")),
        (["wo", "rd "] * 30, 30, (30, "usage")),  # a gateway that deals tokens out in pieces
    ],
)
def test_fewer_tokens_than_events_are_believed_where_they_can_be(
    texts: list[str], told: int, counted: tuple[int, str]
) -> None:
    x = understand(each_in_its_read(ROLE, *(delta(content=t) for t in texts), delta("length"), usage(7, told), DONE))
    assert (x.output_tokens, x.tokens_source) == counted


def test_a_tokenizer_shares_out_what_the_server_only_summed() -> None:
    texts = ["a ", "b b b b ", "c c c "]
    x = understand(
        each_in_its_read(ROLE, *(delta(content=t) for t in texts), usage(7, 16), DONE), "chat", lambda t: len(t.split())
    )
    assert (x.output_tokens, x.tokens_source, x.tokens.tolist(), x.tpot_off) == (16, "usage", [2, 8, 6], 0)


@pytest.mark.parametrize("sizes", [[1, 50, 50, 27], [1, 8, 8, 8], [4, 4, 4, 4], [3, 1, 5, 2, 7]])
def test_without_any_count_the_pace_is_bounded(sizes: list[int]) -> None:
    """Whatever the first event held, the true time per token lies within what is said."""
    texts = [delta(content="word " * size) for size in sizes]
    x = understand(each_in_its_read(ROLE, *texts, usage(7, sum(sizes)), DONE))
    rest = x.output_tokens - float(x.tokens[0])
    assert x.tokens.sum() == pytest.approx(sum(sizes))
    assert x.tpot_off > 0.02
    for first in (1, sizes[0]):
        assert abs(rest / (sum(sizes) - first) - 1) <= x.tpot_off + 1e-6


def test_one_token_an_event_is_exact_even_if_the_last_has_no_text() -> None:
    texts = [delta(content="w") for _ in range(20)]
    for counted in (20, 21):
        x = understand(each_in_its_read(ROLE, *texts, usage(7, counted), DONE))
        assert (x.tpot_off, len(x.hi_ns), x.output_tokens) == (0.0, 20, counted)


@pytest.mark.parametrize("blank", [" ", "\u200b"])
@pytest.mark.parametrize(("told", "first"), [(4, 130), (6, 110)])
def test_blanks_sent_early_are_tokens_only_if_they_are_counted(blank: str, told: int, first: int) -> None:
    texts = [blank, blank, "a", "b", " ", "c"]
    x = understand(each_in_its_read(ROLE, *(delta(content=t) for t in texts), delta("length"), usage(7, told), DONE))
    assert (ms(x.hi_ns[:1]), ms([x.answer_ns]), x.output_tokens, len(x.hi_ns)) == ([first], [first], told, told)


def test_heartbeats_before_the_first_token_are_none() -> None:
    """Two tokens an event after eight empty deltas: the count leaves room, and they are no tokens all the same."""
    beats, pairs = [delta(content="")] * 8, [delta(content="word word ")] * 15
    x = understand(each_in_its_read(ROLE, *beats, *pairs, delta("length", content=""), usage(7, 30), DONE))
    assert (ms(x.hi_ns[:1]), len(x.hi_ns), x.tokens[0]) == ([190], 15, 2)


# --- reasoning

FIELDS: list[dict[str, Any]] = [
    {"reasoning": "hm "},
    {"reasoning_content": "hm "},
    {"reasoning_text": "hm "},
    {"thinking": "hm "},
    {"thinking": {"content": "hm ", "signature": "xyz"}},
    {"reasoning_details": [{"type": "reasoning.text", "text": "hm ", "format": "unknown"}]},
    {"reasoning_details": [{"type": "reasoning.summary", "summary": "hm "}]},
    {"content": [{"type": "thinking", "thinking": [{"type": "text", "text": "hm "}]}]},
    {"content": [{"type": "reasoning", "summary": [{"type": "summary_text", "text": "hm "}]}]},
    {"content": None, "reasoning": "hm "},
    {"content": "", "reasoning_content": "hm "},
]


@pytest.mark.parametrize("fields", FIELDS)
def test_reasoning_is_known_by_every_name_it_goes_by(fields: dict[str, Any]) -> None:
    x = understand(
        each_in_its_read(ROLE, delta(**fields), delta(**fields), delta(content="42"), usage(7, 3), DONE), "chat", None
    )
    assert (x.error, ms(x.hi_ns), ms([x.answer_ns])) == ("", [110, 120, 130], [130])
    y = understand(each_in_its_read(delta(**fields), delta(content="42"), DONE), "chat", len)
    assert y.output_tokens == len("hm 42")


def test_encrypted_reasoning_is_no_output() -> None:
    hidden = delta(reasoning_details=[{"type": "reasoning.encrypted", "data": "gAAAA", "id": "r"}])
    x = understand(each_in_its_read(ROLE, hidden, delta(content="a"), usage(7, 1), DONE))
    assert ms(x.hi_ns) == [120]


def thought(prompt: int, completion: int, reasoning: int | None, total: int | None) -> bytes:
    more: dict[str, Any] = {} if total is None else {"total_tokens": total}
    more |= {} if reasoning is None else {"completion_tokens_details": {"reasoning_tokens": reasoning}}
    return usage(prompt, completion, **more)


@pytest.mark.parametrize(
    ("shown", "completion", "reasoning", "total", "output", "hidden"),
    [
        (0, 30, 20, 37, 10, 20),  # inside and hidden
        (0, 30, 20, None, 10, 20),
        (0, 10, 20, 37, 10, 20),  # outside and hidden, by the total
        (0, 10, 20, None, 10, 20),  # ... by there being more of it than of all
        (0, 10, None, 37, 10, 20),  # ... by the total alone
        (20, 30, 20, 37, 30, 0),  # inside and streamed
        (20, 30, None, 37, 30, 0),
        (20, 10, 20, 37, 30, 0),  # outside and streamed
        (20, 10, 20, None, 30, 0),
        (20, 10, None, 37, 30, 0),
        (0, 10, 0, 17, 10, 0),  # none
        (0, 10, 0, 0, 10, 0),  # a total that nobody filled in
    ],
)
def test_reasoning_is_counted_where_it_was_streamed(
    shown: int, completion: int, reasoning: int | None, total: int | None, output: int, hidden: int
) -> None:
    events = [delta(reasoning="hm ")] * shown + [delta(content="word ")] * 10
    x = understand(each_in_its_read(ROLE, *events, thought(7, completion, reasoning, total), DONE))
    assert (x.error, x.output_tokens, x.hidden_tokens, x.tokens_source) == ("", output, hidden, "usage")
    assert x.reasoning_tokens == (20 if reasoning is None else reasoning)
    assert x.disclosed == ("verbatim" if shown else "hidden" if hidden else "")
    assert x.tokens.tolist() == [1.0] * len(events)


def test_reasoning_that_nobody_counted_is_counted_by_its_events_and_it_says_so() -> None:
    events = [delta(reasoning="hm ")] * 30 + [delta(content="word ")] * 10
    x = understand(each_in_its_read(ROLE, *events, usage(7, 10), DONE))
    assert (x.output_tokens, x.tokens_source) == (40, "events")


def test_a_summary_of_the_reasoning_is_not_all_of_it() -> None:
    events = [delta(reasoning="hm ")] * 2 + [delta(content="word ")] * 10
    x = understand(each_in_its_read(ROLE, *events, thought(7, 510, 500, 517), DONE))
    assert (x.output_tokens, x.hidden_tokens) == (12, 498)


def test_an_answer_of_hidden_reasoning_alone_says_so() -> None:
    x = understand(each_in_its_read(ROLE, delta("length"), thought(7, 16, 16, 23), DONE))
    assert (x.error, x.hidden_tokens, x.output_tokens) == ("empty", 16, 0)
    assert "16 tokens" in x.detail


@given(
    st.lists(st.tuples(st.sampled_from(["content", "reasoning"]), st.text(max_size=9)), max_size=8),
    st.integers(0, 60) | st.none(),
    st.integers(0, 60) | st.none(),
    st.integers(0, 200) | st.none(),
)
def test_tokens_always_sum_to_the_output(
    said: list[tuple[str, str]], completion: int | None, reasoning: int | None, total: int | None
) -> None:
    counts = [] if completion is None else [thought(7, completion, reasoning, total)]
    x = understand(each_in_its_read(ROLE, *(delta(**{field: text}) for field, text in said), *counts, DONE))
    assert x.tokens.sum() == pytest.approx(x.output_tokens if len(x.hi_ns) else 0, rel=1e-5)
    assert (x.tokens >= 0).all()
    assert x.hidden_tokens >= 0
    assert 0 <= x.tpot_off < float("inf")
