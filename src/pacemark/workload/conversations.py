"""Conversations: sessions of several turns, each with all that was said before it."""

from __future__ import annotations

import math
from typing import Any

import msgspec
import numpy as np

from pacemark.lengths import Draws, lengths
from pacemark.scenario import Workload
from pacemark.trace import ABSENT
from pacemark.workload.prose import prose
from pacemark.workload.source import Ask, Heard, Written
from pacemark.workload.synthetic import Synthetic
from pacemark.workload.underway import Underway
from pacemark.workload.words import Prompts

__all__ = ["Conversations", "message"]

_TURNS, _RECORDED = 4, 5
"""What is drawn with one seed, apart."""


class _Talk:
    """One session."""

    __slots__ = ("answer_tokens", "known", "messages", "origin", "place", "recorded", "shared", "turn", "turns")

    def __init__(self, place: tuple[int, int], turns: int) -> None:
        self.place = place
        """Level and index of its first request, on which all of it hangs."""
        self.turns, self.turn = turns, 0
        self.messages: list[bytes] = []
        self.known = 0
        """Tokens said so far, from either side."""
        self.shared, self.origin = 0, ABSENT
        self.recorded = ""
        self.answer_tokens = 0


class Conversations:
    """The `Source` of conversations: `ask` gives the next turn of a session that is due, or the first of a new one; and
    `heard` takes down what was answered."""

    alone, listens, empty = False, True, True

    def __init__(self, workload: Workload, prompts: Prompts, written: Written, least_tokens: int = 1) -> None:
        """See `Synthetic`, which makes the first turns and the lengths of all."""
        self._workload, self._prompts, self._written, self._least = workload, prompts, written, least_tokens
        self._first = Synthetic(workload, prompts, written, least_tokens)
        self._turns = Draws(lengths("--turns", workload.turns), workload.drawn_by, _TURNS)
        self._underway: Underway[_Talk] = Underway(workload)

    def ask(self, level: int, index: int, share: float = 1.0, stream: int = ABSENT) -> Ask:
        """See `Source`; `stream` is who asks, in the closed loop."""
        talk = self._underway.due(stream)
        if talk is None:
            talk = _Talk((level, index), self._turns(level, index))
            self._underway.begin(talk, stream)
        self._underway.asked(level, index, talk, stream)
        return self._turn(talk, share)

    def heard(self, level: int, index: int, heard: Heard | None) -> float:
        """See `Source`."""
        talk, stream = self._underway.answered(level, index)
        talk.turn += 1
        if heard is None or talk.turn >= talk.turns:
            self._underway.end(stream)
            return 0.0
        served = self._workload.history == "served"
        talk.messages.append(message("assistant", heard.text if served else talk.recorded))
        if heard.input_tokens > 0:
            talk.known = heard.input_tokens
        said = heard.output_tokens if served and heard.output_tokens > 0 else talk.answer_tokens
        talk.shared = talk.known if not served else talk.known + said
        talk.known += said
        return self._underway.rest(talk, stream)

    def _turn(self, talk: _Talk, share: float) -> Ask:
        """The next request of a session."""
        level, index = talk.place
        if not talk.turn:
            text, about = self._first.opening(level, index)
            talk.known, talk.shared, talk.origin = about.asked_input, about.shared_tokens, about.origin
            words = about.words
        else:
            rng = np.random.default_rng([self._workload.seed, level, index, talk.turn])
            own = self._first.input_of(level, index + talk.turn)
            words = self._prompts.words_for(own, before=0.0)
            text = prose(self._workload.language).text(rng, words)
            talk.known += own
        talk.messages.append(message("user", text))
        whole = self._first.output_of(level, index + talk.turn)
        if self._workload.history == "recorded":
            rng = np.random.default_rng([self._workload.seed, level, index, talk.turn, _RECORDED])
            talk.recorded = prose(self._workload.language).text(rng, self._prompts.words_for(whole, before=0.0))
        tokens = max(self._least, math.ceil(whole * share))
        talk.answer_tokens = whole if talk.recorded else tokens
        body = self._written.messages(talk.messages, tokens)
        return Ask(body, words, tokens, talk.known, talk.shared, talk.origin, talk.turn)


def message(role: str, content: Any) -> bytes:
    """A message of a conversation, as JSON."""
    return msgspec.json.encode({"role": role, "content": content})
