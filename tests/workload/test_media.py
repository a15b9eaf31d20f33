"""Images and audio: real files, each request's own, and the same for the same seed."""

from __future__ import annotations

import base64
import io
import sys
import wave

import numpy as np
import pytest

from pacemark.errors import BadInput
from pacemark.media import MEDIA_HOLE, audio_s, images
from pacemark.traffic import Workload, workload_of
from pacemark.workload.media import SAMPLES_PER_S, Media
from support.needed import needed

BODY = f'{{"a":"{MEDIA_HOLE}","b":"{MEDIA_HOLE}"}}'.encode()
HEAD = b"POST / HTTP/1.1\r\nContent-Length: "


def sent(workload: Workload, level: int = 0, index: int = 0) -> list[bytes]:
    """The files of one request."""
    request = Media(workload).request(HEAD, BODY, level, index)
    head, _, body = request.partition(b"\r\n\r\n")
    assert head == HEAD + str(len(body)).encode()
    return [base64.b64decode(part, validate=True) for part in body.split(b'"')[3::4]]


def pixels(data: bytes) -> np.ndarray[tuple[int, ...], np.dtype[np.uint8]]:
    found: np.ndarray[tuple[int, ...], np.dtype[np.uint8]] = np.asarray(needed("PIL.Image").open(io.BytesIO(data)))
    return found


@pytest.mark.parametrize("size", ["64x48", "1x1", "513x7", "22000x2"])
@pytest.mark.parametrize("form", ["png", "jpeg"])
def test_every_image_is_whole_and_its_own(size: str, form: str) -> None:
    workload = Workload(images=f"2x{size}:{form}", seed=5)
    files = [data for index in range(8) for data in sent(workload, index=index)]
    width, height = map(int, size.split("x"))
    seen = [pixels(data) for data in files]
    assert {image.shape for image in seen} == {(height, width, 3)}
    if (width, form) != (1, "jpeg"):  # of one pixel there are few
        assert len({image.tobytes() for image in seen}) == len(seen) == 16
    assert len({len(data) for data in files}) <= 2  # each of the two drawings is packed once


def test_an_image_hangs_on_the_seed_and_on_its_place_alone() -> None:
    one = Workload(images="2x32x32", seed=5)
    assert sent(one, 3, 7) == sent(one, 3, 7)
    others = [sent(one, 3, 8), sent(one, 4, 7), sent(Workload(images="2x32x32", seed=6), 3, 7)]
    assert all(sent(one, 3, 7)[n] != other[n] for other in others for n in range(2))


def test_nearly_all_of_an_image_is_packed_beforehand() -> None:
    first, second = (sent(Workload(images="1x256x256", audio="1s"), index=n)[0] for n in range(2))
    assert len(first) == len(second) > 50_000
    different = sum(a != b for a, b in zip(first, second, strict=True))
    assert 700 < different < 1000  # a line of 256 pixels, and checksums


def test_audio_is_a_file_of_its_length_and_its_own() -> None:
    files = [sent(Workload(images="1x8x8", audio="1.5s", seed=5), index=n)[1] for n in range(4)]
    assert len(set(files)) == 4
    for data in files:
        with wave.open(io.BytesIO(data)) as file:
            assert (file.getframerate(), file.getnchannels(), file.getsampwidth()) == (SAMPLES_PER_S, 1, 2)
            assert file.getnframes() == 1.5 * SAMPLES_PER_S
            samples = np.frombuffer(file.readframes(file.getnframes()), "<i2")
        assert 1000 < samples.std() < 20_000


def test_a_body_without_holes_is_sent_as_it_is() -> None:
    request = Media(Workload()).request(HEAD, b"{}", 0, 0)
    assert request == HEAD + b"2\r\n\r\n{}"
    media = Media(Workload(images="1x8x8"))
    assert media.alone(HEAD, BODY) != media.alone(HEAD, BODY)


@pytest.mark.parametrize("text", ["2x51", "0x5x5", "1x5", "512", "1x99999x99999", "1x2x3:gif", "1x2x3x4"])
def test_images_that_cannot_be_are_refused(text: str) -> None:
    with pytest.raises(BadInput, match="--images"):
        images(text)


def test_audio_that_cannot_be_is_refused() -> None:
    assert (audio_s("90ms"), audio_s(""), audio_s(2.5)) == (0.09, 0.0, 2.5)
    for text in ("loud", "20m"):
        with pytest.raises(BadInput, match="--audio"):
            audio_s(text)


def test_what_does_not_go_together_is_refused() -> None:
    with pytest.raises(BadInput, match="leave --turns out"):
        workload_of({"images": "1x8x8", "turns": 3})
    with pytest.raises(BadInput, match="--images is of prompts that are made up"):
        workload_of({"images": "1x8x8", "data": "x.jsonl"})


def test_a_jpeg_needs_a_package(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "PIL", None)
    with pytest.raises(BadInput, match="pip install pillow"):
        Media(Workload(images="1x9x9:jpeg", seed=77))
