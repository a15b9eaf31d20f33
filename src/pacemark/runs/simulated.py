"""The measuring step over the engine in virtual time: what a perfect client would find, in a moment.

It keeps the rules of the step over the network (`pacemark.runs.bench`): a ramp until every stream has finished one
request, a window, and the load held on until every request of the window is answered; and it asks `enough` as often.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pacemark.figures.health import Health
from pacemark.figures.level import Enough, LevelResult, sum_up
from pacemark.pace import Concurrency, Load, Rate
from pacemark.simulator.engine.presets import Preset
from pacemark.simulator.engine.virtual import TokenCounts, simulate
from pacemark.summary import EndedBy
from pacemark.trace import Trace, Window

__all__ = ["VirtualBench", "kept", "virtual_measure"]

LOOK_NS = 200_000_000
"""How soon `enough` is asked again; later on, after another tenth of the window so far."""


def virtual_measure(
    preset: Preset | str,
    *,
    input_tokens: TokenCounts = 256,
    output_tokens: TokenCounts = 64,
    duration_s: float = 20.0,
    max_duration_s: float = 120.0,
    requests: int | None = None,
    seed: int = 0,
    **traffic: Any,
) -> VirtualBench:
    """A measuring step on `preset`. Every level has random numbers of its own, drawn from `seed`, and begins where the
    one before it ended. `traffic` is what prompts share, and the turns of conversations, as `simulate` takes it; a
    `recorded` trace is played whole.

    The result's trace holds every request that was sent until the level ended, so that its length is what the level
    cost. Windows last `duration_s`, or with `enough` until that is satisfied, `max_duration_s` at most; or until so
    many `requests` of them have ended.
    """
    lengths = input_tokens, output_tokens
    return VirtualBench(preset, lengths, duration_s, max_duration_s, requests, seed, traffic)


@dataclass(slots=True)
class VirtualBench:
    """A measuring step, and the virtual time at which it stands."""

    preset: Preset | str
    lengths: tuple[TokenCounts, TokenCounts]
    duration_s: float
    max_duration_s: float
    requests: int | None
    seed: int
    traffic: Mapping[str, Any] = field(default_factory=dict)
    now_ns: int = 0
    _levels: int = 0

    def rest(self, seconds: float) -> None:
        """Let time go by."""
        self.now_ns += round(seconds * 1e9)

    @property
    def level_seed(self) -> int:
        """Of the level under way."""
        return self.seed * 1_000_003 + self._levels

    def __call__(self, load: Load, enough: Enough | None = None) -> LevelResult:
        """Measure `load` from now on."""
        self._levels += 1
        if isinstance(load, Rate) and load.speed:
            return self._replayed(load)
        run = _Level(load, self)
        start_ns = run.ramped_ns(self.duration_s)
        end_ns = start_ns + round((self.max_duration_s if enough else self.duration_s) * 1e9)
        by: EndedBy = "max_duration" if enough else "duration"
        at = start_ns
        while enough is not None and (at := at + max(LOOK_NS, (at - start_ns) // 10)) < end_ns:
            if enough(run.until(at), Window(start_ns, at)):
                end_ns, by = at, "precision"
        if self.requests is not None and (counted_ns := run.counted_ns(start_ns, self.requests, end_ns)) < end_ns:
            end_ns, by = counted_ns, "requests"
        return self._summed_up(load, run.answered(end_ns), Window(start_ns, end_ns), by)

    def _replayed(self, load: Rate) -> LevelResult:
        trace = simulate(load, self.preset, seed=self.level_seed, lived_ns=self.now_ns, **self.traffic)
        window = Window(-1, int(trace.scheduled_ns[-1]))
        return self._summed_up(load, replace(trace, open_loop=True), window, "rows")

    def _summed_up(self, load: Load, trace: Trace, window: Window, by: EndedBy) -> LevelResult:
        """The level, at the time at which it was measured; time stands at its end then."""
        begun_ns = self.now_ns
        self.now_ns += int(trace.ended_ns.max(initial=window.end_ns))
        window = Window(begun_ns + window.start_ns, begun_ns + window.end_ns)
        return sum_up(load, _later(trace, begun_ns), window, Health(), ended_by=by)


def _later(trace: Trace, by_ns: int) -> Trace:
    """The same at a later time."""
    times = ("scheduled_ns", "sent_ns", "headers_ns", "first_event_ns", "answer_ns", "ended_ns", "hi_ns", "lo_ns")
    return replace(trace, **{name: getattr(trace, name) + by_ns for name in times})


class _Level:
    """One level, simulated as far ahead as somebody looks."""

    def __init__(self, load: Load, bench: VirtualBench) -> None:
        self._load, self._bench, self._seed = load, bench, bench.level_seed
        self._requests = 32 + (4 * load.value if isinstance(load, Concurrency) else 0)
        self._trace = self._simulate()

    def ramped_ns(self, duration_s: float) -> int:
        """When every stream has finished a request; in open loop, after twice the longest wait so far, as long as that
        does not grow for ever: for twice the window, `duration_s`, or five times the first answer at most."""
        while True:
            trace, known_ns = self._trace, int(self._trace.sent_ns[-1])
            if isinstance(self._load, Concurrency):
                first = np.full(self._load.value, np.iinfo(np.int64).max)
                np.minimum.at(first, trace.stream, trace.ended_ns)
                at = int(first.max())
            else:
                order = np.argsort(trace.ended_ns)
                ended = trace.ended_ns[order]
                longest = np.maximum.accumulate(ended - trace.scheduled_ns[order])
                late = np.flatnonzero(np.append(ended[1:], np.iinfo(np.int64).max) > 2 * longest)
                at = max(int(ended[late[0]]), int(2 * longest[late[0]]))
                at = min(at, max(round(2e9 * duration_s), 5 * int(trace.ended_ns[0] - trace.sent_ns[0])))
            if at <= known_ns:
                return at
            self._extend()

    def counted_ns(self, start_ns: int, requests: int, end_ns: int) -> int:
        """When so many of the requests that began after `start_ns` have ended; `end_ns` if that is no later."""
        while True:
            trace = self._trace
            begun = trace.scheduled_ns if trace.open_loop else trace.sent_ns
            ended = np.sort(trace.ended_ns[begun > start_ns])
            at = int(ended[requests - 1]) if len(ended) >= requests else end_ns
            if min(at, end_ns) <= int(trace.sent_ns[-1]):
                return min(at, end_ns)
            self._extend()

    def until(self, at_ns: int) -> Trace:
        """The level as it stands: the requests that have ended."""
        while self._trace.sent_ns[-1] < at_ns:
            self._extend()
        return kept(self._trace, self._trace.ended_ns <= at_ns)

    def answered(self, end_ns: int) -> Trace:
        """The requests sent until every one that was sent by `end_ns` was answered."""
        while True:
            sent = self._trace.sent_ns
            held_ns = int(self._trace.ended_ns[sent <= end_ns].max(initial=end_ns))
            if sent[-1] >= held_ns:
                return kept(self._trace, sent <= held_ns)
            self._extend()

    def _extend(self) -> None:
        self._requests *= 2
        self._trace = self._simulate()

    def _simulate(self) -> Trace:
        prompt, output = self._bench.lengths
        trace = simulate(
            self._load,
            self._bench.preset,
            input_tokens=prompt,
            output_tokens=output,
            requests=self._requests,
            seed=self._seed,
            lived_ns=self._bench.now_ns,
            **self._bench.traffic,
        )
        return trace if isinstance(self._load, Concurrency) else replace(trace, open_loop=True)


def kept(trace: Trace, wanted: NDArray[np.bool_]) -> Trace:
    """The requests `wanted` (n,) of a trace, with their events."""
    return trace.taken(np.flatnonzero(wanted))
