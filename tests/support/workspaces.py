"""The embedded endpoint as a Databricks workspace that the environment names."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from typing import Any

import pytest

from pacemark.simulator import Served, Workspace
from pacemark.simulator import serving as embedded

NAME = "llama-bench"
PAT = "dapi-sesame-open-0123456789"
SECRET = "dose-principal-secret-9876543210"
TARGET = f"databricks:{NAME}"
QUICK: dict[str, Any] = {"input_tokens": 16, "output_tokens": 8, "timeout": 20.0}


def no_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing of this machine's own Databricks settings may leak in."""
    for name in [x for x in os.environ if x.startswith(("DATABRICKS_", "PACEMARK_"))]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("DATABRICKS_CONFIG_FILE", "/nowhere/databrickscfg")


@contextlib.contextmanager
def workspace(monkeypatch: pytest.MonkeyPatch, preset: str = "fixed", **fields: Any) -> Iterator[Served]:
    """The embedded endpoint as a workspace that the environment names, open to a personal access token."""
    own = {k: fields.pop(k) for k in list(fields) if k in Workspace.__struct_fields__}
    monkeypatch.setenv("SIMULATOR_PAT", PAT)
    monkeypatch.setenv("SIMULATOR_SECRET", SECRET)
    timing = {"ttft_ms": 5, "itl_ms": 1} if preset == "fixed" else {}
    given = {"endpoint": NAME, "client_id": "principal", "client_secret_env": "SIMULATOR_SECRET"} | own
    with embedded(preset, **timing, **fields, api_key_env="SIMULATOR_PAT", databricks=given) as served:
        monkeypatch.setenv("DATABRICKS_HOST", served.root)
        monkeypatch.setenv("DATABRICKS_TOKEN", PAT)
        yield served


def service_principal(monkeypatch: pytest.MonkeyPatch) -> None:
    """Sign on by OAuth instead."""
    monkeypatch.delenv("DATABRICKS_TOKEN")
    monkeypatch.setenv("DATABRICKS_CLIENT_ID", "principal")
    monkeypatch.setenv("DATABRICKS_CLIENT_SECRET", SECRET)
