"""What a fleet's worth of an endpoint is called where it is bought: Databricks' model units, bands of tokens per second
and provisioned concurrency.

None of them is a fixed amount of work for every shape of request, so only what was measured scales.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping
from typing import Any, Literal, get_args

import msgspec

from pacemark.endpoint.limits import WORKLOAD_SIZES
from pacemark.errors import BadInput
from pacemark.summary import Level
from pacemark.units import number

__all__ = ["Advice", "Size", "Sold", "advice", "parse_size", "sold_in"]

SizeUnit = Literal["model units", "tokens/s", "requests in parallel"]
Size = tuple[float, SizeUnit]
"""What an endpoint was bought as."""

_CONCURRENCY_STEP = 4
"""Provisioned concurrency is bought in multiples of it."""

_PAGES = "https://docs.databricks.com/aws/en/machine-learning/"
_UNITS_PAGE = f"{_PAGES}foundation-model-apis/model-units"
_THROUGHPUT_PAGE = f"{_PAGES}foundation-model-apis/deploy-prov-throughput-foundation-model-apis"
_CONCURRENCY_PAGE = f"{_PAGES}model-serving/what-is-load-test"
_READ = "read 2026-11"


class Advice(msgspec.Struct, frozen=True):
    """What to ask a provider for, as its documentation has it."""

    text: str
    source: str
    dated: str


class Sold(msgspec.Struct, frozen=True):
    """What an endpoint was bought as, as far as its workspace or the user said."""

    size: Size | None = None
    chunk: float = 0.0
    """Tokens/s that its model's throughput is sold in; 0 where that is not known."""
    bursts: bool = False
    """Whether it may have gone beyond its model units while it was measured."""


def parse_size(text: str) -> Size:
    """What the measured endpoint was bought as: `50 model units`, `9500 tokens/s`, `16 requests in parallel` or the
    name of a workload size. Raises BadInput."""
    if (named := text.strip().capitalize()) in WORKLOAD_SIZES:
        return float(WORKLOAD_SIZES[named][1]), "requests in parallel"
    units = "model units?|tokens/s|requests in parallel|concurren\\w+"
    found = re.fullmatch(rf"\s*([\d_,]*\.?\d+)\s*({units})\s*", text, re.IGNORECASE)
    value = float(found.group(1).replace(",", "").replace("_", "")) if found else 0.0
    if found is None or value <= 0:
        raise BadInput(
            f"--provisioned {text!r}: what was measured, for example '50 model units', '9500 tokens/s', '16 requests "
            "in parallel' or 'Medium'"
        )
    word = found.group(2).lower()
    return value, next((unit for unit in get_args(SizeUnit) if unit[:3] == word[:3]), "requests in parallel")


def sold_in(described: Mapping[str, Any] | None) -> Sold:
    """What the stored description of an endpoint says that it was bought as."""
    told = described or {}
    fields: tuple[tuple[str, SizeUnit], ...] = (
        ("model_units", "model units"), ("max_tokens_per_s", "tokens/s"), ("max_concurrency", "requests in parallel"),
    )  # fmt: skip
    size = next(((float(told[field]), unit) for field, unit in fields if told.get(field)), None)
    return Sold(size, float(told.get("throughput_chunk") or 0.0), bool(told.get("may_burst")))


def advice(replicas: int, level: Level, requests_per_s: float, tokens_per_s: float | None, sold: Sold) -> list[Advice]:
    """What to ask for, so that `requests_per_s` are served as `level` was: in the unit that the endpoint was sold in,
    or in each where that is not known. `tokens_per_s` are those of the demand, in and out."""
    size = sold.size
    found: list[Advice] = []
    if size is None or size[1] == "model units":
        found += _model_units(replicas, level, sold)
    if (size is None and tokens_per_s is not None) or (size is not None and size[1] == "tokens/s"):
        found.append(_band(replicas, tokens_per_s, sold))
    if size is None or size[1] == "requests in parallel":
        found += _concurrency(level, requests_per_s)
    return found


def _times(replicas: int, size: Size) -> str:
    return f"{replicas * size[0]:,.12g} {size[1]} ({replicas} x the {size[0]:,.12g} that were measured)"


def _model_units(replicas: int, level: Level, sold: Sold) -> Iterator[Advice]:
    if sold.size is None:
        shape = f"{level.input_tokens or 0:,.0f} tokens in and {level.output_tokens or 0:,.0f} out"
        text = (
            f"a model unit is no fixed number of tokens/s: it depends on the shape of a request, here {shape}; "
            "for the units to ask for, say with --provisioned what the measured endpoint had, "
            "for example '50 model units'"
        )
    else:
        text = f"ask for {_times(replicas, sold.size)}, in the increments of the model"
    yield Advice(text, _UNITS_PAGE, _READ)
    if sold.bursts:
        text = (
            "burst scaling was on while this was measured, so the figures may stand on more than the units that were "
            "bought, and these would be too few: measure with burst_scaling_enabled false"
        )
        yield Advice(text, _UNITS_PAGE, _READ)


def _band(replicas: int, tokens_per_s: float | None, sold: Sold) -> Advice:
    rounded = "rounded up to the model's throughput_chunk_size"
    if sold.size is None:
        text = (
            f"legacy models (Llama 3 and older, and others) are sold as a band of tokens/s, in and out: the demand is "
            f"{number(tokens_per_s or 0.0)} tokens/s; round it up to the model's throughput_chunk_size"
        )
        return Advice(text, _THROUGHPUT_PAGE, _READ)
    if sold.chunk:
        chunks = math.ceil(replicas * sold.size[0] / sold.chunk - 1e-9)
        rounded = f"which is {chunks} chunks of {sold.chunk:,.12g}, {chunks * sold.chunk:,.12g} tokens/s"
    return Advice(f"ask for a band up to {_times(replicas, sold.size)}, {rounded}", _THROUGHPUT_PAGE, _READ)


def _concurrency(level: Level, requests_per_s: float) -> Iterator[Advice]:
    """Databricks' rule: provisioned concurrency = requests/s x latency."""
    latency_ms = level.latency_ms.mean.value
    if latency_ms is None:
        return
    needed = requests_per_s * latency_ms / 1e3
    bought = _CONCURRENCY_STEP * math.ceil(needed / _CONCURRENCY_STEP - 1e-9)
    named = next((name for name, (_, most) in WORKLOAD_SIZES.items() if bought <= most), "")
    size = f"workload size {named}" if named else "more than a workload size: set max_provisioned_concurrency"
    text = (
        f"a custom model is sold by its concurrency, requests/s x latency: {number(requests_per_s)} x "
        f"{number(latency_ms / 1e3)} s at {level.load} are {number(needed)} requests in parallel, so {bought} ({size})"
    )
    yield Advice(text, _CONCURRENCY_PAGE, _READ)
