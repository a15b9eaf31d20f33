"""Images and audio that come with a request: decoded as far as tells whether they are whole, and what they cost."""

from __future__ import annotations

import base64
import binascii
import io
import struct
import wave
import zlib

from pacemark.simulator.server.refusal import Refusal

__all__ = ["media_tokens"]

_PATCH = 28
"""A token is a square of so many pixels, as in Qwen's models that see."""
_TOKENS_PER_S = 25
"""Of audio."""
_PNG = b"\x89PNG\r\n\x1a\n"
_FRAMES = {*range(0xC0, 0xD0)} - {0xC4, 0xC8, 0xCC}
"""Marks of a JPEG after which its size stands."""


def media_tokens(encoded: str) -> int:
    """Tokens that an image or a sound costs, given as base64 or as a data: URL. Raises Refusal where it is none, or not
    whole."""
    text = encoded.partition(";base64,")[2] if encoded.startswith("data:") else encoded
    try:
        data = base64.b64decode(text, validate=True)
        if data.startswith(b"RIFF"):
            return _sound(data)
        width, height = _png(data) if data.startswith(_PNG) else _jpeg(data)
    except (binascii.Error, wave.Error, zlib.error, struct.error, EOFError, ValueError, IndexError) as error:
        raise Refusal(400, f"an image or a sound cannot be decoded: {error}") from None
    return max(1, round(width / _PATCH) * round(height / _PATCH))


def _sound(data: bytes) -> int:
    with wave.open(io.BytesIO(data)) as file:
        frames, rate = file.getnframes(), file.getframerate()
        if len(file.readframes(frames)) != frames * file.getsampwidth() * file.getnchannels():
            raise ValueError("the sound is cut off")
        return max(1, int(_TOKENS_PER_S * frames / rate))


def _png(data: bytes) -> tuple[int, int]:
    """Width and height; every checksum is looked at, and whether all lines are there."""
    at, packed, size = len(_PNG), [], (0, 0)
    while True:
        length, name = struct.unpack_from(">I4s", data, at)
        body, end = data[at + 8 : at + 8 + length], at + 12 + length
        if struct.unpack_from(">I", data, end - 4)[0] != zlib.crc32(name + body):
            raise ValueError("a checksum of the image is wrong")
        if name == b"IHDR":
            size = struct.unpack_from(">II", body)
        elif name == b"IDAT":
            packed.append(body)
        elif name == b"IEND":
            break
        at = end
    if len(zlib.decompress(b"".join(packed))) != size[1] * (1 + 3 * size[0]):
        raise ValueError("the image has too few lines, or too many")
    return size


def _jpeg(data: bytes) -> tuple[int, int]:
    """Width and height, of what begins and ends as a JPEG does."""
    if not (data.startswith(b"\xff\xd8") and data.endswith(b"\xff\xd9")):
        raise ValueError("it is neither PNG nor JPEG, or it is cut off")
    at = 2
    while data[at + 1] not in _FRAMES:
        at += 2 + int.from_bytes(data[at + 2 : at + 4], "big")
    height, width = struct.unpack_from(">HH", data, at + 5)
    return width, height
