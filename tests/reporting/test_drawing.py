"""What draws is made once, and is the same wherever it comes from."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from pacemark.reporting import drawing


@pytest.mark.slow(shared=True)
def test_the_script_is_made_once_and_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    drawing._script.cache_clear()
    made = drawing.script()
    (kept,) = (tmp_path / "pacemark").iterdir()
    assert kept.read_text() == made
    assert "prefers-color-scheme" in made
    kept.write_text("// kept")
    drawing._script.cache_clear()
    assert drawing.script() == "// kept"
    drawing._script.cache_clear()


@pytest.mark.slow(shared=True)
@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere the limit is none, or means nothing")
def test_a_run_that_may_not_have_the_addresses_for_drawing_keeps_its_figures(tmp_path: Path) -> None:
    """The engine that draws would end the process by a signal, as a batch system's limit on memory makes it."""
    command = [sys.executable, "-P", "-m", "pacemark.cli", "run", "sim:demo", "--concurrency", "2", "--duration", "1"]
    limited = ["sh", "-c", 'ulimit -v 4000000; exec "$@"', "sh", *command, "--json", "--out", str(tmp_path)]
    environment = os.environ | {"XDG_CACHE_HOME": str(tmp_path / "none")}
    done = subprocess.run(limited, env=environment, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0
    assert json.loads(done.stdout)["levels"]
    assert "charts cannot be drawn" in done.stderr


@pytest.mark.slow(shared=True)
def test_where_nothing_can_be_kept_it_is_made_anew(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    drawing._script.cache_clear()
    assert len(drawing.script()) > 500_000
    drawing._script.cache_clear()
