"""Everything that reads what somebody else wrote, each as a function of bytes that must end in a result or in a typed
error; with inputs to start from. Hypothesis and the fuzzer (`benchmarks/fuzz.py`) both drive them."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import gzip
import json
import math
import random
import shutil
import socket
import sqlite3
import tempfile
import zlib
from collections.abc import Callable, Sequence
from functools import cache, partial
from pathlib import Path
from typing import NamedTuple

import msgspec
import uvloop

from pacemark.answers.gate import parse_condition
from pacemark.answers.planning import parse_demand
from pacemark.answers.sizes import parse_size
from pacemark.budget import parse as parse_budget
from pacemark.dialects.dialect import DIALECTS
from pacemark.dialects.reading import UNREAD, understand
from pacemark.endpoint import retry
from pacemark.endpoint.description import caller_in, chunk_in, endpoint_in, principals_in
from pacemark.endpoint.offered import models_in
from pacemark.endpoint.prometheus import metrics_in
from pacemark.errors import BadInput
from pacemark.files import legible
from pacemark.instrument.commands import Batch, decode_batch, encode_batch
from pacemark.instrument.connection import Connection
from pacemark.instrument.patience import failed, pause_s
from pacemark.lengths import lengths
from pacemark.runs.conclude import summed_up
from pacemark.runs.folder import RunFolder
from pacemark.runs.ledger import Ledger
from pacemark.runs.listing import stored_runs
from pacemark.runs.record import read as read_record
from pacemark.trace import Beat, Exchange, trace_of
from pacemark.values import seconds, share
from support.recorded import RECORDED
from support.servers import DONE, STREAM_HEAD, answer, chunk, delta, event, raw, usage

GOLDEN = Path(__file__).parents[1] / "golden" / "run"


class Parser(NamedTuple):
    """A function that reads bytes, and bytes that it knows how to read."""

    read: Callable[[bytes], object]
    seeds: Sequence[bytes]


# --- what comes over the wire


def http(data: bytes) -> None:
    """An answer as it comes from a socket, in two pieces; the first byte says where it is cut."""
    loop = _loop()
    ours, theirs = socket.socketpair()
    ours.setblocking(False)
    connection = Connection(loop, ours)
    cut = data[0] * 4 if data else 0
    with theirs:
        theirs.sendall(data[1 : 1 + cut])
        loop.call_soon(theirs.sendall, data[1 + cut : 100_000])
        loop.call_soon(theirs.shutdown, socket.SHUT_WR)
        found = loop.run_until_complete(connection.request(b"GET", 5.0))
        connection.close()
    assert found.error or found.complete
    assert found.error != "timeout"
    if failed(found):
        pause_s(found, 1, random.Random(0))


@cache
def _loop() -> asyncio.AbstractEventLoop:
    return uvloop.new_event_loop()


def body(api: str, data: bytes) -> None:
    """The body of an answer; the first byte says whether it streams and how it is packed."""
    kind, text = (data[0], data[1:]) if data else (0, b"")
    if kind & 4:
        text = gzip.compress(text, 1)
    encoding = ("", "gzip", "deflate")[(kind >> 1) % 3]
    sizes = sorted({(kind * 7) % (len(text) + 1), len(text)})
    found = understand(
        raw(text, [(10 + n, size) for n, size in enumerate(sizes)], streamed=bool(kind & 1), encoding=encoding), api
    )
    assert found.error != UNREAD, found.detail
    storable(found)


def storable(found: Exchange) -> None:
    """Whether a request can be sent on, counted and stored, and says what it may."""
    beat = Beat(0, 0, 0, 0, 0, 0, 0, 0, 0, 1.0, 0, 0, False)
    (again,) = decode_batch(encode_batch(Batch([found], beat))).exchanges
    kept = _ledger.add(again)
    assert len(kept.detail) < 1000
    assert len(kept.error) <= 120
    assert len(kept.finish_reason) <= 120
    assert kept.error or len(kept.hi_ns)
    assert (kept.lo_ns <= kept.hi_ns).all()
    assert math.isfinite(float(kept.tokens.sum()))
    assert kept.output_tokens >= 0
    for count in (kept.input_tokens, kept.output_tokens, kept.cached_tokens, kept.hidden_tokens, kept.reasoning_tokens):
        assert -1 <= count < 2**63, count
    _waiting.append(kept)
    if len(_waiting) >= 4 * sparing - 3:
        _put_into_columns()


def _put_into_columns() -> None:
    """Those that wait, together; where that fails, one by one, to say which it was."""
    rows, _waiting[:] = list(_waiting), []
    page = _ledger.late(0)
    _ledger.open(0)
    try:
        assert len(page.trace()) == len(rows)
    except Exception:
        for row in rows:
            assert len(trace_of([row])) == 1, row
        raise


sparing = 1
"""The fuzzer, which has inputs by the million, does what takes longest for one input in so many: it puts requests into
columns, many at once, and sums up stored runs."""
_waiting: list[Exchange] = []
_ledger = Ledger(str)


def workspace(data: bytes) -> None:
    """What a workspace, a list of models or an exporter of metrics says."""
    metrics_in(data.decode("utf-8", "replace"))
    retry.told_s({b"retry-after": data[:40], b"date": data[40:80]}, data)
    with contextlib.suppress(ValueError, RecursionError):
        value = msgspec.json.decode(data)
        models_in(value)
        for reads in (endpoint_in, caller_in, chunk_in):
            reads(value)
        principals_in(value)


# --- what lies in files


SUFFIXES = (".jsonl", ".json", ".csv", ".tsv", ".txt", ".jsonl.gz", ".parquet", "")


def data_file(data: bytes) -> None:
    """A file of requests or a trace; the first byte says which kind its name makes it."""
    from workload.test_any_bytes import ends_in_rows_or_a_line

    suffix = SUFFIXES[data[0] % len(SUFFIXES)] if data else ""
    ends_in_rows_or_a_line(Path(_folder().name) / f"a{suffix}", data[1:])


def run_folder(data: bytes) -> None:
    """A stored run, one of whose files says something else; the first byte says which."""
    whole, path = _run(), Path(_folder().name) / "runs" / "20260101T000000Z-x"
    which, rest = (data[0] % 5, data[1:]) if data else (0, b"")
    spoilt: dict[str, bytes] = {}
    if which < 3:
        spoilt = {("run.json", "summary.json", "run.db")[which]: rest}
    elif which == 3:  # a place in the database is overwritten
        pages = bytearray(whole["run.db"])
        at = int.from_bytes(rest[:3], "big") % len(pages)
        pages[at : at + len(rest) - 3] = rest[3:]
        spoilt = {"run.db": bytes(pages)}
    _put(path, whole, spoilt)
    if which == 4:
        _spoilt.append("run.db")
        _change_a_cell(path / "run.db", rest)
    if which < 2:
        stored_runs(path.parent)
    with contextlib.suppress(BadInput), contextlib.closing(RunFolder.open(path)) as folder:
        if which == 1:
            folder.summary()
        record = read_record(folder.run())
        if which < 2 and zlib.crc32(data) % sparing:
            return  # the database is as it was
        with legible(path / "run.db"):
            for level in folder.levels():
                folder.trace(level.level)
                folder.beats(level.level)
            for part in folder.sessions():
                part.sights(), part.scrapes(), part.span()
        if zlib.crc32(data) % sparing == 0:
            summed_up(folder, record)


_spoilt: list[str] = []
"""Files of the stored run that are not as they were."""


def _put(path: Path, whole: dict[str, bytes], spoilt: dict[str, bytes]) -> None:
    """Make the files of a stored run what they were, but for those that are spoilt now."""
    for name in {*_spoilt, *spoilt}:
        (path / name).write_bytes((whole | spoilt)[name])
    _spoilt[:] = spoilt


def _change_a_cell(file: Path, how: bytes) -> None:
    """Put another value into a table: four bytes say which, where and of what kind, the rest is it."""
    table, column, row, kind, *_ = how.ljust(4, b"\0")
    value = how[4:]
    as_text = value.decode("utf-8", "replace")
    kinds = (value, as_text, int.from_bytes(value[:8], "big", signed=True), None, float(len(value)) * 1e300)
    with contextlib.closing(sqlite3.connect(file, timeout=0.5)) as db:
        db.execute("PRAGMA synchronous = OFF")  # a disk that is busy would be waited for
        name = ("request", "level", "health", "request")[table % 4]
        columns = [name for _, name, *_ in db.execute(f"PRAGMA table_info({name})")]
        (least,) = db.execute(f"SELECT min(rowid) FROM {name}").fetchone()
        words = f"UPDATE {name} SET {columns[column % len(columns)]} = ? WHERE rowid = ?"
        for _ in range(2):
            try:
                db.execute(words, (kinds[kind % len(kinds)], least + row % 12))
                return db.commit()
            except sqlite3.IntegrityError:
                return
            except sqlite3.OperationalError:  # from Python 3.12 on a cursor that an error keeps alive holds its lock
                gc.collect()


@cache
def _run() -> dict[str, bytes]:
    """The files of a stored run, of which a few requests are left so that it is summed up fast."""
    path = Path(_folder().name) / "runs" / "20260101T000000Z-x"
    shutil.copytree(GOLDEN, path)
    with contextlib.closing(sqlite3.connect(path / "run.db")) as db:
        db.execute("DELETE FROM request WHERE idx > 5 OR level > 1")
        db.execute("DELETE FROM level WHERE level > 1")
        db.execute("DELETE FROM health WHERE level > 1 OR rowid % 10")
        db.commit()
        db.execute("VACUUM")
    return {name: (path / name).read_bytes() for name in ("run.json", "summary.json", "run.db")}


def words(data: bytes) -> None:
    """What a user may write: budgets, lengths, conditions, times."""
    text = data.decode("utf-8", "replace")
    for reads in (
        parse_budget, parse_condition, parse_demand, parse_size, partial(lengths, "--input-tokens"),
        partial(seconds, "--wait"), partial(share, "--precision"),
    ):  # fmt: skip
        with contextlib.suppress(BadInput):
            reads(text)


@cache
def _folder() -> tempfile.TemporaryDirectory[str]:
    return tempfile.TemporaryDirectory(prefix="pacemark-fuzz-")


CHAT = b"".join([delta(role="assistant", content=""), delta(content="a"), delta(content="b"), delta("stop"), DONE])
COUNTED = b"".join([delta(content="a"), delta(content="b"), delta("length"), usage(9, 2), DONE])
WHOLE = json.dumps({"choices": [{"message": {"content": "a b"}, "finish_reason": "stop"}], "usage": {
    "prompt_tokens": 3, "completion_tokens": 2, "total_tokens": 5}}).encode()  # fmt: skip
REFUSED = b'{"error": {"message": "no", "type": "x", "param": "max_tokens", "code": "rate_limit"}}'
SEEDS = [
    bytes([k]) + x for k in (0, 1, 5) for x in (CHAT, COUNTED, WHOLE, REFUSED, event({"error": "x"}), b"<p>no</p>")
]
HTTP = [
    b"\x09" + answer(WHOLE),
    b"\x20" + STREAM_HEAD + b"".join(chunk(part) for part in (CHAT, b"")),
    b"\x02HTTP/1.1 103 Early\r\nLink: x\r\n\r\n" + answer(REFUSED, "Retry-After: 3", status="429 Too Many Requests"),
    b"\x00HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\n\r\n" + gzip.compress(WHOLE, 1),
]
FILES = [bytes([k]) + x for k, x in enumerate((
    b'{"prompt": "a", "output_tokens": 2}\n{"prompt": "b"}\n', b'[{"messages": [{"role": "user", "content": "x"}]}]',
    b"timestamp,input_length,output_length\n1,2,3\n", b"TIMESTAMP\tContextTokens\tGeneratedTokens\n2024-01-01\t1\t2\n",
    b"one\ntwo\n", gzip.compress(b'{"prompt": "a"}\n', 1),
))]  # fmt: skip

WORDS = [
    b"ttft p95 < 500ms, tpot p95 < 50ms", b"95% of requests: ttft < 1s", b"lognormal(9, cv=0.8)", b"ttft p95 > +5%",
    b"30 to 50 requests/s", b"50 model units", b"2m", b"5%", b"1000:0.7,4000:0.3",
]  # fmt: skip
ENDPOINT = {
    "name": "e",
    "state": {"ready": "READY"},
    "config": {"served_entities": [{"name": "a", "max_provisioned_throughput": 9}]},
    "rate_limits": [{"calls": 9, "renewal_period": "minute"}],
}
WORKSPACE = [b'{"data": [{"id": "m"}]}', b'vllm:x_total{a="b"} 3\n', json.dumps(ENDPOINT).encode()]
RUNS = [
    b"\x00" + (GOLDEN / "run.json").read_bytes(), b"\x01{}", b"\x02SQLite format 3\x00", b"\x03\x00\x10\x00abc",
    *(b"\x03" + (n << 10).to_bytes(3, "big") + b"abc" for n in range(1, 48)),
    *(b"\x04" + bytes([0, n, 7, 2]) + b"\x7f" for n in range(26)),
    *(b"\x04" + bytes([0, n, 8, 0]) + b"abc" for n in range(26)),
    *(b"\x04" + bytes([1, n, 1, 1]) + b"\"[{1" for n in range(7)),
    b"\x03\xff\xff\x18\x28\xe4\x28\xdb\x7d\xff",  # a schema that is not UTF-8
    b"\x04\0\x15\x08aabbc",  # a thousand million events, says a column
    b"\x04\1\0\0\2" + b"\x7f" * 8,  # a level of a number beyond all sessions
]  # fmt: skip


def _of_api(api: str) -> Parser:
    recorded = [bytes([k]) + b"".join(RECORDED[api].events) for k in (0, 1) if api in RECORDED]
    return Parser(partial(body, api), [*SEEDS, *recorded])


PARSERS: dict[str, Parser] = {
    "http": Parser(http, HTTP),
    **{api: _of_api(api) for api in DIALECTS},
    "workspace": Parser(workspace, WORKSPACE),
    "files": Parser(data_file, FILES),
    "runs": Parser(run_folder, RUNS),
    "words": Parser(words, WORDS),
}
"""By the name that `benchmarks/fuzz.py` takes."""
