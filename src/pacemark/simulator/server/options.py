"""Everything that can be said about how the embedded endpoint serves."""

from __future__ import annotations

import msgspec

from pacemark.simulator.engine.presets import Preset
from pacemark.simulator.server.databricks import Workspace
from pacemark.simulator.server.faults import Fault

__all__ = ["ServerOptions"]


class ServerOptions(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How to serve. No secret is in it: keys are named by the environment variables that hold them."""

    preset: Preset
    host: str = "127.0.0.1"
    port: int = 0
    """0: any that is free."""
    seed: int = 0
    strict: bool = False
    """Refuse request fields that OpenAI does not know, such as ignore_eos."""
    api_key_env: str = ""
    """Environment variable with the key that clients must send; empty: everybody may ask."""
    requests_per_s: float | None = None
    """More than these are answered with 429."""
    burst: int | None = None
    """How many may come at once; None: a second's worth."""
    parallel: int | None = None
    """More requests in flight than these are answered with 429."""
    tls: bool = False
    certfile: str = ""
    """With `keyfile`: the certificate to present; else one is made for the occasion."""
    keyfile: str = ""
    databricks: Workspace | None = None
    """Be a Databricks workspace too."""
    faults: list[Fault] = []
    until_eof: bool = False
    """Stop when standard input ends, so that the endpoint cannot outlive what started it."""
