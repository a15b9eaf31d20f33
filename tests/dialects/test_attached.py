"""Images and audio beside a prompt, in the words of each API."""

from __future__ import annotations

import json
from typing import Any

import pytest

from pacemark.dialects.bodies import with_system
from pacemark.dialects.dialect import DIALECTS, Options, attached, fill, template
from pacemark.errors import BadInput
from pacemark.media import MEDIA_HOLE
from pacemark.traffic import Workload

URL = f"data:image/png;base64,{MEDIA_HOLE}"
SOUND = {"type": "input_audio", "input_audio": {"data": MEDIA_HOLE, "format": "wav"}}
TEXT = {"type": "text", "text": "Hi"}
SOURCE = {"type": "base64", "media_type": "image/png", "data": MEDIA_HOLE}
SEEN: dict[str, Any] = {
    "chat": {"messages": [{"role": "user", "content": [TEXT, {"type": "image_url", "image_url": {"url": URL}}]}]},
    "responses": {
        "input": [
            {
                "role": "user",
                "content": [{"type": "input_text", "text": "Hi"}, {"type": "input_image", "image_url": URL}],
            }
        ]
    },
    "messages": {"messages": [{"role": "user", "content": [TEXT, {"type": "image", "source": SOURCE}]}]},
    "ollama": {"messages": [{"role": "user", "content": "Hi", "images": [MEDIA_HOLE]}]},
    "ollama-generate": {"prompt": "Hi", "images": [MEDIA_HOLE]},
    "gemini": {
        "contents": [
            {
                "role": "user",
                "parts": [{"text": "Hi"}, {"inlineData": {"mimeType": "image/png", "data": MEDIA_HOLE}}],
            }
        ]
    },
}
HEARD: dict[str, Any] = {
    "chat": lambda x: x["messages"][0]["content"][1] == SOUND,
    "responses": lambda x: x["input"][0]["content"][1] == SOUND,
    "gemini": lambda x: x["contents"][0]["parts"][1]["inlineData"]["mimeType"] == "audio/wav",
}


def body(api: str, workload: Workload) -> Any:
    dialect = DIALECTS[api]
    return json.loads(fill(template(dialect, "m", Options(), {}, attached(dialect, workload)), "Hi", 4))


@pytest.mark.parametrize("api", DIALECTS)
def test_an_image_stands_after_the_prompt(api: str) -> None:
    workload = Workload(images="1x8x8")
    if api not in SEEN:
        with pytest.raises(BadInput, match=f"--images: the API {api} takes none; chat, responses, messages, ollama"):
            body(api, workload)
        return
    assert SEEN[api].items() <= body(api, workload).items()
    several = json.dumps(body(api, Workload(images="3x8x8:jpeg")))
    assert several.count(MEDIA_HOLE) == 3
    assert several.count("image/jpeg") == (0 if api.startswith("ollama") else 3)


@pytest.mark.parametrize("api", DIALECTS)
def test_audio_stands_after_the_prompt(api: str) -> None:
    workload = Workload(audio="1s")
    if api not in HEARD:
        with pytest.raises(BadInput, match=f"--audio: the API {api} takes none; chat, responses, gemini do"):
            body(api, workload)
        return
    assert HEARD[api](body(api, workload))


@pytest.mark.parametrize("api", ["chat", "responses", "messages"])
def test_a_system_prompt_stands_before_them(api: str) -> None:
    dialect = DIALECTS[api]
    form = template(dialect, "m", Options(), {}, attached(dialect, Workload(images="1x8x8")))
    made = json.loads(with_system(form, "Be brief.", api))
    messages = made.get("messages") or made["input"]
    if api == "messages":
        assert made["system"] == "Be brief."
    else:
        assert messages[0] == {"role": "system", "content": "Be brief."}
    assert len(messages[-1]["content"]) == 2
