"""The embedded endpoint: a pure engine, driven in virtual time or behind HTTP.

Names are imported on first use, so that the server's process does not load numpy and a run does not load the
server.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pacemark.simulator.databricks import Workspace
    from pacemark.simulator.engine import Engine, EngineSpec, Speculation
    from pacemark.simulator.faults import Fault, read_faults
    from pacemark.simulator.model import FixedSpec
    from pacemark.simulator.options import Options
    from pacemark.simulator.presets import PRESETS, Preset, customised, named
    from pacemark.simulator.process import Served, serving
    from pacemark.simulator.replicas import Scaling
    from pacemark.simulator.theory import Capacity, capacity
    from pacemark.simulator.virtual import simulate

__all__ = [
    "PRESETS", "Capacity", "Engine", "EngineSpec", "Fault", "FixedSpec", "Options", "Preset", "Scaling", "Served",
    "Speculation", "Workspace", "capacity", "customised", "named", "read_faults", "serving", "simulate",
]  # fmt: skip

_HOMES = {
    "Capacity": "theory", "Engine": "engine", "EngineSpec": "engine", "Fault": "faults", "FixedSpec": "model",
    "Options": "options", "PRESETS": "presets", "Preset": "presets", "Scaling": "replicas", "Served": "process",
    "Speculation": "engine", "Workspace": "databricks", "capacity": "theory", "customised": "presets",
    "named": "presets", "read_faults": "faults", "serving": "process", "simulate": "virtual",
}  # fmt: skip


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
