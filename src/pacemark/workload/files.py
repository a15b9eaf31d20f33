"""Files of requests: what a user has asked, or wants asked, in whatever shape it was kept."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec

from pacemark.errors import BadInput
from pacemark.workload.row import FileFound, Row, Rows, Writing

__all__ = ["read"]


def read(path: Path | str) -> Rows:
    """The rows of a file of requests.

    Raises BadInput, with the row's number, for a file that is not what it says or holds no request.
    """
    path = Path(path)
    writing = Writing(FileFound("jsonl"), path, _line)
    with path.open("rb") as file:
        offset = 0
        for number, line in enumerate(file, 1):
            writing.add(_line(line, number), offset, len(line))
            offset += len(line)
    if not writing.found.rows:
        raise BadInput(f"{path}: the file is empty")
    return writing.done()


def _line(line: bytes, number: int) -> Row:
    try:
        value: Any = msgspec.json.decode(line)
    except msgspec.DecodeError as error:
        raise BadInput(f"row {number}: no JSON: {error}") from None
    if not isinstance(value, dict):
        raise BadInput(f"row {number}: no JSON object")
    return Row(number, prompt=value.get("prompt"), messages=value.get("messages"))
