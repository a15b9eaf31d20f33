"""A container's CPUs, from control groups that were written for the test: v2, v1, hybrids, and none."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from pacemark.cpu import cpus, quota, throttled_ns


def made(root: Path, own: str, **files: str) -> tuple[Path, Path]:
    """`/sys/fs/cgroup` and `/proc/self/cgroup`, with files such as `a__cpu.max`."""
    for name, text in files.items():
        path = root / "fs" / name.replace("__", "/").replace("DOT", ".")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    (root / "fs").mkdir(exist_ok=True)
    (root / "own").write_text(own)
    return root / "fs", root / "own"


STAT2 = "usage_usec 900\nnr_periods 10\nnr_throttled 4\nthrottled_usec 1500\n"
STAT1 = "nr_periods 10\nnr_throttled 4\nthrottled_time 2500\n"


@pytest.mark.parametrize(
    ("own", "files", "limit", "stopped_ns"),
    [
        ("0::/\n", {"cpuDOTmax": "150000 100000\n", "cpuDOTstat": STAT2}, 1.5, 1_500_000),
        ("0::/\n", {"cpuDOTmax": "max 100000\n", "cpuDOTstat": STAT2}, None, 1_500_000),
        ("0::/\n", {}, None, None),
        ("0::/pod/one\n", {"pod__cpuDOTmax": "50000 100000\n", "pod__one__cpuDOTmax": "max 100000\n"}, 0.5, None),
        ("0::/pod/one\n", {"pod__cpuDOTmax": "400000 100000", "pod__one__cpuDOTmax": "200000 100000"}, 2.0, None),
        ("0::/on/the/host\n", {"cpuDOTmax": "300000 100000\n"}, 3.0, None),
        ("0::/../../other\n", {"cpuDOTmax": "300000 100000\n"}, 3.0, None),
        (
            "5:memory:/x\n4:cpu,cpuacct:/docker/a\n",
            {
                "cpu,cpuacct__docker__a__cpuDOTcfs_quota_us": "250000\n",
                "cpu,cpuacct__docker__a__cpuDOTcfs_period_us": "100000\n",
                "cpu,cpuacct__docker__a__cpuDOTstat": STAT1,
            },
            2.5,
            2500,
        ),
        ("4:cpu:/\n", {"cpu__cpuDOTcfs_quota_us": "-1\n", "cpu__cpuDOTcfs_period_us": "100000\n"}, None, None),
        ("1:cpuset:/\n", {"cpuset__cpuDOTmax": "100000 100000"}, None, None),
        ("", {}, None, None),
        ("nonsense\n", {"cpuDOTmax": "100000 0"}, None, None),
        ("0::/\n", {"cpuDOTmax": "odd", "cpuDOTstat": "throttled_usec odd\nx"}, None, None),
    ],
)
def test_the_tightest_quota_counts(
    tmp_path: Path, own: str, files: dict[str, str], limit: float | None, stopped_ns: int | None
) -> None:
    where = made(tmp_path, own, **files)
    assert quota(*where) == limit
    assert throttled_ns(*where) == stopped_ns


@pytest.mark.skipif(not hasattr(os, "sched_getaffinity"), reason="affinity is Linux's")
def test_processes_by_affinity_and_whole_cpus_of_the_quota(tmp_path: Path) -> None:
    allowed = len(os.sched_getaffinity(0))
    assert cpus(*made(tmp_path, "0::/\n")) == allowed
    assert cpus(*made(tmp_path, "0::/\n", cpuDOTmax="99900000 100000")) == allowed
    assert cpus(*made(tmp_path, "0::/\n", cpuDOTmax="190000 100000")) == 1
    assert cpus(*made(tmp_path, "0::/\n", cpuDOTmax="20000 100000")) == 1


def test_without_control_groups_there_is_no_quota(tmp_path: Path) -> None:
    assert quota(tmp_path / "none", tmp_path / "none") is None
    assert throttled_ns(tmp_path / "none", tmp_path / "none") is None
