"""Whatever a server, a file or a user says, it ends in a result or in a typed error. `make fuzz` looks much longer."""

from __future__ import annotations

import re

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from support.parsers import PARSERS

ANY = settings(suppress_health_check=list(HealthCheck))
FRAGMENTS = [
    b"data: ", b"\n\n", b"\r\n", b'{"choices":[', b'{"delta":{"content":"', b'"}}]}', b'"usage":{"completion_tokens":',
    b"1e999", b"-1", b"99999999999999999999999", b"null", b"NaN", b"[[[[[[[[", b'"\\ud800"', b"\xff", b"event: error\n",
    b'"finish_reason":"', b'"error":', b"HTTP/1.1 200 OK\r\n", b"Transfer-Encoding: chunked\r\n\r\n", b"<",
    b"Content-Length: ", b"\x1f\x8b\x08", b"true", b"{}", b"[]", b"0\r\n\r\n", b"fffffff\r\n", b"[" * 3000,
]  # fmt: skip


@pytest.mark.parametrize("name", PARSERS)
def test_inputs_to_start_from(name: str) -> None:
    for seed in PARSERS[name].seeds:
        PARSERS[name].read(seed)


@pytest.mark.parametrize("name", PARSERS)
def test_no_number_is_too_large_or_below_nought(name: str) -> None:
    """Each number of each input in turn is one that neither a database nor a float holds, or no count."""
    others = (b"-4", b"6" * 20, b"6" * 60, b"6" * 400)
    for seed in PARSERS[name].seeds[: 1 if name == "runs" else None]:  # the others are of its database
        for at, number in enumerate(re.finditer(rb"\d+", seed[1:])):
            for other in others[at % 4 :][:1] if name == "runs" else others:  # a run is summed up each time
                PARSERS[name].read(seed[: 1 + number.start()] + other + seed[1 + number.end() :])


@pytest.mark.parametrize("name", PARSERS)
@ANY
@given(st.data())
def test_any_input_ends_in_a_result_or_a_typed_error(name: str, data: st.DataObject) -> None:
    parser = PARSERS[name]
    seed = data.draw(st.sampled_from(list(parser.seeds)))
    at, to = sorted(data.draw(st.tuples(st.integers(0, len(seed)), st.integers(0, len(seed)))))
    new = b"".join(data.draw(st.lists(st.sampled_from(FRAGMENTS) | st.binary(max_size=4), max_size=6)))
    parser.read(seed[:at] + new + seed[to:])
