"""Prose by a small grammar: sentences that are none of a book's and read like one's, drawn by a seed.

Random words next to one another are what no model expects, so that speculative decoding accepts nothing after them and
routing by experts sees nothing that is usual. Sentences of two clauses, drawn from clauses that are ready made, cost no
more to draw than words. Each word of a script is in as many clauses as any other of its kind, so that what a word costs
in tokens on average can be learned once, from a few sentences that hold every word as often as all prompts do.
"""

from __future__ import annotations

import functools
import itertools
import math
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from pacemark.workload.scripts import SCRIPTS, Script

__all__ = ["Prose", "prose"]

_CLAUSES = 600
"""Ready made clauses of each of the two kinds: some hundred thousand sentences."""


class Prose(NamedTuple):
    """A script's clauses, ready to be put together. A unit is a word, or a sign of its own."""

    firsts: tuple[tuple[str, ...], ...]
    """First clauses, each as its units."""
    seconds: tuple[tuple[str, ...], ...]
    first_texts: tuple[str, ...]
    """The same, each as one text."""
    second_texts: tuple[str, ...]
    joiner: str
    balanced: int
    """So many units from the start of `evenly` hold every word equally often."""

    def text(self, rng: np.random.Generator, units: int) -> str:
        """A text of `units` units; as many as come from one generator are unlike. A shorter one opens a longer one."""
        one, two = len(self.firsts[0]), len(self.seconds[0])
        whole, rest = divmod(max(0, units), one + two)
        first, second = rng.integers(0, len(self.firsts), (whole + 1, 2)).T.tolist()
        parts = [""] * (2 * whole)
        parts[::2] = [self.first_texts[n] for n in first[:whole]]
        parts[1::2] = [self.second_texts[n] for n in second[:whole]]
        parts += (self.firsts[first[whole]] + self.seconds[second[whole]])[:rest]
        return self.joiner.join(parts)

    def evenly(self, units: int) -> str:
        """The first `units` of a text in which every word comes equally often."""
        both = (a + b for a, b in zip(self.firsts, self.seconds, strict=True))
        return self.joiner.join(itertools.islice(itertools.cycle(itertools.chain.from_iterable(both)), units))


@functools.cache
def prose(script: str = "latin") -> Prose:
    """The prose of a script of `SCRIPTS`. It is the same in every process and every run."""
    of = SCRIPTS[script]
    forms = of.first.split(), of.second.split()
    slots = {kind: sum(_kind(unit, of) == kind for form in forms for unit in form) for kind in of.words}
    rounds = math.lcm(*(len(words) // math.gcd(len(words), slots[kind]) for kind, words in of.words.items()))
    rng = np.random.default_rng(len(of.words["N"]))
    supply = {kind: _endless(words, rng) for kind, words in of.words.items()}
    clauses: tuple[list[tuple[str, ...]], ...] = ([], [])
    for _ in range(_CLAUSES):
        for form, made in zip(forms, clauses, strict=True):
            made.append(tuple(_filled(unit, of, supply) for unit in form))
    firsts, seconds = (tuple(made) for made in clauses)
    texts = [tuple(of.joiner.join(clause) for clause in made) for made in (firsts, seconds)]
    return Prose(firsts, seconds, texts[0], texts[1], of.joiner, rounds * sum(map(len, forms)))


def _kind(unit: str, of: Script) -> str:
    """The kind of word that stands for `unit`; empty where it stands for itself."""
    return unit[0] if unit[0] in of.words else ""


def _filled(unit: str, of: Script, supply: dict[str, Iterator[str]]) -> str:
    kind = _kind(unit, of)
    return next(supply[kind]) + unit[1:] if kind else unit


def _endless(words: tuple[str, ...], rng: np.random.Generator) -> Iterator[str]:
    """Every word once in an order of its own, and again."""
    while True:
        yield from (words[n] for n in rng.permutation(len(words)).tolist())
