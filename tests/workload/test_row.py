"""Rows of a file: read in order, read again by number, in another process, and nothing left behind."""

from __future__ import annotations

import gc
import pickle
import tempfile
from pathlib import Path
from typing import Any

import pytest

from pacemark.workload.row import FileFound, Row, Rows, Writing, turn_of, turns


def kept(rows: list[Row], *, to_sort: bool = False) -> Rows:
    writing = Writing(FileFound("of the test"))
    for row in rows:
        writing.add(row, to_sort=to_sort)
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
    rows = kept([Row(1, at_ms=30.0), Row(2, at_ms=-10.0), Row(3, at_ms=5.0)], to_sort=True)
    assert [(row.number, row.at_ms) for row in rows] == [(2, 0.0), (3, 15.0), (1, 40.0)]


def test_the_rows_of_a_session_are_counted() -> None:
    people = [f"s{k % 7}" if k % 3 else None for k in range(2000)]
    rows = kept([Row(k + 1, session=name, at_ms=-k) for k, name in enumerate(people)], to_sort=True)
    seen: dict[str, int] = {}
    for row in rows:
        assert row.turn == (seen.get(row.session, 0) if row.session else 0)
        if row.session:
            seen[row.session] = row.turn + 1
    assert sum(seen.values()) == len([name for name in people if name])
    assert [row.number for row in rows] == list(range(2000, 0, -1))


def test_a_conversation_is_cut_at_its_turns() -> None:
    def said(*roles: str) -> list[dict[str, Any]]:
        return [{"role": role, "content": f"{role} {k}"} for k, role in enumerate(roles)]

    messages = said("system", "user", "assistant", "user", "user", "assistant", "tool", "tool", "assistant")
    assert turns(messages) == [2, 4, 5, 8]
    assert turns(said("assistant", "user")) == [2]
    assert turns(said("system", "assistant")) == turns([]) == []
    asked = [turn_of(Row(1, messages=messages, session="s"), k) for k in range(4)]
    assert [(len(row.messages or []), row.turn, row.answer) for row in asked] == [
        (2, 0, "assistant 2"), (4, 1, None), (5, 2, "assistant 5"), (8, 3, "assistant 8"),
    ]  # fmt: skip
    writing = Writing(FileFound("of the test"))
    writing.add(Row(1, messages=messages, session="s"), parts=4)
    assert list(writing.done()) == asked


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
