"""The file that a run takes its requests from: read before anything is sent, and told in one line."""

from __future__ import annotations

from typing import Any

from pacemark.dialects.dialect import DIALECTS
from pacemark.errors import BadInput
from pacemark.pace import Concurrency
from pacemark.scenario import Recording, Scenario, Search
from pacemark.workload.files import Suits, read
from pacemark.workload.row import FileFound, Row, Rows

__all__ = ["in_one_line", "refuse_unsuited", "rows_of"]


def rows_of(order: Scenario, source: Any) -> Rows | None:
    """The rows that an order sends, from a data frame `source` or from its file; None where prompts are made up.

    Raises BadInput, with the row's number, for what cannot be read or sent by the order's API, and where the rows would
    run out before the load is up.
    """
    recording = order.workload.recording
    if recording is None:
        return None
    if not recording.path and source is None:
        raise BadInput("its requests were the rows of a data frame, which are not stored: measure anew")
    how = {"key": recording.key, "unit": recording.unit, "spans": recording.spans}
    api = order.access.api
    rows = read(recording.path or source, suits=_anything if api == "auto" else _suits(api), **how)
    name = recording.path or "the data frame"
    if order.workload.history == "served" and not rows.conversations:
        raise BadInput(f"{name}: --history served needs rows that hold whole conversations; these are single requests")
    needed = max((load.value for load in order.loads if isinstance(load, Concurrency)), default=0)
    if recording.once and len(rows) < 2 * needed and not isinstance(order.goal, Search):
        raise BadInput(f"{name}: {len(rows):,} rows run out before {needed} streams are under way; leave --once out")
    return rows


def refuse_unsuited(rows: Rows, api: str) -> None:
    """Raises BadInput for the first row that an API cannot ask, where which one it is was found out since."""
    suits = _suits(api)
    for row in rows:
        try:
            suits(row)
        except BadInput as error:
            raise BadInput(f"row {row.number}: {error}") from None


def _anything(row: Row) -> None:
    pass


def _suits(api: str) -> Suits:
    """Raises BadInput for a row that an API cannot ask."""
    dialect = DIALECTS[api]
    if dialect.documents:
        raise BadInput(f"--data is of prompts, and --api {api} ranks documents")
    (field, *_), chats = dialect.ask("@"), "messages" in dialect.ask("@")

    def suits(row: Row) -> None:
        if row.body is not None and field not in row.body:
            raise BadInput(f"its body has no {field!r}, with which --api {api} asks")
        if row.messages is not None and not chats and api != "responses":
            raise BadInput(f"it has messages, which --api {api} does not take")

    return suits


def in_one_line(recording: Recording | None, found: FileFound) -> str:
    """What was taken from a file and what was not; nothing of what its rows say."""
    name = recording.path if recording is not None else ""
    keys = ", ".join(f"{what} from {key!r}" for what, key in found.keys.items())
    left = "; ".join(f"left out {x.rows:,}, row {x.first:,} first: {x.reason}" for x in found.left_out)
    parts = [f"{found.rows:,} rows of {found.format}", keys, left, *found.said]
    return f"{name or 'the data frame'}: {'; '.join(part for part in parts if part)}"
