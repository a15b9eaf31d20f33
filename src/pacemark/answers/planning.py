"""From one replica's measurement to a fleet: how many replicas carry a demand within the budget, and what they cost.

A replica is taken as measured: so many requests per second with n streams, and such a share of them beyond the
budget. The fleet is a queue with these rates; docs/search.md has the formulas, their sources, and how far the
estimate was from a simulated fleet.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import msgspec
import numpy as np
from numpy.typing import NDArray

from pacemark.answers.curve import named, operating_points
from pacemark.answers.held import answer_of
from pacemark.answers.weighing import comparable, conditions
from pacemark.budget import Budget
from pacemark.errors import BadInput
from pacemark.figures import metrics
from pacemark.figures.level import LevelResult
from pacemark.figures.pooling import pooled
from pacemark.pace import Concurrency
from pacemark.summary import Figure, Find, Level, OperatingPoint
from pacemark.units import number

__all__ = ["SCHEMA", "Advice", "Cost", "Demand", "Sizing", "Plan", "parse_demand", "parse_size", "plan_for"]

SCHEMA = "pacemark/plan/1"
Floats = NDArray[np.float64]
DemandUnit = Literal["requests/s", "output tokens/s", "tokens/s"]

Size = tuple[float, Literal["model units", "tokens/s"]]
"""What an endpoint was bought as."""

MOST_REPLICAS = 10_000


class Demand(msgspec.Struct, frozen=True):
    """How much is to be served."""

    value: float
    unit: DemandUnit
    """tokens/s count input and output."""

    def __str__(self) -> str:
        return f"{number(self.value)} {self.unit}"


class Sizing(msgspec.Struct, frozen=True):
    """Replicas for one way of arriving."""

    burstiness: float
    """Coefficient of variation of the gaps between requests; 1 is Poisson."""
    replicas: int
    missing: float | None
    """What the queueing estimate expects of the budget's worst condition: its share of misses over what is allowed, or
    its mean over the limit. None where rates were measured, which need no estimate."""
    load: float
    """Demand over what the replicas give at the within-budget point."""
    cost_per_hour: float | None = None
    cost_per_million_output_tokens: float | None = None
    """At the demand itself: spare replicas cost too."""


class Cost(msgspec.Struct, frozen=True):
    """What tokens cost at an operating point, one replica kept busy there."""

    point: str
    load: str
    per_million_output_tokens: float
    per_million_tokens: float | None
    """Input and output."""


class Advice(msgspec.Struct, frozen=True):
    """What to ask a provider for, as its documentation has it."""

    text: str
    source: str
    dated: str


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


# --- what the user says

_DEMAND = re.compile(r"\s*([\d_,]*\.?\d+)\s*([a-z /]+?)\s*", re.IGNORECASE)
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

    Raises BadInput.
    """
    found = _DEMAND.fullmatch(text)
    what, _, per = re.sub(r"\s*(/|\bper\b)\s*", "/", found.group(2).lower()).partition("/") if found else ("", "", "")
    what = " ".join(what.split())
    if found is None or what not in _UNITS or per not in _TIMES:
        raise BadInput(
            f"--demand {text!r}: give a number and its unit, for example '40 requests/s' or '30000 output tokens/s'"
        )
    value = float(found.group(1).replace(",", "").replace("_", "")) / _TIMES[per]
    if value <= 0:
        raise BadInput(f"--demand {text!r}: must be more than 0")
    return Demand(value, _UNITS[what])


def parse_size(text: str) -> Size:
    """What the measured endpoint was bought as: `50 model units` or `9500 tokens/s`. Raises BadInput."""
    found = re.fullmatch(r"\s*([\d_,]*\.?\d+)\s*(model units?|tokens/s)\s*", text, re.IGNORECASE)
    value = float(found.group(1).replace(",", "").replace("_", "")) if found else 0.0
    if found is None or value <= 0:
        raise BadInput(f"--provisioned {text!r}: what was measured, for example '50 model units' or '9500 tokens/s'")
    return value, "model units" if found.group(2).lower().startswith("model") else "tokens/s"


# --- the plan


def plan_for(
    results: Sequence[LevelResult],
    demand: Demand,
    budget: Budget,
    *,
    burstiness: float = 1.0,
    price_per_hour: float | None = None,
    provisioned: Size | None = None,
    find: Find | None = None,
    databricks: bool = False,
) -> Plan:
    """The fleet that serves `demand` within `budget`, each replica like the one measured in `results`.

    `burstiness` is the coefficient of variation of the gaps between requests, `price_per_hour` that of one replica,
    `provisioned` what it was bought as, `find` what a search of the run has answered to that budget. Databricks' sizes
    are spoken of where the endpoint is theirs or `provisioned` is given. Raises BadInput where no level meets the
    budget, or none was measured.
    """
    alike = comparable(results)
    groups: dict[float, list[LevelResult]] = {}
    for result in alike:
        groups.setdefault(float(result.load.value), []).append(result)
    levels = [pooled(same) for _, same in sorted(groups.items())]
    chosen = answer_of(alike, budget, find=find).chosen
    points = operating_points(levels, lambda level: level.load == chosen)
    if points.within_budget is None:
        raise BadInput(f"no level of the run meets {budget}, so there is nothing to plan with; pacemark find tells why")
    at = next(level for level in levels if level.load == points.within_budget.load)
    wanted, output, total = _as_requests(demand, at)
    per_replica = at.requests_per_s.value or 0.0
    least = math.ceil(wanted / per_replica - 1e-9)
    notes = []
    if isinstance(at.load, Concurrency):
        replica = _replica(alike, levels, budget, _evenness([r for r in alike if r.load == at.load]))
        sizes = [(cv, *_fewest(replica, wanted, least, cv)) for cv in dict.fromkeys((burstiness, max(2.0, burstiness)))]
    else:
        cv = at.load.burstiness
        sizes = [(cv, least, math.nan)]
        notes.append(f"the run's rates arrived as {at.load.arrivals}, so they hold its headroom; what a fleet gains by "
                     "sharing one queue is left out")  # fmt: skip
        if burstiness > cv:
            notes.append(f"burstiness {burstiness:g} was not measured: find a rate with --arrivals gamma --burstiness")
    if at is levels[-1]:
        notes.append(f"{at.load}, the largest load of the run, meets the budget: a higher one may need fewer replicas")
    if at.verdict.status != "valid":
        notes.append(f"the level at {at.load} is {at.verdict.status}: its reasons stand with the run")
    fleets = [_fleet(cv, n, missing, wanted, per_replica, output, price_per_hour) for cv, n, missing in sizes]
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
        advice=_advice(fleets[0].replicas, at, total, provisioned) if databricks or provisioned else [],
        notes=notes,
    )


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


# --- the queueing estimate


@dataclass(frozen=True, slots=True)
class _Replica:
    """One replica as measured: what it does with n streams."""

    streams: Floats
    """(levels,) from 0."""
    rates: Floats
    """(levels,) requests/s; never falling, and level beyond the last."""
    misses: Floats
    """(conditions, levels) each condition's share of misses, or its mean; over what the budget allows of it."""
    evenness: float
    """E[min(S, S')] / E[S] of the request times S: 1 where all are equal, 0.5 where they are exponential."""

    def rate(self, n: Floats) -> Floats:
        """Requests per second with `n` streams."""
        return np.asarray(np.interp(n, self.streams, self.rates), dtype=np.float64)

    def missing(self, n: Floats) -> Floats:
        """(conditions, n); beyond the last level the last slope goes on, for a queue only grows."""
        last = self.streams[-1]
        inside = np.array([np.interp(n, self.streams, row) for row in self.misses])
        slope = np.maximum(0.0, (self.misses[:, -1] - self.misses[:, -2]) / (last - self.streams[-2]))
        return np.asarray(inside + slope[:, None] * np.maximum(0.0, n - last), dtype=np.float64)


def _replica(results: Sequence[LevelResult], levels: Sequence[Level], budget: Budget, evenness: float) -> _Replica:
    streams = np.array([0.0, *(float(level.load.value) for level in levels)])
    rates = np.maximum.accumulate([0.0, *(level.requests_per_s.value or 0.0 for level in levels)])
    columns = []
    for level in levels:
        column = []
        for condition in conditions([r for r in results if r.load == level.load], budget):
            if condition.quantile is None:
                column.append(float(np.minimum(condition.scores, 1e6).mean()))
            else:
                column.append(float((condition.scores >= 1).mean()) / (1 - condition.quantile))
        columns.append(column)
    misses = np.maximum.accumulate(np.array([columns[0], *columns]).T, axis=1)
    return _Replica(streams, rates, misses, evenness)


def _evenness(results: Sequence[LevelResult]) -> float:
    """E[min(S, S')] / E[S] of the requests' latencies, from their order statistics."""
    times = np.sort(np.concatenate([metrics.latency_ms(r.trace) for r in results]))
    times = times[np.isfinite(times)]
    n = len(times)
    if n < 2:
        return 1.0
    weights = 2 * (n - 1 - np.arange(n)) / (n * (n - 1))
    return float(weights @ times / times.mean())


def _fewest(replica: _Replica, rate: float, least: int, burstiness: float) -> tuple[int, float]:
    """The fewest replicas within the budget, and its worst statistic as a share of its limit."""
    count = max(1, least)
    step = 1
    low = count - 1
    while (missing := expected_misses(replica, rate, count, burstiness)) >= 1:
        low, count, step = count, count + step, 2 * step
        if count > MOST_REPLICAS:
            raise BadInput(f"more than {MOST_REPLICAS:,} replicas would be needed; the demand and the run do not match")
    while count - low > 1:
        middle = (low + count) // 2
        here = expected_misses(replica, rate, middle, burstiness)
        low, count, missing = (middle, count, missing) if here >= 1 else (low, middle, here)
    return count, missing


def expected_misses(replica: _Replica, rate: float, replicas: int, burstiness: float) -> float:
    """The budget's worst statistic over all requests, as a share of what it allows; infinite for an unstable fleet.

    The fleet is one birth-death process: requests come at `rate`, and leave n streams, spread evenly, at
    replicas x X(n / replicas). A server that shares its steps among all it holds is a processor-sharing queue, whose
    occupancy under Poisson arrivals depends on the work of a request through its mean only (Cohen 1979, Acta
    Informatica 12; Kelly, Reversibility and Stochastic Networks, 1979, section 3.3), and arrivals see time averages
    (Wolff 1982). Burstier arrivals are taken z at a time, z being their peakedness 1 + (CV^2 - 1) E[min(S, S')] / E[S]
    (Whitt 1984, AT&T Bell Labs Tech. J. 63), after Hayward's approximation (Fredericks 1980, Bell Syst. Tech. J. 59).
    """
    if rate >= replicas * replica.rates[-1]:
        return math.inf
    peakedness = max(0.1, 1 + (burstiness**2 - 1) * replica.evenness)
    most = 4 * replicas * replica.streams[-1] + 40 * peakedness
    n = np.arange(1, math.ceil(most / peakedness) + 1) * peakedness
    steps = np.log(rate) - np.log(replicas * np.maximum(replica.rate(n / replicas), 1e-12))
    weights = np.concatenate([[0.0], np.cumsum(steps)])
    weights = np.exp(weights - weights.max())
    seen = weights / weights.sum()
    # A request that finds n others is one of n + 1.
    each = (np.concatenate([[0.0], n]) + 1) / replicas
    return float((replica.missing(each) @ seen).max())


# --- money and providers


def _fleet(
    cv: float, replicas: int, missing: float, wanted: float, per_replica: float, output: float, price: float | None
) -> Sizing:
    hourly = None if price is None else price * replicas
    return Sizing(
        burstiness=cv,
        replicas=replicas,
        missing=missing if math.isfinite(missing) else None,
        load=wanted / (replicas * per_replica),
        cost_per_hour=hourly,
        cost_per_million_output_tokens=None if hourly is None else hourly / (output * 3600) * 1e6,
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


_UNITS_PAGE = "https://docs.databricks.com/aws/en/machine-learning/foundation-model-apis/model-units"
_THROUGHPUT_PAGE = (
    "https://docs.databricks.com/aws/en/machine-learning/foundation-model-apis/"
    "deploy-prov-throughput-foundation-model-apis"
)
_READ = "read 2026-11"


def _advice(replicas: int, level: Level, total: float | None, provisioned: Size | None) -> list[Advice]:
    """Databricks provisioned throughput. A model unit is no fixed number of tokens, so only a measured one scales."""
    if provisioned is not None:
        size, unit = provisioned
        ask = f"{number(replicas * size)} {unit} ({replicas} x the {number(size)} that were measured)"
        if unit == "model units":
            return [Advice(f"ask for {ask}, in the increments of the model", _UNITS_PAGE, _READ)]
        text = f"ask for a band up to {ask}, rounded up to the model's throughput_chunk_size"
        return [Advice(text, _THROUGHPUT_PAGE, _READ)]
    shape = f"{level.input_tokens or 0:,.0f} tokens in and {level.output_tokens or 0:,.0f} out"
    advice = [
        Advice(
            f"a model unit is no fixed number of tokens/s: it depends on the shape of a request, here {shape}; "
            "for the units to ask for, say with --provisioned what the measured endpoint had, "
            "for example '50 model units'",
            _UNITS_PAGE,
            _READ,
        )
    ]
    if total is not None:
        text = (
            f"legacy models (Llama 3 and older, and others) are sold as a band of tokens/s, in and out: the demand is "
            f"{number(total)} tokens/s; round it up to the model's throughput_chunk_size"
        )
        advice.append(Advice(text, _THROUGHPUT_PAGE, _READ))
    return advice
