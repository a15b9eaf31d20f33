"""What a prompt cache is expected to know, beside what a real one tells: llama.cpp's server with four slots."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import pacemark
from pacemark.endpoint.offered import context_of
from pacemark.endpoint.target import Target
from pacemark.runs.folder import RunFolder
from pacemark.runs.run import Run
from pacemark.summary import Cached, Traffic
from support.llama_server import CONTEXT_TOKENS, MODEL, llama_server, write_tiny_llama

pytestmark = [pytest.mark.xdist_group("llama"), pytest.mark.filterwarnings("ignore")]

GROUPS: dict[str, Any] = {"input_tokens": 150, "output_tokens": 4, "prefix_tokens": 450, "prime": True, "requests": 16}
TURNS: dict[str, Any] = {"input_tokens": 80, "output_tokens": 12, "turns": 4, "concurrency_of": "sessions"}


@pytest.fixture(scope="module")
def remembering(llama: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A server that keeps what its slots give up in memory (`--cache-ram`), as llama.cpp does unasked."""
    model = tmp_path_factory.mktemp("llama") / "tiny.gguf"
    write_tiny_llama(model)
    with llama_server(model, cache_mib=256) as base_url:
        yield base_url


def measured(url: str, out: Path, seed: int, **words: Any) -> tuple[Cached, Run]:
    """A seed for each measurement: the server remembers the prompts of an earlier one, whole."""
    run = pacemark.run(url, workers=1, seed=seed, out=out, timeout=60, **words)
    traffic = run.levels[0].traffic
    assert isinstance(traffic, Traffic)
    assert isinstance(traffic.cached, Cached)
    return traffic.cached, run


@pytest.mark.slow
@pytest.mark.parametrize("groups", [1, 9])
def test_shared_prefixes_are_found_as_expected(remembering: str, tmp_path: Path, groups: int) -> None:
    """Nine prefixes are more than there are slots: the memory beside them has the rest."""
    found, _ = measured(remembering, tmp_path, groups, concurrency=1, prefix_groups=groups, **GROUPS)
    assert found.state == "warm"
    assert found.expected == pytest.approx(0.75, abs=0.01)
    assert found.usage == pytest.approx(found.expected, abs=0.03)


@pytest.mark.slow
def test_of_two_at_once_the_second_may_miss(remembering: str, tmp_path: Path) -> None:
    """What a slot works on is not in the memory yet; an engine that shares blocks between requests has no such case."""
    found, _ = measured(remembering, tmp_path, 12, concurrency=4, prefix_groups=9, **GROUPS)
    assert found.usage is not None
    assert found.expected - 0.3 < found.usage < found.expected + 0.03


@pytest.mark.slow
def test_a_server_that_gives_prefixes_up_is_found_out(llama: str, tmp_path: Path) -> None:
    """Without that memory a slot knows its last prompt alone, and nine prefixes take turns in four of them."""
    found, run = measured(llama, tmp_path, 13, concurrency=1, prefix_groups=9, **GROUPS)
    assert found.usage is not None
    assert found.usage < found.expected - 0.05
    (said,) = [r.message for r in run.levels[0].verdict.reasons if r.code == "cache"]
    assert "the server gave prefixes up" in said


@pytest.mark.slow
@pytest.mark.parametrize("streams", [1, 3])
def test_conversations_are_found_as_expected(remembering: str, tmp_path: Path, streams: int) -> None:
    """Their history has made up answers, which no cache knows."""
    found, _ = measured(
        remembering, tmp_path, 20 + streams, concurrency=streams, history="recorded", requests=24, **TURNS
    )
    assert found.expected > 0.4
    assert found.usage == pytest.approx(found.expected, abs=0.03)


@pytest.mark.slow
def test_the_servers_own_answers_may_be_read_as_other_tokens_than_were_written(
    remembering: str, tmp_path: Path
) -> None:
    """At most the answer before last is lost of each later turn: its text, once sent, is read in tokens of its own."""
    found, run = measured(remembering, tmp_path, 24, concurrency=1, history="served", requests=24, **TURNS)
    folder = RunFolder.open(run.path)
    trace = folder.trace(folder.levels()[0].level)
    folder.close()
    written = TURNS["output_tokens"] * (trace.turn > 0).sum() / trace.input_tokens.sum()
    assert found.usage is not None
    assert found.expected - written - 0.03 < found.usage < found.expected + 0.03


def test_its_context_is_that_of_a_slot(llama: str) -> None:
    assert context_of(Target(llama, model=MODEL)) == CONTEXT_TOKENS
