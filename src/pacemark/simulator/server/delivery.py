"""How an answer's bytes reach the client when all goes well."""

from __future__ import annotations

from pacemark.simulator.server.http import Connection, head, response

__all__ = ["Delivery", "chunk"]

_LAST = b"0\r\n\r\n"


def chunk(data: bytes) -> bytes:
    """One chunk of a chunked body; nothing for no data, which would end the body."""
    return b"%x\r\n%b\r\n" % (len(data), data) if data else b""


class Delivery:
    """One answer on its way: `start`, any number of `events` and `finish` for a stream, else `whole` alone."""

    content_type = "text/event-stream; charset=utf-8"
    headers: tuple[str, ...] = ("cache-control: no-cache",)

    def __init__(self, connection: Connection) -> None:
        self.connection = connection

    def start(self, opening: bytes) -> None:
        """Status, headers and the events that come before any token."""
        self.connection.send(head(200, self.content_type, *self.headers) + chunk(opening))

    def events(self, data: bytes) -> None:
        """One or more whole events."""
        self.connection.send(chunk(data))

    def finish(self, data: bytes) -> None:
        """The last events, and the end of the answer."""
        self.connection.send(chunk(data) + _LAST)
        self.connection.done()

    def whole(self, body: bytes) -> None:
        """An answer that is not streamed."""
        self.connection.send(response(200, body, *self.headers))
        self.connection.done()

    def abandon(self) -> None:
        """The client went away."""
