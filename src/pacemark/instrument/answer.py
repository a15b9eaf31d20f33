"""What comes back for one request: how much of it is taken, and what its failures are called."""

from __future__ import annotations

import ssl
from array import array

from pacemark.trace import ABSENT

MOST_BYTES = 64 << 20
"""Of an answer, with what it takes to remember its reads; no more is read of one."""
MOST_HEAD_BYTES = 256 << 10
"""Of its headers, interim answers included."""
READ_COSTS = 24
"""What it takes to remember a read."""


class Answer:
    """What came back for one request, as it comes back."""

    __slots__ = (
        "body", "complete", "detail", "ended_ns", "error", "first_byte_sent_ns", "headers", "headers_ns", "reads",
        "sent_by_ns", "sent_ns", "status",
    )  # fmt: skip

    def __init__(self) -> None:
        self.first_byte_sent_ns = self.sent_ns = self.sent_by_ns = self.headers_ns = self.ended_ns = ABSENT
        self.status = 0
        self.headers: dict[bytes, bytes] = {}
        self.reads = array("q")
        self.body = b""
        self.complete = False
        self.error = self.detail = ""


def unreadable(error: Exception) -> tuple[str, str]:
    """Kind and detail of what the HTTP parser or TLS could not read."""
    if isinstance(error, ssl.SSLError):
        return "tls", str(error.reason or error)
    return "bad_http", f"the answer is not HTTP/1.1: {error}"


def too_large(answer: Answer | None) -> tuple[str, str]:
    """Kind and detail of an answer that went beyond the limits."""
    if answer is None or answer.headers_ns != ABSENT:
        return "too_large", f"the answer is larger than {MOST_BYTES >> 20} MB, and no more of it is read"
    return "bad_http", f"the headers of the answer are larger than {MOST_HEAD_BYTES >> 10} kB"
