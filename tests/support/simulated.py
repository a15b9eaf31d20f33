"""Helpers for tests that talk to the embedded endpoint over a plain socket."""

from __future__ import annotations

import json
import socket
from dataclasses import dataclass
from http.client import HTTPConnection, HTTPResponse
from typing import Any
from urllib.parse import urlsplit

from pacemark.simulator import Served

JSON = dict[str, Any]


@dataclass
class Received:
    """A whole answer."""

    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def events(self) -> list[Any]:
        """The data of each server-sent event, decoded; the last must be [DONE], which is left out."""
        lines = [e.removeprefix("data: ") for e in self.body.decode().split("\n\n") if e]
        assert lines[-1] == "[DONE]"
        return [json.loads(line) for line in lines[:-1]]


def connect(served: Served, timeout: float = 20.0) -> HTTPConnection:
    """A connection to the endpoint."""
    address = urlsplit(served.url)
    assert address.hostname
    return HTTPConnection(address.hostname, address.port, timeout=timeout)


def ask(
    served: Served | HTTPConnection,
    path: str,
    body: Any = None,
    *,
    method: str | None = None,
    headers: dict[str, str] | None = None,
) -> Received:
    """One request; `body` is bytes, or what becomes JSON."""
    connection = served if isinstance(served, HTTPConnection) else connect(served)
    data = body if body is None or isinstance(body, bytes) else json.dumps(body).encode()
    try:
        connection.request(method or ("GET" if data is None else "POST"), path, data, headers or {})
        response: HTTPResponse = connection.getresponse()
        with response:
            return Received(response.status, {k.lower(): v for k, v in response.getheaders()}, response.read())
    finally:
        if connection is not served:
            connection.close()


def chat(served: Served | HTTPConnection, model: str, text: str = "hello", **fields: Any) -> Received:
    """One chat request."""
    body = {"model": model, "messages": [{"role": "user", "content": text}], "max_tokens": 4} | fields
    return ask(served, "/v1/chat/completions", body)


def open_stream(served: Served, body: JSON) -> socket.socket:
    """Send a chat request over a bare socket, and leave its answer unread."""
    address = urlsplit(served.url)
    sock = socket.create_connection((address.hostname, address.port), timeout=20)
    data = json.dumps(body).encode()
    sock.sendall(b"POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\ncontent-length: %d\r\n\r\n%b" % (len(data), data))
    return sock
