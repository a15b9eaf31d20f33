"""Serves the live page of a run on this machine: GET alone, for who has the token, under a name of this machine."""

from __future__ import annotations

import hmac
import secrets
from collections.abc import Callable
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import msgspec

from pacemark.errors import BadInput
from pacemark.runs.watching import run_now

__all__ = ["Viewer"]

PORT = 8787
_HOSTS = ("127.0.0.1", "localhost", "::1")
_HEADERS = {
    "Cache-Control": "no-store",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "X-Frame-Options": "DENY",
    "Content-Security-Policy": "default-src 'none'; connect-src 'self'; style-src 'unsafe-inline'; img-src data:; "
    "script-src 'self'; frame-ancestors 'none'; base-uri 'none'; form-action 'none'",
}


class Viewer:
    """The server of one run's live page. A context manager; leaving it closes its port."""

    def __init__(self, folder: Path, port: int | None = None) -> None:
        """Listen on 127.0.0.1 at `port`; without one at `PORT`, or where that is taken at any that is free. Raises
        BadInput where `port` is taken."""
        self.token = secrets.token_urlsafe(16)
        self._folder = folder
        from pacemark.reporting.live import live_page, live_script

        self._pages: dict[str, tuple[str, Callable[[], bytes]]] = {
            "/": ("text/html; charset=utf-8", lambda: live_page(self.token).encode()),
            "/live.js": ("text/javascript; charset=utf-8", lambda: live_script().encode()),
            "/state": ("application/json", lambda: msgspec.json.encode(run_now(folder))),
        }
        live_script()  # it takes seconds to make where it is not kept
        self._server = self._listening(port)
        self.port: int = self._server.server_address[1]

    def _listening(self, port: int | None) -> ThreadingHTTPServer:
        viewer = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                viewer._answer(self)

            def log_message(self, *_: object) -> None:
                pass

        for tried in (PORT, 0) if port is None else (port,):
            try:
                return ThreadingHTTPServer(("127.0.0.1", tried), Handler)
            except OSError as error:
                problem = error
        raise BadInput(f"--port {port}: {problem.strerror}")

    @property
    def url(self) -> str:
        """Where the page is, token and all."""
        return f"http://127.0.0.1:{self.port}/?token={self.token}"

    def _answer(self, asked: BaseHTTPRequestHandler) -> None:
        url = urlsplit(asked.path)
        given = asked.headers.get("X-Token") or parse_qs(url.query).get("token", [""])[0]
        host = urlsplit(f"//{asked.headers.get('Host', '')}").hostname
        if host not in _HOSTS or not hmac.compare_digest(given.encode(), self.token.encode()):
            return self._send(
                asked, HTTPStatus.FORBIDDEN, "text/plain", b"the whole address is needed, token and all\n"
            )
        if url.path not in self._pages:
            return self._send(asked, HTTPStatus.NOT_FOUND, "text/plain", b"there is no such page\n")
        kind, made = self._pages[url.path]
        try:
            body = made()
        except (BadInput, OSError) as error:
            return self._send(asked, HTTPStatus.SERVICE_UNAVAILABLE, "text/plain", f"{error}\n".encode())
        self._send(asked, HTTPStatus.OK, kind, body)

    @staticmethod
    def _send(asked: BaseHTTPRequestHandler, status: HTTPStatus, kind: str, body: bytes) -> None:
        asked.send_response(status)
        for name, value in {**_HEADERS, "Content-Type": kind, "Content-Length": str(len(body))}.items():
            asked.send_header(name, value)
        asked.end_headers()
        asked.wfile.write(body)

    def serve(self) -> None:
        """Answer until `close`, or an interruption."""
        self._server.serve_forever(poll_interval=0.2)

    def close(self) -> None:
        """Stop, and give the port back."""
        self._server.shutdown()
        self._server.server_close()
