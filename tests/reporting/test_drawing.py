"""What draws is made once, and is the same wherever it comes from."""

from pathlib import Path

import pytest

from pacemark.reporting import drawing


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
def test_where_nothing_can_be_kept_it_is_made_anew(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    drawing._script.cache_clear()
    assert len(drawing.script()) > 500_000
    drawing._script.cache_clear()
