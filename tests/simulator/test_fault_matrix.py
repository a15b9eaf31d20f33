"""Every fault, streamed and whole, plain and over TLS, in closed and open loop: its kind is told, every request is on
record, nothing hangs. `benchmarks/fault_matrix.py` prints the whole matrix."""

from __future__ import annotations

from pathlib import Path

import pytest

from pacemark.simulator.server.faults import FAULTS
from support.matrix import Cell, cells, met

REPORTED = {
    "reset_before_headers": {"reset"},
    "http_429": {"http_429"},
    "http_500": {"http_500"},
    "http_503": {"http_503"},
    "reset_mid_stream": {"reset", "closed"},
    "cut_mid_stream": {"closed"},
    "malformed_sse": {"bad_stream", "bad_answer"},
    "error_in_stream": {"stream_error", "server_error"},
    "refuse": {"refused", "reset", "closed"},
    "restart": {"refused", "reset", "closed"},
}
"""What a fault is reported as; what is not here fails no request."""
MIXED = [(True, True, True), (False, False, False), (False, True, True)]
"""Of the eight ways to ask these three, where `test_faults_measured.py` has a fourth: every two of them together."""


def test_every_fault_is_in_the_matrix() -> None:
    assert len(list(cells())) == 8 * len(FAULTS)
    assert set(REPORTED) < set(FAULTS)


@pytest.mark.slow
@pytest.mark.parametrize("way", MIXED, ids=lambda way: "-".join(map(str, map(int, way))))
@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_is_named_and_loses_no_request(fault: str, way: tuple[bool, bool, bool], tmp_path: Path) -> None:
    found = met(Cell(fault, *way), tmp_path)
    kinds = REPORTED.get(fault, set()) | ({"bad_answer"} if fault == "duplicate_finish" and not way[0] else set())
    assert set(found.kinds) <= kinds
    assert bool(found.kinds) == bool(kinds)
    assert found.completed > 10
    assert found.missing == 0
