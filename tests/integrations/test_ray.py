"""Load from the machines of a Ray cluster: a real one, of three raylets that this machine starts for the session."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import pacemark
from pacemark.endpoint.target import target
from pacemark.errors import BadInput, RunFailed
from pacemark.figures.level import LevelResult
from pacemark.integrations import ray as on_ray
from pacemark.nodes import NodeLevel
from pacemark.pace import Concurrency, Load, Rate
from pacemark.runs.bench import Bench
from pacemark.runs.run import Run
from pacemark.scenario import Settings, Workload
from pacemark.simulator import Served, serving
from support.cli_tools import stored_requests
from support.needed import late, needed
from support.processes import alive, family
from support.waiting import in_three_tries, wait_for

stats = late("scipy.stats")

pytestmark = [
    pytest.mark.slow,
    pytest.mark.xdist_group("ray"),
    pytest.mark.skipif(" " in sys.executable, reason="Ray cannot start a Python whose path has a space"),
    pytest.mark.filterwarnings("default"),  # what Ray itself says and leaves open
]

OLDEST = "2.37.0"
KEY = "dapi-0123456789-of-nobody"
QUICK_DEATH = {
    "health_check_initial_delay_ms": 0, "health_check_period_ms": 200, "health_check_failure_threshold": 3,
}  # fmt: skip
ROOM = {"object_store_memory": 80 << 20}


@pytest.fixture(scope="module")
def cluster() -> Iterator[Any]:
    """A head that gives no CPUs, and two nodes of one each."""
    needed("ray")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RAY_USAGE_STATS_ENABLED", "0")
        patch.setattr(on_ray, "_LOOPBACK", True)
        patch.setattr(on_ray, "JOIN_S", 10.0)
        from ray.cluster_utils import Cluster

        head = {"num_cpus": 0, "include_dashboard": False, "_system_config": QUICK_DEATH, **ROOM}
        started: Any = Cluster(initialize_head=True, head_node_args=head)
        try:
            started.nodes = [started.add_node(num_cpus=1, **ROOM) for _ in range(2)]
            yield started
        finally:
            started.shutdown()


@contextlib.contextmanager
def bench(
    cluster: Any, duration_s: float, nodes: int = 2, tokens: int = 20, ttft_ms: float = 50.0, itl_ms: float = 10.0
) -> Iterator[tuple[Bench, Served]]:
    """A bench on `nodes` of the cluster; on none of them without a cluster."""
    more: Any = {"hire": on_ray.hired_on(nodes, cluster.address)} if cluster is not None else {}
    settings = Settings(duration_s=duration_s, nodes=nodes if cluster is not None else 0)
    with (
        serving("fixed", ttft_ms=ttft_ms, itl_ms=itl_ms) as served,
        Bench(target(served.url, model=served.model), Workload(32, tokens, 5), settings, **more) as ready,
    ):
        ready.prepare()
        yield ready, served


def agents() -> list[int]:
    """The processes of the actors: what raylets of this session have started by that name."""

    def command(pid: int) -> bytes:
        with contextlib.suppress(OSError):
            return Path(f"/proc/{pid}/cmdline").read_bytes()
        return b""

    return [pid for pid in family(os.getpid()) if command(pid).startswith(b"ray::NodeAgent")]


def nodes_of(result: LevelResult) -> list[NodeLevel]:
    nodes = result.level.nodes
    assert isinstance(nodes, list)
    return nodes


def test_two_nodes_measure_the_timeline_that_one_machine_does(cluster: Any) -> None:
    """2 x 256 streams: every figure of the two is that of the one, within what their clients can have added."""

    @in_three_tries
    def tried() -> None:
        load, found = Concurrency(512), []
        for place in (None, cluster):
            with bench(place, 6.0, tokens=24, ttft_ms=400.0, itl_ms=100.0) as (ready, _):
                found.append(ready.measure(load))
                ready.finish()
        one, two = found
        bound_ms = sum(result.level.client.bound_ms or 0.0 for result in found)
        for name in ("ttft_ms", "tpot_ms", "latency_ms"):
            for statistic in ("p50", "p95"):
                a, b = (getattr(getattr(result.level, name), statistic).value for result in (one, two))
                assert abs(a - b) <= bound_ms + 0.01 * a, (name, statistic)
        rate, truth = two.level.output_tokens_per_s.value, 512 * 24 / (0.4 + 23 * 0.1)
        assert rate == pytest.approx(truth, rel=0.02)
        assert two.level.requests.failed == 0
        assert [node.clock for node in nodes_of(two)] == ["kernel", "kernel"]
        assert all(node.offset_bound_ms < 5.0 for node in nodes_of(two))
        assert all(0.4 < node.requests / two.level.requests.in_window < 0.6 for node in nodes_of(two))

    tried()


def test_the_arrivals_of_two_nodes_are_one_process(cluster: Any) -> None:
    """2 x 50 requests a second: the gaps over both are exponential, by one schedule that nobody sends around. So are
    those of what was sent, unless this machine was too busy to send on time."""
    with bench(cluster, 8.0, tokens=4) as (ready, _):
        result = ready.measure(Rate(100.0))
        ready.finish()
    trace, late = result.trace, result.level.client.lateness_ms
    order = np.argsort(trace.index)
    assert len(set(trace.index.tolist())) == len(trace) > 0.97 * trace.index.max()  # the last may be under way yet
    assert (np.diff(trace.scheduled_ns[order]) > -5_000_000).all()  # to what the clocks are known
    assert all(node.requests > 0.4 * result.level.requests.in_window for node in nodes_of(result))
    assert exponential(trace.scheduled_ns)
    assert late is not None
    assert late.p99 is None or late.p99 > 1.0 or exponential(trace.sent_ns)


def exponential(times_ns: Any) -> bool:
    """Whether the gaps between these times are those of 100 a second."""
    gaps_s = np.diff(np.sort(times_ns).astype(np.float64)) / 1e9
    return bool(stats.kstest(gaps_s, "expon", args=(0, 1 / 100.0)).pvalue > 0.01)


def lost(cluster: Any, load: Load, trouble: Callable[[], None]) -> str:
    """What is said of a level in whose window `trouble` comes; what was measured of it stays, as not valid."""
    with bench(cluster, 30.0) as (ready, _):
        timer = threading.Timer(3.0, trouble)
        timer.start()
        with pytest.raises(RunFailed) as said:
            ready.measure(load)
        timer.join()
        (result,) = ready.finish(drain=False)
    assert result.level.requests.completed > 0
    assert result.level.verdict.status == "invalid"
    assert "worker_died" in {reason.code for reason in result.level.verdict.reasons}
    return str(said.value)


def test_a_killed_actor_ends_the_level_by_name(cluster: Any) -> None:
    said = lost(cluster, Concurrency(4), lambda: os.kill(agents()[0], signal.SIGKILL))
    assert "is lost: its process there has ended; the load could not be kept up" in said


def test_a_silent_node_ends_the_level_by_name(cluster: Any) -> None:
    stopped: list[int] = []

    def stop() -> None:
        stopped.append(agents()[0])
        os.kill(stopped[0], signal.SIGSTOP)

    try:
        assert "is lost: silent for 2 s" in lost(cluster, Concurrency(4), stop)
    finally:
        for pid in filter(alive, stopped):
            os.kill(pid, signal.SIGCONT)


def test_what_is_unlike_is_refused(cluster: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pacemark.instrument.nodes.__version__", "9.9.9")
    with pytest.raises(BadInput, match=r"has pacemark .* \(9\.9\.9 here\): install the same"), bench(cluster, 1.0):
        pass


def test_more_nodes_than_there_are_is_refused(cluster: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(on_ray, "JOIN_S", 0.5)
    with pytest.raises(BadInput, match="has 2 nodes with CPUs to give, and --nodes asks for 3"), bench(cluster, 1.0, 3):
        pass


def test_a_sweep_over_nodes_is_written_down_and_read_again(
    cluster: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The whole way from the public function to the folder and back; and the key is nowhere but in the requests."""
    monkeypatch.setenv("PACEMARK_TEST_KEY", KEY)
    with serving("fixed", ttft_ms=50.0, itl_ms=10.0, api_key_env="PACEMARK_TEST_KEY") as served:
        run = pacemark.sweep(
            served.url, model=served.model, concurrency=[2, 4], output_tokens=8, duration=2.0, nodes=2,
            ray=cluster.address, out=tmp_path, api_key_env="PACEMARK_TEST_KEY", seed=1,
        )  # fmt: skip
    assert [len(level.nodes or ()) for level in run.levels] == [2, 2]
    nodes = run.summary.run["nodes"]
    assert [node["niceness"] for node in nodes] == [0, 0]
    assert {node["engine"] for node in nodes} == {f"ray {needed('ray').__version__}"}
    assert run.summary.run["settings"]["nodes"] == 2
    again = pacemark.report(run.path)
    assert figures(again) == figures(run)
    told = [p for p in _files(Path(cluster.head_node.get_session_dir_path())) if KEY.encode() in p.read_bytes()]
    assert told == []


def test_events_kept_apart_on_the_nodes_come_to_the_folder(
    cluster: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pacemark.instrument.apart.APART_STREAMS", 4)
    with serving("fixed", ttft_ms=50.0, itl_ms=10.0) as served:
        run = pacemark.sweep(
            served.url, model=served.model, concurrency=[2, 8], output_tokens=8, duration=2.0, nodes=2,
            ray=cluster.address, out=tmp_path, seed=1,
        )  # fmt: skip
    assert sorted(path.name for path in run.path.glob("events-*")) == ["events-0.bin", "events-1.bin"]
    assert all("events_missing" not in {x.code for x in level.verdict.reasons} for level in run.levels)
    few, many = (level.itl_ms.p50.value for level in run.levels)
    assert few is not None
    assert many == pytest.approx(few, abs=3.0)
    again = pacemark.report(run.path)
    assert [level.itl_ms for level in again.levels] == [level.itl_ms for level in run.levels]
    assert figures(again) == figures(run)
    (run.path / "events-1.bin").unlink()
    assert [level.itl_ms.p50.value is None for level in pacemark.report(run.path).levels] == [False, True]


def figures(run: Run) -> list[Any]:
    told = (
        "name",
        "requests",
        "failed",
        "output_tokens_per_s",
        "ttft_ms_p95",
        "lag_ms_p99",
        "offset_bound_ms",
        "clock",
    )
    return [
        (x.load, x.ttft_ms, x.output_tokens_per_s, [[getattr(n, name) for name in told] for n in x.nodes or ()])
        for x in run.levels
    ]


def _files(folder: Path) -> Iterator[Path]:
    return (path for path in folder.rglob("*") if path.is_file() and not path.is_symlink())


DRIVER = """
import sys
from pacemark.integrations import ray
ray._LOOPBACK = True
from pacemark.cli import main
main(sys.argv[1:])
"""


def test_workers_end_with_the_one_that_coordinates_them(cluster: Any, tmp_path: Path) -> None:
    """Killed, so that it can tell nobody: its nodes must not go on loading the endpoint."""
    with serving("fixed", ttft_ms=50.0, itl_ms=10.0) as served:
        words = ["run", served.url, "--model", served.model, "--concurrency", "4", "--duration", "60"]
        words += ["--nodes", "2", "--ray", cluster.address, "--out", str(tmp_path)]
        driver = subprocess.Popen([sys.executable, "-c", DRIVER, *words], stderr=subprocess.DEVNULL)
        try:
            wait_for(lambda: len([pid for agent in agents() for pid in family(agent)]) >= 6)
            working = [pid for agent in agents() for pid in family(agent)]
            driver.kill()
            wait_for(lambda: not any(map(alive, working)))
        finally:
            driver.kill()
            driver.wait()


def test_ctrl_c_writes_up_what_there_is(cluster: Any, tmp_path: Path) -> None:
    with serving("fixed", ttft_ms=50.0, itl_ms=10.0) as served:
        words = ["run", served.url, "--model", served.model, "--concurrency", "4", "--duration", "60"]
        words += ["--nodes", "2", "--ray", cluster.address, "--out", str(tmp_path)]
        driver = subprocess.Popen([sys.executable, "-c", DRIVER, *words], stderr=subprocess.PIPE, text=True)
        try:
            wait_for(lambda: stored_requests(tmp_path) > 20)
            driver.send_signal(signal.SIGINT)
            said = driver.communicate(timeout=60)[1]
        finally:
            driver.kill()
    assert driver.returncode == 130, said
    assert pacemark.load(tmp_path).levels[0].requests.completed > 20
    wait_for(lambda: not agents())


def test_a_dead_machine_ends_the_level_by_name(cluster: Any) -> None:
    """The last: it takes a raylet out of the cluster, and puts another in its place."""
    said = lost(cluster, Concurrency(4), lambda: cluster.remove_node(cluster.nodes.pop(), allow_graceful=False))
    assert " is lost: " in said
    assert any(words in said for words in ("or Ray on it, is gone", "silent for 2 s", "its process there has ended"))
    cluster.nodes.append(cluster.add_node(num_cpus=1, **ROOM))


@pytest.mark.timeout(900)
@pytest.mark.skipif(sys.version_info >= (3, 13), reason=f"Ray {OLDEST} has no wheel for this Python")
def test_the_oldest_ray_will_do(tmp_path: Path) -> None:
    """Databricks runtimes hold it."""
    needed("ray")
    if os.environ.get("PACEMARK_TEST_RAY"):
        pytest.skip("this is that one")
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--target", str(tmp_path / "ray")]
    subprocess.run([*pip, f"ray=={OLDEST}"], check=True, timeout=300)
    path = os.pathsep.join([str(tmp_path / "ray"), *filter(None, sys.path)])
    env = os.environ | {"PYTHONPATH": path, "PACEMARK_TEST_RAY": OLDEST}
    words = [sys.executable, "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider", __file__]
    done = subprocess.run(words, env=env, capture_output=True, text=True, timeout=800, check=False)
    assert done.returncode == 0, done.stdout[-3000:]
