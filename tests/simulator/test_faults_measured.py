"""What pacemark reports of every fault: a clear kind, nothing lost, no hang, no traceback."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

import pacemark
from pacemark.api import Run
from pacemark.runs.folder import RunFolder
from pacemark.simulator import serving
from pacemark.simulator.server.faults import FAULTS, OUTAGES
from pacemark.trace import Exchange
from support.stored import exchanges

TOKENS = 16

HARMLESS = (
    "crlf", "comments", "gzip", "split_bytes", "no_done", "no_usage", "usage_null", "duplicate_finish", "stall",
    "slow_first_byte", "huge_event", "freeze", "idle_close", "invalid_utf8",
)  # fmt: skip
"""A client that reads with care gets every token of these."""

FAILING = {
    "reset_before_headers": {"reset"},
    "reset_mid_stream": {"reset", "closed"},
    "cut_mid_stream": {"closed"},
    "http_429": {"http_429"},
    "http_500": {"http_500"},
    "http_503": {"http_503"},
    "malformed_sse": {"bad_stream"},
    "error_in_stream": {"stream_error"},
    "restart": {"reset", "refused", "closed"},
    "refuse": {"refused", "closed", "reset"},  # a connection may be taken by the backlog just before
}
"""These cannot be repaired, and are reported under these names."""


def measured(tmp_path: Path, kind: str) -> tuple[Run, list[Exchange]]:
    """A level of four streams that the fault befalls once pacemark knows the endpoint; and all its requests.

    Kept connections never notice that new ones are refused, so that fault gets a new one for each request.
    """
    fault: dict[str, Any] = {"kind": kind, "after_requests": 40, "seconds": 0.3, "size": 2_000_000}
    if kind not in OUTAGES:
        fault.setdefault("share", 0.3)
    with serving("fixed", ttft_ms=20, itl_ms=2, faults=[fault], seed=5) as served:
        run = pacemark.run(
            served.url, concurrency=4, duration=1.5, input_tokens=30, output_tokens=TOKENS, out=tmp_path, workers=1,
            timeout=20.0, fresh_connections=kind == "refuse",
        )  # fmt: skip
    folder = RunFolder.open(run.path)
    found = list(exchanges(folder, 0))
    folder.close()
    return run, found


@pytest.mark.slow(shared=True)
@pytest.mark.parametrize("kind", HARMLESS)
def test_a_fault_that_loses_nothing_fails_nothing(kind: str, tmp_path: Path) -> None:
    run, found = measured(tmp_path, kind)
    level = run.levels[0]
    assert level.errors == {}
    assert level.requests.completed == len(found)
    assert level.requests.completed > 20
    # The first answer of each stream is cut short, lest the streams march in step.
    assert all(len(x.hi_ns) == x.output_tokens == x.asked_tokens for x in found)
    assert sum(x.asked_tokens == TOKENS for x in found) >= len(found) - 4
    if kind == "no_usage":
        assert {x.tokens_source for x in found} == {"usage", "events"}
    if kind in ("stall", "slow_first_byte"):
        assert 1e9 > max(x.ended_ns - x.sent_ns for x in found) > 0.3e9


@pytest.mark.slow(shared=True)
@pytest.mark.parametrize("kind", list(FAILING))
def test_a_fault_that_loses_an_answer_is_named(kind: str, tmp_path: Path) -> None:
    run, found = measured(tmp_path, kind)
    level = run.levels[0]
    failed = [x for x in found if x.error]
    assert failed
    assert {x.error for x in failed} <= FAILING[kind]
    assert all(x.detail for x in failed)
    assert level.requests.failed == len(failed)
    assert level.requests.completed + level.requests.failed == len(found)
    for exchange in found:
        if not exchange.error:
            assert exchange.output_tokens == exchange.asked_tokens
    # What came before and after the fault is still counted.
    assert level.requests.completed > 10
    if kind == "http_429":
        assert "rate_limited" in [reason.code for reason in level.verdict.reasons]


def test_every_fault_is_measured() -> None:
    assert set(HARMLESS) | set(FAILING) == set(FAULTS)
