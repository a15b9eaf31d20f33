"""When to come back, as a server that turns a request away says it."""

from __future__ import annotations

import math
import re
import time
from collections.abc import Mapping
from email.utils import parsedate_to_datetime

_IN_BODY = re.compile(rb'"retry_after(_ms)?"\s*:\s*"?(\d+(?:\.\d+)?)')
_SPAN = rb"(?:\d+(?:\.\d+)?\s*(?:ms|milli[a-z]*|hours?|min[a-z]*|sec[a-z]*|[hms])?\s*)+"
_IN_WORDS = re.compile(rb'(?:try again in|retry (?:after|in)|"retryDelay":|"estimated_time":)[\s"]*(%b)' % _SPAN, re.I)
"""As OpenAI, Groq and Azure say it in their messages, Google in a field of details, Hugging Face of a model to load."""
_ALONE = re.compile(rb"(?:\d+(?:\.\d+)?\s*[a-z]+\s*)+", re.I).fullmatch
_PART = re.compile(r"(\d+(?:\.\d+)?)\s*(ms|milli|h|m|s)?")
_UNITS = {"ms": 1e-3, "milli": 1e-3, "h": 3600.0, "m": 60.0}
_RESET = re.compile(rb"(?:reset|;\s*t)=(\d+)")
_THIS_CENTURY_S = 1e9
"""A larger number is no span but a time, since 1970."""


def told_s(headers: Mapping[bytes, bytes], body: bytes = b"") -> float | None:
    """Seconds to wait, from the lower-case `headers` of a refusal or its body; None where neither says.

    `retry-after-ms` first, for it is finer (Azure, OpenAI), then `retry-after` as seconds or as a date (RFC 9110,
    10.2.3; held against the answer's own date, or else this machine's), then the field `retry_after` that Databricks
    documents, then what the message says in words, and last when a limit is lifted.
    """
    if (ms := _number(headers.get(b"retry-after-ms", b""))) is not None:
        return ms / 1e3
    if (seconds := _in_header(headers.get(b"retry-after", b""), headers.get(b"date", b""))) is not None:
        return seconds
    if found := _IN_BODY.search(body):
        return float(found[2]) / (1e3 if found[1] else 1.0)
    if found := _IN_WORDS.search(body):
        return _span_s(found[1].decode())
    return _reset_s(headers)


def _in_header(said: bytes, now: bytes) -> float | None:
    """Seconds of a number, of a date, or of a span such as 30s, as some gateways write it."""
    if (number := _number(said)) is not None:
        return _left_s(number)
    return _span_s(said.decode()) if _ALONE(said) else _until(said, now)


def _left_s(number: float) -> float:
    """Seconds until a time, or of a span, which is the smaller number by far."""
    number = number / 1e3 if number > 1e3 * _THIS_CENTURY_S else number
    return max(0.0, number - time.time()) if number > _THIS_CENTURY_S else number


def _reset_s(headers: Mapping[bytes, bytes]) -> float | None:
    """When a limit is lifted: that of requests or tokens, whichever has nothing left (OpenAI, Groq); or the only one,
    as a span or a time (OpenRouter), or in the fields that are to be the standard (draft-ietf-httpapi-ratelimit)."""
    for kind in (b"requests", b"tokens"):
        told = headers.get(b"x-ratelimit-reset-" + kind)
        if told and headers.get(b"x-ratelimit-remaining-" + kind, b"0") == b"0":
            return _span_s(told.decode("latin-1"))
    for name in (b"x-ratelimit-reset", b"ratelimit-reset"):
        if (number := _number(headers.get(name, b""))) is not None:
            return _left_s(number)
    found = _RESET.search(headers.get(b"ratelimit", b""))
    return float(found[1]) if found else None


def _span_s(text: str) -> float:
    """Seconds in a span such as 1.8s, 6m0s, 400ms or 2 minutes; a number alone is of seconds."""
    return sum(float(number) * _UNITS.get(unit, 1.0) for number, unit in _PART.findall(text.lower()))


def _number(text: bytes) -> float | None:
    try:
        value = float(text)
    except ValueError:
        return None
    return max(0.0, value) if math.isfinite(value) else None


def _until(then: bytes, now: bytes) -> float | None:
    later_s, now_s = _since_epoch(then), _since_epoch(now)
    if later_s is None:
        return None
    return max(0.0, later_s - (time.time() if now_s is None else now_s))


def _since_epoch(date: bytes) -> float | None:
    try:
        return parsedate_to_datetime(date.decode("latin-1")).timestamp()
    except (ValueError, TypeError, OverflowError):
        return None
