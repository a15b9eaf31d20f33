"""Find the largest load that meets a latency budget, in few requests.

One climb through 1, 2, 4 ... until the belief about the boundary (`answers.boundary`) says where it lies; then a
level just above it and one at it; then more only while the interval is wider than was asked for. No level runs for
a fixed time: it ends once its verdict is beyond doubt, or once it is known as well as the answer needs it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from pacemark.answers import drift
from pacemark.answers.allowance import FEW, Allowance, added, cost_of_level, spent_on, will_have_spent
from pacemark.answers.axis import LoadAxis, LoadKind
from pacemark.answers.boundary import Belief, Reading, believe, most_met, read
from pacemark.answers.curve import no_longer_rises
from pacemark.answers.cut import bound_by, with_cut_answers
from pacemark.answers.drift import STEADY, Visit, VisitScatter, scatter_of, visits_of
from pacemark.answers.step import Step
from pacemark.answers.underway import fair_sample
from pacemark.answers.weighing import demanded, in_words, side_of_limit, spared, together, turned_away, untimed
from pacemark.budget import Budget, parse
from pacemark.errors import BadInput, RunFailed, Unreachable
from pacemark.figures import metrics
from pacemark.figures.conditions import Condition, demands
from pacemark.figures.level import Enough, LevelResult, Measure
from pacemark.pace import Arrivals, Concurrency, Load, sought
from pacemark.summary import Figure, Find, Probe, Spent
from pacemark.trace import RATE_LIMITS, Trace, Window
from pacemark.units import number

__all__ = ["find"]

RATE_LIMIT = "rate limit (429)"
"""What binds where the endpoint turned requests away rather than be slow with them."""
LIMIT_OF_TIME = (
    "the limit seems to be one of a time, such as requests a minute, and the answer was not measured long enough to "
    "reach it: run it for two minutes"
)
ALONE_MS = 100.0
"""Milliseconds of work that come in a second where requests next to never meet: a lower rate is no better."""
FAILING = 1.0
"""Requests times the share that may fail, at a level where more seem to."""
CYCLES = 3
"""Requests of each stream that a close verdict needs."""
NEAR_CAPACITY = 800
"""Requests that an open-loop level needs near capacity. A queue forgets how it began after about 1 / (1 - sqrt(u))^2
requests at utilisation u (the relaxation time of M/M/1): 380 at 90%, 800 at 93%."""
PROBES = 60
"""More than any search needs; a search that comes here is stopped and says so."""


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
    rest: Callable[[float], None] = lambda seconds: None,
) -> Find:
    """The largest concurrency, or open-loop rate, that meets `budget`, with its 95% interval.

    `precision` is how narrow the interval should be, as a share of the answer (never less than one stream); `most`
    is the largest load to try. `known` are the levels of this same search before it was cut off: it goes on with
    them. `rest` lets so many seconds go by without load. Raises BadInput for a budget that makes no sense, RunFailed
    where the first level gives no result, or where the endpoint is gone.
    """
    budget = parse(budget) if isinstance(budget, str) else budget
    axis = LoadAxis(kind, arrivals, burstiness, precision)
    if (top := axis.step(most)) <= 0:
        raise BadInput(f"--most {most:g}: must be at least 1, for one request at a time")
    search = _Search(measure, budget, axis, top, allowance or Allowance(), observe, rest)
    for result in known:
        search.recall(result)
    return search.run()


@dataclass(slots=True)
class _Search:
    measure: Measure
    budget: Budget
    axis: LoadAxis
    most: float
    allowance: Allowance
    observe: Callable[[Step], None]
    rest: Callable[[float], None]
    results: list[LevelResult] = field(default_factory=list)
    probes: list[Probe] = field(default_factory=list)
    readings: dict[float, Reading] = field(default_factory=dict)
    spent: Spent = field(default_factory=lambda: Spent(0, 0.0))
    visits: list[Visit] = field(default_factory=list)
    least: float | None = None
    """How many requests the next level needs, where it is a visit that shows how fast the endpoint is now."""
    glanced_s: float = 0.0
    """What had been spent at the last of them."""
    rounds: int = 0
    """Visits of an endpoint that was not steady."""
    pause: Spent = field(default_factory=lambda: Spent(0, 0.0))
    """To be spent before the next level."""
    resolved: bool = False
    why: str = ""

    def run(self) -> Find:
        x: float | None = min(1, self.most)
        why = "to know the endpoint at its best"
        if self.probes:
            x, why = self.following()
        while x is not None:
            forecast = self.forecast(x)
            over = self.allowance.exceeded(added(self.spent, self.forecast(x, least=True))) if self.probes else None
            if over:
                self.why = f"the next level would exceed the allowance of {over}: allow more for a surer answer"
                break
            self.tell(x, why, forecast)
            if self.pause.seconds:
                self.rest(self.pause.seconds)
            self.spent, self.pause = added(self.spent, self.pause), Spent(0, 0.0)
            self.probe(x)
            if x == min(self.readings, default=x):
                self.glanced_s = self.spent.seconds
            x, why = self.following()
        if scatter := self.scatter():
            shaken = self.shaken(scatter)
            met = any(r.holds for r in shaken)
            known = f"{self.why}; " if met else "no load was seen to meet it at all times; "
            before = "" if self.resolved and met else known
            self.why = f"{before}{scatter.in_words(interval=met)}"
            self.resolved = self.resolved and self.axis.narrow(believe(shaken))
        self.tell(None, self.why, None)
        return self.found()

    # --- one level

    def probe(self, x: float) -> None:
        load = self.load(x)
        try:
            result = self.measure(load, self.enough(x))
        except RunFailed as error:
            if not self.probes or isinstance(error, Unreachable):
                raise  # that says nothing of the load
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
        found = demanded(result, self.budget)
        if not found[-1].scores.size:
            self.probes.append(Probe(load, None, "the allowance ended before a request of its window was answered"))
            return
        if missing := untimed(found):
            raise RunFailed(f"no answer at {load} has what the budget limits: {missing.name}")
        self.results = with_cut_answers([*self.results, result])
        result = self.results[-1]
        self.readings[x] = reading = self.weigh(x)
        self.visits += visits_of(result)
        self.probes.append(Probe(load, reading.verdict, in_words(reading, result)))

    def weigh(self, x: float, extra: Sequence[Condition] = (), scatter: VisitScatter = STEADY) -> Reading:
        """Everything measured at load `x`, and `extra` of a level under way."""
        parts = [demanded(r, self.budget) for r in self.results if sought(r.load) == x]
        return read(x, together([*parts, extra] if extra else parts), round(1000 * x), scatter.unrest(x))

    def enough(self, x: float) -> Enough:
        load = self.load(x)
        known = self.readings[x].n if x in self.readings else 0
        least_of_visit = self.least

        def enough(trace: Trace, window: Window) -> bool:
            if self.allowance.exceeded(added(self.spent, will_have_spent(trace, window, load))):
                return True
            sample = fair_sample(trace, window)
            n = int(sample.sum())
            if least_of_visit is not None:
                return n >= least_of_visit
            if n < max(FEW if x > 1 else 5, known):
                return False
            conditions = demands(self.budget, trace, sample)
            reading = self.weigh(x, conditions)
            # What is rare may not have been seen yet: that many requests without a miss would certify the quantile.
            rare = max((3 / (1 - c.quantile) for c in conditions if c.quantile is not None), default=0.0)
            least = self.memory(x, trace, sample)
            certified = n >= (rare if reading.values.max() > 0.7 else 0.0)
            begun = n >= least or self.axis.whole
            if reading.clear() and (reading.values.max() >= 1 or (certified and begun)):
                return True
            # Some failed, more than may: so few cannot tell a hiccup from the boundary.
            failing = reading.values[-1] >= 1 and n < FAILING / min(0.04, self.budget.errors)
            if n < max(2 * FEW, least) or failing:
                return False
            others = [r for r in self.readings.values() if r.load != x]
            if others and self.axis.narrow(believe([*others, reading])):
                return True
            # The level's last requests, still under way, will make it more precise yet.
            under_way = load.value if isinstance(load, Concurrency) else 0
            uncertain = self.uncertainty(reading) * math.sqrt(n / (n + under_way))
            return n >= 20 * x + 600 or uncertain <= 0.35 * self.axis.tolerance(x)

        return enough

    def memory(self, x: float, trace: Trace, sample: NDArray[np.bool_]) -> float:
        """How many requests it takes until a level has forgotten how it began.

        A closed loop begins with its streams evenly spread, and their requests collide less than they will. An open
        loop begins empty: well below capacity that is forgotten after some turns of what is in flight, near capacity
        much later, and the later the burstier the arrivals are, in proportion to their variance.
        """
        if self.axis.whole:
            return CYCLES * x
        if any(r.within < 0.5 and r.load < 2.5 * x for r in self.readings.values()):
            return NEAR_CAPACITY * max(1.0, self.axis.burstiness**2)
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

    def following(self) -> tuple[float | None, str]:
        """The next level, be it to find the answer or to see whether it lasts."""
        self.resolved, self.least = False, None
        x, why = self.next()
        if x is None:
            return self.once_more()
        return self.glance() if self.glance_due(drift.GLANCE_S) else (x, why)

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
        if not within and (further := self.further(levels)):
            return further
        middle = self.axis.step(belief.middle)
        low, high = (self.axis.step(v) for v in belief.interval())
        if not within and (high < 1 or not self.axis.whole):
            self.resolved, self.why = True, self.by_how_much()
            return None, ""
        tolerance = self.axis.tolerance(middle)
        if self.axis.narrow(belief) and middle >= levels[0].load:
            if any(r.load == middle or abs(r.load - middle) <= 0.5 * tolerance for r in within):
                self.resolved = True
                self.why = "the interval is as narrow as was asked for"
                return None, ""
            return middle, "to measure what was found"
        if not math.isfinite(high):
            return self.climb(levels, belief)
        return self.refine(belief, low, high)

    def further(self, levels: Sequence[Reading]) -> tuple[float, str] | None:
        """Where to look while no load meets the budget; None where the lowest is the endpoint at its best."""
        if self.axis.whole:
            why = "concurrency 1 misses the budget; 2 can show whether that is a slow start"
            return (2, why) if len(levels) == 1 else None
        x = levels[0].load
        for level in (r.level for r in self.results if sought(r.load) == x):
            if x * (level.latency_ms.p50.value or math.inf) < ALONE_MS and level.errors.keys().isdisjoint(RATE_LIMITS):
                return None
        return self.axis.step(x / 4), "the budget is missed: to see it at a lower rate"

    def refine(self, belief: Belief, low: float, high: float) -> tuple[float | None, str]:
        """A load inside the interval."""
        # The load for which it is least certain on which side of the boundary it lies. Where that is known already,
        # one between the boundary and the far end of the interval: the verdict there takes fewer requests.
        x, why = self.axis.split(belief, self.readings), "the boundary is as likely below it as above"
        if x in self.readings:
            x, why = self.axis.halfway(belief, low, high, self.readings), "to know how far it may be"
        known = self.readings.get(x)
        if known is None:
            return x, why
        if known.n > 20 * x + 2000:
            self.why = f"the {known.n} requests at {self.load(x)} vary too much to tell more"
            return None, ""
        return x, "to know it better"

    def climb(self, levels: Sequence[Reading], belief: Belief) -> tuple[float | None, str]:
        top = levels[-1].load
        if top >= self.most:
            self.why = f"the budget is met at {self.load(top)}, the largest load to be tried: --most sets it"
            return None, ""
        aim = belief.at(0.8)
        if aim < 2 * top:
            short = sum(r.load > 0.7 * top for r in levels) - 1  # times that the boundary was expected too soon
            further = self.axis.step(top * (1 + 0.025 * 2**short))
            aim = max(self.axis.step(aim), further, self.axis.step(top + 1) if self.axis.whole else 0.0)
            return min(aim, self.most), f"the boundary is expected at {number(self.axis.step(belief.middle))}"
        flat = no_longer_rises([r.level for r in self.results])
        if flat and belief.middle > 16 * top:
            self.resolved = True
            self.why = flat
            return None, ""
        return min(2 * top, self.most), "the budget is met with room to spare"

    def load(self, x: float) -> Load:
        return self.axis.load(x, self.results[0].load if self.results else None)

    def forecast(self, x: float, *, least: bool = False) -> Spent:
        """What a level at `x` will cost; `least`: at the least."""
        return cost_of_level(x, self.results, FEW if least else None)

    # --- whether the answer lasts

    def glance_due(self, every_s: float, times: float = 15) -> bool:
        """Whether it is time to see how fast the endpoint is now: the last look is so long ago, and so many times as
        long as one takes, and another can be afforded."""
        if not self.visits:
            return False
        cost = cost_of_level(min(self.readings), self.results, drift.GLANCE)
        late = self.spent.seconds - self.glanced_s >= max(every_s, times * cost.seconds)
        return late and not self.allowance.exceeded(added(self.spent, cost))

    def glance(self) -> tuple[float, str]:
        """A short visit of the load that costs least."""
        self.least = drift.GLANCE
        return min(self.readings), "to see whether the endpoint is as fast as it was"

    def once_more(self) -> tuple[float | None, str]:
        """A load to be visited again before the search answers; None where nothing is gained by it.

        The lowest; where the endpoint was not steady both ends of the interval, at times so far apart that its speed
        can be another.
        """
        scatter, rest = self.scatter(), Spent(0, drift.REST_S)
        if not scatter:
            if self.rounds:
                return None, ""
            if self.nearly() and not self.allowance.exceeded(added(self.spent, rest)):
                self.rounds, self.pause = 1, rest
                return self.glance()[0], "no load meets the budget by little: to see whether it is so at another time"
            return self.glance() if self.glance_due(drift.OCCASION_S, 4) else (None, "")
        belief = believe(self.shaken(scatter))
        if self.rounds >= drift.RETURNS or (self.resolved and self.axis.narrow(belief)):
            return None, ""
        x = drift.worth_another(scatter, self.readings.values(), belief.interval(0.68)[self.rounds % 2])
        if self.allowance.exceeded(added(added(self.spent, rest), self.forecast(x, least=True))):
            return None, ""
        self.rounds, self.pause = self.rounds + 1, rest
        self.least = max(2.0 * FEW, x * (CYCLES if self.axis.whole else drift.RATE_S))
        return x, "the endpoint was not steady: to see it at another time"

    def nearly(self) -> bool:
        """Whether no load meets the budget, and the lowest misses it by no more than a bad minute can make of it."""
        if not self.readings or any(r.holds for r in self.readings.values()):
            return False
        lowest = self.readings[min(self.readings)]
        return lowest.n > 0 and lowest.values.max() < drift.NEARLY

    def scatter(self) -> VisitScatter:
        """How unsteady the endpoint was, as far as was seen."""
        return scatter_of(self.visits, self.readings.values())

    def shaken(self, scatter: VisitScatter) -> list[Reading]:
        """What is known of each load, given how unsteady the endpoint was."""
        if not scatter:
            return list(self.readings.values())
        return [self.weigh(x, scatter=scatter) if r.n else r for x, r in self.readings.items()]

    # --- the outcome

    def tell(self, x: float | None, why: str, forecast: Spent | None) -> None:
        low = high = None
        if self.readings:
            low, high = self.interval(believe(self.shaken(self.scatter())))
            low = min(low, max(self.readings))  # nothing was seen above that
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
        low, high = (self.axis.step(v) for v in belief.interval())
        return low, high if high <= 2 * max(self.readings) else None

    def by_how_much(self) -> str:
        lowest = self.readings[min(self.readings)]
        least = "one request at a time" if self.axis.whole else self.load(lowest.load)
        return f"not even {least} meets it: {side_of_limit(lowest, lowest.worst)}"

    def found(self) -> Find:
        if not self.readings:
            return Find(str(self.budget), self.axis.kind, False, None, None, self.probes, self.spent, self.why)
        scatter = self.scatter()
        readings = self.shaken(scatter)
        belief = believe(readings)
        low, high = self.interval(belief)
        middle = belief.middle
        none = (self.axis.whole and middle < 1) or not any(r.holds for r in readings)
        top = max(self.readings)
        most = most_met(readings, min(self.axis.step(middle), top), whole=self.axis.whole)
        answer = None if none else Figure(most, min(low, most), high)
        refused = turned_away(self.results, self.readings, middle, self.budget)
        may_last = not (refused and answer and spared(self.results, most))
        return Find(
            budget=str(self.budget),
            load=self.axis.kind,
            resolved=self.resolved and may_last,
            answer=answer,
            binds=RATE_LIMIT if refused else bound_by(belief.binds[0], self.results),
            probes=self.probes,
            spent=self.spent,
            why=self.why if may_last else f"{self.why}; {LIMIT_OF_TIME}",
            scatter=scatter.sd,
        )
