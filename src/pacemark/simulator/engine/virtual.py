"""The simulated endpoint under load in virtual time: exact, and done in a moment."""

from __future__ import annotations

import heapq
from array import array
from collections.abc import Callable, Hashable, Iterator, Sequence
from typing import NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from pacemark.errors import BadInput
from pacemark.lengths import Lengths
from pacemark.pace import Concurrency, Load, Rate, schedule
from pacemark.simulator.engine.engine import EngineSpec
from pacemark.simulator.engine.model import FixedSpec, Job, Model
from pacemark.simulator.engine.presets import Preset, build, named
from pacemark.simulator.engine.theory import capacity
from pacemark.trace import ABSENT, Trace
from pacemark.workload.synthetic import popularity

__all__ = ["Recorded", "TokenCounts", "simulate"]

TokenCounts = int | tuple[float, float] | Callable[[np.random.Generator, int], NDArray[np.int64]]
"""Tokens: a fixed number, (mean, coefficient of variation) of a lognormal, or a draw of `n` by `(rng, n)`."""

_BLOCK = 4096


def simulate(
    load: Load,
    preset: Preset | str,
    *,
    input_tokens: TokenCounts = 256,
    output_tokens: TokenCounts = 64,
    duration_s: float = 60.0,
    seed: int = 0,
    requests: int | None = None,
    turnaround_ms: float = 0.3,
    shared_tokens: int = 0,
    groups: int = 1,
    zipf: float = 0.0,
    lived_ns: int = 0,
    turns: int = 1,
    think_s: float = 0.0,
    recorded: Sequence[Recorded] = (),
) -> Trace:
    """What a perfect client would record of `preset` under `load`, times in virtual ns from 0.

    Requests are sent until `duration_s`, or until `requests` of them were sent. The load is then held on, as the
    real client does, until every one of them was answered; requests sent while holding on are not in the trace,
    so none in it is cut short and the end of the load does not lighten it.

    `turnaround_ms` passes between the end of an answer and the arrival of the stream's next request. It is never
    0 on a network, and it costs more than it looks: the engine's next step has already begun, without it.
    In closed loop stream i of n sends its first request i/n of a request's latency at that load after the start.
    Lengths are drawn in the order of sending, so two loads under one seed ask for the same requests.
    `shared_tokens` open all prompts of one of `groups` alike, for presets with a prefix cache; no more of a prompt is
    ever cached. Group k is asked for as often as 1 / k^zipf says. The endpoint is `lived_ns` old at time 0, which
    matters to an unsteady one.
    `turns` make conversations: each turn has all before it, answers too, of which this engine caches the prompts alone;
    its user thinks for `think_s` before it, and whichever session is due is asked for first.
    `recorded` are the rows of a trace, in order, each sent once; `load` is then a rate with the speed of that.

    Raises BadInput for a load or lengths that make no sense.
    """
    chosen = named(preset) if isinstance(preset, str) else preset
    if requests is None and duration_s <= 0:
        raise BadInput(f"duration_s must be positive, not {duration_s:g}")
    if requests is not None and requests < 1:
        raise BadInput(f"requests must be at least 1, not {requests}")
    shared = _Shared(shared_tokens, popularity(groups, zipf), turns, round(think_s * 1e9))
    run = _Run(chosen, (input_tokens, output_tokens), seed, shared, lived_ns, recorded)
    source: _Source
    if isinstance(load, Rate) and load.speed:
        source = _Arrivals(iter([round(row.at_ns / load.speed) for row in recorded]))
        run.until(source, 0, len(recorded))
        return run.trace()
    if isinstance(load, Concurrency):
        if load.value < 1:
            raise BadInput(f"concurrency must be at least 1, not {load.value}")
        source = _Streams(load.value, run.cycle_ns(load.value), round(turnaround_ms * 1e6))
    else:
        if load.value <= 0:
            raise BadInput(f"rate must be positive, not {load.value:g}")
        horizon_s = duration_s if requests is None else 1.1 * requests / load.value + 1
        source = _Arrivals(_endless(load, horizon_s, np.random.default_rng([seed, 1])))
    run.until(source, round(duration_s * 1e9), requests)
    return run.trace()


class _Source(Protocol):
    """Where requests come from."""

    next_ns: int | None
    """When the next one is sent; None: not before another was answered."""

    def pop(self) -> tuple[int, int]:
        """Its stream and the time it was due; the source moves on to the one after it."""

    def answered(self, stream: int, at: int) -> None:
        """A request of `stream` was answered."""


class _Streams:
    """Closed loop: each stream sends its next request a turnaround after its last answer."""

    def __init__(self, count: int, cycle: int, turnaround: int) -> None:
        self._turnaround = turnaround
        # (when it sends, stream, when it became free)
        self._ready = [(start, stream, start) for stream in range(count) for start in [stream * cycle // count]]
        self.next_ns: int | None = 0

    def pop(self) -> tuple[int, int]:
        _, stream, free = heapq.heappop(self._ready)
        self.next_ns = self._ready[0][0] if self._ready else None
        return stream, free

    def answered(self, stream: int, at: int) -> None:
        heapq.heappush(self._ready, (at + self._turnaround, stream, at))
        self.next_ns = self._ready[0][0]


class _Arrivals:
    """Open loop: a schedule."""

    def __init__(self, times: Iterator[int]) -> None:
        self._times = times
        self.next_ns: int | None = next(times, None)

    def pop(self) -> tuple[int, int]:
        due, self.next_ns = self.next_ns, next(self._times, None)
        assert due is not None
        return 0, due

    def answered(self, stream: int, at: int) -> None:
        pass


def _endless(rate: Rate, horizon_s: float, rng: np.random.Generator) -> Iterator[int]:
    """A schedule, and when it is used up another one after it."""
    start = 0
    while True:
        yield from (schedule(rate, horizon_s, rng) + start).tolist()
        start += round(horizon_s * 1e9)


class _Draw:
    """Lengths one at a time, drawn in blocks."""

    def __init__(self, lengths: TokenCounts, rng: np.random.Generator) -> None:
        if isinstance(lengths, int) and lengths < 1:
            raise BadInput(f"a length must be at least 1 token, not {lengths}")
        self._lengths = lengths
        self._rng = rng
        self._block: list[int] = []

    def __call__(self) -> int:
        if isinstance(self._lengths, int):
            return self._lengths
        if not self._block:
            self._block = self._draw(self._rng)[::-1].tolist()
        return self._block.pop()

    def typical(self) -> int:
        """A middling length, without spending a draw."""
        return self._lengths if isinstance(self._lengths, int) else int(np.mean(self._draw(np.random.default_rng(0))))

    def _draw(self, rng: np.random.Generator) -> NDArray[np.int64]:
        assert not isinstance(self._lengths, int)
        if callable(self._lengths):
            drawn = self._lengths(rng, _BLOCK)
        else:
            mean, cv = self._lengths
            sigma = np.sqrt(np.log1p(cv**2))
            drawn = np.rint(rng.lognormal(np.log(mean) - sigma**2 / 2, sigma, _BLOCK)).astype(np.int64)
        return np.maximum(drawn, 1)


class _Shared(NamedTuple):
    """What prompts have in common."""

    tokens: int
    groups: Lengths
    """Which group a request is of, from 1."""
    turns: int = 1
    think_ns: int = 0


class Recorded(NamedTuple):
    """A row of a trace, as an engine sees it."""

    at_ns: int
    """Since the first."""
    input_tokens: int
    output_tokens: int
    blocks: tuple[int, ...] = ()
    block_tokens: int = 0


class _Asked(NamedTuple):
    """What a request asks, before it is sent."""

    prompt: int
    output: int
    hashes: list[Hashable]
    shared: int = ABSENT
    group: int = ABSENT
    turn: int = ABSENT
    session: int = ABSENT


class _Run:
    """One simulation: the loop over moments, and the columns it fills."""

    def __init__(
        self,
        preset: Preset,
        lengths: tuple[TokenCounts, TokenCounts],
        seed: int,
        shared: _Shared,
        lived_ns: int,
        recorded: Sequence[Recorded] = (),
    ) -> None:
        self._preset, self._seed, self._recorded = preset, seed, recorded
        prompt, output = lengths
        self._prompt = _Draw(prompt, np.random.default_rng([seed, 2]))
        self._output = _Draw(output, np.random.default_rng([seed, 3]))
        self._model: Model = build(preset, seed=seed, lived_ns=lived_ns)
        self._block = preset.timeline.block_tokens if isinstance(preset.timeline, EngineSpec) else 1
        self._shared = shared
        self._group = _Draw(shared.groups, np.random.default_rng([seed, 4]))
        # One entry per request, in the order of sending, which numbers them.
        self._scheduled, self._sent, self._ended = array("q"), array("q"), array("q")
        self._prompts, self._outputs, self._cached = array("q"), array("q"), array("q")
        self._streams, self._groups = array("i"), array("q")
        self._shares, self._turns = array("q"), array("q")
        self._known: set[int] = set()
        """Of a trace: the ids of blocks that were sent."""
        self._asked: dict[int, _Asked] = {}
        """Of conversations: what is under way."""
        self._resting: list[tuple[int, int, _Asked]] = []
        """Sessions whose user thinks: until when, and what was asked last."""
        # One entry per event, in the order of time; and per moment, when it was and how many events it had.
        self._event_ids, self._event_tokens = array("q"), array("q")
        self._moments, self._moment_events = array("q"), array("q")
        self._kept: int | None = None
        """How many requests belong to the trace, once that is known."""
        self._answered = 0
        """How many of those are answered."""

    def until(self, source: _Source, horizon: int, requests: int | None) -> None:
        """Run until every request sent before `horizon` ns, or each of the first `requests`, was answered."""
        now = 0
        while self._kept is None or self._answered < self._kept:
            while (at := source.next_ns) is not None and at <= now:
                if self._kept is None and (at >= horizon if requests is None else len(self._sent) == requests):
                    self._kept = len(self._sent)
                self._send(*source.pop(), at)
            if source.next_ns is None and len(self._sent) == requests:
                self._kept = requests
            due = self._model.due_ns()
            if due is None or (at is not None and at < due):
                assert at is not None, "idle, and nothing will ever be sent"
                now = at
                continue
            now = due
            for id in self._advance():
                source.answered(self._streams[id], now)

    def trace(self) -> Trace:
        """The requests of the trace as columns."""
        n = self._kept or 0
        ids = np.frombuffer(self._event_ids, np.int64)
        times = np.repeat(np.frombuffer(self._moments, np.int64), np.frombuffer(self._moment_events, np.int64))
        order = np.argsort(ids, kind="stable")
        order = order[: int(np.count_nonzero(ids < n))]
        times = times[order]
        counts = np.bincount(ids[order], minlength=n)
        offsets = np.concatenate([[0], np.cumsum(counts)]).astype(np.int64)

        def ints(column: array[int]) -> NDArray[np.int64]:
            return np.frombuffer(column, np.int64)[:n].copy()

        return Trace(
            scheduled_ns=ints(self._scheduled),
            sent_ns=ints(self._sent),
            headers_ns=ints(self._sent),
            first_event_ns=ints(self._sent),
            answer_ns=times[offsets[:-1]],
            ended_ns=ints(self._ended),
            stream=np.frombuffer(self._streams, np.int32)[:n].copy(),
            error=np.full(n, "", dtype=np.str_),
            asked_tokens=ints(self._outputs),
            asked_input=ints(self._prompts),
            shared_tokens=ints(self._shares),
            origin=ints(self._groups),
            turn=ints(self._turns),
            input_tokens=ints(self._prompts),
            cached_tokens=ints(self._cached),
            output_tokens=ints(self._outputs),
            tokens_from_usage=np.ones(n, dtype=np.bool_),
            offsets=offsets,
            hi_ns=times,
            lo_ns=times,
            exact=True,
            tokens=np.frombuffer(self._event_tokens, np.int64)[order].astype(np.float32),
        )

    def cycle_ns(self, streams: int) -> int:
        """About how long a request takes with `streams` in parallel: from the theory, for typical lengths."""
        spec, prompt, output = self._preset.timeline, self._prompt.typical(), self._output.typical()
        if isinstance(spec, FixedSpec):
            return round((spec.ttft_ms + spec.itl_ms * (output - 1)) * 1e6)
        scaling = self._preset.scaling
        replicas = max(1, scaling.min_replicas) if scaling else self._preset.replicas
        each = -(-streams // replicas)
        return round(each / capacity(spec, each, prompt, output).requests_per_s * 1e9)

    def _send(self, stream: int, scheduled: int, at: int) -> None:
        id = len(self._sent)
        asked = self._row(id) if self._recorded else self._next_turn(at)
        if self._shared.turns > 1:
            self._asked[id] = asked
        self._model.submit(Job(id, at, asked.prompt, asked.output, asked.hashes))
        self._scheduled.append(scheduled)
        self._sent.append(at)
        self._ended.append(ABSENT)
        self._prompts.append(asked.prompt)
        self._outputs.append(asked.output)
        self._cached.append(0)
        self._streams.append(stream)
        self._groups.append(asked.group)
        self._shares.append(asked.shared)
        self._turns.append(asked.turn)

    def _row(self, id: int) -> _Asked:
        """A row of the trace."""
        row = self._recorded[id]
        shared, size = 0, row.block_tokens
        # The id of a block stands for the prompt up to its end, so the engine's own blocks within it are known by it.
        hashes: list[Hashable] = [
            (row.blocks[end // size], end) for end in range(self._block - 1, row.input_tokens, self._block) if size
        ]
        for block in row.blocks:
            if block not in self._known:
                break
            shared += size
        self._known.update(row.blocks)
        return _Asked(row.input_tokens, row.output_tokens, hashes, min(shared, row.input_tokens))

    def _next_turn(self, at: int) -> _Asked:
        """The next turn of a session that is due, or the first of a new one."""
        own, output = self._prompt(), self._output()
        if self._resting and self._resting[0][0] <= at:
            last = heapq.heappop(self._resting)[2]
            prompt = last.prompt + last.output + own
            hashes = [*last.hashes, *((last.session, n) for n in range(len(last.hashes), prompt // self._block))]
            return _Asked(prompt, output, hashes, last.prompt, last.group, last.turn + 1, last.session)
        group = self._group() if self._shared.tokens else ABSENT
        shared = min(own, self._shared.tokens)
        # Blocks that hold shared tokens only; any hashes will do.
        opening: list[Hashable] = [(group, n) for n in range(shared // self._block)]
        if self._shared.turns == 1:
            return _Asked(own, output, opening, shared, group)
        session = -2 - len(self._sent)
        hashes = [*opening, *((session, n) for n in range(len(opening), own // self._block))]
        return _Asked(own, output, hashes, shared, group, 0, session)

    def _over(self, id: int, at: int) -> None:
        """A turn has its answer."""
        if self._shared.turns > 1:
            asked = self._asked.pop(id)
            if asked.turn + 1 < self._shared.turns:
                heapq.heappush(self._resting, (at + self._shared.think_ns, id, asked))

    def _advance(self) -> list[int]:
        """Record what comes out next; returns the requests it finishes."""
        emission = self._model.advance()
        self._event_ids.extend(emission.ids)
        self._event_tokens.extend(emission.tokens)
        self._moments.append(emission.at_ns)
        self._moment_events.append(len(emission.ids))
        for done in emission.finished:
            self._ended[done.id] = emission.at_ns
            self._cached[done.id] = done.cached_tokens
            self._answered += self._kept is None or done.id < self._kept
            self._over(done.id, emission.at_ns)
        return [done.id for done in emission.finished]
