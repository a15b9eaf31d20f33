"""What answers held beside text: calls of tools, JSON, reasoning."""

from __future__ import annotations

import numpy as np
import pytest

from pacemark.figures import content
from pacemark.summary import Distribution
from pacemark.trace import Exchange, trace_of
from support.servers import MS, exchange


def all_of(rows: list[Exchange]) -> np.ndarray[tuple[int], np.dtype[np.bool_]]:
    return np.ones(len(rows), np.bool_)


def median(found: Distribution) -> float | None:
    return found.p50.value


def test_calls_are_timed_from_the_request_and_counted() -> None:
    rows = [
        exchange(10 * n, [10 * n + 5, 10 * n + 9], calls=1, call_ns=(10 * n + 6) * MS, called_ns=(10 * n + 8) * MS)
        for n in range(60)
    ]
    rows += [
        exchange(700, [705], calls=2, malformed_calls=1, finish_reason="tool_calls"),
        exchange(710, [715], calls=1, malformed_calls=1, finish_reason="MAX_TOKENS"),
        exchange(720, [725]),
    ]
    found = content.tool_calls(trace_of(rows), all_of(rows))
    assert found is not None
    assert (found.requests, found.calls, found.malformed, found.cut_off) == (62, 63, 2, 1)
    assert (median(found.first_byte_ms), median(found.complete_ms)) == (6.0, 8.0)
    assert content.tool_calls(trace_of(rows[-1:]), all_of(rows[-1:])) is None


def test_json_that_was_cut_off_is_told_apart() -> None:
    rows = [
        exchange(0, [5], json_answer=1),
        exchange(10, [15], json_answer=0, finish_reason="length"),
        exchange(20, [25], json_answer=0, finish_reason="stop"),
        exchange(30, [35]),
    ]
    found = content.json_answers(trace_of(rows), all_of(rows))
    assert found is not None
    assert (found.checked, found.malformed, found.cut_off) == (3, 2, 1)


@pytest.mark.parametrize(("disclosed", "time_ms"), [("verbatim", 4.0), ("summary", 4.0), ("hidden", None)])
def test_reasoning_lasts_from_its_first_token_to_the_answers_first(disclosed: str, time_ms: float | None) -> None:
    rows = [
        exchange(10 * n, [10 * n + 2, 10 * n + 6], answer_ns=(10 * n + 6) * MS, disclosed=disclosed, reasoning_tokens=7)
        for n in range(60)
    ] + [exchange(700, [705])]
    found = content.reasoning(trace_of(rows), all_of(rows))
    assert found is not None
    assert (found.requests, found.disclosed, found.tokens) == (60, {disclosed: 60}, 7.0)
    assert (median(found.time_ms), median(found.first_answer_ms)) == (time_ms, 6.0)
