"""macOS, simulated: what Linux has and it has not is taken away from every process of a run."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

import pytest

from support.cli_tools import SHORT, only_run, pacemark

ELSEWHERE = '''
"""Imported by every Python process at its start: this is a Mac now, as far as Python can tell."""

import asyncio, builtins, io, os, platform, resource, socket, subprocess, sys, sysconfig, types  # as what they are

sysconfig.get_config_vars()
sys.platform = "darwin"
for name in ("sched_getaffinity", "sched_setaffinity", "sched_setscheduler", "SCHED_BATCH", "sched_param", "eventfd"):
    vars(os).pop(name, None)
platform.platform = lambda *_: "macOS-15.0-arm64-arm-64bit"

sys.modules["_scproxy"] = scproxy = types.ModuleType("_scproxy")  # the system's own proxy settings: none
scproxy._get_proxy_settings = scproxy._get_proxies = lambda: {}

def here(call):
    def found(path, *args, **how):
        if str(path).startswith(("/proc", "/sys/")):
            raise FileNotFoundError(2, "No such file or directory", str(path))
        return call(path, *args, **how)
    return found

builtins.open = io.open = here(io.open)

get, set = resource.getrlimit, resource.setrlimit  # no hard limit is told, and more than the kernel has is refused

def getrlimit(which):
    return (get(which)[0], resource.RLIM_INFINITY) if which == resource.RLIMIT_NOFILE else get(which)

def setrlimit(which, limits):
    if which == resource.RLIMIT_NOFILE and not 0 <= limits[0] <= 10240:
        raise ValueError("current limit exceeds maximum limit")
    set(which, (limits[0], get(which)[1]))

resource.getrlimit, resource.setrlimit = getrlimit, setrlimit

class Socket(socket.socket):
    def setsockopt(self, level, name, *value):
        if (level, name) == (socket.SOL_SOCKET, 37):
            raise OSError(42, "Protocol not available")
        return super().setsockopt(level, name, *value)

socket.socket = Socket
'''


@pytest.fixture
def mac(tmp_path: Path) -> dict[str, str]:
    """The environment of a process that takes itself to be on a Mac."""
    place = tmp_path / "mac"
    place.mkdir()
    (place / "sitecustomize.py").write_text(ELSEWHERE)
    return {"PYTHONPATH": os.pathsep.join([str(place), *(path for path in sys.path if path)])}


@pytest.mark.slow(shared=True)
@pytest.mark.parametrize("load", [("--concurrency", 2), ("--rate", 20)], ids=["closed", "open"])
def test_a_run_says_that_its_clock_is_its_own(load: tuple[object, ...], mac: dict[str, str], tmp_path: Path) -> None:
    done = pacemark("run", "sim:demo", *load, *SHORT, "--out", tmp_path / "runs", cwd=tmp_path, env=mac)
    assert done.returncode == 0, done.stderr
    path = only_run(tmp_path / "runs")
    (level,) = json.loads((path / "summary.json").read_bytes())["levels"]
    assert level["requests"]["failed"] == 0
    assert level["client"]["clock"] == "user"
    assert level["client"]["idle_share"] is None
    assert json.loads((path / "run.json").read_bytes())["host"]["system"].startswith("macOS")
    again = pacemark("report", path, cwd=tmp_path, env=mac)
    assert again.returncode == 0, again.stderr


@pytest.mark.slow(shared=True)
def test_other_commands(mac: dict[str, str], tmp_path: Path) -> None:
    for words in (("check", "http://127.0.0.1:9/v1", "--model", "m"), ("list", tmp_path)):
        done = pacemark(*words, cwd=tmp_path, env=mac)
        assert done.returncode in (2, 3), done.stderr
        assert "Traceback" not in done.stderr
