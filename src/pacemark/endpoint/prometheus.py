"""Metrics in Prometheus' text form, as endpoints export them."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from typing import NamedTuple

from prometheus_client.parser import text_string_to_metric_families

__all__ = ["Sample", "metrics_in", "samples_in"]


_TIMESTAMP = re.compile(r"\s+[-+]?\d+(?:\.\d*)?[eE][-+]?\d+\s*$")
"""Written with an exponent: the format knows none, and exporters write it."""


class Sample(NamedTuple):
    """One line of the text."""

    name: str
    labels: dict[str, str]
    """The bound of a bucket is its label `le`, which may be `+Inf`."""
    value: float
    exemplar: tuple[dict[str, str], float] | None = None
    """Labels and value of one observation, where the text gives one."""


def samples_in(text: str) -> Iterator[Sample]:
    """Every sample of the text form; a line that is none is passed over.

    Each line is read by itself, so that one which cannot be read costs no other. The service puts a timestamp behind
    each value, others an exemplar behind a bucket (OpenMetrics 1.0, "Exemplars").
    """
    for line in text.splitlines():
        before, mark, told = line.rpartition(" # {")
        sample, exemplar = (_read(before), _read(f"exemplar{{{told}")) if mark else (None, None)
        if sample and exemplar:
            yield sample._replace(exemplar=(exemplar.labels, exemplar.value))
        elif sample := _read(line) or _read(_TIMESTAMP.sub("", line)):
            yield sample


def _read(line: str) -> Sample | None:
    if not line.strip() or line.startswith("#"):
        return None
    try:
        found = [s for family in text_string_to_metric_families(line + "\n") for s in family.samples]
        return Sample(found[0].name, dict(found[0].labels), float(found[0].value))
    except (ValueError, OverflowError, IndexError, KeyError):
        return None


def metrics_in(text: str) -> dict[str, float]:
    """Samples summed over their labels; buckets of histograms and what is no number are left out."""
    found: dict[str, float] = {}
    for sample in samples_in(text):
        if not sample.name.endswith("_bucket") and not math.isnan(sample.value):
            found[sample.name] = found.get(sample.name, 0.0) + sample.value
    return found
