"""A look at an endpoint: a handful of requests, and what they told."""

from __future__ import annotations

from typing import Any

import msgspec

from pacemark.endpoint.proxy import proxy_for
from pacemark.endpoint.scraping import exporters
from pacemark.endpoint.speaking import apis_spoken
from pacemark.runs.bench import Bench
from pacemark.runs.conduct import Notices, Options, counter_of, endpoint_opened
from pacemark.scenario import Goal, ordered, refuse_unknown
from pacemark.trace import ABSENT

__all__ = ["Checked", "checked"]


class Checked(msgspec.Struct, frozen=True, kw_only=True):
    """What a handful of requests told of an endpoint; None for what it does not tell."""

    target: dict[str, str]
    endpoint: dict[str, Any] | msgspec.UnsetType = msgspec.UNSET
    """What its workspace says of it, where it is in one."""
    speaks: list[str]
    """The APIs that it is seen to speak; of an endpoint of a workspace the one that it is asked by."""
    metrics: list[str] | msgspec.UnsetType = msgspec.UNSET
    """Where at its own host it exports metrics that are known: then `--metrics auto` reads them."""
    streams: bool
    reports_usage: bool
    accepts: list[str]
    """Which of ignore_eos and min_tokens it takes and heeds: a shorter answer than asked for shows that it does not."""
    max_tokens_field: str | None
    input_tokens: int | None
    output_tokens: int
    events: int
    finish_reason: str | None
    tokens_per_word: float
    prompt_length_from: str
    connect_ms: float | None
    ttft_ms: float | None
    latency_ms: float | None
    clock: str
    """Who stamped the answer's bytes: kernel or user."""


def checked(where: str, goal: Goal, options: Options) -> Checked:
    """Send a handful of requests. Raises BadInput where the endpoint does not answer as one of that API."""
    refuse_unknown(options, Options.__annotations__)
    said = Notices()
    with endpoint_opened(ordered(where, goal, options), options, said) as (place, scenario, serving):
        count_tokens = counter_of(scenario.access.tokenizer)
        with Bench(place, scenario.workload, scenario.settings, count_tokens, source=serving) as bench:
            bench.prepare()
            bench.finish()
        speaks = apis_spoken(place) if serving is None else [place.api]
        exported = exporters(place, ["auto"]) if serving is None else []
        proxy = proxy_for(place.url)
    first, prompts, accepted = bench.first, bench.prompts, bench.options

    generated = first.output_tokens + first.hidden_tokens
    short = first.tokens_source == "usage" and generated < scenario.workload.output.typical

    def since_sent(ns: int) -> float | None:
        return None if ns == ABSENT else (ns - first.sent_ns) / 1e6

    events = len(first.hi_ns)
    return Checked(
        target=place.described() | ({"proxy": f"{proxy.host}:{proxy.port}"} if proxy else {}),
        endpoint=msgspec.UNSET if serving is None else serving.endpoint.described(),
        speaks=speaks,
        metrics=[place.redacted(exporter.url) for exporter in exported] or msgspec.UNSET,
        streams=first.first_event_ns != ABSENT,
        reports_usage=first.tokens_source == "usage",
        accepts=[n for n in ("ignore_eos", "min_tokens") if getattr(accepted, n) and not short],
        max_tokens_field=accepted.max_tokens_field or None,
        input_tokens=None if first.input_tokens == ABSENT else first.input_tokens,
        output_tokens=first.output_tokens,
        events=events,
        finish_reason=first.finish_reason or None,
        tokens_per_word=prompts.tokens_per_word,
        prompt_length_from=prompts.source,
        connect_ms=None if bench.connect_ns == ABSENT else bench.connect_ns / 1e6,
        ttft_ms=since_sent(int(first.hi_ns[0])) if first.first_event_ns != ABSENT and events else None,
        latency_ms=since_sent(int(first.hi_ns[-1]) if events else ABSENT),
        clock="kernel" if len(first.lag_ns) and first.lag_ns[-1] >= 0 else "user",
    )
