"""The embedded endpoint: a pure engine, driven in virtual time or behind HTTP.

Names are imported on first use, so that the server's process does not load numpy and a run does not load the
server.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pacemark.simulator.engine import Engine, EngineSpec, Speculation
    from pacemark.simulator.model import FixedSpec
    from pacemark.simulator.presets import PRESETS, Preset, customised, named
    from pacemark.simulator.process import Served, serving
    from pacemark.simulator.virtual import simulate

__all__ = [
    "PRESETS", "Engine", "EngineSpec", "FixedSpec", "Preset", "Served", "Speculation", "customised", "named",
    "serving", "simulate",
]  # fmt: skip

_HOMES = {
    "Engine": "engine", "EngineSpec": "engine", "Speculation": "engine", "FixedSpec": "model", "PRESETS": "presets",
    "Preset": "presets", "customised": "presets", "named": "presets", "Served": "process", "serving": "process",
    "simulate": "virtual",
}  # fmt: skip


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
