"""Machines of a Ray cluster that carry a load together: an actor on each, with worker processes of its own.

Only what Ray has had in public since 2.37 is used, which Databricks runtimes hold: actors, their methods, a placement
group. The cluster is the user's: it is joined, and neither started nor stopped. Secrets go as arguments of methods
alone; arguments of a constructor and environment variables would stay with the cluster and show on its dashboard.
"""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable
from importlib.util import find_spec
from typing import Any

from pacemark.endpoint.proxy import is_loopback
from pacemark.endpoint.target import Target
from pacemark.errors import BadInput
from pacemark.instrument.agent import NodeAgent
from pacemark.instrument.commands import Reading, Setup
from pacemark.instrument.fleet import Fleet, Hire
from pacemark.instrument.nodes import AgentCall, Nodes

__all__ = ["hired_on"]

REACH_S = 5.0
"""Longest wait for the head of the cluster to take a connection."""
JOIN_S = 30.0
"""Longest wait for machines that are still on their way into the cluster, or that others use."""
_ENVIRONMENT = {
    # Ray runs what it starts at niceness 15, and what that starts inherits it.
    "RAY_worker_niceness": "0",
    # Workers run an event loop of their own; Ray would install its choice where uvloop can be imported.
    "RAY_USE_UVLOOP": "0",
}
_THREADS = 3
"""Of an actor: one waits for what workers give, one takes commands, one tells the time."""
_LOOPBACK = False
"""Whether a target on the nodes themselves will do: for tests, where all nodes are one machine."""


def hired_on(nodes: int, address: str = "auto", tell: Callable[[str], None] = lambda line: None) -> Hire:
    """A `Hire` of so many machines of the cluster at `address`; `auto` is the one that this machine is part of."""

    def hire(target: Target, setup: Setup, reading: Reading) -> Fleet:
        if is_loopback(target.host) and not _LOOPBACK:
            raise BadInput(f"{target.host} is another machine on every node: name the target as other machines know it")
        with contextlib.ExitStack() as stack:
            ray = _joined(address, stack)
            fleet = Nodes(_agents(ray, nodes, stack, tell), _why, stack.pop_all().close)
        fleet.open(target, setup, reading, engine="ray", loopback=_LOOPBACK)
        return fleet

    return hire


def _joined(address: str, stack: contextlib.ExitStack) -> Any:
    """Ray, connected; where it was not before, `stack` disconnects it. Raises BadInput."""
    if os.environ.get("DATABRICKS_RUNTIME_VERSION", "").startswith("client."):
        raise BadInput("--nodes: serverless compute runs no Ray: use a cluster with Databricks Runtime ML")
    if find_spec("ray") is None:
        raise BadInput("--nodes needs Ray: install pacemark with its extra `ray` on every machine")
    import ray

    address = os.environ.get("RAY_ADDRESS") or address if address == "auto" else address
    if not ray.is_initialized():
        if address != "auto":
            _refuse_unreachable(address)
        if " " in sys.executable:  # Ray starts what has variables of its own through a shell, which splits the path
            raise BadInput(f"--nodes: Ray cannot start {sys.executable}: install where no path has a space")
        before = signal.getsignal(signal.SIGTERM)
        try:
            ray.init(address=address, log_to_driver=False, logging_level=logging.ERROR)
        except (ConnectionError, RuntimeError, ValueError) as error:
            raise BadInput(f"--ray {address}: no cluster to join there ({_first_line(error)}); see ray start") from None
        stack.callback(ray.shutdown)
        if before is not None and threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGTERM, before)  # which Ray takes for itself
    return ray


def _refuse_unreachable(address: str) -> None:
    """Raises BadInput unless something answers at HOST:PORT: Ray would try for minutes, or start a cluster itself."""
    if "://" in address:
        raise BadInput(f"--ray {address}: Ray's client is too slow to measure through; run pacemark inside the cluster")
    host, _, port = address.rpartition(":")
    if not host or not port.isdecimal():
        raise BadInput(f"--ray {address}: give auto, or HOST:PORT of the cluster's head, such as 10.0.0.1:6379")
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=REACH_S).close()
    except (OSError, OverflowError) as error:
        raise BadInput(f"--ray {address}: nothing answers there ({error}); `ray status` on the head tells") from None


def _agents(ray: Any, nodes: int, stack: contextlib.ExitStack, tell: Callable[[str], None]) -> list[AgentCall]:
    """An actor on each of so many machines, which it has to itself. `stack` gives them back. Raises BadInput."""
    from ray.util import placement_group, remove_placement_group
    from ray.util.scheduling_strategies import PlacementGroupSchedulingStrategy

    each = _cpus(ray, nodes)
    tell(f"taking {nodes} nodes of the Ray cluster, {each:g} CPUs each")
    group = placement_group([{"CPU": each}] * nodes, strategy="STRICT_SPREAD")
    stack.callback(remove_placement_group, group)
    if not group.wait(JOIN_S):
        raise BadInput(
            f"the Ray cluster did not give {nodes} nodes with {each:g} CPUs each within {JOIN_S:.0f} s: somebody uses "
            "them; wait, or ask for fewer --nodes"
        )
    calls = []
    for number in range(nodes):
        agent = (
            ray.remote(NodeAgent)
            .options(
                num_cpus=each,
                max_concurrency=_THREADS,
                max_restarts=0,
                max_task_retries=0,
                scheduling_strategy=PlacementGroupSchedulingStrategy(
                    placement_group=group, placement_group_bundle_index=number
                ),
                runtime_env={"env_vars": _ENVIRONMENT},
            )
            .remote()
        )
        stack.callback(_killed, ray, agent)
        calls.append(_call_of(agent))
    return calls


def _cpus(ray: Any, nodes: int) -> float:
    """CPUs of the smallest of the `nodes` largest machines. Raises BadInput where there are not so many."""
    end_s = time.monotonic() + JOIN_S
    while True:
        found = sorted((n["Resources"].get("CPU", 0.0) for n in ray.nodes() if n["Alive"]), reverse=True)
        found = [count for count in found if count >= 1]
        if len(found) >= nodes:
            return float(found[nodes - 1])
        if time.monotonic() > end_s:
            raise BadInput(
                f"the Ray cluster has {len(found)} nodes with CPUs to give, and --nodes asks for {nodes}; one that "
                "coordinates is best kept out of them by starting it with --num-cpus 0"
            )
        time.sleep(0.5)


def _call_of(agent: Any) -> AgentCall:
    def call(method: str, *words: Any) -> Any:
        return getattr(agent, method).remote(*words).future()

    return call


def _killed(ray: Any, agent: Any) -> None:
    with contextlib.suppress(Exception):  # it has ended already
        ray.kill(agent)


def _why(error: BaseException) -> str:
    """In a line, why an actor did not answer."""
    text, kind = str(error), type(error).__name__
    if "node has died" in text or kind == "NodeDiedError":
        return "the machine, or Ray on it, is gone"
    if "No module named 'pacemark" in text:
        return "pacemark is not installed there"
    if kind in ("ActorDiedError", "RayActorError"):
        return "its process there has ended"
    return f"{kind}: {_first_line(getattr(error, 'cause', None) or error)}"


def _first_line(error: BaseException) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
