"""Cases of which the fast tests try a few, and the slow ones the rest."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest


def first(fast: int, cases: Sequence[Any]) -> list[Any]:
    """Values of one parameter, or tuples of values of several; all after the first `fast` are slow."""
    rest = [case if isinstance(case, tuple) else (case,) for case in cases[fast:]]
    return [*cases[:fast], *(pytest.param(*values, marks=pytest.mark.slow(shared=True)) for values in rest)]
