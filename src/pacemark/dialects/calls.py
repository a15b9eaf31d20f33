"""What of an answer is meant for a program: the tools that it calls, and JSON."""

from __future__ import annotations

import json
from typing import Any

import msgspec

__all__ = ["Call", "cut_off", "is_json", "spelled"]

_LENGTH = ("length", "max_tokens", "max_output_tokens")


class Call:
    """A call of a tool, as its pieces come in."""

    __slots__ = ("begun", "ended", "parts")

    def __init__(self, event: int) -> None:
        self.begun = self.ended = event
        """Numbers of the events that held its first piece and its last."""
        self.parts: list[str] = []
        """Of its arguments."""

    @property
    def sound(self) -> bool:
        """Whether its arguments are JSON; none at all are those of a function that takes none."""
        text = "".join(self.parts)
        return not text.strip() or is_json(text)


def is_json(text: str) -> bool:
    """Whether `text` is JSON and nothing else."""
    try:
        msgspec.json.decode(text)
    except (ValueError, RecursionError):
        return False
    return True


def cut_off(finish_reason: str) -> bool:
    """Whether an answer that ended so was cut off at its longest length."""
    return finish_reason.lower() in _LENGTH


def spelled(arguments: Any) -> str:
    """Arguments as text: as most APIs give them, or of the object that others give."""
    if isinstance(arguments, str):
        return arguments
    try:
        return json.dumps(arguments)
    except RecursionError:
        return "nested too deeply"
