"""Every API that streams: what is read from a whole answer, however the network cuts it, and from one that breaks."""

from __future__ import annotations

import json
from itertools import accumulate
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pacemark.dialects.dialect import DIALECTS, fill, first_options, next_options, template
from pacemark.dialects.reading import understand
from pacemark.trace import Exchange
from support.events import each_in_its_read, ms
from support.recorded import RECORDED, TEXTS, Recorded, gemini, line, named, tgi
from support.servers import DONE, event, raw

EVERY = pytest.mark.parametrize("answer", RECORDED.values(), ids=list(RECORDED))


def figures(x: Exchange) -> tuple[Any, ...]:
    counts = (x.input_tokens, x.output_tokens, x.cached_tokens, x.reasoning_tokens, x.hidden_tokens)
    return (x.error, x.finish_reason, x.tokens_source, *counts, len(x.hi_ns), x.tokens.sum())


def expected(answer: Recorded) -> tuple[Any, ...]:
    counts = (answer.input_tokens, answer.output_tokens, answer.cached_tokens, answer.reasoning_tokens, 0)
    return ("", answer.finish, "usage", *counts, len(answer.carrying), answer.output_tokens)


@EVERY
def test_each_event_has_the_time_at_which_it_came(answer: Recorded) -> None:
    x = understand(each_in_its_read(*answer.events), answer.api)
    assert figures(x) == expected(answer)
    assert ms(x.hi_ns) == [100 + 10 * place for place in answer.carrying]
    assert ms([x.answer_ns]) == [100 + 10 * answer.answer]
    assert ms([x.done_ns]) == [100 + 10 * answer.done]
    assert (x.unread_events, x.tpot_off) == (0, 0.0)


@EVERY
def test_a_cut_at_any_byte_changes_nothing_but_the_times(answer: Recorded) -> None:
    body, ends = b"".join(answer.events), [*accumulate(len(e) for e in answer.events)]
    for cut in range(1, len(body)):
        x = understand(raw(body, [(100, cut), (200, len(body))]), answer.api)
        assert figures(x) == expected(answer)
        assert ms(x.hi_ns) == [100 if ends[place] <= cut else 200 for place in answer.carrying]
    bytewise = understand(raw(body, [(100 + i, i + 1) for i in range(len(body))]), answer.api)
    assert ms(bytewise.hi_ns) == [99 + ends[place] for place in answer.carrying]


@EVERY
def test_an_event_that_is_no_object_is_counted_once(answer: Recorded) -> None:
    odd = b"3\n" if answer.api.startswith("ollama") else event(3)
    x = understand(each_in_its_read(answer.events[0], odd, *answer.events[1:]), answer.api)
    assert figures(x) == expected(answer)
    assert x.unread_events == 1


@EVERY
def test_an_answer_that_breaks_off_is_a_failure_wherever_it_does(answer: Recorded) -> None:
    body, ends = b"".join(answer.events), [*accumulate(len(e) for e in answer.events)]
    whole, complete = len(body.rstrip()), ends[answer.done - (answer.api == "messages")]  # with its stop_reason
    for cut in sorted({*range(1, len(body), 5), *ends}):
        if cut < whole:
            assert understand(raw(body[:cut], error="closed"), answer.api).error == "closed", cut
        # A last event without its blank line counts.
        assert understand(raw(body[:cut]), answer.api).error or cut >= complete - 2, cut


@EVERY
@pytest.mark.parametrize("change", [b"\r\n", b"\xef\xbb\xbf"])
def test_line_ends_and_marks_of_byte_order_do_no_harm(answer: Recorded, change: bytes) -> None:
    body = b"".join(answer.events)
    body = body.replace(b"\n", change) if change == b"\r\n" else change + body
    assert figures(understand(raw(body), answer.api)) == expected(answer)


anything = st.recursive(st.none() | st.text() | st.integers() | st.booleans(), lambda x: st.lists(x) | st.dictionaries(
    st.sampled_from("type delta item response usage error message done candidates content parts token details results"
                    " data text score usageMetadata generated_text promptFeedback output".split()), x))  # fmt: skip


@pytest.mark.parametrize("api", list(DIALECTS))
@given(body=st.binary(max_size=80) | anything.map(lambda v: json.dumps(v).encode()), form=st.sampled_from("seb"))
def test_no_bytes_raise(api: str, body: bytes, form: str) -> None:
    sent = {"s": event(body), "e": b"event: error\n" + event(body), "b": body}[form]
    x = understand(raw(sent, streamed=form != "b"), api)
    assert bool(x.error) == (len(x.hi_ns) == 0) or x.error


# --- answers in one piece

_MESSAGE = {"role": "assistant", "content": "Hi you"}
WHOLE: dict[str, Any] = {
    "responses": {
        "object": "response",
        "status": "completed",
        "error": None,
        "output": [{"type": "message", "content": [{"type": "output_text", "text": "Hi you"}]}],
        "usage": {"input_tokens": 9, "output_tokens": 2},
    },
    "messages": {
        "type": "message",
        "content": [{"type": "text", "text": "Hi you"}],
        "stop_reason": "max_tokens",
        "usage": {"input_tokens": 9, "output_tokens": 2},
    },
    "ollama": {"message": _MESSAGE, "done": True, "done_reason": "stop", "prompt_eval_count": 9, "eval_count": 2},
    "ollama-generate": {"response": "Hi you", "done": True, "prompt_eval_count": 9, "eval_count": 2},
    "gemini": {
        "candidates": [{"content": {"parts": [{"text": "Hi you"}]}, "finishReason": "STOP"}],
        "usageMetadata": {"promptTokenCount": 9, "candidatesTokenCount": 2},
    },
    "tgi": {"generated_text": "Hi you", "details": {"generated_tokens": 2, "input_length": 9}},
}


@pytest.mark.parametrize("api", WHOLE)
def test_an_answer_in_one_piece(api: str) -> None:
    for indent in (None, 1):
        x = understand(raw(json.dumps(WHOLE[api], indent=indent).encode(), streamed=False), api)
        if api.startswith("ollama") and indent:
            continue  # it never sends lines that are parts of one object
        assert (x.error, x.input_tokens, x.output_tokens, len(x.hi_ns)) == ("", 9, 2, 1)


NAMED: dict[str, Any] = {
    **{api: whole | {"model": "tiny"} for api, whole in WHOLE.items() if api not in ("gemini", "tgi")},
    "gemini": WHOLE["gemini"] | {"modelVersion": "tiny"},
    "embeddings": {"data": [{"embedding": [0.5]}], "model": "tiny"},
    "rerank": {"results": [{"index": 0, "relevance_score": 0.5}], "model": "tiny"},
}


@pytest.mark.parametrize("api", NAMED)
def test_the_model_that_answered_is_known(api: str) -> None:
    x = understand(raw(json.dumps(NAMED[api]).encode(), streamed=False), api)
    assert (x.error, x.served_by) == ("", "tiny")


def test_the_model_that_streamed_is_known() -> None:
    started = event({"type": "message_start", "message": {"model": "tiny", "content": []}})
    text = event({"type": "content_block_delta", "delta": {"type": "text_delta", "text": "a"}})
    assert understand(each_in_its_read(started, text), "messages").served_by == "tiny"
    ended = event({"type": "response.completed", "response": WHOLE["responses"] | {"model": "tiny"}})
    assert understand(each_in_its_read(ended), "responses").served_by == "tiny"
    lines = [line(response=word, model=model, done=model == "other") for word, model in (("a", "tiny"), ("b", "other"))]
    assert understand(each_in_its_read(*lines), "ollama-generate").served_by == "tiny"


@pytest.mark.parametrize("api", DIALECTS)
@pytest.mark.parametrize(
    ("payload", "error", "detail"),
    [
        ({"error": {"message": "no room", "code": 500}}, "server_error", "no room"),
        ({"error": "no room"}, "server_error", "no room"),
        ({"error": {"message": "slow down", "code": 429}}, "said_429", "slow down"),
        ({"type": "error", "error": {"type": "overloaded_error", "message": "no room"}}, "said_503", "no room"),
        ({"error": {"status": "UNAVAILABLE", "message": "no room"}}, "said_503", "no room"),
        (b"<html>", "bad_answer", None),
        (b"null", "bad_answer", None),
        (b"{}", "bad_answer", None),
    ],
)
def test_what_is_no_answer(api: str, payload: Any, error: str, detail: str | None) -> None:
    body = payload if isinstance(payload, bytes) else json.dumps(payload).encode()
    x = understand(raw(body, streamed=False), api)
    assert (x.error, len(x.hi_ns)) == (error, 0)
    assert detail is None or x.detail == detail


def test_a_growing_list_instead_of_events_is_geminis_answer_in_one_piece() -> None:
    parts = [e.removeprefix(b"data: ").strip() for e in RECORDED["gemini"].events]
    x = understand(raw(b"[" + b",\n".join(parts) + b"]", streamed=False), "gemini")
    assert (x.error, x.output_tokens, x.finish_reason) == ("", 5, "STOP")


# --- errors inside a stream


@pytest.mark.parametrize(
    ("api", "failure", "before", "after"),
    [
        ("responses", named({"type": "error", "code": "server_error", "message": "it died"}), "stream_error", None),
        ("responses", named({"type": "response.failed", "response": {
            "status": "failed", "error": {"code": "rate_limit_exceeded", "message": "it died"}}}), "said_429", None),
        ("messages", named({"type": "error", "error": {"type": "overloaded_error", "message": "it died"}}),
         "said_503", None),
        ("messages", named({"type": "error", "error": {"type": "api_error", "message": "it died"}}),
         "stream_error", None),
        ("ollama", b'{"error":"it died"}\n', "server_error", None),
        ("gemini", event({"error": {"code": 503, "status": "UNAVAILABLE", "message": "it died"}}), "said_503", None),
        ("gemini", event([{"error": {"code": 503, "message": "it died"}}]), "said_503", None),
        ("ollama", b'{"error":"it died","status":429}\n', "said_429", None),
        ("tgi", b'data:{"error":"it died","error_type":"generation"}\n\n', "stream_error", None),
        ("tgi", b'data:{"error":"it died","error_type":"overloaded"}\n\n', "said_503", None),
    ],
)  # fmt: skip
def test_an_error_inside_a_200(api: str, failure: bytes, before: str, after: None) -> None:
    """With nothing before it, it may be a refusal; after a token it is a stream that failed."""
    alone = understand(each_in_its_read(failure), api)
    assert (alone.error, alone.detail.endswith("it died"), len(alone.hi_ns)) == (before, True, 0)
    answer = RECORDED[api]
    begun = answer.events[: answer.carrying[0] + 1]
    x = understand(each_in_its_read(*begun, failure), api)
    assert (x.error, x.detail.endswith("it died")) == ("stream_error", True)


@pytest.mark.parametrize("api", ["responses", "messages", "gemini", "tgi"])
@pytest.mark.parametrize(
    "words", [b"upstream connect error", b'{\n  "error": {"message": "upstream connect error"}\n}']
)
def test_the_last_words_of_a_broken_stream_are_told(api: str, words: bytes) -> None:
    """A proxy's, or Gemini's, which are no events."""
    answer = RECORDED[api]
    x = understand(each_in_its_read(*answer.events[: answer.carrying[0] + 1], words), api)
    assert (x.error, x.detail) == ("stream_error", "upstream connect error")


def test_a_stream_of_another_api_is_named_as_such() -> None:
    foreign = [event({"choices": [{"delta": {"content": "hi"}}]})] * 2
    for api in ("responses", "messages", "gemini", "tgi"):
        x = understand(each_in_its_read(*foreign), api)
        assert (x.error, x.detail.endswith("none of its 2 events is one of this API")) == ("truncated", True), api
        x = understand(each_in_its_read(*foreign, DONE), api)
        assert (x.error, x.detail) == ("bad_answer", "none of its 2 events is one of this API"), api
    silent = [*RECORDED["messages"].events[:1], event({"type": "vertex_event"}), *RECORDED["messages"].events[-2:]]
    assert understand(each_in_its_read(*silent), "messages").error == "empty"


# --- Responses


def test_a_sign_of_life_is_no_event_without_a_meaning() -> None:
    """OpenAI sends it where an answer takes long (openai/openai-node, issue 1964)."""
    events = RECORDED["responses"].events
    x = understand(each_in_its_read(events[0], named({"type": "keepalive"}), *events[1:]), "responses")
    assert (x.error, x.unread_events) == ("", 0)


def test_an_agent_may_answer_in_items_alone() -> None:
    """As agents on Databricks do: no deltas, no usage, and no event that ends the answer."""
    call = {"type": "function_call", "id": "f1", "name": "look", "arguments": "{}"}
    said = {"type": "message", "id": "m1", "content": [{"type": "output_text", "text": "Hi you"}]}
    items = [named({"type": "response.output_item.done", "item": item}) for item in (call, said)]
    for end in ([], [DONE]):
        x = understand(each_in_its_read(*items, *end), "responses")
        assert (x.error, ms(x.hi_ns), x.tokens_source) == ("", [100, 110], "events")


def test_an_answer_in_the_last_event_alone() -> None:
    response = {"status": "completed", "output": [{"type": "message", "content": [{"text": "Hi"}]}],
                "usage": {"input_tokens": 9, "output_tokens": 2}}  # fmt: skip
    x = understand(each_in_its_read(named({"type": "response.completed", "response": response})), "responses")
    assert (x.error, x.output_tokens, ms(x.hi_ns)) == ("", 2, [100])


@pytest.mark.parametrize(("why", "error"), [("max_output_tokens", ""), ("content_filter", "finish_content_filter")])
def test_an_incomplete_response_says_why(why: str, error: str) -> None:
    begun = RECORDED["responses"].events[:7]
    response = {"status": "incomplete", "incomplete_details": {"reason": why}, "usage": {"output_tokens": 3}}
    x = understand(each_in_its_read(*begun, named({"type": "response.incomplete", "response": response})), "responses")
    assert (x.error, x.finish_reason, x.output_tokens) == (error, why, 3)


def test_hidden_reasoning_of_a_response_is_kept_apart() -> None:
    events = [e for e in RECORDED["responses"].events if b"reasoning_summary" not in e and b'"t1"' not in e]
    last = json.loads(RECORDED["responses"].events[-1].partition(b"data: ")[2])
    x = understand(each_in_its_read(*events, named(last)), "responses")
    assert (x.output_tokens, x.hidden_tokens, x.reasoning_tokens) == (3, 2, 2)


@pytest.mark.parametrize("kind", ["function_call_arguments", "refusal", "custom_tool_call_input", "mcp_call_arguments"])
def test_other_deltas_are_for_the_reader_too(kind: str) -> None:
    deltas = [named({"type": f"response.{kind}.delta", "item_id": "i", "delta": t}) for t in TEXTS]
    x = understand(each_in_its_read(*deltas, RECORDED["responses"].events[-1]), "responses")
    assert (x.error, ms(x.hi_ns), ms([x.answer_ns])) == ("", [100, 110, 120], [100])


# --- Messages


def test_a_call_in_pieces_begins_with_its_name() -> None:
    start = named({"type": "content_block_start", "index": 0, "content_block": {"type": "tool_use", "name": "look"}})
    pieces = ["", '{"a"', ": 1}"]
    deltas = [
        named({"type": "content_block_delta", "index": 0, "delta": {"type": "input_json_delta", "partial_json": p}})
        for p in pieces
    ]
    ends = [e.replace(b"end_turn", b"tool_use") for e in RECORDED["messages"].events[-2:]]
    x = understand(each_in_its_read(start, *deltas, *ends), "messages")
    assert (x.error, x.finish_reason, x.output_tokens) == ("", "tool_use", 3)
    assert ms(x.hi_ns)[0] == 100
    assert ms(x.hi_ns)[-1] == 130


def test_counts_that_come_again_stand_in_for_the_first() -> None:
    events = list(RECORDED["messages"].events)
    counts = {"input_tokens": 0, "cache_read_input_tokens": 5, "output_tokens": 5}
    events[-2] = named({"type": "message_delta", "delta": {"stop_reason": "end_turn"}, "usage": counts})
    x = understand(each_in_its_read(*events), "messages")
    assert (x.input_tokens, x.cached_tokens, x.output_tokens) == (10, 5, 5)


def test_a_message_is_whole_once_it_says_why_it_stopped() -> None:
    """Gateways, and now and then Anthropic itself, leave message_stop out, and may keep the connection open."""
    events, ping = RECORDED["messages"].events[:-1], named({"type": "ping"})
    for answer in (
        each_in_its_read(*events),
        each_in_its_read(*events, ping, ping),
        each_in_its_read(*events, ping, error="stalled"),
    ):
        x = understand(answer, "messages")
        assert (x.error, x.finish_reason, x.output_tokens, ms([x.done_ns])) == ("", "end_turn", 5, [220])
    assert understand(each_in_its_read(*events[:-1]), "messages").error == "truncated"


@pytest.mark.parametrize("usage", [{"output_tokens": 0}, {}, None])
def test_what_a_message_had_generated_when_it_started_is_not_its_length(usage: dict[str, int] | None) -> None:
    """Gateways that know no count pass the start's on, or give nought at the end."""
    events = list(RECORDED["messages"].events)
    events[-2] = named({"type": "message_delta", "delta": {"stop_reason": "end_turn"}, "usage": usage})
    x = understand(each_in_its_read(*events), "messages")
    assert (x.error, x.input_tokens, x.output_tokens, x.tokens_source) == ("", 9, 5, "events")


def test_a_refusal_is_no_success() -> None:
    events = [e.replace(b"end_turn", b"refusal") for e in RECORDED["messages"].events]
    assert understand(each_in_its_read(*events), "messages").error == "finish_refusal"


# --- Ollama, Gemini, TGI


def test_a_prompt_that_ollama_had_cached_may_have_no_count() -> None:
    last = line(message={"role": "assistant", "content": ""}, done=True, done_reason="stop", eval_count=5)
    x = understand(each_in_its_read(*RECORDED["ollama"].events[:-1], last), "ollama")
    assert (x.error, x.input_tokens, x.output_tokens) == ("", -1, 5)


def test_lines_that_a_gateway_made_events_of_are_read() -> None:
    answer = RECORDED["ollama"]
    x = understand(each_in_its_read(*(b"data: %b\n" % e for e in answer.events)), "ollama")
    assert figures(x) == expected(answer)
    assert ms(x.hi_ns) == [100 + 10 * place for place in answer.carrying]


def test_an_indented_answer_of_ollamas_is_one_piece() -> None:
    x = understand(raw(json.dumps(WHOLE["ollama"], indent=2).encode(), streamed=False), "ollama")
    assert (x.error, x.input_tokens, x.output_tokens) == ("", 9, 2)


def test_ollamas_calls_come_whole() -> None:
    calls = [{"function": {"name": "look", "arguments": {"a": 1}}}]
    told = line(message={"role": "assistant", "content": "", "tool_calls": calls}, done=False)
    x = understand(each_in_its_read(told, RECORDED["ollama"].events[-1]), "ollama")
    assert (x.error, ms(x.hi_ns), ms([x.answer_ns])) == ("", [100], [100])


@pytest.mark.parametrize("reason", ["SAFETY", "RECITATION", "PROHIBITED_CONTENT", "MALFORMED_FUNCTION_CALL"])
def test_what_gemini_breaks_off_is_no_success(reason: str) -> None:
    x = understand(each_in_its_read(gemini({"text": "a"}, 1), gemini({}, 1, finishReason=reason)), "gemini")
    assert (x.error, x.finish_reason) == (f"finish_{reason.lower()}", reason)


def test_gemini_may_give_its_reason_early_often_and_in_small_letters() -> None:
    """As gateways translate it (router-for-me/CLIProxyAPI, issue 5651)."""
    early = [gemini({}, 0, 0, finishReason="STOP"), *(gemini({"text": t}, n, 0) for n, t in enumerate(TEXTS, 1))]
    x = understand(each_in_its_read(*early, gemini({}, 3, 0, finishReason="stop")), "gemini")
    assert (x.error, x.output_tokens, ms(x.hi_ns), ms([x.done_ns])) == ("", 3, [110, 120, 130], [140])


def test_a_failure_in_geminis_list_is_one() -> None:
    busy = [{"error": {"code": 429, "message": "no quota", "status": "RESOURCE_EXHAUSTED"}}]
    x = understand(raw(json.dumps(busy).encode(), streamed=False), "gemini")
    assert (x.error, x.detail) == ("said_429", "no quota")


def test_a_prompt_that_gemini_blocks() -> None:
    blocked = event({"promptFeedback": {"blockReason": "SAFETY"}, "usageMetadata": {"promptTokenCount": 9}})
    for x in (
        understand(each_in_its_read(blocked), "gemini"),
        understand(raw(blocked.removeprefix(b"data: "), streamed=False), "gemini"),
    ):
        assert (x.error, x.detail, x.input_tokens) == ("prompt_blocked", "the prompt was blocked: SAFETY", 9)


def test_thinking_that_gemini_does_not_show_is_hidden() -> None:
    events = [gemini({"text": t}, n, 7) for n, t in enumerate(TEXTS, 1)]
    x = understand(each_in_its_read(*events, gemini({}, 3, 7, finishReason="MAX_TOKENS")), "gemini")
    assert (x.output_tokens, x.hidden_tokens, x.reasoning_tokens, x.tokens.tolist()) == (3, 7, 7, [1, 1, 1])


def test_several_tokens_in_geminis_events_are_counted_each() -> None:
    events = [gemini({"text": "a b c"}, 3, 0), gemini({"text": " d"}, 4, 0), gemini({"text": " e f"}, 6, 0,
              finishReason="STOP")]  # fmt: skip
    assert understand(each_in_its_read(*events), "gemini").tokens.tolist() == [3, 1, 2]


def test_tgi_may_count_the_prompt_token_by_token_or_not_at_all() -> None:
    for details, counted in (({"prefill": [{"id": 1}, {"id": 2}]}, 2), ({"prompt_tokens": 2}, 2), ({}, -1)):
        last = tgi("b", generated_text="ab", details={"generated_tokens": 2, "finish_reason": "length"} | details)
        x = understand(each_in_its_read(tgi("a"), last), "tgi")
        assert (x.error, x.input_tokens, x.output_tokens, len(x.hi_ns)) == ("", counted, 2, 2)
    listed = [{"generated_text": "ab", "details": {"generated_tokens": 2}}]
    assert understand(raw(json.dumps(listed).encode(), streamed=False), "tgi").output_tokens == 2


# --- rerank and score


@pytest.mark.parametrize(
    ("api", "answer", "counted"),
    [
        ("rerank", {"results": [{"index": 1, "relevance_score": 0.8}, {"index": 0, "relevance_score": 0.4}],
                    "usage": {"prompt_tokens": 14, "total_tokens": 14}}, 14),
        ("rerank", {"results": [{"index": 1, "relevance_score": 0.8}] * 2,
                    "meta": {"tokens": {"input_tokens": 14}, "billed_units": {"search_units": 1}}}, 14),
        ("rerank", [{"index": 0, "score": 0.9}, {"index": 1, "score": 0.1}], -1),
        ("rerank", {"data": [{"index": 0, "relevance_score": 0.9}] * 2, "usage": {"total_tokens": 14}}, 14),
        ("score", {"data": [{"index": 0, "object": "score", "score": 0.9}] * 2, "usage": {"total_tokens": 14}}, 14),
    ],
)  # fmt: skip
def test_a_mark_for_each_document_is_a_token(api: str, answer: Any, counted: int) -> None:
    x = understand(raw(json.dumps(answer).encode(), streamed=False), api)
    assert (x.error, x.output_tokens, x.input_tokens, len(x.hi_ns)) == ("", 2, counted, 1)


def test_no_marks_are_no_answer() -> None:
    assert understand(raw(b'{"results": []}', streamed=False), "rerank").error == "empty"
    for mark in (b"NaN", b"null", b"-Infinity", b'"0.5"'):
        answer = b'{"results": [{"index": 0, "relevance_score": %b}]}' % mark
        assert understand(raw(answer, streamed=False), "rerank").error == "empty"
    assert understand(raw(b'{"data": [{"embedding": [1]}]}', streamed=False), "score").error == "empty"


@pytest.mark.parametrize(
    ("api", "query", "documents"), [("rerank", "query", "documents"), ("score", "text_1", "text_2")]
)
def test_a_prompt_is_dealt_out_as_a_query_and_its_documents(api: str, query: str, documents: str) -> None:
    dialect = DIALECTS[api]
    form = template(dialect, "m", first_options(dialect), {"top_n": 9})
    words = "salt a b c d e f g h i"
    body = json.loads(fill(form, words, 3))
    assert body == {"model": "m", query: "salt a b c", documents: ["d e", "f g", "h i"], "top_n": 9}
    assert " ".join([body[query], *body[documents]]) == words
    assert all(json.loads(fill(form, "salt", 4))[documents])


def test_documents_are_called_texts_where_the_server_has_no_other_name_for_them() -> None:
    """As TEI has it: the field of its own is the only one that it looks at."""
    dialect = DIALECTS["rerank"]
    first = first_options(dialect)
    told = "Failed to deserialize the JSON body into the target type: missing field `texts` at line 1 column 66"
    refused = understand(raw(told.encode(), status=422, streamed=False), "rerank")
    again = next_options([(first, refused)])
    assert again is not None
    body = json.loads(fill(template(dialect, "", again, {"truncate": True}), "salt a b c d e", 2))
    assert body == {"query": "salt a b c", "texts": ["d", "e"], "truncate": True}
    assert next_options([(first, refused), (again, refused)]) is None


# --- what is asked


ASKED: dict[str, dict[str, Any]] = {
    "responses": {"model": "m", "input": [{"role": "user", "content": "hi"}], "store": False, "stream": True,
                  "ignore_eos": True, "min_tokens": 7, "max_output_tokens": 7},
    "messages": {"model": "m", "messages": [{"role": "user", "content": "hi"}], "stream": True, "ignore_eos": True,
                 "min_tokens": 7, "max_tokens": 7},
    "ollama": {"model": "m", "messages": [{"role": "user", "content": "hi"}], "stream": True,
               "options": {"temperature": 0, "num_predict": 7}},
    "ollama-generate": {"model": "m", "prompt": "hi", "stream": True, "options": {"temperature": 0, "num_predict": 7}},
    "gemini": {"contents": [{"role": "user", "parts": [{"text": "hi"}]}], "generationConfig": {"maxOutputTokens": 7}},
    "tgi": {"inputs": "hi", "parameters": {"details": True, "max_new_tokens": 7}},
}  # fmt: skip


@pytest.mark.parametrize("api", ASKED)
def test_what_a_request_holds(api: str) -> None:
    dialect = DIALECTS[api]
    extra = {"options": {"temperature": 0}} if api.startswith("ollama") else {}
    assert json.loads(fill(template(dialect, "m", first_options(dialect), extra), "hi", 7)) == ASKED[api]
    plain = first_options(dialect, stream=False, ignore_eos=False)
    body = json.loads(fill(template(dialect, "m", plain, {}), "hi", 7))
    assert not body.get("stream")
    assert not {"ignore_eos", "min_tokens", "stream_options"} & set(body)


def test_a_length_stays_ours_beside_further_fields_of_its_parent() -> None:
    dialect = DIALECTS["ollama"]
    form = template(dialect, "m", first_options(dialect), {"options": {"num_predict": 999, "num_ctx": 8192}})
    assert json.loads(fill(form, "hi", 7))["options"] == {"num_predict": 7, "num_ctx": 8192}


def test_where_requests_go() -> None:
    assert DIALECTS["gemini"].place("models/m", False) == DIALECTS["gemini"].place("m", False)
    places = {name: d.place("a/b c", True) for name, d in DIALECTS.items()}
    assert places["gemini"] == "/models/a%2Fb%20c:streamGenerateContent?alt=sse"
    assert DIALECTS["gemini"].place("m", False) == "/models/m:generateContent"
    assert (places["tgi"], DIALECTS["tgi"].place("m", False)) == ("/generate_stream", "/generate")
    assert (places["chat"], DIALECTS["chat"].place("m", False)) == ("/chat/completions", "/chat/completions")
