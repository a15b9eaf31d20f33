"""The endpoint under test: its address, and the headers that open it."""

from __future__ import annotations

import base64
import ipaddress
import os
import re
import socket
import urllib.request
from collections.abc import Iterable, Mapping, Sequence
from http.client import HTTPException, HTTPMessage
from typing import IO
from urllib.parse import SplitResult, unquote, urlsplit

import msgspec

from pacemark.dialects.dialect import DIALECTS, spoken
from pacemark.endpoint.address import Address, WireError, tls_context
from pacemark.errors import BadInput

_HEADER_NAME = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")  # RFC 9110, 5.6.2
_OPEN_HEADERS = {"x-databricks-workspace-id"}
"""Headers whose values are no secret; this one is part of many hosts' names."""
_OWN_HEADERS = {"host", "content-length", "transfer-encoding", "connection"}

_DEFAULT_HEADERS = {
    "Content-Type": "application/json",
    "Accept": "text/event-stream, application/json",
    "Accept-Encoding": "identity",
    "User-Agent": "pacemark",
}


class Target(msgspec.Struct, frozen=True):
    """An endpoint. `headers` may hold secrets: they are sent, and never shown or stored."""

    url: str
    """Base URL, without a trailing slash: http://host:8000/v1"""
    model: str = ""
    api: str = "chat"
    headers: dict[str, str] = {}
    ca_file: str = ""
    insecure: bool = False
    path: str = ""
    """Where to post, below the base URL; empty: where the dialect does."""
    endpoint: str = ""
    """Name of the endpoint in its Databricks workspace, where it is in one."""
    past: tuple[str, ...] = ()
    """Secrets that are no header's value, or are no longer: never shown or stored either."""

    @property
    def host(self) -> str:
        """Host name, without the brackets of an IPv6 address."""
        return urlsplit(self.url).hostname or ""

    @property
    def port(self) -> int:
        """The port, given or implied by the scheme."""
        return urlsplit(self.url).port or (443 if self.tls else 80)

    @property
    def tls(self) -> bool:
        """Whether the scheme is https."""
        return urlsplit(self.url).scheme == "https"

    def described(self) -> dict[str, str]:
        """What may be shown of this target."""
        shown = {"url": self.url, "model": self.model or self.endpoint, "api": self.api}
        return shown | ({"endpoint": self.endpoint} if self.endpoint else {})

    def __repr__(self) -> str:
        """Without its headers, so that no traceback shows them."""
        return f"Target({self.described()})"

    def redacted(self, text: str) -> str:
        """`text` without any value of the headers that open this target, or opened it before."""
        for secret in (*secrets_in(self._hidden()), *self.past):
            text = text.replace(secret, "***")
        return text

    def _hidden(self) -> list[str]:
        return [value for name, value in self.headers.items() if name.lower() not in _OPEN_HEADERS]

    def renewed(self, headers: Mapping[str, str]) -> Target:
        """The same target with these headers changed; the old values stay secret."""
        past = tuple(dict.fromkeys((*self.past, *secrets_in(self._hidden()))))
        return msgspec.structs.replace(self, headers=self.headers | dict(headers), past=past)

    def head(self, path: str) -> bytes:
        """Request line and headers of a POST to `path` below the base URL, up to the length to be filled in."""
        parts = urlsplit(self.url)
        given = {name.lower() for name in self.headers}
        headers = {name: value for name, value in _DEFAULT_HEADERS.items() if name.lower() not in given}
        lines = [
            f"POST {parts.path.rstrip('/')}{path} HTTP/1.1",
            f"Host: {parts.netloc}",
            *(f"{name}: {value}" for name, value in (headers | self.headers).items()),
        ]
        return "\r\n".join(lines).encode("ascii") + b"\r\nContent-Length: "


def secrets_in(values: Iterable[str]) -> tuple[str, ...]:
    """What must not be shown of header values: each, and what follows a scheme such as Bearer."""
    return tuple(s for value in values for s in (value, value.partition(" ")[2]) if len(s) >= 4)


def target(
    url: str,
    *,
    model: str = "",
    api: str = "chat",
    api_key_env: str = "",
    headers: Sequence[str] | Mapping[str, str] = (),
    ca_file: str = "",
    insecure: bool = False,
) -> Target:
    """Check and assemble a target. `headers` are pairs or `Name: value` texts. Raises BadInput."""
    if not (url.isascii() and url.isprintable()) or " " in url:
        raise BadInput("the URL holds a space or a character outside ASCII: percent-encode it")
    try:
        parts = urlsplit(url)
    except ValueError as error:
        raise BadInput(f"the URL cannot be read: {error}") from None
    if "@" in parts.netloc:
        raise BadInput("the URL holds a user name or password: use --api-key-env or --header instead")
    if parts.scheme not in ("http", "https") or not parts.hostname:
        hint = f"http://{url}" if "://" not in url else "http://host:8000/v1"
        raise BadInput(f"{url!r} is no base URL: it must start with http:// or https://, for example {hint}")
    if _port_of(parts) == 0:
        raise BadInput(f"{url!r} has no usable port: give a number from 1 to 65535 after the colon")
    if parts.query or parts.fragment:
        raise BadInput("the URL holds a query or a fragment: give the base only, such as http://host:8000/v1")
    if api not in DIALECTS:
        raise BadInput(f"--api {api!r} is not known: use {spoken()}")
    if ca_file and not os.access(ca_file, os.R_OK):
        raise BadInput(f"--ca-file {ca_file!r} cannot be read")
    pairs = dict(headers) if isinstance(headers, Mapping) else dict(_pair(text) for text in headers)
    key = _key(api_key_env)
    if key and not any(name.lower() == "authorization" for name in pairs):
        pairs["Authorization"] = f"Bearer {key}"
    for name, value in pairs.items():
        if name.lower() in _OWN_HEADERS:
            raise BadInput(f"--header {name}: pacemark sets this header itself")
        if not _HEADER_NAME.fullmatch(name) or not (value.isascii() and value.isprintable()):
            raise BadInput(f"--header {name!r}: its name or value holds characters that a header cannot carry")
    url = f"{parts.scheme}://{parts.netloc}{parts.path}".rstrip("/")
    return Target(url, model, api, pairs, os.path.abspath(ca_file) if ca_file else "", insecure)


def _pair(text: str) -> tuple[str, str]:
    name, colon, value = text.partition(":")
    if not colon or not name.strip():
        raise BadInput("--header is not of the form 'Name: value'")
    return name.strip(), value.strip()


def _port_of(parts: SplitResult) -> int | None:
    """The port of a URL; None where it names none, 0 where it is no port."""
    try:
        return parts.port
    except ValueError:
        return 0


def _key(variable: str) -> str:
    if variable:
        key = os.environ.get(variable, "").strip()
        if not key:
            raise BadInput(f"--api-key-env {variable}: that environment variable is empty or not set")
        return key
    return os.environ.get("PACEMARK_API_KEY", "").strip()


def resolve(target: Target) -> list[Address]:
    """Every address of the target, looked up once per run. Raises BadInput where there is none.

    A proxy named by the environment (https_proxy, http_proxy, no_proxy) is used through CONNECT.
    """
    host, port, proxy_header, look = target.host, target.port, "", "check the URL"
    proxy = _proxy_of(target)
    if proxy:
        authority = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
        host, port, credentials = _proxy_parts(proxy)
        proxy_header = f"CONNECT {authority} HTTP/1.1\r\nHost: {authority}\r\n{credentials}\r\n"
        look = "check the proxy that the environment names"
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError) as error:
        reason = getattr(error, "strerror", None) or error
        raise BadInput(f"no address for host {host!r}: {reason}; {look}") from None
    places = dict.fromkeys((family, (str(place[0]), int(place[1]))) for family, _, _, _, place in found)
    return [
        Address(family, place, target.host, target.port, target.tls, target.ca_file, target.insecure, proxy_header)
        for family, place in places
    ]


def _proxy_of(target: Target) -> str:
    if urllib.request.proxy_bypass(f"{target.host}:{target.port}") or _is_loopback(target.host):
        return ""
    return urllib.request.getproxies().get("https" if target.tls else "http", "")


def _proxy_parts(proxy: str) -> tuple[str, int, str]:
    """Host, port and, where the proxy's URL holds a user, the header line that names it."""
    try:
        parts = urlsplit(proxy if "://" in proxy else f"http://{proxy}")
    except ValueError:
        parts = SplitResult("", "", "", "", "")
    if parts.scheme != "http" or not parts.hostname or _port_of(parts) == 0:
        raise BadInput("the proxy that the environment names is not of the form http://host:port; see no_proxy")
    if parts.username is None:
        return parts.hostname, parts.port or 80, ""
    user = f"{unquote(parts.username)}:{unquote(parts.password or '')}"
    return (
        parts.hostname,
        parts.port or 80,
        f"Proxy-Authorization: Basic {base64.b64encode(user.encode()).decode()}\r\n",
    )


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    """A redirect would carry the key to another host."""

    def redirect_request(
        self, req: urllib.request.Request, fp: IO[bytes], code: int, msg: str, headers: HTTPMessage, newurl: str
    ) -> None:
        """Follow none."""


def only_model(target: Target) -> str:
    """The model of an endpoint that lists exactly one, for users who did not name it; empty where none is listed.

    Raises BadInput where there are several to choose from.
    """
    request = urllib.request.Request(f"{target.url}/models", headers=target.headers)
    proxy = _proxy_of(target)
    ways: list[urllib.request.BaseHandler] = [
        _NoRedirect(),
        urllib.request.ProxyHandler({"http": proxy, "https": proxy} if proxy else {}),
    ]
    try:
        if target.tls:
            ways.append(urllib.request.HTTPSHandler(context=tls_context(target.ca_file, target.insecure)))
        with urllib.request.build_opener(*ways).open(request, timeout=10) as answer:
            names = [str(entry["id"]) for entry in msgspec.json.decode(answer.read())["data"]]
    except (OSError, ValueError, KeyError, TypeError, HTTPException, WireError):
        return ""  # whatever is wrong will show, with a better message, in the first real request
    if len(names) > 1:
        raise BadInput(f"{target.url} serves several models; choose with --model: {', '.join(names[:8])}")
    return names[0] if names else ""
