"""What a served endpoint is and allows, in the words of Databricks Model Serving, and what it means for the loads that
are planned."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from typing import Any, Literal

import msgspec

from pacemark.dialects.dialect import DIALECTS
from pacemark.endpoint.limits import LONGEST_S, PAYLOAD_MB, UNSURE, WORKLOAD_SIZES, RateLimit, known_quotas
from pacemark.pace import Concurrency, Load
from pacemark.summary import Level

__all__ = [
    "Endpoint",
    "Entity",
    "Billing",
    "Caller",
    "exceeding",
]

Billing = Literal["provisioned throughput", "model units", "pay per token", "external", "custom"]

_TASK = "llm/v1/"
"""Before the name of a dialect."""
_AGENTS = {"agent/v1/chat": "chat", "agent/v2/chat": "agent", "agent/v1/responses": "responses"}
"""The dialects of agents, by their task."""


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
    version: str = ""
    """Of the model."""
    served_as: str = ""
    """Its name at the endpoint, which answers give as `served-model-name`."""
    traffic: int | None = None
    """Percent of the requests."""
    min_throughput: int | None = None
    max_throughput: int | None = None
    """Tokens/s: the range that was provisioned."""
    throughput_chunk: int | None = None
    """Tokens/s that its throughput is sold in."""
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
    def concurrency(self) -> tuple[int, int] | None:
        """Least and most requests in parallel that were provisioned, by number or by the name of a size."""
        if self.max_concurrency is not None:
            return self.min_concurrency or 0, self.max_concurrency
        if (named := WORKLOAD_SIZES.get(self.workload_size.capitalize())) is not None:
            return (0 if self.scale_to_zero else named[0]), named[1]
        return None

    @property
    def may_burst(self) -> bool:
        """Whether it may go beyond what was bought: so it does unless it is told not to (databricks-sdk 0.82)."""
        return self.model_units is not None and self.bursts is not False

    @property
    def capacity(self) -> str:
        """What was bought, in words."""
        if self.max_throughput is not None:
            return f"{self.min_throughput or 0:,} to {self.max_throughput:,} tokens/s provisioned"
        if self.model_units is not None:
            return f"{self.model_units:,} model units{' and bursts beyond them' if self.may_burst else ''}"
        machine = "" if self.workload_type in ("", "CPU") else f" on {self.workload_type}"
        if self.concurrency is not None:
            least, most = self.concurrency
            size = f" ({self.workload_size})" if self.workload_size else ""
            return f"{f'{least} to ' if least != most else ''}{most} requests in parallel{size}{machine}"
        if self.kind == "custom":
            return f"custom model{machine}"
        external = f"external, by {self.provider}" if self.provider else "external"
        return {"pay per token": "pay per token, shared capacity", "external": external}.get(self.kind, "custom model")

    @property
    def scales(self) -> bool:
        """Whether its capacity follows the load."""
        if self.max_throughput is not None:
            return (self.min_throughput or 0) < self.max_throughput
        return self.concurrency is not None and self.concurrency[0] < self.concurrency[1]

    @property
    def sold(self) -> dict[str, Any]:
        """What was bought, as numbers for `run.json`."""
        least, most = self.concurrency or (None, None)
        told = {
            "model_units": self.model_units,
            "may_burst": self.may_burst or None,
            "max_tokens_per_s": self.max_throughput,
            "throughput_chunk": self.throughput_chunk,
            "min_concurrency": least,
            "max_concurrency": most,
        }
        return {name: value for name, value in told.items() if value is not None}

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
        api = _AGENTS.get(self.task) or self.task.removeprefix(_TASK)
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
            **(self.entities[0].sold if len(self.entities) == 1 else {}),
            "limits": [
                *(f"{limit} ({limit.source}{'' if limit.binds else ', not you'})" for limit in self.limits),
                *([UNSURE] if self._unsure else []),
            ],
            "permission": self.permission or None,
        }

    @property
    def _unsure(self) -> bool:
        """Whether limits hold whose amounts are not known here."""
        shared = [e.name for e in self.entities if e.kind == "pay per token"]
        return bool(shared) and not known_quotas(shared)

    @property
    def may_burst(self) -> bool:
        """Whether it may serve more than was bought."""
        return any(e.may_burst for e in self.entities)

    @property
    def _payload_mb(self) -> float:
        """The largest request that it takes."""
        if self.task.startswith("agent/"):
            return 4.0
        return min((PAYLOAD_MB.get(e.kind, 4.0) for e in self.entities), default=4.0)

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
        yield from self._beyond()
        kinds = {e.kind for e in self.entities}
        if "pay per token" in kinds:
            yield f"{name} is paid per token and shares its capacity with others, so figures vary with their load too"
        for provider in sorted({e.provider for e in self.entities if e.kind == "external"}):
            yield f"{name} passes requests on to {provider or 'another provider'}: its limits and its prices apply too"
        shares = [f"{e.served_as or e.name} {e.traffic}%" for e in self.entities if e.traffic]
        if len(shares) > 1:
            yield f"{name} splits its traffic, {', '.join(shares)}: the figures are those of the mixture"
        if self.detour:
            yield f"{name} is route-optimised, but asked through the workspace's URL, with more latency: {self.detour}"
        payload_mb = 4 * input_tokens / 1e6  # some four letters a token
        if payload_mb > self._payload_mb:
            yield (
                f"a prompt of {input_tokens:,} tokens is about {payload_mb:.1f} MB, and {name} takes "
                f"{self._payload_mb:g} MB"
            )

    def _beyond(self) -> Iterator[str]:
        """What may serve a request beside what was bought: the figures are then not those of what was bought."""
        for entity in self.entities:
            if entity.may_burst:
                yield (
                    f"{self.name} may burst beyond {entity.model_units:,} model units: a curve measured on the burst "
                    "makes people buy too few; for the units' own set burst_scaling_enabled to false"
                )
        if {"provisioned throughput", "pay per token"} <= {e.kind for e in self.entities}:
            yield f"{self.name} spills over to pay per token: beyond what was reserved the figures are of both"
        if self.falls_back and len(self.entities) > 1:
            yield f"{self.name} tries a request that fails with the next model it serves: slow answers may be two"

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
