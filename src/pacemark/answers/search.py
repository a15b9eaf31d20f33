"""Find the largest load that meets a latency budget, in few requests.

One climb through 1, 2, 4 ... until the belief about the boundary (`answers.boundary`) says where it lies; then a
level just above it and one at it; then more only while the interval is wider than was asked for. No level runs for
a fixed time: it ends once its verdict is beyond doubt, or once it is known as well as the answer needs it.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from pacemark.answers.allowance import Allowance, added, spent_on, will_have_spent
from pacemark.answers.boundary import Belief, Reading, believe, most_met, read, three_digits
from pacemark.answers.weighing import demanded, side_of_limit, together
from pacemark.budget import Budget, parse
from pacemark.errors import RunFailed
from pacemark.figures import metrics
from pacemark.figures.conditions import Condition, demands
from pacemark.figures.level import Enough, LevelResult, Measure
from pacemark.pace import Arrivals, Concurrency, Load, Rate, sought
from pacemark.summary import Figure, Find, Probe, Spent
from pacemark.trace import Trace, Window
from pacemark.units import number

__all__ = ["Step", "find"]

LoadKind = Literal["concurrency", "rate", "speed"]

FEW = 12
"""Requests that a level needs at the least."""
RATE_LIMIT = "rate limit (429)"
"""What binds where the endpoint turned requests away rather than be slow with them."""
FAILING = 1.0
"""Requests times the share that may fail, at a level where more seem to."""
CYCLES = 3
"""Requests of each stream that a close verdict needs."""
NEAR_CAPACITY = 800
"""Requests that an open-loop level needs near capacity. A queue forgets how it began after about 1 / (1 - sqrt(u))^2
requests at utilisation u (the relaxation time of M/M/1): 380 at 90%, 800 at 93%."""
PROBES = 40
"""More than any search needs; a search that comes here is stopped and says so."""


@dataclass(frozen=True, slots=True)
class Step:
    """One moment of a search: what was just learned, and what comes next."""

    probe: Probe | None
    """The level that has just ended; None before the first."""
    low: float | None
    high: float | None
    """Where the boundary lies now, with 95% probability; None where nothing is known of that side."""
    next: Load | None
    """The level to be measured now; None: the search is over."""
    why: str
    """Why that one, or why the search ends."""
    spent: Spent
    forecast: Spent | None
    """What the next level will cost."""


def find(
    measure: Measure,
    budget: Budget | str,
    *,
    kind: LoadKind = "concurrency",
    arrivals: Arrivals = "poisson",
    burstiness: float = 1.0,
    precision: float = 0.05,
    most: float = 4096,
    allowance: Allowance | None = None,
    observe: Callable[[Step], None] = lambda step: None,
    known: Sequence[LevelResult] = (),
) -> Find:
    """The largest concurrency, or open-loop rate, that meets `budget`, with its 95% interval.

    `precision` is how narrow the interval should be, as a share of the answer (never less than one stream); `most`
    is the largest load to try. `known` are the levels of this same search before it was cut off: it goes on with
    them. Raises BadInput for a budget that makes no sense, RunFailed where the first level gives no result.
    """
    budget = parse(budget) if isinstance(budget, str) else budget
    search = _Search(measure, budget, kind, arrivals, burstiness, precision, most, allowance or Allowance(), observe)
    for result in known:
        search.recall(result)
    return search.run()


@dataclass(slots=True)
class _Search:
    measure: Measure
    budget: Budget
    kind: LoadKind
    arrivals: Arrivals
    burstiness: float
    precision: float
    most: float
    allowance: Allowance
    observe: Callable[[Step], None]
    results: list[LevelResult] = field(default_factory=list)
    probes: list[Probe] = field(default_factory=list)
    readings: dict[float, Reading] = field(default_factory=dict)
    spent: Spent = field(default_factory=lambda: Spent(0, 0.0))
    resolved: bool = False
    why: str = ""

    def run(self) -> Find:
        x: float | None = 1
        why = "to know the endpoint at its best"
        if self.probes:
            x, why = self.next()
        while x is not None:
            forecast = self.forecast(x)
            over = self.allowance.exceeded(added(self.spent, self.forecast(x, least=True))) if self.probes else None
            if over:
                self.why = f"the next level would exceed the allowance of {over}"
                break
            self.tell(x, why, forecast)
            self.probe(x)
            x, why = self.next()
        self.tell(None, self.why, None)
        return self.found()

    # --- one level

    def probe(self, x: float) -> None:
        load = self.load(x)
        try:
            result = self.measure(load, self.enough(x))
        except RunFailed as error:
            if not self.probes:
                raise
            self.gave_nothing(x, str(error))
            return
        self.take(x, result)

    def recall(self, result: LevelResult) -> None:
        """A level that was measured before, as if it had been now."""
        if result.level.ended_by == "interrupted":
            self.gave_nothing(sought(result.load), "it gave no result")
        else:
            self.take(sought(result.load), result)

    def gave_nothing(self, x: float, why: str) -> None:
        self.readings[x] = next(iter(self.readings.values())).failed(x)
        self.probes.append(Probe(self.load(x), False, why))

    def take(self, x: float, result: LevelResult) -> None:
        load = result.load
        self.spent = added(self.spent, spent_on(result))
        if not demanded(result, self.budget)[-1].scores.size:
            self.probes.append(Probe(load, None, "the allowance ended before a request of its window was answered"))
            return
        self.results.append(result)
        self.readings[x] = reading = self.weigh(x)
        self.probes.append(Probe(load, reading.verdict, _words(reading, result)))

    def weigh(self, x: float, extra: Sequence[Condition] = ()) -> Reading:
        """Everything measured at load `x`, and `extra` of a level under way."""
        parts = [demanded(r, self.budget) for r in self.results if sought(r.load) == x]
        return read(x, together([*parts, extra] if extra else parts), round(1000 * x))

    def enough(self, x: float) -> Enough:
        load = self.load(x)
        known = self.readings[x].n if x in self.readings else 0

        def enough(trace: Trace, window: Window) -> bool:
            if self.allowance.exceeded(added(self.spent, will_have_spent(trace, window, load))):
                return True
            sample = settled(trace, window)
            n = int(sample.sum())
            if n < max(FEW if x > 1 else 8, known):
                return False
            conditions = demands(self.budget, trace, sample)
            reading = self.weigh(x, conditions)
            # What is rare may not have been seen yet: that many requests without a miss would certify the quantile.
            rare = max((3 / (1 - c.quantile) for c in conditions if c.quantile is not None), default=0.0)
            least = self.memory(x, trace, sample)
            certified = n >= (rare if reading.values.max() > 0.7 else 0.0)
            begun = n >= least or self.kind == "concurrency"
            if reading.clear() and (reading.values.max() >= 1 or (certified and begun)):
                return True
            # Some failed, more than may: so few cannot tell a hiccup from the boundary.
            failing = reading.values[-1] >= 1 and n < FAILING / min(0.04, self.budget.errors)
            if n < max(2 * FEW, least) or failing:
                return False
            others = [r for r in self.readings.values() if r.load != x]
            if others and self.narrow(believe([*others, reading])):
                return True
            # The level's last requests, still under way, will make it more precise yet.
            under_way = load.value if isinstance(load, Concurrency) else 0
            uncertain = self.uncertainty(reading) * math.sqrt(n / (n + under_way))
            return n >= 20 * x + 600 or uncertain <= 0.35 * self.tolerance(x)

        return enough

    def memory(self, x: float, trace: Trace, sample: NDArray[np.bool_]) -> float:
        """How many requests it takes until a level has forgotten how it began.

        A closed loop begins with its streams evenly spread, and their requests collide less than they will. An open
        loop begins empty: well below capacity that is forgotten after some turns of what is in flight, near capacity
        much later, and the later the burstier the arrivals are, in proportion to their variance.
        """
        if self.kind == "concurrency":
            return CYCLES * x
        if any(r.within < 0.5 and r.load < 2.5 * x for r in self.readings.values()):
            return NEAR_CAPACITY * max(1.0, self.burstiness**2)
        return 20 * float(metrics.in_flight(trace)[sample].mean())

    def uncertainty(self, reading: Reading) -> float:
        """The standard error of a reading, as a distance on the load axis."""
        k, x = reading.worst, reading.load
        low, high = np.quantile(reading.draws[k], [0.16, 0.84])
        others = sorted((r for r in self.readings.values() if abs(r.load - x) > 0.2 * x), key=lambda r: abs(r.load - x))
        slopes = [(reading.values[k] - r.values[k]) / (x - r.load) for r in others[:1]]
        slope = max([s for s in slopes if s > 0], default=float(reading.values[k]) / x)
        return float(high - low) / 2 / slope

    # --- which level next

    def next(self) -> tuple[float | None, str]:
        if len(self.probes) >= PROBES:
            self.why = f"{PROBES} levels were measured"
            return None, ""
        levels = sorted(self.readings.values(), key=lambda r: r.load)
        if not levels:
            self.why = "the allowance ended before one level was measured"
            return None, ""
        belief = believe(levels)
        over = [r for r in levels if r.within < 0.5]
        within = [r for r in levels if r.within >= 0.5]
        if not over:
            return self.climb(levels, belief)
        if len(levels) == 1:
            return self.step(2), "concurrency 1 misses the budget; 2 can show whether that is a slow start"
        middle = self.step(belief.middle)
        low, high = (self.step(v) for v in belief.interval())
        if not within and high < 1:
            self.resolved, self.why = True, self.by_how_much()
            return None, ""
        tolerance = self.tolerance(middle)
        if self.narrow(belief) and middle >= levels[0].load:
            if any(r.load == middle or abs(r.load - middle) <= 0.5 * tolerance for r in within):
                self.resolved = True
                self.why = "the interval is as narrow as was asked for"
                return None, ""
            return middle, "to measure what was found"
        if not math.isfinite(high):
            return self.climb(levels, belief)
        return self.refine(belief, low, high)

    def refine(self, belief: Belief, low: float, high: float) -> tuple[float | None, str]:
        """A load inside the interval."""
        # The load for which it is least certain on which side of the boundary it lies. Where that is known already,
        # one between the boundary and the far end of the interval: the verdict there takes fewer requests.
        x, why = self.split(belief), "the boundary is as likely below it as above"
        if x in self.readings:
            x, why = self.halfway(belief, low, high), "to know how far it may be"
        known = self.readings.get(x)
        if known is None:
            return x, why
        if known.n > 20 * x + 2000:
            self.why = f"the {known.n} requests at {self.load(x)} vary too much to tell more"
            return None, ""
        return x, "to know it better"

    def narrow(self, belief: Belief) -> bool:
        """Whether the interval is as narrow as was asked for."""
        low, middle, high = (self.step(belief.at(p)) for p in (0.025, 0.5, 0.975))
        return max(high - middle, middle - low) <= 0.8 * self.tolerance(middle) + 0.2 * (self.kind == "concurrency")

    def split(self, belief: Belief) -> float:
        if self.kind != "concurrency":
            return self.known_near(belief.middle)
        middle = math.floor(belief.middle)
        return max(1, min((middle, middle + 1), key=lambda x: abs(np.mean(belief.draws >= x) - 0.5)))

    def halfway(self, belief: Belief, low: float, high: float) -> float:
        """Between the middle and that end of the interval which is further from it."""
        up = high - belief.middle > belief.middle - low
        x = (belief.middle + (high if up else low)) / 2
        if self.kind != "concurrency":
            return self.known_near(x)
        return math.ceil(x) if up else max(1, math.floor(x))

    def known_near(self, x: float) -> float:
        """A load that was measured and is as good as `x`, or `x` itself: rates have no grid."""
        near = (known for known in self.readings if abs(known - x) <= 0.3 * self.tolerance(x))
        return next(near, three_digits(x))

    def climb(self, levels: Sequence[Reading], belief: Belief) -> tuple[float | None, str]:
        top = levels[-1].load
        if top >= self.most:
            self.why = f"the budget is met at {self.load(top)}, the largest load to be tried"
            return None, ""
        aim = belief.at(0.8)
        if aim < 2 * top:
            short = sum(r.load > 0.7 * top for r in levels) - 1  # times that the boundary was expected too soon
            further = self.step(top * (1 + 0.025 * 2**short))
            aim = max(self.step(aim), further, self.step(top + 1) if self.kind == "concurrency" else 0.0)
            return min(aim, self.most), f"the boundary is expected at {number(belief.middle)}"
        flat = self.plateau()
        if flat and belief.middle > 16 * top:
            self.resolved = True
            self.why = flat
            return None, ""
        return min(2 * top, self.most), "the budget is met with room to spare"

    def plateau(self) -> str | None:
        """Whether throughput has stopped rising, in words."""
        rates = {sought(r.load): r.level.output_tokens_per_s.value for r in self.results}
        loads = sorted(x for x, rate in rates.items() if rate)
        if len(loads) < 3:
            return None
        before, last = rates[loads[-2]] or 0.0, rates[loads[-1]] or 0.0
        if last > 1.05 * before:
            return None
        return (
            f"throughput no longer rises ({number(before)} output tokens/s at {loads[-2]:g}, {number(last)} at "
            f"{loads[-1]:g}), nor does what the budget limits: a higher load only waits longer"
        )

    def tolerance(self, x: float) -> float:
        return max(1.0, self.precision * x) if self.kind == "concurrency" else self.precision * x

    def step(self, x: float) -> float:
        if not math.isfinite(x):
            return x
        return math.floor(x) if self.kind == "concurrency" else three_digits(x)

    def load(self, x: float) -> Load:
        if self.kind == "speed":
            per_s = next((r.load.value / sought(r.load) for r in self.results), 1.0)
            return Rate(per_s * x, "trace", speed=x)
        return Concurrency(int(x)) if self.kind == "concurrency" else Rate(x, self.arrivals, self.burstiness)

    def forecast(self, x: float, *, least: bool = False) -> Spent:
        """What a level at `x` will cost: its ramp, its window and its end, as the levels so far suggest.

        `least`: no window longer than it needs to say anything at all, for what is more the allowance ends.
        """
        known = [(sought(r.load), r.level.latency_ms.mean.value) for r in self.results]
        pairs = [(float(load), latency / 1e3) for load, latency in known if latency]
        if not pairs:
            return Spent(0, 0.0)
        last = self.results[-1].level
        loads, latencies = np.array(sorted(pairs)).T
        latency = float(np.interp(x, loads, latencies))
        if x > loads[-1] > loads[0]:  # a queue that has begun grows on
            latency += (x - loads[-1]) * max(0.0, float(np.polyfit(loads[-2:], latencies[-2:], 1)[0]))
        tokens = (last.input_tokens or 0.0) + (last.output_tokens or 0.0)
        if self.kind == "concurrency":
            requests, cycles = (4 * x + FEW, 3 + FEW / x) if least else (6 * x, 6.0)
            seconds = cycles * latency
        else:
            seconds = (3 if least else 6) * latency + FEW / x
            requests = seconds * x
        if self.kind == "speed":  # the same rows again
            seconds = latency + (last.window_s or 0.0) * sought(last.load) / x
            requests = last.requests.in_window
        return Spent(round(requests), seconds, round(requests * tokens))

    # --- the outcome

    def tell(self, x: float | None, why: str, forecast: Spent | None) -> None:
        low = high = None
        if self.readings:
            low, high = self.interval(believe(list(self.readings.values())))
        self.observe(
            Step(
                probe=self.probes[-1] if self.probes else None,
                low=low,
                high=high,
                next=None if x is None else self.load(x),
                why=why,
                spent=self.spent,
                forecast=forecast,
            )
        )

    def interval(self, belief: Belief) -> tuple[float, float | None]:
        """Where the boundary lies with 95% probability. What is not known of it is how far above twice the highest
        level it is."""
        low, high = (self.step(v) for v in belief.interval())
        return low, high if high <= 2 * max(self.readings) else None

    def limited(self, x: float) -> bool:
        """Whether the level next above load `x` failed for a rate limit: the endpoint's rule, not its capacity."""
        above = [r for r in self.results if sought(r.load) > x and self.readings[sought(r.load)].within < 0.5]
        if not above:
            return False
        nearest = min(above, key=lambda r: sought(r.load)).level
        refused = nearest.errors.get("http_429", 0)
        share = refused / max(1, nearest.requests.completed + nearest.requests.failed)
        return share > self.budget.errors and 2 * refused > nearest.requests.failed

    def by_how_much(self) -> str:
        lowest = self.readings[min(self.readings)]
        return f"not even one request at a time meets it: {side_of_limit(lowest, lowest.worst)}"

    def found(self) -> Find:
        if not self.readings:
            return Find(str(self.budget), self.kind, False, None, None, self.probes, self.spent, self.why)
        belief = believe(list(self.readings.values()))
        low, high = self.interval(belief)
        middle = belief.middle
        none = (self.kind == "concurrency" and middle < 1) or not any(r.holds for r in self.readings.values())
        top = max(self.readings)
        most = most_met(list(self.readings.values()), min(self.step(middle), top), whole=self.kind == "concurrency")
        answer = None if none else Figure(most, min(low, most), high)
        return Find(
            budget=str(self.budget),
            load=self.kind,
            resolved=self.resolved,
            answer=answer,
            binds=RATE_LIMIT if self.limited(belief.middle) else belief.binds[0],
            probes=self.probes,
            spent=self.spent,
            why=self.why,
        )


def settled(trace: Trace, window: Window) -> NDArray[np.bool_]:
    """Which requests of a level under way are a fair sample: begun in the window, and none begun before them is still
    unanswered. Those that have ended by now are too many short ones.
    """
    if trace.open_loop:
        longest = int((trace.ended_ns - trace.scheduled_ns).max(initial=0))
        return metrics.started_in(trace, window.start_ns, window.end_ns - longest)
    streams = np.zeros(int(trace.stream.max(initial=0)) + 1, dtype=np.int64)
    np.maximum.at(streams, trace.stream, trace.ended_ns)
    return metrics.started_in(trace, window.start_ns, int(streams.min()))


def _words(reading: Reading, result: LevelResult) -> str:
    text = side_of_limit(reading, reading.worst)
    if reading.names[reading.worst] == "errors" or reading.values[reading.worst] > 1e6:
        kinds = Counter(result.level.errors).most_common(1)
        text += f" ({kinds[0][0]})" if kinds else ""
    return f"{text} ({reading.n} requests)"
