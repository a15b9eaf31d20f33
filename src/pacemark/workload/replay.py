"""A trace sent as it was recorded: every row once, at its time, with its lengths and what its prompt shares."""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from pacemark.lengths import Draws
from pacemark.scenario import Recording, Workload
from pacemark.trace import ABSENT, UNTOLD, Int64
from pacemark.workload.dataset import body_for
from pacemark.workload.order import sampled
from pacemark.workload.prose import prose
from pacemark.workload.row import Row, Rows
from pacemark.workload.source import Ask, Heard, Written
from pacemark.workload.words import Prompts, drawn_salt, prompt

__all__ = ["Blocks", "Replay", "Timed", "mark_shared", "timed"]

_OUTPUT, _JITTER = 2, 7
"""What is drawn with one seed, apart."""
_SHARED = "shared"
"""Name of the column that tells what a row shares."""


class Timed(NamedTuple):
    """When which rows are due."""

    rows: Int64
    """Their places in the file, (n,)."""
    at_ns: Int64
    """When each is due, from 0, (n,)."""

    @property
    def per_s(self) -> float:
        """Rows per second; 0 where all have one time."""
        span_s = float(self.at_ns[-1]) / 1e9
        return (len(self.rows) - 1) / span_s if span_s > 0 else 0.0

    @property
    def cv(self) -> float:
        """Coefficient of variation of the gaps."""
        gaps = np.diff(self.at_ns)
        return float(gaps.std(ddof=1) / gaps.mean()) if len(gaps) > 1 and gaps.mean() > 0 else 0.0


def timed(rows: Rows, workload: Workload) -> Timed:
    """The rows that are sent, and when at speed 1.

    With jitter every time is moved on by a part of the step to which the file's times are rounded, drawn evenly; rows
    stay in their order.
    """
    recording = workload.recording or Recording()
    taken = sampled(rows, workload.seed, recording.sample)
    at_ms = rows.times_ms()[taken]
    if recording.jitter and rows.found.quantum_ms:
        rng = np.random.default_rng([workload.seed, _JITTER])
        at_ms = np.sort(at_ms + rng.uniform(0.0, rows.found.quantum_ms, len(at_ms)))
    return Timed(taken, np.rint((at_ms - at_ms[0]) * 1e6).astype(np.int64))


class Replay:
    """The `Source` of a trace. Where a row has no text, its prompt is made up: of its blocks, if it has some."""

    alone, listens, empty = True, False, True

    def __init__(
        self, workload: Workload, rows: Rows, prompts: Prompts, written: Written, least_tokens: int = 1
    ) -> None:
        """See `pacemark.workload.synthetic.Synthetic`."""
        self._workload, self._rows, self._prompts = workload, rows, prompts
        self._written, self._least = written, least_tokens
        self._timed = timed(rows, workload)
        self._shared = rows.kept(_SHARED)
        self._output = Draws(workload.output, workload.drawn_by, _OUTPUT)
        self._blocks = functools.lru_cache(maxsize=4)(
            lambda level: Blocks(prompts, workload.seed, level, workload.language)
        )

    def offsets(self, speed: float) -> Iterator[int]:
        """When each request is due at `speed`, in ns from the first."""
        return iter(np.rint(self._timed.at_ns / speed).astype(np.int64).tolist())

    def ask(self, level: int, index: int, share: float = 1.0, stream: int = ABSENT) -> Ask | None:
        """See `Source`; None after the last row. `share` is that of a closed loop, which this is none of."""
        if index >= len(self._timed.rows):
            return None
        k = int(self._timed.rows[index])
        row = self._rows[k]
        whole = self._output(level, index) if row.output_tokens is None else row.output_tokens
        tokens = max(self._least, whole)
        turn = ABSENT if row.session is None else row.turn
        if row.prompt is not None or row.messages is not None or row.body is not None:
            known = ABSENT if row.input_tokens is None else row.input_tokens
            return Ask(body_for(row, self._written, tokens), 0, tokens, known, UNTOLD, k + 1, turn)
        asked = self._workload.input.typical if row.input_tokens is None else row.input_tokens
        shared = 0 if self._shared is None else int(self._shared[index])
        body = self._written.text(self._text(row, asked, level, index), tokens)
        return Ask(body, 0, tokens, asked, shared, ABSENT, turn)

    def heard(self, level: int, index: int, heard: Heard | None) -> float:
        """See `Source`: nothing hangs on it."""
        return 0.0

    def _text(self, row: Row, tokens: int, level: int, index: int) -> str:
        if row.blocks:
            return self._blocks(level).text(row.blocks, row.block_tokens, tokens)
        words = self._prompts.words_for(tokens + self._prompts.system_tokens)
        return prompt(self._workload.seed, level, index, words, self._workload.language)


class Blocks:
    """Text of recorded blocks: the same for the same id, in every process; of another id, another from its first word.

    A block is seeded with the SHA-256 of seed, level and id, so that no level finds in a cache what another has sent.
    """

    def __init__(self, prompts: Prompts, seed: int, level: int, script: str = "latin") -> None:
        self._prompts, self._script, self._place = prompts, script, f"{seed}:{level}"
        self._block = functools.lru_cache(maxsize=4096)(self._made)

    def text(self, ids: tuple[int, ...], block_tokens: int, tokens: int) -> str:
        """A prompt of `tokens` tokens whose blocks are `ids`, the last perhaps in part.

        What a template puts before it is of the first block.
        """
        parts = []
        for n, id in enumerate(ids):
            before = self._prompts.overhead_tokens - self._prompts.system_tokens if n == 0 else 0.0
            parts.append(self._block(id, min(block_tokens, tokens - n * block_tokens), max(0.0, before)))
        return " ".join(parts)

    def _made(self, id: int, tokens: int, before: float) -> str:
        digest = hashlib.sha256(f"{self._place}:{id}".encode()).digest()
        rng = np.random.default_rng(np.frombuffer(digest, "<u4"))
        opening = drawn_salt(rng)
        # Words are whole: what is rounded is drawn, by the id too, so that many blocks are as long as they should be.
        beyond = before if before else self._prompts.salt_tokens
        words = int((tokens - beyond) / self._prompts.tokens_per_word + rng.random())
        return f"{opening} {prose(self._script).text(rng, words)}" if words > 0 else opening


def mark_shared(rows: Rows, workload: Workload) -> bool:
    """Note of each row of `timed` how many tokens of its beginning a row before it has; False where none has blocks.

    The id of a block stands for the prompt up to its end, so the first id that is new ends what is shared.
    """
    if not rows[0].blocks:
        return False
    seen = _Seen()
    taken = timed(rows, workload).rows
    shared = np.zeros(len(taken), dtype="<i4")
    for place, k in enumerate(taken.tolist()):
        row = rows[k]
        known = seen.leading(row.blocks)
        shared[place] = min(known * row.block_tokens, row.input_tokens or known * row.block_tokens)
    rows.keep(_SHARED, shared)
    return True


class _Seen:
    """Which ids have been seen, as bits: two of 2^30 for each. 20 million ids are told apart but for one in 700."""

    _BITS = 1 << 30

    def __init__(self) -> None:
        self._bytes = np.zeros(self._BITS >> 3, dtype=np.uint8)  # pages that are never written cost nothing

    def leading(self, ids: tuple[int, ...]) -> int:
        """How many of `ids` from the first on were seen before; all of them are seen then."""
        hashed = np.asarray(ids, dtype=np.uint64) * np.uint64(0x9E3779B97F4A7C15)
        places = [(hashed >> np.uint64(shift)) & np.uint64(self._BITS - 1) for shift in (34, 4)]
        at = [(place >> np.uint64(3)).astype(np.int64) for place in places]
        bits = [np.left_shift(np.uint8(1), (place & np.uint64(7)).astype(np.uint8)) for place in places]
        known = np.logical_and(*((self._bytes[a] & b) != 0 for a, b in zip(at, bits, strict=True)))
        for a, b in zip(at, bits, strict=True):
            np.bitwise_or.at(self._bytes, a, b)
        return len(ids) if known.all() else int(np.argmin(known))
