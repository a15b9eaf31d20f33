"""A model on the real clock: each emission leaves as close after its due time as this machine can."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable

from pacemark.instrument.clock import Timer
from pacemark.simulator.engine.model import Emission, Job, Model

__all__ = ["Live"]

_NEAR_NS = 50_000
"""An emission that is due this soon is waited for: to sleep and be woken takes longer, and is late."""
_SLICE_NS = 2_000_000
"""Longest stretch of late emissions before sockets are looked at again."""


class Live:
    """Drives `model`; due times are absolute, so a late step does not delay the ones after it."""

    def __init__(self, model: Model, loop: asyncio.AbstractEventLoop, deliver: Callable[[Emission], None]) -> None:
        self.model = model
        self._deliver = deliver
        self._timer = Timer(loop, self._ring)
        self._set_for: int | None = None

    def submit(self, job: Job) -> None:
        """Hand a request to the model. Raises BadInput where the model refuses it."""
        self.model.submit(job)
        self._wait()

    def cancel(self, id: int) -> None:
        """Take a request back."""
        self.model.cancel(id)

    def close(self) -> None:
        """Stop the clock."""
        self._timer.close()

    def _ring(self) -> None:
        model, deliver = self.model, self._deliver
        now = time.monotonic_ns()
        until = now + _SLICE_NS
        due = model.due_ns()
        while due is not None and now < until and due - now <= _NEAR_NS:
            while now < due:
                now = time.monotonic_ns()
            deliver(model.advance())
            now = time.monotonic_ns()
            due = model.due_ns()
        self._set_for = due
        if due is not None:
            self._timer.set(due)

    def _wait(self) -> None:
        due = self.model.due_ns()
        if due is not None and due != self._set_for:
            self._timer.set(due)
            self._set_for = due
