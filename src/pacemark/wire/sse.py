"""Splits a finished event stream (WHATWG HTML, section 9.2) and remembers where each event ended."""

from __future__ import annotations

import re

# Atomic groups, so that one CRLF is never taken for two line ends.
_BLANK_LINE = re.compile(rb"(?>\r\n|\n|\r)(?>\r\n|\n|\r)")
_LINE_END = re.compile(rb"\r\n|\n|\r")


def split_events(body: bytes) -> tuple[list[bytes], list[int]]:
    """The `data` of every event in `body`, and the offset just past the blank line that ended it.

    Comments and the fields event, id and retry are passed over; several data lines are joined by a
    newline. A last event without its blank line counts too: servers that die leave one, and dropping it
    would drop a token that arrived.
    """
    payloads: list[bytes] = []
    ends: list[int] = []
    if body.startswith(b"\xef\xbb\xbf"):
        body = b":\n\n" + body[3:]  # a comment of the same length, so that offsets stay
    if b"\r" not in body:
        end = 0
        for block in body.split(b"\n\n"):
            end += len(block) + 2
            if block.startswith(b"data: ") and b"\n" not in block:
                payloads.append(block[6:])
                ends.append(end)
            elif (payload := _data_of(block)) is not None:
                payloads.append(payload)
                ends.append(end)
        if ends and ends[-1] > len(body):
            ends[-1] = len(body)
        return payloads, ends
    begin = 0
    stops = [(match.start(), match.end()) for match in _BLANK_LINE.finditer(body)]
    for stop, end in [*stops, (len(body), len(body))]:
        if (payload := _data_of(body[begin:stop])) is not None:
            payloads.append(payload)
            ends.append(end)
        begin = end
    return payloads, ends


def _data_of(block: bytes) -> bytes | None:
    lines = [
        line[5:].removeprefix(b" ") for line in _LINE_END.split(block) if line.startswith(b"data:") or line == b"data"
    ]
    return b"\n".join(lines) if lines else None
