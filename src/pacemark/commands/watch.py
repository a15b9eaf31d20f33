"""`pacemark watch`: a run in the browser, while it goes on and after."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

import typer

from pacemark.ending import note

__all__ = ["watch_command"]


def watch_command(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="Run folder, or a folder of runs for its newest.")] = Path(
        "runs"
    ),
    port: Annotated[
        int | None, typer.Option(help="Port of 127.0.0.1; 8787, or one that is free, if not given.")
    ] = None,
) -> None:
    """Show a run in the browser while it goes on. Also one that has ended; on this machine only, until Ctrl-C."""
    from pacemark.runs.viewer import Viewer
    from pacemark.runs.watching import watched_folder

    os.nice(10)  # what measures goes before
    viewer = Viewer(watched_folder(run), port)
    typer.echo(viewer.url)
    if os.environ.get("SSH_CONNECTION"):
        note(f"from elsewhere: ssh -N -L {viewer.port}:127.0.0.1:{viewer.port} HOST")
    viewer.serve()
