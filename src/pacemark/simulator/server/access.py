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
        self._exchanged: dict[str, float] = {}

    def allowed(self, request: Request) -> bool:
        """Whether the request carries the key or a live token; False too where it carries nothing but must."""
        if not self._key and not self._client[1]:
            return True
        token = self.token(request)
        if self._key and compare_digest(token.encode(), self._key.encode()):
            return True
        return self._issued.get(token, 0.0) > time.monotonic()

    def token(self, request: Request) -> str:
        """The bearer token sent, or the key in the header of its own that Anthropic or Google have; or empty."""
        scheme, _, token = request.headers.get("authorization", "").partition(" ")
        if scheme.lower() == "bearer":
            return token
        return request.headers.get("x-api-key") or request.headers.get("x-goog-api-key") or ""

    def allowed_directly(self, request: Request) -> bool:
        """Whether the request carries a live token of the data plane, which opens an endpoint by its own URL."""
        return self._exchanged.get(self.token(request), 0.0) > time.monotonic()

    def issue(self, request: Request) -> dict[str, object]:
        """A new access token for client credentials (RFC 6749, section 4.4), or for another token (RFC 7523).

        Raises Refusal (400 or 401).
        """
        form = {name: values[0] for name, values in parse_qs(request.body.decode("latin-1")).items()}
        if form.get("grant_type") == "urn:ietf:params:oauth:grant-type:jwt-bearer":
            return self._exchange(form)
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
        return self._new(self._issued) | {"scope": form.get("scope", "all-apis")}

    def _exchange(self, form: dict[str, str]) -> dict[str, object]:
        if self._issued.get(form.get("assertion", ""), 0.0) <= time.monotonic():
            raise Refusal(400, "the assertion is no token of this workspace, or has expired", code="invalid_grant")
        if "query_inference_endpoint" not in form.get("authorization_details", ""):
            raise Refusal(400, "authorization_details name nothing to query", code="invalid_request")
        return self._new(self._exchanged)

    def _new(self, tokens: dict[str, float]) -> dict[str, object]:
        now = time.monotonic()
        for token in [token for token, end in tokens.items() if end <= now]:
            del tokens[token]
        token = secrets.token_urlsafe(32)
        tokens[token] = now + self._token_s
        return {"access_token": token, "token_type": "Bearer", "expires_in": int(self._token_s)}
