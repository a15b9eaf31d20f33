"""Requests that are made up: prompts of prose, with lengths and prefixes as they were ordered."""

from __future__ import annotations

import functools
import math

import numpy as np

from pacemark.lengths import Draws, Lengths
from pacemark.scenario import Workload
from pacemark.trace import ABSENT
from pacemark.workload.prose import prose
from pacemark.workload.source import Ask, Heard, Written
from pacemark.workload.words import Prompts, prompt, salt

__all__ = ["Synthetic", "popularity"]

_INPUT, _OUTPUT, _GROUP = 1, 2, 3
"""What is drawn with one seed, apart."""
_PREFIXES, _PRIMING = 2**32 - 2, 2**32 - 3
"""Stand for the level in the draws of prefixes, and of what primes them."""


class Synthetic:
    """The `Source` where nothing else was given: every request is of its own, and no prompt is like another but for the
    prefix that its group shares, which comes first."""

    alone, listens, empty = True, False, True

    def __init__(self, workload: Workload, prompts: Prompts, written: Written, least_tokens: int = 1) -> None:
        """`written` makes bodies as the API wants them. No answer is asked to be shorter than `least_tokens`."""
        self._workload, self._prompts, self._written, self._least = workload, prompts, written, least_tokens
        self._seed, self._script = workload.seed, workload.language
        self._input = Draws(workload.input, workload.drawn_by, _INPUT)
        self._output = Draws(workload.output, workload.drawn_by, _OUTPUT)
        self._group = Draws(popularity(workload.prefix_groups, workload.prefix_zipf), workload.drawn_by, _GROUP)
        self._prefix = functools.lru_cache(maxsize=1024)(self._new_prefix)
        self._shared = workload.prefix_tokens + round(prompts.system_tokens)
        self._media = round(prompts.media_tokens)

    def ask(self, level: int, index: int, share: float = 1.0, stream: int = ABSENT) -> Ask:
        """See `Source`."""
        tokens = max(self._least, math.ceil(self._output(level, index) * share))
        text, about = self.opening(level, index)
        return about._replace(body=self._written.text(text, tokens), tokens=tokens)

    def heard(self, level: int, index: int, heard: Heard | None) -> float:
        """See `Source`: nothing hangs on it."""
        return 0.0

    def input_of(self, level: int, index: int) -> int:
        """Tokens that a prompt has of its own."""
        return self._input(level, index)

    def output_of(self, level: int, index: int) -> int:
        """Tokens of a whole answer."""
        return self._output(level, index)

    def opening(self, level: int, index: int) -> tuple[str, Ask]:
        """The text of a prompt, and what is known of it; without a body yet."""
        own = self._input(level, index)
        words = self._prompts.words_for(own + self._prompts.beside_tokens)
        text = prompt(self._seed, level, index, words, self._script)
        group = ABSENT
        if self._workload.prefix_tokens:
            group = self._group(level, index) - 1
            text = f"{self._prefix(group)} {text}"
        known = group if self._shared else ABSENT
        return text, Ask(b"", words, 0, own + self._shared + self._media, self._shared, known)

    def primer(self, group: int) -> Ask:
        """A request that brings the prefix of `group`, from 0, to the server's cache."""
        text = f"{self._prefix(group)} {salt(self._seed, _PRIMING, group)}"
        return Ask(self._written.text(text, self._least), 0, self._least)

    def _new_prefix(self, group: int) -> str:
        words = self._prompts.words_for(self._workload.prefix_tokens, before=self._prompts.salt_tokens)
        rng = np.random.default_rng([self._seed, _PREFIXES, group])
        opening = salt(self._seed, _PREFIXES, group)
        return f"{opening} {prose(self._script).text(rng, words)}" if words else opening


def popularity(groups: int, power: float) -> Lengths:
    """Which of `groups` is asked for, from 1: the k-th as often as 1 / k^power says (Zipf)."""
    if groups == 1 or not power:
        return Lengths("uniform", (1 + groups) / 2, 0.0, 1, groups)
    values = tuple(range(1, groups + 1))
    return Lengths("listed", 0.0, 0.0, 1, groups, values, tuple(k**-power for k in values))
