"""Checks of one value that a user gives: a number, a share, a time."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from numbers import Integral, Real
from os import PathLike
from pathlib import Path
from types import UnionType
from typing import Any, get_args, get_origin

from pacemark.errors import BadInput

__all__ = ["at_least", "labelled", "lasting", "one_of", "positive", "refuse_kinds", "seconds", "share", "text_of"]


def at_least(flag: str, value: object, least: int, most: float = math.inf) -> int:
    """`value`, a whole number. Raises BadInput."""
    number = int(value) if isinstance(value, Integral) and not isinstance(value, bool) else None  # of numpy too
    if number is None or number < least:
        raise BadInput(f"{flag} {value}: must be a whole number of at least {least}")
    if number > most:
        raise BadInput(f"{flag} {value}: must be at most {most:,}")
    return number


def one_of(flag: str, value: object, known: Sequence[str]) -> Any:
    """`value`, which is among `known`. Raises BadInput."""
    if value not in known:
        raise BadInput(f"{flag} {value!r} is not known: use {', '.join(known[:-1])} or {known[-1]}")
    return value


def positive(flag: str, value: float) -> float:
    """`value`, above 0 and finite. Raises BadInput."""
    number = float(value) if isinstance(value, Real) and not isinstance(value, bool) else 0.0
    if not (math.isfinite(number) and number > 0):
        raise BadInput(f"{flag} {value}: must be a number above 0")
    return number


def share(flag: str, value: float | str | None) -> float | None:
    """A share from `0.05` or `5%`; None for nothing. Raises BadInput."""
    if value is None or value == "":
        return None
    text = str(value)
    try:
        share = float(text.removesuffix("%")) / (100 if text.endswith("%") else 1)
    except ValueError:
        share = 0.0
    if not 0 < share < 1:
        raise BadInput(f"{flag} {value}: give a share between 0 and 1, or a percentage such as 5%")
    return share


_KINDS: dict[Any, tuple[Any, str]] = {
    str: (str, "text"), Path: (PathLike, "text"), type(None): (type(None), ""), Callable: (Callable, "a function"),
    Mapping: (Mapping, "a mapping"), Sequence: (Iterable, "a list"),
}  # fmt: skip
"""What is taken as of a kind, an array as a list, and how that is called."""


def refuse_kinds(given: Mapping[str, Any], kinds: Mapping[str, Any], *, none: bool = True) -> None:
    """Raises BadInput for a value that is none of the `kinds` of its option: text, a list, a mapping, a function, True
    or False, for the word "no" is a yes to Python. What is a number or a time is looked at where it is read. `none`:
    None stands for what was not given, but for True or False."""
    for name, value in given.items():
        kind = kinds.get(name)
        flag = f"--{name.replace('_', '-')} {str(value)[:60]!r}"
        if kind is bool and not isinstance(value, bool) and str(getattr(value, "dtype", "")) != "bool":  # numpy's
            raise BadInput(f"{flag}: must be True or False")
        either = get_args(kind) if isinstance(kind, UnionType) else (kind,)
        taken = [_KINDS.get(get_origin(one) or one) for one in either]
        if None in taken or (value is None and none) or (isinstance(value, str) and str in either):
            continue
        if isinstance(value, str) or not any(isinstance(value, one[0]) for one in taken if one):
            words = " or ".join(dict.fromkeys(one[1] for one in taken if one and one[1]))
            raise BadInput(f"{flag}: must be {words}, and is of type {type(value).__name__}")


def text_of(flag: str, path: Path) -> str:
    """The text of a file. Raises BadInput where it cannot be read as one."""
    try:
        return path.read_text("utf-8")
    except (OSError, ValueError) as error:
        known = {UnicodeDecodeError: "it is not UTF-8", ValueError: "that is no name of a file"}
        why = error.strerror if isinstance(error, OSError) else known[type(error)]
        raise BadInput(f"{flag} {path}: cannot be read ({why})") from None


_SECONDS = re.compile(r"\s*(\d+(?:\.\d+)?)\s*(ms|s|m|min|h)?\s*", re.IGNORECASE)
_UNITS_S = {"ms": 1e-3, "s": 1.0, "m": 60.0, "min": 60.0, "h": 3600.0}


def seconds(flag: str, value: float | str) -> float:
    """Seconds from 120, "120", "120s", "2m", "1h" or "500ms"; 0 is none. Raises BadInput."""
    if isinstance(value, Real) and not isinstance(value, bool) and math.isfinite(value) and value >= 0:
        return float(value)
    found = _SECONDS.fullmatch(value) if isinstance(value, str) else None
    if found is None:
        raise BadInput(f"{flag} {value}: give seconds, such as 120 or 120s, or minutes, such as 2m")
    return float(found.group(1)) * _UNITS_S[(found.group(2) or "s").lower()]


def lasting(flag: str, value: float | str) -> float:
    """As `seconds`, above 0. Raises BadInput."""
    if isinstance(value, str) and _SECONDS.fullmatch(value) is None:
        raise BadInput(f"{flag} {value}: give a time above 0, such as 20s, 2m or 20")
    return positive(flag, seconds(flag, value) if isinstance(value, str) else value)


def labelled(words: Mapping[str, Any]) -> dict[str, str]:
    """The labels of a run: from a mapping, or from words such as `gpu=h100`. Raises BadInput."""
    given = words.get("labels") or {}
    if isinstance(given, Mapping):
        return {str(name): str(value) for name, value in given.items()}
    pairs = [str(text).partition("=") for text in given]
    names = [name.strip() for name, _, _ in pairs]
    for name, is_, value in pairs:
        if not (name.strip() and is_):
            raise BadInput(f"--label {name}{is_}{value}: give a name and a value, such as gpu=h100")
        if names.count(name.strip()) > 1:
            raise BadInput(f"--label {name.strip()} is given twice: give each label once")
    return {name.strip(): value.strip() for name, _, value in pairs}
