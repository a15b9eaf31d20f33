"""TLS over a socket that somebody else reads and writes."""

from __future__ import annotations

import ssl
from typing import NamedTuple


class Tls(NamedTuple):
    """A session after its handshake, and the encrypted bytes that come in and go out."""

    session: ssl.SSLObject
    incoming: ssl.MemoryBIO
    outgoing: ssl.MemoryBIO

    def sealed(self, plain: memoryview) -> memoryview:
        """`plain`, encrypted."""
        while plain:  # one call may take less than all of it
            plain = plain[self.session.write(plain) :]
        return memoryview(self.outgoing.read())
