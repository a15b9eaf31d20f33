"""What this machine lets one process hold, found out before a run needs it."""

from __future__ import annotations

import contextlib
import math
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pacemark.cpu import cpus
from pacemark.errors import BadInput

OWN_FILES = 40
"""File descriptors that a process of ours needs besides its connections."""
WORKERS_PER_CPU = 16
STREAMS_PER_WORKER = 512
"""What one worker carries at 50 tokens/s per stream with room to spare (docs/accuracy.md)."""


def make_room(target: str, streams: Sequence[int], rates: Sequence[float], given: Mapping[str, Any]) -> None:
    """Refuse what this machine cannot hold. How many streams a rate makes nobody knows before, unless it is told. Of
    other machines (`nodes`) each refuses by itself."""
    if given.get("nodes"):
        return
    workers = int(given["workers"]) if given["workers"].isdecimal() else None
    capped = given["max_in_flight"] if max(rates) > 0 else 0
    if (most := max(*streams, capped)) > 0:
        room_for(most, target, workers or None)
    elif 0 < max(rates) < float("inf"):
        most_streams(int(min(max(rates) * 60, 1e6)))


def room_for(streams: int, target: str = "", workers: int | None = None) -> None:
    """Make sure that `streams` connections to `target` can be open at once, spread over `workers`; None: as many as
    pacemark takes. The embedded endpoint holds all of them in one process, each by two descriptors.

    A soft limit on open files is raised as far as the hard one allows; worker processes inherit it. Raises BadInput
    where that is too little, or where there are fewer ports than connections.
    """
    embedded = target.startswith("sim:")
    each = 2 * streams if embedded else math.ceil(streams / (workers or workers_for(streams)))
    files = _files(each + OWN_FILES)
    if files < each + OWN_FILES:
        raise BadInput(
            f"this machine lets a process open {files} files, and {streams} parallel requests need "
            f"{each + OWN_FILES}: raise the limit (ulimit -n), or ask for fewer"
        )
    ports = _ports()
    if streams > ports:
        raise BadInput(
            f"this machine has {ports} ports for outgoing connections, too few for {streams} parallel requests: "
            "widen net.ipv4.ip_local_port_range, or ask for fewer"
        )


def most_streams(asked: int) -> int:
    """How many of `asked` connections this machine can hold in one process."""
    return max(1, min(asked, _files(asked + OWN_FILES) - OWN_FILES, _ports()))


def _files(wanted: int) -> int:
    """Files that this process may open: `wanted` at least, where the hard limit allows it."""
    try:
        import resource
    except ImportError:  # not on Windows
        return wanted
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft == resource.RLIM_INFINITY or soft >= wanted:
        return wanted if soft == resource.RLIM_INFINITY else soft
    most = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
    with contextlib.suppress(OSError, ValueError):
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, hard))
    return resource.getrlimit(resource.RLIMIT_NOFILE)[0]


OPEN_MAX = 10_240
"""What macOS lets a process have where its hard limit says that there is none."""


def allow_files() -> None:
    """Raise the limit on open files of this process as far as this system does."""
    try:
        import resource
    except ImportError:  # not on Windows
        return
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    for most in (hard, OPEN_MAX):
        if most > soft or most == resource.RLIM_INFINITY:
            with contextlib.suppress(OSError, ValueError):
                return resource.setrlimit(resource.RLIMIT_NOFILE, (most, hard))


def _ports() -> int:
    try:
        first, last = Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split()
        return int(last) - int(first) + 1
    except (OSError, ValueError):  # not Linux: the range that IANA gives
        return 16384


def workers_for(streams: float) -> int:
    """Worker processes for so many streams: as they need, and no more than leave a core to the rest of the machine."""
    return max(1, min(cpus() - 1, math.ceil(streams / STREAMS_PER_WORKER)))


def most_workers() -> int:
    """Worker processes beyond which they would only be in each other's way."""
    return WORKERS_PER_CPU * cpus()


def boot_id() -> str:
    """Tells one start of this machine from another; empty where nothing does."""
    with contextlib.suppress(OSError):
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    with contextlib.suppress(OSError, subprocess.SubprocessError):  # macOS
        asked = ["/usr/sbin/sysctl", "-n", "kern.bootsessionuuid"]
        return subprocess.run(asked, capture_output=True, text=True, timeout=5, check=True).stdout.strip()
    return ""
