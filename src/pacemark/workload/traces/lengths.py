"""Published traces of lengths and arrivals: Mooncake, Bailian (Qwen), Azure, BurstGPT. None holds text.

On GitHub: kvcache-ai/Mooncake (FAST25-release), alibaba-edu/qwen-bailian-usagetraces-anon, Azure/AzurePublicDataset
(LLM inference traces of 2023, 2024 and 2025), HPMLL/BurstGPT.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, ClassVar

from pacemark.errors import BadInput
from pacemark.workload.keys import whole
from pacemark.workload.row import FileFound, Row
from pacemark.workload.times import unit_of
from pacemark.workload.traces.format import How, Left, Taken, at, known_length

__all__ = ["Azure", "Bailian", "BurstGPT", "Mooncake", "fitting"]

USUAL_BLOCKS = (16, 32, 64, 128, 256, 512, 1024)
"""Tokens of a block in the traces there are."""
_IDS = 2**64


def fitting(blocks: int, tokens: int) -> list[int]:
    """The usual sizes of which `blocks` hold `tokens`, the last perhaps in part."""
    return [size for size in USUAL_BLOCKS if -(-tokens // size) == blocks]


def blocks_of(value: Mapping[str, Any], tokens: int, size: int) -> tuple[int, ...]:
    """The ids of a row's blocks. Raises BadInput where they do not cover its tokens in blocks of that size."""
    ids = value.get("hash_ids")
    if ids is None:
        return ()
    if not isinstance(ids, list) or not all(type(x) is int and 0 <= x < _IDS for x in ids):
        raise BadInput("hash_ids is no list of whole numbers of 64 bits")
    if len(ids) != -(-tokens // size):
        sizes = fitting(len(ids), tokens)
        would = f"blocks of {sizes[0]} would: --block-tokens {sizes[0]}" if sizes else "no usual size of block would"
        raise BadInput(f"{len(ids)} hash_ids do not cover {tokens:,} tokens in blocks of {size}; {would}")
    return tuple(ids)


class Mooncake:
    """JSONL: ms, tokens, and ids of blocks of 512 tokens, each standing for the prompt up to the end of its block."""

    ordered: ClassVar = True
    counted: ClassVar = True
    _block, _unit = 512, "ms"

    def __init__(self, how: How, found: FileFound) -> None:
        self.name = type(self).__name__
        self._asked, self._size, self._found = how.unit, how.block_tokens or self._block, found
        found.keys = {"input_tokens": "input_length", "output_tokens": "output_length", "at_ms": "timestamp"}

    @staticmethod
    def knows(value: Mapping[str, Any]) -> bool:
        """Lengths and a time, and no chats."""
        return {"timestamp", "input_length", "output_length"} <= value.keys()

    def take(self, value: Mapping[str, Any], number: int) -> Iterator[Taken | Left]:
        """One row."""
        row = self._row(value, number)
        taken = known_length(row)
        yield taken if isinstance(taken, Left) else Taken(row, at(value, "timestamp", self._unit_of(value)))

    def _row(self, value: Mapping[str, Any], number: int) -> Row:
        tokens = whole(value.get("input_length"), "input_length") or 0
        blocks = blocks_of(value, tokens, self._size)
        if blocks:
            self._found.keys.setdefault("blocks", f"hash_ids ({self._size} tokens)")
        out = whole(value.get("output_length"), "output_length") or 0
        return Row(
            number, input_tokens=tokens, output_tokens=out, blocks=blocks, block_tokens=self._size if blocks else 0
        )

    def _unit_of(self, value: Mapping[str, Any]) -> str:
        """Of Mooncake whole milliseconds; others that write it have seconds, and then it must be said."""
        stamp = value.get("timestamp")
        if not self._found.unit:  # by the first, for a time since the start may grow to be one since 1970
            self._found.unit = self._asked or unit_of(stamp) or self._unit
        if (
            self._found.unit == self._unit == "ms" != self._asked
            and isinstance(stamp, float)
            and not stamp.is_integer()
        ):
            raise BadInput(f"the time {stamp} is no whole number of ms, as {self.name} has them: say --unit s or ms")
        return self._found.unit

    def end(self) -> None:
        """Say in which unit the times were taken."""
        if self._found.unit == self._unit and not self._asked:
            self._found.said.append(f"times are taken as {self._unit}, as {self.name} has them")


class Bailian(Mooncake):
    """JSONL as Mooncake, with seconds, blocks of 16 tokens, and chats that grow from one another."""

    counted: ClassVar = False
    _block, _unit = 16, "s"

    def __init__(self, how: How, found: FileFound) -> None:
        super().__init__(how, found)
        found.keys |= {"session": "parent_chat_id"}
        self._roots: dict[Any, Any] = {}

    @staticmethod
    def knows(value: Mapping[str, Any]) -> bool:
        """Lengths, a time, and chats."""
        return {"timestamp", "input_length", "output_length", "chat_id"} <= value.keys()

    def _row(self, value: Mapping[str, Any], number: int) -> Row:
        row = super()._row(value, number)
        chat, parent = value["chat_id"], value.get("parent_chat_id", -1)
        if not isinstance(chat, (int, str)) or not isinstance(parent, (int, str)):
            raise BadInput("chat_id and parent_chat_id are no ids")
        root = chat if parent in (-1, "-1") else self._roots.get(parent, parent)
        self._roots[chat] = root
        turn = max(0, (whole(value.get("turn"), "turn") or 1) - 1)
        return Row(
            number, input_tokens=row.input_tokens, output_tokens=row.output_tokens, blocks=row.blocks,
            block_tokens=row.block_tokens, session=str(root), turn=turn,
        )  # fmt: skip


class Azure:
    """CSV: dates with up to seven digits after the second, in more than one form, and tokens."""

    ordered: ClassVar = True
    counted: ClassVar = True

    def __init__(self, how: How, found: FileFound) -> None:
        self.name, self._found, self._images = "Azure", found, 0
        found.keys = {"input_tokens": "ContextTokens", "output_tokens": "GeneratedTokens", "at_ms": "TIMESTAMP"}
        found.unit = "date"

    @staticmethod
    def knows(value: Mapping[str, Any]) -> bool:
        """By its columns."""
        return {"TIMESTAMP", "ContextTokens", "GeneratedTokens"} <= value.keys()

    def take(self, value: Mapping[str, Any], number: int) -> Iterator[Taken | Left]:
        """One row."""
        at_ns = at(value, "TIMESTAMP", "")
        if self.name == "Azure":
            self.name = "Azure 2025" if "NumImages" in value else f"Azure {1970 + at_ns // 31_556_952_000_000_000}"
        self._images += bool(whole(value.get("NumImages"), "NumImages"))
        row = Row(
            number, input_tokens=whole(value["ContextTokens"], "ContextTokens"),
            output_tokens=whole(value["GeneratedTokens"], "GeneratedTokens"),
        )  # fmt: skip
        if row.input_tokens is None or row.output_tokens is None:
            raise BadInput("it has no lengths")
        taken = known_length(row)
        yield taken if isinstance(taken, Left) else Taken(row, at_ns)

    def end(self) -> None:
        """Say what of the requests is not in the rows."""
        self._found.format = self.name
        if self._images:
            self._found.said.append(f"{self._images:,} requests had images, which are not sent")


class BurstGPT:
    """CSV: seconds from midnight of the first day, tokens, and sessions of chats. Read by the names of its columns, for
    their order differs between its versions."""

    name = "BurstGPT"
    ordered: ClassVar = True
    counted: ClassVar = True

    def __init__(self, how: How, found: FileFound) -> None:
        found.unit = self._unit = how.unit or "s"
        found.keys = {"input_tokens": "Request tokens", "output_tokens": "Response tokens", "at_ms": "Timestamp"}
        self._found = found

    @staticmethod
    def knows(value: Mapping[str, Any]) -> bool:
        """By its columns."""
        return {"Timestamp", "Request tokens", "Response tokens"} <= value.keys()

    def take(self, value: Mapping[str, Any], number: int) -> Iterator[Taken | Left]:
        """One row; it failed if nothing was answered."""
        session = value.get("Session ID")
        if session:
            self._found.keys.setdefault("session", "Session ID")
        row = Row(
            number, input_tokens=whole(value["Request tokens"], "Request tokens"),
            output_tokens=whole(value["Response tokens"], "Response tokens"),
            session=None if session in (None, "") else str(session),
        )  # fmt: skip
        if row.input_tokens is None or row.output_tokens is None:
            raise BadInput("it has no lengths")
        taken = known_length(row)
        yield taken if isinstance(taken, Left) else Taken(row, at(value, "Timestamp", self._unit))

    def end(self) -> None:
        """Nothing more to say."""
