"""What a worker asks, and what it hears of the answers where the next request hangs on them."""

from __future__ import annotations

from typing import Any

import msgspec

from pacemark.dialects.bodies import Bodies
from pacemark.dialects.dialect import DIALECTS
from pacemark.dialects.said import ANSWER
from pacemark.dialects.sse import is_event_stream
from pacemark.instrument.commands import Asking
from pacemark.instrument.connection import Answer
from pacemark.trace import ABSENT
from pacemark.workload.conversations import Conversations, Heard
from pacemark.workload.source import Source
from pacemark.workload.synthetic import Synthetic

__all__ = ["Asker"]


class Asker:
    """Puts requests together, as it was last told to."""

    def __init__(self, asking: Asking) -> None:
        self._asking = asking
        self._source = _source(asking)
        self._read = DIALECTS[asking.api].read

    def told(self, asking: Asking) -> None:
        """Ask otherwise from now on; conversations go on where nothing but the head is another one."""
        if msgspec.structs.replace(asking, head=self._asking.head) != self._asking:
            self._source = _source(asking)
        self._asking = asking

    def request(self, level: int, index: int, share: float, stream: int) -> tuple[int, bytes, tuple[int, ...]]:
        """Output tokens, the whole request, and what else is known of it."""
        body, _, tokens, *about = self._source.ask(level, index, share, stream)
        return tokens, b"%b%d\r\n\r\n%b" % (self._asking.head, len(body), body), tuple(about)

    def heard(self, level: int, index: int, answer: Answer) -> float:
        """What came back for a request, when its stream has ended; gives how many seconds the stream should rest.

        Only conversations listen. Reading an answer takes as long here as it does in the reader, some microseconds an
        event; the stamps of other streams are the kernel's and are not moved by it.
        """
        if not isinstance(self._source, Conversations):
            return 0.0
        return self._source.heard(level, index, self._understood(answer))

    def _understood(self, answer: Answer) -> Heard | None:
        if answer.error or answer.status != 200:
            return None
        kind = answer.headers.get(b"content-type", b"").lower()
        streamed = is_event_stream(answer.body) or kind.startswith(b"text/event-stream") or b"ndjson" in kind
        said = self._read(answer.body, streamed)
        if said.error:
            return None
        text = "".join(text for text, carried in zip(said.texts, said.kinds, strict=True) if carried == ANSWER)
        return Heard(text, _known(said.prompt_tokens), _known(said.completion_tokens))


def _known(count: int | None) -> int:
    return ABSENT if count is None else count


def _source(asking: Asking) -> Source:
    made: Any = Conversations if asking.workload.turns != 1 else Synthetic
    source: Source = made(asking.workload, asking.prompts, Bodies(asking.template), asking.least_tokens)
    return source
