"""On a terminal that cannot carry a character, a stand-in for it and no error."""

import io
import json
import os
import shutil
from pathlib import Path

import pytest

from pacemark.reporting.ascii import degrade
from support.cli_tools import pacemark

GOLDEN = Path(__file__).parents[1] / "golden" / "run"


def written(text: str, encoding: str) -> str:
    raw = io.BytesIO()
    stream = io.TextIOWrapper(raw, encoding=encoding)
    degrade(stream)
    stream.write(text)
    stream.flush()
    return raw.getvalue().decode(encoding)


def test_what_an_encoding_lacks_has_a_stand_in() -> None:
    assert written("1–2 … café · ─━ 模", "ascii") == "1-2 ... cafe - -- ?"
    assert written("café –", "latin-1") == "café -"


def test_what_it_carries_stays() -> None:
    assert written("1–2 … café · ─━ 模", "utf-8") == "1–2 … café · ─━ 模"


def test_a_stream_that_is_no_file_is_left_alone() -> None:
    stream = io.StringIO()
    degrade(stream)
    assert stream.write("–") == 1


@pytest.mark.slow(shared=True)
def test_a_run_with_foreign_names_is_shown_in_the_c_locale(tmp_path: Path) -> None:
    folder = Path(shutil.copytree(GOLDEN, tmp_path / "run"))
    summary = folder / "summary.json"
    content = json.loads(summary.read_text())
    content["levels"][0]["verdict"]["reasons"] = [{"code": "odd", "message": "it said: „zu viele Anfragen“ … 模型"}]
    summary.write_text(json.dumps(content), encoding="utf-8")
    environment = {"PYTHONIOENCODING": "ascii", "LC_ALL": "C", "PYTHONUTF8": "0"}
    done = pacemark("show", folder, env=os.environ | environment)
    assert done.returncode == 0, done.stderr
    assert done.stdout.isascii()
    assert 'it said: "zu viele Anfragen" ... ??' in " ".join(done.stdout.split())
