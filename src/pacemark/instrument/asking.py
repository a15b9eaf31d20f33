"""What a worker asks, and what it hears of the answers where the next request hangs on them."""

from __future__ import annotations

import pickle
from collections.abc import Callable, Iterator

import msgspec
from numpy.random import Generator

from pacemark.dialects.bodies import Bodies
from pacemark.dialects.dialect import DIALECTS
from pacemark.dialects.said import Said
from pacemark.dialects.sse import is_event_stream
from pacemark.instrument.answer import Answer
from pacemark.instrument.commands import Asking
from pacemark.pace import Rate, arrivals
from pacemark.trace import ABSENT
from pacemark.workload.conversations import Conversations
from pacemark.workload.dataset import Dataset
from pacemark.workload.media import Media
from pacemark.workload.replay import Replay
from pacemark.workload.source import Heard, Source
from pacemark.workload.synthetic import Synthetic

__all__ = ["Asker"]

AHEAD = 32
"""A burst of so many requests is sent without waiting for any to be put together."""


class Asker:
    """Puts requests together, as it was last told to."""

    _source: Source
    _read: Callable[[bytes, bool], Said]
    _media: Media

    def __init__(self, worker: int, workers: int) -> None:
        """For the worker of this number, of so many. It can ask once it has been `told` how."""
        self._part = worker, workers
        self._head = b""
        self._way: Asking | None = None

    def told(self, asking: Asking) -> None:
        """Ask like this from now on; conversations go on where nothing but the head is another one."""
        self._head, way = asking.head, msgspec.structs.replace(asking, head=b"")
        if way != self._way:
            self._way, self._source, self._read = way, _source(asking, self._part), DIALECTS[asking.api].read
            self._media = Media(asking.workload)

    def request(self, level: int, index: int, share: float, stream: int) -> tuple[int, bytes, tuple[int, ...]] | None:
        """Output tokens, the whole request, and what else is known of it; None where there is nothing to ask."""
        ask = self._source.ask(level, index, share, stream)
        if ask is None:
            return None
        body, _, tokens, *about = ask
        return tokens, self._media.request(self._head, body, level, index), tuple(about)

    def heard(self, level: int, index: int, answer: Answer) -> float:
        """What came back for a request, when its stream has ended; gives how many seconds the stream should rest.

        Only sessions listen, and only where answers become part of them is it heard what they say. Reading an answer
        takes as long here as it does in the reader, some microseconds an event; the stamps of other streams are the
        kernel's and are not moved by it.
        """
        return self._source.heard(level, index, self._understood(answer))

    def offsets(self, load: Rate, rng: Generator) -> Iterator[int]:
        """When each request of an open loop is due, in ns from the start."""
        if isinstance(self._source, Replay):
            return self._source.offsets(load.speed or 1.0)
        return arrivals(load, rng)

    @property
    def ahead(self) -> int:
        """How many requests may be put together before they are due: one where it hangs on what was answered."""
        return AHEAD if self._source.alone else 1

    @property
    def empty(self) -> bool:
        """Whether there will be nothing to ask any more, once there was nothing."""
        return self._source.empty

    def _understood(self, answer: Answer) -> Heard | None:
        if answer.error or answer.status != 200:
            return None
        if not self._source.listens:
            return Heard("")
        kind = answer.headers.get(b"content-type", b"").lower()
        streamed = is_event_stream(answer.body) or kind.startswith(b"text/event-stream") or b"ndjson" in kind
        said = self._read(answer.body, streamed)
        if said.error:
            return None
        return Heard(said.answer(), _known(said.prompt_tokens), _known(said.completion_tokens))


def _known(count: int | None) -> int:
    return ABSENT if count is None else count


def _source(asking: Asking, part: tuple[int, int]) -> Source:
    written, least = Bodies(asking.template), asking.least_tokens
    if (rows := pickle.loads(asking.rows)) is not None:
        recording = asking.workload.recording
        if recording is not None and recording.replay:
            return Replay(asking.workload, rows, asking.prompts, written, least)
        return Dataset(asking.workload, rows, part, written, least)
    made = Conversations if asking.workload.turns != 1 else Synthetic
    return made(asking.workload, asking.prompts, written, least)
