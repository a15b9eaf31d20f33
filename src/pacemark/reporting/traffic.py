"""What the requests of a level were like, in words."""

from __future__ import annotations

from pacemark.summary import Level, Sizes, Traffic

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
    return [line for line in lines if line]


def _lengths(what: str, asked: Sizes, counted: Sizes) -> str:
    if asked.mean is None or asked.p95 is None or asked.mean == asked.p95:
        return ""
    told = "none counted" if counted.mean is None else f"counted {_said(counted)}"
    return f"{what} tokens, mean and p95: asked {_said(asked)}; {told}"


def _said(sizes: Sizes) -> str:
    return f"{sizes.mean or 0:,.0f} and {sizes.p95 or 0:,.0f}"
