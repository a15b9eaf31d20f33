"""What the requests of a level were like, in words."""

from __future__ import annotations

from pacemark.content import Upload
from pacemark.summary import Level, Sizes, Traffic, Turns
from pacemark.units import number

__all__ = ["traffic_in_words"]


def traffic_in_words(level: Level) -> list[str]:
    """Lines on lengths that were drawn; none where all requests were alike."""
    traffic = level.traffic
    if not isinstance(traffic, Traffic):
        return []
    lines = [
        _lengths("input", traffic.asked_input, traffic.counted_input),
        _lengths("output", traffic.asked_output, traffic.counted_output),
    ]
    if isinstance(level.upload, Upload):
        lines.append(_upload(level.upload))
    if isinstance(traffic.turns, list):
        lines.append("; ".join(_turns(turns) for turns in traffic.turns))
    return [line for line in lines if line]


def _upload(upload: Upload) -> str:
    times = " and ".join(_ms(figure.value) for figure in (upload.time_ms.p50, upload.time_ms.p95))
    return f"requests of {number(upload.bytes / 1e6)} MB, sent within p50 and p95: {times}; latencies begin after that"


def _turns(turns: Turns) -> str:
    p50, p95 = (_ms(figure.value) for figure in (turns.ttft_ms.p50, turns.ttft_ms.p95))
    of = f"{turns.requests:,} of {turns.input_tokens or 0:,.0f} tokens"
    return f"TTFT of {turns.which} turns p50 {p50}, p95 {p95} ({of})"


def _ms(value: float | None) -> str:
    return "-" if value is None else f"{number(value)} ms"


def _lengths(what: str, asked: Sizes, counted: Sizes) -> str:
    if asked.mean is None or asked.p95 is None or asked.mean == asked.p95:
        return ""
    told = "none counted" if counted.mean is None else f"counted {_said(counted)}"
    return f"{what} tokens, mean and p95: asked {_said(asked)}; {told}"


def _said(sizes: Sizes) -> str:
    return f"{sizes.mean or 0:,.0f} and {sizes.p95 or 0:,.0f}"
