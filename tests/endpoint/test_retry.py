"""When to come back."""

from __future__ import annotations

from email.utils import formatdate

import pytest

from pacemark.endpoint.retry import told_s

NOW_S = 1_800_000_000.0


@pytest.mark.parametrize(
    ("headers", "body", "seconds"),
    [
        ({}, b"", None),
        ({b"retry-after": b"7"}, b"", 7.0),
        ({b"retry-after": b"0"}, b"", 0.0),
        ({b"retry-after": b"2.5"}, b"", 2.5),
        ({b"retry-after": b"-3"}, b"", 0.0),
        ({b"retry-after": b"nan"}, b"", None),
        ({b"retry-after": b"soon"}, b"", None),
        ({b"retry-after": formatdate(NOW_S + 4, usegmt=True).encode()}, b"", 4.0),
        ({b"retry-after": formatdate(NOW_S - 60, usegmt=True).encode()}, b"", 0.0),
        ({b"retry-after": b"9", b"retry-after-ms": b"250"}, b"", 0.25),
        ({}, b'{"error_code": "REQUEST_LIMIT_EXCEEDED", "retry_after": 3}', 3.0),
        ({}, b'{"retry_after_ms": "1500"}', 1.5),
        ({b"retry-after": b"1"}, b'{"retry_after": 3}', 1.0),
    ],
)
def test_what_a_refusal_says(headers: dict[bytes, bytes], body: bytes, seconds: float | None) -> None:
    dated = {b"date": formatdate(NOW_S, usegmt=True).encode()} | headers
    assert told_s(dated, body) == (seconds if seconds is None else pytest.approx(seconds))
