"""Cases of which the fast tests try a few, and the slow ones the rest."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import pytest


def first(fast: int, cases: Iterable[Any]) -> list[Any]:
    """Parameters of a test; all after the first `fast` are slow."""
    return [case if number < fast else pytest.param(case, marks=pytest.mark.slow) for number, case in enumerate(cases)]
