"""Whatever a server, a file or a user says, it ends in a result or in a typed error. `make fuzz` looks much longer."""

from __future__ import annotations

import itertools
import json
import re
from typing import Any

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


KINDS: tuple[object, ...] = (None, [], {}, [[1]], {"a": [{}]}, ["x"], "x", "", 7, -1.5, True)


@pytest.mark.parametrize("name", [name for name in PARSERS if name not in ("runs", "words", "files")])
def test_no_value_need_be_of_the_kind_that_it_is_told_to_be(name: str) -> None:
    """Each value of each JSON object in each input in turn is of two other kinds; next time of two others yet."""
    kinds = itertools.cycle(KINDS)
    for seed in PARSERS[name].seeds:
        for found in re.finditer(rb'\{".*\}', seed):
            for path in _paths(whole := json.loads(found[0])):
                for kind in itertools.islice(kinds, 2):
                    other = json.dumps(_with(whole, path, kind)).encode()
                    PARSERS[name].read(seed[: found.start()] + other + seed[found.end() :])


def _paths(value: Any) -> list[list[Any]]:
    """The way to each value in `value`, however deep, and to itself."""
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [[], *([key, *path] for key, deeper in inner for path in _paths(deeper))]


def _with(value: Any, path: list[Any], other: object) -> Any:
    """`value` with `other` where `path` leads."""
    if not path:
        return other
    changed = value.copy()
    changed[path[0]] = _with(value[path[0]], path[1:], other)
    return changed


@pytest.mark.parametrize("name", PARSERS)
@ANY
@given(st.data())
def test_any_input_ends_in_a_result_or_a_typed_error(name: str, data: st.DataObject) -> None:
    parser = PARSERS[name]
    seed = data.draw(st.sampled_from(list(parser.seeds)))
    at, to = sorted(data.draw(st.tuples(st.integers(0, len(seed)), st.integers(0, len(seed)))))
    new = b"".join(data.draw(st.lists(st.sampled_from(FRAGMENTS) | st.binary(max_size=4), max_size=6)))
    parser.read(seed[:at] + new + seed[to:])
