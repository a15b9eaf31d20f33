"""A continuous-batching engine as a pure model: no I/O, no clock, the same answer for the same requests.

One step serves every decoding sequence and, with what is left of the token budget, pieces of waiting prompts
(chunked prefill). It takes

    base + per_decode x decoding + per_prefill_token x prefill tokens + per_kv_token x resident KV tokens

which is linear in the work, as Vidur (arXiv 2405.05465) and inference-sim model it. Sequences come in by first
come, first served, as far as the batch limit and the KV blocks allow. When decoding runs out of blocks the
sequence admitted last is preempted: its blocks are freed and all of it is prefilled again later, as vLLM does.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Hashable, Sequence
from random import Random

import msgspec

from pacemark.errors import BadInput
from pacemark.simulator.engine.kvcache import BlockPool

__all__ = ["Engine", "EngineSpec", "Finished", "Speculation", "EngineStep"]


class Speculation(msgspec.Struct, frozen=True):
    """Speculative decoding: each step proposes `drafts` tokens, each kept with probability `acceptance`.

    The first refusal ends the run, so a step yields 1 + k tokens, E = (1 - acceptance^(drafts + 1)) /
    (1 - acceptance): Leviathan, Kalman and Matias 2023 (arXiv 2211.17192), equation 1.
    """

    drafts: int
    acceptance: float
    per_draft_ms: float = 0.0
    """Cost of proposing and checking one draft token of one sequence."""

    def __post_init__(self) -> None:
        """Raise BadInput where the values make no sense."""
        if self.drafts < 1 or not 0.0 <= self.acceptance <= 1.0 or self.per_draft_ms < 0:
            raise BadInput("speculation needs drafts >= 1, 0 <= acceptance <= 1 and per_draft_ms >= 0")

    def expected_tokens(self) -> float:
        """Mean tokens per sequence and step while far from the end of the answer."""
        if self.acceptance == 1.0:
            return self.drafts + 1.0
        return float((1.0 - self.acceptance ** (self.drafts + 1)) / (1.0 - self.acceptance))


class EngineSpec(msgspec.Struct, frozen=True, kw_only=True, tag_field="kind", tag="engine"):
    """What one replica can do."""

    base_ms: float
    """Time of a step that does nothing: reading the weights, launching kernels, scheduling."""
    per_decode_ms: float
    """For each sequence that decodes in the step."""
    per_prefill_token_ms: float
    """For each prompt token computed in the step."""
    per_kv_token_ms: float = 0.0
    """For each token whose keys and values are resident when the step starts, counted for each sequence that
    attends to it, shared or not."""
    max_batch: int = 256
    """Most sequences in a step."""
    token_budget: int = 2048
    """Most tokens computed in a step; a decoding sequence takes one (one more for each draft)."""
    kv_blocks: int = 1_000_000
    block_tokens: int = 16
    reserve_output: bool = False
    """Take the blocks of the whole answer on admission: nothing is ever preempted, but fewer sequences fit."""
    prefix_cache: bool = False
    """Prompts that open alike share blocks, and the shared part is not computed again."""
    speculation: Speculation | None = None

    def __post_init__(self) -> None:
        """Raise BadInput where the values make no sense."""
        costs = (self.base_ms, self.per_decode_ms, self.per_prefill_token_ms, self.per_kv_token_ms)
        if min(costs) < 0 or self.base_ms + self.per_decode_ms <= 0:
            raise BadInput("an engine's costs must not be negative, and a decode step must take some time")
        if min(self.max_batch, self.kv_blocks, self.block_tokens) < 1:
            raise BadInput("max_batch, kv_blocks and block_tokens must be at least 1")
        if self.token_budget <= self.max_batch * self.tokens_per_decode:
            raise BadInput(
                f"token_budget {self.token_budget} leaves no room for prompts beside {self.max_batch} decoding "
                "sequences"
            )

    @property
    def tokens_per_decode(self) -> int:
        """Tokens of the budget that one decoding sequence takes."""
        return 1 + (self.speculation.drafts if self.speculation else 0)

    @property
    def kv_tokens(self) -> int:
        """Tokens that fit into the KV cache."""
        return self.kv_blocks * self.block_tokens

    def check(self, prompt_tokens: int, output_tokens: int) -> None:
        """Raise BadInput for a request that could never be served."""
        if prompt_tokens < 1 or output_tokens < 1:
            raise BadInput("a request needs at least one prompt token and one output token")
        if prompt_tokens + output_tokens > self.kv_tokens:
            raise BadInput(
                f"{prompt_tokens} prompt tokens and {output_tokens} output tokens do not fit into the context of "
                f"{self.kv_tokens} tokens"
            )


class Finished(msgspec.Struct, frozen=True, gc=False):
    """One answered request: which, and how it was served."""

    id: int
    cached_tokens: int
    """Prompt tokens found in the prefix cache."""
    chunks: int
    """Steps that prefilled it (K in the theory)."""
    preemptions: int


class EngineStep(msgspec.Struct, frozen=True):
    """One step: how long it takes, and what has come out when it ends."""

    duration_ns: int
    ids: list[int]
    """Requests that emit output: those that completed their prompt, then those that decode."""
    tokens: list[int]
    """How many tokens each of `ids` emits."""
    finished: list[Finished]
    decoding: int
    prefilling: int
    prefill_tokens: int
    resident_tokens: int
    preempted: int
    admitted: list[int] = []
    """Requests that got a place in the batch for the first time."""


class _Sequence:
    """One request inside the engine."""

    __slots__ = (
        "blocks", "cached", "capacity", "chunks", "computed", "hashes", "id", "left", "preemptions", "prompt",
        "random", "shared", "target",
    )  # fmt: skip

    def __init__(self, id: int, prompt: int, output: int, hashes: Sequence[Hashable]) -> None:
        self.id = id
        self.prompt = prompt
        self.left = output
        self.hashes = hashes
        self.target = prompt
        """Tokens to prefill: the prompt, and after a preemption what was already answered."""
        self.computed = 0
        """Tokens whose keys and values are resident."""
        self.blocks = 0
        self.capacity = 0
        self.shared: list[Hashable] = []
        self.cached = 0
        self.chunks = 0
        self.preemptions = 0
        self.random: Random | None = None


class Engine:
    """One replica. Submit requests, then call `step` for as long as it has something to do.

    A step's outcome is decided when it starts; requests submitted later join the next one.
    """

    def __init__(self, spec: EngineSpec, *, seed: int = 0) -> None:
        self.spec = spec
        self.pool = BlockPool(spec.kv_blocks)
        self.preemptions = 0
        self.drafts = 0
        """Draft tokens proposed so far."""
        self.accepted = 0
        """Draft tokens kept so far."""
        self._seed = seed
        self._admitted: list[int] = []
        self._waiting: deque[_Sequence] = deque()
        self._prefilling: list[_Sequence] = []
        self._decoding: list[_Sequence] = []
        self._resident = 0
        self._base_ns = spec.base_ms * 1e6
        self._decode_ns = spec.per_decode_ms * 1e6
        if spec.speculation:
            self._decode_ns += spec.speculation.drafts * spec.speculation.per_draft_ms * 1e6
        self._prefill_ns = spec.per_prefill_token_ms * 1e6
        self._kv_ns = spec.per_kv_token_ms * 1e6

    @property
    def waiting(self) -> int:
        """Requests that hold no place in the batch."""
        return len(self._waiting)

    @property
    def running(self) -> int:
        """Requests in the batch."""
        return len(self._prefilling) + len(self._decoding)

    def submit(self, id: int, prompt_tokens: int, output_tokens: int, prefix: Sequence[Hashable] = ()) -> None:
        """Queue a request.

        `prefix` has one hash for each full block of the prompt, each covering the prompt from its start.
        Raises BadInput where the request could never fit.
        """
        self.spec.check(prompt_tokens, output_tokens)
        sequence = _Sequence(id, prompt_tokens, output_tokens, prefix if self.spec.prefix_cache else ())
        if self.spec.speculation:
            sequence.random = Random(f"{self._seed}/{id}")
        self._waiting.append(sequence)

    def cancel(self, id: int) -> None:
        """Drop a request wherever it is; an unknown id is no error, it may have just finished."""
        for queue in (self._decoding, self._prefilling, self._waiting):
            for sequence in queue:
                if sequence.id == id:
                    queue.remove(sequence)
                    self._free(sequence)
                    return

    def step(self) -> EngineStep | None:
        """Serve one step; None when there is nothing to do."""
        decoding = self._decoding
        if not (decoding or self._prefilling or self._waiting):
            return None
        tokens, preempted = self._decode()
        ids = [sequence.id for sequence in decoding]
        decoded = len(decoding)
        resident = self._resident
        ended: list[_Sequence] = []
        self._admitted = []
        for sequence, count in zip(decoding, tokens, strict=True):
            sequence.computed += count
            sequence.left -= count
            if not sequence.left:
                ended.append(sequence)
        self._resident += sum(tokens)
        if ended:
            self._decoding = [sequence for sequence in decoding if sequence.left]

        prefilled, prefilling = 0, 0
        if self._prefilling or (self._waiting and not preempted):
            budget = self.spec.token_budget - decoded * self.spec.tokens_per_decode
            batch, admitted = self._prefill(budget, 0 if preempted else self.spec.max_batch - decoded)
            resident += admitted
            prefilling = len(batch)
            first: list[int] = []
            for sequence, chunk in batch:
                prefilled += chunk
                if sequence.computed == sequence.target:
                    first.append(sequence.id)
                    self._first_token(sequence, ended)
            # They lead the list, since whoever sends these tokens one after the other delays the last.
            ids, tokens = first + ids, [1] * len(first) + tokens
        duration = self._base_ns + self._decode_ns * decoded + self._prefill_ns * prefilled + self._kv_ns * resident
        for sequence in ended:
            self._free(sequence)
        return EngineStep(
            duration_ns=round(duration),
            ids=ids,
            tokens=tokens,
            finished=[Finished(s.id, s.cached, s.chunks, s.preemptions) for s in ended],
            decoding=decoded,
            prefilling=prefilling,
            prefill_tokens=prefilled,
            resident_tokens=resident,
            preempted=preempted,
            admitted=self._admitted,
        )

    def _decode(self) -> tuple[list[int], int]:
        """Tokens that each decoding sequence emits, their KV slots taken; sequences preempted for them."""
        tokens: list[int] = []
        before = self.preemptions
        for sequence in self._decoding:  # _grow only ever removes from the end, which is safe while iterating
            count = 1 if sequence.random is None else self._accepted(sequence)
            if sequence.computed + count > sequence.capacity and not self._grow(sequence, count):
                break
            tokens.append(count)
        return tokens, self.preemptions - before

    def _accepted(self, sequence: _Sequence) -> int:
        speculation, random = self.spec.speculation, sequence.random
        assert speculation is not None
        assert random is not None
        count = 1
        while count <= speculation.drafts and random.random() < speculation.acceptance:
            count += 1
        count = min(count, sequence.left)
        self.drafts += speculation.drafts
        self.accepted += count - 1
        return count

    def _grow(self, sequence: _Sequence, count: int) -> bool:
        """Take the blocks for `count` more tokens, preempting younger sequences; False if `sequence` had to go."""
        need = -(-(sequence.computed + count) // self.spec.block_tokens) - sequence.capacity // self.spec.block_tokens
        while not self.pool.take(need):
            victim = self._prefilling.pop() if self._prefilling else self._decoding.pop()
            self._preempt(victim)
            if victim is sequence:
                return False
        sequence.blocks += need
        sequence.capacity += need * self.spec.block_tokens
        return True

    def _preempt(self, victim: _Sequence) -> None:
        if victim.computed >= victim.target:
            # Its last token has no keys and values yet, so one more than computed; all are prefilled again.
            victim.target = victim.computed + 1
        victim.preemptions += 1
        self.preemptions += 1
        self._free(victim)
        self._waiting.appendleft(victim)

    def _prefill(self, budget: int, places: int) -> tuple[list[tuple[_Sequence, int]], int]:
        """Give `budget` tokens to prompts in order, admitting new ones up to `places` sequences in all.

        Returns the pieces computed, and the tokens that newly admitted prompts found in the prefix cache.
        """
        batch: list[tuple[_Sequence, int]] = []
        hits = 0
        for sequence in self._prefilling:
            if budget <= 0:
                break
            budget -= self._chunk(sequence, budget, batch)
        while self._waiting and budget > 0 and len(self._prefilling) < places and self._admit(self._waiting[0]):
            sequence = self._waiting.popleft()
            self._prefilling.append(sequence)
            hits += sequence.computed
            budget -= self._chunk(sequence, budget, batch)
        self._prefilling = [sequence for sequence in self._prefilling if sequence.computed < sequence.target]
        return batch, hits

    def _chunk(self, sequence: _Sequence, budget: int, batch: list[tuple[_Sequence, int]]) -> int:
        chunk = min(budget, sequence.target - sequence.computed)
        sequence.computed += chunk
        sequence.chunks += 1
        self._resident += chunk
        batch.append((sequence, chunk))
        return chunk

    def _admit(self, sequence: _Sequence) -> bool:
        """Take the blocks of the whole prompt (and of the answer, if the spec reserves it)."""
        block = self.spec.block_tokens
        # The last prompt token is always computed: its logits are the first output token.
        hits = self.pool.hold_prefix(sequence.hashes[: (sequence.target - 1) // block])
        total = sequence.target + (sequence.left if self.spec.reserve_output else 0)
        need = -(-total // block) - hits
        if not self.pool.take(need):
            self.pool.release(0, sequence.hashes[:hits])
            return False
        sequence.shared = list(sequence.hashes[:hits])
        sequence.blocks = need
        sequence.capacity = (need + hits) * block
        sequence.computed = hits * block
        if not sequence.preemptions:
            sequence.cached = sequence.computed
            self._admitted.append(sequence.id)
        self._resident += sequence.computed
        return True

    def _first_token(self, sequence: _Sequence, ended: list[_Sequence]) -> None:
        if sequence.hashes:
            new = self.pool.publish(sequence.hashes[len(sequence.shared) : sequence.prompt // self.spec.block_tokens])
            sequence.blocks -= len(new)
            sequence.shared += new
        sequence.left -= 1
        (self._decoding if sequence.left else ended).append(sequence)

    def _free(self, sequence: _Sequence) -> None:
        self.pool.release(sequence.blocks, sequence.shared)
        self._resident -= sequence.computed
        sequence.blocks = sequence.capacity = sequence.computed = 0
        sequence.shared = []
