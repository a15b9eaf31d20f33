"""What a file holds, one record after another: a JSON value, a row of a table, or a line. Never the whole file at once.

What the records mean is not known here. A record that is longer than `LONGEST` ends the reading, so memory is bounded
whatever the file is.
"""

from __future__ import annotations

import codecs
import csv
import gzip
import io
import json
import zlib
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import msgspec

from pacemark.errors import BadInput
from pacemark.workload.plain import plain_value, refuse_twins

__all__ = ["LONGEST", "Record", "Records", "parsed", "records_of"]

LONGEST = 64 * 2**20
"""Bytes of the longest record."""
_CHUNK = 2**20
_PACKED = {".gz": b"\x1f\x8b", ".zst": b"\x28\xb5\x2f\xfd"}
_JSON = (".json", ".jsonl", ".ndjson")
_TABLES = {".csv": ",", ".tsv": "\t"}


class Record(NamedTuple):
    """One of a file's records: its number from 1 (that of the line in files of lines), and its bytes' place there."""

    number: int
    value: Any
    offset: int = 0
    length: int = 0


class Records(NamedTuple):
    """What kind of file it is, the records, and whether their places are those of the file itself."""

    kind: str
    records: Iterator[Record]
    plain: bool = False


def records_of(source: Any) -> Records:
    """The records of a file, a folder of part files, a data frame (pandas, Spark, Arrow, polars) or rows in memory.

    Raises BadInput, at once or as the records are walked through, for what is not what it says it is. Needs the extra
    `data` for Parquet, Arrow and .zst.
    """
    if not isinstance(source, (str, Path)):
        return Records("data frame", _numbered(_frame(source)))
    path = Path(source)
    if path.is_dir():
        return _folder(path)
    if not path.is_file():
        raise BadInput("there is no such file" if not path.exists() else "it is no regular file")
    return _file(path)


def parsed(line: bytes) -> Any:
    """The JSON value of a line. Raises BadInput where it is none."""
    try:
        return msgspec.json.decode(line)
    except (ValueError, RecursionError) as error:  # msgspec's are ValueErrors; none of them quotes the line
        why = "it is nested too deeply" if isinstance(error, RecursionError) else str(error)[:120]
        raise BadInput(f"this is no JSON: {why}") from None


def _file(path: Path) -> Records:
    if path.stat().st_size == 0:
        raise BadInput("the file is empty")
    with path.open("rb") as file:
        head = file.read(8)
    packing = next((suffix for suffix, magic in _PACKED.items() if head.startswith(magic)), "")
    suffixes = [suffix.lower() for suffix in path.suffixes]
    if suffixes and suffixes[-1] in _PACKED and suffixes.pop() != packing:
        raise BadInput(f"it is named {path.suffix} and is not packed so")
    suffix = suffixes[-1] if suffixes else ""
    if head.startswith(b"PAR1") or suffix == ".parquet":
        if packing or not head.startswith(b"PAR1"):
            raise BadInput("it is named .parquet and is no Parquet file")
        return Records("Parquet", _numbered(_parquet(path)))
    if head.startswith((b"ARROW1", b"FEA1")) or (suffix in (".arrow", ".arrows") and head[:4] == b"\xff" * 4):
        return Records("Arrow", _numbered(_arrow(path, stream=head[:4] == b"\xff" * 4)))
    if suffix in (".arrow", ".arrows", ".feather"):
        raise BadInput(f"it is named {suffix} and is no Arrow file")
    with _unpacking(path, packing) as file:
        start = _readable(file, 4096)
    return _text(path, packing, suffix, start)


def _text(path: Path, packing: str, suffix: str, start: bytes) -> Records:
    """A file of text, by its name and its first bytes."""
    _refuse_other(start)
    first = start.removeprefix(codecs.BOM_UTF8).lstrip()[:1]
    if not first:
        raise BadInput("the file is empty" if len(start) < 4096 else "it begins with blank lines and nothing else")
    json_like = first in (b"{", b"[")
    if suffix in _JSON and not json_like:
        raise BadInput(f"it is named {suffix} and does not begin as JSON does")
    if suffix in _TABLES:
        if json_like:
            raise BadInput(f"it is named {suffix} and holds JSON")
        return Records("CSV", _guarded(_rows(path, packing, _TABLES[suffix])))
    if not json_like or suffix == ".txt":
        return Records("text", _guarded(_lines(path, packing, text=True)), plain=not packing)
    if first == b"[":
        array = not _is_message(_first_element(path, packing))
    elif _whole_line(path, packing):
        array = False
    else:
        return Records("JSON", _guarded(_values(path, packing, array=False)))
    if array:
        return Records("JSON", _guarded(_values(path, packing, array=True)))
    return Records("JSONL", _guarded(_lines(path, packing, text=False)), plain=not packing)


def _refuse_other(start: bytes) -> None:
    if start.startswith(b"version https://git-lfs"):
        raise BadInput("it is a pointer of Git LFS, not the file it stands for: git lfs pull")
    if start.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        raise BadInput("it is in UTF-16: save it as UTF-8")
    if b"\0" in start:
        raise BadInput("it is binary, and neither Parquet nor Arrow nor packed as .gz or .zst")
    if start.startswith(b"PK\x03\x04"):
        raise BadInput("it is a zip file (or a spreadsheet): unpack it, or save it as CSV")


def _unpacking(path: Path, packing: str) -> BinaryIO:
    if packing == ".gz":
        return gzip.open(path)  # type: ignore[return-value]
    if packing == ".zst":
        try:
            import zstandard
        except ImportError:
            raise BadInput("reading .zst needs a package: pip install zstandard") from None
        unpacked = zstandard.ZstdDecompressor().stream_reader(path.open("rb"), read_across_frames=True)
        return io.BufferedReader(unpacked, _CHUNK)
    return path.open("rb")


_DAMAGED = (EOFError, zlib.error, gzip.BadGzipFile)


def _readable(file: BinaryIO, most: int, line: bool = False) -> bytes:
    """Up to `most` bytes, or a line of at most as many. Raises BadInput where a packed file is damaged or cut off."""
    try:
        return file.readline(most) if line else file.read(most)
    except _DAMAGED:
        raise BadInput("the packed file is damaged or cut off") from None
    except OSError as error:
        raise BadInput(f"it cannot be read: {error.strerror or error}") from None
    except Exception as error:
        if type(error).__name__ == "ZstdError":  # of the module that may not be there
            raise BadInput("the packed file is damaged or cut off") from None
        raise


def _guarded(records: Iterator[Record]) -> Iterator[Record]:
    """The records; what goes wrong between them is told with the number of the row after the last good one."""
    number = 0
    try:
        for record in records:
            number = record.number
            yield record
    except BadInput as error:
        raise BadInput(f"row {number + 1}: {error}") from None
    except UnicodeDecodeError:
        raise BadInput(f"row {number + 1}: it is no UTF-8 from here on") from None


def _lines(path: Path, packing: str, *, text: bool) -> Iterator[Record]:
    offset = 0
    with _unpacking(path, packing) as file:
        number = 0
        while line := _readable(file, LONGEST + 1, line=True):
            number += 1
            if len(line) > LONGEST:
                raise BadInput(f"the line is longer than {LONGEST >> 20} MB")
            content = line.removeprefix(codecs.BOM_UTF8) if number == 1 else line
            if content.strip():
                value = content.rstrip(b"\r\n").decode() if text else parsed(content)
                yield Record(number, value, offset, len(line))
            else:
                yield Record(number, None)
            offset += len(line)


def _whole_line(path: Path, packing: str) -> bool:
    """Whether the first line that is not blank is a JSON value, so that the file is one of lines."""
    with _unpacking(path, packing) as file:
        while line := _readable(file, LONGEST + 1, line=True):
            if line.strip(b" \t\r\n" + codecs.BOM_UTF8):
                try:
                    parsed(line.removeprefix(codecs.BOM_UTF8))
                except BadInput:
                    # A line that is cut short or damaged is one of lines, unless a value only begins there.
                    return line.rstrip().endswith(b"}") or not line.rstrip().endswith((b"{", b"[", b",", b":"))
                return True
    return True


def _first_element(path: Path, packing: str) -> Any:
    return next((record.value for record in _guarded(_values(path, packing, array=True))), None)


def _is_message(value: Any) -> bool:
    """Whether it is a message of a conversation, so that an array of such is a row and not a file."""
    return isinstance(value, dict) and ({"role", "content"} <= value.keys() or {"from", "value"} <= value.keys())


def _values(path: Path, packing: str, *, array: bool) -> Iterator[Record]:
    """The elements of an array, or JSON values one after another, over any number of lines."""
    # NaN is a constant with which Python writes what is missing.
    decode = json.JSONDecoder(parse_constant=lambda name: None).raw_decode
    with _unpacking(path, packing) as file:
        text = _Text(file)
        number, mark = 0, text.skip()
        if array:
            text.take(1)
            mark = text.skip()
        while mark and not (array and mark == "]"):
            number += 1
            value = text.value(decode)
            yield Record(number, value)
            mark = text.skip()
            if array and mark == ",":
                text.take(1)
                mark = text.skip() or "?"
                if mark != "]":
                    continue
            if array and mark != "]":
                raise BadInput("the array does not go on as an array does" if mark else "the array has no end")
        if array and (mark != "]" or text.after()):
            raise BadInput("the array has no end" if mark != "]" else "there is more after the array's end")


class _Text:
    """Text that is read as it is needed."""

    def __init__(self, file: BinaryIO) -> None:
        self._file, self._decode = file, codecs.getincrementaldecoder("utf-8-sig")()
        self._text, self._at, self._ended = "", 0, False

    def _more(self) -> bool:
        if self._ended:
            return False
        # As much again as there is, so that a long value is not tried too often.
        chunk = _readable(self._file, max(_CHUNK, len(self._text) - self._at))
        self._ended = not chunk
        self._text = self._text[self._at :] + self._decode.decode(chunk, final=self._ended)
        self._at = 0
        return True

    def skip(self) -> str:
        """The next character that is no space; empty at the end."""
        while True:
            rest = len(self._text)
            while self._at < rest and self._text[self._at] in " \t\r\n":
                self._at += 1
            if self._at < rest:
                return self._text[self._at]
            if not self._more():
                return ""

    def take(self, count: int) -> None:
        self._at += count

    def after(self) -> str:
        self.take(1)
        return self.skip()

    def value(self, decode: Any) -> Any:
        while True:
            try:
                value, self._at = decode(self._text, self._at)
                return value
            except RecursionError:
                raise BadInput("this is no JSON: it is nested too deeply") from None
            except ValueError as error:
                if len(self._text) - self._at > LONGEST or not self._more():
                    why = error.msg if isinstance(error, json.JSONDecodeError) else "a number is too long"
                    raise BadInput(f"this is no JSON: {why}, or it is longer than {LONGEST >> 20} MB") from None


def _rows(path: Path, packing: str, delimiter: str) -> Iterator[Record]:
    """The rows of a CSV file, by the names in its first line."""
    csv.field_size_limit(LONGEST)
    with _unpacking(path, packing) as file:
        lines = _decoded(file)
        header = next(lines, "")
        if delimiter == ",":  # as spreadsheets of some countries save it
            delimiter = max(",;\t", key=header.count)
        reader = csv.reader(_chained(header, lines), delimiter=delimiter, strict=True)
        try:
            names = [name.strip() for name in next(reader, [])]
            refuse_twins(names)
            for number, fields in enumerate((row for row in reader if row), 1):
                if len(fields) != len(names):
                    raise BadInput(f"it has {len(fields)} fields where the first line names {len(names)}")
                # Of a row without a value spreadsheets write the commas.
                yield Record(number, dict(zip(names, fields, strict=True)) if any(map(str.strip, fields)) else None)
        except csv.Error as error:
            raise BadInput(f"this is no CSV: {error}") from None


def _decoded(file: BinaryIO) -> Iterator[str]:
    first = True
    while line := _readable(file, LONGEST + 1, line=True):
        if len(line) > LONGEST:
            raise BadInput(f"the line is longer than {LONGEST >> 20} MB")
        yield (line.removeprefix(codecs.BOM_UTF8) if first else line).decode()
        first = False


def _chained(first: str, rest: Iterator[str]) -> Iterator[str]:
    yield first
    yield from rest


def _numbered(values: Iterable[Any]) -> Iterator[Record]:
    number = 0
    try:
        for value in values:
            number += 1
            yield Record(number, plain_value(value))
    except (ArithmeticError, LookupError, NotImplementedError, OSError, SystemError, TypeError, ValueError) as error:
        # Arrow's errors, which are of all these kinds
        raise BadInput(f"row {number + 1}: it cannot be read: {str(error).splitlines()[0][:200]}") from None


def _needed() -> Any:
    try:
        import pyarrow
        import pyarrow.ipc
        import pyarrow.parquet
    except ImportError:
        raise BadInput("reading Parquet and Arrow needs a package: pip install pyarrow") from None
    return pyarrow


def _parquet(path: Path) -> Iterator[Any]:
    with _needed().parquet.ParquetFile(path, memory_map=True, pre_buffer=False) as file:
        for batch in file.iter_batches(batch_size=256):
            yield from _sliced(batch)


def _arrow(path: Path, *, stream: bool) -> Iterator[Any]:
    pyarrow = _needed()
    with pyarrow.memory_map(str(path)) as file:
        if stream:
            for batch in pyarrow.ipc.open_stream(file):
                yield from _sliced(batch)
        else:
            reader = pyarrow.ipc.open_file(file)
            for k in range(reader.num_record_batches):
                yield from _sliced(reader.get_batch(k))


def _sliced(batch: Any) -> Iterator[Any]:
    refuse_twins(batch.schema.names)
    batch.validate(full=True)  # damaged offsets would be read beyond the end
    for start in range(0, batch.num_rows, 256):
        yield from batch.slice(start, 256).to_pylist()


def _frame(frame: Any) -> Iterator[Any]:
    """The rows of a data frame as mappings, by what it can do and not by whose it is."""
    if hasattr(frame, "toLocalIterator"):  # Spark, a partition at a time
        for row in frame.toLocalIterator():
            yield row.asDict(recursive=True)
    elif hasattr(frame, "to_batches"):  # Arrow
        for batch in frame.to_batches():
            yield from _sliced(batch)
    elif hasattr(frame, "iter_rows"):  # polars
        yield from frame.iter_rows(named=True)
    elif hasattr(frame, "itertuples"):  # pandas
        names = [str(name) for name in frame.columns]
        refuse_twins(names)
        for fields in frame.itertuples(index=False, name=None):
            yield dict(zip(names, fields, strict=True))
    elif isinstance(frame, Iterable) and not isinstance(frame, (bytes, Mapping)):
        yield from frame
    else:
        raise BadInput(f"rows cannot be read from a {type(frame).__name__}: give a file, a data frame or rows")


def _part(file: Path) -> Records:
    try:
        return records_of(file)
    except BadInput as error:
        raise BadInput(f"{file.name} in it: {error}") from None


def _folder(path: Path) -> Records:
    """The part files that Spark writes, in the order of their names, as one. Of a partition without rows it may write
    an empty one."""
    files = sorted(x for x in path.iterdir() if x.is_file() and not x.name.startswith(("_", ".")))
    if not (parts := [_part(file) for file in files if file.stat().st_size]):
        raise BadInput("the folder holds no file with anything in it" if files else "the folder holds no file")
    if len(kinds := {part.kind for part in parts}) > 1:
        raise BadInput(f"the folder holds files of several kinds: {', '.join(sorted(kinds))}")
    values = (record.value for part in parts for record in part.records)
    return Records(parts[0].kind, _numbered(values))
