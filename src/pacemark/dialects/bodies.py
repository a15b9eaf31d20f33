"""From what is to be said to the body that says it: a prompt, a conversation, or a request that was recorded."""

from __future__ import annotations

from typing import Any

import msgspec

from pacemark.dialects.dialect import fill

__all__ = ["Bodies", "with_system", "takes_messages"]

_HOLE = "@prompt@"
_USER = msgspec.json.encode({"role": "user", "content": _HOLE})
"""Where the user's message stands in the template of an API of messages."""
_encode = msgspec.json.encode


def takes_messages(template: bytes) -> bool:
    """Whether a conversation can be said in the API that `template` is of."""
    return _USER in template


def with_system(template: bytes, system: str, api: str) -> bytes:
    """`template` with a system prompt before the user's: as a message of its own, where the API has that."""
    body = msgspec.json.decode(template, type=dict[str, Any])
    if api == "messages":
        return _encode(body | {"system": system})
    messages = next((body[name] for name in ("messages", "input") if isinstance(body.get(name), list)), None)
    if messages is None:
        return template.replace(_HOLE.encode(), _encode(f"{system}\n\n")[1:-1] + _HOLE.encode())
    messages.insert(0, {"role": "system", "content": system})
    return _encode(body)


class Bodies:
    """The bodies of one API, as its server takes them. Made in the workers, from the template of all requests."""

    def __init__(self, template: bytes) -> None:
        self._template = template
        self._halves: tuple[bytes, bytes] | None = None

    def text(self, prompt: str, tokens: int) -> bytes:
        """A request of one prompt for `tokens` tokens."""
        return fill(self._template, prompt, tokens)

    def messages(self, messages: list[bytes], tokens: int) -> bytes:
        """A request of a conversation: each message as JSON, in the order said."""
        if self._halves is None:
            before, _, after = self._template.partition(_USER)
            self._halves = before, after
        before, after = self._halves
        return b"%b%b%b" % (fill(before, "", tokens), b",".join(messages), fill(after, "", tokens))

    def recorded(self, body: dict[str, Any], tokens: int | None) -> bytes:
        """A request as it was recorded, asked of this server: model, streaming and, with `tokens`, length are ours."""
        own = msgspec.json.decode(fill(self._template, "", tokens or 0), type=dict[str, Any])
        limits = [name for name in own if name in _LIMITS]
        kept = {k: v for k, v in own.items() if k in _OURS or (tokens is not None and k in (*limits, *_LENGTHS))}
        dropped = (*_OURS, *_LENGTHS) if tokens is None else (*_OURS, *_LENGTHS, *_LIMITS)
        return _encode({k: v for k, v in body.items() if k not in dropped} | kept)


_OURS = ("model", "stream", "stream_options")
_LENGTHS = ("ignore_eos", "min_tokens")
_LIMITS = ("max_tokens", "max_completion_tokens", "max_output_tokens")
