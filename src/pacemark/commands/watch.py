"""`pacemark watch`: a run in the browser, while it goes on and after."""

from __future__ import annotations

import os
import sys
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import msgspec
import typer

from pacemark.ending import note
from pacemark.errors import BadInput
from pacemark.values import at_least

if TYPE_CHECKING:
    from pacemark.runs.viewer import Viewer

__all__ = ["watch_command"]


def watch_command(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="Run folder, or a folder of runs for its newest.")] = Path(
        "runs"
    ),
    port: Annotated[
        int | None, typer.Option(help="Port of 127.0.0.1; 8787, or one that is free, if not given.")
    ] = None,
    coming: Annotated[bool, typer.Option("--coming", hidden=True)] = False,
) -> None:
    """Show a run in the browser while it goes on. Also one that has ended; on this machine only, until Ctrl-C."""
    from pacemark.runs.viewer import Viewer
    from pacemark.runs.watching import watched_folder

    if port is not None:
        at_least("--port", port, 0, 65535)
    os.nice(10)  # what measures goes before
    over = threading.Event()
    if coming:
        before = msgspec.json.decode(sys.stdin.buffer.readline() or b"[]", type=set[str])
        threading.Thread(target=_until_left, args=(over,), daemon=True).start()
    viewer = Viewer(_coming(run, before, over) if coming else watched_folder(run), port)
    typer.echo(viewer.url)
    sys.stdout.flush()
    if os.environ.get("SSH_CONNECTION") and not coming:
        note(f"from elsewhere: ssh -N -L {viewer.port}:127.0.0.1:{viewer.port} HOST")
    if coming:
        threading.Thread(target=_closed_after, args=(viewer, over), daemon=True).start()
    viewer.serve()


def _closed_after(viewer: Viewer, over: threading.Event) -> None:
    """Close the viewer once the run is over and its page had time to see that."""
    from pacemark.runs.live import LAST_LOOK_S

    over.wait()
    time.sleep(LAST_LOOK_S)
    viewer.close()


def _until_left(over: threading.Event) -> None:
    """Wait until who started this process has closed its input, or is no more."""
    sys.stdin.buffer.read()
    over.set()


def _coming(out: Path, before: set[str], over: threading.Event) -> Path:
    """The folder of the run in `out` that is none of those `before`. Raises BadInput where none begins."""
    from pacemark.reporting.live import live_script
    from pacemark.runs.live import runs_in

    live_script()  # it takes a core for seconds where it is not kept, so before the first level
    while not over.wait(0.2):
        if new := runs_in(out) - before:
            return out / max(new)
    raise BadInput("no run began")
