"""What is said between the coordinating process, its workers and their readers. All of it is msgpack, each message
after four bytes with its length."""

from __future__ import annotations

import functools
import pickle
import typing
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from pacemark.endpoint.address import Address
from pacemark.pace import Concurrency, Load, Rate
from pacemark.scenario import Workload
from pacemark.trace import ABSENT, Beat, Exchange, RawExchange
from pacemark.workload.words import Prompts

PROBE_LEVEL = -1
UNLIMITED = 1 << 62
"""A number of requests that is never reached."""


class Setup(msgspec.Struct, frozen=True, tag=True):
    """What a worker needs to know for a whole run. Holds the request head, secrets included."""

    worker: int
    workers: int
    addresses: list[Address]
    timeout_s: float
    seed: int
    fresh_connections: bool = False
    max_in_flight: int = 0
    stall_timeout_s: float = 0.0
    """See `Patience`."""
    keep_bodies: bool = False

    def for_worker(self, worker: int, workers: int) -> Setup:
        """The same for one worker of so many, with its share of the places; it has one at the least."""
        places = len(range(worker, self.max_in_flight, workers)) or min(1, self.max_in_flight)
        return msgspec.structs.replace(self, worker=worker, workers=workers, max_in_flight=places)


class Asking(msgspec.Struct, frozen=True, tag=True):
    """From now on, ask like this: the request's head, its body with holes, and what to fill in."""

    head: bytes
    template: bytes
    workload: Workload
    prompts: Prompts
    least_tokens: int = 1
    """No answer is asked to be shorter than this."""
    api: str = "chat"
    rows: bytes = pickle.dumps(None)
    """Of a file, `pacemark.workload.row.Rows`, pickled; None where requests are made up."""


class Probe(msgspec.Struct, frozen=True, tag=True):
    """Send these requests one after the other and report them under PROBE_LEVEL."""

    requests: list[bytes]


class Begin(msgspec.Struct, frozen=True, tag=True):
    """Go over to this load. Streams that run on keep running; new ones start spread over `spread_ns`."""

    level: int
    load: Load
    start_ns: int
    spread_ns: int
    most: int = UNLIMITED
    """Send no more requests than this, all workers together, until the next `Begin`."""
    first_part: int = ABSENT
    """Of several machines: events are kept apart, and the part file of the first has this number. Else ABSENT."""

    def end_for(self, worker: int, workers: int) -> int:
        """The first number of a request that is too many for a worker: in the closed loop by its share of the streams,
        in the open loop all take turns."""
        if not isinstance(self.load, Concurrency):
            return self.most
        streams = len(range(worker, self.load.value, workers))
        return worker + workers * -(-self.most * streams // self.load.value)


class Patience(msgspec.Struct, frozen=True, tag=True):
    """From now on, cut off an answer that has begun when nothing more of it comes for so long, and a request that no
    answer to begins for so long; 0: never."""

    stall_timeout_s: float
    unanswered_s: float = 0.0


class Hush(msgspec.Struct, frozen=True, tag=True):
    """Send nothing new until the next `Begin`; what is in flight goes on, and so do requests that are held back."""


class Finish(msgspec.Struct, frozen=True, tag=True):
    """Start nothing new; end what is in flight (`drain`) or cut it off; then exit."""

    drain: bool
    grace_s: float


Command = Setup | Asking | Probe | Begin | Patience | Hush | Finish


class Reading(msgspec.Struct, frozen=True):
    """What a reader needs to know for a whole run."""

    api: str = "chat"
    tokenizer: str = ""
    """Path of the tokenizer.json that counts output where the server does not; empty for none."""
    json_answers: bool = False
    """Answers are to be JSON, and it is looked whether they are."""


class RawBatch(msgspec.Struct, frozen=True, array_like=True):
    """What a worker sends to its reader: requests that ended, then its pulse at that moment."""

    exchanges: list[RawExchange]
    beat: Beat


Body = tuple[int, int, bytes, bytes]
"""Level and index of a request, its body and that of its answer."""


class Batch(msgspec.Struct, frozen=True, array_like=True):
    """The same, understood: what a reader sends to the coordinating process."""

    exchanges: list[Exchange]
    beat: Beat
    bodies: list[Body] = []
    """Where they are to be kept."""


def framed(message: bytes) -> bytes:
    """`message` after its length."""
    return len(message).to_bytes(4, "big") + message


class Inbox:
    """Bytes as they come in, and the whole messages in them."""

    def __init__(self) -> None:
        self._bytes = bytearray()

    def take(self, data: bytes) -> list[bytes]:
        """Messages that `data` makes whole, without their lengths."""
        self._bytes += data
        whole, start = [], 0
        while len(self._bytes) - start >= 4:
            end = start + 4 + int.from_bytes(self._bytes[start : start + 4], "big")
            if len(self._bytes) < end:
                break
            whole.append(bytes(memoryview(self._bytes)[start + 4 : end]))
            start = end
        if start:
            del self._bytes[:start]
        return whole


def _packed(column: Any) -> bytes:
    if not isinstance(column, np.ndarray):
        raise NotImplementedError(f"a batch cannot carry {type(column)}")
    packed: bytes = column.tobytes()
    return packed


@functools.cache
def _dtype(column: Any) -> np.dtype[Any]:
    """The dtype that an annotation such as NDArray[np.int64] names."""
    (scalar,) = typing.get_args(typing.get_args(column)[1])
    named: np.dtype[Any] = np.dtype(scalar)
    return named


def _unpacked(column: Any, data: bytes) -> NDArray[Any]:
    return np.frombuffer(data, _dtype(column))


# The columns of an exchange travel as they lie in memory: both ends are on one machine.
encode_batch = msgspec.msgpack.Encoder(enc_hook=_packed).encode
decode_batch = msgspec.msgpack.Decoder(Batch, dec_hook=_unpacked).decode
decode_raw_batch = msgspec.msgpack.Decoder(RawBatch).decode
decode_command = msgspec.msgpack.Decoder(Command).decode


def expected_in_flight(rate: Rate, latency_s: float) -> int:
    """Connections to open before an open loop begins: what Little's law expects to be in use, and some to spare."""
    return min(1024, int(1.2 * rate.value * latency_s))
