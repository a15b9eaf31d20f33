"""Splits a finished event stream (WHATWG HTML, section 9.2) and remembers where each event ended."""

from __future__ import annotations

import re
from collections.abc import Iterator

# Atomic groups, so that one CRLF is never taken for two line ends.
_BLANK_LINE = re.compile(rb"(?>\r\n|\n|\r)(?>\r\n|\n|\r)")
_LINE_END = re.compile(rb"\r\n|\n|\r")


class Events:
    """Goes through the `data` of every event in `body`; `at` is the offset just past the last one, and may be moved on.

    Comments and the fields event, id and retry are passed over; several data lines are joined by a newline. A last
    event without its blank line counts too: servers that die leave one, and dropping it would drop a token that
    arrived.
    """

    def __init__(self, body: bytes) -> None:
        self.body = body
        self.at = 3 if body.startswith(b"\xef\xbb\xbf") else 0
        self._simple = b"\r" not in body

    def __iter__(self) -> Iterator[bytes]:
        """From `at` on."""
        body = self.body
        while self.at < len(body):
            begin, stop = self.at, len(body)
            if self._simple:
                found = body.find(b"\n\n", begin)
                stop, self.at = (found, found + 2) if found >= 0 else (stop, stop)
            else:
                match = _BLANK_LINE.search(body, begin)
                stop, self.at = match.span() if match else (stop, stop)
            if (payload := _data_of(body[begin:stop])) is not None:
                yield payload


def _data_of(block: bytes) -> bytes | None:
    if block.startswith(b"data: ") and b"\n" not in block and b"\r" not in block:
        return block[6:]
    lines = [
        line[5:].removeprefix(b" ") for line in _LINE_END.split(block) if line.startswith(b"data:") or line == b"data"
    ]
    return b"\n".join(lines) if lines else None
