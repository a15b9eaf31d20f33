"""The proxy that the environment names, and for which hosts it does not count."""

from __future__ import annotations

import base64
import ipaddress
import urllib.request
from typing import NamedTuple
from urllib.parse import SplitResult, unquote, urlsplit

from pacemark.errors import BadInput


class Proxy(NamedTuple):
    """An HTTP proxy."""

    host: str
    port: int
    credentials: str
    """The header line that names its user, without an end of line; empty where it wants none."""
    url: str
    """As the environment gives it, with a scheme."""

    @property
    def secrets(self) -> list[str]:
        """What opens it, in each form in which somebody could repeat it."""
        password = unquote(urlsplit(self.url).password or "")
        return [self.credentials.partition(": ")[2], password] if self.credentials else []


def proxy_for(url: str) -> Proxy | None:
    """The proxy between us and `url` (http_proxy, https_proxy, else all_proxy; no_proxy); None to go there directly.

    Written in capitals they count too, as they do for Python's other clients; HTTP_PROXY not in a CGI process.
    Loopback addresses are always reached directly. Raises BadInput for a proxy that cannot be used.
    """
    parts = urlsplit(url)
    host, port = parts.hostname or "", parts.port or (443 if parts.scheme == "https" else 80)
    if is_loopback(host) or urllib.request.proxy_bypass(f"{host}:{port}"):
        return None
    found = urllib.request.getproxies()
    named = found.get(parts.scheme) or found.get("all") or ""
    if not named or exempt(host, port, found.get("no", "")):
        return None
    if (proxy := _parsed(named if "://" in named else f"http://{named}")) is None:
        which = parts.scheme if found.get(parts.scheme) else "all"
        raise BadInput(
            f"{which}_proxy of the environment is not of the form http://host:port, and no other kind of proxy is"
            f" known here: change it, or have no_proxy name {host}"
        )
    return proxy


def exempt(host: str, port: int, rules: str) -> bool:
    """Whether no_proxy names `host`: itself, a domain above it (corp, .corp, *.corp), its network (10.0.0.0/8), any of
    them with the port, or `*`. Addresses are compared as numbers; names are not looked up."""
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        address = None
    for rule in rules.replace(",", " ").split():
        name, at = _split_port(rule.strip().lower())
        if at and at != port:
            continue
        if name == "*":
            return True
        if address is None:
            suffix = name.removeprefix("*").removeprefix(".")
            if suffix and (host.lower() == suffix or host.lower().endswith(f".{suffix}")):
                return True
            continue
        try:
            if address in ipaddress.ip_network(name, strict=False):
                return True
        except ValueError:  # a name, or nonsense
            continue
    return False


def _split_port(rule: str) -> tuple[str, int]:
    if rule.startswith("["):
        name, _, rest = rule[1:].partition("]")
        port = rest.removeprefix(":")
    elif rule.count(":") == 1:
        name, _, port = rule.partition(":")
    else:
        name, port = rule, ""
    return name, int(port) if port.isdecimal() else 0


def _parsed(proxy: str) -> Proxy | None:
    try:
        parts = urlsplit(proxy)
        port = parts.port
    except ValueError:
        parts, port = SplitResult("", "", "", "", ""), 0
    if parts.scheme != "http" or not parts.hostname or port == 0:
        return None
    credentials = ""
    if parts.username is not None:
        user = f"{unquote(parts.username)}:{unquote(parts.password or '')}"
        credentials = f"Proxy-Authorization: Basic {base64.b64encode(user.encode()).decode()}"
    return Proxy(parts.hostname, port or 80, credentials, proxy)


def is_loopback(host: str) -> bool:
    """Whether a name or address is that of this machine."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
