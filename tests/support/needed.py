"""What a test cannot do without: missing at home the test is skipped, missing in CI it fails."""

from __future__ import annotations

import importlib
import os
from importlib.util import find_spec
from typing import Any, NoReturn

import pytest


def missing(reason: str) -> NoReturn:
    """End the test, or the module that is being imported, for want of something real."""
    if os.environ.get("CI"):
        pytest.fail(reason)
    pytest.skip(reason, allow_module_level=True)


def needed(name: str) -> Any:
    """The module `name`, one of the test dependencies."""
    try:
        return importlib.import_module(name)
    except ImportError:
        missing(f"needs {name}: install the test dependencies")


def late(name: str) -> Any:
    """The same, loaded at its first use: each process that runs some of the tests has to import all of them."""
    if find_spec(name) is None:
        missing(f"needs {name}: install the test dependencies")
    return _Late(name)


class _Late:
    def __init__(self, name: str) -> None:
        self._name = name

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_"):  # pytest asks whatever stands in a module whether it is a fixture, or a mock
            raise AttributeError(name)
        return getattr(importlib.import_module(self._name), name)
