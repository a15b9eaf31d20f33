"""What the bytes of an answer mean, for the servers that people use and the ways in which they fail."""

import json
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pacemark.dialects.dialect import (
    DIALECTS,
    Options,
    attempts,
    best_options,
    fill,
    first_options,
    next_options,
    template,
)
from pacemark.dialects.reading import understand
from pacemark.trace import ABSENT, Exchange
from support.events import ROLE, each_in_its_read, ms
from support.servers import DONE, delta, event, raw, usage

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


OPTIONAL = ("running_usage", "include_usage", "ignore_eos", "min_tokens")
WIRE = {"running_usage": "continuous_usage_stats", "include_usage": "stream_options"}
REFUSALS = [
    (400, "unknown field {}"),
    (422, "'{}': extra inputs are not permitted"),
    (500, "unexpected '{}'"),
    (404, "{} is not supported"),
    (501, "unsupported: {}"),
    (405, "{} is not allowed"),
    (400, "bad request"),
    (422, "invalid"),
]


def server(refused: set[str], limit: str, status: int, words: str) -> Callable[[Options], Exchange]:
    """Answers as a server that takes none of the `refused` and one field for the limit; it names one at a time, or
    none where `words` has no place for it."""

    def answer(options: Options) -> Exchange:
        wrong = [WIRE.get(name, name) for name in OPTIONAL if getattr(options, name) and name in refused]
        if options.max_tokens_field != limit:
            wrong.append(options.max_tokens_field)
        if not wrong:
            return understand(each_in_its_read(ROLE, delta(content="a"), DONE))
        payload = {"error": {"message": words.format(wrong[-1])}}
        return understand(raw(json.dumps(payload).encode(), status=status, streamed=False))

    return answer


def negotiated(answer: Callable[[Options], Exchange], first: Options) -> tuple[Options | None, int]:
    tried: list[tuple[Options, Exchange]] = []
    options: Options | None = first
    while options is not None and len(tried) < 20:
        tried.append((options, answer(options)))
        options = next_options(tried)
    best = best_options(tried)
    return (best[0] if best else None), len(tried)


@given(
    st.sets(st.sampled_from(OPTIONAL)),
    st.sampled_from(["max_tokens", "max_completion_tokens"]),
    st.sampled_from(REFUSALS),
)
def test_every_field_is_dropped_by_itself_whichever_are_refused(
    refused: set[str], limit: str, said: tuple[int, str]
) -> None:
    best, requests = negotiated(server(refused, limit, *said), first_options(DIALECTS["chat"]))
    assert best is not None
    assert best.max_tokens_field == limit
    taken = {name for name in OPTIONAL if getattr(best, name)}
    beside = {"running_usage"} if "include_usage" in refused else set()
    assert taken == set(OPTIONAL) - refused - beside
    assert requests <= 12


ALLOWED = "`model`, `messages`, `max_tokens`, `stream_options`"


@pytest.mark.parametrize(
    ("status", "words"),
    [
        (422, "unknown field `{}`, expected one of " + ALLOWED),
        (400, "Unknown parameter: {}. Supported parameters are: " + ALLOWED),
        (400, "{} is not allowed. Allowed: " + ALLOWED),
        (403, "{} is not part of your plan, unlike max_tokens"),
        (424, "unexpected keyword argument '{}'"),
        (503, "unexpected keyword argument '{}'"),
    ],
)
def test_what_a_refusal_says_could_be_asked_is_not_what_it_refuses(status: int, words: str) -> None:
    first = first_options(DIALECTS["chat"])
    best, _ = negotiated(server({"ignore_eos", "min_tokens", "running_usage"}, "max_tokens", status, words), first)
    assert best is not None
    assert (best.include_usage, best.ignore_eos, best.max_tokens_field) == (True, False, "max_tokens")


def test_a_server_that_breaks_without_a_word_is_asked_more_plainly() -> None:
    """Its framework hides what was said of a field that it does not know."""

    def answer(options: Options) -> Exchange:
        if options.ignore_eos:
            return understand(raw(b"Internal Server Error", status=500, streamed=False))
        return understand(each_in_its_read(ROLE, delta(content="a"), DONE))

    best, requests = negotiated(answer, first_options(DIALECTS["chat"]))
    assert best is not None
    assert (best.include_usage, best.min_tokens, best.ignore_eos) == (True, True, False)
    assert requests <= 8


def test_a_server_that_takes_everything_is_asked_once() -> None:
    first = first_options(DIALECTS["chat"])
    assert negotiated(server(set(), "max_tokens", 400, "no"), first) == (first, 1)


def refusing(status: int, message: Any) -> Callable[[Options], Exchange]:
    body = json.dumps({"error": message}).encode()
    return lambda _: understand(raw(body, status=status, streamed=False))


@pytest.mark.parametrize(
    ("status", "words"),
    [(404, "The model `x` does not exist"), (401, "no key"), (429, "slow down"), (500, "out of memory"), (503, "wait")],
)
def test_what_names_no_field_and_is_no_refusal_is_asked_once(status: int, words: str) -> None:
    assert negotiated(refusing(status, words), first_options(DIALECTS["chat"])) == (None, 1)


def test_a_complaint_about_the_limits_value_is_no_reason_to_rename_it() -> None:
    words = "Invalid 'max_tokens': integer below minimum value. Expected >= 16, got 1."
    assert negotiated(refusing(500, words), first_options(DIALECTS["chat"])) == (None, 1)


def test_a_field_may_be_named_beside_the_message() -> None:
    first = first_options(DIALECTS["chat"])
    x = refusing(400, {"message": "Unsupported parameter", "param": "ignore_eos"})(first)
    assert x.detail == "Unsupported parameter (ignore_eos)"
    changed = next_options([(first, x)])
    assert changed is not None
    assert (changed.ignore_eos, changed.min_tokens, changed.running_usage) == (False, True, True)


def test_the_model_may_decide_when_to_stop() -> None:
    first = first_options(DIALECTS["chat"], ignore_eos=False)
    assert (first.ignore_eos, first.min_tokens, first.include_usage) == (False, False, True)
    assert not first_options(DIALECTS["chat"], stream=False).include_usage


def test_running_usage_is_asked_for_inside_stream_options() -> None:
    body = json.loads(fill(template(DIALECTS["chat"], "m", first_options(DIALECTS["chat"]), {}), "hi", 3))
    assert body["stream_options"] == {"include_usage": True, "continuous_usage_stats": True}


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
    """Only the first with a role is the header; an empty delta between texts is a token where the count says so."""
    texts = [delta(role="assistant", content=text) for text in ("", "a", "", "b")]
    x = understand(each_in_its_read(*texts, usage(7, 3), DONE))
    assert ms(x.hi_ns) == [110, 120, 130]


def test_an_event_before_the_role_header_does_not_hide_it() -> None:
    filters = event({"choices": [], "prompt_filter_results": []})
    x = understand(each_in_its_read(filters, ROLE, delta(content="a"), delta(content="b"), usage(7, 3), DONE))
    assert ms(x.hi_ns) == [120, 130]


def test_empty_deltas_are_tokens_as_far_as_usage_says() -> None:
    """Between the first text and the last; after it where the count comes out; never before the first."""
    empty = delta(content="")
    body = [ROLE, empty, delta(content="b"), empty, empty, delta(content="e"), empty, delta("length", content="")]
    between = [(2, [120, 150]), (3, [120, 130, 150]), (4, [120, 130, 140, 150])]
    for counted, times in (*between, (5, [120, 130, 140, 150, 160]), (9, [120, 130, 140, 150])):
        x = understand(each_in_its_read(*body, usage(7, counted), DONE))
        assert ms(x.hi_ns) == times
        assert x.tokens.sum() == pytest.approx(counted)
    assert ms(understand(each_in_its_read(*body, DONE)).hi_ns) == [120, 150]


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
    x = understand(body, "chat", lambda text: len(text.split()))
    assert (x.output_tokens, x.tokens_source) == (3, "tokenizer")
    with_usage = each_in_its_read(ROLE, delta(content="a b"), usage(7, 2), DONE)
    assert understand(with_usage, "chat", lambda text: 99).output_tokens == 2


@given(
    st.lists(st.sampled_from(["a", " ", "id7", "stop", "", '"', "\n", "é", "\\", "content"]) | st.text(max_size=3)),
    st.sampled_from(["content", "reasoning", "text"]),
    st.integers(1, 9),
    st.sampled_from([0, 1, 3]),
    st.sampled_from([1, 40]),
)
def test_events_that_are_alike_are_read_as_if_each_were_decoded(
    texts: list[str], field: str, turn: int, step: int, often: int
) -> None:
    """Line ends of the other kind turn the short cut off. `step`: tokens that each event counts more; 0: none does."""

    def said(text: str, number: int) -> bytes:
        choice = {"index": 0, "text": text} if field == "text" else {"index": 0, "delta": {field: text}}
        told = {"prompt_tokens": 7, "completion_tokens": step * number, "total_tokens": 7 + step * number}
        return event({"id": "id7", "created": number // turn, "choices": [choice]} | ({"usage": told} if step else {}))

    events = [ROLE, *(said(text, 1 + n) for n, text in enumerate(texts * often)), delta("stop"), DONE]
    short, long = (
        understand(each_in_its_read(*(e.replace(b"\n", end) for e in events)), "chat", lambda text: len(text))
        for end in (b"\n", b"\r\n")
    )
    for name in ("error", "input_tokens", "output_tokens", "tokens_source", "answer_ns", "first_event_ns"):
        assert getattr(short, name) == getattr(long, name)
    for name in ("hi_ns", "lo_ns", "tokens"):
        assert getattr(short, name).tolist() == getattr(long, name).tolist()


def test_running_counts_are_read_to_the_last_whatever_else_grows_with_them() -> None:
    def said(number: int) -> bytes:
        counts = {"prompt_tokens": 7, "completion_tokens": 2 * number}
        choice = {"index": 0, "delta": {"content": f" w{number}"}, "finish_reason": None}
        return event(
            {"choices": [choice], "usage": counts | {"completion_tokens_details": {"reasoning_tokens": number // 2}}}
        )

    x = understand(each_in_its_read(ROLE, *(said(n) for n in range(1, 301)), delta("length"), DONE))
    assert (x.error, x.input_tokens, x.reasoning_tokens) == ("", 7, 150)
    assert len(x.tokens) == 300
    assert x.output_tokens == x.tokens.sum() == 600 - x.hidden_tokens


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


@pytest.mark.parametrize("payload", [b'{"choices": [', b"\xff\xfe", b"hello", b"data data", b'{"choices": : keepalive'])
def test_an_event_that_cannot_be_read_at_all(payload: bytes) -> None:
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


# --- odd events in an otherwise good stream

TEXT = {"choices": [{"delta": {"content": "x"}, "finish_reason": None}]}


def one(**fields: Any) -> bytes:
    return event({"choices": [{"index": 0, "delta": {}, "finish_reason": None} | fields]})


MEANINGLESS = [
    event(None),
    event([1]),
    event(7),
    event("hello"),
    event({}),
    event({"choices": None}),
    event({"choices": 3}),
    event({"choices": {"0": {}}}),
    event({"type": "ping"}),
    event({"object": "chat.completion.chunk", "message": "processing"}),
    event({"code": 0, "message": "ok"}),
    event({"code": "200", "msg": "success"}),
    b'event: metrics\ndata: {"latency": 1, "usage": "n/a"}\n\n',
    b"event: ping\ndata: {}\n\n",
    one(delta={"content": {"a": 1}}),
    one(delta={"content": 7}),
]
HARMLESS = [
    b"data:\n\n",
    b"data: \n\n",
    b"data\n\n",
    b": ping\nid: 7\n\n",
    b"event: message\n\n",
    event({"choices": []}),
    event({"choices": [None, 3, "x"]}),
    event({"choices": [{"delta": {}}], "usage": []}),
    event({"choices": [{"delta": {}}], "usage": {"completion_tokens": "many"}}),
    event({"choices": [{"delta": {}}], "usage": {"completion_tokens": None}}),
    event({"choices": [{"delta": {}}], "error": None}),
    event({"choices": [{"delta": {}}], "error": ""}),
    one(delta=[]),
    one(delta="text"),
    one(delta={"tool_calls": {}}),
    one(delta={"tool_calls": 3}),
    one(delta={"role": 3}),
    one(finish_reason=3),
    one(finish_reason=["stop"]),
    b'data: {"choices":[{"delta":{"content":""},"logprobs":{"x":NaN,"y":-Infinity}}]}\n\n',
    b'data: {"choices":[{"delta":{}}],"x":"\xff\xfe"}\n\n',
    b'data: {"choices":[{"delta":{}}],"created":1e999}\n\n',
]


@pytest.mark.parametrize(("odd", "unread"), [*((x, 1) for x in MEANINGLESS), *((x, 0) for x in HARMLESS)])
def test_an_event_without_meaning_is_passed_over(odd: bytes, unread: int) -> None:
    a, b = delta(content="a"), delta(content="b")
    x = understand(each_in_its_read(ROLE, a, odd, b, delta("stop"), usage(7, 2), DONE))
    assert (x.error, x.output_tokens, len(x.hi_ns), x.unread_events) == ("", 2, 2, unread)
    assert (x.finish_reason, x.tokens_source, x.input_tokens) == ("stop", "usage", 7)


@pytest.mark.parametrize(
    "odd",
    [
        b'data: {"choices":[{"delta":{"content":"\\ud83d"}}]}\n\n',
        b'data: {"choices":[{"delta":{"content":"\xf0\x9f"}}]}\n\n',
        b'data: {"choices":[{"delta":{"content":"x"},"logprobs":NaN}]}\n\n',
        b'data: {"choices":[{"delta":{"content":"x","tool_calls":{}}}],"usage":7}\n\n',
        b'data: {"choices":[{"delta":{"content":"x","role":7}}],"object":7}\n\n',
        b'data: {"choices":[{"delta":{"content":"x"},"text":3,"finish_reason":{}}]}\n\n',
        event(TEXT | {"error": None, "id": None, "data": 3, "usage": []}),
    ],
)
def test_a_token_in_an_odd_event_counts(odd: bytes) -> None:
    x = understand(each_in_its_read(ROLE, delta(content="a"), odd, delta("stop"), DONE))
    assert (x.error, x.output_tokens, ms(x.hi_ns)) == ("", 2, [110, 120])
    counted = understand(each_in_its_read(odd, DONE), "chat", lambda text: len(text.encode()))
    assert counted.output_tokens >= 1


@pytest.mark.parametrize("done", [b"data: [DONE] \n\n", b"data:[DONE]\n\n", b"data:  [DONE]\n\n", b"data: [DONE]"])
def test_done_however_it_is_spaced(done: bytes) -> None:
    x = understand(each_in_its_read(ROLE, delta(content="a"), done))
    assert (x.error, x.unread_events) == ("", 0)


@pytest.mark.parametrize(("finish", "kept"), [({"type": "length"}, "length"), ({"reason": "stop"}, "stop"), (True, "")])
def test_a_finish_reason_of_another_type(finish: Any, kept: str) -> None:
    x = understand(each_in_its_read(ROLE, delta(content="a"), one(finish_reason=finish), DONE))
    assert (x.error, x.finish_reason) == ("", kept)


def test_usage_in_other_types() -> None:
    counts = {"prompt_tokens": 7.0, "completion_tokens": "2"}
    for last in ({"choices": [], "usage": counts}, {"usage": counts | {"total_tokens": None}}):
        x = understand(each_in_its_read(ROLE, *[delta(content="a")] * 2, event(last), DONE))
        assert (x.input_tokens, x.output_tokens, x.tokens_source) == (7, 2, "usage")


@given(st.integers(1, 9))
def test_events_without_the_blank_line_keep_their_times(tokens: int) -> None:
    events = [ROLE, *(delta(content=str(i)) for i in range(tokens)), delta("stop"), usage(7, tokens), DONE]
    times = [110 + 10 * i for i in range(tokens)]
    x = understand(each_in_its_read(*(e[:-1] for e in events), b"\n"))
    assert (x.error, x.output_tokens) == ("", tokens)
    assert ms(x.hi_ns) == ms(x.lo_ns) == times
    glued = understand(each_in_its_read(*(e[:-2] for e in events), b"\n\n"))
    assert (glued.error, ms(glued.hi_ns)) == ("", times)


def test_json_over_several_data_lines_is_one_event() -> None:
    pretty = b"".join(b"data: %b\n" % line for line in json.dumps(TEXT, indent=1).encode().splitlines()) + b"\n"
    x = understand(each_in_its_read(pretty, pretty, DONE))
    assert (x.error, x.output_tokens, ms(x.hi_ns)) == ("", 2, [100, 110])


# --- failures that look like success


@pytest.mark.parametrize(
    ("failure", "detail"),
    [
        (event({"error": {"message": "no room"}}), "no room"),
        (event({"error": "no room"}), "no room"),
        (event({"error": {"error": {"message": "no room"}}}), "no room"),
        (event({"error": True, "message": "no room"}), "no room"),
        (event({"choices": [], "error": {"code": 500, "message": "no room"}}), "no room"),
        (one(error={"code": 502, "message": "no room"}, finish_reason="error"), "no room"),
        (event({"object": "error", "message": "no room"}), "no room"),
        (event({"error_code": "X", "message": "no room"}), "no room"),
        (event({"code": 500, "message": "no room"}), "no room"),
        (event({"code": "internal", "msg": "no room"}), "no room"),
        (event({"detail": "no room"}), "no room"),
        (event({"errors": [{"message": "no room"}]}), '[{"message":"no room"}]'),
        (event({"type": "error", "message": "no room"}), "no room"),
        (event({"message": "no room"}), "no room"),
        (event({"status": "failed", "reason": "no room"}), "no room"),
        (b'event: error\ndata: {"type": "overloaded", "message": "no room"}\n\n', "no room"),
        (b"event: error\ndata: no room\n\n", "no room"),
        (b'error: {"code":400,"message":"no room"}\n\n', "no room"),
        (b"error: no room\n\n", "no room"),
        (b'error:{"message":"no room"}\n\n', "no room"),
    ],
)
def test_a_failure_after_good_tokens_is_one_in_the_servers_words(failure: bytes, detail: str) -> None:
    events = [ROLE, delta(content="a"), delta(content="b"), failure]
    for tail in ((DONE,), (delta("stop"), usage(7, 2), DONE), ()):
        x = understand(each_in_its_read(*events, *tail))
        assert (x.error, x.detail, ms(x.hi_ns)) == ("stream_error", detail, [110, 120])
    assert understand(each_in_its_read(*events, error="closed")).detail == detail
    assert understand(each_in_its_read(ROLE, failure, DONE)).error in ("stream_error", "said_503")


REASONS = ["error", "abort", "content_filter", "cancelled", "ERROR", "SAFETY", "insufficient_system_resource"]


@pytest.mark.parametrize("reason", REASONS)
def test_a_finish_reason_that_is_a_failure(reason: str) -> None:
    x = understand(each_in_its_read(ROLE, delta(content="a"), delta(reason), usage(7, 1), DONE))
    assert (x.error, x.finish_reason, x.output_tokens) == (f"finish_{reason.lower()}", reason, 1)
    assert reason in x.detail
    body = json.dumps({"choices": [{"message": {"content": "a"}, "finish_reason": reason}]}).encode()
    assert understand(raw(body, streamed=False)).error == f"finish_{reason.lower()}"


def test_a_failing_finish_reason_takes_the_words_that_follow_it() -> None:
    x = understand(each_in_its_read(ROLE, delta(content="a"), delta("error"), event({"error": {"message": "no room"}})))
    assert (x.error, x.detail) == ("finish_error", "no room")


def test_a_failure_in_a_list_of_its_own_as_gemini_sends_it() -> None:
    x = understand(raw(b'[{"error": {"code": 400, "message": "no room"}}]', status=400, streamed=False))
    assert x.detail == "no room"


@pytest.mark.parametrize("reason", ["stop", "length", "tool_calls", "eos_token", "stop_sequence", "end_turn", "STOP"])
def test_a_finish_reason_that_is_none(reason: str) -> None:
    assert understand(each_in_its_read(ROLE, delta(content="a"), delta(reason), DONE)).error == ""


@pytest.mark.parametrize(
    ("failure", "error"),
    [
        ({"error": {"code": 429, "message": "quota exceeded"}}, "said_429"),
        ({"error": {"code": "429", "message": "quota exceeded"}}, "said_429"),
        ({"error": {"type": "rate_limit_error", "message": "quota exceeded"}}, "said_429"),
        ({"error": {"code": "insufficient_quota", "message": "quota exceeded"}}, "said_429"),
        ({"code": 429, "message": "quota exceeded"}, "said_429"),
        ({"error": {"code": 503, "message": "quota exceeded"}}, "said_503"),
        ({"error": {"type": "overloaded_error", "message": "quota exceeded"}}, "said_503"),
        ({"error": {"code": 500, "message": "quota exceeded"}}, None),
    ],
)
def test_a_refusal_under_status_200_is_told_from_a_failure(failure: dict[str, Any], error: str | None) -> None:
    for events in ((event(failure), DONE), (ROLE, event(failure))):
        x = understand(each_in_its_read(*events))
        assert (x.error, x.detail) == (error or "stream_error", "quota exceeded")
    y = understand(raw(json.dumps(failure).encode(), streamed=False))
    assert (y.error, y.detail) == (error or "server_error", "quota exceeded")
    late = understand(each_in_its_read(ROLE, delta(content="a"), event(failure), DONE))
    assert late.error == "stream_error"


NAMES = (
    "choices delta message content text usage completion_tokens error finish_reason reasoning reasoning_details "
    "tool_calls role code detail object type"
).split()
anything = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=4),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(NAMES), inner, max_size=4),
    max_leaves=12,
)


@given(st.lists(anything, max_size=4), st.booleans())
def test_json_of_any_shape_raises_nothing(values: list[Any], streams: bool) -> None:
    """A good token before it counts, whatever follows."""
    body = b"".join([delta(content="good"), *map(event, values), delta("stop"), DONE])
    x = understand(raw(body if streams else json.dumps(values).encode(), streamed=streams), "chat", len)
    assert len(x.hi_ns) >= 1 if streams else x.error
    assert x.tokens.sum() == pytest.approx(x.output_tokens if len(x.hi_ns) else 0)
