"""Answers of servers and gateways as they come over the wire, whole, and the figures they must give."""

import json
from typing import Any

import numpy as np
import pytest

from pacemark.dialects.reading import understand
from pacemark.trace import ABSENT
from support.events import ROLE, each_in_its_read, ms
from support.servers import DONE, delta, event, raw, usage

A, B = delta(content="a"), delta(content="b")
END = (delta("stop"), usage(7, 2), DONE)


def choice(**fields: Any) -> bytes:
    return event({"choices": [{"index": 0, "finish_reason": None} | fields]})


def whole(**message: Any) -> dict[str, Any]:
    """One JSON with this message, and a count of two tokens."""
    choices = [{"index": 0, "message": {"role": "assistant"} | message, "finish_reason": "stop"}]
    return {"object": "chat.completion", "choices": choices, "usage": {"prompt_tokens": 7, "completion_tokens": 2}}


# --- good streams with something odd between


def test_text_beside_a_delta_does_not_hide_what_only_the_delta_holds() -> None:
    def both(text: str, **fields: Any) -> bytes:
        return choice(text=text, delta={"role": "assistant", "content": text} | fields)

    thoughts = [both("", reasoning="hm hm ") for _ in range(3)]  # two tokens each, so that no count comes out by chance
    said = [both("ab cd "), both("ef gh "), both(""), delta("stop"), usage(7, 10), DONE]
    x = understand(each_in_its_read(*thoughts, *said))
    assert (x.error, x.output_tokens, len(x.hi_ns), x.reasoning_tokens) == ("", 10, 5, 6)
    assert (ms([x.first_event_ns]), ms([x.answer_ns])) == ([100], [130])


@pytest.mark.parametrize(
    "odd",
    [
        choice(delta=None),
        choice(),
        choice(delta={"content": None}),
        choice(delta={"role": "assistant", "content": None, "tool_calls": None, "reasoning": None}),
        event({"choices": []}),
        event({"choices": [], "usage": None}),
        event({"choices": [], "usage": {"prompt_tokens": 7, "completion_tokens": 0, "total_tokens": 7}}),
        event({"id": "", "choices": [], "created": 0, "model": "", "object": "", "prompt_filter_results": []}),
        choice(delta={}, content_filter_results={"hate": {"filtered": False}}),
        b": OPENROUTER PROCESSING\n\n",
        b":\n\n",
        b"\n\n",
        b"retry: 3000\n\n",
        b"event: keepalive\n\n",
    ],
)
def test_what_keeps_a_stream_open_is_no_token(odd: bytes) -> None:
    for events in ((ROLE, odd, odd, A, B), (odd, ROLE, A, odd, B), (ROLE, A, B, odd)):
        x = understand(each_in_its_read(*events, *END))
        assert (x.error, x.output_tokens, len(x.hi_ns), x.tokens_source) == ("", 2, 2, "usage")
        places = [events.index(A), events.index(B)]
        assert ms(x.hi_ns) == [100 + 10 * place for place in places]


def test_a_usage_that_is_null_until_the_end() -> None:
    texts = [event({"choices": [{"delta": {"content": t}, "finish_reason": None}], "usage": None}) for t in "abc"]
    x = understand(each_in_its_read(ROLE, *texts, delta("length"), usage(7, 3), DONE))
    assert (x.output_tokens, x.tokens_source, x.tokens.tolist()) == (3, "usage", [1, 1, 1])


def test_line_ends_of_two_bytes_may_be_cut_between_reads() -> None:
    body = b"".join((ROLE, A, B, *END)).replace(b"\n", b"\r\n")
    ends = [i + 1 for i, byte in enumerate(body) if byte == ord("\r")] + [len(body)]
    x = understand(raw(body, [(100 + i, end) for i, end in enumerate(ends)]))
    assert (x.error, x.output_tokens, len(x.hi_ns), x.unread_events) == ("", 2, 2, 0)
    assert np.all(np.diff(x.hi_ns) > 0)
    byte_by_byte = understand(raw(body, [(100 + i, i + 1) for i in range(len(body))]))
    assert (byte_by_byte.error, byte_by_byte.output_tokens, len(byte_by_byte.hi_ns)) == ("", 2, 2)


@pytest.mark.parametrize("end", [b"\n", b"\r\n", b"\r"])
def test_a_mark_of_byte_order_opens_a_stream_of_any_line_ends(end: bytes) -> None:
    events = [part.replace(b"\n", end) for part in (ROLE, A, B, *END)]
    x = understand(each_in_its_read(b"\xef\xbb\xbf" + events[0], *events[1:]))
    assert (x.error, x.output_tokens, ms(x.hi_ns)) == ("", 2, [110, 120])


# --- what an event may carry


def test_reasoning_and_text_in_one_event_are_the_answers_begin() -> None:
    """DeepSeek and vLLM send such an event where one gives way to the other."""
    both = delta(reasoning_content=" so", content="4")
    thought = delta(reasoning_content="hm")
    x = understand(each_in_its_read(ROLE, thought, both, delta(content="2"), delta("stop"), usage(7, 4), DONE))
    assert (x.error, x.output_tokens, ms(x.hi_ns), ms([x.answer_ns])) == ("", 4, [110, 120, 130], [120])
    assert x.tokens.sum() == 4


@pytest.mark.parametrize("content", [{"content": None}, {"content": ""}, {}])
def test_an_answer_of_tool_calls_alone(content: dict[str, Any]) -> None:
    calls = [
        {"index": 0, "id": "c1", "type": "function", "function": {"name": "look", "arguments": ""}},
        {"index": 0, "function": {"arguments": '{"a"'}},
        {"index": 0, "function": {"arguments": ": 1}"}},
    ]
    events = [delta(**content, tool_calls=[call]) for call in calls]
    x = understand(each_in_its_read(ROLE, *events, delta("tool_calls"), usage(7, 9), DONE))
    assert (x.error, x.finish_reason, x.output_tokens, ms(x.hi_ns)) == ("", "tool_calls", 9, [110, 120, 130])
    body = json.dumps(whole(**content, tool_calls=calls)).encode()
    assert understand(raw(body, streamed=False)).error == ""


@pytest.mark.parametrize("indent", [None, 2])
@pytest.mark.parametrize("before", [b"", b"\n", b"\xef\xbb\xbf"])
def test_one_json_where_a_stream_was_asked_for(indent: int | None, before: bytes) -> None:
    body = before + json.dumps(whole(content="a b"), indent=indent).encode()
    for streamed in (True, False):
        x = understand(raw(body, streamed=streamed))
        assert (x.error, x.output_tokens, x.first_event_ns) == ("", 2, ABSENT)


# --- what a server counted, by another name or in another place


COUNTS = {"prompt_tokens": 7, "completion_tokens": 3, "total_tokens": 10}
NOUGHT = dict.fromkeys(COUNTS, 0)
TEXTS = [choice(delta={"content": text}) for text in "abc"]


def counting(**usage: Any) -> bytes:
    return event({"choices": [], "usage": usage})


@pytest.mark.parametrize(
    "told",
    [
        [event({"choices": [{"delta": {}, "finish_reason": "length"}], "x_groq": {"id": "r", "usage": COUNTS}})],
        [choice(delta={}, finish_reason="length", usage=COUNTS)],
        [counting(input_tokens=7, output_tokens=3, total_tokens=10)],
        [counting(prompt_tokens=7), counting(completion_tokens=3)],
        [counting(**COUNTS), counting(**NOUGHT)],
        [counting(**NOUGHT), counting(**COUNTS)],
        [counting(**COUNTS), counting(**COUNTS)],
        [DONE, counting(**COUNTS)],
    ],
    ids=["groq", "in a choice", "other names", "in pieces", "then noughts", "noughts before", "twice", "after [DONE]"],
)
def test_a_count_is_found_wherever_it_stands(told: list[bytes]) -> None:
    x = understand(each_in_its_read(ROLE, *TEXTS, *told, DONE))
    assert (x.error, x.input_tokens, x.output_tokens, x.tokens_source) == ("", 7, 3, "usage")
    assert (ms(x.hi_ns), x.tokens.tolist()) == ([110, 120, 130], [1, 1, 1])


def test_noughts_beside_every_event_until_the_last_are_no_running_count() -> None:
    def said(counts: dict[str, int]) -> bytes:
        return event({"choices": [{"delta": {"content": "a"}}], "usage": counts})

    x = understand(each_in_its_read(ROLE, said(NOUGHT), said(NOUGHT), said(COUNTS), DONE))
    assert (x.output_tokens, x.tokens_source, x.tokens.tolist()) == (3, "usage", [1, 1, 1])


@pytest.mark.parametrize("name", ["prompt_cache_hit_tokens", "cached_tokens"])
def test_cached_tokens_by_the_names_of_deepseek_and_moonshot(name: str) -> None:
    x = understand(each_in_its_read(ROLE, *TEXTS, counting(**COUNTS, **{name: 4}), DONE))
    assert (x.cached_tokens, x.input_tokens) == (4, 7)


@pytest.mark.parametrize(("prompt", "cached", "total"), [(10, 22, None), (40, 22, 64), (10, 22, 34)])
def test_cached_tokens_that_the_prompts_count_leaves_out(prompt: int, cached: int, total: int | None) -> None:
    told = {"prompt_tokens": prompt, "completion_tokens": 2, "prompt_tokens_details": {"cached_tokens": cached}}
    counts = event({"choices": [], "usage": told | ({} if total is None else {"total_tokens": total})})
    x = understand(each_in_its_read(ROLE, A, B, delta("stop"), counts, DONE))
    assert (x.error, x.input_tokens, x.cached_tokens, x.output_tokens) == ("", prompt + cached, cached, 2)


def test_events_of_another_api_are_named_as_such() -> None:
    foreign = event({"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": "a"}})
    x = understand(each_in_its_read(foreign, foreign))
    assert (x.error, "none of its 2 events is one of this API" in x.detail) == ("truncated", True)


def test_reasoning_counted_beside_the_details() -> None:
    events = (ROLE, delta(reasoning_content="hm, so "), *TEXTS)
    x = understand(each_in_its_read(*events, counting(**COUNTS | {"completion_tokens": 4}, reasoning_tokens=1), DONE))
    assert (x.reasoning_tokens, x.hidden_tokens, x.output_tokens) == (1, 0, 4)


@pytest.mark.parametrize("total", [2, 3, 4, 5])
def test_running_counts_of_an_answer_without_any_text(total: int) -> None:
    """As of vLLM where a model begins with the end of its text and ignore_eos makes it go on."""

    def empty(count: int) -> bytes:
        usage_so_far = {"prompt_tokens": 7, "completion_tokens": count}
        return event({"choices": [{"index": 0, "delta": {"content": ""}}], "usage": usage_so_far})

    x = understand(each_in_its_read(ROLE, empty(1), empty(2), empty(3), delta("length"), usage(7, total), DONE))
    assert (x.error, x.output_tokens, float(x.tokens.sum())) == ("", total, total)
    assert ms(x.hi_ns)[0] == 110


@pytest.mark.parametrize("ending", [[delta("length")], [delta("length", content="")]])
def test_tokens_without_text_after_the_last_text_are_tokens_if_the_count_comes_out(ending: list[bytes]) -> None:
    """ignore_eos makes a model go on after the end of its text, with tokens that have none; the last of them may come
    with the finish_reason."""
    texts, empty = [A] * 4, [delta(content="")] * (8 - len(ending))
    for counted in (12 - len(ending), 12):
        x = understand(each_in_its_read(ROLE, *texts, *empty, *ending, usage(7, counted), DONE))
        assert (ms(x.hi_ns)[-1], len(x.hi_ns), x.output_tokens) == (210, 11, counted)


def test_empty_deltas_before_the_first_text_are_tokens_if_the_count_comes_out() -> None:
    """A reasoning parser swallows the text of tokens; what keeps a connection open is not counted."""
    empty = delta(content="")
    for counted, first in ((5, 110), (3, 130), (4, 130), (6, 130)):
        x = understand(each_in_its_read(ROLE, empty, empty, *TEXTS, usage(7, counted), DONE))
        assert (ms(x.hi_ns)[0], x.output_tokens) == (first, counted)


@pytest.mark.parametrize(
    ("texts", "begun"),
    [
        (["<think>", "hm", "</think>", "\n", "4", "2"], 140),
        (["<th", "ink>hm", "</th", "ink>", " 4", "2"], 140),
        (["hm", "</think>4", "2"], 110),
        (["<think>", "hm", "</think>"], None),
        (["<think>", "hm", "hm"], None),
        (["a", "b"], 100),
    ],
)
def test_reasoning_between_tags_is_before_the_answer(texts: list[str], begun: int | None) -> None:
    x = understand(each_in_its_read(*(delta(content=t) for t in texts), usage(7, len(texts)), DONE))
    assert (x.error, len(x.hi_ns), x.output_tokens) == ("", len(texts), len(texts))
    assert x.answer_ns == (ABSENT if begun is None else begun * 1_000_000)


# --- what is no event of the answer


@pytest.mark.parametrize(
    "odd",
    [
        b"data: ping\n\n",
        b"data: [PING]\n\n",
        b"data: keep-alive\n\n",
        b"data: PROCESSING\n\n",
        b"event: heartbeat\ndata: 2026-01-01T00:00:00Z\n\n",
        event({"type": "ping"}),
        event({"status": "queued", "message": "position 3"}),
    ],
)
@pytest.mark.parametrize("api", ["chat", "messages"])
def test_a_sign_of_life_need_not_be_json(odd: bytes, api: str) -> None:
    said = {"type": "content_block_delta", "delta": {"type": "text_delta", "text": "a"}}
    good = [A, B, *END] if api == "chat" else [event(said), event(said), event({"type": "message_stop"})]
    x = understand(each_in_its_read(odd, good[0], odd, *good[1:]), api)
    assert (x.error, ms(x.hi_ns)) == ("", [110, 130])


@pytest.mark.parametrize("done", [b"data: [done]\n\n", b"data: DONE\n\n", b'data: "[DONE]"\n\n', b"data:[DONE]"])
def test_done_is_understood_however_it_is_spelt(done: bytes) -> None:
    x = understand(each_in_its_read(ROLE, A, B, usage(7, 2), done))
    assert (x.error, x.output_tokens, ms([x.done_ns])) == ("", 2, [140])


@pytest.mark.parametrize(
    "more", [event(b"bye"), b"<!-- served by a proxy -->", event({"error": {"message": "no log"}}), event({"cost": 1})]
)
def test_what_follows_done_is_no_part_of_the_answer(more: bytes) -> None:
    x = understand(each_in_its_read(ROLE, A, B, *END, more))
    assert (x.error, x.detail, x.output_tokens, ms(x.hi_ns)) == ("", "", 2, [110, 120])


# --- failures


@pytest.mark.parametrize("error", ["closed", "reset", "bad_http"])
def test_a_connection_that_breaks_after_done_breaks_no_answer(error: str) -> None:
    """A proxy that leaves out the last chunk, say: clients are gone by then."""
    assert understand(each_in_its_read(ROLE, A, B, *END, error=error)).error == ""
    assert understand(each_in_its_read(ROLE, A, B, error=error)).error == error
    assert understand(each_in_its_read(ROLE, A, B, delta("stop"), error=error)).error == error


def test_what_groq_says_of_a_stream_that_it_stopped() -> None:
    x = understand(each_in_its_read(ROLE, A, event({"choices": [], "x_groq": {"id": "r", "error": "no room"}}), DONE))
    assert (x.error, x.detail, ms(x.hi_ns)) == ("stream_error", "no room", [110])


@pytest.mark.parametrize("word", ["null", "None", ""])
def test_a_finish_reason_that_says_none_ends_nothing(word: str) -> None:
    texts = [choice(delta={"content": t}, finish_reason=word) for t in "ab"]
    assert understand(each_in_its_read(ROLE, *texts)).error == "truncated"
    x = understand(each_in_its_read(ROLE, *texts, *END))
    assert (x.error, x.finish_reason, ms([x.done_ns])) == ("", "stop", [150])


@pytest.mark.parametrize(
    ("words", "detail"),
    [
        (b"Internal Server Error", "Internal Server Error"),
        (b'{"error": {"message": "no room"}}', "no room"),
        (b"<html><body>502 Bad Gateway</body></html>\n", "502 Bad Gateway"),
    ],
)
def test_what_a_broken_stream_ends_with_is_told(words: bytes, detail: str) -> None:
    x = understand(each_in_its_read(ROLE, A, words))
    assert (x.error, x.detail, ms(x.hi_ns)) == ("stream_error", detail, [110])


@pytest.mark.parametrize("api", ["chat", "messages", "responses"])
def test_a_page_that_is_called_an_event_stream_is_told(api: str) -> None:
    x = understand(raw(b"<html><title>Attention Required!</title></html>"), api)
    assert (x.error, x.detail) == ("stream_error", "Attention Required!")


@pytest.mark.parametrize("reason", ["content_filter", "error", "abort"])
def test_an_answer_that_ends_badly_before_its_first_token(reason: str) -> None:
    x = understand(each_in_its_read(ROLE, delta(reason), usage(7, 0), DONE))
    assert (x.error, x.output_tokens, len(x.hi_ns)) == (f"finish_{reason}", 0, 0)
    assert reason in x.detail


@pytest.mark.parametrize(
    ("payload", "words"),
    [
        ({"detail": [{"loc": ["body", "max_tokens"], "msg": "extra fields", "type": "extra"}]}, ["extra fields"]),
        ({"detail": [{"loc": ["body", "n"], "msg": "one"}, {"loc": ["body", "top_k"], "msg": "two"}]}, ["one", "two"]),
        ({"detail": "Not Found"}, ["Not Found"]),
        ({"detail": {"error": "no room"}}, ["no room"]),
    ],
)
def test_what_fastapi_says(payload: Any, words: list[str]) -> None:
    body = json.dumps(payload).encode()
    refused = understand(raw(body, status=422, streamed=False))
    assert refused.error == "http_422"
    within = understand(each_in_its_read(ROLE, A, event(body), DONE))
    assert (within.error, ms(within.hi_ns)) == ("stream_error", [110])
    single = understand(raw(body, streamed=False))
    assert single.error == "server_error"
    for x in (refused, within, single):
        assert all(word in x.detail for word in words)


def test_of_a_proxys_page_what_people_read_is_told() -> None:
    page = (
        b"<!DOCTYPE html><html><head><title>x | 524: A timeout occurred</title><style>\nbody{margin:0}</style>"
        b"<script type='x'>if (a<b) { f() }</script></head><!-- <p>no</p> --><body><p>Error\n524</p></body></html>"
    )
    x = understand(raw(page, status=524, streamed=False))
    assert (x.error, x.detail) == ("http_524", "x | 524: A timeout occurred Error 524")


@pytest.mark.parametrize(
    ("body", "told"),
    [
        (b"<html><title>Just a moment...</title><body>Checking</body></html>", "a web page: Just a moment... Checking"),
        (b"", "empty"),
        (b"Service busy", "Service busy"),
        (b'{"base_resp":{"status_code":1008,"status_msg":"insufficient balance"}}', "insufficient balance"),
        (b'{"id":"1","status":"queued"}', '"status":"queued"'),
        (b'{"choices": [}', '13): {"choices": [}'),
    ],
)
@pytest.mark.parametrize("api", ["chat", "embeddings", "messages", "rerank"])
def test_an_answer_that_is_something_else_says_what(body: bytes, told: str, api: str) -> None:
    x = understand(raw(body, streamed=False), api)
    assert x.error == "bad_answer"
    assert "is not the JSON of" in x.detail
    assert told in x.detail


@pytest.mark.parametrize("streamed", [True, False])
@pytest.mark.parametrize(
    ("status", "body"),
    [
        (200, b""),
        (200, b"\r\n"),
        (204, b""),
        (200, b"<!doctype html>\n<html><title>Sign in</title></html>"),
        (200, b"OK"),
        (200, b"null"),
        (200, b"{}"),
        (200, b'{"choices": []}'),
        (200, b"data: [DONE]\n\n"),
        (200, b": bye\n\n"),
    ],
)
def test_no_answer_is_no_success_under_any_status(status: int, body: bytes, streamed: bool) -> None:
    x = understand(raw(body, status=status, streamed=streamed))
    assert x.error
    assert x.detail
    assert (x.output_tokens, len(x.hi_ns), x.first_event_ns >= 0) == (0, 0, x.first_event_ns != ABSENT)
