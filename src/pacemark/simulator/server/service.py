"""What every face of the endpoint shares: requests become jobs, emissions become answers."""

from __future__ import annotations

import asyncio
import itertools
import time
from collections.abc import Callable, Sequence
from random import Random

import msgspec

from pacemark.errors import BadInput
from pacemark.simulator.engine.engine import EngineSpec, Finished
from pacemark.simulator.engine.model import Emission, Job
from pacemark.simulator.engine.presets import Preset, build
from pacemark.simulator.server import tokens as words
from pacemark.simulator.server.answers import Answer, Plan, Usage
from pacemark.simulator.server.asks import Ask, Refusal
from pacemark.simulator.server.delivery import Delivery
from pacemark.simulator.server.faults import REPLACING, Fault, Faults
from pacemark.simulator.server.http import Connection, Request, response
from pacemark.simulator.server.lateness import Lateness
from pacemark.simulator.server.limits import Limits
from pacemark.simulator.server.live import Live
from pacemark.simulator.server.prometheus import Meter
from pacemark.simulator.server.spoiled import spoiled

__all__ = ["Service"]

_HTML = (
    b"<html><head><title>503 Service Temporarily Unavailable</title></head><body><center>"
    b"<h1>503 Service Temporarily Unavailable</h1></center></body></html>"
)


class _Open:
    """One request being answered."""

    __slots__ = (
        "answer",
        "arrived_ns",
        "ask",
        "began_ns",
        "delivery",
        "first_ns",
        "held",
        "late_ns",
        "natural",
        "output",
    )

    def __init__(self, ask: Ask, answer: Answer, delivery: Delivery, arrived_ns: int, output: int, natural: bool):
        self.ask = ask
        self.answer = answer
        self.delivery = delivery
        self.arrived_ns = arrived_ns
        self.output = output
        self.natural = natural
        self.began_ns = arrived_ns
        """When the engine took it up; at once, where it does not tell."""
        self.first_ns = 0
        self.held = 0
        self.late_ns: int | None = None


class Service:
    """Serves one preset to whatever faces ask it."""

    def __init__(
        self,
        preset: Preset,
        loop: asyncio.AbstractEventLoop,
        limits: Limits,
        faults: Faults,
        *,
        seed: int = 0,
        strict: bool = False,
    ) -> None:
        self.preset = preset
        self.lateness = Lateness()
        self.meter = Meter()
        self._limits = limits
        self._faults = faults
        self._seed = seed
        self._strict = strict
        self._number = 0
        self._open: dict[int, _Open] = {}
        self._loop = loop
        self.live = Live(build(preset, seed=seed, lived_ns=-time.monotonic_ns()), loop, self._deliver)

    @property
    def busy(self) -> bool:
        """Some request is being answered."""
        return bool(self._open)

    def restart(self) -> None:
        """Forget every request, as a crash would."""
        self.live.close()
        self._open.clear()
        self.live = Live(build(self.preset, seed=self._seed, lived_ns=-time.monotonic_ns()), self._loop, self._deliver)

    def serve(
        self,
        connection: Connection,
        request: Request,
        read: Callable[..., Ask],
        make: Callable[[Plan], Answer],
        *,
        name: str | None,
        headers: Sequence[str] = (),
    ) -> None:
        """Answer a request for output, with these headers; `name` is what it must call the model, None: nothing.

        Raises Refusal.
        """
        fault = self._faults.choose(request.arrived_ns)
        self._limits.admit(request.arrived_ns, len(self._open))
        if fault and fault.kind in REPLACING:
            self._replace(connection, fault)
            return
        ask = read(request, strict=self._strict)
        if name is not None and not ask.model:
            raise Refusal(400, "the request must name a model")
        if name is not None and ask.model != name:
            message = f"The model `{ask.model}` does not exist; this is `{name}`."
            raise Refusal(404, message, code="model_not_found")
        id = self._number
        output, natural = self._output_tokens(ask, id)
        self._limits.admit_tokens(request.arrived_ns, ask.prompt_tokens, ask.limit or output)
        self._number += 1
        answer = make(
            Plan(
                ask=ask,
                number=id,
                created=int(time.time()),
                output=output,
                model=self.preset.model,
                reasoning=min(output, self.preset.reasoning_tokens) if ask.task == "chat" and not ask.tool else 0,
                reasoning_field=self.preset.reasoning_field,
            )
        )
        try:
            self.live.submit(Job(id, request.arrived_ns, ask.prompt_tokens, output, self._prefix(ask)))
        except BadInput as error:
            raise Refusal(400, str(error), code="context_length_exceeded") from None
        delivery = spoiled(connection, fault) if fault else Delivery(connection)
        delivery.content_type = answer.content_type
        delivery.headers = (*delivery.headers, *headers)
        self._open[id] = _Open(ask, answer, delivery, request.arrived_ns, output, natural)

        def lost() -> None:
            delivery.abandon()
            if self._open.pop(id, None):
                self.live.cancel(id)

        connection.on_lost = lost
        if ask.stream:
            delivery.start(answer.opening())

    def refused(self, status: int) -> None:
        """Count a request for output that a face refused."""
        self.meter.answered(time.monotonic_ns(), status)

    def _replace(self, connection: Connection, fault: Fault) -> None:
        if fault.kind == "reset_before_headers":
            connection.abort()
        elif fault.kind == "http_503":
            self.refused(503)
            connection.send(response(503, _HTML, content_type="text/html"))
            connection.done()
        elif fault.kind == "http_429":
            after = f"retry-after: {max(0, round(fault.seconds))}"
            message = "Rate limit reached. Try again later."
            raise Refusal(429, message, kind="requests", code="rate_limit_exceeded", headers=(after,))
        else:
            raise Refusal(500, "The engine failed.", kind="internal_server_error")

    def _prefix(self, ask: Ask) -> tuple[bytes, ...]:
        spec = self.preset.timeline
        if isinstance(spec, EngineSpec) and spec.prefix_cache:
            return tuple(words.prefix_hashes(ask.tokens, spec.block_tokens))
        return ()

    def _output_tokens(self, ask: Ask, id: int) -> tuple[int, bool]:
        """How long the answer is, and whether it ends by itself."""
        limit = ask.limit or max(self.preset.default_max_tokens, ask.min_tokens)
        if self.preset.answer_tokens is None or ask.ignore_eos or ask.task == "embeddings":
            return limit, False
        natural = self.preset.natural_length(Random(f"{self._seed}/length/{id}"))
        return max(ask.min_tokens, min(limit, natural)), natural < limit

    def _deliver(self, emission: Emission) -> None:
        ended = {done.id: done for done in emission.finished} if emission.finished else None
        opened, at, meter, hold = self._open, emission.at_ns, self.meter, self.preset.tokens_per_event
        for id in emission.admitted:
            if id in opened:
                opened[id].began_ns = emission.began_ns
        for id, count in zip(emission.ids, emission.tokens, strict=True):
            request = opened.get(id)
            if request is None:  # Its client went away during this step.
                continue
            meter.output_tokens += count
            if not request.first_ns:
                request.first_ns = at
                meter.first_token(request.ask.prompt_tokens, (at - request.arrived_ns) / 1e9)
            if ended and id in ended:
                self._finish(request, count + request.held, at, ended[id])
            elif not request.ask.stream:
                continue
            elif (held := request.held + count) < hold:
                request.held = held
                continue
            else:
                request.held = 0
                request.delivery.events(request.answer.token(held))
            late = time.monotonic_ns() - at
            self.lateness.add(late, request.late_ns)
            request.late_ns = late

    def _finish(self, request: _Open, last: int, at: int, done: Finished) -> None:
        del self._open[done.id]
        ask, answer = request.ask, request.answer
        reason = "stop" if request.natural else "length"
        self._limits.give_back(request.arrived_ns, (ask.limit or request.output) - request.output)
        times = (request.arrived_ns, request.began_ns, request.first_ns, at)
        phases = [later - sooner for sooner, later in itertools.pairwise(times)]
        usage = Usage(ask.prompt_tokens, request.output, done.cached_tokens, answer.plan.reasoning, *phases)
        self.meter.served(reason, ask.prompt_tokens, done.cached_tokens, request.output, times)
        self.meter.answered(time.monotonic_ns(), 200)
        if ask.stream:
            request.delivery.finish(answer.token(last) + answer.closing(reason, usage))
        else:
            request.delivery.whole(msgspec.json.encode(answer.whole(reason, usage)))
