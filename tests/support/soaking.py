"""A run of the command line, and what its processes hold while it goes on."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import NamedTuple

import numpy as np

from support.processes import family

LENGTHS = ("--input-tokens", "lognormal(200, cv=1)", "--output-tokens", "uniform(4, 60)")
NAMES = ("coordinator", "worker", "reader")


class Look(NamedTuple):
    """One process at one moment."""

    rss_kb: int
    descriptors: int
    threads: int


def looked(pid: int) -> Look:
    """A process as it is. Raises OSError where it has ended."""
    status = Path(f"/proc/{pid}/status").read_text()
    fields = dict(line.split(":", 1) for line in status.splitlines())
    if "VmRSS" not in fields:
        raise ProcessLookupError(f"process {pid} has ended, and nobody has asked how")
    descriptors = len(os.listdir(f"/proc/{pid}/fd"))
    return Look(int(fields["VmRSS"].split()[0]), descriptors, int(fields["Threads"]))


def soaked(url: str, load: tuple[str, ...], seconds: float, out: Path) -> dict[str, list[Look]]:
    """Measure for so long; the looks at each process."""
    words = ["sweep", url, *load, "--duration", f"{seconds:g}", *LENGTHS, "--workers", "1", "--out", str(out)]
    command = [sys.executable, "-m", "pacemark.cli", *words]
    looks: dict[str, list[Look]] = {name: [] for name in NAMES}
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        while process.poll() is None:
            with contextlib.suppress(OSError):
                ours = [
                    p for p in family(process.pid) if b"instrument.worker" in Path(f"/proc/{p}/cmdline").read_bytes()
                ]
                for name, pid in zip(NAMES, [process.pid, *sorted(ours)], strict=False):
                    looks[name].append(looked(pid))
            time.sleep(1.0)
    assert process.returncode in (0, 3), process.returncode
    return looks


def growth(seen: list[Look]) -> Look:
    """What a process grew by from the second to the last but one tenth of its time: without its start and report."""
    tenth = max(1, len(seen) // 10)
    first, last = (np.median(np.asarray(part), axis=0) for part in (seen[tenth : 2 * tenth], seen[-2 * tenth : -tenth]))
    return Look(*(round(x) for x in (last - first).tolist()))
