"""The formats of traces there are, the particular before the general."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pacemark.workload.traces.databricks import InferenceTable, UsageTable
from pacemark.workload.traces.format import Format
from pacemark.workload.traces.lengths import Azure, Bailian, BurstGPT, Mooncake
from pacemark.workload.traces.logs import LiteLLM, PlainLog, WorkloadTrace
from pacemark.workload.traces.spans import MLflow, OpenTelemetry

__all__ = ["FORMATS", "format_of"]

FORMATS: tuple[type[Format], ...] = (
    *(Bailian, Mooncake, Azure, BurstGPT),
    *(MLflow, InferenceTable, UsageTable, LiteLLM, OpenTelemetry, WorkloadTrace, PlainLog),
)


def format_of(value: Any) -> type[Format] | None:
    """The format whose record `value` is, if any."""
    if not isinstance(value, Mapping):
        return None
    return next((format for format in FORMATS if format.knows(value)), None)
