"""A plan in the terminal, in 80 columns."""

from __future__ import annotations

import textwrap

from rich.box import SIMPLE_HEAD
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from pacemark.answers.planning import Plan, Sizing
from pacemark.reporting.words import plain, with_interval
from pacemark.units import number

_WIDTH = 80


def planned(plan: Plan) -> RenderableType:
    """The answer, the fleets, what tokens cost, what to ask for, and what to keep in mind."""
    parts: list[RenderableType] = [_wrapped(_answer(plan)), _wrapped(_basis(plan), 4), _fleets(plan)]
    if plan.costs:
        parts.append(_costs(plan))
    for advice in plan.advice:
        parts += [_wrapped(f"Databricks: {advice.text} ({advice.dated}):", 2)]
        parts += [Text(f"  {advice.source}", no_wrap=True, overflow="ignore")]  # whole, to be copied
    parts += [_wrapped(f"Note: {plain(note)}.", 2) for note in plan.notes]
    return Group(*parts)


def _answer(plan: Plan) -> str:
    first = plan.fleets[0]
    also = "" if plan.demand.unit == "requests/s" else f" ({number(plan.requests_per_s)} requests/s)"
    count = f"{first.replicas:,} {'replica serves' if first.replicas == 1 else 'replicas serve'}"
    return f"{count} {plan.demand}{also} within {plan.budget}, with {_arrivals(first)}{_how_sure(plan)}."


def _how_sure(plan: Plan) -> str:
    """The interval and the safe choice, as far as the run gives them."""
    first = plan.fleets[0]
    if first.replicas_low is None:
        return ""
    if plan.safe is None:
        return f"; it may be {first.replicas_low:,} or more, and no number is safe yet"
    if plan.safe == first.replicas_low == first.replicas:
        return ", which is safe"
    cost = "" if plan.safe_cost_per_hour is None else f" and cost {plan.safe_cost_per_hour:,.2f} an hour"
    are = "is" if plan.safe == 1 else "are"
    return f"; 95% interval {first.replicas_low:,} to {plan.safe:,}: {plan.safe:,} {are} safe{cost}"


def _basis(plan: Plan) -> str:
    spare = plan.fleets[0].replicas - plan.replicas_without_headroom
    headroom = f"{spare:,} of them {'is' if spare == 1 else 'are'} headroom for bursts."
    none = "No headroom is needed" + ("." if plan.safe == plan.fleets[0].replicas else " at the likeliest number.")
    return (
        f"One replica gives {with_interval(plan.per_replica)} requests/s at {plain(plan.point.load)}, its "
        f"within-budget point. {headroom if spare else none}"
    )


def _arrivals(fleet: Sizing) -> str:
    return "Poisson arrivals" if fleet.burstiness == 1 else f"arrivals of CV {fleet.burstiness:g}"


def _fleets(plan: Plan) -> RenderableType:
    priced = plan.fleets[0].cost_per_hour is not None
    money = ("Cost/hour", "Cost/M output") if priced else ()
    grid = _grid("Arrivals", "Replicas", "95%", "Load", "Budget used", *money)
    for fleet in plan.fleets:
        arrivals = "Poisson" if fleet.burstiness == 1 else f"CV {fleet.burstiness:g}"
        cells = [arrivals, f"{fleet.replicas:,}", _interval(fleet), f"{fleet.load:.0%}", _share(fleet.missing)]
        if fleet.cost_per_hour is not None and fleet.cost_per_million_output_tokens is not None:
            cells += [f"{fleet.cost_per_hour:,.2f}", f"{fleet.cost_per_million_output_tokens:,.3f}"]
        grid.add_row(*cells)
    return grid


def _interval(fleet: Sizing) -> str:
    if fleet.replicas_low is None:
        return "-"
    high = fleet.replicas_high
    return f"{fleet.replicas_low:,} or more" if high is None else f"{fleet.replicas_low:,} to {high:,}"


def _share(missing: float | None) -> str:
    return "-" if missing is None else f"{missing:.0%}"


def _costs(plan: Plan) -> RenderableType:
    grid = _grid("One replica kept at", "Load", "Cost/M output", "Cost/M in and out")
    for cost in plan.costs:
        total = "-" if cost.per_million_tokens is None else f"{cost.per_million_tokens:,.3f}"
        grid.add_row(cost.point, plain(cost.load), f"{cost.per_million_output_tokens:,.3f}", total)
    return grid


def _grid(*heads: str) -> Table:
    grid = Table(box=SIMPLE_HEAD, pad_edge=False, show_edge=False)
    for n, head in enumerate(heads):
        grid.add_column(head, justify="left" if n == 0 else "right", no_wrap=True)
    return grid


def _wrapped(text: str, indent: int = 0) -> Text:
    lines = [
        textwrap.fill(line, _WIDTH, initial_indent=" " * (indent if indent == 4 else 0), subsequent_indent=" " * indent,
                      break_long_words=False, break_on_hyphens=False)
        for line in text.split("\n")
    ]  # fmt: skip
    return Text("\n".join(lines))
