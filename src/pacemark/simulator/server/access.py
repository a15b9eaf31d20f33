"""Who may ask: an API key, and OAuth tokens that a service principal gets for its secret and that expire."""

from __future__ import annotations

import base64
import binascii
import secrets
import time
from hmac import compare_digest
from urllib.parse import parse_qs

from pacemark.simulator.server.asks import Refusal
from pacemark.simulator.server.http import Request

__all__ = ["Access"]


class Access:
    """Checks bearer tokens. Without a key and a client secret everybody is let in."""

    def __init__(self, key: str = "", client_id: str = "", client_secret: str = "", token_s: float = 3600.0) -> None:
        self._key = key
        self._client = (client_id, client_secret)
        self._token_s = token_s
        self._issued: dict[str, float] = {}

    def allowed(self, request: Request) -> bool:
        """Whether the request carries the key or a live token; False too where it carries nothing but must."""
        if not self._key and not self._client[1]:
            return True
        token = self.token(request)
        if self._key and compare_digest(token.encode(), self._key.encode()):
            return True
        return self._issued.get(token, 0.0) > time.monotonic()

    def token(self, request: Request) -> str:
        """The bearer token sent, or empty."""
        scheme, _, token = request.headers.get("authorization", "").partition(" ")
        return token if scheme.lower() == "bearer" else ""

    def issue(self, request: Request) -> dict[str, object]:
        """A new access token for client credentials (RFC 6749, section 4.4). Raises Refusal (400 or 401)."""
        form = {name: values[0] for name, values in parse_qs(request.body.decode("latin-1")).items()}
        if form.get("grant_type") != "client_credentials":
            raise Refusal(400, "grant_type must be client_credentials", code="unsupported_grant_type")
        scheme, _, encoded = request.headers.get("authorization", "").partition(" ")
        given = form.get("client_id", ""), form.get("client_secret", "")
        if scheme.lower() == "basic":
            try:
                user, _, password = base64.b64decode(encoded).decode().partition(":")
            except (binascii.Error, UnicodeDecodeError):
                user = password = ""
            given = user, password
        expected = self._client
        if not expected[1] or not all(
            compare_digest(a.encode(), b.encode()) for a, b in zip(given, expected, strict=True)
        ):
            raise Refusal(401, "Client authentication failed", code="invalid_client")
        now = time.monotonic()
        self._issued = {token: end for token, end in self._issued.items() if end > now}
        token = secrets.token_urlsafe(32)
        self._issued[token] = now + self._token_s
        return {
            "access_token": token,
            "token_type": "Bearer",
            "expires_in": int(self._token_s),
            "scope": form.get("scope", "all-apis"),
        }
