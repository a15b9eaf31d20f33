"""What was sent and answered is kept word for word where a user asks for it, and nowhere else."""

from __future__ import annotations

import contextlib
import json
import sqlite3
from pathlib import Path
from typing import Any

import pytest

import pacemark
from pacemark.integrations.mlflow import FILES
from pacemark.simulator import serving

KEY = "sesame-open-0123456789"
SECRET = "the-users-own-words"


def measured(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, **more: Any) -> Path:
    """The folder of a run over rows of a user's own."""
    rows = tmp_path / "rows.jsonl"
    rows.write_text("\n".join(json.dumps({"prompt": f"{SECRET} {n}", "output_tokens": 3}) for n in range(20)))
    monkeypatch.setenv("KEY", KEY)
    with serving("fixed", ttft_ms=2, itl_ms=1, api_key_env="KEY") as served:
        run = pacemark.run(
            served.url,
            concurrency=3,
            data=rows,
            duration=0.5,
            api_key_env="KEY",
            out=tmp_path / "runs",
            workers=2,
            **more,
        )
    return run.path


@pytest.mark.slow(shared=True)
def test_they_stand_in_a_file_of_their_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = measured(tmp_path, monkeypatch, keep_bodies=True)
    with contextlib.closing(sqlite3.connect(path / "run.db")) as db:
        numbers = set(db.execute("SELECT level, idx FROM request WHERE level >= 0"))
    with contextlib.closing(sqlite3.connect(path / "bodies.db")) as db:
        kept = db.execute("SELECT level, idx, sent, answered FROM body WHERE level >= 0").fetchall()
    assert len(kept) == len(numbers) > 20
    assert {row[:2] for row in kept} == numbers
    for _, _, sent, answered in kept:
        asked = json.loads(sent)
        assert asked["messages"][-1]["content"].startswith(SECRET)
        assert answered.count(b"data: ") >= 3
        assert answered.endswith(b"data: [DONE]\n\n")
    for file in path.iterdir():
        data = file.read_bytes()
        assert KEY.encode() not in data, file
        assert (SECRET.encode() in data) == (file.name == "bodies.db"), file
    assert "bodies.db" not in FILES
    assert json.loads((path / "run.json").read_text())["settings"]["keep_bodies"]


@pytest.mark.slow(shared=True)
def test_nothing_is_kept_unasked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = measured(tmp_path, monkeypatch)
    assert {file.name for file in path.iterdir()} == {"run.json", "run.db", "summary.json", "report.html"}
    assert not [file for file in path.iterdir() if SECRET.encode() in file.read_bytes()]
