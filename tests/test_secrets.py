"""A key is told to the endpoint and to nobody else; and nothing else is talked to."""

from __future__ import annotations

import contextlib
import os
import stat
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from support.cli_tools import Asked, Reply, as_json, assert_refused, only_run, pacemark, server, started, streamed
from support.inside import inside
from support.processes import family
from support.waiting import wait_for

CANARY = "sk-canary-5ac2f1e0d94b"
EAR = """
import json, os, sys

def heard(event, args, path=os.environ["PACEMARK_EAR"]):
    if event.startswith("socket.") and event not in ("socket.__new__", "socket.gethostname"):
        said = json.dumps([event, repr([x for x in args if not hasattr(x, "fileno")])]) + "\\n"
        with open(path, "a") as file:
            file.write(said)

sys.addaudithook(heard)
"""
"""Imported by every Python process as it starts: writes down what it does with sockets."""


def everything(folder: Path) -> Iterator[tuple[str, bytes]]:
    """All files below a folder."""
    for path in folder.rglob("*"):
        if path.is_file():
            yield path.name, path.read_bytes()


def telling(asked: Asked) -> Reply:
    """Answers well, but for every fifth request, whose refusal repeats the key."""
    key = asked.headers["Authorization"]
    assert CANARY in key
    if asked.number % 5 or asked.number < 10:
        return streamed(asked)
    return as_json({"error": {"message": f"key {key} has no room, {key!r}", "param": key}}, 429)


@pytest.mark.slow(shared=True)
def test_a_key_is_nowhere_but_on_the_wire_and_nothing_else_is_talked_to(tmp_path: Path) -> None:
    (tmp_path / "ear").mkdir()
    (tmp_path / "ear" / "sitecustomize.py").write_text(EAR)
    path = os.pathsep.join([str(tmp_path / "ear"), *filter(None, sys.path)])
    heard = tmp_path / "heard.txt"
    env = {"CANARY": CANARY, "PACEMARK_EAR": str(heard), "PYTHONPATH": path}
    shown: list[bytes] = []
    with server(telling) as url:
        words = ("--concurrency", "2,4", "--duration", 1, "--input-tokens", 16, "--output-tokens", 4)
        with started("sweep", url, *words, "--model", "m", "--api-key-env", "CANARY", cwd=tmp_path, env=env) as process:
            wait_for(lambda: (tmp_path / "runs").exists(), 60)
            while process.poll() is None:
                for pid in family(process.pid):
                    with contextlib.suppress(OSError):  # it has just ended
                        shown.append(Path(f"/proc/{pid}/cmdline").read_bytes())
                time.sleep(0.1)
            stdout, stderr = process.communicate(timeout=60)
    folder = only_run(tmp_path / "runs")
    assert "http_429" in stdout + stderr
    assert len(shown) > 5
    assert CANARY[:12] not in stdout + stderr
    assert not any(CANARY[:12].encode() in line for line in shown)
    assert [name for name, data in everything(folder) if CANARY[:12].encode() in data] == []
    assert "report.html" in {name for name, _ in everything(folder)}
    for how, *again in (
        (inside, "show", folder, "--detail"),
        (pacemark, "report", folder),
        (inside, "export", folder),
        (inside, "export", folder, "--format", "junit"),
    ):
        done = how(*again, env=env, cwd=tmp_path)
        assert done.returncode in (0, 3), done.stderr
        assert CANARY[:12] not in done.stdout + done.stderr
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    port = url.rsplit(":", 1)[1].split("/")[0]
    said = set(heard.read_text().splitlines())
    assert any("socket.connect" in line for line in said)
    assert {line for line in said if port not in line or "127.0.0.1" not in line} == set()


def test_a_key_may_be_in_a_file(tmp_path: Path) -> None:
    file = tmp_path / "key"
    file.write_text(f"Bearer {CANARY}\n")
    with server(telling) as url:
        done = inside("check", url, "--model", "m", "--header", f"Authorization: @{file}")
        assert done.returncode == 0, done.stderr
        assert "warning" not in done.stderr
        typed = inside("check", url, "--model", "m", "--header", f"Authorization: Bearer {CANARY}")
    assert typed.returncode == 0
    assert "warning: --header Authorization: every user of this machine can read it" in typed.stderr
    assert CANARY[:12] not in typed.stderr
    assert_refused(inside("check", url, "--header", "X-Key: @/no/such"), "--header X-Key: /no/such", "cannot be read")


@pytest.mark.parametrize(
    "words", [("run", "--concurrency", 1), ("sweep",), ("find", "--budget", "ttft p95 < 1s"), ("check",)]
)
def test_a_password_in_a_url_is_refused_and_not_repeated(words: tuple[object, ...], tmp_path: Path) -> None:
    done = inside(*words[:1], f"http://me:{CANARY}@127.0.0.1:9/v1", *words[1:], cwd=tmp_path)
    assert_refused(done, "user name or password")
    assert CANARY[:12] not in done.stderr
    assert not (tmp_path / "runs").exists()
