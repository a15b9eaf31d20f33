"""Splits a finished event stream (WHATWG HTML, section 9.2) and remembers where each event ended."""

from __future__ import annotations

import re
from collections.abc import Iterator

# Atomic groups, so that one CRLF is never taken for two line ends.
_BLANK_LINE = re.compile(rb"(?>\r\n|\n|\r)(?>\r\n|\n|\r)")
_LINE_END = re.compile(rb"\r\n|\n|\r")
_DATA = re.compile(rb"(?:^|(?<=[\r\n}\]]))data: ?")
_FIELDS = (b"data:", b"event:", b"id:", b"retry:", b"error:", b":")
BOM = b"\xef\xbb\xbf"
"""UTF-8's byte order mark."""


def is_event_stream(body: bytes) -> bool:
    """Whether `body` begins as an event stream does, whatever its content type says."""
    return body[:64].removeprefix(BOM).lstrip(b" \r\n").startswith(_FIELDS)


_SIGN_OF_LIFE = re.compile(
    rb"\W*(?:ping|pong|heart[-_ ]?beat|keep[-_ ]?alive|processing|waiting|queued|pending|start|end|stop|eos)\W*",
    re.IGNORECASE,
)


def is_done(payload: bytes) -> bool:
    """Whether an event says `[DONE]`, however it spells that."""
    return payload.strip(b' "[]\t\r\n').upper() == b"DONE"


def is_sign_of_life(payload: bytes, name: bytes) -> bool:
    """Whether what is no JSON was never meant as any: a word that keeps a stream open, or an event of such a name."""
    return _SIGN_OF_LIFE.fullmatch(payload) is not None or _SIGN_OF_LIFE.fullmatch(name) is not None


def last_words(body: bytes) -> bytes:
    """What stands at the end of a stream without being an event, or in place of one: a server's or a proxy's failure,
    as it came."""
    _, parted, words = body.rstrip().replace(b"\r\n", b"\n").rpartition(b"\n\n")
    of_an_event = words.startswith(_FIELDS) or any(name.startswith(words) for name in _FIELDS)
    of_json_lines = not parted and words.lstrip().startswith(b"{")
    return b"" if of_an_event or of_json_lines else words


class Events:
    """Goes through the `data` of every event in `body`; `at` is the offset just past the last one, and may be moved on.

    Comments and the fields id and retry are passed over; several data lines are joined by a newline. A last event
    without its blank line counts too: servers that die leave one, and dropping it would drop a token that arrived.
    An `error:` line, which the standard does not know, is given as an event of the name `error`: llama.cpp reports
    failures so.
    """

    def __init__(self, body: bytes) -> None:
        self.body = body
        self.at = 3 if body.startswith(BOM) else 0
        self.event = b""
        """The name of the last event, empty for none."""
        self._simple = b"\r" not in body
        self._block = (0, 0)

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
            if (payload := self._data_of(body[begin:stop])) is not None:
                self._block = (begin, stop)
                yield payload

    def pieces(self) -> list[tuple[bytes, int]]:
        """The last event taken apart at each `data:`, for servers that leave the blank lines out: payloads, and the
        offset just past each."""
        begin, stop = self._block
        block = self.body[begin:stop]
        if not (starts := list(_DATA.finditer(block))):
            return []
        ends = [match.start() for match in starts[1:]] + [len(block)]
        cut = [(block[m.end() : end].strip(), begin + end) for m, end in zip(starts, ends, strict=True)]
        return [*cut[:-1], (cut[-1][0], self.at)]

    def _data_of(self, block: bytes) -> bytes | None:
        self.event = b""
        if block.startswith(b"data: ") and b"\n" not in block and b"\r" not in block:
            return block[6:]
        data: list[bytes] = []
        for line in _LINE_END.split(block):
            name, _, value = line.partition(b":")
            if name == b"data":
                data.append(value.removeprefix(b" "))
            elif name == b"event":
                self.event = value.strip()
            elif name == b"error" and value:
                self.event = b"error"
                data.append(value.strip())
        return b"\n".join(data) if data else None
