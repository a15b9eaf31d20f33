"""A worker process: one load generator, and beside it the reader of what comes back, which it starts.

    python -P -m pacemark.instrument.worker CONTROL RESULTS

CONTROL and RESULTS are file descriptors of sockets: commands come over the first, the reader answers over the second.
All imports are above, and made once for both: a file descriptor may be hard to get once the load is on.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import os
import signal
import socket
import sys
import traceback

import uvloop

from pacemark.instrument.clock import stamp_reads
from pacemark.instrument.commands import Finish, Setup, decode_command
from pacemark.instrument.generator import LoadGenerator
from pacemark.instrument.reader import read
from pacemark.machine import allow_files


async def _work(control: socket.socket, raw: socket.socket, reader: int) -> None:
    """Obey `control` until it says `Finish` or its other end is gone. `reader` reads what goes to `raw`."""
    loop = asyncio.get_running_loop()
    with socket.socket() as always_on:
        # The kernel's first stamps after stamping is switched on are late; this socket keeps it on.
        stamp_reads(always_on)
        inbox, _ = await asyncio.open_connection(sock=control)
        silence, outbox = await asyncio.open_connection(sock=raw)
        watch = loop.create_task(_watch(silence, reader))
        generator: LoadGenerator | None = None
        while True:
            try:
                size = int.from_bytes(await inbox.readexactly(4), "big")
                command = decode_command(await inbox.readexactly(size))
            except (asyncio.IncompleteReadError, ConnectionError):
                os.kill(reader, signal.SIGKILL)
                os._exit(0)  # the coordinator is gone: stop loading the endpoint at once
            if isinstance(command, Setup):
                generator = LoadGenerator(command, loop, outbox)
                pulse = loop.create_task(generator.beat())
                pulse.add_done_callback(_give_up)
                gc.disable()
                continue
            assert generator is not None
            await generator.obey(command)
            if isinstance(command, Finish):
                pulse.cancel()
                watch.cancel()
                await outbox.drain()
                outbox.close()
                await outbox.wait_closed()
                return


def _give_up(pulse: asyncio.Task[None]) -> None:
    """A worker without a pulse would hold the run for ever; one that dies with a reason is named."""
    if not pulse.cancelled() and (error := pulse.exception()) is not None:
        traceback.print_exception(error)
        sys.stderr.flush()
        os._exit(1)


async def _watch(silence: asyncio.StreamReader, reader: int) -> None:
    """A reader never speaks; when its end of the socket closes, it has died, and what is measured would be lost."""
    with contextlib.suppress(ConnectionError):
        await silence.read()
    status = os.waitstatus_to_exitcode(os.waitpid(reader, 0)[1])
    how = f"signal {-status}" if status < 0 else f"exit code {status}"
    os.write(2, f"its reader (process {reader}) ended: {how}\n".encode())
    os._exit(1)


def _start_reader(theirs: socket.socket, results: socket.socket, *others: socket.socket) -> int:
    """Process id of a reader of what comes over `theirs`. Made by fork, so that imports are made once."""
    if pid := os.fork():
        return pid
    code = 1
    try:
        for other in others:
            other.close()
        read(theirs, results)
        code = 0
    except BaseException:
        traceback.print_exc()
    os._exit(code)


def main() -> None:
    """Entry of a worker process."""
    control, results = (socket.socket(fileno=int(fd)) for fd in sys.argv[1:3])
    allow_files()
    raw, theirs = socket.socketpair()
    reader = _start_reader(theirs, results, control, raw)
    theirs.close()
    results.close()
    uvloop.run(_work(control, raw, reader))
    os.waitpid(reader, 0)


if __name__ == "__main__":
    main()
