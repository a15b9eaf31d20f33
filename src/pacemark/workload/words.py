"""Prompts: what opens them, and how many words make so many tokens."""

from __future__ import annotations

import string
from collections.abc import Callable, Sequence
from typing import NamedTuple

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

    salt_tokens: float = 6.0
    """Tokens of a salt, of which one is in `overhead_tokens`."""
    system_tokens: float = 0.0
    """Of `overhead_tokens`, those of the system prompt."""
    media_tokens: float = 0.0
    """Of `overhead_tokens`, those of the images and the audio."""

    @property
    def beside_tokens(self) -> float:
        """Of `overhead_tokens`, those that come on top of the prompt's own."""
        return self.system_tokens + self.media_tokens

    def words_for(self, tokens: float, before: float | None = None) -> int:
        """How many words make a prompt of `tokens` tokens, or a text of as many after `before` others of its own."""
        rest = tokens - (self.overhead_tokens if before is None else before)
        return max(0, round(rest / self.tokens_per_word))

    @property
    def counted_overhead(self) -> float | None:
        """`overhead_tokens` where the server itself counted them."""
        return self.overhead_tokens if self.source == "usage" else None


def salt(*place: int) -> str:
    """Letters that nothing else opens with, drawn from `place`."""
    return drawn_salt(np.random.default_rng(place))


def drawn_salt(rng: np.random.Generator) -> str:
    """The same, from a generator."""
    return "".join(string.ascii_lowercase[i] for i in rng.integers(0, 26, SALT_LETTERS).tolist())


def prompt(seed: int, level: int, index: int, words: int, script: str = "latin") -> str:
    """A text of `words` words after a salt that no other prompt opens with.

    The salt comes first, so that not even the first block of a prefix cache can match. Drawn from
    (seed, level, index) alone: the same request has the same text whichever worker sends it.
    """
    rng = np.random.default_rng([seed, level, index])
    opening = drawn_salt(rng)
    return f"{opening} {prose(script).text(rng, words)}" if words > 0 else opening


def probe_prompt(seed: int, index: int, words: int, script: str = "latin", salts: int = 1) -> str:
    """Salts, and `words` words that hold every word equally often, so that the longest probe is the exact mean."""
    parts = [prompt(seed, PROBES, index, 0), *(salt(seed, PROBES, index, n) for n in range(1, salts))]
    return " ".join([*parts, prose(script).evenly(words)] if words else parts)


class Probing(NamedTuple):
    """What a probe consists of."""

    words: int
    salts: int = 1


SALTS = 9
"""In the probe that tells what a salt costs."""


def probings(input_tokens: int, script: str = "latin") -> list[list[Probing]]:
    """What to probe with: every word equally often; less, where the context is too small for that."""
    near, none = Probing(max(8, input_tokens // 2)), [Probing(0), Probing(0), Probing(0, SALTS)]
    return [[*none, Probing(prose(script).balanced)], [*none, near, near]]


def learn(
    probes: Sequence[Probing], tokens: Sequence[int], input_tokens: int, seed: int, script: str = "latin"
) -> Prompts:
    """Fit tokens = overhead + ratio x words + salt x further salts by least squares; solve it for the wanted length."""
    design = np.asarray([(1.0, words, salts - 1) for words, salts in probes])
    overhead, ratio, each = np.linalg.lstsq(design, np.asarray(tokens, float), rcond=None)[0].tolist()
    if not ratio > 0.1:  # no tokenizer packs ten words into a token: these counts are made up
        return estimated(input_tokens, seed, script)
    count = max(0, round((input_tokens - overhead) / ratio))
    return Prompts(count, seed, "usage", ratio, overhead, max(1.0, each))


def tokenized(count_tokens: Callable[[str], int], input_tokens: int, seed: int, script: str = "latin") -> Prompts:
    """The same line, from a tokenizer the user has. The chat template is not counted."""
    probes = probings(input_tokens, script)[0]
    counts = [count_tokens(probe_prompt(seed, i, p.words, script, p.salts)) for i, p in enumerate(probes)]
    return msgspec.structs.replace(learn(probes, counts, input_tokens, seed, script), source="tokenizer")


_ROUGHLY = {"latin": 1.15, "cyrillic": 2.2, "arabic": 2.2, "devanagari": 3.0, "cjk": 1.6}
"""Tokens that a word costs in common vocabularies, its share of commas and full stops with it."""


def estimated(input_tokens: int, seed: int, script: str = "latin") -> Prompts:
    """The ratio of words in common vocabularies, where nothing can be asked. Says so."""
    ratio, overhead = _ROUGHLY[script], 8.0
    return Prompts(max(0, round((input_tokens - overhead) / ratio)), seed, "estimate", ratio, overhead)
