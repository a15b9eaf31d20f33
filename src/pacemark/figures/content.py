"""What the answers of a level held beside text: reasoning, calls of tools, JSON."""

from __future__ import annotations

from typing import Literal, get_args

import numpy as np
from numpy.typing import NDArray

from pacemark.content import JsonAnswers, Reasoning, ToolCalls
from pacemark.dialects.calls import cut_off
from pacemark.figures import metrics
from pacemark.figures.distributions import spread_of
from pacemark.trace import ABSENT, Trace

__all__ = ["ended_at_limit", "formed", "json_answers", "reasoning", "tool_calls"]

Mask = NDArray[np.bool_]
Disclosed = Literal["verbatim", "summary", "hidden"]


def reasoning(trace: Trace, good: Mask) -> Reasoning | None:
    """Of the answered requests `good` (n,); None where nothing is known of any."""
    thought = good & (trace.disclosed != "")
    if not thought.any():
        return None
    ways: tuple[Disclosed, ...] = get_args(Disclosed)
    tokens = trace.reasoning_tokens[thought]
    return Reasoning(
        requests=int(thought.sum()),
        disclosed={way: count for way in ways if (count := int((trace.disclosed[thought] == way).sum()))},
        tokens=float(tokens.mean()) if (tokens >= 0).all() else None,
        time_ms=spread_of(metrics.reasoning_ms(trace)[thought]),
        first_answer_ms=spread_of(metrics.ttfa_ms(trace)[thought]),
    )


def tool_calls(trace: Trace, good: Mask) -> ToolCalls | None:
    """The same of tool calls."""
    called = good & (trace.calls > 0)
    if not called.any():
        return None
    return ToolCalls(
        requests=int(called.sum()),
        calls=int(trace.calls[called].sum()),
        malformed=int(trace.malformed_calls[called].sum()),
        cut_off=int(trace.malformed_calls[called & ended_at_limit(trace)].sum()),
        first_byte_ms=spread_of(metrics.call_ms(trace)[called]),
        complete_ms=spread_of(metrics.complete_call_ms(trace)[called]),
    )


def json_answers(trace: Trace, good: Mask) -> JsonAnswers | None:
    """The same of answers that were to be JSON."""
    checked = good & (trace.json_answer != ABSENT)
    if not checked.any():
        return None
    malformed = checked & (trace.json_answer == 0)
    return JsonAnswers(int(checked.sum()), int(malformed.sum()), int((malformed & ended_at_limit(trace)).sum()))


def formed(trace: Trace) -> Mask:
    """Answers (n,) that end where they are whole, whatever length was asked for."""
    return np.asarray((trace.calls > 0) | (trace.json_answer != ABSENT), dtype=np.bool_)


def ended_at_limit(trace: Trace) -> Mask:
    """Answers (n,) that ended at their longest length, in the words of any API."""
    return np.fromiter(map(cut_off, trace.finish_reason.tolist()), dtype=bool, count=len(trace))
