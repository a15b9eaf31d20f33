"""How a request says which run it is of, so that a test can be left out of a service's own tables, or found in them."""

from __future__ import annotations

import json
from typing import Any

__all__ = ["TAG", "body_tags", "header_tags", "request_id"]

TAG = "pacemark_run"
"""The key under which a request names its run, in `usage_context` and in the AI Gateway's tags."""


def request_id(run: str) -> str:
    """The `client_request_id` of every request of the run in the folder of that name."""
    return f"pacemark-{run}"


def body_tags(run: str) -> dict[str, Any]:
    """Fields of a request that Databricks keeps in its inference and usage tables."""
    return {"client_request_id": request_id(run), "usage_context": {TAG: run}}


def header_tags(run: str) -> dict[str, str]:
    """The header that the AI Gateway keeps in its usage table."""
    return {"Databricks-Ai-Gateway-Request-Tags": json.dumps({TAG: run})}
