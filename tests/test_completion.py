"""Shells that complete commands and flags, as they ask for it: `pacemark --install-completion` sets them up."""

from __future__ import annotations

from pathlib import Path

import pytest

from support.cli_tools import pacemark

ASKED = {
    "bash": lambda words: {"COMP_WORDS": words, "COMP_CWORD": str(words.count(" "))},
    "zsh": lambda words: {"_TYPER_COMPLETE_ARGS": words},
    "fish": lambda words: {"_TYPER_COMPLETE_ARGS": words, "_TYPER_COMPLETE_FISH_ACTION": "get-args"},
}


@pytest.mark.parametrize("shell", ASKED)
@pytest.mark.parametrize(
    ("words", "there", "not_there"),
    [("pacemark re", ("report", "resume"), "sweep"), ("pacemark run sim:demo --conc", ("--concurrency",), "--rate")],
)
def test_commands_and_flags_are_completed(
    shell: str, words: str, there: tuple[str, ...], not_there: str, tmp_path: Path
) -> None:
    done = pacemark(cwd=tmp_path, env={"_PACEMARK_COMPLETE": f"complete_{shell}"} | ASKED[shell](words))
    assert done.returncode == 0, done.stderr
    assert all(name in done.stdout for name in there), done.stdout
    assert not_there not in done.stdout
