"""What data frames and typed files hold, as the plain values that JSON has: what a request can be made of."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from decimal import Decimal
from typing import Any

from pacemark.errors import BadInput

__all__ = ["plain_value", "refuse_twins"]

_PLAIN = frozenset({str, int, bool, type(None)})


def plain_value(value: Any) -> Any:
    """`value` without the types of numpy, pandas and Arrow. What is missing there (NaN, NaT, NA) is None; what has no
    plain form stays as it is."""
    kind = type(value)
    if kind in _PLAIN:
        return value
    if isinstance(value, Mapping):
        return {key if type(key) is str else str(key): plain_value(x) for key, x in value.items()}
    if isinstance(value, list):
        # Of a map Arrow makes a list of pairs, which stay pairs.
        return [tuple(map(plain_value, x)) if isinstance(x, tuple) else plain_value(x) for x in value]
    if isinstance(value, tuple):
        return [plain_value(x) for x in value]
    if isinstance(value, str):  # of numpy, or an enumeration
        return str.__str__(value)
    if isinstance(value, bytes):
        return _text(value)
    if isinstance(value, Decimal):
        return _number(value)
    if isinstance(value, float):
        return float(value) if math.isfinite(value) else _unknown(value)
    return _scalar(value)


def _scalar(value: Any) -> Any:
    """A number, a list or what is missing, of numpy or pandas, by what it can do; anything else as it is."""
    if hasattr(value, "tolist") and hasattr(value, "dtype"):
        return plain_value(value.tolist())
    try:
        return None if value != value else value
    except TypeError:  # pandas' NA, which does not say what it is
        return None
    except ValueError:
        return value


def _unknown(value: float) -> float | None:
    return None if math.isnan(value) else float(value)


def _text(value: bytes) -> str | bytes:
    try:
        return value.decode()
    except UnicodeDecodeError:
        return value


def _number(value: Decimal) -> int | float | None:
    if not value.is_finite():
        return None
    return int(value) if value == value.to_integral_value() else float(value)


def refuse_twins(names: Iterable[Any]) -> None:
    """Raises BadInput where two columns have one name, of which a row could hold just one."""
    seen = [str(name).strip() for name in names]
    if twice := next((name for name in seen if name and seen.count(name) > 1), ""):
        raise BadInput(f"two of its columns are named {twice!r}: rename one")
