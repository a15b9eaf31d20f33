"""Opens connections: what happens on them before the clock matters."""

from __future__ import annotations

import asyncio
import errno
import resource
import socket
import ssl
from time import monotonic_ns

from pacemark.endpoint.address import Address, WireError, tls_context
from pacemark.instrument.connection import READ_BYTES, SLICE_BYTES, Connection
from pacemark.instrument.sealing import Tls


async def opened(loop: asyncio.AbstractEventLoop, address: Address, timeout_s: float = 30.0) -> Connection:
    """Connect, shake hands, and be ready to send. Raises WireError."""
    begun = monotonic_ns()
    try:
        sock = socket.socket(address.family, socket.SOCK_STREAM)
    except OSError as error:  # out of file descriptors, or no such address family here
        raise WireError("connect", _refusal(error)) from None
    try:
        sock.setblocking(False)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 20)
        if hasattr(socket, "TCP_NOTSENT_LOWAT"):  # else the last byte of an image is handed over long before it leaves
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NOTSENT_LOWAT, SLICE_BYTES)
        async with asyncio.timeout(timeout_s):
            await loop.sock_connect(sock, address.sockaddr)
            if address.proxy_header:
                await _tunnel(loop, sock, address)
            tls = await _shake_hands(loop, sock, address) if address.tls else None
        return Connection(loop, sock, tls, monotonic_ns() - begun)
    except TimeoutError:
        sock.close()
        raise WireError("connect_timeout", f"no connection within {timeout_s:g} s") from None
    except ConnectionRefusedError:
        sock.close()
        raise WireError("refused", "connection refused") from None
    except ssl.SSLError as error:
        sock.close()
        raise WireError("tls", getattr(error, "verify_message", "") or error.reason or str(error)) from None
    except OSError as error:
        sock.close()
        raise WireError("connect", _refusal(error)) from None
    except BaseException:
        sock.close()
        raise


def _refusal(error: OSError) -> str:
    """Why this machine opens no more connections, where the reason is its own."""
    if error.errno == errno.EMFILE:
        limit = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
        return f"this machine's limit of {limit} open files is too low for so many connections; raise it (ulimit -n)"
    if error.errno == errno.ENFILE:
        return "this machine has no file descriptors left; raise fs.file-max"
    if error.errno == errno.EADDRNOTAVAIL:
        return f"this machine has no ports left ({error}); widen net.ipv4.ip_local_port_range"
    return str(error)


async def _tunnel(loop: asyncio.AbstractEventLoop, sock: socket.socket, address: Address) -> None:
    await loop.sock_sendall(sock, address.proxy_header.encode())
    head = b""
    while b"\r\n\r\n" not in head:
        part = await loop.sock_recv(sock, 4096)
        if not part or len(head) > 65536:
            raise WireError("proxy", "the proxy closed the connection during CONNECT")
        head += part
    status_line = head.split(b"\r\n", 1)[0].decode("latin-1")
    if " 200" not in status_line:
        raise WireError("proxy", f"the proxy answered CONNECT with {status_line!r}")


async def _shake_hands(loop: asyncio.AbstractEventLoop, sock: socket.socket, address: Address) -> Tls:
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    context = tls_context(address.ca_file, address.insecure)
    session = context.wrap_bio(incoming, outgoing, server_hostname=address.host)
    while True:
        try:
            session.do_handshake()
        except ssl.SSLWantReadError:
            await _flush(loop, sock, outgoing)
            data = await loop.sock_recv(sock, READ_BYTES)
            if not data:
                raise WireError("tls", "the server closed the connection during the handshake") from None
            incoming.write(data)
        except ssl.SSLError:
            await _flush(loop, sock, outgoing)  # the alert that tells the server why
            raise
        else:
            await _flush(loop, sock, outgoing)
            return Tls(session, incoming, outgoing)


async def _flush(loop: asyncio.AbstractEventLoop, sock: socket.socket, outgoing: ssl.MemoryBIO) -> None:
    pending = outgoing.read()
    if pending:
        await loop.sock_sendall(sock, pending)
