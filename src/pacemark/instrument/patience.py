"""When a server turns a request away: how to tell, and how long to wait before the next one."""

from __future__ import annotations

import email.utils
import re

import msgspec

from pacemark.instrument.connection import Answer

SHORT_BYTES = 4096
"""A longer answer is no refusal, and is not looked into."""
LONGEST_S = 60.0
_RETRY_AFTER = re.compile(rb'"retry_after(_ms)?"\s*:\s*"?(\d+(?:\.\d+)?)')


class _Said(msgspec.Struct):
    error: msgspec.Raw = msgspec.Raw(b"null")
    error_code: msgspec.Raw = msgspec.Raw(b"null")
    object: msgspec.Raw = msgspec.Raw(b"null")


_decode = msgspec.json.Decoder(_Said).decode


def failed(answer: Answer) -> bool:
    """Whether the request came to nothing: by the transport, by the status, or by what a short answer says."""
    return bool(answer.error) or answer.status >= 300 or _refused(answer.body)


def _refused(body: bytes) -> bool:
    """Whether a whole answer is nothing but an error: an object, or an event stream whose first event is one."""
    if len(body) > SHORT_BYTES:
        return False
    text = body.strip()
    if text.startswith((b"event: error", b"event:error")):
        return True
    if text.startswith(b"data:"):
        text = text[5:].partition(b"\n")[0].strip()
    if text in (b"", b"[DONE]"):
        return True
    try:
        said = _decode(text)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return False
    return bytes(said.object) == b'"error"' or any(
        bytes(value) not in (b"null", b'""', b"{}", b"0", b"false") for value in (said.error, said.error_code)
    )


def told_s(answer: Answer) -> float | None:
    """How long the server asks to be left alone, of a minute at most; None where it does not say.

    Whole seconds or a date (RFC 9110, 10.2.3; the date is held against the answer's own), milliseconds in
    `retry-after-ms` as OpenAI and Azure send them, or `retry_after` in the body, where Databricks documents it.
    """
    headers = answer.headers
    told = _number(headers.get(b"retry-after-ms", b""), 1e-3)
    if told is not None:
        return min(LONGEST_S, max(0.05, told))
    header = headers.get(b"retry-after", b"")
    told = _until(header, headers.get(b"date", b"")) if b":" in header else _number(header, 1.0)
    found = _RETRY_AFTER.search(answer.body[:SHORT_BYTES]) if told is None else None
    if found is not None:
        told = _number(found[2], 1e-3 if found[1] else 1.0)
    return None if told is None else min(LONGEST_S, max(1.0, told))


def _number(text: bytes, unit_s: float) -> float | None:
    try:
        value = float(text)
    except ValueError:
        return None
    return value * unit_s if 0 <= value < float("inf") else None


def _until(date: bytes, now: bytes) -> float | None:
    try:
        later, sooner = (email.utils.parsedate_to_datetime(text.decode("latin-1")) for text in (date, now))
        return max(0.0, (later - sooner).total_seconds())
    except (ValueError, TypeError):
        return None
