"""The endpoint under test: its address, and the headers that open it."""

from __future__ import annotations

import os
import re
import socket
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from urllib.parse import SplitResult, urljoin, urlsplit

import msgspec

from pacemark.dialects.dialect import DIALECTS, Dialect
from pacemark.endpoint.address import Address
from pacemark.endpoint.proxy import Proxy, proxy_for
from pacemark.errors import BadInput
from pacemark.values import text_of
from pacemark.version import __version__

_HEADER_NAME = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")  # RFC 9110, 5.6.2
_OPEN_HEADERS = {
    "x-databricks-workspace-id",
    "host",
    "user-agent",
    "anthropic-version",
    "databricks-ai-gateway-request-tags",
}
"""Headers whose values are no secret, and part of many a message."""
_OPEN_QUERY = {"api-version"}
"""Fields of a query whose values are no secret."""
_OWN_HEADERS = {"content-length", "transfer-encoding", "connection"}

_DEFAULT_HEADERS = {
    "Content-Type": "application/json",
    "Accept": "text/event-stream, application/json",
    "Accept-Encoding": "identity",
    "User-Agent": f"pacemark/{__version__}",
}
_ENDINGS = [(path, d.name) for d in DIALECTS.values() for path in (d.path, d.whole_path) if path and "{" not in path]
_WHERE = sorted([("/invocations", ""), *_ENDINGS], key=lambda ending: -len(ending[0]))
"""How a path ends that is whole, longest first, and the API behind it; empty: whichever was asked for."""
_GEMINI = re.compile(r"/models/[^/]+:(?:streamG|g)enerateContent$")


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
    query: str = ""
    """What follows the path of every request, without its question mark: api-version=2024-10-21"""
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
        shown = {
            "url": self.url + (f"?{self._shown_query()}" if self.query else ""),
            "model": self.model or self.endpoint,
            "api": self.api,
        }
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
        fields = [field.partition("=") for field in self.query.split("&")]
        return [
            *(value for name, value in self.headers.items() if name.lower() not in _OPEN_HEADERS),
            *(value for name, _, value in fields if name.lower() not in _OPEN_QUERY),
        ]

    def _shown_query(self) -> str:
        fields = [field.partition("=") for field in self.query.split("&")]
        return "&".join(
            f"{name}{equals}{value if name.lower() in _OPEN_QUERY or not value else '***'}"
            for name, equals, value in fields
        )

    def posts_to(self, path: str) -> str:
        """Path and query of a request to `path` below the base URL."""
        query = f"{'&' if '?' in path else '?'}{self.query}" if self.query else ""
        return f"{urlsplit(self.url).path.rstrip('/')}{path}{query}"

    def renewed(self, headers: Mapping[str, str]) -> Target:
        """The same target with these headers changed; the old values stay secret."""
        past = tuple(dict.fromkeys((*self.past, *secrets_in(self._hidden()))))
        return msgspec.structs.replace(self, headers=self.headers | dict(headers), past=past)

    def head(self, path: str) -> bytes:
        """Request line and headers of a POST to `path` below the base URL, up to the length to be filled in.

        Through a proxy for plain http the request line names the whole URL (RFC 9112, 3.2.2).
        """
        netloc = urlsplit(self.url).netloc
        forward = forwarding(self)
        given = {name.lower() for name in self.headers}
        ours = {"Host": netloc} | _DEFAULT_HEADERS
        headers = {name: value for name, value in ours.items() if name.lower() not in given} | self.headers
        lines = [
            f"POST {f'http://{netloc}' if forward else ''}{self.posts_to(path) or '/'} HTTP/1.1",
            *(f"{name}: {value}" for name, value in sorted(headers.items(), key=lambda h: h[0].lower() != "host")),
            *([forward.credentials] if forward and forward.credentials else []),
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
    """Check and assemble a target. `headers` are pairs or `Name: value` texts; a value `@FILE` is what is in that file.
    Raises BadInput.

    `url` is the base URL, or the full path of an API: then that is where requests go, and which API it is, unless
    `api` names one. A query goes with every request.
    """
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
    if parts.fragment or url.endswith("#"):
        raise BadInput("the URL holds a fragment (#...), which no server ever sees: leave it out")
    if api not in DIALECTS:
        raise BadInput(f"--api {api!r} is not known: use {', '.join(DIALECTS)} or auto")
    if ca_file and not os.access(ca_file, os.R_OK):
        raise BadInput(f"--ca-file {ca_file!r} cannot be read")
    base, path, api = _where(parts, api)
    pairs = _headers(headers, api_key_env, DIALECTS[api])
    proxy = proxy_for(base)
    return Target(
        base, model, api, pairs, os.path.abspath(ca_file) if ca_file else "", insecure, path, query=parts.query,
        past=secrets_in(proxy.secrets) if proxy else (),
    )  # fmt: skip


def _where(parts: SplitResult, api: str) -> tuple[str, str, str]:
    """Base URL, path below it where the URL gives it whole, and the API. Raises BadInput where they contradict."""
    origin, whole = f"{parts.scheme}://{parts.netloc}", parts.path.rstrip("/")
    for path, named in _WHERE:
        if whole.endswith(path):
            # chat is what nobody has to ask for; ollama has two paths
            if named and api != "chat" and not named.startswith(api):
                raise BadInput(f"the URL ends in {path}, which is not where --api {api} goes: leave one of them out")
            at = whole.rindex(path)
            return f"{origin}{parts.path[:at]}".rstrip("/"), parts.path[at:], named or api
    if found := _GEMINI.search(whole):
        return f"{origin}{whole[: found.start()]}", found.group(), "gemini"
    dialect = DIALECTS[api]
    if dialect.beside_v1:
        whole = whole.removesuffix("/v1")
    return f"{origin}{whole or dialect.root}", "", api


def redirected(target: Target, path: str, location: str) -> Target | None:
    """The target that a redirect of a POST to `path` leads to, if a key may follow it there.

    `location` is the Location header; `path` is where the request went, below the base URL. Followed is what stays on
    the same host: another path, or https instead of http. None for another host or port, for https to http, for what
    is no URL, and for a redirect to the same place.
    """
    try:
        old = urlsplit(urljoin(target.url + "/", target.posts_to(path)))
        new = urlsplit(urljoin(old.geturl(), location.strip()))
        same = (new.scheme, new.port or _port(new.scheme)) == (old.scheme, old.port or _port(old.scheme))
    except ValueError:
        return None
    upgraded = (old.scheme, new.scheme) == ("http", "https")
    if not location.isascii() or not location.strip().isprintable() or " " in location.strip() or "@" in new.netloc:
        return None
    if not new.hostname or new.hostname != old.hostname or not (same or upgraded):
        return None
    if same and (new.path, new.query) == (old.path, old.query):
        return None
    below, base = new.path or "/", ""
    if path and below.rstrip("/").endswith(path.rstrip("/")):  # the base moved: the list of models is there too
        base = below.rstrip("/").removesuffix(path.rstrip("/"))
        below = below.removeprefix(base)
    if below == path and not target.path:
        below = ""
    return msgspec.structs.replace(target, url=f"{new.scheme}://{new.netloc}{base}", path=below, query=new.query)


def _port(scheme: str) -> int:
    return 443 if scheme == "https" else 80


def _headers(given: Sequence[str] | Mapping[str, str], api_key_env: str, dialect: Dialect) -> dict[str, str]:
    pairs = dict(given) if isinstance(given, Mapping) else dict(_pair(text) for text in given)
    pairs = {name: _from_file(name, value) if value.startswith("@") else value for name, value in pairs.items()}
    names = {name.lower() for name in pairs}
    key = _key(api_key_env)
    if key and not names & {"authorization", *(name.lower() for name in dialect.key_headers)}:
        pairs |= {name: f"Bearer {key}" if name == "Authorization" else key for name in dialect.key_headers}
    pairs = {name: value for name, value in dialect.headers if name not in names} | pairs
    for name, value in pairs.items():
        if name.lower() in _OWN_HEADERS:
            raise BadInput(f"--header {name}: pacemark sets this header itself")
        plain = value.isascii() and value.isprintable()
        if not _HEADER_NAME.fullmatch(name) or not plain or (name.lower() == "host" and (not value or " " in value)):
            raise BadInput(f"--header {name!r}: its name or value holds characters that a header cannot carry")
    return pairs


def _pair(text: str) -> tuple[str, str]:
    name, colon, value = text.partition(":")
    if not colon or not name.strip():
        raise BadInput("--header is not of the form 'Name: value'")
    return name.strip(), value.strip()


def _from_file(name: str, value: str) -> str:
    """The value that is in a file: on a command line it would show in the list of processes."""
    return text_of(f"--header {name}:", Path(value[1:])).strip()


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

    A proxy named by the environment (`proxy_for`) is used: through CONNECT for https, and for
    http as proxies know it, with the whole URL in the request line (`Target.head`).
    """
    host, port, proxy_header, look = target.host, target.port, "", "check the URL"
    proxy = proxy_for(target.url)
    if proxy:
        authority = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
        credentials = f"{proxy.credentials}\r\n" if proxy.credentials else ""
        if forwarding(target) is None:
            proxy_header = f"CONNECT {authority} HTTP/1.1\r\nHost: {authority}\r\n{credentials}\r\n"
        host, port, look = proxy.host, proxy.port, "check the proxy that the environment names"
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


def forwarding(target: Target) -> Proxy | None:
    """The proxy that forwards this target's requests, each with the whole URL in its request line; None where there is
    none, or where it has to be a tunnel: for TLS, and for a Host header that differs from the URL's, which a proxy
    would replace (RFC 9112, 3.2.2)."""
    if target.tls or any(name.lower() == "host" for name in target.headers):
        return None
    return proxy_for(target.url)
