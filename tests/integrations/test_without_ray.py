"""More than one machine, as far as it can be told without Ray."""

from __future__ import annotations

import contextlib
import inspect
import re
import subprocess
import sys
from pathlib import Path

import pytest

import pacemark
from pacemark.errors import BadInput
from pacemark.integrations import ray as on_ray
from pacemark.nodes import NodeFacts
from pacemark.pace import Concurrency
from pacemark.runs.calibration import warning
from support.cli_tools import assert_refused
from support.inside import inside
from support.needed import needed

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.slow(shared=True)
def test_nothing_of_ray_is_imported_unless_nodes_are_asked_for(tmp_path: Path) -> None:
    """A run of its own, to the report; and the module that would use Ray."""
    words = (
        "import sys, pacemark, pacemark.cli, pacemark.integrations.ray\n"
        f"pacemark.run('sim:fixed', concurrency=1, duration=1, output_tokens=4, out={str(tmp_path)!r})\n"
        "found = [name for name in sys.modules if name.split('.')[0] == 'ray']\n"
        "assert not found, found\n"
    )
    done = subprocess.run([sys.executable, "-c", words], capture_output=True, text=True, timeout=100, check=False)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("sim:demo", "--nodes", "2"), "sim:demo runs on this machine alone, so --nodes has nothing to load"),
        (("http://127.0.0.1:9/v1", "--model", "m", "--nodes", "2"), "127.0.0.1 is another machine on every node"),
        (("http://localhost:9/v1", "--model", "m", "--nodes", "2"), "localhost is another machine on every node"),
        (("http://llm:9/v1", "--model", "m", "--nodes", "0"), "--nodes 0"),
        (("http://llm:9/v1", "--model", "m", "--ray", "10.0.0.1:6379"), "--ray says which cluster: say with --nodes"),
    ],
)  # fmt: skip
def test_what_cannot_work_is_refused_in_a_line(words: tuple[str, ...], said: str, tmp_path: Path) -> None:
    assert_refused(inside("run", *words, "--concurrency", "4", "--out", tmp_path), said)
    assert not list(tmp_path.iterdir())


def test_without_the_extra_it_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(on_ray, "find_spec", lambda name: None)
    monkeypatch.setattr(on_ray, "_LOOPBACK", True)
    words = ("http://127.0.0.1:9", "--model", "m", "--concurrency", "4", "--nodes", "2", "--out", tmp_path)
    assert_refused(inside("run", *words), "--nodes needs Ray: install pacemark with its extra `ray`")


@pytest.mark.parametrize(
    ("address", "said"),
    [
        ("ray://head:10001", "Ray's client is too slow to measure through"),
        ("local", "give auto, or HOST:PORT of the cluster's head"),
        ("10.0.0.1", "give auto, or HOST:PORT of the cluster's head"),
        ("127.0.0.1:9", "--ray 127.0.0.1:9: nothing answers there"),
        ("127.0.0.1:99999", "nothing answers there"),
    ],
)
@pytest.mark.parametrize("by", ["flag", "environment"])
def test_a_cluster_that_cannot_be_joined_is_refused(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, address: str, said: str, by: str
) -> None:
    """At once: Ray would look for it for minutes, or start a cluster of its own."""
    needed("ray")
    monkeypatch.setattr(on_ray, "_LOOPBACK", True)
    if by == "environment":
        monkeypatch.setenv("RAY_ADDRESS", address)
    words = ("http://127.0.0.1:9", "--model", "m", "--concurrency", "4", "--nodes", "2", "--out", tmp_path)
    assert_refused(inside("run", *words, *(["--ray", address] if by == "flag" else [])), said)


def test_a_python_that_ray_cannot_start_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    needed("ray")
    monkeypatch.setattr(sys, "executable", "/opt/my env/bin/python")
    with contextlib.ExitStack() as stack, pytest.raises(BadInput, match="Ray cannot start /opt/my env/bin/python"):
        on_ray._joined("auto", stack)


def test_versus_stays_on_one_machine(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="versus measures from one machine"):
        pacemark.versus(["sim:fixed", "sim:fixed"], concurrency=[1], nodes=2, out=tmp_path)


def test_the_machine_that_was_calibrated_for_least_counts() -> None:
    nodes = [NodeFacts("a", calibrated=[512, 256]), NodeFacts("b", calibrated=[300, 400]), NodeFacts("c")]
    assert warning([Concurrency(900)], False, nodes) == ""
    said = warning([Concurrency(901)], False, nodes)
    assert said.startswith("300 streams on each of 3 nodes are more than the 300 that b was calibrated for")
    assert "256 that a" in warning([Concurrency(900)], True, nodes)
    assert warning([Concurrency(900)], True, [NodeFacts("c")]) == ""


def test_the_example_for_kubernetes_asks_for_as_many_nodes_as_it_makes() -> None:
    """And in words that the command line knows, with a head that carries no load and pods that share no machine."""
    job = needed("yaml").safe_load((ROOT / "examples" / "kuberay" / "rayjob.yml").read_text())["spec"]
    _, command, _, *words = job["entrypoint"].split()
    flags = [word for word in words if word.startswith("--")]
    known = inside(command, "--help").stdout
    assert flags
    assert [flag for flag in flags if flag not in known] == []
    (group,) = job["rayClusterSpec"]["workerGroupSpecs"]
    assert int(words[words.index("--nodes") + 1]) == group["replicas"] == group["minReplicas"]
    assert job["rayClusterSpec"]["headGroupSpec"]["rayStartParams"]["num-cpus"] == "0"
    (rule,) = group["template"]["spec"]["affinity"]["podAntiAffinity"]["requiredDuringSchedulingIgnoredDuringExecution"]
    assert rule["labelSelector"]["matchLabels"] == group["template"]["metadata"]["labels"]


@pytest.mark.parametrize("name", ["docs/many-machines.md", "docs/databricks.md"])
def test_what_the_docs_say_of_ray_on_spark_is_what_it_takes(name: str) -> None:
    """Every argument of `setup_ray_cluster` that is shown is one of its own."""
    text = (ROOT / name).read_text()
    signature = inspect.signature(needed("ray.util.spark").setup_ray_cluster)
    for call in re.findall(r"setup_ray_cluster\((\w+=.*)\)", text):
        assert set(re.findall(r"(\w+)=", call)) <= set(signature.parameters)


def test_serverless_compute_is_refused_in_words(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("DATABRICKS_RUNTIME_VERSION", "client.4.1")
    monkeypatch.setattr(on_ray, "_LOOPBACK", True)
    words = ("http://127.0.0.1:9", "--model", "m", "--concurrency", "4", "--nodes", "2", "--out", tmp_path)
    assert_refused(inside("run", *words), "serverless compute runs no Ray: use a cluster with Databricks Runtime ML")
