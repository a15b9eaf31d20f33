"""What a file of requests or a trace holds: lengths, sessions, shared prefixes, arrivals. Told before anything is sent.

Everything is counted in one pass and in bounded memory, and nothing of what the rows say is kept.
"""

from __future__ import annotations

import hashlib
import math
import zlib
from collections import Counter
from collections.abc import Iterator
from typing import Any

import msgspec
import numpy as np

from pacemark.workload.files import look
from pacemark.workload.row import FileFound, Row, Rows

__all__ = ["ArrivalPattern", "DataFile", "LengthSpread", "SessionCount", "SharedPrefix", "data", "described"]


class LengthSpread(msgspec.Struct, frozen=True):
    """A length over all rows that have it."""

    rows: int
    mean: float
    p50: float
    p95: float
    p99: float
    max: int
    cv: float
    """Standard deviation over mean."""


class SessionCount(msgspec.Struct, frozen=True):
    """Rows that belong together."""

    sessions: int
    turns_mean: float
    turns_max: int
    alone: int
    """Rows of no session."""


class SharedPrefix(msgspec.Struct, frozen=True):
    """How much of the prompts an earlier one has up to the same place: what a cache without end would hit."""

    by: str
    """What was compared: the recorded blocks, or pieces of the text."""
    hit_rate: float
    """Of all tokens (by blocks), or all characters (by text)."""
    block_hit_rate: float
    """Of all blocks, or all pieces; the last of a prompt, filled only in part, is one too."""


class ArrivalPattern(msgspec.Struct, frozen=True):
    """When the rows came."""

    per_s: float
    """Rows over the time from the first to the last; requests were more where the file is a sample."""
    span_s: float
    gap_cv: float
    """Standard deviation of the gaps over their mean: 1 for Poisson arrivals."""
    gap_max_s: float
    quantum_ms: float | None
    """The step to which times are rounded, where there is one."""


class DataFile(msgspec.Struct, frozen=True):
    """What a file holds."""

    found: FileFound
    input_tokens: LengthSpread | None = None
    output_tokens: LengthSpread | None = None
    characters: LengthSpread | None = None
    """Of the prompts, where the file has their text."""
    sessions: SessionCount | None = None
    prefix: SharedPrefix | None = None
    arrivals: ArrivalPattern | None = None


def data(source: Any, *, key: str = "", unit: str = "", block_tokens: int = 0, spans: str = "") -> DataFile:
    """What a file, a folder of part files or a data frame (pandas, Spark, Arrow, polars) holds; nothing is sent.

    `key` names what holds the prompt, `unit` (ns, us, ms, s) that of times which do not tell it themselves,
    `block_tokens` the size of recorded blocks where it is not the format's, `spans` (root, model) which requests of an
    agent's traces are meant. Raises BadInput, in one line with the row's number, for what cannot be read.
    """
    return described(look(source, key=key, unit=unit, block_tokens=block_tokens, spans=spans))


def described(rows: Rows) -> DataFile:
    """What `rows` hold."""
    lengths = [_Lengths(), _Lengths(), _Lengths()]
    sessions, gaps, prefix = _Sessions(), _Gaps(), _Prefix()
    for row in rows:
        text = "".join(_text(row))
        for counted, length in zip(lengths, (row.input_tokens, row.output_tokens, len(text) or None), strict=True):
            counted.add(length)
        sessions.add(row)
        gaps.add(row.at_ms)
        prefix.add(row, text)
    asked, answered, characters = (counted.spread() for counted in lengths)
    arrivals = gaps.pattern(rows.found.quantum_ms)
    return DataFile(rows.found, asked, answered, characters, sessions.count(), prefix.shared(), arrivals)


def _text(row: Row) -> Iterator[str]:
    """What the row asks, in the order in which a server sees it."""
    if row.prompt is not None:
        yield row.prompt
    body = row.body or {}
    asked = row.messages or body.get("messages") or body.get("input") or body.get("prompt")
    if isinstance(asked, str):
        yield asked
    elif isinstance(asked, list):
        for message in asked:
            if isinstance(message, dict):
                yield f"{message.get('role')}\n{_content(message.get('content'))}\n"
            else:
                yield f"{message}\n"


def _content(content: Any) -> str:
    return content if isinstance(content, str) else str(content or "")


class _Lengths:
    """How often each length came."""

    def __init__(self) -> None:
        self._times: Counter[int] = Counter()

    def add(self, length: int | None) -> None:
        if length is not None:
            self._times[length] += 1

    def spread(self) -> LengthSpread | None:
        if not self._times:
            return None
        lengths = np.array(sorted(self._times), dtype=np.int64)
        times = np.array([self._times[int(x)] for x in lengths], dtype=np.int64)
        rows, until = int(times.sum()), times.cumsum()
        mean = float(lengths @ times) / rows
        sd = math.sqrt(float(((lengths - mean) ** 2) @ times) / max(1, rows - 1))
        # The smallest length that so many of the rows do not exceed.
        p50, p95, p99 = (float(lengths[np.searchsorted(until, math.ceil(q * rows))]) for q in (0.5, 0.95, 0.99))
        return LengthSpread(rows, mean, p50, p95, p99, int(lengths[-1]), sd / mean if mean else 0.0)


class _Distinct:
    """How much of what was seen was new, each by a hash: exact up to a million, then by a sample of hashes."""

    MOST = 2**20

    def __init__(self) -> None:
        self._weights: dict[int, float] = {}
        self._shift = 0

    def add(self, hashed: int, weight: float = 1.0) -> None:
        if hashed & ((1 << self._shift) - 1) or hashed in self._weights:
            return
        self._weights[hashed] = weight
        if len(self._weights) > self.MOST:
            self._shift += 1
            low = (1 << self._shift) - 1
            self._weights = {kept: weight for kept, weight in self._weights.items() if not kept & low}

    def count(self) -> int:
        return len(self._weights) << self._shift

    def weight(self) -> float:
        return math.fsum(self._weights.values()) * (1 << self._shift)


class _Sessions:
    def __init__(self) -> None:
        self._known, self._rows, self._all, self._last = _Distinct(), 0, 0, 0

    def add(self, row: Row) -> None:
        self._all += 1
        if row.session is not None:
            self._rows += 1
            self._last = max(self._last, row.turn)
            self._known.add(_hashed(row.session.encode("utf-8", "surrogatepass")))

    def count(self) -> SessionCount | None:
        if not self._rows:
            return None
        sessions = self._known.count()
        return SessionCount(sessions, self._rows / sessions, self._last + 1, self._all - self._rows)


class _Gaps:
    """Gaps between arrivals, as their sum and that of their squares about the first."""

    def __init__(self) -> None:
        self._first: float | None = None
        self._last, self._gaps, self._mean, self._squares, self._max = 0.0, 0, 0.0, 0.0, 0.0
        self._ordered = True

    def add(self, at_ms: float | None) -> None:
        if at_ms is None:
            return
        if self._first is None:
            self._first = self._last = at_ms
            return
        gap, self._last = at_ms - self._last, at_ms
        self._ordered &= gap >= 0
        self._gaps += 1
        off = gap - self._mean
        self._mean += off / self._gaps
        self._squares += off * (gap - self._mean)  # Welford's, which loses no digits
        self._max = max(self._max, gap)

    def pattern(self, quantum_ms: float | None) -> ArrivalPattern | None:
        """None where there are no times, or none that go forward."""
        if self._first is None or not self._ordered or self._last <= self._first:
            return None
        span_s = (self._last - self._first) / 1e3
        cv = math.sqrt(self._squares / self._gaps) / self._mean
        return ArrivalPattern(self._gaps / span_s, span_s, cv, self._max / 1e3, quantum_ms)


PIECE = 64
"""Bytes of a piece of text whose place in an earlier prompt is looked for: about 16 tokens of English."""


class _Prefix:
    """What of the prompts was there before: each block counts with all before it, so one that is known has known
    ones before it."""

    def __init__(self) -> None:
        self._known = _Distinct()
        self._blocks, self._all, self._weight, self._by = 0, 0, 0.0, ""

    def add(self, row: Row, text: str) -> None:
        if row.blocks:
            self._by = f"blocks of {row.block_tokens} tokens"
            tokens = row.input_tokens or len(row.blocks) * row.block_tokens
            self._weight += tokens
            self._blocks += len(row.blocks)
            for k, block in enumerate(row.blocks):
                # By an odd number, so that the low bits differ; mixed, since the sample is of low bits.
                mixed = (block * 0x9E3779B97F4A7C15) & (2**64 - 1)
                self._known.add(
                    mixed >> 20 | (mixed & 0xFFFFF) << 44, min(row.block_tokens, tokens - k * row.block_tokens)
                )
        elif text and not self._by.startswith("blocks"):
            self._by = f"text in pieces of {PIECE} characters"
            self._pieces(text.encode("utf-8", "surrogatepass"))

    def _pieces(self, text: bytes) -> None:
        self._weight += len(text)
        self._blocks += -(-len(text) // PIECE)
        crc, adler = 0, 1
        for start in range(0, len(text), PIECE):
            piece = text[start : start + PIECE]
            # Both are of all the text up to here, and together seldom the same for two texts.
            crc, adler = zlib.crc32(piece, crc), zlib.adler32(piece, adler)
            self._known.add(adler << 32 | crc, len(piece))

    def shared(self) -> SharedPrefix | None:
        if not self._blocks:
            return None
        tokens = 1 - min(1.0, self._known.weight() / self._weight)
        return SharedPrefix(self._by, tokens, 1 - min(1.0, self._known.count() / self._blocks))


def _hashed(text: bytes) -> int:
    return int.from_bytes(hashlib.blake2b(text, digest_size=8).digest(), "little")
