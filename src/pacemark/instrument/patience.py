"""When a server turns a request away: how to tell, and how long to wait before the next one."""

from __future__ import annotations

import random
import re

import msgspec

from pacemark.dialects.said import NO_JSON
from pacemark.endpoint import retry
from pacemark.instrument.answer import Answer

SHORT_BYTES = 4096
"""A longer answer is no refusal, and is not looked into."""
LONGEST_S = 60.0


class _Said(msgspec.Struct):
    error: msgspec.Raw = msgspec.Raw(b"null")
    error_code: msgspec.Raw = msgspec.Raw(b"null")
    object: msgspec.Raw = msgspec.Raw(b"null")


_OUTPUT = re.compile(
    rb'"(?:content|text|delta|reasoning\w*|thinking|refusal|arguments|name|response)" *: *(?:"[^"]|\[ *[^] ])'
).search
"""A first piece of output, whatever the API."""
_HOLLOW = re.compile(rb'"(?:choices|data|results|output|candidates)" *: *\[\s*\]').search
"""An answer in one piece that holds nothing."""
_decode = msgspec.json.Decoder(_Said).decode


def failed(answer: Answer) -> bool:
    """Whether the request came to nothing: by the transport, by the status, or by what a short answer says."""
    broken = answer.error and not answer.body[-16:].rstrip().endswith(b"[DONE]")
    return bool(broken) or answer.status >= 300 or _refused(answer.body)


def _refused(body: bytes) -> bool:
    """Whether a whole answer is nothing but an error: an object, or an event stream whose first event is one, or that
    ends without output."""
    if len(body) > SHORT_BYTES:
        return False
    text = body.strip()
    if text.startswith((b"event: error", b"event:error")):
        return True
    if text.startswith(b"data:"):
        text = text[5:].partition(b"\n")[0].strip()
    if text in (b"", b"[DONE]") or (b"data:" in body and not _OUTPUT(body)):
        return True
    if text.startswith(b"{") and _HOLLOW(text) and text == body.strip():
        return True
    try:
        said = _decode(text)
    except NO_JSON:
        return False
    return bytes(said.object) == b'"error"' or any(
        bytes(value) not in (b"null", b'""', b"{}", b"0", b"false") for value in (said.error, said.error_code)
    )


def told_s(answer: Answer) -> float | None:
    """How long the server asks to be left alone, of a minute at most; None where it does not say.

    At least a second, unless the server counts in milliseconds: whole seconds are often rounded down to none.
    """
    told = retry.told_s(answer.headers, answer.body[:SHORT_BYTES])
    least = 0.05 if b"retry-after-ms" in answer.headers else 1.0
    return None if told is None else min(LONGEST_S, max(least, told))


def pause_s(answer: Answer, failures: int, jitter: random.Random) -> float:
    """How long a stream rests after so many `failures` in a row: as the server says, or longer each time.

    Without a pause a refusing server would be hammered thousands of times a second.
    """
    told = told_s(answer)
    if told is not None:
        return told
    return min(2.0, 0.05 * 2.0 ** min(failures, 8)) * jitter.uniform(0.5, 1.0)
