"""The command line within this process: what a user sees of it, without the second that a process takes to start."""

from __future__ import annotations

import contextlib
import io
import os
import subprocess
import warnings
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

from pacemark.cli import main

Done = subprocess.CompletedProcess[str]


def inside(
    *words: object, cwd: Path | None = None, env: Mapping[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    """Call the command line's `main`; what it leaves is what a process would."""
    said = {name: io.TextIOWrapper(io.BytesIO(), encoding="utf-8", write_through=True) for name in ("out", "err")}
    with (
        _surroundings(cwd, env),
        contextlib.redirect_stdout(said["out"]),
        contextlib.redirect_stderr(said["err"]),
        pytest.raises(SystemExit) as ended,
    ):
        main([str(word) for word in words])
    code = ended.value.code
    assert isinstance(code, int)
    out, err = (stream.buffer.getvalue().decode() for stream in said.values())
    return subprocess.CompletedProcess([str(word) for word in words], code, out, err)


@contextlib.contextmanager
def _surroundings(cwd: Path | None, env: Mapping[str, str] | None) -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch, warnings.catch_warnings():
        warnings.simplefilter("default")
        warnings.simplefilter("ignore", ResourceWarning)  # as Python has it outside of tests
        patch.delenv("PACEMARK_API_KEY", raising=False)
        for name, value in (env or {}).items():
            patch.setenv(name, value)
        with contextlib.chdir(cwd or os.getcwd()):
            yield
