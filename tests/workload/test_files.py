"""Files of requests: each shape that users keep them in is read as it was written, and a damaged one refused by row."""

from __future__ import annotations

import csv
import gzip
import json
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from pacemark.errors import BadInput
from pacemark.workload.files import look, read, read_trace
from pacemark.workload.keys import OUTPUTS
from pacemark.workload.row import Row, Rows
from support.needed import needed

Made = Callable[..., Path]


@pytest.fixture
def made(tmp_path: Path) -> Made:
    """A file of that name with the text, or the values as JSON lines."""

    def make(name: str, *content: Any) -> Path:
        path = tmp_path / name
        lines = [line if isinstance(line, (str, bytes)) else json.dumps(line) for line in content]
        data = b"\n".join(line.encode() if isinstance(line, str) else line for line in lines) + b"\n"
        path.write_bytes(gzip.compress(data) if name.endswith(".gz") else data)
        return path

    return make


def user(text: str) -> dict[str, Any]:
    return {"role": "user", "content": text}


def model(text: str) -> dict[str, Any]:
    return {"role": "assistant", "content": text}


def same(rows: Rows, truth: list[Row]) -> None:
    """In order, by number, and in another process."""
    assert list(rows) == truth
    assert [rows[k] for k in range(len(rows))] == truth
    assert list(pickle.loads(pickle.dumps(rows))) == truth


@pytest.mark.parametrize(
    "key", ["prompt", "text", "text_input", "question", "instruction", "input", "query", "content"]
)
def test_a_prompt_is_found_under_the_names_that_peers_take(made: Made, key: str) -> None:
    rows = read(made("a.jsonl", {key: "Sum 2 and 5.", "output_tokens": 12}, "", {key: "Größe?", "output_tokens": 3}))
    same(rows, [Row(1, prompt="Sum 2 and 5.", output_tokens=12), Row(3, prompt="Größe?", output_tokens=3)])
    assert rows.found.format == "JSONL"
    assert rows.found.keys == {"prompt": key, "output_tokens": "output_tokens"}
    assert [(x.reason, x.rows, x.first) for x in rows.found.left_out] == [("a blank line", 1, 2)]


@pytest.mark.parametrize("key", OUTPUTS)
def test_a_length_is_found_under_the_names_that_peers_take(made: Made, key: str) -> None:
    assert read(made("a.jsonl", {"prompt": "Hi", key: 9, "input_tokens": 2}))[0] == Row(
        1, prompt="Hi", input_tokens=2, output_tokens=9
    )


def test_the_prompt_may_stand_under_any_key(made: Made) -> None:
    path = made("a.jsonl", {"frage": "Wie?", "prompt": "no"})
    assert read(path, key="frage")[0].prompt == "Wie?"
    assert read(path).found.said == []
    assert "'text'" in read(made("b.jsonl", {"prompt": "Hi", "text": "Ho"})).found.said[0]


def test_messages_are_one_request_and_their_answer_is_apart(made: Made) -> None:
    asked = [{"role": "system", "content": "Be brief."}, user("Hi")]
    path = made(
        "a.jsonl",
        {"messages": asked, "max_tokens": 8, "timestamp": 1.25, "session_id": "s7"},
        {"messages": [*asked, model("Ho"), user("More?")], "session_id": 4},
        {"messages": [user("x"), model("y")], "session_id": "s7"},
    )
    rows = read(path)
    same(
        rows,
        [
            Row(1, messages=asked, output_tokens=8, session="s7"),
            Row(2, messages=[*asked, model("Ho"), user("More?")], session="4"),
            Row(3, messages=[user("x")], session="s7", turn=1, answer="y"),
        ],
    )
    assert "--unit" in rows.found.said[0]


def test_a_system_prompt_beside_the_prompt_is_a_message(made: Made) -> None:
    row = read(made("a.jsonl", {"system_prompt": "Be brief.", "prompt": "Hi"}))[0]
    assert row.messages == [{"role": "system", "content": "Be brief."}, user("Hi")]


def test_a_row_that_is_a_request_is_kept_whole(made: Made) -> None:
    body = {"messages": [user("Hi")], "tools": [{"type": "function"}], "max_tokens": 5}
    assert read(made("a.jsonl", body | {"session_id": "s"}))[0] == Row(1, body=body, output_tokens=5, session="s")


SHARED = [
    {"id": "c1", "conversations": [
        {"from": "human", "value": "Name two rivers."}, {"from": "gpt", "value": "Elbe, Oder."},
        {"from": "human", "value": "Longer one?"}]},
    {"id": "c2", "conversations": []},
    {"id": "c3", "conversations": ['{"from": "gpt", "value": "Hello."}', '{"from": "human", "value": "Hi"}',
                                   '{"from": "gpt", "value": "Yes?"}']},
    {"id": "c4", "conversations": [{"from": "system", "value": "Be kind."}, {"from": "gpt", "value": "I am."}]},
]  # fmt: skip
SHARED_ROWS = [
    Row(1, messages=[user("Name two rivers.")], session="c1", answer="Elbe, Oder."),
    Row(1, messages=[user("Name two rivers."), model("Elbe, Oder."), user("Longer one?")], session="c1", turn=1),
    Row(3, messages=[model("Hello."), user("Hi")], session="c3", answer="Yes?"),
]


@pytest.mark.trap("vLLM measures the first turn of ShareGPT alone")
@pytest.mark.parametrize("indent", [None, 2])
def test_sharegpt_gives_every_turn(made: Made, indent: int | None) -> None:
    rows = read(made("a.json", json.dumps(SHARED, indent=indent)))
    same(rows, SHARED_ROWS)
    assert rows.found.format == "JSON"
    left = [(x.reason, x.rows, x.first) for x in rows.found.left_out]
    assert left == [("a conversation in which nothing is asked", 2, 2)]


def test_conversations_stand_in_lines_too(made: Made) -> None:
    same(read(made("a.jsonl", *SHARED)), SHARED_ROWS)
    asked = [user("a"), model("b"), user("c"), user("d")]
    assert [row.messages for row in read(made("b.jsonl", asked, [user("z")]))] == [
        *([user("a")], asked[:3], asked, [user("z")])
    ]
    swift = {"conversation": [{"human": "a", "assistant": "b"}, {"human": "c", "assistant": "d"}]}
    assert [(row.turn, row.answer) for row in read(made("c.jsonl", swift))] == [(0, "b"), (1, "d")]
    assert [row.turn for row in read(made("d.jsonl", {"turns": ["a", {"text": "b"}], "session_id": "s"}))] == [0, 1]


BATCH = {"custom_id": "q-17", "method": "POST", "url": "/v1/chat/completions",
         "body": {"model": "m", "messages": [user("Hi")], "max_tokens": 9}}  # fmt: skip


def test_an_openai_batch_gives_its_bodies(made: Made) -> None:
    same(read(made("a.jsonl", BATCH)), [Row(1, body=BATCH["body"], output_tokens=9)])  # type: ignore[arg-type]


def test_tables_are_read_by_the_names_of_their_columns(made: Made, tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    with path.open("w", newline="", encoding="utf-8-sig") as file:
        csv.writer(file).writerows([["n", "prompt", "output_tokens"], [1, 'two\nlines, "quoted"', 5], [2, "é", ""]])
    same(read(path), [Row(1, prompt='two\nlines, "quoted"', output_tokens=5), Row(2, prompt="é")])
    same(read(made("e.csv", "ID,Prompt,Output_Tokens", "7,Hi,5")), [Row(1, prompt="Hi", output_tokens=5)])
    same(read(made("b.csv", "prompt;n", "a,b;1")), [Row(1, prompt="a,b")])
    same(read(made("c.tsv", "prompt\tn", "a,b\t1")), [Row(1, prompt="a,b")])
    same(
        read(made("d.csv", "messages", '"[{""role"": ""user"", ""content"": ""Hi""}]"')),
        [Row(1, messages=[user("Hi")])],
    )


def test_text_gives_a_prompt_for_each_line(made: Made) -> None:
    rows = read(made("a.txt", "Sum 2 and 5.", "", "  {kept as it is}\r"))
    same(rows, [Row(1, prompt="Sum 2 and 5."), Row(3, prompt="  {kept as it is}")])
    assert rows.found.format == "text"
    assert read(made("b", "no suffix"))[0].prompt == "no suffix"
    assert read(made("c.json", '["a", "b"]'))[1].prompt == "b"


def test_packed_files_are_unpacked(made: Made, tmp_path: Path) -> None:
    same(read(made("a.jsonl.gz", {"prompt": "Hi"}, {"prompt": "Ho"})), [Row(1, prompt="Hi"), Row(2, prompt="Ho")])
    path = tmp_path / "a.jsonl.zst"
    path.write_bytes(needed("zstandard").compress(b'{"prompt": "Hi"}\n'))
    same(read(path), [Row(1, prompt="Hi")])
    path.write_bytes(path.read_bytes()[:-3])
    with pytest.raises(BadInput, match=r"cut off|no JSON"):
        read(path)
    whole = made("b.txt.gz", *(f"prompt {k} {hash(str(k))}" for k in range(3000)))
    whole.write_bytes(whole.read_bytes()[:9000])
    with pytest.raises(BadInput, match=r"row \d+: the packed file is damaged or cut off"):
        read(whole)


TABLE = {"prompt": ["Hi", "Ho"], "output_tokens": [3, None]}
TABLE_ROWS = [Row(1, prompt="Hi", output_tokens=3), Row(2, prompt="Ho")]


def test_parquet_and_arrow_are_read(tmp_path: Path) -> None:
    arrow, parquet = needed("pyarrow"), needed("pyarrow.parquet")
    table = arrow.table(TABLE)
    parquet.write_table(table, tmp_path / "a.parquet")
    same(read(tmp_path / "a.parquet"), TABLE_ROWS)
    for suffix, writer in (("arrow", arrow.ipc.new_file), ("arrows", arrow.ipc.new_stream)):
        with writer(tmp_path / f"a.{suffix}", table.schema) as file:
            file.write_table(table)
        same(read(tmp_path / f"a.{suffix}"), TABLE_ROWS)
    folder = tmp_path / "spark"
    folder.mkdir()
    (folder / "_SUCCESS").touch()
    for k in range(2):
        parquet.write_table(table.slice(k, 1), folder / f"part-0000{k}.snappy.parquet")
    same(read(folder), TABLE_ROWS)
    damaged = tmp_path / "a.parquet"
    damaged.write_bytes(damaged.read_bytes()[:-9])
    with pytest.raises(BadInput, match="cannot be read"):
        read(damaged)


class SparkRow(dict[str, Any]):
    def asDict(self, recursive: bool) -> dict[str, Any]:  # noqa: N802
        return dict(self)


class SparkFrame:
    """As much of a Spark data frame as is used."""

    def toLocalIterator(self) -> Any:  # noqa: N802
        yield from (SparkRow(prompt=p, output_tokens=n) for p, n in zip(*TABLE.values(), strict=True))


def test_data_frames_are_read() -> None:
    pandas, arrow = needed("pandas"), needed("pyarrow")
    for frame in (
        SparkFrame(),
        pandas.DataFrame(TABLE),
        arrow.table(TABLE),
        [{"prompt": "Hi", "output_tokens": 3.0}, {"prompt": "Ho"}],
    ):
        same(read(frame), TABLE_ROWS)
    with pytest.raises(BadInput, match="rows cannot be read from a int"):
        read(17)


def test_times_of_requests_are_those_of_a_trace(made: Made) -> None:
    path = made("a.csv", "datetime,prompt", "2026-11-27T10:00:01.250Z,Hi", "2026-11-27 10:00:01.5,Ho")
    assert [row.at_ms for row in read_trace(path)] == [0.0, 250.0]
    stamped = made("b.jsonl", {"prompt": "Hi", "timestamp": 5}, {"prompt": "Ho", "timestamp": 7.5})
    assert [row.at_ms for row in read_trace(stamped, unit="s")] == [0.0, 2500.0]
    with pytest.raises(BadInput, match="row 1: it has no time that can be understood"):
        read_trace(stamped)
    assert "whose unit cannot be known; --unit says it" in read(stamped).found.said[0]
    said = read(made("c.csv", "datetime,prompt", "01/02/2026 10:00:01,Hi")).found.said[0]
    assert "neither a number nor a date" in said


BAD = {
    "empty.jsonl": ("", "the file is empty|has no row"),
    "a.jsonl": ("Hello", "is named .jsonl and does not begin as JSON does"),
    "b.jsonl": ('{"prompt": "x"}\n{"prompt": "y"', "row 2: this is no JSON"),
    "c.jsonl": ('{"prompt": "x"}\n{"promt": "y"}', "row 2: it has no 'prompt'"),
    "d.jsonl": ('{"prompt": "x"}\n\n{"prompt": " "}', "row 3: 'prompt' is empty"),
    "e.jsonl": ('{"prompt": "x"}\n[1]', "row 2: it is no JSON object"),
    "f.jsonl": ('{"promt": "x", "n": 1}', "row 1: none of its keys is known for a prompt: it has promt, n"),
    "g.jsonl": ('{"messages": []}', "row 1: 'messages' is empty"),
    "h.jsonl": ('{"messages": [{"content": "x"}]}', "row 1: 'messages' holds a message without a role"),
    "i.jsonl": ('{"messages": [{"role": "assistant", "content": "x"}]}', "row 1: nothing is asked"),
    "j.jsonl": ('{"prompt": "x", "output_tokens": -1}', "row 1: output_tokens is no length in tokens"),
    "k.jsonl": ('{"custom_id": "a", "body": {"model": "m"}}', "row 1: the body asks nothing"),
    "l.jsonl": ('{"prompt": "x"}\n{"prompt": 3}', "row 2: 'prompt' is no text"),
    "l2.jsonl": ('{"prompt": ["x", "y"]}', "row 1: 'prompt' is a list, where a row has one prompt"),
    "m.jsonl": ("{" * 3, "row 1: this is no JSON"),
    "n.json": ('[{"prompt": "x"}, {"prompt": "y"', "row 2: this is no JSON"),
    "o.json": ('[{"prompt": "x"}', "the array has no end"),
    "p.json": ('[{"prompt": "x"}] 7', "there is more after the array's end"),
    "q.json": ('[{"prompt": "x"} {"prompt": "y"}]', "the array does not go on"),
    "r.json": ("[]", "it has no row"),
    "s.csv": ('{"prompt": "x"}', "is named .csv and holds JSON"),
    "t.csv": ("prompt,n\nx,1\ny", "row 2: it has 1 fields where the first line names 2"),
    "t2.csv": ("prompt,n,prompt\nx,1,y", "two of its columns are named 'prompt'"),
    "u.csv": ('prompt\n"x\ny', "row 1: this is no CSV"),
    "v.csv": ("n\n1", "row 1: none of its keys is known for a prompt"),
    "w.gz": ("plain", "named .gz and is not packed so"),
    "x.parquet": ("plain", "named .parquet and is no Parquet file"),
    "y.txt": ("a\0b", "it is binary"),
    "z.jsonl": ("version https://git-lfs.github.com/spec/v1\n", "pointer of Git LFS"),
}  # fmt: skip


@pytest.mark.parametrize("name", BAD)
def test_what_is_not_what_it_says_is_refused_in_a_line(made: Made, name: str) -> None:
    content, message = BAD[name]
    path = made(name if not name.endswith(".gz") else "w", content).rename(made("x", "").with_name(name))
    if not content:
        path.write_bytes(b"")
    with pytest.raises(BadInput, match=message) as refused:
        read(path)
    assert str(refused.value).startswith(f"{path}: ")
    assert "\n" not in str(refused.value)


def test_other_encodings_and_no_files_are_refused(made: Made, tmp_path: Path) -> None:
    for content, message in ((b'{"prompt": "\xff"}', "row 1: this is no JSON"), ("x".encode("utf-16"), "UTF-16")):
        path = tmp_path / "a.jsonl"
        path.write_bytes(content)
        with pytest.raises(BadInput, match=message):
            read(path)
    (tmp_path / "a.txt").write_bytes(b"fine\n\xff\n")
    with pytest.raises(BadInput, match="row 2: it is no UTF-8"):
        read(tmp_path / "a.txt")
    with pytest.raises(BadInput, match="no such file"):
        read(tmp_path / "none.jsonl")
    folder = tmp_path / "folder"
    folder.mkdir()
    with pytest.raises(BadInput, match=r"the folder holds no file$"):
        read(folder)
    (folder / "part-0.json").touch()  # as Spark writes a partition without rows
    with pytest.raises(BadInput, match="the folder holds no file with anything in it"):
        read(folder)
    (folder / "part-1.json").write_text('{"prompt": "Hi"}\n')
    same(read(folder), [Row(1, prompt="Hi")])
    (folder / "part-2.json").write_text("\n\n")
    with pytest.raises(BadInput, match=r"part-2\.json in it: the file is empty"):
        read(folder)
    with pytest.raises(BadInput, match="--unit 'h' is not known: ns, us, ms or s"):
        look(made("b.txt", "x"), unit="h")


def test_a_refusal_quotes_nothing_of_a_prompt(made: Made) -> None:
    secret = "the secret of the house " * 20
    for name, line in (
        ("a.csv", secret),
        ("a.jsonl", json.dumps({"prompt": [secret]})),
        ("b.jsonl", json.dumps({secret: 1})),
    ):
        with pytest.raises(BadInput) as refused:
            read(made(name, line, line))
        assert "secret of the house the" not in str(refused.value)


def test_a_key_that_the_first_row_lacks_counts_from_the_first_row_that_has_it(made: Made) -> None:
    late = {"prompt": "b", "system": "Be brief.", "max_tokens": 5, "session_id": "s", "timestamp": 1764237601}
    for first in ({"prompt": "a"}, {"prompt": "a", "max_tokens": None, "session_id": None, "timestamp": None}):
        rows = read(made("a.jsonl", first, late, late | {"timestamp": 1764237602}))
        asked: dict[str, Any] = {
            "messages": [{"role": "system", "content": "Be brief."}, user("b")],
            "output_tokens": 5,
            "session": "s",
        }
        same(rows, [Row(1, prompt="a"), Row(2, at_ms=0.0, **asked), Row(3, at_ms=1000.0, turn=1, **asked)])
        keys = {"output_tokens": "max_tokens", "session": "session_id", "at_ms": "timestamp", "system": "system"}
        assert (rows.found.keys, rows.found.unit, rows.found.said) == ({"prompt": "prompt"} | keys, "s", [])


def test_a_row_that_brings_tools_keeps_them_wherever_it_stands(made: Made) -> None:
    tools = {"messages": [user("b")], "tools": [{"type": "function"}]}
    rows = read(made("a.jsonl", {"messages": [user("a")]}, tools))
    same(rows, [Row(1, messages=[user("a")]), Row(2, body=tools)])


def test_conversations_of_one_id_are_not_taken_for_one(made: Made) -> None:
    talks = [{"id": "x", "conversations": [{"from": "human", "value": text}]} for text in "ab"]
    rows = read(made("a.json", json.dumps(talks)))
    assert len(set(rows.sessions().tolist())) == 2


@pytest.mark.parametrize("prompt", [{"prompt": "a"}, {"input_tokens": 3, "output_tokens": 3}])
def test_a_time_whose_name_and_size_contradict_is_not_guessed(made: Made, prompt: dict[str, Any]) -> None:
    path = made("a.jsonl", *(prompt | {"timestamp_ms": 1764237601 + k} for k in range(2)))
    with pytest.raises(BadInput, match="row 1"):
        read_trace(path)
    assert [row.at_ms for row in read_trace(path, unit="s")] == [0.0, 1000.0]
    assert [row.at_ms for row in read_trace(path, unit="ms")] == [0.0, 1.0]
    if "prompt" in prompt:
        assert read(path).found.said == [
            "'timestamp_ms' was left aside: its name says ms, and as a time of this century it reads as s; "
            "--unit says it"
        ]
