"""When a server turns a request away: refusals of every form, and how long they ask to wait."""

import pytest

from pacemark.instrument.answer import Answer
from pacemark.instrument.patience import failed, told_s


def answered(body: bytes = b"", status: int = 200, **headers: str) -> Answer:
    answer = Answer()
    answer.status, answer.body = status, body
    answer.headers = {name.replace("_", "-").encode(): value.encode() for name, value in headers.items()}
    return answer


@pytest.mark.parametrize(
    "body",
    [
        b'{"error": {"message": "too busy", "code": 429}}',
        b'{"error": "too busy"}',
        b'{"object": "error", "message": "too busy", "code": 503}',
        b'{"error_code": "REQUEST_LIMIT_EXCEEDED", "message": "too busy"}',
        b'data: {"error": {"message": "too busy"}}\n\ndata: [DONE]\n\n',
        b'event: error\ndata: {"message": "too busy"}\n\n',
        b"data: [DONE]\n\n",
        b"",
        b'{"object": "chat.completion", "choices": []}',
        b'{"object": "list", "data": [ ], "usage": {"prompt_tokens": 4}}',
        b'data: {"choices": [{"delta": {"role": "assistant", "content": ""}}]}\n\n'
        b'data: {"choices": [{"delta": {}, "finish_reason": "stop"}]}\n\ndata: [DONE]\n\n',
    ],
)
def test_a_refusal_inside_a_200_is_a_failure(body: bytes) -> None:
    assert failed(answered(body))


@pytest.mark.parametrize(
    "body",
    [
        b'{"choices": [{"message": {"content": "an error"}}], "error": null}',
        b'{"object": "list", "data": [{"embedding": [0.5]}]}',
        b'data: {"choices": [], "filters": []}\n\ndata: {"choices": [{"delta": {"content": "x"}}]}\n\n',
        b'data: {"choices": [{"delta": {"content": "x"}}]}\n\ndata: {"error": {"message": "broke"}}\n\n',
        b"not JSON at all",
        b'{"error": "' + b"x" * 5000 + b'"}',
    ],
)
def test_an_answer_is_none(body: bytes) -> None:
    assert not failed(answered(body))


def test_an_answer_that_is_complete_is_none_however_its_connection_ends() -> None:
    """Else every stream would rest after each answer of a server that leaves out the last chunk."""
    answer = answered(b'data: {"choices": [{"delta": {"content": "x"}}]}\n\ndata: [DONE]\n\n')
    answer.error = "closed"
    assert not failed(answer)
    answer.body = answer.body[:-10]
    assert failed(answer)


@pytest.mark.parametrize(
    ("answer", "seconds"),
    [
        (answered(retry_after="7"), 7.0),
        (answered(retry_after="1.5"), 1.5),
        (answered(retry_after="0"), 1.0),
        (answered(retry_after="900"), 60.0),
        (answered(retry_after_ms="250", retry_after="1"), 0.25),
        (answered(retry_after="Sun, 06 Nov 1994 08:49:40 GMT", date="Sun, 06 Nov 1994 08:49:37 GMT"), 3.0),
        (answered(retry_after="Sun, 06 Nov 1994 08:49:30 GMT", date="Sun, 06 Nov 1994 08:49:37 GMT"), 1.0),
        (answered(retry_after="Sun, 06 Nov 1994 08:49:40 GMT"), 1.0),  # by this machine's clock it is past
        (answered(b'{"error": {"retry_after": 15}}'), 15.0),
        (answered(b'{"error": {"retry_after": "2.5"}}'), 2.5),
        (answered(b'{"error": {"retry_after_ms": 4000}}'), 4.0),
        (answered(retry_after="soon"), None),
        (answered(retry_after="-5"), 1.0),
        (answered(retry_after="nan"), None),
        (answered(retry_after="inf"), None),
        (answered(), None),
    ],
)
def test_how_long_a_server_asks_to_wait(answer: Answer, seconds: float | None) -> None:
    assert told_s(answer) == seconds
