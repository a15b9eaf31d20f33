"""Rates and sizes that Databricks holds its callers to, as its documentation states them: looked up, never enforced.

What a page states by model changes from month to month, so an amount stands here with its date, and where none is sure
only the mechanism is told. Pages are of docs.databricks.com.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from typing import Literal

import msgspec

__all__ = ["LONGEST_S", "PAYLOAD_MB", "RateLimit", "RateUnit", "UNSURE", "WORKLOAD_SIZES", "documented", "known_quotas"]

PAYLOAD_MB = {"custom": 16.0}
"""Largest request by kind of endpoint; 4 MB for every other kind, and for agents ("Model Serving limits and regions",
2026-09)."""
LONGEST_S = 297.0
"""The service ends a request to a custom model or an agent that takes longer (the same page). One source has 597 s for
foundation models (2026-10-02)."""
WORKLOAD_SIZES = {"Small": (4, 4), "Medium": (8, 16), "Large": (16, 64)}
"""Provisioned concurrency of a custom model's workload sizes, least and most (databricks-sdk 0.162,
`ServedEntityOutput.workload_size`)."""
_FMAPI = '"Foundation Model APIs limits and quotas"'

RateUnit = Literal["input tokens", "output tokens", "tokens", "requests"]
_PERIODS_S = {"second": 1, "minute": 60, "hour": 3600, "day": 86_400}


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
        return f"{self.amount:,.12g} {self.unit} per {self.per}"

    @property
    def per_second(self) -> float:
        """The same, per second; infinite where the period is not known or it is not the caller's."""
        return self.amount / _PERIODS_S[self.per] if self.binds and self.per in _PERIODS_S else math.inf


class _Quota(msgspec.Struct, frozen=True):
    """What a workspace of the Enterprise tier may ask of a pay-per-token model."""

    model: str
    """A pattern of its name."""
    input_tokens: float
    output_tokens: float
    """Per minute."""
    queries: float
    """Per hour."""
    dated: str


_PAY_PER_TOKEN = (
    _Quota(r"claude-sonnet-4$", 200_000, 20_000, 360_000, "2026-06-18"),
    _Quota(r"claude-sonnet-5$", 1_000_000, 100_000, 360_000, "2026-06-18"),
    _Quota(r"llama-3[-._]3-70b", 1_000_000, 100_000, 360_000, "2026-06-18"),
    _Quota(r"glm-5[-._]2", 200_000, 20_000, 7_200, "2026-08-11"),
)
"""From the page on limits and quotas, as it stood then; it lists every model."""
_QUERIES = RateLimit(
    200, "requests", "second", "of a workspace, over all endpoints that are not route-optimised, as of 2026-06-18"
)
"""From the same page."""

UNSURE = f"input and output tokens per minute and queries per hour, as {_FMAPI} lists them for the model"
"""What holds for a pay-per-token model whose amounts are not known here."""


def documented(models: list[str], pay_per_token: bool, route_optimized: bool) -> Iterator[RateLimit]:
    """The limits that the documentation states for what is served; those of a model only where its row is known."""
    if pay_per_token:
        for quota in known_quotas(models):
            source = f"of a workspace on the Enterprise tier, as of {quota.dated}"
            yield RateLimit(quota.input_tokens, "input tokens", "minute", source)
            yield RateLimit(quota.output_tokens, "output tokens", "minute", source)
            yield RateLimit(quota.queries, "requests", "hour", source)
    if not route_optimized:
        yield _QUERIES


def known_quotas(models: list[str]) -> list[_Quota]:
    """The rows of the models that have one."""
    return [quota for quota in _PAY_PER_TOKEN if any(re.search(quota.model, name) for name in models)]
