"""pacemark: how much throughput an LLM endpoint gives within a latency budget, and how sure that is.

Names are imported on first use, so that a worker process loads only what it needs.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from pacemark.version import __version__ as __version__

if TYPE_CHECKING:
    from pacemark.answers.allowance import Allowance
    from pacemark.answers.datafile import data
    from pacemark.api import check, compare, demo, find, load, log_to_mlflow, plan, report, run, serve, show, sweep
    from pacemark.api import index as index
    from pacemark.api import resume as resume
    from pacemark.api import together as together
    from pacemark.api import versus as versus
    from pacemark.errors import BadInput, PacemarkError, RunFailed
    from pacemark.runs.calibration import calibrate
    from pacemark.runs.run import Run
    from pacemark.simulator import simulate

__all__ = [
    "Allowance", "BadInput", "PacemarkError", "Run", "RunFailed", "calibrate", "check", "compare", "data", "demo",
    "find", "index", "load", "log_to_mlflow", "plan", "report", "resume", "run", "serve", "show", "simulate", "sweep",
    "together", "versus",
]  # fmt: skip

_HOMES = {
    "Allowance": "answers.allowance", "BadInput": "errors", "PacemarkError": "errors", "RunFailed": "errors",
    "calibrate": "runs.calibration", "data": "answers.datafile", "Run": "runs.run", "simulate": "simulator",
}  # fmt: skip


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOMES.get(name, 'api')}"), name)


def __dir__() -> list[str]:
    return sorted([*__all__, "__version__"])
