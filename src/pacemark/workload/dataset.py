"""Requests of a file: its rows, or whole sessions of them, in an order that hangs on the seed."""

from __future__ import annotations

import math
from collections import defaultdict

import msgspec

from pacemark.lengths import Draws
from pacemark.scenario import Recording, Workload
from pacemark.trace import ABSENT, UNTOLD
from pacemark.workload.conversations import message
from pacemark.workload.order import Order
from pacemark.workload.row import Row, Rows
from pacemark.workload.source import Ask, Heard, Written
from pacemark.workload.underway import Underway

__all__ = ["Dataset", "body_for"]

_encode = msgspec.json.encode

_OUTPUT = 2
"""As in `pacemark.workload.synthetic`: what is drawn with one seed, apart."""


class _Session:
    """A session of several rows."""

    __slots__ = ("at", "messages", "rows", "turn")

    def __init__(self, rows: list[int]) -> None:
        self.rows, self.turn = rows, 0
        self.messages: list[bytes] = []
        """What was said so far, where the server's own answers stand in it."""
        self.at = 0
        """So many messages of the recorded conversation are among them, or were answered otherwise."""


class Dataset:
    """The `Source` of a file of requests. Where rows are not to come again `ask` gives None once they have run out;
    there may be more when sessions go on, until it is `empty`.

    A worker takes every so many-th session, so that all workers together take each in turn; a request of a session is
    sent once the one before it was answered.
    """

    def __init__(
        self, workload: Workload, rows: Rows, part: tuple[int, int], written: Written, least_tokens: int = 1
    ) -> None:
        """`part`: the number of this worker, and of how many."""
        self._workload, self._rows, self._written, self._least = workload, rows, written, least_tokens
        recording = workload.recording or Recording()
        self._order = Order(rows, workload.seed, recording.sample)
        self._once = recording.once
        self._output = Draws(workload.output, workload.drawn_by, _OUTPUT)
        self._own = workload.history == "served" and rows.conversations
        self._number, self._workers = part
        self._begun: dict[int, int] = defaultdict(int)
        self._underway: Underway[_Session] = Underway(workload)

    def ask(self, level: int, index: int, share: float = 1.0, stream: int = ABSENT) -> Ask | None:
        """See `Source`."""
        session = self._underway.due(stream)
        if session is None:
            number = self._number + self._begun[level] * self._workers
            if self._once and number >= len(self._order):
                return None
            self._begun[level] += 1
            session = _Session(self._order.rows_of(level, number))
            self._underway.begin(session, stream)
        self._underway.asked(level, index, session, stream)
        row = self._rows[session.rows[session.turn]]
        whole = self._output(level, index) if row.output_tokens is None else row.output_tokens
        tokens = max(self._least, math.ceil(whole * share))
        known = ABSENT if row.input_tokens is None or self._rows.conversations else row.input_tokens
        origin = session.rows[0] + 1
        turn = session.turn if len(session.rows) > 1 else ABSENT
        body = self._answered(row, session, tokens) if self._own else body_for(row, self._written, tokens)
        return Ask(body, 0, tokens, known, UNTOLD, origin, turn)

    def heard(self, level: int, index: int, heard: Heard | None) -> float:
        """See `Source`."""
        session, stream = self._underway.answered(level, index)
        session.turn += 1
        if heard is None or session.turn >= len(session.rows):
            self._underway.end(stream)
            return 0.0
        if self._own:
            session.messages.append(message("assistant", heard.text))
        return self._underway.rest(session, stream)

    @property
    def alone(self) -> bool:
        """See `Source`."""
        return self._order.alone and not self._once

    @property
    def listens(self) -> bool:
        """See `Source`."""
        return self._own

    @property
    def empty(self) -> bool:
        """See `Source`."""
        return self._underway.empty

    def _answered(self, row: Row, session: _Session, tokens: int) -> bytes:
        """The body of a turn, with the answers of this server where the file has recorded ones."""
        said = row.messages or []
        new = said[session.at :]
        if session.turn and new and new[0].get("role") == "assistant":
            new = new[1:]
        session.messages += map(_encode, new)
        session.at = len(said)
        return self._written.messages(session.messages, tokens)


def body_for(row: Row, written: Written, tokens: int) -> bytes:
    """The body that asks what `row` does, for `tokens` tokens."""
    if row.body is not None:
        return written.recorded(row.body, tokens)
    if row.messages is not None:
        return written.messages(list(map(_encode, row.messages)), tokens)
    return written.text(row.prompt or "", tokens)
