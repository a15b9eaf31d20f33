"""What a served endpoint is and allows, whoever describes it, and what it means for the loads that are planned.

The numbers are those of Databricks Model Serving.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Sequence
from typing import Any, Literal

import msgspec

from pacemark.dialects.dialect import DIALECTS
from pacemark.pace import Concurrency, Load
from pacemark.summary import Level

__all__ = [
    "LONGEST_S",
    "PAYLOAD_MB",
    "PAY_PER_TOKEN",
    "PROVISIONED",
    "Endpoint",
    "Entity",
    "Billing",
    "Caller",
    "RateLimit",
    "RateUnit",
    "exceeding",
]

PAYLOAD_MB = {"custom": 16.0}
"""Largest request by kind of endpoint; 4 MB for every other kind."""
LONGEST_S = 297.0
"""The service ends a request that takes longer. Both: "Model Serving limits and regions" and "Foundation Model APIs
limits and quotas" at docs.databricks.com, as they stood in September 2026."""

RateUnit = Literal["input tokens", "output tokens", "tokens", "requests"]
Billing = Literal["provisioned throughput", "model units", "pay per token", "external", "custom"]

_PERIODS_S = {"second": 1, "minute": 60, "hour": 3600, "day": 86_400}
_TASK = "llm/v1/"
"""Before the name of a dialect."""
_AGENTS = ("agent/v1/chat", "agent/v2/chat")


class RateLimit(msgspec.Struct, frozen=True):
    """A rate that the service is known to hold callers to."""

    amount: float
    unit: RateUnit
    per: str
    """second, minute or hour; another period is told, and no load is held against it."""
    source: str
    binds: bool = True
    """Whether it holds for whoever asks, as far as is known."""

    def __str__(self) -> str:
        return f"{self.amount:,g} {self.unit} per {self.per}"

    @property
    def per_second(self) -> float:
        """The same, per second; infinite where the period is not known or it is not the caller's."""
        return self.amount / _PERIODS_S[self.per] if self.binds and self.per in _PERIODS_S else math.inf


_USUAL = "what most models are allowed per workspace on the Enterprise tier, as of 2026-09-12"
PAY_PER_TOKEN = (
    RateLimit(200_000, "input tokens", "minute", _USUAL),
    RateLimit(20_000, "output tokens", "minute", _USUAL),
    RateLimit(360_000, "requests", "hour", _USUAL),
)
"""From "Foundation Model APIs limits and quotas" at docs.databricks.com; the page lists them model by model."""
PROVISIONED = (RateLimit(200, "requests", "second", "per workspace with provisioned throughput, as of 2026-06-18"),)
"""From the same page."""


class Caller(msgspec.Struct, frozen=True):
    """Who asks, by the names that limits may call them."""

    names: frozenset[str]
    groups: frozenset[str] = frozenset()

    def known_as(self, principal: str) -> bool:
        """Whether a limit for `principal` is one for this caller."""
        return principal in self.names | self.groups


class Entity(msgspec.Struct, frozen=True):
    """A model that the endpoint serves."""

    name: str
    kind: Billing
    traffic: int | None = None
    """Percent of the requests."""
    min_throughput: int | None = None
    max_throughput: int | None = None
    """Tokens/s: the range that was provisioned."""
    model_units: int | None = None
    bursts: bool | None = None
    """Whether it may go beyond its model units for a while; None where that is not stated."""
    min_concurrency: int | None = None
    max_concurrency: int | None = None
    workload_size: str = ""
    workload_type: str = ""
    """Of a custom model: Small, Medium or Large; CPU, GPU_SMALL and others."""
    scale_to_zero: bool = False
    provider: str = ""
    deployment: str = ""
    message: str = ""

    @property
    def capacity(self) -> str:
        """What was bought, in words."""
        if self.max_throughput is not None:
            return f"{self.min_throughput or 0:,} to {self.max_throughput:,} tokens/s provisioned"
        if self.model_units is not None:
            return f"{self.model_units:,} model units"
        if self.max_concurrency is not None:
            return f"{self.min_concurrency or 0} to {self.max_concurrency} requests in parallel"
        external = f"external, by {self.provider}" if self.provider else "external"
        return {"pay per token": "pay per token, shared capacity", "external": external}.get(self.kind, "custom model")

    @property
    def scales(self) -> bool:
        """Whether its capacity follows the load."""
        low, high = self.min_throughput, self.max_throughput
        if high is None:
            low, high = self.min_concurrency, self.max_concurrency
        return high is not None and (low or 0) < high

    @property
    def at_zero(self) -> bool:
        """Whether it says that nothing of it runs at present."""
        return bool(re.search(r"scal\w* (?:to|from) zero", self.message, re.IGNORECASE))


class Endpoint(msgspec.Struct, frozen=True):
    """A serving endpoint, as the workspace describes it."""

    name: str
    task: str
    ready: bool
    state: str
    version: int | None
    entities: tuple[Entity, ...]
    limits: tuple[RateLimit, ...]
    permission: str = ""
    updating: bool = False
    route_optimized: bool = False
    url: str = ""
    """Where a route-optimised endpoint is asked itself: the whole URL of an invocation."""
    authorization_details: str = ""
    """What the data plane's token is asked for, as the workspace writes it."""
    created_ms: int = 0
    """Since 1970; 0 where it is not told."""
    detour: str = ""
    """Why a route-optimised endpoint is asked through the workspace's URL, where it is."""
    falls_back: bool = False
    """Whether a request that one entity fails is tried with the next."""

    @property
    def scales_to_zero(self) -> bool:
        """Whether a request may have to wait for a start."""
        return any(e.scale_to_zero or e.at_zero for e in self.entities)

    @property
    def api(self) -> str | None:
        """The dialect that its task speaks; None where it states no task."""
        api = "chat" if self.task in _AGENTS else self.task.removeprefix(_TASK)
        return api if api in DIALECTS else None

    def described(self) -> dict[str, Any]:
        """What is worth knowing of it, for people and for `run.json`."""
        return {
            "state": self.state,
            "task": self.task or None,
            "serves": [
                f"{e.name}: {e.capacity}"
                + (", scales to zero" if e.scale_to_zero else "")
                + (f", {e.traffic}% of the traffic" if e.traffic not in (None, 100) else "")
                for e in self.entities
            ],
            "limits": [f"{limit} ({limit.source}{'' if limit.binds else ', not you'})" for limit in self.limits],
            "permission": self.permission or None,
        }

    def warnings(self, input_tokens: int) -> list[str]:
        """What to know before anything is sent and costs money."""
        return list(self._warnings(input_tokens))

    def _warnings(self, input_tokens: int) -> Iterator[str]:
        name = self.name
        if any(e.at_zero for e in self.entities):
            yield f"{name} is scaled to zero: the first request starts it and may wait for minutes; then it costs"
        elif self.scales_to_zero:
            yield f"{name} scales to zero: after a quiet time the first request waits until it has started again"
        if self.updating:
            yield f"{name} is being updated: figures before and after the change are of two endpoints"
        if any(e.scales for e in self.entities):
            yield (
                f"{name} scales with the load: a level may start on less capacity than it ends with; "
                "levels during which it scales are marked"
            )
        kinds = {e.kind for e in self.entities}
        if "pay per token" in kinds:
            yield f"{name} is paid per token and shares its capacity with others, so figures vary with their load too"
        for provider in sorted({e.provider for e in self.entities if e.kind == "external"}):
            yield f"{name} passes requests on to {provider or 'another provider'}: its limits and its prices apply too"
        shares = [f"{e.name} {e.traffic}%" for e in self.entities if e.traffic]
        if len(shares) > 1:
            yield f"{name} splits its traffic, {', '.join(shares)}: the figures are those of the mixture"
        if self.detour:
            yield f"{name} is route-optimised, but asked through the workspace's URL, with more latency: {self.detour}"
        payload_mb = 4 * input_tokens / 1e6  # some four letters a token
        most_mb = min((PAYLOAD_MB.get(kind, 4.0) for kind in kinds), default=4.0)
        if payload_mb > most_mb:
            yield f"a prompt of {input_tokens:,} tokens is about {payload_mb:.1f} MB, and {name} takes {most_mb:g} MB"

    def planned(self, loads: Sequence[Load], latency_s: float, input_tokens: float, output_tokens: float) -> list[str]:
        """What the planned loads would exceed, judged by one answer that took `latency_s`.

        In closed loop that is the most that so many streams can ask for: answers only get slower under load. No loads:
        those of a search, which climbs until something ends it.
        """
        found = []
        if latency_s > LONGEST_S / 2:
            found.append(
                f"one answer alone took {latency_s:.0f} s, and the service ends a request after {LONGEST_S:.0f} s: "
                "ask for fewer --output-tokens"
            )
        each = {"input tokens": input_tokens, "output tokens": output_tokens, "requests": 1.0}
        each["tokens"] = input_tokens + output_tokens
        rate = max((x.value / latency_s if isinstance(x, Concurrency) else x.value for x in loads), default=None)
        for limit in self.limits:
            if not each[limit.unit]:
                continue
            if limit.binds and not limit.amount:
                found.append(f"{limit} ({limit.source}): every request is refused")
                continue
            most = limit.per_second / each[limit.unit]
            if rate is None or rate > most:
                plan = "" if rate is None else f"; up to {rate:.3g} requests/s are planned: expect 429"
                found.append(
                    f"{limit} ({limit.source}) are enough for {most:.3g} requests/s, or {most * latency_s:.3g} in "
                    f"parallel{plan}"
                )
        return found


def exceeding(endpoint: Endpoint, levels: Sequence[Level]) -> str | None:
    """A level that went faster than a known limit allows for long, in words: short levels live on what was saved up."""
    for level in sorted(levels, key=lambda x: x.output_tokens_per_s.value or 0.0):
        rates = {
            "requests": level.requests_per_s.value,
            "output tokens": level.output_tokens_per_s.value,
            "tokens": level.total_tokens_per_s.value,
        }
        for limit in endpoint.limits:
            rate = rates.get(limit.unit) or 0.0
            if rate > 1.05 * limit.per_second:
                return (
                    f"{level.load} gave {rate:,.0f} {limit.unit}/s, more than {limit} ({limit.source}) lets through "
                    "for long: the curve from there on holds for bursts"
                )
    return None
