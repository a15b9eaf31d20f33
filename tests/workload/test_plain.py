"""What typed files and data frames hold becomes what JSON has, or is refused by its row; nothing is lost in silence."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pacemark.errors import BadInput
from pacemark.workload.files import read, read_trace
from pacemark.workload.plain import plain_value
from pacemark.workload.row import Row
from support.needed import needed

ASKED = [{"role": "user", "content": "Hi"}]


@pytest.mark.parametrize(
    ("value", "meant"),
    [
        (np.str_("a"), "a"),
        (np.int32(5), 5),
        (np.float32(1.5), 1.5),
        (np.bool_(True), True),
        (np.array(ASKED, dtype=object), ASKED),
        (tuple(ASKED), ASKED),
        (np.array(5), 5),
        (Decimal(7), 7),
        (Decimal("7.5"), 7.5),
        (Decimal("NaN"), None),
        (float("nan"), None),
        (np.float64("nan"), None),
        (np.datetime64("NaT"), None),
        (b"Hi", "Hi"),
        (b"\xff", b"\xff"),
        ({1: [np.float32(0.5)]}, {"1": [0.5]}),
        ([("role", np.str_("user"))], [("role", "user")]),
    ],
)
def test_other_types_of_the_same_values(value: Any, meant: Any) -> None:
    assert plain_value(value) == meant
    assert type(plain_value(value)) is type(meant)


def test_what_is_no_value_of_json_is_refused_by_its_row() -> None:
    for asked in ("half \ud800", {"a": object()}, 2**70):
        with pytest.raises(BadInput, match="row 2: it holds what no request can"):
            read([{"messages": ASKED}, {"messages": [{"role": "user", "content": asked}]}])


def test_half_a_character_in_an_array_is_refused_by_its_row(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    path.write_text('[{"prompt": "a"}, {"prompt": "\\ud800"}]')
    with pytest.raises(BadInput, match="row 2: it holds what no request can"):
        read(path)


def test_a_missing_value_that_python_wrote_as_nan_is_none(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    path.write_text(json.dumps([{"prompt": "a", "max_tokens": 3}, {"prompt": "b", "max_tokens": float("nan")}]))
    assert [row.output_tokens for row in read(path)] == [3, None]


def test_typed_files_and_the_frames_that_pandas_makes_of_them(tmp_path: Path) -> None:
    arrow, parquet, pandas = needed("pyarrow"), needed("pyarrow.parquet"), needed("pandas")
    table = arrow.table(
        {
            "messages": [ASKED, ASKED],
            "max_tokens": arrow.array([4.0, float("nan")]),
            "input_tokens": [Decimal(5), None],
            "session_id": [b"s", b"s"],
            "timestamp": [datetime(2026, 1, 1, tzinfo=UTC), datetime(2026, 1, 1, 0, 0, 1, tzinfo=UTC)],
        }
    )
    path = tmp_path / "a.parquet"
    parquet.write_table(table, path)
    truth = [
        Row(1, messages=ASKED, input_tokens=5, output_tokens=4, at_ms=0.0, session="s"),
        Row(2, messages=ASKED, at_ms=1000.0, session="s", turn=1),
    ]
    for source in (path, table, pandas.read_parquet(path), table.to_pylist()):
        assert list(read_trace(source)) == truth
    gaps = pandas.DataFrame({"prompt": ["a", "b"], "max_tokens": pandas.array([1, None], dtype="Int64")})
    assert [row.output_tokens for row in read(gaps)] == [1, None]


def test_two_columns_of_one_name_are_refused_in_every_table(tmp_path: Path) -> None:
    arrow, parquet, pandas = needed("pyarrow"), needed("pyarrow.parquet"), needed("pandas")
    table = arrow.table([arrow.array(["a"]), arrow.array(["b"])], names=["prompt", "prompt"])
    parquet.write_table(table, tmp_path / "a.parquet")
    frame = pandas.DataFrame([["a", "b"]], columns=["prompt", "prompt"])
    for source in (table, frame, tmp_path / "a.parquet"):
        with pytest.raises(BadInput, match="two of its columns are named 'prompt': rename one"):
            read(source)


def test_what_pandas_and_spreadsheets_make_of_a_table_with_gaps(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_text("prompt,max_tokens,timestamp_s\nHi,12.0, 5\n,,\nHo, 7 ,6\n,,\n")
    rows = read_trace(path)
    assert list(rows) == [
        Row(1, prompt="Hi", output_tokens=12, at_ms=0.0),
        Row(3, prompt="Ho", output_tokens=7, at_ms=1000.0),
    ]
    assert [(x.reason, x.rows) for x in rows.found.left_out] == [("a blank line", 2)]
