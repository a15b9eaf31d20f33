"""The live page beside a run: a process of its own, started before the first level and ended with the run."""

from __future__ import annotations

import contextlib
import subprocess
import threading
from pathlib import Path
from types import TracebackType

import msgspec

from pacemark import beside

__all__ = ["LAST_LOOK_S", "LiveView", "runs_in"]

LAST_LOOK_S = 2.0
"""How long a page may still ask after the run that it shows has ended."""


def runs_in(out: Path) -> set[str]:
    """The names of the run folders in `out`."""
    return {path.parent.name for path in out.glob("*/run.db")}


class LiveView:
    """The live page of the run that begins next in a folder, from a process of its own. A context manager; leaving it
    ends the process, once the page has had time for a last look."""

    def __init__(self, out: Path) -> None:
        before = runs_in(out)
        self._process = subprocess.Popen(
            beside.command("pacemark.cli", "watch", str(out), "--coming"),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env=beside.environment(),
            start_new_session=True,
        )
        assert self._process.stdin is not None
        with contextlib.suppress(OSError):  # it is gone, and there is no page
            self._process.stdin.write(msgspec.json.encode(before) + b"\n")  # when it looks the run may have begun
            self._process.stdin.flush()
        self._url = ""
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        assert self._process.stdout is not None
        self._url = self._process.stdout.readline().decode().strip()

    def news(self) -> str:
        """Where the page is, once, as soon as it is known; else empty."""
        url, self._url = self._url, ""
        return url

    def __enter__(self) -> LiveView:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        process = self._process
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.close()
        try:
            process.wait(timeout=LAST_LOOK_S + 8)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        self._reader.join(timeout=1)
        process.stdout.close()
