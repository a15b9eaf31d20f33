"""What was sent, as a gateway, a tool or a user has logged it: evalscope's workload trace, LiteLLM's spend logs, any
log of times and lengths.

evalscope: perf/plugin/datasets/workload_trace.py of its repository (a time that is a number is of seconds; the file
need not be in order). LiteLLM: the table LiteLLM_SpendLogs, and the payload of its logging callbacks.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, ClassVar

import msgspec

from pacemark.errors import BadInput
from pacemark.workload.keys import LogKeys, chat, lengths_alone, recorded, unit_for, whole
from pacemark.workload.row import FileFound, Row
from pacemark.workload.times import instant, unit_of
from pacemark.workload.traces.format import How, Left, Taken, at, first_of, in_json, known_length

__all__ = ["LiteLLM", "PlainLog", "WorkloadTrace"]


class WorkloadTrace:
    """evalscope's: whole bodies with their times."""

    name = "evalscope workload trace"
    ordered: ClassVar = False
    counted: ClassVar = True

    def __init__(self, how: How, found: FileFound) -> None:
        self._unit, self._found = how.unit, found
        found.keys = {"body": "body", "at_ms": "timestamp", "output_tokens": "completion_tokens"}

    @staticmethod
    def knows(value: Mapping[str, Any]) -> bool:
        """A body and a time."""
        return {"timestamp", "body"} <= value.keys()

    def take(self, value: Mapping[str, Any], number: int) -> Iterator[Taken | Left]:
        """One row."""
        row = recorded(value["body"], number)
        tokens = whole(value.get("completion_tokens"), "completion_tokens") or row.output_tokens
        self._found.unit = self._unit or unit_of(value["timestamp"]) or "s"
        yield Taken(msgspec.structs.replace(row, output_tokens=tokens), at(value, "timestamp", self._found.unit))

    def end(self) -> None:
        """Nothing more to say."""


class LiteLLM:
    """LiteLLM's: lengths and times, and the messages where the proxy was told to keep them."""

    name = "LiteLLM spend logs"
    ordered: ClassVar = False
    counted: ClassVar = True

    def __init__(self, how: How, found: FileFound) -> None:
        self._unit, self._found, self._cached = how.unit, found, 0
        found.keys = {"input_tokens": "prompt_tokens", "output_tokens": "completion_tokens", "at_ms": "startTime"}

    @staticmethod
    def knows(value: Mapping[str, Any]) -> bool:
        """A start, and the tokens by their names in OpenAI's usage."""
        return {"startTime", "prompt_tokens", "completion_tokens"} <= value.keys()

    def take(self, value: Mapping[str, Any], number: int) -> Iterator[Taken | Left]:
        """One row."""
        if str(value.get("status") or "success").lower() not in ("success", "200"):
            yield Left("it failed")
            return
        messages = in_json(value.get("messages"))
        self._cached += str(value.get("cache_hit")).lower() == "true"
        session = first_of(value, "session_id", "trace_id")
        row = Row(
            number,
            messages=chat(messages, "messages") if messages else None,
            input_tokens=whole(value["prompt_tokens"], "prompt_tokens"),
            output_tokens=whole(value["completion_tokens"], "completion_tokens"),
            session=None if session is None else str(session),
        )
        if row.messages:
            self._found.keys.setdefault("messages", "messages")
        if row.session:
            self._found.keys.setdefault("session", "session_id")
        if not row.messages and not row.input_tokens:
            yield Left("neither messages nor lengths were logged")
        else:
            yield Taken(row, at(value, "startTime", self._unit))

    def end(self) -> None:
        """Say what never reached the model."""
        if self._cached:
            self._found.said.append(
                f"{self._cached:,} were answered from LiteLLM's own cache, and are sent all the same"
            )


class PlainLog:
    """A user's own: a time and the tokens of prompt and answer, by the names that they have in files of prompts."""

    name = "a log of times and lengths"
    ordered: ClassVar = True
    counted: ClassVar = True

    def __init__(self, how: How, found: FileFound) -> None:
        self._unit, self._found = how.unit, found
        self._keys: LogKeys | None = None

    @staticmethod
    def knows(value: Mapping[str, Any]) -> bool:
        """By its columns, and that it has no prompt."""
        return lengths_alone(value) is not None

    def take(self, value: Mapping[str, Any], number: int) -> Iterator[Taken | Left]:
        """One row; the first says which columns hold what, and in which unit its times are."""
        keys = self._keys or self._settled(value)
        row = Row(
            number, input_tokens=whole(value.get(keys.input_tokens), keys.input_tokens),
            output_tokens=whole(value.get(keys.output_tokens), keys.output_tokens),
            session=str(value[keys.session]) if value.get(keys.session) not in (None, "") else None,
        )  # fmt: skip
        if row.input_tokens is None or row.output_tokens is None:
            raise BadInput("it has no lengths")
        taken = known_length(row)
        unit = "" if self._unit == "date" else self._unit  # among dates a number tells its own
        yield taken if isinstance(taken, Left) else Taken(row, at(value, keys.at, unit))

    def _settled(self, value: Mapping[str, Any]) -> LogKeys:
        keys = lengths_alone(value)
        assert keys is not None  # or the file would be of another format
        self._unit, _ = unit_for(keys.at, value[keys.at], self._unit)
        instant(value[keys.at], self._unit)  # raises where there is none
        self._found.unit = self._unit
        named = {"input_tokens": keys.input_tokens, "output_tokens": keys.output_tokens}
        self._found.keys = named | {"at_ms": keys.at} | ({"session": keys.session} if keys.session else {})
        self._keys = keys
        return keys

    def end(self) -> None:
        """Nothing more to say."""
