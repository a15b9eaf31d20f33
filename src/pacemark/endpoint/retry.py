"""When to come back, as a server that turns a request away says it."""

from __future__ import annotations

import math
import re
import time
from collections.abc import Mapping
from email.utils import parsedate_to_datetime

_IN_BODY = re.compile(rb'"retry_after(_ms)?"\s*:\s*"?(\d+(?:\.\d+)?)')


def told_s(headers: Mapping[bytes, bytes], body: bytes = b"") -> float | None:
    """Seconds to wait, from the lower-case `headers` of a refusal or its body; None where neither says.

    `retry-after-ms` first, for it is finer (Azure, OpenAI), then `retry-after` as seconds or as a date (RFC 9110,
    10.2.3; held against the answer's own date, or else this machine's), then the field `retry_after` that Databricks
    documents.
    """
    if (ms := _number(headers.get(b"retry-after-ms", b""))) is not None:
        return ms / 1e3
    if said := headers.get(b"retry-after", b""):
        return seconds if (seconds := _number(said)) is not None else _until(said, headers.get(b"date", b""))
    if found := _IN_BODY.search(body):
        return float(found[2]) / (1e3 if found[1] else 1.0)
    return None


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
