"""Prose: the same everywhere, every word as often as the others of its kind, in every script."""

from __future__ import annotations

import subprocess
import sys
import zlib
from collections import Counter
from typing import get_args

import numpy as np
import pytest

from pacemark.simulator.server.tokens import count
from pacemark.traffic import Language
from pacemark.workload.prose import prose
from pacemark.workload.scripts import SCRIPTS
from pacemark.workload.words import learn, probe_prompt, probings, prompt


def test_the_scripts_are_those_that_can_be_ordered() -> None:
    assert set(SCRIPTS) == set(get_args(Language))


@pytest.mark.parametrize("script", SCRIPTS)
def test_every_word_comes_as_often_as_the_others_of_its_kind(script: str) -> None:
    made, of = prose(script), SCRIPTS[script]
    units = [u.rstrip(",.،。，।") for pair in zip(made.firsts, made.seconds, strict=True) for c in pair for u in c]
    seen = Counter(units[: made.balanced])
    for kind, words in of.words.items():
        assert len({seen[word] for word in words}) == 1, kind
    every = [word for words in of.words.values() for word in words]
    assert len(set(every)) == len(every)
    text = made.evenly(made.balanced)
    assert text == of.joiner.join([*text.split(" ")] if of.joiner else [text])
    assert made.evenly(3 * made.balanced).startswith(text)


@pytest.mark.parametrize("script", SCRIPTS)
@pytest.mark.parametrize("units", [0, 1, 7, 17, 18, 400])
def test_a_text_has_as_many_units_as_were_wanted(script: str, units: int) -> None:
    text = prose(script).text(np.random.default_rng(5), units)
    if SCRIPTS[script].joiner:
        assert len(text.split()) == units
    elif units:
        assert len(text) >= units
    assert text == prose(script).text(np.random.default_rng(5), units)
    assert text.isprintable()
    assert len({prose(script).text(np.random.default_rng(n), 40) for n in range(200)}) == 200


def test_another_process_draws_the_same() -> None:
    code = "from pacemark.workload.words import prompt; import zlib; print(zlib.crc32(prompt(3, 2, 1, 500).encode()))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert int(done.stdout) == zlib.crc32(prompt(3, 2, 1, 500).encode())


@pytest.mark.parametrize("script", SCRIPTS)
def test_lengths_hold_within_one_percent_on_average(script: str) -> None:
    """By the embedded endpoint's own tokenizer, of which a word costs one to three tokens."""
    probes = probings(1000, script)[0]
    counts = [count(probe_prompt(3, i, p.words, script, p.salts)) + 7 for i, p in enumerate(probes)]
    line = learn(probes, counts, 1000, 3, script)
    assert line.salt_tokens == pytest.approx(3)
    got = [count(prompt(3, 0, i, line.words_for(1000), script)) + 7 for i in range(300)]
    assert np.mean(got) == pytest.approx(1000, rel=0.01)
    assert np.std(got) < 30
