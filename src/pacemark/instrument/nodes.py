"""A fleet of several machines, seen from the process that coordinates them.

It talks to an agent on each (`agent.py`) through calls that give futures, and knows nothing of what carries them. One
question for what the workers have is out to each agent at any time: what is not asked for waits on its machine. The
stamps of an answer tell of the agent's clock, too.
"""

from __future__ import annotations

import platform
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, wait
from pathlib import Path
from time import monotonic_ns
from typing import Any

import msgspec

from pacemark.endpoint.proxy import proxy_for
from pacemark.endpoint.target import Target
from pacemark.errors import BadInput, RunFailed
from pacemark.instrument.agent import Lag, Polled, digest_of_code
from pacemark.instrument.apart import CHUNK_BYTES, part_path
from pacemark.instrument.clocks import NodeClock, Round, command_there
from pacemark.instrument.commands import PROBE_LEVEL, Batch, Begin, Command, Finish, Probe, Reading, Setup, decode_batch
from pacemark.nodes import NodeFacts, NodePart
from pacemark.trace import Beat
from pacemark.version import __version__

__all__ = ["AgentCall", "Nodes"]

AgentCall = Callable[..., "Future[Any]"]
"""Calls a method of one agent, given its name and arguments: a future of what it gives."""

POLL_S = 0.05
LOST_AFTER_S = 2.0
"""A machine that has not answered for so long is given up: it may not carry its share of the load any more."""
_SILENT = f"silent for {LOST_AFTER_S:g} s"
GATHER_S = 0.005
"""For so long after the first answer others are waited for, lest each of many machines be listened to by itself."""
AWAY_NS = 500_000_000
"""Whoever has not looked for so long was away, summing up a level or suspended."""
ROUND_TRIPS = 20
"""Questions for the time, before the first request."""
START_S = 60.0
"""Longest time for a machine to start its workers."""
CLOSE_S = 3.0


class Question:
    """Something that an agent is asked."""

    def __init__(self, call: AgentCall, method: str, *words: Any) -> None:
        self.at_ns, self._heard_ns = monotonic_ns(), 0
        self.future = call(method, *words)
        self.future.add_done_callback(self._note)

    def _note(self, _: Future[Any]) -> None:
        self._heard_ns = monotonic_ns()

    @property
    def heard_ns(self) -> int:
        """When the answer came, whoever was busy then."""
        return self._heard_ns or monotonic_ns()


class Node:
    """One machine."""

    def __init__(self, number: int, call: AgentCall) -> None:
        self.number, self.call = number, call
        self.facts = NodeFacts(name=f"node {number}")
        self.clock = NodeClock()
        self.beats: dict[int, Beat] = {}
        self.died: list[str] = []
        """A line for each of its workers that ended."""
        self.left = 1
        """Workers that have not ended, as far as is known."""
        self.lost = ""
        """Why it is given up."""
        self.question: Question | None = None
        self.fetched = 0
        """Bytes that came of the events which it keeps apart."""

    def ask(self, method: str, *words: Any) -> Question:
        """Ask its agent something."""
        return Question(self.call, method, *words)

    def round_trip(self) -> None:
        """Ask for the time, and wait for it."""
        asked = self.ask("clock")
        received_ns, answered_ns = asked.future.result(timeout=LOST_AFTER_S)
        self.clock.hear(Round(asked.at_ns, received_ns, answered_ns, asked.heard_ns))

    def answer(self) -> Polled:
        """What has come of the question that is out. Raises whatever kept the agent from answering."""
        asked, self.question = self.question, None
        assert asked is not None
        polled: Polled = asked.future.result()
        self.clock.hear(Round(asked.at_ns, polled.received_ns, polled.answered_ns, asked.heard_ns))
        return polled


class Nodes:
    """A `Fleet` of the machines that `calls` lead to."""

    lead_ns = 20_000_000

    def __init__(
        self, calls: Sequence[AgentCall], explain: Callable[[BaseException], str], release: Callable[[], None]
    ):
        """`explain` says in words why a call failed; `release` gives the machines back."""
        self._nodes = [Node(number, call) for number, call in enumerate(calls)]
        self._explain, self._release = explain, release
        self._finishing = False
        self._looked_ns = self._back_ns = 0
        """When it was last looked for answers, and since when without a break: nobody is silent while nobody looks."""
        self.died: list[str] = []

    def open(self, target: Target, setup: Setup, reading: Reading, *, engine: str = "", loopback: bool = False) -> None:
        """Learn of the machines and their clocks, and start the workers. Raises BadInput and RunFailed, and then gives
        the machines back.

        `loopback`: the target may be on the nodes themselves, which only a test can want.
        """
        try:
            self._open(target, setup, reading, engine, loopback)
        except BaseException:
            self.close()
            raise

    def _open(self, target: Target, setup: Setup, reading: Reading, engine: str, loopback: bool) -> None:
        self._learn([node.ask("facts", engine) for node in self._nodes])
        refuse_unlike(self.nodes)
        for _ in range(ROUND_TRIPS):
            for node in self._nodes:
                node.round_trip()
        setup = msgspec.structs.replace(setup, addresses=[])  # each looks the target up itself
        asked = []
        for node in self._nodes:
            offset = node.clock.begin(PROBE_LEVEL, monotonic_ns())
            part = (node.number, len(self._nodes))
            asked.append(node.ask("open", target, setup, reading, part, offset.offset_ns, loopback))
        self._learn(asked)
        if not target.tls:
            self._refuse_other_proxy(target)

    def _refuse_other_proxy(self, target: Target) -> None:
        """What a request begins with hangs on the proxy that it goes through, and is the same on all machines."""
        ours = proxy_for(target.url)
        shown = f"{ours.host}:{ours.port}" if ours else ""
        for node in self.nodes:
            if node.proxy != shown:
                way, here = node.proxy or "no proxy", shown or "no proxy"
                raise BadInput(f"{node.name} asks the target through {way}, this machine through {here}: set the same")

    def _learn(self, asked: Sequence[Question]) -> None:
        """Take in what each agent says of its machine."""
        for node, question in zip(self._nodes, asked, strict=True):
            try:
                told: NodeFacts | str = question.future.result(timeout=START_S)
            except TimeoutError:
                raise RunFailed(f"{node.facts.name} did not answer for {START_S:.0f} s") from None
            except Exception as error:
                raise RunFailed(f"{node.facts.name}: {self._explain(error)}") from None
            if isinstance(told, str):
                raise BadInput(f"{node.facts.name}: {told}")
            node.facts = told
        twice = Counter(node.facts.name for node in self._nodes)
        for node in self._nodes:
            if twice[node.facts.name] > 1:
                node.facts = msgspec.structs.replace(node.facts, name=f"{node.facts.name} #{node.number}")

    @property
    def nodes(self) -> list[NodeFacts]:
        """See `Fleet`."""
        return [node.facts for node in self._nodes]

    @property
    def beats(self) -> list[Beat]:
        """See `Fleet`."""
        return [beat for node in self._nodes if not node.lost for beat in node.beats.values()]

    def _heard(self) -> list[Node]:
        """Those that something may still come from."""
        return [node for node in self._nodes if not node.lost and node.left]

    def send(self, command: Command) -> None:
        """See `Fleet`. Returns when every machine has it; raises RunFailed where one cannot do as it is told."""
        asked = []
        for node in self._heard()[: 1 if isinstance(command, Probe) else None]:
            offset_ns = 0
            if isinstance(command, Begin):
                offset_ns = node.clock.begin(command.level, monotonic_ns()).offset_ns
            asked.append((node, node.ask("send", command_there(command, offset_ns), offset_ns, len(self._nodes))))
        refused = [f"{node.facts.name}: {why}" for node, question in asked if (why := self._told(node, question))]
        if refused:
            raise RunFailed("; ".join(refused))

    def _told(self, node: Node, question: Question) -> Any:
        """The answer to a question; None where the machine does not give one any more."""
        try:
            return question.future.result(timeout=LOST_AFTER_S)
        except TimeoutError:
            self._lose(node, _SILENT)
        except Exception as error:  # whatever an engine raises
            self._lose(node, self._explain(error))
        return None

    def receive(self, timeout_s: float) -> Iterator[Batch]:
        """See `Fleet`."""
        heard = self._heard()
        if monotonic_ns() - self._looked_ns > AWAY_NS:
            self._back_ns = monotonic_ns()
        for node in heard:
            node.question = node.question or node.ask("poll", POLL_S)
        out = [(node, node.question) for node in heard if node.question is not None]
        futures = [question.future for _, question in out]
        if wait(futures, timeout_s, FIRST_COMPLETED).not_done:
            wait(futures, min(timeout_s, GATHER_S))
        for node, question in out:
            if question.future.done():
                yield from self._taken(node)
            elif monotonic_ns() - max(question.at_ns, self._back_ns) > LOST_AFTER_S * 1e9:
                self._lose(node, _SILENT)
        self._looked_ns = monotonic_ns()
        if all(node.lost for node in self._nodes):
            raise RunFailed("; ".join(self.died))

    def _taken(self, node: Node) -> Iterator[Batch]:
        try:
            polled = node.answer()
        except Exception as error:  # whatever an engine raises
            self._lose(node, self._explain(error))
            return
        new, node.died, node.left = polled.died[len(node.died) :], polled.died, polled.left
        if not self._finishing:
            self.died += [f"{node.facts.name}: {line}" for line in new]
        if node.left:
            node.question = node.ask("poll", POLL_S)
        for message in polled.batches:
            batch = decode_batch(message)
            node.beats[batch.beat.worker] = batch.beat
            yield batch

    def _lose(self, node: Node, why: str) -> None:
        node.lost = why
        self.died.append(f"{node.facts.name} is lost: {why}")

    def finish(self, drain: bool, grace_s: float) -> Iterator[Batch]:
        """See `Fleet`."""
        self._finishing = True
        self.send(Finish(drain, grace_s))
        limit_ns = monotonic_ns() + int((grace_s + 5.0) * 1e9)
        while self._heard() and monotonic_ns() < limit_ns:
            yield from self.receive(0.1)

    def parts(self, level: int) -> list[NodePart]:
        """See `Fleet`."""
        asked = [(node, None if node.lost else node.ask("lag", level)) for node in self._nodes]
        return [self._part(node, question, level) for node, question in asked]

    def _part(self, node: Node, question: Question | None, level: int) -> NodePart:
        lag = (self._told(node, question) if question is not None else None) or Lag()
        offset, drift = node.clock.of(level), node.clock.drift_ppm(monotonic_ns())
        drift_ppm, most_ppm = drift if drift is not None else (None, None)
        return NodePart(
            number=node.number,
            name=node.facts.name,
            boot=node.facts.boot,
            niceness=node.facts.niceness,
            offset_ns=offset.offset_ns,
            bound_ns=offset.bound_ns,
            drift_ppm=drift_ppm,
            drift_bound_ppm=most_ppm,
            jumped_ns=node.clock.jumped_ns,
            reads=lag.reads,
            stamped=lag.stamped,
            lag_ns=lag.spread_ns,
            lost=node.lost,
        )

    def fetch(self, folder: Path, first_part: int) -> None:
        """See `Fleet`. A machine that is lost under way gives no more."""
        while True:
            asked = [(node, node.ask("events", node.fetched)) for node in self._nodes if not node.lost]
            chunks = [(node, self._told(node, question) or b"") for node, question in asked]
            for node, chunk in chunks:
                if chunk:
                    _write_at(part_path(folder, first_part + node.number), node.fetched, chunk)
                    node.fetched += len(chunk)
            if all(len(chunk) < CHUNK_BYTES for _, chunk in chunks):  # what came since is not waited for
                return

    def close(self) -> None:
        """See `Fleet`."""
        wait([node.ask("close").future for node in self._nodes if not node.lost], CLOSE_S)
        self._release()


def _write_at(path: Path, place: int, data: bytes) -> None:
    with path.open("r+b" if path.exists() else "xb") as file:
        file.seek(place)
        file.write(data)


def refuse_unlike(nodes: Sequence[NodeFacts]) -> None:
    """Raises BadInput where a machine has another pacemark, or another Python, than this one."""
    ours = {"pacemark": __version__, "code": digest_of_code(), "Python": _minor(platform.python_version())}
    for node in nodes:
        theirs = {"pacemark": node.pacemark, "code": node.code, "Python": _minor(node.python)}
        for name, mine in ours.items():
            if theirs[name] != mine:
                what = "another state of pacemark's files" if name == "code" else f"{name} {theirs[name]}"
                raise BadInput(
                    f"{node.name} has {what} ({mine} here): install the same pacemark and Python on every machine"
                )


def _minor(python: str) -> str:
    return ".".join(python.split(".")[:2])
