"""A Python process of our own beside this one: what it is started with, so that it finds the modules that this one
finds and takes no core for itself."""

from __future__ import annotations

import os
import sys
import sysconfig

ONE_THREAD = {"OPENBLAS_NUM_THREADS": "1"}
"""Threads for linear algebra, of which there is next to none, would spin on cores that are measured on, and be in the
way of a fork. To be set before numpy is loaded."""


def command(module: str, *words: str) -> list[str]:
    """The command that runs `module`. -P: a file such as random.py in the working directory must not stand in for the
    library's."""
    return [sys.executable, "-P", "-m", module, *words]


def environment() -> dict[str, str]:
    """This process's environment, with the places where it finds its modules, Python's own library first: a file named
    random.py beside a user's script is then not taken for it."""
    own = sysconfig.get_path("stdlib")
    library = [p for p in sys.path if p.startswith(own) and "site-packages" not in p]
    paths = library + [os.path.abspath(p) for p in sys.path if p and p not in library]
    return os.environ | {"PYTHONPATH": os.pathsep.join(paths)} | ONE_THREAD
