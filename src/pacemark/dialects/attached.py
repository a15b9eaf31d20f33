"""An image or a sound beside a prompt, as a dialect is to word it."""

from __future__ import annotations

from typing import Literal, NamedTuple

from pacemark.media import MEDIA_HOLE

__all__ = ["Attached"]


class Attached(NamedTuple):
    """What it is; its data are filled in for each request."""

    kind: Literal["image", "audio"]
    mime: str
    data: str = MEDIA_HOLE
    """Base64."""

    @property
    def url(self) -> str:
        """All of it, as a URL."""
        return f"data:{self.mime};base64,{self.data}"
