"""Engines placed in time: what a request's answer looks like on a clock that somebody else owns.

A `Model` is told when requests arrive and says when it next has something to say. Virtual time jumps from one
such moment to the next; the HTTP server waits for them. Both therefore see the very same timeline.
"""

from __future__ import annotations

from bisect import insort
from collections import deque
from collections.abc import Hashable, Sequence
from operator import attrgetter
from typing import Protocol

import msgspec

from pacemark.errors import BadInput
from pacemark.simulator.engine.engine import Engine, EngineStep, Finished
from pacemark.simulator.engine.unsteady import Unsteady

__all__ = ["Emission", "Fixed", "FixedSpec", "Job", "Model", "Occupancy", "Replica"]


class Job(msgspec.Struct, frozen=True, gc=False):
    """One request, as the models see it."""

    id: int
    arrived_ns: int
    prompt_tokens: int
    output_tokens: int
    prefix: Sequence[Hashable] = ()
    """Hashes of the prompt's full blocks, each covering the prompt from its start."""


_arrival = attrgetter("arrived_ns")


class Emission(msgspec.Struct, frozen=True, gc=False):
    """Output that appears at one moment."""

    at_ns: int
    ids: list[int]
    tokens: list[int]
    """How many tokens each of `ids` emits."""
    finished: list[Finished]
    began_ns: int = 0
    """When the step that ends now began."""
    admitted: list[int] = []
    """Requests that waited no longer from then on."""


class Occupancy(msgspec.Struct, frozen=True, kw_only=True):
    """How full a model is at one moment."""

    running: int
    waiting: int
    kv_used: float = 0.0
    """Share of the KV cache that requests hold."""
    preemptions: int = 0
    drafts: int = 0
    accepted: int = 0
    replicas: int = 1
    """Ready to serve."""
    starting: int = 0


class Model(Protocol):
    """Anything that answers requests on a timeline."""

    def submit(self, job: Job) -> None:
        """Take a request. Raises BadInput where it can never be served.

        Requests that arrived within the same moment may come in another order; they are served in that of arrival.
        """

    def cancel(self, id: int) -> None:
        """Drop a request; an unknown id is no error."""

    def due_ns(self) -> int | None:
        """When `advance` next has something; None while idle.

        Asking settles what happens up to then, so every request that arrived before must have been submitted.
        """

    def advance(self) -> Emission:
        """What comes out at `due_ns`."""

    def occupancy(self, now_ns: int) -> Occupancy:
        """How full it is at `now_ns`."""


class Replica:
    """One engine: a step starts when the last one ends, or on arrival where the engine was idle."""

    def __init__(
        self, engine: Engine, *, ready_ns: int = 0, unsteady: Unsteady | None = None, lived_ns: int = 0
    ) -> None:
        """`lived_ns`: how old the endpoint is at time 0, which tells how fast it is when."""
        self.engine = engine
        self._unsteady, self._lived_ns = unsteady, lived_ns
        self.step: EngineStep | None = None
        """The step under way."""
        self._arrivals: deque[Job] = deque()
        self._free_ns = ready_ns
        self._began_ns = self._due_ns = 0

    @property
    def outstanding(self) -> int:
        """Requests waiting or running."""
        return len(self._arrivals) + self.engine.waiting + self.engine.running

    def submit(self, job: Job) -> None:
        """Take a request; it joins the first step that starts after its arrival."""
        self.engine.spec.check(job.prompt_tokens, job.output_tokens)
        insort(self._arrivals, job, key=_arrival)

    def cancel(self, id: int) -> None:
        """Drop a request; the step under way still takes its time."""
        for job in self._arrivals:
            if job.id == id:
                self._arrivals.remove(job)
                return
        self.engine.cancel(id)

    def due_ns(self) -> int | None:
        """End of the step under way, which starts now if there is work."""
        if self.step is None:
            engine, arrivals = self.engine, self._arrivals
            start = self._free_ns
            if not engine.running and not engine.waiting:
                if not arrivals:
                    return None
                start = max(start, arrivals[0].arrived_ns)
            while arrivals and arrivals[0].arrived_ns <= start:
                job = arrivals.popleft()
                engine.submit(job.id, job.prompt_tokens, job.output_tokens, job.prefix)
            self.step = engine.step()
            assert self.step is not None
            self._began_ns = start
            duration_ns = self.step.duration_ns
            if self._unsteady is not None:
                duration_ns = round(duration_ns * self._unsteady.slowness((start + self._lived_ns) / 1e9))
            self._due_ns = start + duration_ns
        return self._due_ns

    def advance(self) -> Emission:
        """End the step under way."""
        self.due_ns()
        step, self.step = self.step, None
        if step is None:
            raise RuntimeError("advance() was called while the model was idle")
        self._free_ns = self._due_ns
        return Emission(self._due_ns, step.ids, step.tokens, step.finished, self._began_ns, step.admitted)

    def occupancy(self, now_ns: int) -> Occupancy:
        """How full the engine is."""
        engine = self.engine
        return Occupancy(
            running=engine.running,
            waiting=engine.waiting + len(self._arrivals),
            kv_used=engine.pool.used / engine.pool.blocks,
            preemptions=engine.preemptions,
            drafts=engine.drafts,
            accepted=engine.accepted,
        )


class FixedSpec(msgspec.Struct, frozen=True, kw_only=True, tag_field="kind", tag="fixed"):
    """A timeline of its own for each request, whatever the load."""

    ttft_ms: float = 200.0
    itl_ms: float = 20.0

    def __post_init__(self) -> None:
        """Raise BadInput where the values make no sense."""
        if self.ttft_ms < 0 or self.itl_ms < 0:
            raise BadInput("ttft_ms and itl_ms must not be negative")


class Fixed:
    """Token k of a request is due ttft + k x itl after the request arrived."""

    def __init__(self, spec: FixedSpec) -> None:
        self._ttft_ns = round(spec.ttft_ms * 1e6)
        self._itl_ns = round(spec.itl_ms * 1e6)
        # Each queue is in order by itself, since what is appended is due last, or nearly: no heap needed.
        self._first: deque[tuple[int, int]] = deque()
        self._later: deque[tuple[int, int]] = deque()
        self._left: dict[int, int] = {}

    def submit(self, job: Job) -> None:
        """Take a request."""
        if job.output_tokens < 1:
            raise BadInput("a request needs at least one output token")
        self._left[job.id] = job.output_tokens
        insort(self._first, (job.arrived_ns + self._ttft_ns, job.id))

    def cancel(self, id: int) -> None:
        """Drop a request."""
        self._left.pop(id, None)

    def due_ns(self) -> int | None:
        """When the next token of any request is due."""
        queue = self._next()
        return queue[0][0] if queue else None

    def advance(self) -> Emission:
        """The next token; nothing where its request was dropped."""
        due, id = self._next().popleft()
        left = self._left.get(id)
        if left is None:
            return Emission(due, [], [], [])
        if left == 1:
            del self._left[id]
            return Emission(due, [id], [1], [Finished(id, 0, 1, 0)])
        self._left[id] = left - 1
        self._later.append((due + self._itl_ns, id))
        return Emission(due, [id], [1], [])

    def occupancy(self, now_ns: int) -> Occupancy:
        """How many requests have a timeline under way."""
        return Occupancy(running=len(self._left), waiting=0)

    def _next(self) -> deque[tuple[int, int]]:
        first, later = self._first, self._later
        return first if first and (not later or first[0] < later[0]) else later
