"""Prompts: each new from its first word, the same for the same seed, and of the length that was asked for."""

import itertools
import zlib

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pacemark.workload.prose import prose
from pacemark.workload.words import (
    PROBES,
    SALT_LETTERS,
    Probing,
    Prompts,
    estimated,
    learn,
    probe_prompt,
    probings,
    prompt,
    tokenized,
)


def pieces(text: str, template: int = 11) -> int:
    """A made-up tokenizer: each word costs 1 to 3 tokens by its spelling; the salt costs about a token a letter."""
    words = text.split()
    return template + sum(
        6 + zlib.crc32(w.encode()) % 7 if len(w) == SALT_LETTERS else 1 + (zlib.crc32(w.encode()) % 10) // 8
        for w in words
    )


def learned(probes: list[Probing], wanted: int, seed: int, template: int = 11) -> Prompts:
    counts = [pieces(probe_prompt(seed, i, p.words, salts=p.salts), template) for i, p in enumerate(probes)]
    return learn(probes, counts, wanted, seed)


def test_every_prompt_opens_with_a_word_of_its_own() -> None:
    seeds, levels, indices = (0, 1, 2**32 - 1), (0, 1, 7, PROBES), range(200)
    first = [prompt(s, v, i, 3).split()[0] for s, v, i in itertools.product(seeds, levels, indices)]
    assert len(set(first)) == len(first)
    assert {len(word) for word in first} == {SALT_LETTERS}
    # Not even the first tokens are shared: four letters already tell nearly all apart.
    assert len({word[:4] for word in first}) > 0.99 * len(first)


def test_probes_share_nothing_with_one_another() -> None:
    probes = [probe_prompt(5, i, 40) for i in range(50)]
    assert len({p.split()[0] for p in probes}) == 50


@given(st.integers(0, 2**40), st.integers(0, 1000), st.integers(0, 10**6), st.integers(0, 300))
def test_a_prompt_hangs_on_its_place_alone(seed: int, level: int, index: int, words: int) -> None:
    text = prompt(seed, level, index, words)
    assert text == prompt(seed, level, index, words)
    assert len(text.split()) == words + 1
    assert text.isascii()
    assert text.isprintable()


@given(st.integers(40, 4000), st.integers(0, 2**32), st.integers(0, 200))
def test_the_learned_length_is_within_one_percent(wanted: int, seed: int, template: int) -> None:
    if wanted < template + 60:
        return
    p = learned(probings(wanted)[0], wanted, seed, template)
    got = np.mean([pieces(prompt(seed, 0, i, p.words), template) for i in range(200)])
    assert abs(got - wanted) <= max(0.01 * wanted, 5)
    assert p.source == "usage"


def test_a_small_context_is_probed_with_less() -> None:
    whole, less = probings(512)
    assert max(whole)[0] == prose().balanced == 640
    assert max(less)[0] == 256
    p = learned(less, 512, 9)
    assert np.mean([pieces(prompt(9, 0, i, p.words)) for i in range(200)]) == pytest.approx(512, rel=0.01)


def test_a_template_longer_than_the_prompt_leaves_no_words() -> None:
    p = learn([Probing(0), Probing(0), Probing(0, 9), Probing(100)], [500, 500, 540, 600], 256, 0)
    assert p.words == 0
    assert (p.tokens_per_word, p.overhead_tokens, p.salt_tokens) == pytest.approx((1, 500, 5))


def test_counts_that_make_no_sense_fall_back_to_the_estimate() -> None:
    assert learn([Probing(0), Probing(0), Probing(0, 9), Probing(100)], [9, 9, 9, 9], 256, 0).source == "estimate"
    assert estimated(256, 0).words == pytest.approx(216, abs=1)


def test_a_tokenizer_is_asked_where_there_is_one() -> None:
    p = tokenized(lambda text: pieces(text, 0), 256, 4)
    assert p.source == "tokenizer"
    assert np.mean([pieces(prompt(4, 0, i, p.words), 0) for i in range(200)]) == pytest.approx(256, rel=0.01)
