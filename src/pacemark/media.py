"""Images and audio that go with a prompt, as they are ordered: `2x512x512`, `512x512:jpeg`, `10s`."""

from __future__ import annotations

import re
from typing import Literal, NamedTuple

from pacemark.errors import BadInput
from pacemark.values import seconds

__all__ = ["MEDIA_HOLE", "Images", "audio_s", "images"]

MEDIA_HOLE = "@media@"
"""Stands in a body for the base64 of each image, and of the audio after them."""

_IMAGES = re.compile(r"(\d+)x(\d+)x(\d+)(?::(png|jpeg))?", re.IGNORECASE)
_MOST_PIXELS, _MOST_S = 1 << 26, 600.0


class Images(NamedTuple):
    """The images of one request."""

    number: int
    width: int
    height: int
    form: Literal["png", "jpeg"]


def images(text: str) -> Images | None:
    """The images that `text` orders; None for no text. Raises BadInput."""
    if not text:
        return None
    found = _IMAGES.fullmatch(text.strip())
    if found is None:
        raise BadInput(f"--images {text!r}: give COUNTxWIDTHxHEIGHT, such as 2x512x512 or 1x1024x768:jpeg")
    count, width, height = (int(part) for part in found.groups()[:3])
    if not (count and width and height) or count * width * height > _MOST_PIXELS:
        raise BadInput(f"--images {text}: must have at least one pixel and at most {_MOST_PIXELS:,} a request")
    return Images(count, width, height, "jpeg" if (found[4] or "").lower() == "jpeg" else "png")


def audio_s(text: str | float) -> float:
    """The seconds of audio that `text` orders; 0 for none. Raises BadInput."""
    length = seconds("--audio", text) if text else 0.0
    if length > _MOST_S:
        raise BadInput(f"--audio {text}: at most {_MOST_S:g} s a request")
    return length
