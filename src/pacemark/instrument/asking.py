"""What a worker asks, and what it hears of the answers where the next request hangs on them."""

from __future__ import annotations

import pickle

import msgspec

from pacemark.dialects.bodies import Bodies
from pacemark.dialects.dialect import DIALECTS
from pacemark.dialects.said import ANSWER
from pacemark.dialects.sse import is_event_stream
from pacemark.instrument.answer import Answer
from pacemark.instrument.commands import Asking
from pacemark.trace import ABSENT
from pacemark.workload.conversations import Conversations, Heard
from pacemark.workload.dataset import Dataset
from pacemark.workload.synthetic import Synthetic

__all__ = ["Asker"]


class Asker:
    """Puts requests together, as it was last told to."""

    def __init__(self, asking: Asking, part: tuple[int, int]) -> None:
        """`part`: the number of this worker, and of how many."""
        self._asking, self._part = asking, part
        self._source = _source(asking, part)
        self._read = DIALECTS[asking.api].read

    def told(self, asking: Asking) -> None:
        """Ask otherwise from now on; conversations go on where nothing but the head is another one."""
        if msgspec.structs.replace(asking, head=self._asking.head) != self._asking:
            self._source = _source(asking, self._part)
        self._asking = asking

    def request(self, level: int, index: int, share: float, stream: int) -> tuple[int, bytes, tuple[int, ...]] | None:
        """Output tokens, the whole request, and what else is known of it; None where there is nothing to ask."""
        ask = self._source.ask(level, index, share, stream)
        if ask is None:
            return None
        body, _, tokens, *about = ask
        return tokens, b"%b%d\r\n\r\n%b" % (self._asking.head, len(body), body), tuple(about)

    def heard(self, level: int, index: int, answer: Answer) -> float:
        """What came back for a request, when its stream has ended; gives how many seconds the stream should rest.

        Only sessions listen, and only where answers become part of them is it heard what they say. Reading an answer
        takes as long here as it does in the reader, some microseconds an event; the stamps of other streams are the
        kernel's and are not moved by it.
        """
        if isinstance(self._source, Synthetic):
            return 0.0
        return self._source.heard(level, index, self._understood(answer))

    @property
    def empty(self) -> bool:
        """Whether there will be nothing to ask any more, once there was nothing."""
        return not isinstance(self._source, Dataset) or self._source.empty

    def _understood(self, answer: Answer) -> Heard | None:
        if answer.error or answer.status != 200:
            return None
        if isinstance(self._source, Dataset) and not self._source.listens:
            return Heard("")
        kind = answer.headers.get(b"content-type", b"").lower()
        streamed = is_event_stream(answer.body) or kind.startswith(b"text/event-stream") or b"ndjson" in kind
        said = self._read(answer.body, streamed)
        if said.error:
            return None
        text = "".join(text for text, carried in zip(said.texts, said.kinds, strict=True) if carried == ANSWER)
        return Heard(text, _known(said.prompt_tokens), _known(said.completion_tokens))


def _known(count: int | None) -> int:
    return ABSENT if count is None else count


def _source(asking: Asking, part: tuple[int, int]) -> Synthetic | Conversations | Dataset:
    written, least = Bodies(asking.template), asking.least_tokens
    if (rows := pickle.loads(asking.rows)) is not None:
        return Dataset(asking.workload, rows, part, written, least)
    made = Conversations if asking.workload.turns != 1 else Synthetic
    return made(asking.workload, asking.prompts, written, least)
