"""A request that will not be served."""

from __future__ import annotations

from collections.abc import Sequence

__all__ = ["Refusal"]


class Refusal(Exception):
    """A request that will not be served; each face words it in its own way."""

    def __init__(
        self,
        status: int,
        message: str,
        *,
        kind: str = "invalid_request_error",
        code: str | None = None,
        headers: Sequence[str] = (),
    ) -> None:
        super().__init__(message)
        self.status = status
        self.message = message
        self.kind = kind
        self.code = code
        self.headers = headers
