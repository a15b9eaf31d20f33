"""The embedded endpoint as a process, which reads its `ServerOptions` as one line of JSON from standard input.

By hand it is started with `pacemark serve`.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import os
import signal
import ssl
import sys
import tempfile
import time
from collections.abc import Coroutine, Iterator
from pathlib import Path
from typing import Any

import msgspec

from pacemark.errors import BadInput, PacemarkError
from pacemark.machine import allow_files
from pacemark.simulator.server.access import Access
from pacemark.simulator.server.databricks import PATHS, Databricks
from pacemark.simulator.server.faults import Fault, Faults
from pacemark.simulator.server.http import Connection, Request
from pacemark.simulator.server.limits import Limits
from pacemark.simulator.server.openai import OpenAI
from pacemark.simulator.server.options import ServerOptions
from pacemark.simulator.server.service import Service
from pacemark.simulator.server.tls import make_certificate, server_context

__all__ = ["ServerOptions", "main", "run"]


def run(options: ServerOptions) -> None:
    """Serve until SIGTERM or SIGINT.

    Prints one line of JSON once ready: `{"url": ..., "model": ..., "ca_file": ...}`, the last empty without TLS.
    Raises BadInput where the address, the certificate or a key cannot be had.
    """
    import uvloop  # Only here: importing this module must not touch anybody's event loop.

    allow_files()
    with _tls(options) as (context, ca_file), asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(_Server(options, context, ca_file).serve())


@contextlib.contextmanager
def _tls(options: ServerOptions) -> Iterator[tuple[ssl.SSLContext | None, str]]:
    """The TLS context, if any, and the file by which a client can trust it."""
    if bool(options.certfile) != bool(options.keyfile):
        raise BadInput("a certificate needs its key and a key its certificate: give both --certfile and --keyfile")
    if options.certfile:
        yield server_context(Path(options.certfile), Path(options.keyfile)), options.certfile
    elif options.tls:
        with tempfile.TemporaryDirectory(prefix="pacemark-tls-") as folder:
            certificate, key = make_certificate(Path(folder), options.host)
            yield server_context(certificate, key), str(certificate)
    else:
        yield None, ""


class _Server:
    """The listening socket, its clients, and what befalls them all."""

    def __init__(self, options: ServerOptions, context: ssl.SSLContext | None, ca_file: str) -> None:
        self._options = options
        self._context = context
        self._ca_file = ca_file
        self._clients: set[Connection] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self._port = options.port
        self._listening: asyncio.Server | None = None

    async def serve(self) -> None:
        options, self._loop = self._options, asyncio.get_running_loop()
        self._faults = Faults(options.faults, options.seed, self._schedule)
        workspace = options.databricks
        quotas = workspace.quotas() if workspace else []
        limits = Limits(options.requests_per_s, options.burst, options.parallel, quotas)
        preset = workspace.unburst(options.preset) if workspace else options.preset
        self._service = Service(preset, self._loop, limits, self._faults, seed=options.seed, strict=options.strict)
        access = Access(
            _secret(options.api_key_env),
            workspace.client_id if workspace else "",
            _secret(workspace.client_secret_env) if workspace else "",
            workspace.token_s if workspace else 0.0,
        )
        self._openai = OpenAI(self._service, access)
        base = await self._listen()
        self._databricks = Databricks(self._service, access, workspace, base) if workspace else None
        stop = asyncio.Event()
        for number in (signal.SIGTERM, signal.SIGINT):
            self._loop.add_signal_handler(number, stop.set)
        if options.until_eof:
            stdin = sys.stdin.fileno()
            self._loop.add_reader(stdin, lambda: None if os.read(stdin, 4096) else stop.set())
        ready = {"url": f"{base}/v1", "model": options.preset.model, "ca_file": self._ca_file}
        print(msgspec.json.encode(ready).decode(), flush=True)
        # A collection in the middle of a step would make every stream late, so they wait until nobody is served.
        gc.collect()
        gc.freeze()
        gc.disable()
        self._keep(self._collect_when_idle())
        idle = [fault.seconds for fault in self._faults.outages if fault.kind == "idle_close"]
        if idle:
            self._keep(self._close_idle(min(idle)))
        await stop.wait()
        for task in list(self._tasks):
            task.cancel()
        self._service.live.close()
        self._shut()
        for client in list(self._clients):
            client.close()

    async def _listen(self) -> str:
        """Open the socket, on the same port as before if it was open; returns the base URL."""
        options = self._options
        try:
            self._listening = await self._loop.create_server(
                lambda: Connection(self._handle, self._clients), options.host, self._port, backlog=4096,
                ssl=self._context,
            )  # fmt: skip
        except OSError as error:
            raise BadInput(f"cannot listen on {options.host}:{self._port}: {error.strerror or error}") from None
        host, self._port = self._listening.sockets[0].getsockname()[:2]
        scheme = "https" if self._context else "http"
        return f"{scheme}://[{host}]:{self._port}" if ":" in host else f"{scheme}://{host}:{self._port}"

    def _shut(self) -> None:
        if self._listening:
            self._listening.close()
            self._listening = None

    def _handle(self, connection: Connection, request: Request) -> None:
        if self._databricks and request.path.startswith(PATHS):
            self._databricks.handle(connection, request)
        else:
            self._openai.handle(connection, request)

    def _schedule(self, outage: Fault) -> None:
        if outage.kind != "idle_close":
            self._loop.call_later(outage.at_s, self._befall, outage)

    def _befall(self, fault: Fault) -> None:
        if fault.kind == "freeze":
            time.sleep(fault.seconds)
            return
        self._shut()
        if fault.kind == "restart":
            self._service.restart()
        for client in list(self._clients):
            if fault.kind == "restart":
                client.abort()
            elif client.idle:
                client.close()
        self._loop.call_later(fault.seconds, lambda: self._keep(self._reopen()))

    async def _reopen(self) -> None:
        while True:
            try:
                await self._listen()
                return
            except BadInput:  # Somebody has taken the port meanwhile; a client's own connection can.
                await asyncio.sleep(0.1)

    def _keep(self, work: Coroutine[Any, Any, None]) -> None:
        """Run `work` beside everything else, until it ends or the server does."""
        task = self._loop.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _close_idle(self, seconds: float) -> None:
        while True:
            await asyncio.sleep(min(0.02, seconds / 4))
            before = time.monotonic_ns() - seconds * 1e9
            for client in list(self._clients):
                if client.idle and client.idle_since_ns < before:
                    client.close()

    async def _collect_when_idle(self) -> None:
        while True:
            await asyncio.sleep(5)
            if not self._service.busy:
                gc.collect()


def _secret(variable: str) -> str:
    if not variable:
        return ""
    secret = os.environ.get(variable, "")
    if not secret:
        raise BadInput(f"the environment variable {variable} is not set")
    return secret


def main() -> int:
    """Serve as one line of JSON on standard input says; returns the exit code."""
    try:
        try:
            options = msgspec.json.decode(sys.stdin.buffer.readline(), type=ServerOptions)
        except msgspec.DecodeError as error:
            raise BadInput(f"options: {error}") from None
        run(options)
    except PacemarkError as error:
        print(f"pacemark: {error}", file=sys.stderr)
        return error.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main())
