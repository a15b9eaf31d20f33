"""The file that a run takes its requests from: read before anything is sent, and told in one line."""

from __future__ import annotations

from typing import Any

import msgspec

from pacemark.dialects.dialect import DIALECTS
from pacemark.endpoint.speaking import AUTO
from pacemark.errors import BadInput
from pacemark.pace import Concurrency, Load, Rate
from pacemark.scenario import Levels, Recording, Scenario, Search, Workload
from pacemark.traffic import refuse_several
from pacemark.units import duration
from pacemark.workload.files import Suits, read, read_trace
from pacemark.workload.replay import mark_shared, timed
from pacemark.workload.row import FileFound, Row, Rows

__all__ = ["in_one_line", "load_of", "paced", "refuse_unsuited", "rows_of", "too_long"]


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
    if recording.replay:
        return _trace(order, recording, source, how)
    api = order.access.api
    rows = read(recording.path or source, suits=_anything if api == AUTO else _suits(api), **how)
    name = recording.path or "the data frame"
    if order.workload.history == "served" and not rows.conversations:
        raise BadInput(f"{name}: --history served needs rows that hold whole conversations; these are single requests")
    needed = max((load.value for load in order.loads if isinstance(load, Concurrency)), default=0)
    if recording.once and len(rows) < 2 * needed and not isinstance(order.goal, Search):
        raise BadInput(f"{name}: {len(rows):,} rows run out before {needed} streams are under way; leave --once out")
    return rows


def _trace(order: Scenario, recording: Recording, source: Any, how: dict[str, str]) -> Rows:
    """The rows of a trace. Raises BadInput as `rows_of` does, and for one that has no two times."""
    api = order.access.api
    if any(not (isinstance(load, Rate) and load.speed) for load in order.loads):
        raise BadInput("--trace is a load of its own: it goes with run, sweep and find")
    suits = _anything if api == AUTO else _suits(api)
    rows = read_trace(recording.path or source, block_tokens=recording.block_tokens, suits=suits, **how)
    if not timed(rows, order.workload).per_s:
        raise BadInput(f"{recording.path or 'the data frame'}: its rows have one time, so there is nothing to replay")
    mark_shared(rows, order.workload)
    if recording.jitter and not rows.found.quantum_ms:
        rows.found.said.append("--jitter: its times are not rounded to any step, so they stay as they are")
    return rows


def paced(order: Scenario, rows: Rows | None, most_s: float | None = None) -> Scenario:
    """The order with what only its file tells: how many requests a second each speed of a trace is, and the mean
    lengths, where the file has them. Raises BadInput where a search may last `most_s` and its first level lasts longer.
    """
    if rows is None:
        return order
    if isinstance(order.goal, Search) and order.goal.load == "speed" and most_s is not None:
        lasts_s = float(timed(rows, order.workload).at_ns[-1]) / 1e9
        if lasts_s > most_s:
            raise BadInput(
                f"the trace lasts {duration(lasts_s * 1e3)} at speed 1, which find begins with, and may search for "
                f"{duration(most_s * 1e3)}: give it a longer --max-duration, or a shorter part of the trace"
            )
    means = {"input_tokens": rows.found.input_tokens, "output_tokens": rows.found.output_tokens}
    known = {name: max(1, round(mean)) for name, mean in means.items() if mean is not None}
    order = msgspec.structs.replace(order, workload=msgspec.structs.replace(order.workload, **known))
    if isinstance(order.goal, Levels):
        loads = tuple(load_of(load, rows, order.workload) for load in order.goal.loads)
        order = msgspec.structs.replace(order, goal=msgspec.structs.replace(order.goal, loads=loads))
    return order


def load_of(load: Load, rows: Rows | None, workload: Workload) -> Load:
    """A load as it is; of a trace, with its requests per second and the CV of its gaps."""
    if rows is None or not isinstance(load, Rate) or not load.speed:
        return load
    at_one = timed(rows, workload)
    per_s, cv = (float(f"{x:.4g}") for x in (at_one.per_s * load.speed, at_one.cv))
    return msgspec.structs.replace(load, value=per_s, burstiness=cv)


def refuse_unsuited(rows: Rows, api: str) -> None:
    """Raises BadInput for the first row that an API cannot ask, where which one it is was found out since."""
    suits = _suits(api)
    for row in rows:
        try:
            suits(row)
        except BadInput as error:
            raise BadInput(f"row {row.number}: {error}") from None


def too_long(rows: Rows, context: int | None) -> str:
    """What to say where a model that takes `context` tokens, prompt and answer together, will refuse rows for their
    recorded lengths; empty where it takes all, or where either is not known. Raises BadInput where it takes none."""
    if context is None or rows.found.input_tokens is None:
        return ""
    lengths = ((row.number, (row.input_tokens or 0) + (row.output_tokens or 1)) for row in rows)
    beyond = [(number, tokens) for number, tokens in lengths if tokens > context]
    if not beyond:
        return ""
    longest = max(tokens for _, tokens in beyond)
    told = (
        f"{len(beyond):,} of {len(rows):,} rows, row {beyond[0][0]:,} first, are longer than the {context:,} tokens "
        f"that the model takes, prompt and answer together (the longest has {longest:,})"
    )
    if len(beyond) == len(rows):
        raise BadInput(f"{told}: it would refuse every one")
    return f"{told}: it will refuse them, and they count as failed; for figures without them take them out of the file"


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
        refuse_several(row.body or {})
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
