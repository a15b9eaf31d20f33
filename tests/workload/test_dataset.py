"""Rows of a file as requests: in what order, and what an endpoint receives of them."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from pacemark import api
from pacemark.dialects.bodies import Bodies
from pacemark.endpoint.target import target
from pacemark.errors import BadInput
from pacemark.figures.level import LevelResult
from pacemark.pace import Concurrency, Load, Rate
from pacemark.runs import record
from pacemark.runs.bench import Bench
from pacemark.runs.recording import in_one_line, rows_of
from pacemark.scenario import Levels, Recording, Scenario, Settings, Workload
from pacemark.workload.dataset import Dataset
from pacemark.workload.files import read
from pacemark.workload.row import Rows
from pacemark.workload.source import Heard
from support.cli_tools import Asked, Reply, assert_refused, server, streamed
from support.inside import inside
from support.needed import needed

TEMPLATE = b'{"model":"m","messages":[{"role":"user","content":"@prompt@"}],"stream":true,"max_tokens":"@tokens@"}'


def written(path: Path, *values: Any) -> Path:
    path.write_text("".join(json.dumps(value) + "\n" for value in values))
    return path


def prompts(path: Path, count: int) -> Rows:
    return read(written(path, *({"prompt": f"prompt {n}", "max_tokens": 5 + n} for n in range(count))))


def texts(rows: Rows, *, seed: int = 3, level: int = 0, count: int, workers: int = 1, once: bool = False) -> list[str]:
    """What so many requests ask, the workers in turn."""
    workload = Workload(seed=seed, history="recorded", recording=Recording(once=once))
    sources = [Dataset(workload, rows, (n, workers), Bodies(TEMPLATE)) for n in range(workers)]
    asks = [sources[index % workers].ask(level, index) for index in range(count)]
    return [json.loads(ask.body)["messages"][-1]["content"] for ask in asks if ask is not None]


def test_rows_come_in_an_order_of_the_seed_and_go_round(tmp_path: Path) -> None:
    rows = prompts(tmp_path / "a.jsonl", 50)
    first = texts(rows, count=100)
    assert sorted(first[:50]) == sorted(f"prompt {n}" for n in range(50))
    assert first[:50] != [f"prompt {n}" for n in range(50)]
    assert first[50:] == first[:50]
    assert texts(rows, count=100, workers=3) == first
    assert texts(rows, count=100) == first
    assert texts(rows, count=100, seed=4) != first
    assert texts(rows, count=100, once=True, workers=2) == first[:50]


def test_levels_send_the_rows_of_others_as_late_as_can_be(tmp_path: Path) -> None:
    rows = prompts(tmp_path / "a.jsonl", 700)
    sent = [set(texts(rows, level=level, count=80)) for level in range(5)]
    assert len(set.union(*sent)) == 400


def conversation(name: str, turns: int) -> dict[str, Any]:
    said = [{"from": who, "value": f"{name} {who} {n}"} for n in range(turns) for who in ("human", "gpt")]
    return {"id": name, "conversations": said}


def test_a_part_of_a_file_is_whole_sessions(tmp_path: Path) -> None:
    rows = read(written(tmp_path / "a.json", *(conversation(f"c{n}", 1 + n % 4) for n in range(200))))
    workload = Workload(seed=3, history="recorded", recording=Recording(once=True, sample=0.25))
    source, seen = Dataset(workload, rows, (0, 1), Bodies(TEMPLATE)), Counter[str]()
    for index in range(len(rows)):
        ask = source.ask(0, index)
        if ask is None:
            break
        seen[json.loads(ask.body)["messages"][0]["content"].split()[0]] += 1
        source.heard(0, index, Heard(""))
    assert len(seen) == 50
    assert source.empty
    assert all(turns == 1 + int(name[1:]) % 4 for name, turns in seen.items())


def measured(
    rows: Rows, load: Load, workload: Workload, *, workers: int = 1, **settings: Any
) -> tuple[LevelResult, list[Asked]]:
    """A level of a file against a server that answers at once, and what it received."""
    seen: list[Asked] = []

    def reply(asked: Asked) -> Reply:
        seen.append(asked)
        return streamed(asked, asked.body["max_tokens"])

    with (
        server(reply) as url,
        Bench(
            target(url, model="m"), workload, Settings(workers=workers, timeout_s=20.0, **settings), rows=rows
        ) as bench,
    ):
        bench.prepare()
        before = len(seen)
        result = bench.measure(load)
        bench.finish()
    return result, seen[before:]


@pytest.mark.parametrize("load", [Concurrency(3), pytest.param(Rate(200.0), marks=pytest.mark.slow)], ids=str)
def test_the_endpoint_receives_every_row_once(tmp_path: Path, load: Load) -> None:
    rows = prompts(tmp_path / "a.jsonl", 300)
    workload = Workload(seed=3, history="recorded", recording=Recording(once=True))
    result, seen = measured(rows, load, workload, workers=2, timed=False)
    asked = {x.body["messages"][0]["content"]: x.body["max_tokens"] for x in seen}
    assert sorted(asked) == sorted(f"prompt {n}" for n in range(300))
    assert len(seen) == 300
    lengths = {text: 5 + int(text.split()[1]) for text in asked}
    cut = {text for text, tokens in asked.items() if tokens != lengths[text]}
    assert len(cut) <= (3 if isinstance(load, Concurrency) else 0)  # the first answers of streams
    assert result.level.ended_by == "rows"
    assert sorted(result.trace.origin.tolist()) == list(range(1, 301))
    assert not {"rows_again", "input_length", "cached_prompts"} & {r.code for r in result.level.verdict.reasons}


@pytest.mark.slow(shared=True)
def test_the_verdict_says_that_rows_went_round(tmp_path: Path) -> None:
    rows = prompts(tmp_path / "a.jsonl", 10)
    result, _ = measured(
        rows, Concurrency(2), Workload(seed=3, history="recorded", recording=Recording()), duration_s=1.0
    )
    (reason,) = [r for r in result.level.verdict.reasons if r.code == "rows_again"]
    assert reason.message.startswith("100% of the requests in the window are of rows that had been sent before")
    assert "a cache may flatter" in reason.message


@pytest.mark.parametrize("history", ["recorded", "served"])
def test_turns_follow_one_another_with_the_answers_that_were_ordered(tmp_path: Path, history: Any) -> None:
    rows = read(written(tmp_path / "a.json", *(conversation(f"c{n}", 3) for n in range(150))))
    workload = Workload(output_tokens=4, seed=3, history=history, recording=Recording(once=True))
    result, seen = measured(rows, Concurrency(3), workload, timed=False)
    sessions: dict[str, list[list[dict[str, str]]]] = {}
    for asked in seen:
        messages = asked.body["messages"]
        sessions.setdefault(messages[0]["content"].split()[0], []).append(messages)
    assert len(sessions) == 150
    for name, turns in sessions.items():
        assert [len(messages) for messages in turns] == [1, 3, 5]
        assert [m["content"] for m in turns[2][::2]] == [f"{name} human {n}" for n in range(3)]
        answers = [m["content"] for m in turns[2][1::2]]
        if history == "recorded":
            assert answers == [f"{name} gpt {n}" for n in range(2)]
        else:
            assert all(text.startswith("word0 word1") for text in answers)
    assert Counter(result.trace.turn.tolist()) == {0: 150, 1: 150, 2: 150}


def test_whole_requests_keep_what_they_have(tmp_path: Path) -> None:
    body = {"model": "gpt-9", "messages": [{"role": "user", "content": "Hi"}], "max_tokens": 9, "temperature": 0.3}
    rows = read(written(tmp_path / "a.jsonl", *({"custom_id": f"q{n}", "body": body} for n in range(9))))
    _, seen = measured(rows, Rate(50.0), Workload(seed=3, recording=Recording()), duration_s=0.5)
    assert {x.body["model"] for x in seen} == {"m"}
    assert {x.body["temperature"] for x in seen} == {0.3}
    assert {x.body["max_tokens"] for x in seen} == {9}


def order(path: Path, api: str = "chat", load: Load = Rate(5.0), **more: Any) -> Scenario:  # noqa: B008
    plain = Scenario(
        "http://127.0.0.1:9/v1", Levels((load,)), Workload(history="recorded", recording=Recording(str(path), **more))
    )
    return Scenario(plain.target, plain.goal, plain.workload, plain.settings, type(plain.access)(api=api))


def test_what_was_taken_is_told_in_one_line(tmp_path: Path) -> None:
    path = written(tmp_path / "a.jsonl", {"question": "secret", "max_tokens": 3})
    path.write_text(path.read_text() + "\n")
    rows = rows_of(order(path), None)
    assert rows is not None
    told = in_one_line(Recording(str(path)), rows.found)
    assert told == (
        f"{path}: 1 rows of JSONL; prompt from 'question', output_tokens from 'max_tokens'; "
        "left out 1, row 2 first: a blank line"
    )


@pytest.mark.parametrize(
    ("rows", "api", "more", "said"),
    [
        ([{"prompt": "a"}, {"text": "b"}], "chat", {}, "row 2: it has no 'prompt'"),
        (
            [{"messages": [{"role": "user", "content": "a"}]}],
            "completions",
            {},
            "row 1: it has messages, which --api comp",
        ),
        ([{"body": {"prompt": "a"}}], "chat", {}, "row 1: its body has no 'messages'"),
        ([{"body": {"prompt": "a", "n": 2}}], "completions", {}, "row 1: n = 2 asks for several answers"),
        ([{"prompt": "a"}], "rerank", {}, "--api rerank ranks documents"),
        ([{"prompt": "a"}] * 5, "chat", {"once": True, "load": Concurrency(4)}, "5 rows run out before 4 streams"),
        ([{"input_length": 5, "output_length": 3, "timestamp": 0}], "chat", {}, "row 1: .* it is a trace, for --trace"),
    ],
)
def test_rows_that_cannot_be_sent_are_refused(tmp_path: Path, rows: Any, api: str, more: Any, said: str) -> None:
    path = written(tmp_path / "a.jsonl", *rows)
    with pytest.raises(BadInput, match=said):
        rows_of(order(path, api, **more), None)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--data", "none.jsonl"], "none.jsonl: there is no such file"),
        (["--once"], "--once is of a file: give --data FILE"),
        (["--data", "a.jsonl", "--turns", "3"], "--turns is of prompts that are made up"),
        (["--data", "a.jsonl", "--input-tokens", "900"], "--input-tokens is of prompts that are made up"),
        (["--data", "a.jsonl", "--history", "served"], "--history served needs rows that hold whole conversations"),
        (["--data", "a.jsonl", "--sample", "2"], "--sample 2: give a share between 0 and 1"),
    ],
)
def test_flags_that_make_no_sense_are_refused_and_nothing_is_sent(tmp_path: Path, words: list[str], said: str) -> None:
    written(tmp_path / "a.jsonl", {"prompt": "a"})
    done = inside("run", "http://127.0.0.1:9/v1", "--concurrency", "1", *words, cwd=tmp_path)
    assert_refused(done, said)
    assert list(tmp_path.iterdir()) == [tmp_path / "a.jsonl"]


@pytest.mark.slow(shared=True)
def test_a_run_records_what_it_took_and_can_be_summed_up_again(tmp_path: Path) -> None:
    path = written(tmp_path / "a.jsonl", *({"prompt": f"canary-{n} prompt", "max_tokens": 6} for n in range(600)))
    flags = ("--once", "--data", path, "--seed", 4, "--model", "m", "--json")
    with server(lambda asked: streamed(asked, asked.body["max_tokens"])) as url:
        done = inside("run", url, "--concurrency", 2, *flags, cwd=tmp_path)
    (folder,) = (tmp_path / "runs").iterdir()
    told = json.loads((folder / "run.json").read_text())
    assert told["file"]["rows"] == 600
    assert told["file"]["keys"] == {"prompt": "prompt", "output_tokens": "max_tokens"}
    assert told["workload"]["recording"]["path"] == str(path)
    assert json.loads(done.stdout)["levels"][0]["ended_by"] == "rows"
    assert "600 rows of JSONL; prompt from 'prompt'" in done.stderr
    again = inside("report", folder, "--json", cwd=tmp_path)
    first, anew = (json.loads(run.stdout)["levels"][0] for run in (done, again))
    for name in ("window_s", "requests", "ttft_ms", "latency_ms", "traffic"):  # a window can be too short for traffic
        assert anew.get(name) == first.get(name)
    assert "canary-" not in done.stdout + done.stderr + again.stderr
    for file in folder.iterdir():
        assert b"canary-" not in file.read_bytes(), file


@pytest.mark.parametrize(
    "words",
    [("--data", "--concurrency", "2"), pytest.param(("--trace",), marks=pytest.mark.slow(shared=True))],
    ids=" ".join,
)
def test_nothing_of_a_users_prompts_is_kept_even_where_a_server_echoes_them(tmp_path: Path, words: Any) -> None:
    values = [{"prompt": f"canary-{n} prompt", "max_tokens": 6, "at_ms": 20 * n} for n in range(60)]
    path = written(tmp_path / "a.jsonl", *values)

    def echoing(asked: Asked) -> Reply:
        text = asked.body["messages"][0]["content"]
        if not text.startswith("canary-"):
            return streamed(asked)
        if asked.number % 2:
            return Reply(400, json.dumps({"error": {"message": f"cannot answer {text!r}"}}).encode())
        said = json.dumps({"choices": [{"delta": {"content": text}}]}).encode()
        return Reply(200, b"data: " + said + b"\n\n" + streamed(asked).body, "text/event-stream")

    flag, *load = words
    with server(echoing) as url:
        done = inside("run", url, *load, flag, path, "--duration", "2", "--model", "m", "--label", "a=b", cwd=tmp_path)
    (folder,) = (tmp_path / "runs").iterdir()
    assert "http_400" in (folder / "summary.json").read_text()
    assert "canary-" not in done.stdout + done.stderr
    for file in folder.iterdir():
        assert b"canary-" not in file.read_bytes(), file


@pytest.mark.slow(shared=True)
def test_the_rows_of_a_data_frame_are_sent(tmp_path: Path) -> None:
    pandas = needed("pandas")
    frame = pandas.DataFrame({"question": [f"question {n}" for n in range(300)], "max_tokens": 4})
    seen: list[str] = []

    def reply(asked: Asked) -> Reply:
        seen.append(asked.body["messages"][0]["content"])
        return streamed(asked, asked.body["max_tokens"])

    with server(reply) as url:
        run = api.run(url, concurrency=2, data=frame, once=True, model="m", out=tmp_path, workers=1)
        replay = {"at_ms": range(0, 900, 3)}
        played = api.run(url, trace=frame.assign(**replay), speed=2, model="m", out=tmp_path, workers=1)
    assert {f"question {n}" for n in range(300)} <= set(seen)
    assert run.summary.run["file"]["rows"] == played.summary.run["file"]["rows"] == 300
    assert played.levels[0].load == Rate(666.7, "trace", 0.0, 2.0)
    with pytest.raises(BadInput, match="rows of a data frame, which are not stored"):
        rows_of(record.read(json.loads((run.path / "run.json").read_text())).scenario, None)
