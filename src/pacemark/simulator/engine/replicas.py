"""Several replicas behind a router, whose number may follow the load."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Literal

import msgspec

from pacemark.errors import BadInput
from pacemark.simulator.engine.model import Emission, Job, Occupancy, Replica

__all__ = ["Router", "Scaling"]

TARGETS = {"latency": 0.25, "balanced": 0.5, "throughput": 0.9}
"""Share of a replica's batch that each strategy aims to fill: spare room buys latency, full batches throughput."""


class Scaling(msgspec.Struct, frozen=True, kw_only=True):
    """How the number of replicas follows the load."""

    min_replicas: int = 1
    """0: scale to zero, and the request that finds none waits for a cold start."""
    max_replicas: int = 1
    strategy: Literal["latency", "balanced", "throughput"] = "balanced"
    cold_start_s: float = 60.0
    """From the decision until a new replica serves."""
    check_s: float = 10.0
    """The mean load of this time is what a decision stands on."""
    idle_s: float = 300.0
    """Replicas go once they were not needed for so long."""

    def __post_init__(self) -> None:
        """Raise BadInput where the values make no sense."""
        if not 0 <= self.min_replicas <= self.max_replicas or self.max_replicas < 1:
            raise BadInput("scaling needs 0 <= min_replicas <= max_replicas and max_replicas >= 1")
        if self.check_s <= 0 or self.cold_start_s < 0 or self.idle_s < 0:
            raise BadInput("scaling needs check_s > 0, and cold_start_s and idle_s not negative")


class Router:
    """Replicas that share the load: a request goes to the ready one with the fewest outstanding requests.

    It stays there, so a new replica relieves the others only of requests to come. The number of replicas is
    settled every `check_s` on the mean number of outstanding requests since the last time.
    """

    def __init__(self, scaling: Scaling, make: Callable[[int, int], Replica], batch: int) -> None:
        """`make(number, ready_ns)` gives a replica that serves from `ready_ns` on; `batch` is what one can hold."""
        self.scaling = scaling
        self.history: list[tuple[int, int]] = []
        """When the number of ready replicas changed, in ns, and to what."""
        self._make = make
        self._made = 0
        self._per_replica = TARGETS[scaling.strategy] * batch
        self._replicas: list[tuple[int, Replica]] = []  # (ready_ns, replica) in the order started
        self._draining: list[Replica] = []
        self._home: dict[int, Replica] = {}
        self._now = 0
        self._checked = 0
        self._load = 0.0  # Outstanding requests x ns since the last check.
        self._spare_since: int | None = None
        self._spare_peak = 0
        for _ in range(scaling.min_replicas):
            self._start(0)

    def submit(self, job: Job) -> None:
        """Route a request."""
        self._settle(job.arrived_ns)
        if not self._replicas:
            self._start(self._now + round(self.scaling.cold_start_s * 1e9))
        ready = [replica for at, replica in self._replicas if at <= self._now]
        replica = min(ready, key=lambda r: r.outstanding) if ready else self._replicas[0][1]
        replica.submit(job)
        self._home[job.id] = replica

    def cancel(self, id: int) -> None:
        """Drop a request."""
        replica = self._home.pop(id, None)
        if replica:
            replica.cancel(id)

    def due_ns(self) -> int | None:
        """Earliest end of a step on any replica."""
        soonest = self._soonest()
        return soonest[0] if soonest else None

    def advance(self) -> Emission:
        """End that step."""
        soonest = self._soonest()
        if soonest is None:
            raise RuntimeError("advance() was called while the model was idle")
        self._settle(soonest[0])
        emission = soonest[1].advance()
        for done in emission.finished:
            self._home.pop(done.id, None)
        if self._draining:
            self._draining = [replica for replica in self._draining if replica.outstanding]
        return emission

    def occupancy(self, now_ns: int) -> Occupancy:
        """All replicas together."""
        self._settle(now_ns)
        each = [replica.occupancy(now_ns) for replica in self._every()]
        ready = sum(at <= self._now for at, _ in self._replicas)
        return Occupancy(
            running=sum(o.running for o in each),
            waiting=sum(o.waiting for o in each),
            kv_used=sum(o.kv_used for o in each) / max(1, len(each)),
            preemptions=sum(o.preemptions for o in each),
            drafts=sum(o.drafts for o in each),
            accepted=sum(o.accepted for o in each),
            replicas=ready,
            starting=len(self._replicas) - ready,
        )

    def _every(self) -> list[Replica]:
        return [replica for _, replica in self._replicas] + self._draining

    def _soonest(self) -> tuple[int, Replica] | None:
        best: tuple[int, Replica] | None = None
        for _, replica in self._replicas:
            due = replica.due_ns()
            if due is not None and (best is None or due < best[0]):
                best = due, replica
        for replica in self._draining:
            due = replica.due_ns()
            if due is not None and (best is None or due < best[0]):
                best = due, replica
        return best

    def _start(self, ready_ns: int) -> None:
        self._replicas.append((ready_ns, self._make(self._made, ready_ns)))
        self._made += 1
        self.history.append((ready_ns, len(self._replicas)))

    def _settle(self, now: int) -> None:
        """Take every decision that was due by `now`."""
        now = max(now, self._now)
        period = round(self.scaling.check_s * 1e9)
        if self.scaling.min_replicas == self.scaling.max_replicas:
            self._now = now
            return
        while (check := self._checked + period) <= now:
            self._load += len(self._home) * (check - self._now)
            self._now = self._checked = check
            self._decide(self._load / period)
            self._load = 0.0
        self._load += len(self._home) * (now - self._now)
        self._now = now

    def _decide(self, outstanding: float) -> None:
        scaling, have = self.scaling, len(self._replicas)
        want = math.ceil(outstanding / self._per_replica - 1e-9)
        want = min(max(want, scaling.min_replicas), scaling.max_replicas)
        for _ in range(have, want):
            self._start(self._now + round(scaling.cold_start_s * 1e9))
        if want >= have:
            self._spare_since = None
            return
        if self._spare_since is None:
            self._spare_since, self._spare_peak = self._now, want
        self._spare_peak = max(self._spare_peak, want)
        if self._now - self._spare_since >= scaling.idle_s * 1e9:
            leaving = [replica for _, replica in self._replicas[self._spare_peak :]]
            del self._replicas[self._spare_peak :]
            self._draining += [replica for replica in leaving if replica.outstanding]
            self.history.append((self._now, len(self._replicas)))
            self._spare_since = None
