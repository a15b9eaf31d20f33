"""First contact: the rules on answers by hand, and the whole way over real sockets."""

from __future__ import annotations

import dataclasses
import json
import re
from collections.abc import Callable
from typing import Any

import msgspec
import pytest

from pacemark.dialects.dialect import DIALECTS, Options, first_options, next_options
from pacemark.endpoint.contact import Way, first_contact, learn_prompts, negotiate, recognised, refuse_if_bad
from pacemark.endpoint.target import target
from pacemark.errors import BadInput
from pacemark.trace import ABSENT, Exchange
from pacemark.workload.words import Workload
from support.servers import exchange

JSON = dict[str, Any]
WORKLOAD = Workload(input_tokens=40, output_tokens=24, seed=3)
BODY = b'{"p":"hello","max_tokens":3}'
FORM = b'{"p":"@prompt@","max_tokens":"@tokens@"}'


def good(body: JSON, **fields: Any) -> Exchange:
    """An answer as long as was asked for, to a prompt of so many words and 5 tokens more."""
    count = body.get("max_tokens") or body.get("max_completion_tokens") or 1
    words = len((body.get("p") or body["messages"][0]["content"]).split())
    return exchange(0, [10 + n for n in range(count)], **({"input_tokens": words + 5} | fields))


def refusal(status: int, detail: str = "", **fields: Any) -> Exchange:
    return exchange(0, status=status, error=f"http_{status}", detail=detail, input_tokens=ABSENT, **fields)


class Server:
    """Answers by `rule`, and remembers what it was asked."""

    def __init__(self, rule: Callable[[JSON], Exchange]) -> None:
        self.rule = rule
        self.asked: list[JSON] = []
        self.told: list[str] = []
        self.rests: list[float] = []

    def way(self, api: str = "chat", **fields: Any) -> Way:
        place = target("http://127.0.0.1:9/v1", model="m", api=api)
        return Way(place, self.ask, tell=self.told.append, pause=self.rests.append, **fields)

    def ask(self, body: bytes) -> Exchange:
        self.asked.append(json.loads(body))
        return self.rule(self.asked[-1])


def test_where_streaming_is_refused_the_flag_without_is_named() -> None:
    for detail in ("streaming is not supported for this model", "Unsupported value: 'stream' must be false"):
        with pytest.raises(BadInput, match=f"{detail}; if it does not stream: --no-stream"):
            refuse_if_bad(Server(good).way(), exchange(0, status=400, error="http_400", detail=detail))
    with pytest.raises(BadInput, match=r"stream_options is unknown$"):
        refuse_if_bad(Server(good).way(), exchange(0, status=400, error="http_400", detail="stream_options is unknown"))


def without(*fields: str, status: int = 400, text: str = "unknown field {}") -> Callable[[JSON], Exchange]:
    """A server that refuses these fields, the first one it meets."""

    def rule(body: JSON) -> Exchange:
        found = next((field for field in fields if field in body), None)
        return refusal(status, text.format(found)) if found else good(body)

    return rule


class TestNegotiation:
    @pytest.mark.parametrize("status", [400, 404, 405, 422, 500, 501])
    @pytest.mark.parametrize(
        "fields",
        [
            ("ignore_eos",),
            ("min_tokens",),
            ("stream_options",),
            ("max_tokens",),
            ("min_tokens", "max_tokens"),
            ("ignore_eos", "stream_options"),
            ("ignore_eos", "min_tokens", "stream_options", "max_tokens"),
        ],
    )
    def test_each_refused_field_is_left_out_and_no_other(self, fields: tuple[str, ...], status: int) -> None:
        server = Server(without(*fields, status=status))
        options, _, answer = negotiate(server.way(), WORKLOAD)
        assert not answer.error
        assert options == Options(
            ignore_eos="ignore_eos" not in fields,
            min_tokens="min_tokens" not in fields,
            include_usage="stream_options" not in fields,
            max_tokens_field="max_completion_tokens" if "max_tokens" in fields else "max_tokens",
            running_usage="stream_options" not in fields,
        )
        limits = {body.get("max_tokens", body.get("max_completion_tokens")) for body in server.asked}
        assert limits == {WORKLOAD.output_tokens}

    @pytest.mark.parametrize("fields", [("ignore_eos", "min_tokens"), ("stream_options", "ignore_eos", "min_tokens")])
    def test_a_refusal_without_a_name_leads_to_the_plainer(self, fields: tuple[str, ...]) -> None:
        server = Server(without(*fields, text="extra inputs are not permitted"))
        options, form, answer = negotiate(server.way(), WORKLOAD)
        assert not answer.error
        assert not any(field in json.loads(form) for field in fields)
        assert len(server.asked) <= 12
        assert options.stream

    @pytest.mark.parametrize(("status", "asked"), [(401, 1), (404, 1), (500, 2)])
    def test_what_no_field_can_mend_is_said_at_once(self, status: int, asked: int) -> None:
        """A 500 alone may be the bad luck of a server that just woke."""
        server = Server(lambda body: refusal(status, "the model `m` does not exist"))
        with pytest.raises(BadInput, match="the model `m` does not exist"):
            negotiate(server.way(), WORKLOAD)
        assert len(server.asked) == asked

    def test_a_context_too_small_ends(self) -> None:
        server = Server(lambda body: refusal(400, "max_tokens is too large: the context has 16 tokens"))
        with pytest.raises(BadInput, match="the context has 16 tokens"):
            negotiate(server.way(), WORKLOAD)
        assert len(server.asked) <= 10

    def test_no_ignore_eos(self) -> None:
        server = Server(good)
        options, _, _ = negotiate(server.way(ignore_eos=False), WORKLOAD)
        assert (options.ignore_eos, options.min_tokens) == (False, False)
        assert "ignore_eos" not in server.asked[0]

    def test_embeddings_have_nothing_to_leave_out(self) -> None:
        only = first_options(DIALECTS["embeddings"], False, True)
        assert next_options([(only, refusal(400, "input"))]) is None


class TestPatience:
    def once(self, *first: Exchange) -> Server:
        answers = list(first)
        return Server(lambda body: answers.pop(0) if answers else good(body))

    def test_it_waits_as_long_as_it_is_told_and_says_so(self) -> None:
        server = self.once(refusal(429, "slow down", retry_after_s=7.0), refusal(503, retry_after_s=0.5))
        assert not server.way().patiently(BODY).error
        assert server.rests == [7.0, 0.5]
        assert "http_429: slow down" in server.told[0]
        assert "trying again in 7 s" in server.told[0]

    @pytest.mark.parametrize("status", [408, 500, 524, 529])
    def test_whoever_says_when_to_come_back_is_waited_for(self, status: int) -> None:
        server = self.once(refusal(status, "Overloaded", retry_after_s=1.0))
        _, _, answer = negotiate(server.way(), WORKLOAD)
        assert (answer.error, server.rests) == ("", [1.0])

    def test_an_hour_is_not_waited_for(self) -> None:
        server = self.once(refusal(429, retry_after_s=3600.0))
        assert server.way().patiently(BODY).error == "http_429"
        with pytest.raises(BadInput, match="come back in 3600 s"):
            negotiate(self.once(refusal(429, retry_after_s=3600.0)).way(), WORKLOAD)
        assert server.rests == []

    @pytest.mark.parametrize(
        "answer",
        [
            exchange(0, error="refused"),
            exchange(0, error="connect_timeout"),
            refusal(502),
            refusal(503, "loading model"),
            refusal(504),
            refusal(529, "Overloaded"),
            refusal(404, "model is loading"),
        ],
    )
    def test_not_ready_is_waited_for_only_if_asked(self, answer: Exchange) -> None:
        assert self.once(answer).way().patiently(BODY).error == answer.error
        assert not self.once(answer, answer, answer).way(wait_s=60).patiently(BODY).error

    @pytest.mark.parametrize("answer", [refusal(404, "no such path"), refusal(401), exchange(0, error="tls")])
    def test_what_does_not_pass_is_not_waited_for(self, answer: Exchange) -> None:
        server = self.once(answer)
        assert server.way(wait_s=60).patiently(BODY).error == answer.error
        assert server.rests == []

    @pytest.mark.parametrize("status", [429, 500, 502, 503, 504, 524, 529])
    def test_a_first_refusal_that_may_pass_is_tried_once_more(self, status: int) -> None:
        server = self.once(refusal(status, "cold start"))
        options, _, answer = negotiate(server.way(), WORKLOAD)
        assert not answer.error
        assert options.ignore_eos
        assert len(server.rests) == 1
        assert "cold start" in server.told[0]
        for still in (refusal(status), refusal(status, retry_after_s=3600.0)):
            with pytest.raises(BadInput):
                negotiate(self.once(*[still] * 9).way(), WORKLOAD)

    @pytest.mark.parametrize("error", ["empty", "closed", "truncated"])
    def test_bad_luck_with_a_first_request_is_no_refusal(self, error: str) -> None:
        server = self.once(exchange(0, error=error, detail="so it was"))
        options, _, answer = negotiate(server.way(), WORKLOAD)
        assert not answer.error
        assert options.ignore_eos  # the same again, not the plainer
        assert server.told == [f"a first request failed ({error}: so it was), the same again did not"]
        broken = Server(lambda body: exchange(0, error=error))
        with pytest.raises(BadInput):
            negotiate(broken.way(), WORKLOAD)
        assert broken.told == []


class TestPromptLengths:
    def test_they_are_learned_from_answers_of_two_tokens(self) -> None:
        server = Server(good)
        prompts, probed = learn_prompts(server.way(), FORM, WORKLOAD, good({"p": "a"}))
        assert prompts.source == "usage"
        assert (prompts.words, round(prompts.tokens_per_word, 6)) == (34, 1.0)  # with its salt and 5 tokens: 40
        assert probed is not None
        assert probed[1] == 2
        assert {body["max_tokens"] for body in server.asked} == {2}

    @pytest.mark.parametrize("small", [refusal(400, "below minimum value"), exchange(0, error="empty", input_tokens=9)])
    def test_where_two_tokens_are_refused_whole_answers_are_asked_for(self, small: Exchange) -> None:
        server = Server(lambda body: small if body["max_tokens"] < 16 else good(body))
        prompts, probed = learn_prompts(server.way(), FORM, WORKLOAD, good({"p": "a"}))
        assert (prompts.source, prompts.words) == ("usage", 34)
        assert probed is not None
        assert probed[1] == WORKLOAD.output_tokens
        assert [body["max_tokens"] for body in server.asked].count(2) == 1

    def test_a_failure_leaves_an_estimate_and_says_so(self) -> None:
        server = Server(lambda body: refusal(500))
        prompts, probed = learn_prompts(server.way(), FORM, WORKLOAD, good({"p": "a"}))
        assert (prompts.source, probed) == ("estimate", None)
        assert "estimate" in server.told[-1]

    @pytest.mark.parametrize(("before_ms", "share"), [(10.0, 0.1), (100.0, 1.0)])
    def test_prompts_that_the_server_knows(self, before_ms: float, share: float) -> None:
        seen: set[str] = set()

        def rule(body: JSON) -> Exchange:
            known = body["p"] in seen
            seen.add(body["p"])
            return exchange(0, [20.0 if known else 100.0])

        before = exchange(0, [before_ms])
        known = recognised(Server(rule).way(), FORM, (50, 1, before), Workload(seed=3))
        assert known == pytest.approx(share)
        told = msgspec.structs.replace(before, cached_tokens=0)
        assert recognised(Server(rule).way(), FORM, (50, 1, told), Workload(seed=3)) is None


class TestWhole:
    def test_ignore_eos_that_breaks_whole_answers_is_left_out(self) -> None:
        def rule(body: JSON) -> Exchange:
            long = len(body["messages"][0]["content"].split()) > 20 and body["max_tokens"] > 1
            return (
                exchange(0, error="stream_error", detail="bad token") if "ignore_eos" in body and long else good(body)
            )

        server = Server(rule)
        found = first_contact(server.way(), WORKLOAD)
        assert not found.options.ignore_eos
        assert b"ignore_eos" not in found.template
        assert "fails with ignore_eos (stream_error: bad token)" in server.told[-1]

    @pytest.mark.parametrize(("tokens", "cut"), [(300, False), (20, True)])
    def test_a_length_that_leaves_no_word_for_a_document_is_said(self, tokens: int, cut: bool) -> None:
        def judge(body: JSON) -> Exchange:
            words = [len(text.split()) for text in (body["query"], *body["documents"])]
            return exchange(0, [10], input_tokens=sum(words[1:]) + len(words[1:]) * words[0])

        server = Server(judge)
        first_contact(server.way("rerank", stream=False), Workload(seed=3, input_tokens=tokens, output_tokens=8))
        said = f"--input-tokens {tokens} is too few for a query of 4 words and 8 documents"
        assert sum(line.startswith(said) for line in server.told) == cut

    def test_a_failure_that_is_not_of_ignore_eos_is_said_as_it_is(self) -> None:
        def rule(body: JSON) -> Exchange:
            long = len(body["messages"][0]["content"].split()) > 20 and body["max_tokens"] > 1
            return exchange(0, error="stream_error", detail="bad token") if long else good(body)

        with pytest.raises(BadInput, match="bad token"):
            first_contact(Server(rule).way(), WORKLOAD)

    @pytest.mark.parametrize("hidden", [False, True])
    def test_a_reasoning_model_that_fails_at_two_tokens_is_asked_for_whole_answers(self, hidden: bool) -> None:
        """GPT-5 on Databricks refuses where its reasoning does not fit; others answer with nothing that shows."""
        said = "Could not finish the message because max_tokens or model output limit was reached"

        def rule(body: JSON) -> Exchange:
            if body["max_tokens"] >= 16:
                return good(body)
            return exchange(0, error="empty", input_tokens=ABSENT) if hidden else refusal(400, said)

        found = first_contact(Server(rule).way(), WORKLOAD)
        assert found.prompts.source == "usage"
        assert found.least_tokens == 16

    def test_the_least_answer_is_found_out(self) -> None:
        assert first_contact(Server(good).way(), WORKLOAD).least_tokens == 2
        small = Server(lambda body: good(body) if body["max_tokens"] >= 16 else refusal(400, ">= 16"))
        assert first_contact(small.way(), WORKLOAD).least_tokens == 16

    @pytest.mark.parametrize(
        ("url", "error", "detail", "advice"),
        [
            ("http://h/v1", "closed", "", "use https://"),
            ("http://h/v1", "reset", "Connection reset by peer", "use https://"),
            ("http://h/v1", "bad_http", "invalid version", "use https://"),
            ("https://h/v1", "tls", "WRONG_VERSION_NUMBER", "use http://"),
            ("https://h/v1", "tls", "CERTIFICATE_VERIFY_FAILED", "--ca-file"),
        ],
    )
    def test_the_other_scheme_is_named(self, url: str, error: str, detail: str, advice: str) -> None:
        way = dataclasses.replace(Server(good).way(), target=target(url, model="m"))
        with pytest.raises(BadInput, match=advice):
            refuse_if_bad(way, exchange(0, error=error, detail=detail))

    @pytest.mark.parametrize("location", ["/api/v1", "http://127.0.0.1:9/api/v1"])
    def test_where_it_moved_is_told_as_a_url(self, location: str) -> None:
        with pytest.raises(BadInput, match=re.escape("moved to http://127.0.0.1:9/api/v1; give")):
            refuse_if_bad(Server(good).way(), exchange(0, status=301, error="http_301", detail=location))

    def test_a_page_to_sign_in_at_is_no_place_that_it_moved_to(self) -> None:
        with pytest.raises(BadInput, match="--api-key-env"):
            refuse_if_bad(
                Server(good).way(), exchange(0, status=302, error="http_302", detail="https://sso.example.com/login")
            )

    def test_no_stream_and_an_empty_answer(self) -> None:
        with pytest.raises(BadInput, match="--no-stream"):
            first_contact(Server(lambda body: good(body, first_event_ns=ABSENT)).way(), WORKLOAD)
        with pytest.raises(BadInput, match="--output-tokens"):
            first_contact(Server(lambda body: exchange(0, error="empty")).way(), WORKLOAD)
        way = dataclasses.replace(Server(lambda body: exchange(0, error="empty")).way(), stream=False)
        with pytest.raises(BadInput, match="answered a first request with nothing"):
            first_contact(way, WORKLOAD)
