"""The process beside a worker that understands what came back, while the worker goes on sending and stamping.

It takes raw batches from its worker, and hands exchanges and beats on to the coordinating process in the order in which
they came: an exchange always comes before the beat that was taken after it. Its priority is lower than the worker's, so
that on a crowded machine understanding waits and measuring does not.
"""

from __future__ import annotations

import contextlib
import gc
import os
import selectors
import socket
from collections.abc import Callable

import msgspec

from pacemark.dialects.reading import understand
from pacemark.instrument.commands import (
    Batch,
    Inbox,
    RawBatch,
    Reading,
    decode_raw_batch,
    encode_batch,
    framed,
)
from pacemark.workload.tokenizer import Tokenizer

READ_BYTES = 1 << 20


def read(raw: socket.socket, results: socket.socket) -> None:
    """Understand what comes over `raw` until its other end closes; answer over `results`, which says how to first.

    Returns at once where the other end of `results` is gone: nobody is left to read for.
    """
    with contextlib.suppress(ConnectionError), selectors.DefaultSelector() as selector:
        selector.register(results, selectors.EVENT_READ)
        reading = _told(results)
        if reading is None:
            return
        count_tokens = Tokenizer(reading.tokenizer) if reading.tokenizer else None
        gc.freeze()
        yield_to_others()
        selector.register(raw, selectors.EVENT_READ)
        inbox = Inbox()
        while True:
            ready = [key.fileobj for key, _ in selector.select()]
            if results in ready:
                return  # it says nothing more: it has closed
            data = raw.recv(READ_BYTES)
            if not data:
                return
            for message in inbox.take(data):
                batch = understood(decode_raw_batch(message), reading, count_tokens)
                results.sendall(framed(encode_batch(batch)))


def understood(batch: RawBatch, reading: Reading, count_tokens: Callable[[str], int] | None = None) -> Batch:
    """The meaning of a batch."""
    how = reading.api, count_tokens, reading.json_answers
    exchanges = [understand(raw, *how) for raw in batch.exchanges]
    kept = [(x.level, x.index, x.sent.partition(b"\r\n\r\n")[2], x.body) for x in batch.exchanges if x.sent]
    return Batch(exchanges, batch.beat, kept)


def _told(results: socket.socket) -> Reading | None:
    """How to read; None where the coordinating process is gone."""
    inbox = Inbox()
    while data := results.recv(4096):
        for message in inbox.take(data):
            return msgspec.msgpack.decode(message, type=Reading)
    return None


def yield_to_others() -> None:
    """Lower this process's priority, for good: whoever else is ready to run on its core runs first."""
    with contextlib.suppress(OSError):
        os.nice(10)
    if hasattr(os, "SCHED_BATCH"):
        with contextlib.suppress(OSError):
            os.sched_setscheduler(0, os.SCHED_BATCH, os.sched_param(0))
