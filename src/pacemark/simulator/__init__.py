"""The embedded endpoint: a pure engine, driven in virtual time or behind HTTP.

Names are imported on first use, so that the server's process does not load numpy and a run does not load the
server.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pacemark.simulator.engine.engine import Engine, EngineSpec, Speculation
    from pacemark.simulator.engine.model import FixedSpec
    from pacemark.simulator.engine.presets import PRESETS, Preset, customised, named
    from pacemark.simulator.engine.replicas import Scaling
    from pacemark.simulator.engine.theory import Capacity, capacity
    from pacemark.simulator.engine.unsteady import Unsteady
    from pacemark.simulator.engine.virtual import simulate
    from pacemark.simulator.server.databricks import Workspace
    from pacemark.simulator.server.faults import Fault, read_faults
    from pacemark.simulator.server.options import ServerOptions as Options
    from pacemark.simulator.server.process import Served, serving

__all__ = [
    "PRESETS", "Capacity", "Engine", "EngineSpec", "Fault", "FixedSpec", "Options", "Preset", "Scaling", "Served",
    "Speculation", "Unsteady", "Workspace", "capacity", "customised", "named", "read_faults", "serving", "simulate",
]  # fmt: skip

_HOMES = {
    **dict.fromkeys(("Capacity", "capacity"), "engine.theory"),
    **dict.fromkeys(("Engine", "EngineSpec", "Speculation"), "engine.engine"),
    **dict.fromkeys(("Fault", "read_faults"), "server.faults"),
    **dict.fromkeys(("FixedSpec",), "engine.model"),
    **dict.fromkeys(("Options",), "server.options"),
    **dict.fromkeys(("PRESETS", "Preset", "customised", "named"), "engine.presets"),
    **dict.fromkeys(("Scaling",), "engine.replicas"),
    **dict.fromkeys(("Served", "serving"), "server.process"),
    **dict.fromkeys(("Workspace",), "server.databricks"),
    **dict.fromkeys(("Unsteady",), "engine.unsteady"),
    **dict.fromkeys(("simulate",), "engine.virtual"),
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    home = import_module(f"{__name__}.{_HOMES[name]}")
    return home.ServerOptions if name == "Options" else getattr(home, name)
