"""What this machine lets a process have of its CPUs: affinity, and the quota of its container.

A quota (cgroup v2: `cpu.max`; v1: `cpu.cfs_quota_us` and `cpu.cfs_period_us`) does not take CPUs away. It stops the
processes of the group for the rest of a period, typically 100 ms, once they have used up their time in it; a client
that is stopped reads late. Kernel documentation: admin-guide/cgroup-v2 and scheduler/sched-bwc.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

__all__ = ["cpus", "quota", "throttled_ns"]

CGROUPS = Path("/sys/fs/cgroup")
OWN = Path("/proc/self/cgroup")
"""Which groups this process is in: a line each, `number:controllers:path`; v2 has number 0 and no controllers."""


def cpus(cgroups: Path = CGROUPS, own: Path = OWN) -> int:
    """How many processes can run at once without being stopped: by affinity and by whole CPUs of the quota."""
    allowed = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    limit = quota(cgroups, own)
    return allowed if limit is None else max(1, min(allowed, int(limit)))


def quota(cgroups: Path = CGROUPS, own: Path = OWN) -> float | None:
    """CPUs' worth of time that the container may use; None where there is no limit. The tightest group counts."""
    found = [cpus for folder in _groups(cgroups, own) if (cpus := _quota_in(folder)) is not None]
    return min(found, default=None)


def throttled_ns(cgroups: Path = CGROUPS, own: Path = OWN) -> int | None:
    """How long the group has been stopped by its quota since it was made; None where that is not told.

    Counted once for each CPU that was stopped. Of groups within groups, the one that was stopped longest counts.
    """
    found = [ns for folder in _groups(cgroups, own) if (ns := _throttled_in(folder)) is not None]
    return max(found, default=None)


def _groups(cgroups: Path, own: Path) -> Iterator[Path]:
    """The folders of this process's CPU groups, with those around them. Inside a container the path that the kernel
    tells may be the host's, of which only the root can be seen."""
    for line in _text(own).splitlines():
        _, _, rest = line.partition(":")
        controllers, _, path = rest.partition(":")
        if not controllers:
            roots = [cgroups]
        elif "cpu" in controllers.split(","):
            roots = [cgroups / controllers, cgroups / "cpu"]
        else:
            continue
        root = next((r for r in roots if r.is_dir()), None)
        if root is None:
            continue
        folder = root / path.strip().lstrip("/")
        yield from (folder, *(f for f in folder.parents if f.is_relative_to(root)))


def _quota_in(folder: Path) -> float | None:
    limit, _, period = _text(folder / "cpu.max").partition(" ")
    if not limit:
        limit, period = _text(folder / "cpu.cfs_quota_us"), _text(folder / "cpu.cfs_period_us")
    try:
        allowed_us, period_us = int(limit), int(period)
    except ValueError:  # `max`, or no such file
        return None
    return allowed_us / period_us if allowed_us > 0 and period_us > 0 else None


def _throttled_in(folder: Path) -> int | None:
    rows = dict(line.split(None, 1) for line in _text(folder / "cpu.stat").splitlines() if " " in line)
    try:
        if "throttled_usec" in rows:
            return int(rows["throttled_usec"]) * 1000
        return int(rows["throttled_time"]) if "throttled_time" in rows else None
    except ValueError:
        return None


def _text(path: Path) -> str:
    try:
        return path.read_text().strip()
    except (OSError, UnicodeDecodeError):
        return ""
