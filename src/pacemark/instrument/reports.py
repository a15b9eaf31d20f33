"""What a worker hands to its reader: the requests that ended, as raw as they are, and its own pulse."""

from __future__ import annotations

import asyncio
from time import monotonic_ns, process_time_ns
from typing import Any, NamedTuple

import msgspec

from pacemark.endpoint import retry
from pacemark.instrument.answer import Answer
from pacemark.instrument.commands import RawBatch, framed
from pacemark.instrument.patience import SHORT_BYTES
from pacemark.instrument.pulse import Cores, Throttling, waited_ns
from pacemark.trace import ABSENT, Beat, RawExchange

BATCH_BYTES = 1 << 18


class Request(NamedTuple):
    """A request ready to be sent."""

    level: int
    number: int
    tokens: int
    data: bytes
    about: tuple[int, ...] = (ABSENT, ABSENT, ABSENT, ABSENT)
    """Of the trace: asked_input, shared_tokens, origin, turn."""


class Reports:
    """Gathers what ended, and ships it with a beat."""

    def __init__(self, worker: int, outbox: asyncio.StreamWriter, keeps_bodies: bool = False) -> None:
        self._worker = worker
        self._keeps_bodies = keeps_bodies
        self._outbox = outbox
        self._ended: list[RawExchange] = []
        self._ended_bytes = 0
        self._encode = msgspec.msgpack.Encoder().encode
        self._reads = 0
        self._stall_ns = 0
        self._cores = Cores()
        self._quota = Throttling()

    def note(
        self, request: Request, due_ns: int, stream: int, connect_ns: int, answer: Answer, connection: int
    ) -> bool:
        """Take down a request that ended, over the connection of that number. True where so much has gathered that it
        should be shipped at once."""
        headers = answer.headers
        asked_input, shared_tokens, origin, turn = request.about
        self._reads += len(answer.reads) // 3
        self._ended.append(
            RawExchange(
                level=request.level,
                index=request.number,
                stream=stream,
                scheduled_ns=due_ns,
                first_byte_sent_ns=answer.first_byte_sent_ns,
                sent_ns=answer.sent_ns,
                send_ns=max(0, answer.sent_by_ns - answer.sent_ns),
                headers_ns=answer.headers_ns,
                ended_ns=answer.ended_ns,
                connect_ns=connect_ns,
                status=answer.status,
                streamed=headers.get(b"content-type", b"").lower().startswith(b"text/event-stream"),
                encoding=headers.get(b"content-encoding", b"").decode("latin-1").lower(),
                error=answer.error,
                detail=answer.detail or _moved_to(answer),
                asked_tokens=request.tokens,
                sent_bytes=len(request.data),
                reads=answer.reads.tobytes(),
                body=answer.body,
                retry_after_s=_told_s(answer),
                asked_input=asked_input,
                shared_tokens=shared_tokens,
                origin=origin,
                turn=turn,
                connection=connection,
                served_by=headers.get(b"served-model-name", b"").decode("latin-1"),
                sent=request.data if self._keeps_bodies else b"",
            )
        )
        self._ended_bytes += len(answer.body)
        return self._ended_bytes > BATCH_BYTES

    def late(self, by_ns: int) -> None:
        """A beat was late by so much: the event loop was away."""
        self._stall_ns = max(self._stall_ns, by_ns)

    def ship(self, **standing: Any) -> None:
        """Send what has gathered, and a beat: `standing` are the fields of it that only the generator knows."""
        beat = Beat(
            worker=self._worker,
            now_ns=monotonic_ns(),
            reads=self._reads,
            cpu_ns=process_time_ns(),
            wait_ns=waited_ns(),
            idle_share=self._cores.idle_share(),
            stall_ns=self._stall_ns,
            throttled_ns=self._quota.throttled_ns(),
            **standing,
        )
        self._stall_ns = 0
        self._outbox.write(framed(self._encode(RawBatch(self._ended, beat))))
        self._ended, self._ended_bytes = [], 0


def _told_s(answer: Answer) -> float:
    told = retry.told_s(answer.headers, answer.body[:SHORT_BYTES]) if answer.status >= 300 else None
    return float(ABSENT) if told is None else told


def _moved_to(answer: Answer) -> str:
    return answer.headers.get(b"location", b"").decode("latin-1") if 300 <= answer.status < 400 else ""
