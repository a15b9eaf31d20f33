"""A level by its server's own counters, held against what the client saw of it.

Both sides are taken between the same two looks, those nearest to the ends of the level's window. What the looks leave
open (they take some ms, and an answer is on its way for some) is counted both ways: the server agrees with the client
where its count lies between what the client saw within a slightly shorter and within a slightly longer time.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass

import msgspec
import numpy as np
from numpy.typing import NDArray

from pacemark.endpoint.engines import COUNTED_AT_END
from pacemark.figures import metrics
from pacemark.figures.evidence import Finding
from pacemark.metered import Agreement, Gauge, Phases, Server, ServerMoment, WithinEdge
from pacemark.trace import ABSENT, Int64, Scrape, Trace, Window

__all__ = ["BothSides", "findings_of", "moment_of", "server_of"]

EDGE_NS = 50_000_000
"""How far from a look an event may count to either side of it, beside the time that the look took."""
HELD_MS = 20.0
"""Time that may pass outside the server unremarked, or a tenth of TTFT where that is more."""


@dataclass(frozen=True, slots=True)
class _Answers:
    """The answers of a level as a server would count them: when each first and last token came, and of how many."""

    sent_ns: Int64
    first_ns: Int64
    last_ns: Int64
    tokens_in: Int64
    tokens_out: Int64
    good: NDArray[np.bool_]
    events_ns: Int64
    event_tokens: NDArray[np.float64]

    @classmethod
    def of(cls, traces: Sequence[Trace]) -> _Answers:
        trace = Trace.joined(list(traces))
        counts = np.diff(trace.offsets)
        rows = np.flatnonzero(counts)
        return cls(
            trace.sent_ns[rows],
            trace.hi_ns[trace.offsets[rows]],
            trace.hi_ns[trace.offsets[rows + 1] - 1],
            trace.input_tokens[rows],
            (trace.output_tokens + trace.hidden_tokens)[rows],
            metrics.succeeded(trace)[rows],
            trace.hi_ns,
            trace.tokens.astype(np.float64) + np.repeat((trace.hidden_tokens[rows] / counts[rows]), counts[rows]),
        )


class BothSides:
    """What the counters of a server grew by between two looks, and what the client saw in that time."""

    def __init__(self, looks: Sequence[Scrape], traces: Sequence[Trace], *, live: bool) -> None:
        """`live`: the server counts output tokens as they come, and not at an answer's end."""
        self.looks = looks
        self.first, self.last = looks[0], looks[-1]
        self.edge_ns = EDGE_NS + max(self.first.took_ns, self.last.took_ns)
        self._traces, self._live = traces, live

    @functools.cached_property
    def _seen(self) -> _Answers:
        return _Answers.of(self._traces)

    @property
    def seconds(self) -> float:
        """Time between the looks."""
        return (self.last.now_ns - self.first.now_ns) / 1e9

    def grown(self, name: str) -> float | None:
        """What a counter grew by; None where it is not told, or began anew."""
        before, after = self.first.values.get(name), self.last.values.get(name)
        return None if before is None or after is None or after < before else after - before

    def mean_ms(self, name: str) -> float | None:
        """The mean of what a histogram took in."""
        total, count = self.grown(f"{name}_sum"), self.grown(f"{name}_count")
        return 1e3 * total / count if total is not None and count else None

    def gauge(self, name: str) -> Gauge | None:
        """A value over all looks."""
        told = [look.values[name] for look in self.looks if name in look.values]
        return Gauge(float(np.mean(told)), max(told)) if told else None

    def within(self, when_ns: Int64, margin_ns: int = 0) -> NDArray[np.bool_]:
        """Which of these times are between the looks, with a margin at both ends."""
        return (when_ns > self.first.now_ns - margin_ns) & (when_ns <= self.last.now_ns + margin_ns)

    def count(self, what: str, margin_ns: int = 0) -> float:
        """What the client counts."""
        seen = self._seen
        if what == "requests":
            return float((self.within(seen.last_ns, margin_ns) & seen.good).sum())
        if what == "input_tokens":
            return float(seen.tokens_in[self.within(seen.first_ns, margin_ns)].sum())
        if self._live:
            return float(seen.event_tokens[self.within(seen.events_ns, margin_ns)].sum())
        return float(seen.tokens_out[self.within(seen.last_ns, margin_ns)].sum())

    def counted(self, what: str) -> Agreement:
        """A counter held against the client's own count."""
        if what == "input_tokens" and (self._seen.tokens_in == ABSENT).any():
            return Agreement(what, None, self.grown(what))
        mine, theirs = self.count(what), self.grown(what)
        least, most = self.count(what, -self.edge_ns), self.count(what, self.edge_ns)
        agrees = None if theirs is None else bool(least - 0.5 <= theirs <= most + 0.5)
        return Agreement(what, round(mine, 3), theirs, agrees)

    def ttft(self) -> Agreement:
        """Mean TTFT: the client's is the longer, by what lies between the two."""
        mine, theirs = self.client_ttft_ms(), self.mean_ms("ttft")
        agrees = None if mine is None or theirs is None else -1.0 <= mine - theirs <= max(HELD_MS, mine / 10)
        return Agreement("ttft_ms", mine, theirs, agrees)

    def client_ttft_ms(self) -> float | None:
        """Mean TTFT from t0, of the answers that began between the looks."""
        times = self._ttft_ms()
        return float(times.mean()) if len(times) else None

    def _ttft_ms(self) -> NDArray[np.float64]:
        began = self.within(self._seen.first_ns)
        found: NDArray[np.float64] = (self._seen.first_ns - self._seen.sent_ns)[began] / 1e6
        return found

    def ttft_within(self) -> list[WithinEdge]:
        """Shares of the requests below each edge of the server's buckets at which either side is neither 0 nor 1."""
        total, mine = self.grown("ttft_count"), self._ttft_ms()
        if not total or not len(mine):
            return []
        edges = sorted(float(key.removeprefix("ttft_le_")) for key in self.last.values if key.startswith("ttft_le_"))
        found = []
        for edge in edges[:-1]:
            grown = self.grown(f"ttft_le_{edge:g}")
            client = float((mine <= 1e3 * edge).mean())
            if grown is not None and (0 < client < 1 or 0 < grown < total):
                found.append(WithinEdge(1e3 * edge, client, grown / total))
        return found

    def decode(self) -> Agreement:
        """Time between first and last tokens, summed; the same however the tokens were put into events."""
        seen, theirs = self._seen, self.grown("decode_sum")
        taken = (seen.last_ns - seen.first_ns) / 1e9
        bounds = [float(taken[self.within(seen.last_ns, m)].sum()) for m in (-self.edge_ns, 0, self.edge_ns)]
        slack = 0.01 * bounds[1]
        agrees = None if theirs is None else bounds[0] - slack <= theirs <= bounds[2] + slack
        return Agreement("decode_s", bounds[1], theirs, agrees)

    def in_flight(self) -> Agreement:
        """Requests in the server beside those that the client had sent, over the looks."""
        seen = self._seen
        gauges = [(look.now_ns, look.values.get("running"), look.values.get("waiting", 0.0)) for look in self.looks]
        told = [(at, running + waiting) for at, running, waiting in gauges if running is not None]
        if not told:
            return Agreement("in_flight", None, None)
        mine = float(np.mean([((seen.sent_ns <= at) & (seen.last_ns > at)).sum() for at, _ in told]))
        theirs = float(np.mean([there for _, there in told]))
        agrees = abs(mine - theirs) <= max(1.0, 0.15 * mine) if len(told) >= 3 else None
        return Agreement("in_flight", mine, theirs, agrees)

    def phases(self, client_ms: float | None) -> Phases:
        """Where the time went. A queue that the server only counts is timed by Little's law: waiting / rate."""
        ttft, decode = self.client_ttft_ms(), self.mean_ms("decode")
        answers = len(self._ttft_ms())
        queue, prefill, server = self.mean_ms("queue"), self.mean_ms("prefill"), self.mean_ms("ttft")
        if prefill is None and answers and (total := self.grown("prefill_sum")) is not None:
            prefill = 1e3 * total / answers
        if decode is None and (total := self.grown("decode_sum")) is not None and (ended := self.count("requests")):
            decode = 1e3 * total / ended
        if queue is None and server is not None and prefill is not None:
            queue = max(0.0, server - prefill)
        if queue is None and (waiting := self.gauge("waiting")) is not None and answers:
            queue = 1e3 * waiting.mean * self.seconds / answers
        if prefill is None and server is not None and queue is not None:
            prefill = max(0.0, server - queue)
        inside = server  # of the same requests as the client's TTFT: queue and prefill are told when one has ended
        if inside is None and queue is not None and prefill is not None:
            inside = queue + prefill
        network = ttft - inside - (client_ms or 0.0) if ttft is not None and inside is not None else None
        return Phases(client_ms, network, queue, prefill, decode)


def server_of(trace: Trace, window: Window, looks: Sequence[Scrape]) -> Server | None:
    """The server over `window`; None where it was not looked at twice, and where no answer told of its own times."""
    read = [look for look in looks if look.values]
    times = np.asarray([look.now_ns for look in read])
    ends = [int(np.abs(times - edge).argmin()) for edge in (window.start_ns, window.end_ns)] if read else [0, 0]
    told = _told_by_answers(trace, window)
    if not len(trace) or window.seconds <= 0 or ends[0] == ends[1]:
        return told
    engine = read[ends[1]].engines[0]
    held = BothSides(read[ends[0] : ends[1] + 1], [trace], live=engine not in COUNTED_AT_END)
    found = _counted(held, engine, trace)
    if told is None:
        return found
    phases, (check,), queue = told.phases, told.checks, found.phases.queue_ms
    if phases.queue_ms is None and queue is not None and check.client is not None and check.server is not None:
        network = check.client - check.server - queue - (phases.client_ms or 0.0)
        phases = msgspec.structs.replace(phases, queue_ms=queue, network_ms=network)
    # Times of each request are of the very requests whose TTFT they are part of: they go before means of counters.
    return msgspec.structs.replace(found, phases=phases, checks=[*found.checks, check])


def _counted(held: BothSides, engine: str, trace: Trace) -> Server:
    """The server by what it counted between two looks."""
    tokens = held.count("output_tokens")
    power, energy = held.gauge("power_w"), held.grown("energy_j")
    joules = energy if energy is not None else power.mean * held.seconds if power is not None else None
    gpus = held.gauge("gpus")
    queries, hits = held.grown("prefix_queries"), held.grown("prefix_hits")
    counts = [held.counted(what) for what in ("requests", "input_tokens", "output_tokens")]
    return Server(
        engine=engine,
        seconds=held.seconds,
        looks=len(held.looks),
        running=held.gauge("running"),
        waiting=held.gauge("waiting"),
        kv_used=held.gauge("kv_used"),
        preemptions=held.grown("preemptions"),
        prefix_hits=hits / queries if hits is not None and queries else None,
        power_w=power,
        joules_per_1k_tokens=1e3 * joules / tokens if joules is not None and tokens else None,
        gpu_seconds_per_1k_tokens=1e3 * gpus.mean * held.seconds / tokens if gpus is not None and tokens else None,
        checks=[*counts, held.ttft(), held.decode(), held.in_flight()],
        ttft_within=held.ttft_within(),
        phases=held.phases(_mean_ms(trace.send_ns[held.within(trace.sent_ns)])),
    )


def _told_by_answers(trace: Trace, window: Window) -> Server | None:
    """The server by the times that its answers hold themselves; None where not all of them hold any.

    TTFT = network and client + queue + prefill holds of each request; where the queue is not told (llama.cpp), neither
    is the network.
    """
    ttft = metrics.ttft_ms(trace) - (metrics.send_delay_ms(trace) if trace.open_loop else 0.0)
    rows = metrics.started_in(trace, window.start_ns, window.end_ns) & metrics.succeeded(trace) & np.isfinite(ttft)
    if not rows.any() or (trace.server_prefill_ms[rows] < 0).any():
        return None
    queue, prefill, decode = (
        None if (values < 0).any() else values
        for values in (trace.server_queue_ms[rows], trace.server_prefill_ms[rows], trace.server_decode_ms[rows])
    )
    assert prefill is not None
    inside = prefill if queue is None else prefill + queue
    sent = trace.send_ns[rows] / 1e6
    check = Agreement(
        "request_ttft_ms",
        float(ttft[rows].mean()),
        float(inside.mean()),
        agrees=float((ttft[rows] - inside < -1.0).mean()) <= 0.01,
    )
    return Server(
        engine="its answers",
        seconds=window.seconds,
        looks=0,
        checks=[check],
        phases=Phases(
            client_ms=float(sent.mean()),
            network_ms=None if queue is None else float((ttft[rows] - inside - sent).mean()),
            queue_ms=None if queue is None else float(queue.mean()),
            prefill_ms=float(prefill.mean()),
            decode_ms=None if decode is None else float(decode.mean()),
        ),
    )


def moment_of(at_s: float, before: Scrape, now: Scrape) -> ServerMoment:
    """The server as the look `now` showed it; what it counts, since the look `before`."""
    since = BothSides([before, now], [], live=True)
    queries, hits = since.grown("prefix_queries"), since.grown("prefix_hits")
    told = {name: now.values.get(name) for name in ("running", "waiting", "kv_used", "power_w")}
    share = hits / queries if hits is not None and queries else None
    return ServerMoment(at_s, **told, preemptions=since.grown("preemptions"), prefix_hits=share)


def _mean_ms(times_ns: Int64) -> float | None:
    return float(times_ns.mean()) / 1e6 if len(times_ns) else None


def findings_of(server: Server) -> list[Finding]:
    """Where server and client disagree, and what that is likely to come of."""
    found = [_unequal(check) for check in server.checks if check.what in ("requests", "output_tokens")]
    other = next((f for f in found if f is not None and f.code == "other_traffic"), None)
    less = next((f for f in found if f is not None and f.code == "counted_less"), None)
    return [f for f in (other or less, None if other else _held_back(server)) if f is not None]


def _unequal(check: Agreement) -> Finding | None:
    if check.agrees is not False or check.client is None or check.server is None:
        return None
    off, what = abs(check.server - check.client), check.what.replace("_", " ")
    told = f"the server counted {check.server:,.0f} {what} in the window where this client saw {check.client:,.0f}"
    if check.server > check.client:
        share = off / check.server
        text = f"{told}: {share:.0%} of its work was for another client, so the figures are of more than this load"
        return Finding("suspect", "other_traffic", f"{text}; measure while nobody else uses it")
    return Finding("note", "counted_less", f"{told}: a replica is not read; name the metrics of each with --metrics")


def _held_back(server: Server) -> Finding | None:
    ttft = next((check for check in server.checks if check.what == "ttft_ms"), None)
    if (
        ttft is None
        or ttft.agrees is not False
        or ttft.client is None
        or ttft.server is None
        or ttft.client < ttft.server
    ):
        return None
    return Finding(
        "note",
        "held_back",
        f"{ttft.client - ttft.server:.0f} of {ttft.client:.0f} ms of TTFT pass outside the server, by its own account: "
        "a proxy, a gateway or the network holds requests or tokens back; measure beside the server to see which",
    )
