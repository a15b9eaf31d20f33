"""Files are whole or not there."""

import os
import threading
from pathlib import Path

import pytest

from pacemark import files
from pacemark.errors import BadInput


def test_a_file_that_cannot_be_written_whole_is_left_as_it_was(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "report.html"
    files.write_whole(path, b"before")

    def stopped(self: Path, data: bytes) -> int:
        with self.open("wb") as part:
            part.write(data[:3])
        raise KeyboardInterrupt

    monkeypatch.setattr(Path, "write_bytes", stopped)
    with pytest.raises(KeyboardInterrupt):
        files.write_whole(path, b"after")
    assert path.read_bytes() == b"before"
    assert [x.name for x in tmp_path.iterdir()] == ["report.html"]


def test_a_folder_whose_writer_is_just_ending_is_waited_for(tmp_path: Path) -> None:
    first = files.held(tmp_path)
    assert first is not None
    end = threading.Timer(0.2, os.close, [first])
    end.start()
    second = files.held(tmp_path)
    end.join()
    assert second is not None
    with pytest.raises(BadInput, match="being written by another process"):
        files.held(tmp_path)
    os.close(second)


def test_the_cache_is_where_the_user_says(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", "/elsewhere")
    assert files.cache_folder() == Path("/elsewhere/pacemark")
    monkeypatch.setenv("XDG_CACHE_HOME", "")
    assert files.cache_folder() == Path.home() / ".cache" / "pacemark"
