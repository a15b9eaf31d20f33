"""Vectors: one piece, counted one token each."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pacemark.dialects.dialect import DIALECTS, attempts, fill, first_options, template
from pacemark.dialects.reading import understand
from pacemark.trace import ABSENT
from support.servers import raw

VECTOR = {"object": "embedding", "index": 0, "embedding": [0.5, -0.25]}


def whole(payload: Any, **fields: Any) -> Any:
    body = payload if isinstance(payload, bytes) else json.dumps(payload).encode()
    return understand(raw(body, streamed=False, **fields), "embeddings")


def test_the_request_holds_the_text_and_nothing_optional() -> None:
    dialect = DIALECTS["embeddings"]
    (options,) = attempts(True, "embeddings")
    assert options == first_options(dialect)
    assert json.loads(fill(template(dialect, "m", options, {}), "hi", 1)) == {"model": "m", "input": "hi"}
    assert (dialect.streams, dialect.output_of(128), DIALECTS["chat"].output_of(128)) == (False, 1, 128)


@pytest.mark.parametrize(
    ("usage", "counted"),
    [
        ({"prompt_tokens": 7, "total_tokens": 7}, 7),
        ({"total_tokens": 7}, 7),
        ({"prompt_tokens": "7"}, 7),
        ({}, ABSENT),
        (None, ABSENT),
    ],
)
def test_a_vector_is_one_token(usage: Any, counted: int) -> None:
    x = whole({"object": "list", "data": [VECTOR], "usage": usage})
    assert (x.error, x.output_tokens, x.input_tokens, x.first_event_ns) == ("", 1, counted, ABSENT)
    assert (len(x.hi_ns), x.in_one_piece, x.tpot_off) == (1, False, 0.0)


def test_several_vectors() -> None:
    assert whole({"data": [VECTOR, VECTOR], "usage": {"prompt_tokens": 9}}).output_tokens == 2


@pytest.mark.parametrize(
    ("payload", "error", "detail"),
    [
        ({"error": {"message": "no room", "code": 500}}, "server_error", "no room"),
        ({"detail": "no room"}, "server_error", "no room"),
        ({"code": 40001, "message": "no room"}, "server_error", "no room"),
        ({"error": {"message": "slow down", "code": 429}}, "said_429", "slow down"),
        ({"data": []}, "empty", "the answer ended without any output"),
        ({"data": [{"embedding": None}], "usage": {"prompt_tokens": 7}}, "empty", None),
        ({"data": [{"embedding": [None] * 9, "index": 0}]}, "empty", None),
        ({"data": [{"embedding": []}]}, "empty", None),
        (b"<html>", "bad_answer", None),
        ({"data": {"x": 1}}, "bad_answer", None),
        (b"null", "bad_answer", None),
        (b"", "bad_answer", None),
    ],
)
def test_what_is_no_vector(payload: Any, error: str, detail: str | None) -> None:
    x = whole(payload)
    assert (x.error, len(x.hi_ns)) == (error, 0)
    assert detail is None or x.detail == detail


def test_odd_fields_beside_the_vectors_do_no_harm() -> None:
    assert whole(b'{"data": [{"embedding": [NaN, 1]}], "usage": []}').output_tokens == 1
    assert whole(b'{"data": [{"embedding": [NaN, 1]}], "usage": {"prompt_tokens": 7}}').input_tokens == 7
    assert whole({"data": [VECTOR], "usage": {"prompt_tokens": 7.0, "total_tokens": "x"}}).input_tokens == 7
    assert whole({"data": [VECTOR], "usage": "n/a"}).error == ""


anything = st.recursive(st.none() | st.text() | st.integers(), st.lists)


@given(st.binary(max_size=80) | anything.map(lambda value: json.dumps({"data": value}).encode()))
def test_no_bytes_raise(body: bytes) -> None:
    x = whole(body)
    assert bool(x.error) == (len(x.hi_ns) == 0)
