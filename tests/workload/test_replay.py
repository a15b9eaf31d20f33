"""Traces as they are sent: what is drawn of them, and what an endpoint receives, beside the file."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import pacemark as face
from pacemark.endpoint.target import target
from pacemark.errors import BadInput
from pacemark.figures.level import LevelResult
from pacemark.pace import Rate
from pacemark.runs.bench import Bench
from pacemark.runs.recording import load_of, rows_of
from pacemark.scenario import Levels, Recording, Scenario, Settings, Workload
from pacemark.simulator import serving
from pacemark.summary import Cached, Traffic
from pacemark.workload.files import read_trace
from pacemark.workload.replay import Blocks, mark_shared, timed
from pacemark.workload.words import Prompts
from support.cli_tools import Asked, Reply, assert_refused, prompt_tokens, server, streamed
from support.inside import inside

LINE = Prompts(0, 0, "usage", 1.0, 1.0, salt_tokens=1.0)
"""Of a tokenizer for which a word is a token, and a template that is none."""
RATIO = Prompts(0, 0, "usage", 1.3, 9.0, salt_tokens=6.0)

ids = st.lists(st.integers(0, 2**64 - 1), min_size=1, max_size=12, unique=True)


@given(shared=ids, one=ids, two=ids, level=st.integers(0, 9))
def test_prompts_share_what_their_blocks_share(shared: list[int], one: list[int], two: list[int], level: int) -> None:
    a, b = (*shared, *(x for x in one if x not in shared)), (*shared, *(x for x in two if x not in shared))
    blocks = Blocks(LINE, 7, level)
    texts = [blocks.text(ids, 16, 16 * len(ids)).split() for ids in (a, b)]
    assert [len(text) for text in texts] == [16 * len(a), 16 * len(b)]
    common = next((n for n, (x, y) in enumerate(zip(a, b, strict=False)) if x != y), min(len(a), len(b)))
    assert texts[0][: 16 * common] == texts[1][: 16 * common]
    if common < min(len(a), len(b)):
        assert texts[0][16 * common] != texts[1][16 * common]


def test_a_block_in_part_opens_the_whole_block() -> None:
    whole = Blocks(LINE, 7, 0).text((3, 4), 512, 1024).split()
    assert Blocks(LINE, 7, 0).text((3, 4), 512, 700).split() == whole[:700]


def test_text_of_blocks_is_the_same_in_every_process() -> None:
    code = (
        "from pacemark.workload.replay import Blocks; from pacemark.workload.words import Prompts;"
        "print(Blocks(Prompts(0, 0, 'usage', 1.3, 9.0), 7, 2).text((5, 2**63, 9), 64, 180))"
    )
    said = {subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout for _ in range(2)}
    assert said == {Blocks(RATIO, 7, 2).text((5, 2**63, 9), 64, 180) + "\n"}
    assert Blocks(RATIO, 7, 3).text((5,), 64, 64).split()[0] not in said.pop()


@pytest.mark.parametrize("block", [16, 64, 512])
def test_blocks_are_as_long_as_they_should_be(block: int) -> None:
    """By a tokenizer of 1.3 tokens a word, 6 a salt, and a template of 3."""
    blocks, tokens, asked = Blocks(RATIO, 1, 0), 0.0, 0
    for n in range(40):
        ids = tuple(range(100 * n, 100 * n + 20))
        words = blocks.text(ids, block, 20 * block).split()
        salts = len(ids)
        tokens += 3 + 6 * salts + 1.3 * (len(words) - salts)
        asked += 20 * block
    assert tokens == pytest.approx(asked, rel=0.01)


def written(path: Path, values: list[Any]) -> Path:
    path.write_text("".join(json.dumps(value) + "\n" for value in values))
    return path


def mooncake(path: Path, rows: int = 60, step_ms: int = 100) -> Path:
    """Three prefixes, several rows to a step, blocks of 512 tokens."""
    rng, at, fresh, values = np.random.default_rng(5), 0, 1000, []
    for _ in range(rows):
        at += int(rng.choice([0, 0, step_ms, 3 * step_ms]))
        length = int(rng.integers(520, 1800))
        blocks = -(-length // 512)
        own = list(range(fresh, fresh + blocks - 1))
        fresh += blocks
        values.append(
            {
                "timestamp": at,
                "input_length": length,
                "output_length": int(rng.integers(2, 9)),
                "hash_ids": [int(rng.integers(0, 3)), *own],
            }
        )
    return written(path, values)


def replayed(path: Path, **more: Any) -> Workload:
    return Workload(seed=3, recording=Recording(str(path), replay=True, **more))


def test_jitter_spreads_the_times_within_their_step_and_keeps_the_order(tmp_path: Path) -> None:
    path = mooncake(tmp_path / "a.jsonl", 400)
    rows = read_trace(path)
    plain, spread = timed(rows, replayed(path)), timed(rows, replayed(path, jitter=True))
    assert rows.found.quantum_ms == 100
    off_ms = (spread.at_ns - plain.at_ns) / 1e6
    assert (np.diff(spread.at_ns) >= 0).all()
    assert np.abs(off_ms).max() <= 100
    assert np.unique(spread.at_ns).size > 390
    assert (spread.at_ns == timed(rows, replayed(path, jitter=True)).at_ns).all()
    assert np.unique(plain.at_ns).size < 300


def test_a_part_of_a_trace_is_whole_sessions_at_their_times(tmp_path: Path) -> None:
    values = [
        {"prompt": f"s{n % 50} turn {n // 50}", "timestamp": 10 * n, "session_id": f"s{n % 50}"} for n in range(200)
    ]
    path = written(tmp_path / "a.jsonl", values)
    rows = read_trace(path, unit="ms")
    part = timed(rows, replayed(path, sample=0.2))
    names = [str(rows[int(k)].session) for k in part.rows]
    assert sorted(names) == sorted(4 * list(set(names)))
    assert len(set(names)) == 10
    assert (part.at_ns == 10_000_000 * (part.rows - part.rows[0])).all()


def test_what_rows_share_is_what_came_before(tmp_path: Path) -> None:
    path = mooncake(tmp_path / "a.jsonl", 200)
    rows, workload = read_trace(path), replayed(path)
    assert mark_shared(rows, workload)
    seen: set[int] = set()
    for row, shared in zip(rows, rows.kept("shared").tolist(), strict=True):  # type: ignore[union-attr]
        known = next((n for n, id in enumerate(row.blocks) if id not in seen), len(row.blocks))
        assert shared == min(512 * known, row.input_tokens or 0)
        seen.update(row.blocks)


def order(path: Path, speed: float = 1.0, **more: Any) -> Scenario:
    return Scenario("http://x/v1", Levels((Rate(speed, "trace", speed=speed),)), replayed(path, **more))


def measured(
    path: Path, speed: float = 1.0, *, workers: int = 1, **more: Any
) -> tuple[LevelResult, list[tuple[float, Asked]]]:
    """A trace against a server that answers at once; what it received, and when."""
    seen: list[tuple[float, Asked]] = []

    def reply(asked: Asked) -> Reply:
        seen.append((time.monotonic(), asked))
        return streamed(asked, asked.body["max_tokens"])

    scenario = order(path, speed, **more)
    rows = rows_of(scenario, None)
    how = Settings(workers=workers, timeout_s=20.0, timed=False)
    with server(reply) as url, Bench(target(url, model="m"), scenario.workload, how, rows=rows) as bench:
        bench.prepare()
        before = len(seen)
        result = bench.measure(scenario.loads[0])
        bench.finish()
    return result, sorted(seen[before:], key=lambda one: one[0])


@pytest.mark.slow(shared=True)
@pytest.mark.parametrize(("speed", "workers"), [(1.0, 1), (3.0, 2)])
def test_the_endpoint_receives_a_trace_of_blocks_as_it_was_recorded(tmp_path: Path, speed: float, workers: int) -> None:
    path = mooncake(tmp_path / "a.jsonl")
    result, seen = measured(path, speed, workers=workers)
    rows, trace = list(read_trace(path)), result.trace
    assert result.level.ended_by == "rows"
    assert len(seen) == len(rows) == len(trace)
    # Gaps and order, by its clock; rows of one time may come in any order.
    due_s = np.array([row.at_ms or 0.0 for row in rows]) / 1e3 / speed
    off_s = np.array([at for at, _ in seen]) - due_s
    assert np.median(np.abs(off_s - np.median(off_s))) < 0.05
    scheduled_s = (trace.scheduled_ns - trace.scheduled_ns[0])[np.argsort(trace.index)] / 1e9
    assert scheduled_s == pytest.approx(due_s, abs=1e-6)
    # Lengths: each word is a token to this server.
    received = sorted((prompt_tokens(asked), asked.body["max_tokens"]) for _, asked in seen)
    asked = sorted((row.input_tokens or 0, row.output_tokens or 0) for row in rows)
    assert np.array(received) == pytest.approx(np.array(asked), abs=1)
    # What they share, by their words: as by their blocks.
    texts = {tuple(x.body["messages"][0]["content"].split()[:500]) for _, x in seen}
    assert len(texts) == len({row.blocks[0] for row in rows})
    longer = {tuple(x.body["messages"][0]["content"].split()[:520]) for _, x in seen}
    assert len(longer) == len({row.blocks[:2] for row in rows})
    assert isinstance(result.level.traffic, Traffic)
    assert isinstance(result.level.traffic.cached, Cached)
    firsts = len({row.blocks[0] for row in rows})
    expected = 512 * (len(rows) - firsts) / sum(row.input_tokens or 0 for row in rows)
    assert result.level.traffic.cached.expected == pytest.approx(expected, abs=1e-6)
    assert not {"input_length", "step_change", "beyond_capacity"} & {r.code for r in result.level.verdict.reasons}


AZURE = "TIMESTAMP,ContextTokens,GeneratedTokens\n" + "".join(
    f"2023-11-16 18:15:{40 + n // 10}.{n % 10}000000,{20 + n},{2 + n % 7}\n" for n in range(40)
)
BURST = "Timestamp,Session ID,Elapsed time,Model,Request tokens,Response tokens,Total tokens,Log Type\n" + "".join(
    f"{n / 10},{n % 3},1.0,ChatGPT,{20 + n},{2 + n % 7},{22 + n + n % 7},Conversation log\n" for n in range(40)
)
BAILIAN = "".join(
    json.dumps(
        {
            "chat_id": n,
            "parent_chat_id": -1,
            "timestamp": n / 10,
            "input_length": 20 + n,
            "output_length": 2 + n % 7,
            "type": "text",
            "turn": 1,
            "hash_ids": [1, *range(10 * n + 10, 10 * n + 9 + -(-(20 + n) // 16))],
        }
    )
    + "\n"
    for n in range(40)
)


@pytest.mark.parametrize(
    ("name", "text"), [("azure.csv", AZURE), ("burst.csv", BURST), ("bailian.jsonl", BAILIAN)], ids=str
)
def test_the_endpoint_receives_traces_of_lengths(tmp_path: Path, name: str, text: str) -> None:
    path = tmp_path / name
    path.write_text(text)
    result, seen = measured(path, 4.0)
    assert len(seen) == 40
    received = [(prompt_tokens(asked), asked.body["max_tokens"]) for _, asked in seen]
    assert np.array(sorted(received)) == pytest.approx(np.array(sorted((20 + n, 2 + n % 7) for n in range(40))), abs=2)
    due_s = np.sort(result.trace.scheduled_ns - result.trace.scheduled_ns.min()) / 1e9
    assert due_s == pytest.approx(np.arange(40) / 40, abs=1e-6)
    load = result.load
    assert isinstance(load, Rate)
    assert (load.speed, load.value) == (4.0, 40.0)


def test_the_endpoint_receives_recorded_requests_at_their_times(tmp_path: Path) -> None:
    body = {"model": "old", "messages": [{"role": "user", "content": "Hi"}], "temperature": 0.2}
    values = [
        {"timestamp": n / 20, "body": body | {"user": f"u{n}"}, "completion_tokens": 3 + n % 4} for n in range(40)
    ]
    result, seen = measured(written(tmp_path / "a.jsonl", values))
    asked = {x.body["user"]: (x.body["model"], x.body["temperature"], x.body["max_tokens"]) for _, x in seen}
    assert asked == {f"u{n}": ("m", 0.2, 3 + n % 4) for n in range(40)}
    assert [x.body["user"] for _, x in seen] == [f"u{n}" for n in range(40)]
    assert result.trace.index.tolist() == list(range(40))


def test_every_speed_sends_other_prompts(tmp_path: Path) -> None:
    """What one level left in a cache must not serve the next."""
    path = mooncake(tmp_path / "a.jsonl", 20)
    texts = [{blocks.text((1, 2), 512, 1000)[:40]} for blocks in (Blocks(LINE, 3, 0), Blocks(LINE, 3, 1))]
    assert not texts[0] & texts[1]
    rows = rows_of(order(path), None)
    assert load_of(Rate(2.0, "trace", speed=2.0), rows, replayed(path)) != Rate(2.0, "trace", speed=2.0)


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ([{"timestamp": 5, "input_length": 9, "output_length": 3}] * 4, "its rows have one time"),
        (
            [{"timestamp": t, "input_length": 9, "output_length": 3} for t in (5, 9, 3)],
            "row 3: its time is .* before that of a row above",
        ),
        (
            [{"timestamp": n, "input_length": 900, "output_length": 3, "hash_ids": [1, 2, 3]} for n in (1, 2)],
            "row 1: 3 hash_ids do not cover 900 tokens in blocks of 512",
        ),
        (
            [{"prompt": "a", "timestamp": 93}, {"prompt": "b", "timestamp": 95}],
            "row 1: .* no time that can be understood",
        ),
        ([{"prompt": "a"}], "row 1: it has no time that can be understood, which a trace needs"),
    ],
)
def test_traces_that_cannot_be_sent_are_refused(tmp_path: Path, values: Any, said: str) -> None:
    path = written(tmp_path / "a.jsonl", values)
    with pytest.raises(BadInput, match=said):
        rows_of(order(path), None)


def lengths(path: Path, *tokens: int) -> Path:
    return written(path, [{"timestamp": 100 * n, "input_length": x, "output_length": 4} for n, x in enumerate(tokens)])


@pytest.mark.slow(shared=True)
def test_rows_longer_than_the_models_context_are_counted_before_anything_is_sent(tmp_path: Path) -> None:
    """An engine for 256 tokens tells so in its list of models; what it then refuses was told in one line."""
    path, out = lengths(tmp_path / "a.jsonl", 40, 300, 40, 400, 40, 40), tmp_path / "runs"
    with serving("demo", kv_blocks=16) as served:
        with pytest.warns(UserWarning, match="longer") as said:
            run = face.run(served.url, trace=path, out=out, workers=1)
        (line,) = [str(x.message) for x in said if "longer" in str(x.message)]
        assert line.startswith(
            "2 of 6 rows, row 2 first, are longer than the 256 tokens that the model takes, prompt and answer together "
            "(the longest has 404): it will refuse them, and they count as failed"
        )
        assert (run.levels[0].requests.completed, run.levels[0].errors) == (4, {"http_400": 2})
        assert line in run.notices
        with pytest.raises(BadInput, match=r"3 of 3 rows, row 1 first, .*: it would refuse every one"):
            face.run(served.url, trace=lengths(path, 300, 400, 500), out=out, workers=1)
        assert len(list(out.iterdir())) == 1  # of the refused one nothing is left
        assert not face.run(served.url, trace=lengths(path, 40, 252), out=out, workers=1).notices


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["run", "--trace", "a.jsonl", "--concurrency", "4"], "--trace needs no other load"),
        (["run", "--trace", "a.jsonl", "--speed", "1,2"], "run plays a trace at one speed: sweep takes several"),
        (["run", "--trace", "a.jsonl", "--speed", "0"], "--speed 0.0: must be a number above 0"),
        (["run", "--trace", "a.jsonl", "--data", "a.jsonl"], "--data and --trace are two ways"),
        (["run", "--trace", "a.jsonl", "--precision", "5%"], "--precision ends a level early"),
        (["run", "--speed", "2", "--rate", "3"], "--speed is of a file: give --trace FILE"),
        (["run", "--trace", "a.jsonl", "--once"], "--once is of a file: give --data FILE"),
        (["run", "--trace", "b.jsonl"], "b.jsonl: there is no such file"),
        (["find", "--trace", "a.jsonl", "--rate", "--budget", "ttft p95 < 1s"], "leave --rate out"),
        (["find", "--trace", "a.jsonl", "--speed", "3", "--budget", "ttft p95 < 1s"], "--speed of a --trace itself"),
    ],
)
def test_words_that_make_no_sense_with_a_trace_are_refused(tmp_path: Path, words: list[str], said: str) -> None:
    mooncake(tmp_path / "a.jsonl", 5)
    done = inside(words[0], "http://127.0.0.1:9/v1", *words[1:], cwd=tmp_path)
    assert_refused(done, said)
    assert not (tmp_path / "runs").exists()
