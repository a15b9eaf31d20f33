"""Packages that a test cannot do without: missing at home it is skipped, missing in CI it fails."""

from __future__ import annotations

import importlib
import os
from typing import Any

import pytest


def needed(name: str) -> Any:
    """The module `name`, one of the test dependencies."""
    try:
        return importlib.import_module(name)
    except ImportError:
        reason = f"needs {name}: install the test dependencies"
        if os.environ.get("CI"):
            pytest.fail(reason)
        pytest.skip(reason, allow_module_level=True)
