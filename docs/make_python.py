"""Writes python.md from the docstrings and signatures as they are: `python docs/make_python.py`."""

from __future__ import annotations

import dataclasses
import inspect
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec

import pacemark
from pacemark import scenario
from pacemark.answers.versus import Contest
from pacemark.runs import conduct
from pacemark.summary import Figure, Level, Summary, Verdict

PAGE = Path(__file__).with_name("python.md")
HEAD = """# From Python

Made from the code by `make docs`. Functions have the names of the commands and take the words of their flags:
`--max-duration 60s` is `max_duration=60`. Bad input raises `pacemark.BadInput`, a run without a result
`pacemark.RunFailed`.

    import pacemark

    run = pacemark.sweep("http://host:8000/v1", model="m", concurrency=[1, 2, 4, 8], duration=30)
    for level in run.levels:
        print(level.load, level.output_tokens_per_s.value, level.ttft_ms.p95.value)
    run.plot()          # the curve; a notebook shows it by itself, and while the run goes on
"""
MEASURING = ("run", "sweep", "find", "versus", "check", "demo", "resume", "calibrate")
LOOKING = ("load", "show", "report", "compare", "plan", "together", "index", "data", "log_to_mlflow")
REST = ("serve", "simulate", "Allowance", "BadInput", "RunFailed", "PacemarkError")
RESULTS = (pacemark.Run, Summary, Level, Figure, Verdict, Contest)


def reference() -> str:
    """The whole page."""
    parts = [HEAD]
    for title, names in (("To measure", MEASURING), ("To look back", LOOKING), ("Beside", REST)):
        parts += [f"## {title}\n", *(_named(f"pacemark.{name}", getattr(pacemark, name)) for name in names)]
    parts += ["## Options\n", "What `run`, `sweep`, `find`, `resume` and `versus` take beside what is named there.\n"]
    parts += ["| word | type | |", "| --- | --- | --- |"]
    known = _comments(scenario.Words) | _comments(conduct.Options)
    parts += [f"| `{word}` | `{_cell(kind)}` | {_cell(text)} |" for word, (kind, text) in known.items()]
    parts += ["", "## Results\n", *(_named(kind.__name__, kind) for kind in RESULTS)]
    return "\n".join(parts)


def _named(name: str, what: Any) -> str:
    """One name: its signature, its docstring, and what it has."""
    lines = [f"### {name}\n"]
    if inspect.isclass(what):
        lines += [_text(what), "", *_fields(what), *_methods(what)]
    else:
        lines += [f"    {_signature(name, what)}\n", _text(what), ""]
    return "\n".join(lines)


def _signature(name: str, what: Any) -> str:
    words: list[str] = []
    for p in inspect.signature(what).parameters.values():
        if p.kind is p.KEYWORD_ONLY and "*" not in words:
            words.append("*")
        words.append(_parameter(p))
    one = f"{name}({', '.join(words)})"
    return one if len(one) <= 110 else f"{name}(\n" + "".join(f"        {word},\n" for word in words) + "    )"


def _parameter(p: inspect.Parameter) -> str:
    if p.kind is p.VAR_KEYWORD:
        return "**options"
    known = "" if p.default is p.empty else f" = {'...' if callable(p.default) else repr(p.default)}"
    return f"{p.name}: {p.annotation}{known}" if isinstance(p.annotation, str) else f"{p.name}{known}"


def _text(what: Any) -> str:
    return re.sub(r"\n {4,}", "\n", inspect.getdoc(what) or "")


def _fields(kind: type) -> Iterator[str]:
    """The fields of a struct or a data class, with the lines below them in the source."""
    if not (issubclass(kind, msgspec.Struct) or dataclasses.is_dataclass(kind)):
        return
    yield from ("| field | type | |", "| --- | --- | --- |")
    for word, (type_, text) in _comments(kind).items():
        yield f"| `{word}` | `{_cell(type_)}` | {_cell(text)} |"
    yield ""


def _methods(kind: type) -> Iterator[str]:
    for name, member in vars(kind).items():
        if name.startswith("_") or not (inspect.isfunction(member) or isinstance(member, property)):
            continue
        given = "" if isinstance(member, property) else f"({', '.join(list(inspect.signature(member).parameters)[1:])})"
        yield f"- `.{name}{given}`: {' '.join(_text(member).split())}"
    yield ""


_FIELD = re.compile(r'^    (\w+): (.+?)(?: = .*)?\n(?:    """(.*?)"""\n)?', re.MULTILINE | re.DOTALL)


def _comments(kind: type) -> dict[str, tuple[str, str]]:
    """Of each field of a class: its type and the docstring below it."""
    source = inspect.getsource(kind).partition('"""')[2].partition('"""\n')[2]
    lines = source.partition("\n    def ")[0].partition("\n    @")[0]
    return {name: (type_, text or "") for name, type_, text in _FIELD.findall(lines)}


def _cell(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|")


if __name__ == "__main__":
    PAGE.write_text(reference())
