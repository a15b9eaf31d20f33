"""When to come back."""

from __future__ import annotations

import time
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
        ({b"retry-after": b"soon"}, b'{"retry_after": 3}', 3.0),
        ({b"retry-after": b"30s"}, b"", 30.0),
        ({b"retry-after": b"1m30s"}, b"", 90.0),
        ({b"retry-after": b"5 seconds"}, b"", 5.0),
        ({b"retry-after": b"1" * 60 + b"!"}, b"", None),
        ({b"retry-after": formatdate(NOW_S + 4, usegmt=True).encode()}, b"", 4.0),
        ({b"retry-after": formatdate(NOW_S - 60, usegmt=True).encode()}, b"", 0.0),
        ({b"retry-after": b"9", b"retry-after-ms": b"250"}, b"", 0.25),
        ({}, b'{"error_code": "REQUEST_LIMIT_EXCEEDED", "retry_after": 3}', 3.0),
        ({}, b'{"retry_after_ms": "1500"}', 1.5),
        ({b"retry-after": b"1"}, b'{"retry_after": 3}', 1.0),
        ({}, b'{"error": {"message": "Rate limit reached. Please try again in 1.8s. Visit x"}}', 1.8),
        ({}, b'{"error": {"message": "Please try again in 6m0.5s."}}', 360.5),
        ({}, b'{"error": {"message": "please try again in 400ms, or"}}', 0.4),
        ({}, b'{"error": {"message": "Please retry after 26 seconds."}}', 26.0),
        ({}, b'{"error": {"message": "Retry in 2 minutes"}}', 120.0),
        ({}, b'[{"error": {"details": [{"retryDelay": "34s"}]}}]', 34.0),
        ({}, b'{"error": "Model x is currently loading", "estimated_time": 20.5}', 20.5),
        ({}, b'{"error": {"message": "try again in a while; 5 requests in 2s are the limit"}}', None),
        ({b"x-ratelimit-remaining-tokens": b"0", b"x-ratelimit-reset-tokens": b"7.66s"}, b"", 7.66),
        ({b"x-ratelimit-remaining-requests": b"5", b"x-ratelimit-reset-requests": b"2m59s"}, b"", None),
        ({b"x-ratelimit-reset-tokens": b"120ms"}, b"", 0.12),
        ({b"x-ratelimit-reset": b"30"}, b"", 30.0),
        ({b"ratelimit-reset": b"12"}, b"", 12.0),
        ({b"ratelimit": b"limit=100, remaining=0, reset=50"}, b"", 50.0),
        ({b"ratelimit": b'"default";r=0;t=31'}, b"", 31.0),
        ({b"retry-after": b"1", b"x-ratelimit-reset": b"30"}, b"", 1.0),
    ],
)
def test_what_a_refusal_says(headers: dict[bytes, bytes], body: bytes, seconds: float | None) -> None:
    dated = {b"date": formatdate(NOW_S, usegmt=True).encode()} | headers
    assert told_s(dated, body) == (seconds if seconds is None else pytest.approx(seconds))


@pytest.mark.parametrize("name", [b"x-ratelimit-reset", b"retry-after"])
@pytest.mark.parametrize("unit", [1, 1000])
def test_a_limit_may_be_lifted_at_a_time(unit: int, name: bytes) -> None:
    """Since 1970, in seconds or in milliseconds, by this machine's clock."""
    told = told_s({name: b"%d" % round((time.time() + 40) * unit)})
    assert told is not None
    assert 30 < told < 50
    assert told_s({name: b"%d" % (1_600_000_000 * unit)}) == 0.0
