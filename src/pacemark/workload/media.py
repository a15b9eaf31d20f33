"""What goes with a prompt beside its text: images and audio, each request's own, put into its body."""

from __future__ import annotations

import base64
import functools
import io
import wave

import numpy as np

from pacemark.media import MEDIA_HOLE, audio_s, images
from pacemark.traffic import Workload
from pacemark.workload.pictures import picture_of
from pacemark.workload.words import PROBES

__all__ = ["Media"]

_HOLE = MEDIA_HOLE.encode()
SAMPLES_PER_S = 16_000
_OWN_SAMPLES = 152
"""Of each request's audio, so many are its own: with the 44 bytes of the header before them a multiple of 3."""


class Media:
    """Fills the holes of bodies."""

    def __init__(self, workload: Workload) -> None:
        self._seed, self._alone = workload.seed, 0
        self._images, self._audio_s = images(workload.images), audio_s(workload.audio)
        if self._images is not None:  # drawn now, before any request is due
            for number in range(self._images.number):
                picture_of(self._images, self._seed, number)

    def request(self, head: bytes, body: bytes, level: int, index: int) -> bytes:
        """The request `index` of `level`: `head`, which ends where the length of the body stands, and `body` with its
        images and its audio."""
        if not (self._images or self._audio_s):
            return b"%b%d\r\n\r\n%b" % (head, len(body), body)
        pieces = self._filled(body, level, index)
        return b"".join([b"%b%d\r\n\r\n" % (head, sum(map(len, pieces))), *pieces])

    def alone(self, head: bytes, body: bytes) -> bytes:
        """The same outside any level; no two are alike."""
        self._alone += 1
        return self.request(head, body, PROBES, self._alone)

    def _filled(self, body: bytes, level: int, index: int) -> list[bytes]:
        first, *rest = body.split(_HOLE)
        pieces = [first]
        for number, after in enumerate(rest):
            rng = np.random.default_rng([self._seed, level, index, number])
            pieces += [*self._encoded(rng, number), after]
        return pieces

    def _encoded(self, rng: np.random.Generator, number: int) -> tuple[bytes, ...]:
        if self._images is not None and number < self._images.number:
            return picture_of(self._images, self._seed, number).encoded(rng)
        head, rest = _sound(self._audio_s, self._seed)
        own = rng.integers(-2000, 2000, _OWN_SAMPLES).astype("<i2").tobytes()
        return base64.b64encode(head + own), rest


@functools.lru_cache(maxsize=2)
def _sound(length_s: float, seed: int) -> tuple[bytes, bytes]:
    """The header of a WAV file of so many seconds, and base64 of what follows the samples that are a request's own:
    a voice's tone that rises and falls, in syllables."""
    rng = np.random.default_rng([seed, 11])
    t = np.arange(max(_OWN_SAMPLES + 1, round(length_s * SAMPLES_PER_S))) / SAMPLES_PER_S
    pitch = 120 * (1 + 0.2 * np.sin(2 * np.pi * 0.4 * t + rng.uniform(0, 6)))
    phase = 2 * np.pi * np.cumsum(pitch) / SAMPLES_PER_S
    tone = sum(np.sin(k * phase + rng.uniform(0, 6)) / k for k in range(1, 9))
    loud = 0.5 + 0.5 * np.sin(2 * np.pi * 4 * t)
    samples = (6000 * tone * loud + rng.normal(0, 60, len(t))).clip(-32768, 32767).astype("<i2").tobytes()
    into = io.BytesIO()
    with wave.open(into, "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(SAMPLES_PER_S)
        file.writeframes(samples)
    data = into.getvalue()
    head = len(data) - len(samples)
    return data[:head], base64.b64encode(data[head + 2 * _OWN_SAMPLES :])
