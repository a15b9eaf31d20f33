"""Where requests come from: what to ask next, given the level and the number of the request in it."""

from __future__ import annotations

from typing import Any, NamedTuple, Protocol

from pacemark.trace import ABSENT

__all__ = ["Ask", "Heard", "Source"]


class Ask(NamedTuple):
    """One request: its body, and what is known of it before it is answered."""

    body: bytes
    """As it is sent, without its head."""
    words: int
    """Words of the prompt, after its salt."""
    tokens: int
    """Output tokens asked for."""
    asked_input: int = ABSENT
    shared_tokens: int = ABSENT
    origin: int = ABSENT
    turn: int = ABSENT
    """See `pacemark.trace.RawExchange`, for these four."""


class Heard(NamedTuple):
    """What became of a request, as its worker read it."""

    text: str
    """The answer, without its reasoning."""
    input_tokens: int = ABSENT
    output_tokens: int = ABSENT
    """As the server counted them, reasoning included."""


class Written(Protocol):
    """How the API wants a body; see `pacemark.dialects.bodies.Bodies`."""

    def text(self, prompt: str, tokens: int) -> bytes: ...
    def messages(self, messages: list[bytes], tokens: int) -> bytes: ...
    def recorded(self, body: dict[str, Any], tokens: int | None) -> bytes: ...


class Source(Protocol):
    """What to ask. The same level and index give the same request, whichever worker asks."""

    def ask(self, level: int, index: int, share: float = 1.0, stream: int = ABSENT) -> Ask | None:
        """The request `index` of `level`, for `share` of the answer's usual length; `stream` asks, in a closed loop.
        None where there is nothing to ask."""
        ...

    def heard(self, level: int, index: int, heard: Heard | None) -> float:
        """What became of a request; None where it failed, which ends its session. Gives how many seconds its stream
        should rest."""
        ...

    @property
    def alone(self) -> bool:
        """Whether no request hangs on another: neither on its answer, nor on whether there is one."""
        ...

    @property
    def listens(self) -> bool:
        """Whether `heard` has to know what was answered."""
        ...

    @property
    def empty(self) -> bool:
        """Whether nothing will come any more, once `ask` gave None."""
        ...
