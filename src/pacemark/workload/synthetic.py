"""Requests that are made up: prompts of drawn words, with lengths as they were ordered."""

from __future__ import annotations

import math
from collections.abc import Callable

from pacemark.lengths import Draws
from pacemark.scenario import Workload
from pacemark.workload.source import Ask
from pacemark.workload.words import Prompts, prompt

__all__ = ["Synthetic"]

_INPUT, _OUTPUT = 1, 2
"""What is drawn with one seed, apart."""


class Synthetic:
    """The `Source` where nothing else was given: every request is of its own, and no prompt is like another."""

    def __init__(
        self, workload: Workload, prompts: Prompts, written: Callable[[str, int], bytes], least_tokens: int = 1
    ) -> None:
        """`written` makes the body of a request for a text and a number of output tokens, as the API wants it. No
        answer is asked to be shorter than `least_tokens`."""
        self._seed, self._script = workload.seed, workload.language
        self._input = Draws(workload.input, workload.seed, _INPUT)
        self._output = Draws(workload.output, workload.seed, _OUTPUT)
        self._prompts, self._written, self._least = prompts, written, least_tokens

    def ask(self, level: int, index: int, share: float = 1.0) -> Ask:
        """See `Source`."""
        tokens = max(self._least, math.ceil(self._output(level, index) * share))
        asked_input = self._input(level, index)
        words = self._prompts.words_for(asked_input)
        body = self._written(prompt(self._seed, level, index, words, self._script), tokens)
        return Ask(body, words, tokens, asked_input)
