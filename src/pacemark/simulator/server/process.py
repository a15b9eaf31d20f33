"""The embedded endpoint in a process of its own, for as long as a `with` block lasts."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import msgspec

from pacemark import beside
from pacemark.errors import BadInput, RunFailed
from pacemark.simulator.engine.presets import Preset, customised, named
from pacemark.simulator.server.options import ServerOptions

__all__ = ["Served", "serving"]


@dataclass(frozen=True, slots=True)
class Served:
    """A running embedded endpoint."""

    url: str
    """Base URL, ending in /v1."""
    model: str
    pid: int
    ca_file: str = ""
    """Certificate to trust, where it serves TLS."""

    @property
    def root(self) -> str:
        """The URL without /v1; a Databricks workspace's host."""
        return self.url.removesuffix("/v1")


@contextmanager
def serving(preset: Preset | str = "demo", **options: Any) -> Iterator[Served]:
    """Serve `preset` from a new process; `options` are fields of `ServerOptions`, or of the preset or its timeline.

    The process ends with the block, and with this process, however that ends. Raises BadInput for an unknown
    preset, an unknown option or a wrong value, RunFailed where the endpoint does not start.
    """
    chosen = named(preset) if isinstance(preset, str) else preset
    ours = {name: options.pop(name) for name in ServerOptions.__struct_fields__ if name in options}
    try:
        serve = msgspec.convert(
            {"until_eof": True}
            | msgspec.to_builtins(ours)
            | {"preset": msgspec.to_builtins(customised(chosen, options))},
            ServerOptions,
        )
    except msgspec.ValidationError as error:
        raise BadInput(str(error)) from None
    process = subprocess.Popen(
        beside.command("pacemark.simulator.server.server"),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env=beside.environment(),
        # Not in our process group: Ctrl-C must let a run finish its report before its endpoint goes.
        start_new_session=True,
    )
    assert process.stdin
    assert process.stdout
    try:
        process.stdin.write(msgspec.json.encode(serve) + b"\n")
        process.stdin.flush()
        ready = process.stdout.readline()
        if not ready:
            raise RunFailed(f"the embedded endpoint did not start (exit code {process.wait(10)})")
        yield Served(**msgspec.json.decode(ready), pid=process.pid)
    finally:
        process.stdin.close()
        try:
            process.wait(5)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        process.stdout.close()
