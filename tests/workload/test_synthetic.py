"""Requests that are made up: the same for the same place, of the lengths that were ordered."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from pacemark.scenario import Workload
from pacemark.workload.synthetic import Synthetic
from pacemark.workload.words import Prompts

LINE = Prompts(0, 7, "usage", 1.25, 10.0)


class Plain:
    """Bodies that are easily read back."""

    def text(self, prompt: str, tokens: int) -> bytes:
        return f"{tokens}:{prompt}".encode()

    def messages(self, messages: list[bytes], tokens: int) -> bytes:
        return b"%d:[%b]" % (tokens, b",".join(messages))

    def recorded(self, body: dict[str, Any], tokens: int | None) -> bytes:
        return f"{tokens}:{body}".encode()


written = Plain()


def test_a_source_gives_the_same_request_for_the_same_place() -> None:
    workload = Workload("lognormal(100, cv=1)", "uniform(5, 50)", 7)
    source = Synthetic(workload, LINE, written)
    ask = source.ask(2, 3)
    assert source.ask(0, 0) != ask
    assert ask == Synthetic(workload, LINE, written).ask(2, 3)
    assert len({source.ask(level, index).body for level in range(3) for index in range(50)}) == 150


def test_lengths_are_drawn_for_each_request() -> None:
    source = Synthetic(Workload("lognormal(400, cv=1)", "uniform(5, 50)", 1), LINE, written)
    asks = [source.ask(0, index) for index in range(3000)]
    assert np.mean([ask.asked_input for ask in asks]) == pytest.approx(400, rel=0.08)
    assert np.mean([ask.tokens for ask in asks]) == pytest.approx(27.5, rel=0.03)
    assert np.corrcoef([a.asked_input for a in asks], [a.tokens for a in asks])[0, 1] == pytest.approx(0, abs=0.06)
    for ask in asks[:50]:
        count, _, text = ask.body.decode().partition(":")
        assert int(count) == ask.tokens
        assert len(text.split()) - 1 == ask.words == max(0, round((ask.asked_input - 10) / 1.25))


def test_a_first_answer_is_a_share_of_its_length_and_none_is_too_short() -> None:
    source = Synthetic(Workload(20, 10, 1), LINE, written, least_tokens=3)
    assert source.ask(0, 0, 0.51).tokens == 6
    assert source.ask(0, 0, 0.1).tokens == 3
    assert source.ask(0, 0).tokens == 10
