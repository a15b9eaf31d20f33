"""Prompts: what opens them, and how many words make so many tokens."""

from __future__ import annotations

import string
from collections.abc import Callable, Sequence

import msgspec
import numpy as np

from pacemark.scenario import Workload as Workload
from pacemark.workload.prose import prose

SALT_LETTERS = 12
PROBES = 2**32 - 1
"""Stands for the level in the draw of probe prompts."""


class Prompts(msgspec.Struct, frozen=True):
    """How many words make a prompt of the wanted length, and how that was found out."""

    words: int
    """Of a prompt of the mean length."""
    seed: int
    source: str
    """usage: learned from the server's own counts; tokenizer; or estimate."""
    tokens_per_word: float
    overhead_tokens: float
    """Tokens that every prompt costs before its first drawn word: chat template and salt."""

    def words_for(self, tokens: float) -> int:
        """How many words make a prompt of `tokens` tokens."""
        return max(0, round((tokens - self.overhead_tokens) / self.tokens_per_word))

    @property
    def counted_overhead(self) -> float | None:
        """`overhead_tokens` where the server itself counted them."""
        return self.overhead_tokens if self.source == "usage" else None


def prompt(seed: int, level: int, index: int, words: int, script: str = "latin") -> str:
    """A text of `words` words after a salt that no other prompt opens with.

    The salt comes first, so that not even the first block of a prefix cache can match. Drawn from
    (seed, level, index) alone: the same request has the same text whichever worker sends it.
    """
    rng = np.random.default_rng([seed, level, index])
    opening = "".join(string.ascii_lowercase[i] for i in rng.integers(0, 26, SALT_LETTERS).tolist())
    return f"{opening} {prose(script).text(rng, words)}" if words > 0 else opening


def probe_prompt(seed: int, index: int, words: int, script: str = "latin") -> str:
    """A salt and `words` words that hold every word equally often, so that the longest probe is the exact mean."""
    opening = prompt(seed, PROBES, index, 0)
    return f"{opening} {prose(script).evenly(words)}" if words else opening


def probe_sizes(input_tokens: int, script: str = "latin") -> list[list[int]]:
    """Numbers of words to probe with: every word equally often; less, where the context is too small for that."""
    near = max(8, input_tokens // 2)
    return [[0, 0, 0, prose(script).balanced], [0, 0, 0, near, near]]


def learn(words: Sequence[int], tokens: Sequence[int], input_tokens: int, seed: int, script: str = "latin") -> Prompts:
    """Fit tokens = overhead + ratio x words by least squares and solve it for the wanted length."""
    ratio, overhead = np.polyfit(np.asarray(words, float), np.asarray(tokens, float), 1)
    if not ratio > 0.1:  # no tokenizer packs ten words into a token: these counts are made up
        return estimated(input_tokens, seed, script)
    count = max(0, round((input_tokens - overhead) / ratio))
    return Prompts(count, seed, "usage", float(ratio), float(overhead))


def tokenized(count_tokens: Callable[[str], int], input_tokens: int, seed: int, script: str = "latin") -> Prompts:
    """The same line, from a tokenizer the user has. The chat template is not counted."""
    sizes = probe_sizes(input_tokens, script)[0]
    counts = [count_tokens(probe_prompt(seed, i, n, script)) for i, n in enumerate(sizes)]
    return msgspec.structs.replace(learn(sizes, counts, input_tokens, seed, script), source="tokenizer")


_ROUGHLY = {"latin": 1.15, "cyrillic": 2.2, "arabic": 2.2, "devanagari": 3.0, "cjk": 1.6}
"""Tokens that a word costs in common vocabularies, its share of commas and full stops with it."""


def estimated(input_tokens: int, seed: int, script: str = "latin") -> Prompts:
    """The ratio of words in common vocabularies, where nothing can be asked. Says so."""
    ratio, overhead = _ROUGHLY[script], 8.0
    return Prompts(max(0, round((input_tokens - overhead) / ratio)), seed, "estimate", ratio, overhead)
