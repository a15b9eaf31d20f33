"""Several endpoints measured in turn: one is under load at a time, and the others rest meanwhile."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import msgspec

from pacemark.answers.gate import gated_contest, refuse_condition
from pacemark.answers.versus import LEAST_ROUNDS, Contest, Entrant, Slice, contest, orders, slices
from pacemark.errors import BadInput, Failed, RunFailed
from pacemark.figures.level import Enough, LevelResult, Measure
from pacemark.files import write_whole
from pacemark.machine import room_for
from pacemark.pace import Concurrency, Load
from pacemark.reporting.observing import observing
from pacemark.reporting.progress import Status, told
from pacemark.runs.bench import Bench
from pacemark.runs.conduct import Options, conducted
from pacemark.runs.folder import folder_name
from pacemark.runs.stopping import Reached
from pacemark.scenario import Levels, Scenario, ordered
from pacemark.traffic import seed_of
from pacemark.values import at_least, positive

__all__ = ["LETTERS", "ROUNDS", "SLICE_S", "contested"]

LETTERS = "ABCD"
ROUNDS = 10
"""Where nothing is said of it."""
SLICE_S = 10.0
"""Steady time of a slice, likewise."""


def contested(
    where: Sequence[str],
    loads: Sequence[Load],
    options: Options,
    *,
    rounds: int,
    prices: Sequence[float],
    fail_if: Sequence[str] = (),
) -> Contest:
    """Measure the targets `where` in turn, and say which is better; all of it is kept in a folder of its own.

    `prices` are those of an hour of each target, or none; `fail_if` are conditions of a gate. Raises BadInput and
    RunFailed.
    """
    if "observe" not in options:
        how: Any = {"rounds": rounds, "prices": prices, "fail_if": fail_if}
        with observing() as observe:
            return contested(where, loads, {**options, "observe": observe}, **how)
    _refuse(where, rounds, prices)
    for condition in fail_if:
        refuse_condition(condition, loads)
    if options.get("nodes"):
        raise BadInput("versus measures from one machine: leave nodes out")
    names = LETTERS[: len(where)]
    seed = seed_of(options.get("seed"))
    goal = Levels(tuple(loads), rounds)
    folder = Path(options.get("out", "runs")) / folder_name("versus")
    game = _Game(loads, orders(len(where), rounds, seed), options["observe"])
    for n, (name, target) in enumerate(zip(names, where, strict=True)):
        own = _own(options, n, len(where)) | {"out": folder, "observe": game.observer(n)}
        if options.get("seed") is not None:  # with the same prompts one could answer from what the other has cached
            own["seed"] = seed + n
        entrant = Entrant(name=name, target=target, price_per_hour=prices[n] if prices else None)
        game.seats.append(_Seat(entrant, _alike(ordered(target, goal, own), seed), own))
    if streams := max((x.value for x in loads if isinstance(x, Concurrency)), default=0):
        for seat in game.seats:
            room_for(streams, seat.scenario.target, seat.scenario.settings.workers)
    try:
        game.play()
    finally:
        found = None
        if game.taken:
            found = contest(game.taken, [seat.entrant for seat in game.seats], rounds=rounds, seed=seed)
            found = msgspec.structs.replace(found, folder=str(folder), interrupted=game.interrupted)
            found = gated_contest(found, fail_if)
            write_whole(folder / "versus.json", msgspec.json.format(msgspec.json.encode(found), indent=2) + b"\n")
        with contextlib.suppress(OSError):  # it holds something, or was never made
            folder.rmdir()
    if found is None:  # stopped before the first slice had ended
        raise KeyboardInterrupt
    return found


def _refuse(where: Sequence[str], rounds: int, prices: Sequence[float]) -> None:
    if not 2 <= len(where) <= len(LETTERS):
        raise BadInput(f"versus takes 2 to {len(LETTERS)} targets, not {len(where)}")
    at_least("--rounds", rounds, LEAST_ROUNDS, 10_000)
    if prices and len(prices) != len(where):
        raise BadInput(f"--prices: give one price for each of the {len(where)} targets, or none")
    for price in prices:
        positive("--prices", price)


def _alike(scenario: Scenario, seed: int) -> Scenario:
    """The order with lengths and arrivals that are those of all targets in a round; the prompts are its own."""
    return msgspec.structs.replace(scenario, workload=msgspec.structs.replace(scenario.workload, draw_seed=seed))


def _own(options: Options, n: int, targets: int) -> Options:
    """The options of one target: model and key may be told for each, separated by commas."""
    own: Options = {**options}
    for name in ("model", "api_key_env"):
        parts = str(options.get(name, "")).split(",")
        if len(parts) == targets:
            own[name] = parts[n].strip()
    return own


@dataclasses.dataclass
class _Seat:
    """A target's place in the game."""

    entrant: Entrant
    scenario: Scenario
    options: Options
    bench: Bench | None = None
    """As long as it is open."""

    def taken_by(self, bench: Bench) -> None:
        """Note what is known of the target now that it is open."""
        self.bench, place = bench, bench.target
        run = str(bench.folder.path) if bench.folder is not None else ""
        self.entrant = msgspec.structs.replace(
            self.entrant, target=place.described()["url"], model=place.model, run=run
        )


class _Game:
    """Opens one target within the other, plays the rounds, and lets every target write up its own run."""

    def __init__(
        self, loads: Sequence[Load], turns: Sequence[Sequence[int]], observe: Callable[[Status], None]
    ) -> None:
        self.seats: list[_Seat] = []
        self.taken: list[Slice] = []
        self.interrupted = False
        self._loads, self._turns, self._observe = loads, turns, observe

    def play(self, n: int = 0) -> None:
        """Get target `n` ready, then those after it; the last plays. Raises BadInput and RunFailed."""
        seat = self.seats[n]

        def drive(bench: Bench) -> None:
            seat.taken_by(bench)
            if n + 1 == len(self.seats):
                return self._rounds()
            try:
                self.play(n + 1)
            except Failed as error:  # the rule of one is the rule of all
                raise Reached(str(error), failed=True) from None
            if self.interrupted:  # it was told to the last target alone
                raise KeyboardInterrupt

        try:
            run = conducted(seat.scenario, seat.options, drive)
        finally:
            seat.bench = None
        self.interrupted = self.interrupted or run.interrupted

    def _rounds(self) -> None:
        count = len(self._turns) * len(self._loads) * len(self.seats)
        self._observe(told(f"{count} slices in {len(self._turns)} rounds, one target at a time"))
        for one in slices([_in_turn(seat) for seat in self.seats], self._loads, self._turns):
            self.taken.append(one)
            if one.place == len(self.seats) - 1:
                self._observe(told(self._line(one.round, one.level.load)))

    def _line(self, number: int, load: Load) -> str:
        """A round at a load, as soon as it has ended."""
        here = {x.target: x.level for x in self.taken if x.round == number and x.level.load == load}
        figures = ((seat.entrant.name, here[n].output_tokens_per_s.value) for n, seat in enumerate(self.seats))
        said = "  ".join(f"{name} {'-' if value is None else f'{value:,.0f}'}" for name, value in figures)
        return f"round {number + 1}/{len(self._turns)}, {load}, tok/s: {said}"

    def observer(self, n: int) -> Callable[[Status], None]:
        """What the target `n` tells of itself, as part of the whole; the others are heard meanwhile."""

        def observe(status: Status) -> None:
            for seat in self.seats:
                if seat.bench is not None and seat is not self.seats[n]:
                    seat.bench.listen(0.0)
            if status.note:
                status = dataclasses.replace(status, note=f"{self.seats[n].entrant.name}: {status.note}")
            elif status.ended is not None:  # a round is told as a whole
                return
            left_s = None if status.remaining_s is None else status.remaining_s * len(self.seats)
            levels = len(self._turns) * len(self._loads) * len(self.seats)
            self._observe(dataclasses.replace(status, level_index=len(self.taken), levels=levels, remaining_s=left_s))

        return observe


def _in_turn(seat: _Seat) -> Measure:
    """The measuring step of a target that rests afterwards."""

    def measure(load: Load, enough: Enough | None = None) -> LevelResult:
        assert seat.bench is not None
        try:
            found = seat.bench.measure(load, enough)
        except RunFailed as error:
            raise RunFailed(f"{seat.entrant.name}: {error}") from None
        seat.bench.rest()
        return found

    return measure
