"""An image or a sound beside a prompt, as a dialect is to word it."""

from __future__ import annotations

from typing import Any, Literal, NamedTuple

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

    @property
    def input_audio(self) -> dict[str, Any]:
        """A sound as a part of a message, as OpenAI words it in chat and in Responses."""
        return {"type": "input_audio", "input_audio": {"data": self.data, "format": "wav"}}
