"""Writes cli.md from the commands as they are: `python docs/make_cli.py`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from typer.main import get_command

from pacemark.cli import app

PAGE = Path(__file__).with_name("cli.md")
HEAD = """# The command line

Made from the code by `make docs`. Results go to standard output, all else to standard error.
`pacemark --install-completion` makes your shell complete commands and flags.
"""


def reference() -> str:
    """The whole page: every command with its arguments, its flags and what they are if not given."""
    top: Any = get_command(app)
    return "\n".join([HEAD, *(part for name in sorted(top.commands) for part in _command(name, top.commands[name]))])


def _command(name: str, command: Any) -> list[str]:
    taken = [p for p in command.params if p.name != "help" and not p.hidden]
    arguments = [p for p in taken if p.param_type_name == "argument"]
    options = [p for p in taken if p.param_type_name == "option"]
    context = command.make_context(name, [], resilient_parsing=True)
    words = [p.metavar or p.name.upper() for p in arguments]
    lines = [f"## pacemark {name}\n", f"    {' '.join(['pacemark', name, *words, '[OPTIONS]'])}\n", _text(command), ""]
    if arguments or options:
        lines += ["| word | | if not given |", "| --- | --- | --- |"]
    lines += [f"| `{word}` | {_cell(p.help)} | required |" for word, p in zip(words, arguments, strict=True)]
    lines += [f"| `{_cell(p.get_help_record(context)[0])}` | {_cell(p.help)} | {_default(p)} |" for p in options]
    return [*lines, ""]


def _text(command: Any) -> str:
    return " ".join((command.help or "").split())


def _cell(text: str | None) -> str:
    return " ".join((text or "").split()).replace("|", "\\|")


def _default(option: Any) -> str:
    value = option.default
    if option.required:
        return "required"
    if option.is_flag:
        return "yes" if value else "no"
    return "" if value in (None, "", ()) else f"`{value}`"


if __name__ == "__main__":
    PAGE.write_text(reference())
