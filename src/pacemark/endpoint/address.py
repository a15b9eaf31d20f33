"""Where to connect, and how to trust what answers there."""

from __future__ import annotations

import functools
import ssl

import msgspec


class Address(msgspec.Struct, frozen=True):
    """Where to connect: a resolved address and what to do once there."""

    family: int
    sockaddr: tuple[str, int]
    host: str
    """Name for TLS, and for a proxy's CONNECT."""
    port: int
    tls: bool = False
    ca_file: str = ""
    insecure: bool = False
    proxy_header: str = ""
    """Non-empty: the socket address is a proxy; this is the CONNECT request to send it."""


class WireError(Exception):
    """A transport failure of a known kind."""

    def __init__(self, kind: str, detail: str) -> None:
        super().__init__(f"{kind}: {detail}")
        self.kind = kind
        self.detail = detail


@functools.cache
def tls_context(ca_file: str, insecure: bool) -> ssl.SSLContext:
    """A client context: verification on unless `insecure`, ALPN http/1.1.

    Raises WireError (kind `tls`) if `ca_file` cannot be read.
    """
    try:
        context = ssl.create_default_context(cafile=ca_file or None)
    except (OSError, ssl.SSLError) as error:
        raise WireError("tls", f"cannot use CA file {ca_file!r}: {error}") from None
    context.set_alpn_protocols(["http/1.1"])
    if insecure:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    return context
