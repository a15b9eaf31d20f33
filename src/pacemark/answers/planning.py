"""From one replica's measurement to a fleet: how many replicas carry a demand within the budget, and what they cost.

A replica is taken as measured: so many requests per second with n streams, and such a share of them beyond the
budget. The fleet is a queue with these rates; docs/search.md has the formulas, their sources, and how far the
estimate was from a simulated fleet.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from typing import Literal

import msgspec

from pacemark.answers.curve import named, operating_points
from pacemark.answers.held import Answered, answer_of
from pacemark.answers.replicas import Needed, combined, fleet_for, replicas_like
from pacemark.answers.sizes import Advice, Sold, advice, parse_size
from pacemark.answers.weighing import comparable
from pacemark.budget import Budget
from pacemark.errors import BadInput
from pacemark.figures.level import LevelResult
from pacemark.figures.pooling import pooled
from pacemark.pace import Concurrency, Load, Rate
from pacemark.summary import Figure, Find, Level, OperatingPoint
from pacemark.units import number

__all__ = ["SCHEMA", "Cost", "Demand", "Sizing", "Plan", "parse_demand", "parse_size", "plan_for"]

SCHEMA = "pacemark/plan/1"
DemandUnit = Literal["requests/s", "output tokens/s", "tokens/s"]


class Demand(msgspec.Struct, frozen=True, omit_defaults=True):
    """How much is to be served."""

    value: float
    unit: DemandUnit
    """tokens/s count input and output."""
    low: float | None = None
    high: float | None = None
    """The ends of its interval, where it has one."""

    def __str__(self) -> str:
        if self.low is None or self.high is None:
            return f"{number(self.value)} {self.unit}"
        return f"{self.low:,.6g} to {self.high:,.6g} {self.unit}"


class Sizing(msgspec.Struct, frozen=True):
    """Replicas for one way of arriving."""

    burstiness: float
    """Coefficient of variation of the gaps between requests; 1 is Poisson."""
    replicas: int
    """The likeliest number."""
    missing: float | None
    """What the queueing estimate expects of the budget's worst condition: its share of misses over what is allowed, or
    its mean over the limit. None where rates were measured, which need no estimate."""
    load: float
    """Demand over what the replicas give at the within-budget point."""
    cost_per_hour: float | None = None
    cost_per_million_output_tokens: float | None = None
    """At the demand itself: spare replicas cost too."""
    replicas_low: int | None = None
    replicas_high: int | None = None
    """A 95% interval of the number, from those of the levels and of the demand; no high end where the run was too short
    to give one."""


class Cost(msgspec.Struct, frozen=True):
    """What tokens cost at an operating point, one replica kept busy there."""

    point: str
    load: str
    per_million_output_tokens: float
    per_million_tokens: float | None
    """Input and output."""


class Plan(msgspec.Struct, frozen=True):
    """Replicas, headroom, provider sizes and cost for a demand within a budget."""

    demand: Demand
    budget: str
    requests_per_s: float
    """The demand as requests, at the run's own lengths."""
    output_tokens_per_s: float
    tokens_per_s: float | None
    """Input and output; None where the server did not count its input."""
    point: OperatingPoint
    """The within-budget point of one replica, as measured."""
    per_replica: Figure
    """Requests per second of one replica there."""
    replicas_without_headroom: int
    """If requests came evenly and no replica ever held more streams than at the point."""
    fleets: list[Sizing]
    """The one asked for first, then a burstier one to compare."""
    costs: list[Cost]
    advice: list[Advice]
    notes: list[str]
    schema: str = SCHEMA
    safe: int | None = None
    """The safe choice for the fleet asked for: the high end of its interval."""
    safe_cost_per_hour: float | None = None


# --- what the user says

_DEMAND = re.compile(r"\s*([\d_,]*\.?\d+)(?:\s*(to|-|\+-|\+/-|±)\s*([\d_,]*\.?\d+))?\s*([a-z /]+?)\s*", re.IGNORECASE)
_UNITS: dict[str, DemandUnit] = {
    "requests": "requests/s",
    "request": "requests/s",
    "output tokens": "output tokens/s",
    "tokens": "tokens/s",
    "total tokens": "tokens/s",
}
_TIMES = {"s": 1, "sec": 1, "second": 1, "min": 60, "minute": 60, "h": 3600, "hour": 3600, "day": 86400}


def parse_demand(text: str) -> Demand:
    """`40 requests/s`, `30000 output tokens/s`, `1.5 requests/min`; tokens without a word count input and output too.
    `30 to 50 requests/s` and `40 +- 10 requests/s` are taken for 95% intervals.

    Raises BadInput.
    """
    found = _DEMAND.fullmatch(text)
    what, _, per = re.sub(r"\s*(/|\bper\b)\s*", "/", found.group(4).lower()).partition("/") if found else ("", "", "")
    what = " ".join(what.split())
    if found is None or what not in _UNITS or per not in _TIMES:
        raise BadInput(
            f"--demand {text!r}: give a number and its unit, for example '40 requests/s', '30 to 50 requests/s' or "
            "'30000 output tokens/s'"
        )
    first, second = (
        float((x or "0").replace(",", "").replace("_", "")) / _TIMES[per] for x in (found.group(1), found.group(3))
    )
    low, high = (first, second) if found.group(2) in ("to", "-") else (first - second, first + second)
    if low <= 0 or high < low:
        raise BadInput(f"--demand {text!r}: must be more than 0, and a range must rise")
    return Demand((low + high) / 2, _UNITS[what], *((low, high) if found.group(2) else ()))


# --- the plan


def plan_for(
    results: Sequence[LevelResult],
    demand: Demand,
    budget: Budget,
    *,
    burstiness: float = 1.0,
    price_per_hour: float | None = None,
    sold: Sold | None = None,
    find: Find | None = None,
) -> Plan:
    """The fleet that serves `demand` within `budget`, each replica like the one measured in `results`.

    `burstiness` is the coefficient of variation of the gaps between requests, `price_per_hour` that of one replica,
    `sold` what it was bought as where that is Databricks' to sell, `find` what a search of the run has answered to that
    budget. Raises BadInput where no level meets the
    budget, or none was measured.
    """
    alike = comparable(results)
    groups: dict[float, list[LevelResult]] = {}
    for result in alike:
        groups.setdefault(float(result.load.value), []).append(result)
    levels = [pooled(same) for _, same in sorted(groups.items())]
    chosen = _fastest(levels, answer_of(alike, budget, find=find))
    points = operating_points(levels, lambda level: level.load == chosen)
    if points.within_budget is None:
        raise BadInput(f"no level of the run meets {budget}, so there is nothing to plan with; pacemark find tells why")
    at = next(level for level in levels if level.load == points.within_budget.load)
    wanted, output, total = _as_requests(demand, at)
    low, high = (wanted * (end or demand.value) / demand.value for end in (demand.low, demand.high))
    per_replica = at.requests_per_s.value or 0.0
    least = math.ceil(wanted / per_replica - 1e-9)
    if isinstance(at.load, Concurrency):
        like = replicas_like(alike, levels, at, budget)
        ways = dict.fromkeys((burstiness, max(2.0, burstiness)))
        sizes = [(cv, fleet_for(like, wanted, cv, (low, high))) for cv in ways]
    else:
        sizes = [(at.load.burstiness, _evenly(at, find, wanted, least, (low, high)))]
    fleets = [_fleet(cv, size, wanted, per_replica, output, price_per_hour) for cv, size in sizes]
    safe = fleets[0].replicas_high
    return Plan(
        demand=demand,
        budget=str(budget),
        requests_per_s=wanted,
        output_tokens_per_s=output,
        tokens_per_s=total,
        point=points.within_budget,
        per_replica=at.requests_per_s,
        replicas_without_headroom=least,
        fleets=fleets,
        costs=_costs(named(points), levels, price_per_hour),
        advice=[] if sold is None else advice(fleets[0].replicas, at, wanted, total, sold),
        notes=_notes(at, levels, burstiness, safe),
        safe=safe,
        safe_cost_per_hour=None if safe is None or price_per_hour is None else price_per_hour * safe,
    )


def _fastest(levels: Sequence[Level], answered: Answered) -> Load | None:
    """The load to run a replica at: the largest within the budget, or one below it that surely answers more a second,
    where throughput falls beyond that."""
    chosen = next((x for x in levels if x.load == answered.chosen), None)
    if chosen is None or chosen.requests_per_s.high is None:
        return answered.chosen
    more = [
        x
        for x in levels
        if x.load.value < chosen.load.value
        and (held := answered.held.get(x.load)) is not None
        and held.status == "met"
        and (x.requests_per_s.low or 0.0) > chosen.requests_per_s.high
    ]
    return max(more, key=lambda x: x.requests_per_s.value or 0.0, default=chosen).load


def _notes(at: Level, levels: Sequence[Level], burstiness: float, safe: int | None) -> list[str]:
    """What to keep in mind of a plan that stands on the level `at`."""
    notes = []
    if isinstance(at.load, Rate):
        notes.append(f"the run's rates arrived as {at.load.arrivals}, so they hold its headroom; what a fleet gains by "
                     "sharing one queue is left out")  # fmt: skip
        if burstiness > at.load.burstiness:
            notes.append(f"burstiness {burstiness:g} was not measured: find a rate with --arrivals gamma --burstiness")
    if at is levels[-1]:
        notes.append(f"{at.load}, the largest load of the run, meets the budget: a higher one may need fewer replicas")
    if at.verdict.status != "valid":
        notes.append(f"the level at {at.load} is {at.verdict.status}: its reasons stand with the run")
    if safe is None:
        notes.append("the run is too short to give a safe number: measure its levels for longer")
    return notes


def _evenly(at: Level, find: Find | None, wanted: float, least: int, rates: tuple[float, float]) -> Needed:
    """Replicas that each take the rate at which one was measured; the search's interval of that rate counts too."""
    value = at.requests_per_s.value or 0.0
    ends = [at.requests_per_s] + ([find.answer] if find and find.answer and find.load == "rate" else [])
    slow = min(value, *(x.low or 0.0 for x in ends))
    fast = max(value, *(x.high or value for x in ends), value)
    most = wanted / slow if slow else math.inf  # a rate that may be nothing makes no number safe
    low, high = combined(wanted / value, [wanted / fast, rates[0] / value], [most, rates[1] / value])
    return Needed(least, math.nan, min(low, least), None if high is None else max(high, least))


def _as_requests(demand: Demand, level: Level) -> tuple[float, float, float | None]:
    """The demand in requests/s, output tokens/s and tokens/s, at the level's own mean lengths."""
    output, entered = level.output_tokens or 0.0, level.input_tokens
    if demand.unit == "tokens/s" and entered is None:
        raise BadInput("the server did not count its input tokens: give the demand in requests/s or output tokens/s")
    per_request = {"requests/s": 1.0, "output tokens/s": output, "tokens/s": output + (entered or 0.0)}[demand.unit]
    if per_request <= 0:
        raise BadInput("the run has no answers to take a length from")
    wanted = demand.value / per_request
    return wanted, wanted * output, None if entered is None else wanted * (output + entered)


# --- money and providers


def _fleet(cv: float, size: Needed, wanted: float, per_replica: float, output: float, price: float | None) -> Sizing:
    hourly = None if price is None else price * size.replicas
    return Sizing(
        burstiness=cv,
        replicas=size.replicas,
        missing=size.missing if math.isfinite(size.missing) else None,
        load=wanted / (size.replicas * per_replica),
        cost_per_hour=hourly,
        cost_per_million_output_tokens=None if hourly is None else hourly / (output * 3600) * 1e6,
        replicas_low=size.low,
        replicas_high=size.high,
    )


def _costs(points: Sequence[tuple[str, OperatingPoint]], levels: Sequence[Level], price: float | None) -> list[Cost]:
    if price is None:
        return []
    costs = []
    for name, point in points:
        level = next(level for level in levels if level.load == point.load)
        output, total = level.output_tokens_per_s.value, level.total_tokens_per_s.value
        if output:
            million = price / 3600 * 1e6
            costs.append(Cost(name, str(point.load), million / output, million / total if total else None))
    return costs
