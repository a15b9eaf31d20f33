"""A sweep counted as Databricks' notebook counts it: by hand, on round numbers."""

from __future__ import annotations

import msgspec
import pytest

from pacemark.pace import Concurrency, Rate
from pacemark.reporting.page import in_the_pages_words, page_rows
from pacemark.summary import Level
from support import samples
from support.inside import inside


def level(parallel: int, latency_ms: float, output: float = 256) -> Level:
    plain = samples.level(
        Concurrency(parallel), tokens_per_s=1, ttft_ms=(1, 2), tpot_ms=(1, 2), latency_ms=(latency_ms, latency_ms)
    )
    return msgspec.structs.replace(plain, input_tokens=2048, output_tokens=output)


SWEEP = [level(1, 2560), level(2, 2560), level(4, 4800), level(8, 9600)]
ONE = [level(n, latency, 1) for n, latency in ((1, 10), (2, 10), (4, 20), (8, 30))]


def test_its_arithmetic() -> None:
    rows = page_rows(SWEEP, ONE)
    assert [row.tokens_per_s for row in rows] == pytest.approx([900, 1800, 1920, 1920])
    assert [row.gain for row in rows[1:]] == pytest.approx([1.0, 1920 / 1800 - 1, 0.0])
    assert [row.stops for row in rows] == [False, False, True, False]
    assert rows[0].ttft_s == pytest.approx(0.01)
    assert rows[0].tpot_s == pytest.approx(0.01)


def test_what_was_not_measured_is_not_made_up() -> None:
    rows = page_rows([*SWEEP, msgspec.structs.replace(level(4, 100), load=Rate(3.0))])
    assert len(rows) == 4
    assert {(row.ttft_s, row.tpot_s) for row in rows} == {(None, None)}
    assert page_rows([msgspec.structs.replace(level(1, 100), input_tokens=None)]) == []


def test_it_stands_at_the_end_of_the_details(stored_run: object) -> None:
    shown = inside("show", stored_run, "--detail").stdout
    _, found, section = shown.partition("As Databricks' notebook counts")
    assert found
    assert max(map(len, section.splitlines())) <= 80
    assert section.count("  ") > 4
    assert in_the_pages_words([]) is not None
