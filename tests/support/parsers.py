"""Everything that reads what somebody else wrote, each as a function of bytes that must end in a result or in a typed
error; with inputs to start from. Hypothesis and the fuzzer (`benchmarks/fuzz.py`) both drive them."""

from __future__ import annotations

import asyncio
import contextlib
import gzip
import json
import math
import random
import shutil
import socket
import tempfile
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
from pacemark.dialects.reading import understand
from pacemark.endpoint import retry
from pacemark.endpoint.description import caller_in, chunk_in, endpoint_in, principals_in
from pacemark.endpoint.offered import models_in
from pacemark.endpoint.prometheus import metrics_in
from pacemark.errors import BadInput
from pacemark.instrument.commands import Batch, decode_batch, encode_batch
from pacemark.instrument.connection import Connection
from pacemark.instrument.patience import failed, pause_s
from pacemark.lengths import lengths
from pacemark.runs.conclude import summed_up
from pacemark.runs.folder import RunFolder
from pacemark.runs.ledger import Ledger
from pacemark.runs.listing import stored_runs
from pacemark.runs.record import read as read_record
from pacemark.trace import Beat, Exchange
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
    storable(found)


def storable(found: Exchange) -> None:
    """Whether a request can be sent on, counted and stored, and says what it may."""
    beat = Beat(0, 0, 0, 0, 0, 0, 0, 0, 0, 1.0, 0, 0, False)
    (again,) = decode_batch(encode_batch(Batch([found], beat))).exchanges
    kept = Ledger(str).add(again)
    assert len(kept.detail) < 1000
    assert len(kept.error) <= 120
    assert len(kept.finish_reason) <= 120
    assert kept.error or len(kept.hi_ns)
    assert (kept.lo_ns <= kept.hi_ns).all()
    assert math.isfinite(float(kept.tokens.sum()))
    assert kept.output_tokens >= 0
    for count in (kept.input_tokens, kept.output_tokens, kept.cached_tokens, kept.hidden_tokens, kept.reasoning_tokens):
        assert -1 <= count < 2**63, count
    page = Ledger(str).open(0)
    page.add(kept)
    assert len(page.trace()) == 1


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
    path = Path(_folder().name) / "runs" / "20260101T000000Z-x"
    shutil.copytree(GOLDEN, path, dirs_exist_ok=True)
    which, rest = (data[0] % 4, data[1:]) if data else (0, b"")
    if which < 3:
        file = path / ("run.json", "summary.json", "run.db")[which]
        file.write_bytes(rest)
    else:  # a place in the database is overwritten
        whole = bytearray((path / "run.db").read_bytes())
        at = int.from_bytes(rest[:3], "big") % len(whole)
        whole[at : at + len(rest) - 3] = rest[3:]
        (path / "run.db").write_bytes(whole)
    stored_runs(path.parent)
    with contextlib.suppress(BadInput), contextlib.closing(RunFolder.open(path)) as folder:
        with contextlib.suppress(BadInput):
            folder.summary()
        summed_up(folder, read_record(folder.run()))


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
RUNS = [b"\x00" + (GOLDEN / "run.json").read_bytes(), b"\x01{}", b"\x02SQLite format 3\x00", b"\x03\x00\x10\x00abc"]


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
