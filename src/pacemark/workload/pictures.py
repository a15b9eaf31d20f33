"""Pictures that are drawn, and what makes each request's own: a line of noise in a PNG, other tables in a JPEG.

A picture is drawn and packed once. Per request only its first bytes are made anew, so that no two requests have one
picture in common, whatever a server remembers them by, and a body of megabytes costs little more than its copy.
"""

from __future__ import annotations

import base64
import functools
import io
import struct
import zlib
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from pacemark.errors import BadInput
from pacemark.media import Images

__all__ = ["PackedJpeg", "PackedPng", "picture_of"]

Pixels = NDArray[np.uint8]
_DRAWINGS = 4
"""Different ones in a run."""
_PICTURES = 7
"""As in `pacemark.workload.synthetic`: what is drawn with one seed, apart."""
_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_EMPTY_BLOCK = b"\x00\x00\x00\xff\xff"
"""Of deflate: it holds nothing."""
_QUALITY = 85
_TABLE_STEPS = 24
"""Coefficients of a JPEG, from the coarsest on, whose step is each request's own."""


class PackedPng(NamedTuple):
    """A PNG without its first line."""

    head: bytes
    """What is before that line."""
    middle: bytes
    """Base64 of most of what comes after it."""
    rest: bytes
    """What is left of that, to be joined to the checksum."""
    row_bytes: int
    checksum: int
    """Adler-32 of the lines after the first, which are so many bytes:"""
    rest_bytes: int

    def encoded(self, rng: np.random.Generator) -> tuple[bytes, ...]:
        """Base64, in pieces, of the picture whose first line is noise of `rng`."""
        row = b"\x00" + rng.bytes(self.row_bytes - 1)
        checksum = _joined(zlib.adler32(row), self.checksum, self.rest_bytes)
        end = self.rest + _chunk(b"IDAT", checksum.to_bytes(4, "big")) + _chunk(b"IEND", b"")
        return base64.b64encode(self.head + _first_data(row)), self.middle, base64.b64encode(end)


class PackedJpeg(NamedTuple):
    """A JPEG, cut after its first quantisation table."""

    head: bytes
    rest: bytes
    """In base64."""
    table: int
    """Where in the head the table begins."""

    def encoded(self, rng: np.random.Generator) -> tuple[bytes, ...]:
        """Base64, in pieces, of the picture whose table is `rng`'s own."""
        at = self.table + 1  # the mean of each square stays as it is
        steps = np.frombuffer(self.head[at : at + _TABLE_STEPS], np.uint8).astype(np.uint16)
        own = np.minimum(steps + rng.integers(0, 4, len(steps)), 255).astype(np.uint8).tobytes()
        return base64.b64encode(self.head[:at] + own + self.head[at + _TABLE_STEPS :]), self.rest


def picture_of(images: Images, seed: int, number: int) -> PackedPng | PackedJpeg:
    """What the image `number` of every request is made of. Raises BadInput where nothing is there to make a JPEG."""
    return _packed(images, seed, number % _DRAWINGS)


@functools.lru_cache(maxsize=2 * _DRAWINGS)
def _packed(images: Images, seed: int, drawing: int) -> PackedPng | PackedJpeg:
    pixels = _drawn(images.width, images.height, np.random.default_rng([seed, drawing, _PICTURES]))
    return _jpeg(pixels) if images.form == "jpeg" else _png(pixels)


def _drawn(width: int, height: int, rng: np.random.Generator) -> Pixels:
    """Pixels (height, width, 3): a sky of two colours, discs and boxes on it, and a faint grain as a camera has."""
    y, x = np.linspace(0, 1, height, dtype=np.float32)[:, None], np.linspace(0, 1, width, dtype=np.float32)
    above, below = rng.uniform(60, 230, (2, 3)).astype(np.float32)
    pixels = above + (below - above) * (0.8 * y + 0.2 * x)[..., None]
    for _ in range(12):
        (cx, cy), (rx, ry) = rng.uniform(0, 1, 2), rng.uniform(0.04, 0.2, 2)
        rows, columns = abs(y[:, 0] - cy) < ry, abs(x - cx) < rx
        box = np.ix_(rows, columns)
        far_y, far_x = (y[rows] - cy) / ry, (x[columns] - cx) / rx
        inside = (far_x**2 + far_y**2 < 1) | (rng.random() < 0.5)
        shade = rng.uniform(0, 225, 3) + 30 * np.broadcast_to(far_y, inside.shape)[..., None]
        pixels[box] = np.where(inside[..., None], shade, pixels[box])
    pixels += rng.standard_normal(pixels.shape, np.float32) * 1.5
    whole: Pixels = np.clip(pixels, 0, 255).astype(np.uint8)
    return whole


# --- PNG (RFC 2083), with deflate (RFC 1951) in zlib's wrapping (RFC 1950)


def _png(pixels: Pixels) -> PackedPng:
    """Its first line stands in a block of its own, as it is; the others are packed, and know nothing of it."""
    height, width, _ = pixels.shape
    header = _chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))
    row = b"\x00" + pixels[0].tobytes()
    lines = pixels.reshape(height, -1)
    # Each line after the first is stored as what it differs by from the one above it; the second as it is.
    above = np.zeros_like(lines[1:])
    above[1:] = lines[1:-1]
    kinds = np.full((height - 1, 1), 2, np.uint8)
    kinds[:1] = 0
    rest = np.hstack([kinds, lines[1:] - above]).tobytes()
    packer = zlib.compressobj(1, zlib.DEFLATED, -15)
    data = _chunk(b"IDAT", packer.compress(rest) + packer.flush())
    whole = len(data) - len(data) % 3
    middle = base64.b64encode(data[:whole])
    return PackedPng(_SIGNATURE + header, middle, data[whole:], len(row), zlib.adler32(rest), len(rest))


def _first_data(row: bytes) -> bytes:
    """The chunk that holds the first line, so long that base64 can go on after it: a multiple of 3 with what is before
    it, which is 33 bytes."""
    stored = b"".join(
        b"\x00" + struct.pack("<HH", len(part), len(part) ^ 0xFFFF) + part
        for part in (row[at : at + 0xFFFF] for at in range(0, len(row), 0xFFFF))
    )
    data = b"\x78\x01" + stored
    while (len(data) + 12) % 3:
        data += _EMPTY_BLOCK
    return _chunk(b"IDAT", data)


def _chunk(name: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))


def _joined(first: int, second: int, size: int) -> int:
    """Adler-32 of two texts, the second of `size` bytes, from that of each (RFC 1950, 8.2)."""
    base = 65521
    low = (first & 0xFFFF) + (second & 0xFFFF) - 1
    high = (first >> 16) + (second >> 16) + size * ((first & 0xFFFF) - 1)
    return (high % base << 16) | low % base


# --- JPEG


def _jpeg(pixels: Pixels) -> PackedJpeg:
    try:
        from PIL import Image
    except ImportError:
        raise BadInput("--images as JPEG need a package: pip install pillow, or leave :jpeg out") from None
    into = io.BytesIO()
    Image.fromarray(pixels).save(into, "JPEG", quality=_QUALITY)
    data = into.getvalue()
    table = data.index(b"\xff\xdb\x00") + 5  # after its mark, its length and its number
    end = -(-(table + 64) // 3) * 3
    return PackedJpeg(data[:end], base64.b64encode(data[end:]), table)
