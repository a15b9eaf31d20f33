"""Peak memory, and time, of reading a large file of traffic: as JSON lines, packed, as ShareGPT and as a trace.

    python benchmarks/files_memory.py [--gigabytes 1] [--kinds jsonl,gz,sharegpt,parquet,mooncake] [--folder DIR]

Each kind is made in DIR, read in a process of its own as `pacemark data` reads it, then a thousand rows are read again
by number. "peak" is the most resident memory of that process less what it had before it read; pages of the file that
the kernel keeps are not of it. How many rows there are is held against the truth. Times are of the processor.
"""

from __future__ import annotations

import argparse
import gzip
import json
import random
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from pacemark.answers.datafile import described
from pacemark.workload.files import look

WORDS = "the of and to in is that for it as was with be by on not he his but at are this have from".split()


def main() -> None:
    """Make each file, read it, and print a line."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--gigabytes", type=float, default=1.0)
    parser.add_argument("--kinds", default="jsonl,gz,sharegpt,parquet,mooncake")
    parser.add_argument("--folder", type=Path)
    parser.add_argument("--read", type=Path, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.read:
        print(json.dumps(measured(given.read)))
        return
    print(f"{'kind':10} {'file MB':>8} {'rows':>10} {'read s':>7} {'tell s':>7} {'row us':>7} {'peak MB':>8}")
    for kind in given.kinds.split(","):
        with tempfile.TemporaryDirectory(dir=given.folder) as folder:
            path, rows = made(kind, Path(folder), int(given.gigabytes * 1e9))
            done = subprocess.run(
                [sys.executable, __file__, "--read", path], capture_output=True, text=True, check=True
            )
            told = json.loads(done.stdout)
            assert told["rows"] == rows, (told, rows)
            print(
                f"{kind:10} {path.stat().st_size / 1e6:8,.0f} {rows:10,} {told['read_s']:7.1f} {told['tell_s']:7.1f} "
                f"{told['row_us']:7.1f} {told['peak_mb']:8.0f}",
                flush=True,
            )


def measured(path: Path) -> dict[str, float]:
    """What reading `path` takes of time and memory."""
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    start = time.process_time_ns()
    rows = look(path)
    read = time.process_time_ns()
    described(rows)
    told = time.process_time_ns()
    draw = random.Random(1)
    for _ in range(1000):
        assert rows[draw.randrange(len(rows))].number > 0
    again = time.process_time_ns()
    after = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return {
        "rows": len(rows),
        "read_s": (read - start) / 1e9,
        "tell_s": (told - read) / 1e9,
        "row_us": (again - told) / 1e6,
        "peak_mb": (after - before) / 1024,
    }


def made(kind: str, folder: Path, size: int) -> tuple[Path, int]:
    """A file of that kind with `size` bytes before packing, and how many rows it has."""
    path = folder / {"gz": "a.jsonl.gz", "sharegpt": "a.json", "parquet": "a.parquet"}.get(kind, "a.jsonl")
    if kind == "parquet":
        return path, parquet(path, size)
    rows, written = 0, 0
    with gzip.open(path, "wb", compresslevel=1) if kind == "gz" else path.open("wb") as file:
        file.write(b"[" if kind == "sharegpt" else b"")
        for number, (line, count) in enumerate(lines(kind)):
            rows += count
            written += file.write((b"," if kind == "sharegpt" and number else b"") + line + b"\n")
            if written > size:
                break
        file.write(b"]" if kind == "sharegpt" else b"")
    return path, rows


def lines(kind: str) -> Iterator[tuple[bytes, int]]:
    """The file's values for ever, and how many rows each makes."""
    draw = random.Random(7)
    texts = [" ".join(draw.choices(WORDS, k=draw.randrange(20, 900))) for _ in range(300)]
    number = 0
    while True:
        number += 1
        if kind == "mooncake":
            ids = [0, *range(number * 20, number * 20 + draw.randrange(20))]
            row = {"timestamp": number * 10, "input_length": 512 * len(ids), "output_length": 9, "hash_ids": ids}
            yield json.dumps(row).encode(), 1
        elif kind == "sharegpt":
            turns = draw.randrange(1, 5)
            said = [{"from": who, "value": draw.choice(texts)} for _ in range(turns) for who in ("human", "gpt")]
            yield json.dumps({"id": f"c{number}", "conversations": said}).encode(), turns
        else:
            row = {"prompt": f"{number} {draw.choice(texts)}", "output_tokens": draw.randrange(1, 900)}
            yield json.dumps(row | {"session_id": f"s{number // 4}"}).encode(), 1


def parquet(path: Path, size: int) -> int:
    """One file of many row groups."""
    import pyarrow
    import pyarrow.parquet

    rows, written, batch = 0, 0, []
    schema = pyarrow.schema([("prompt", pyarrow.string()), ("output_tokens", pyarrow.int64())])
    with pyarrow.parquet.ParquetWriter(path, schema, compression="none", use_dictionary=False) as file:
        for line, _ in lines("jsonl"):
            batch.append({key: value for key, value in json.loads(line).items() if key != "session_id"})
            written += len(line)
            if len(batch) == 10_000 or written > size:
                file.write_table(pyarrow.Table.from_pylist(batch, schema))
                rows, batch = rows + len(batch), []
            if written > size:
                return rows
    return rows


if __name__ == "__main__":
    main()
