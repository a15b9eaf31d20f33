"""The splitter against a slow reading of WHATWG HTML, section 9.2.6, byte by byte."""

import itertools
import re

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from pacemark.dialects.sse import Events, is_event_stream

BOM = b"\xef\xbb\xbf"


def split_events(body: bytes) -> tuple[list[bytes], list[int]]:
    """All payloads, and the offset just past each."""
    events = Events(body)
    found = [(payload, events.at) for payload in events]
    return [payload for payload, _ in found], [end for _, end in found]


def reference(body: bytes) -> tuple[list[bytes], list[int]]:
    """One line at a time, as the standard words it, save that a last event needs no blank line and that `error:` is
    read as data is."""
    payloads: list[bytes] = []
    ends: list[int] = []
    data: list[bytes] = []
    at = len(BOM) if body.startswith(BOM) else 0
    while at < len(body):
        found = re.search(rb"\r\n|\r|\n", body[at:])
        line = body[at : at + found.start()] if found else body[at:]
        at += found.end() if found else len(body) - at
        if line:
            field, _, value = line.partition(b":")
            if field == b"data":
                data.append(value[1:] if value[:1] == b" " else value)
            elif field == b"error" and value:
                data.append(value.strip())
        elif data:
            payloads.append(b"\n".join(data))
            ends.append(at)
            data = []
    if data:
        payloads.append(b"\n".join(data))
        ends.append(len(body))
    return payloads, ends


values = st.text(st.characters(exclude_characters="\r\n", codec="utf-8"), max_size=12).map(str.encode)
lines = st.one_of(
    st.tuples(st.sampled_from([b"data: ", b"data:", b"data:  "]), values).map(b"".join),
    st.tuples(st.sampled_from([b":", b": ", b"id: ", b"event: ", b"retry:", b" data: ", b"database: "]), values).map(
        b"".join
    ),
    st.just(b"data"),
    st.just(b""),
)
endings = st.sampled_from([b"\n", b"\r\n", b"\r"])
bodies = st.builds(
    lambda bom, rows, tail: bom + b"".join(line + end for line, end in rows) + tail,
    st.sampled_from([b"", BOM]),
    st.lists(st.tuples(lines, st.one_of(endings, st.just(b"\n\n"))), max_size=12),
    st.one_of(st.just(b""), lines),
)
plain = st.lists(values, max_size=8).map(lambda vs: b"".join(b"data: %b\n\n" % v for v in vs))


@given(bodies)
@example(b"data: a\r\n\r\ndata: b\r\n\r\n")
@example(b"data: a\n\n\ndata: b\n\n")
@example(BOM + b"\ndata: a\n\n")
@example(b" data: not a field\n\ndata: a\n\n")
def test_it_equals_the_standard(body: bytes) -> None:
    assert split_events(body) == reference(body)


@given(st.binary(max_size=60), plain)
def test_it_equals_the_standard_on_anything(noise: bytes, stream: bytes) -> None:
    for body in (noise, noise + b"\n\n" + stream, stream + noise):
        assert split_events(body) == reference(body)


@given(plain, endings)
def test_line_ends_make_no_difference_to_the_data(stream: bytes, end: bytes) -> None:
    assert split_events(stream.replace(b"\n", end))[0] == split_events(stream)[0]


@given(bodies)
def test_ends_rise_and_stay_inside(body: bytes) -> None:
    payloads, ends = split_events(body)
    assert len(payloads) == len(ends)
    assert all(a < b for a, b in itertools.pairwise(ends))
    assert all(0 < end <= len(body) for end in ends)


@given(bodies, st.integers(0, 200))
def test_what_arrived_later_does_not_change_what_was_whole_before(body: bytes, cut: int) -> None:
    """However the bytes are cut into reads, an event that had ended by a cut is the same before and after."""
    payloads, ends = split_events(body)
    whole = [p for p, end in zip(payloads, ends, strict=True) if end <= cut and not body[:cut].endswith(b"\r")]
    if not body[:cut].endswith(b"\r"):
        assert split_events(body[:cut])[0][: len(whole)] == whole


@pytest.mark.parametrize(
    ("body", "payloads", "ends"),
    [
        (b"", [], []),
        (b"\n\n\n", [], []),
        (b"data: a\n\n", [b"a"], [9]),
        (b"data:a\n\n", [b"a"], [8]),
        (b"data:  a\n\n", [b" a"], [10]),
        (b"data: a", [b"a"], [7]),
        (b"data: a\n", [b"a"], [8]),
        (b"data\n\n", [b""], [6]),
        (b"data:\n\n", [b""], [7]),
        (b"data: a\ndata: b\n\n", [b"a\nb"], [17]),
        (b": ping\n\ndata: a\n\n", [b"a"], [17]),
        (b"event: x\nid: 7\ndata: a\n\n", [b"a"], [24]),
        (b"data: a\n\n: ping\n\n", [b"a"], [9]),
        (BOM + b"data: a\n\n", [b"a"], [12]),
        (b"data: a\r\rdata: b\r\r", [b"a", b"b"], [9, 18]),
    ],
)
def test_small_cases(body: bytes, payloads: list[bytes], ends: list[int]) -> None:
    assert split_events(body) == (payloads, ends)


def test_spare_blank_lines_do_not_delay_an_event() -> None:
    """The end of an event is what its arrival is read from: a newline that comes later is not part of it."""
    assert split_events(b"data: a\n\n\n\ndata: b\n\n")[1][0] == 9
    assert split_events(b"data: a\r\n\r\n\r\ndata: b\r\n\r\n")[1][0] == 11


def test_the_name_of_an_event_is_known() -> None:
    events = Events(b"event: error\ndata: a\n\ndata: b\n\nerror: c\n\n")
    assert [(payload, events.event) for payload in events] == [(b"a", b"error"), (b"b", b""), (b"c", b"error")]


@given(plain)
def test_what_no_blank_line_parts_can_be_taken_apart(stream: bytes) -> None:
    payloads, _ = split_events(stream)
    events = Events(stream.replace(b"\n\n", b"\n"))
    assert len(list(events)) == bool(payloads)
    pieces = events.pieces() if payloads else []
    assert [piece for piece, _ in pieces] == [payload.strip() for payload in payloads]
    assert not pieces or pieces[-1][1] == len(events.body)


@pytest.mark.parametrize(
    ("body", "is_stream"), [(b"data: x", True), (b"\n: hi", True), (b'{"data": 1}', False), (b"", False)]
)
def test_a_stream_is_known_by_its_beginning(body: bytes, is_stream: bool) -> None:
    assert is_event_stream(body) is is_stream


def test_what_is_glued_to_an_error_line_without_a_data_line_is_nothing_by_itself() -> None:
    events = Events(b'error: \x01data: {"objec{\n\n')
    assert list(events) == [b'\x01data: {"objec{']
    assert events.event == b"error"
    assert events.pieces() == []
