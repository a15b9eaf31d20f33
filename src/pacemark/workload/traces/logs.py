"""What was sent, as a gateway or a tool has logged it: evalscope's workload trace, LiteLLM's spend logs.

evalscope: perf/plugin/datasets/workload_trace.py of its repository (a time that is a number is of seconds; the file
need not be in order). LiteLLM: the table LiteLLM_SpendLogs, and the payload of its logging callbacks.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, ClassVar

import msgspec

from pacemark.workload.keys import chat, recorded, whole
from pacemark.workload.row import FileFound, Row
from pacemark.workload.times import unit_of
from pacemark.workload.traces.format import How, Left, Taken, at, first_of, in_json

__all__ = ["LiteLLM", "WorkloadTrace"]


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
