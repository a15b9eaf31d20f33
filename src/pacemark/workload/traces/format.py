"""What every format of traces has, and what they share."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, ClassVar, NamedTuple, Protocol

from pacemark.errors import BadInput
from pacemark.workload.keys import filled_key
from pacemark.workload.records import parsed
from pacemark.workload.row import FileFound, Row
from pacemark.workload.times import instant, unit_of

__all__ = ["Format", "How", "Left", "Taken", "at", "in_json", "known_length"]


class How(NamedTuple):
    """What the user says of a file; empty where that is to be found out."""

    key: str = ""
    """Which key holds the prompt."""
    unit: str = ""
    """The unit of its times: ns, us, ms, s."""
    block_tokens: int = 0
    """Tokens of a block that has an id."""
    spans: str = ""
    """Which spans of an agent's trace to take: `root`, the requests that it got, or `model`, the calls that it made."""


class Taken(NamedTuple):
    """A row, and its time where there is one."""

    row: Row
    at_ns: int | None = None


class Left(NamedTuple):
    """A row that cannot be used, and why."""

    reason: str


class Format(Protocol):
    """A format of traces: made for one file, asked for each of its records, and told when the last has been seen."""

    name: str
    ordered: ClassVar[bool]
    """Whether its rows are in order of time; those of a table are not, and are sorted."""
    counted: ClassVar[bool]
    """Whether it has no turns of its own, so that the rows of a session are counted."""

    def __init__(self, how: How, found: FileFound) -> None: ...

    @staticmethod
    def knows(value: Mapping[str, Any]) -> bool:
        """Whether `value` is a record of this format."""
        ...

    def take(self, value: Mapping[str, Any], number: int) -> Iterable[Taken | Left]:
        """The rows of a record. Raises BadInput where it is damaged."""
        ...

    def end(self) -> None:
        """Tell in what was found what only all records together show."""
        ...


def at(value: Mapping[str, Any], key: str, unit: str) -> int:
    """The time under `key` in ns; `unit` where the number itself does not tell it."""
    if value.get(key) in (None, ""):
        raise BadInput(f"it has no {key!r}")
    return instant(value[key], unit or unit_of(value[key]))


def known_length(row: Row) -> Taken | Left:
    """The row, unless it asks nothing or was never answered."""
    if row.input_tokens == 0:
        return Left("0 input tokens")
    if row.output_tokens == 0:
        return Left("0 output tokens: it failed or was cut off")
    return Taken(row)


def in_json(value: Any) -> Any:
    """`value`, or what is in it where it is JSON in a string. Raises BadInput where that is damaged."""
    if isinstance(value, str):
        return parsed(value.encode("utf-8", "surrogatepass")) if value else None
    return value


def first_of(value: Mapping[str, Any], *names: str) -> Any:
    """The value of the first of `names` that has one."""
    return value.get(filled_key(names, value))
