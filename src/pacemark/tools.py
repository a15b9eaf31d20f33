"""Tools that a model may call, and the JSON that it may have to answer with, as a user's files give them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import msgspec

from pacemark.errors import BadInput
from pacemark.values import text_of

__all__ = ["CHOICES", "Tool", "refuse_choice", "schema_in", "tools_in"]

CHOICES = ("auto", "none", "required")
"""What may be said of all tools; else one is named."""
_SHAPE = '[{"type": "function", "function": {"name": ..., "parameters": {...}}}]'


class Tool(NamedTuple):
    """A function that a model may call."""

    name: str
    description: str
    parameters: dict[str, Any]
    """JSON schema of its arguments."""
    given: dict[str, Any]
    """All of it, as OpenAI's chat has it."""


def tools_in(path: Path) -> list[Tool]:
    """The tools of a file, a JSON list as OpenAI's chat takes it. Raises BadInput."""
    given = _json("--tools", path)
    if not isinstance(given, list) or not given:
        raise BadInput(f"--tools {path}: give a JSON list of tools, {_SHAPE}")
    tools = [_tool(path, number, entry) for number, entry in enumerate(given, 1)]
    if len({tool.name for tool in tools}) < len(tools):
        raise BadInput(f"--tools {path}: two tools have the same name")
    return tools


def _tool(path: Path, number: int, given: Any) -> Tool:
    function = given.get("function") if isinstance(given, dict) else None
    if not isinstance(function, dict) or not isinstance(name := function.get("name"), str) or not name:
        raise BadInput(f"--tools {path}: tool {number} is not of the form {_SHAPE[1:-1]}")
    parameters = function.get("parameters", {"type": "object", "properties": {}})
    if not isinstance(parameters, dict):
        raise BadInput(f"--tools {path}: the parameters of {name} are no JSON schema")
    return Tool(name, str(function.get("description") or ""), parameters, {"type": "function", **given})


def refuse_choice(choice: str, tools: Sequence[Tool]) -> None:
    """Raise BadInput for a choice that is none, and names no tool."""
    names = [tool.name for tool in tools]
    if choice and choice not in (*CHOICES, *names):
        raise BadInput(f"--tool-choice {choice!r}: use {', '.join(CHOICES)} or the name of a tool: {', '.join(names)}")


def schema_in(path: Path) -> dict[str, Any]:
    """The JSON schema of a file: by itself, or inside OpenAI's `response_format`. Raises BadInput."""
    given = _json("--response-format", path)
    if isinstance(given, dict) and given.get("type") == "json_schema":
        inner = given.get("json_schema", given)
        given = inner.get("schema") if isinstance(inner, dict) else None
    if not isinstance(given, dict) or not given:
        raise BadInput(f"--response-format {path}: give a JSON schema, or a response_format of type json_schema")
    return given


def _json(flag: str, path: Path) -> Any:
    try:
        return msgspec.json.decode(text_of(flag, path))
    except (ValueError, RecursionError) as error:
        raise BadInput(f"{flag} {path}: is no JSON ({error})") from None
