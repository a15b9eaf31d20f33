"""Which APIs a server speaks: each path is sent a body without any field, which costs no token and which only a server
that knows the path refuses for its fields."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterator
from http.client import HTTPException
from typing import Literal
from urllib.parse import urlsplit

import msgspec

from pacemark.dialects.dialect import DIALECTS, Dialect
from pacemark.dialects.said import error_text, loosely, says_failure
from pacemark.dialects.sse import is_event_stream
from pacemark.endpoint.address import WireError
from pacemark.endpoint.offered import fetched
from pacemark.endpoint.target import Target
from pacemark.errors import BadInput

__all__ = ["AUTO", "apis_spoken", "recognised_api"]

Answering = Literal["yes", "no", "untold", "later"]
"""Whether a path is that of an API; untold: somebody else answered first, such as who asks for a key."""
AUTO = "auto"
"""The API that is yet to be found out."""
_NAMES = tuple(name for name in DIALECTS if name != "agent")  # that one's path is of the endpoint's own name
_NOWHERE = "/pacemark/no-such-path"
_UNSUPPORTED = re.compile(r"(?:does(?: not|n't)|is not|isn't) support|not implemented", re.IGNORECASE)
_STATUSES: dict[int, Answering] = {
    **dict.fromkeys((301, 302, 303, 307, 308, 401, 403, 407), "untold"),
    **dict.fromkeys((429, 502, 503, 504), "later"),
    **dict.fromkeys((405, 501), "no"),
}
"""What a status means whatever the body says."""
_AGAIN_S = 1.0
_PATIENCE_S = 5.0


def recognised_api(place: Target, wait_s: float = 0.0, tell: Callable[[str], None] = lambda line: None) -> Target:
    """The server at `place` as a target of the first API of the table that it speaks; no more is asked than that takes.

    A URL that names its API is not asked at all. Where the server does not tell it is taken for the first of them, so
    that the first request says what is amiss. Raises BadInput where it knows none, and where it is not ready within
    `wait_s` seconds.
    """
    if place.path:
        return place
    end_s = time.monotonic() + wait_s
    for candidate in _candidates(place):
        while (told := _told(candidate)) == "later" and time.monotonic() < end_s:
            tell(f"{place.url} is not ready; trying again in {_AGAIN_S:.0f} s")
            time.sleep(_AGAIN_S)
        if told == "later" and wait_s:
            raise BadInput(f"{place.url} was not ready within {wait_s:g} s: --wait says for how long to wait")
        if told != "no":
            return candidate
    raise BadInput(f"{place.url} speaks no API that pacemark knows ({', '.join(_NAMES)}): check the URL")


def apis_spoken(place: Target) -> list[str]:
    """All APIs that the server at `place` is seen to speak; that of `place` itself is taken for granted."""
    nowhere = msgspec.structs.replace(place, path=_NOWHERE)
    alike = _told(nowhere) != "no"  # it answers whatever is asked, so that its answers tell nothing
    seen = set() if alike else {c.api for c in _candidates(place) if c.api != place.api and _told(c) == "yes"}
    return [name for name in DIALECTS if name in seen or name == place.api]


def _candidates(place: Target) -> Iterator[Target]:
    """The target as each API would have it, at each base URL where that can be."""
    for name in _NAMES:
        dialect = DIALECTS[name]
        for base in _bases(place.url, dialect):
            headers = dict(dialect.headers) | _keyed(place.headers, dialect)
            yield msgspec.structs.replace(place, url=base, api=name, headers=headers, path="")


def _bases(url: str, dialect: Dialect) -> Iterator[str]:
    """Where the base URL of an API may be, given one that need not be its own; the likeliest first."""
    bare = url.removesuffix("/v1") if dialect.beside_v1 or dialect.root not in ("", "/v1") else url
    if not dialect.beside_v1 and not urlsplit(bare).path:
        yield bare + (dialect.root or "/v1")
        if dialect.root:
            return
    yield bare


def _keyed(headers: dict[str, str], dialect: Dialect) -> dict[str, str]:
    """A key that is sent as OpenAI has it, under the names that another API has for it."""
    scheme, _, key = headers.get("Authorization", "").partition(" ")
    if scheme != "Bearer" or {name.lower() for name in headers} & {"x-api-key", "x-goog-api-key"}:
        return headers
    rest = {name: value for name, value in headers.items() if name != "Authorization"}
    return rest | {name: f"Bearer {key}" if name == "Authorization" else key for name in dialect.key_headers}


def _told(place: Target) -> Answering:
    """What the answer to a body without fields tells of the API of `place`."""
    dialect = DIALECTS[place.api]
    path = place.path or dialect.place(place.model or "none", stream=dialect.streams)
    query = f"{'&' if '?' in path else '?'}{place.query}" if place.query else ""
    try:
        status, body = fetched(place, path + query, b"{}", _PATIENCE_S)
    except (OSError, HTTPException, WireError):
        return "later"
    if status in _STATUSES:
        return _STATUSES[status]
    said = error_text(body)
    if status == 404:  # of the path, or of the model that the body or the path names
        return "yes" if _is_json(body) and "model" in said.replace(path, "").lower() else "no"
    if status >= 400:
        return "no" if _UNSUPPORTED.search(said) else "yes"
    read = dialect.read(body, is_event_stream(body))
    return "yes" if read.kinds and not read.error else "no"


def _is_json(body: bytes) -> bool:
    try:
        return says_failure(loosely(body))
    except ValueError:
        return False
