"""Rows of a file: read in order, read again by number, in another process, and nothing left behind."""

from __future__ import annotations

import gc
import pickle
import tempfile
from pathlib import Path

import numpy as np
import pytest

from pacemark.workload.row import FileFound, Row, Rows, Writing


def kept(rows: list[Row]) -> Rows:
    writing = Writing(FileFound("of the test"))
    for row in rows:
        writing.add(row)
    return writing.done()


ROWS = [
    Row(k + 1, prompt=f"p{k}", input_tokens=k, at_ms=10.0 * k, blocks=(k, 2**64 - 1), block_tokens=16)
    for k in range(3000)
]


def test_rows_come_back_in_order_and_by_number() -> None:
    rows = kept(ROWS)
    assert len(rows) == 3000
    assert list(rows) == ROWS
    assert rows[2999] == ROWS[2999]
    with pytest.raises(IndexError):
        rows[3000]
    with pytest.raises(IndexError):
        rows[-1]


def test_another_process_reads_the_same() -> None:
    rows = kept(ROWS[:5])
    assert rows[1] == ROWS[1]
    assert list(pickle.loads(pickle.dumps(rows))) == ROWS[:5]


def test_rows_are_put_in_order_of_time() -> None:
    rows = kept([Row(1, at_ms=30.0), Row(2, at_ms=-10.0), Row(3, at_ms=5.0)])
    rows.sort(np.array([30.0, -10.0, 5.0]))
    assert [(row.number, row.at_ms) for row in rows] == [(2, 0.0), (3, 15.0), (1, 40.0)]


def test_nothing_is_left_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    rows = kept(ROWS[:5])
    again = pickle.loads(pickle.dumps(rows))
    assert len(list(tmp_path.iterdir())) == 1
    del again
    gc.collect()
    assert rows[4] == ROWS[4]
    del rows
    abandoned = Writing(FileFound("of the test"))
    del abandoned
    gc.collect()
    assert list(tmp_path.iterdir()) == []
