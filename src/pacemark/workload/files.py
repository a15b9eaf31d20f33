"""A user's own traffic: the rows of a file of requests or of a trace, whatever its format, and what was found in it."""

from __future__ import annotations

import errno
from collections.abc import Callable, Iterator, Mapping
from itertools import chain
from pathlib import Path
from typing import Any

import msgspec

from pacemark.errors import BadInput
from pacemark.units import duration
from pacemark.workload.keys import Keys, settle, tell_keys
from pacemark.workload.records import Record, records_of
from pacemark.workload.row import FileFound, Row, Rows, Writing, turns
from pacemark.workload.times import NS, UNITS, Quantum, quantum_said
from pacemark.workload.traces.format import Format, How, Left, Taken
from pacemark.workload.traces.formats import format_of

__all__ = ["Suits", "look", "read", "read_trace"]

Suits = Callable[[Row], None]
"""Raises BadInput for a row that cannot be sent."""


def read(source: Any, *, key: str = "", unit: str = "", spans: str = "", suits: Suits = lambda row: None) -> Rows:
    """The rows of a file of requests: JSONL, JSON, CSV, text, Parquet, Arrow, .gz or .zst of them, a folder of part
    files, a data frame. Every row has a prompt, messages or a body. A conversation gives a row for each of its turns.

    `key` names what holds the prompt, `unit` (ns, us, ms, s) that of times which do not tell it themselves; `spans`
    (root, model) says which requests of an agent's traces are meant; `suits` raises BadInput for a row that cannot be
    sent. Raises BadInput, with the row's number, for a file that is not what it says, is empty, or has a row without a
    prompt.
    """
    return _read(source, How(key=key, unit=unit, spans=spans), prompts=True, suits=suits)


def read_trace(
    source: Any,
    *,
    unit: str = "",
    block_tokens: int = 0,
    spans: str = "",
    key: str = "",
    suits: Suits = lambda row: None,
) -> Rows:
    """The rows of a trace, each with its time since the first, in order of time.

    Formats: those of `traces/formats.py`, and files of requests whose rows have times. `block_tokens` is the size of
    the blocks that `hash_ids` name, where it is not that of the format. Otherwise as `read`; raises BadInput also for
    times out of order, but for formats that are known to have none, and for blocks that do not cover a prompt.
    """
    return _read(source, How(key, unit, block_tokens, spans), times=True, suits=suits)


def look(source: Any, *, unit: str = "", block_tokens: int = 0, spans: str = "", key: str = "") -> Rows:
    """The rows of any file that `read` or `read_trace` takes, with or without prompts and times. Raises as they do."""
    return _read(source, How(key, unit, block_tokens, spans))


def _read(
    source: Any, how: How, *, prompts: bool = False, times: bool = False, suits: Suits = lambda row: None
) -> Rows:
    name = str(source) if isinstance(source, (str, Path)) else "the data frame"
    if how.unit and how.unit not in NS:
        raise BadInput(f"--unit {how.unit!r} is not known: {UNITS}")
    if not 0 <= how.block_tokens <= 2**20:
        raise BadInput(f"--block-tokens {how.block_tokens} is no size of a block")
    try:
        kind, records, plain = records_of(source)
        found = FileFound(kind)
        first = next(_filled(records, found), None)
        if first is None:
            raise BadInput("it has no row")
        reading = _Reading(found, suits, prompts=prompts, times=times)
        records = _filled(chain([first], records), found)
        if format := format_of(first.value):
            return reading.trace(format(how, found), records)
        return reading.file(first, records, how, Path(source) if plain else None)
    except BadInput as error:
        raise BadInput(f"{name}: {error}") from None
    except OSError as error:
        why = "; a copy of the rows is kept in TMPDIR meanwhile" if error.errno == errno.ENOSPC else ""
        raise BadInput(f"{name}: {error.strerror or error}{why}") from None


def _filled(records: Iterator[Record], found: FileFound) -> Iterator[Record]:
    """The records that are no blank lines."""
    for record in records:
        if record.value is None:
            found.leave("a blank line", record.number)
        else:
            yield record


class _Reading:
    """One pass over a file: what is taken, what is left out, and whether the times are in order."""

    def __init__(self, found: FileFound, suits: Suits, *, prompts: bool, times: bool) -> None:
        self.found, self._suits, self._prompts, self._times = found, suits, prompts, times
        self._quantum = Quantum()
        self._origin_ns: int | None = None
        self._low_ms, self._high_ms = 0.0, 0.0
        self._timed, self._back, self._first_back = 0, 0, 0

    def trace(self, format: Format, records: Iterator[Record]) -> Rows:
        """The rows of a trace of a known format."""
        self.found.format = format.name
        writing = Writing(self.found)
        for number, value, *_ in records:
            try:
                if not isinstance(value, Mapping) or not format.knows(value):
                    raise BadInput(f"it is no row of {format.name}, as the first is")
                for taken in format.take(value, number):
                    if isinstance(taken, Left):
                        self.found.leave(taken.reason, number)
                    else:
                        row = self._placed(taken, format.ordered)
                        writing.add(row, to_sort=not format.ordered, counted=format.counted)
            except BadInput as error:
                raise BadInput(f"row {number}: {error}") from None
        format.end()
        return self._done(writing)

    def file(self, first: Record, records: Iterator[Record], how: How, path: Path | None) -> Rows:
        """The rows of a file of requests; with `path` they are read again from there."""
        keys = Keys("")
        try:
            keys = settle(first.value, {"key": how.key, "unit": how.unit})
        except BadInput as error:
            raise BadInput(f"row {first.number}: {error}") from None
        writing = Writing(self.found, path, keys if path else None)
        named: set[str] = set()
        for number, value, offset, length in records:
            try:
                if isinstance(value, Mapping) and not value.keys() <= named:
                    named |= value.keys()
                    keys.learn(value)
                row = keys.row(value, number)
                self._check(row, ordered=True)
                parts = len(turns(row.messages or [])) if keys.kind == "conversation" else 0
                if keys.kind == "conversation" and not parts:
                    self.found.leave("a conversation in which nothing is asked", number)
                else:
                    writing.add(row, offset, length, parts=parts)
            except BadInput as error:
                raise BadInput(f"row {number}: {error}") from None
        tell_keys(keys, named, self.found)
        return self._done(writing)

    def _placed(self, taken: Taken, ordered: bool) -> Row:
        """The row with its time since the first."""
        row = taken.row
        if taken.at_ns is not None:
            if self._origin_ns is None:
                self._origin_ns = taken.at_ns
            row = msgspec.structs.replace(row, at_ms=(taken.at_ns - self._origin_ns) / 1e6)
        self._check(row, ordered)
        return row

    def _check(self, row: Row, ordered: bool) -> None:
        """Raises BadInput for a row that cannot serve what rows are wanted for."""
        if self._prompts and row.prompt is None and row.messages is None and row.body is None:
            raise BadInput("it has lengths and times and no prompt: it is a trace, for --trace")
        self._suits(row)
        if row.at_ms is None:
            if self._times:
                raise BadInput("it has no time that can be understood, which a trace needs")
            return
        if row.at_ms < self._high_ms:
            if ordered and self._times:
                back = duration(self._high_ms - row.at_ms)
                raise BadInput(f"its time is {back} before that of a row above: sort the file by its times")
            self._back += 1
            self._first_back = self._first_back or row.number
        self._timed += 1
        self._low_ms, self._high_ms = min(self._low_ms, row.at_ms), max(self._high_ms, row.at_ms)
        self._quantum.add(round(row.at_ms * 1e6))

    def _done(self, writing: Writing) -> Rows:
        found = self.found
        if not found.rows:
            why = "; ".join(f"{x.reason} (row {x.first}{' and more' if x.rows > 1 else ''})" for x in found.left_out)
            raise BadInput(f"no row can be used: {why or 'it has none'}")
        if self._back:
            sorted_now = "they were put in order" if writing.sorting else "they are no order to replay"
            found.said.append(f"{self._back:,} times are before one above, row {self._first_back} first; {sorted_now}")
        if self._timed:
            found.quantum_ms = self._quantum.found_ms()
            said = quantum_said(found.quantum_ms or 0.0, self._timed, self._high_ms - self._low_ms)
            found.said += [said] if said else []
        return writing.done()
