"""A level by its server's own counters, held against what the client saw of it.

Both sides are taken between the same two looks, those nearest to the ends of the level's window. What the looks leave
open (they take some ms, and an answer is on its way for some) is counted both ways: the server agrees with the client
where its count lies between what the client saw within a slightly shorter and within a slightly longer time.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pacemark.endpoint.engines import COUNTED_AT_END
from pacemark.figures import metrics
from pacemark.figures.evidence import Finding
from pacemark.metered import Agreement, Gauge, Phases, Server, WithinEdge
from pacemark.trace import ABSENT, Int64, Scrape, Trace, Window

__all__ = ["BothSides", "findings_of", "server_of"]

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
        self._seen = _Answers.of(traces)
        self._live = live

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
        inside = queue + prefill if queue is not None and prefill is not None else server
        network = ttft - inside - (client_ms or 0.0) if ttft is not None and inside is not None else None
        return Phases(client_ms, network, queue, prefill, decode)


def server_of(trace: Trace, window: Window, looks: Sequence[Scrape]) -> Server | None:
    """The server over `window`; None where it was not looked at twice."""
    read = [look for look in looks if look.values]
    if not len(trace) or not read or window.seconds <= 0:
        return None
    times = np.asarray([look.now_ns for look in read])
    begin, end = (int(np.abs(times - edge).argmin()) for edge in (window.start_ns, window.end_ns))
    if begin == end:
        return None
    engine = read[end].engines[0]
    held = BothSides(read[begin : end + 1], [trace], live=engine not in COUNTED_AT_END)
    tokens = held.count("output_tokens")
    power, energy = held.gauge("power_w"), held.grown("energy_j")
    joules = energy if energy is not None else power.mean * held.seconds if power is not None else None
    gpus = held.gauge("gpus")
    queries, hits = held.grown("prefix_queries"), held.grown("prefix_hits")
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
        checks=[
            *(held.counted(what) for what in ("requests", "input_tokens", "output_tokens")),
            held.ttft(),
            held.decode(),
            held.in_flight(),
        ],
        ttft_within=held.ttft_within(),
        phases=held.phases(_mean_ms(trace.send_ns[held.within(trace.sent_ns)])),
    )


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
    ttft = next(check for check in server.checks if check.what == "ttft_ms")
    if ttft.agrees is not False or ttft.client is None or ttft.server is None or ttft.client < ttft.server:
        return None
    return Finding(
        "note",
        "held_back",
        f"{ttft.client - ttft.server:.0f} of {ttft.client:.0f} ms of TTFT pass outside the server, by its own account: "
        "a proxy, a gateway or the network holds requests or tokens back; measure beside the server to see which",
    )
