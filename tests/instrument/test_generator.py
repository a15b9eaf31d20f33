"""The load generator against servers that count what they are asked."""

import asyncio
import contextlib
import json
import socket
import time
from collections.abc import Awaitable, Callable, Iterator

import numpy as np
import pytest

from pacemark.endpoint.address import Address
from pacemark.endpoint.target import target
from pacemark.errors import BadInput, RunFailed
from pacemark.figures.level import LevelResult
from pacemark.instrument.commands import Asking, Begin, Hush, Patience, Setup
from pacemark.instrument.fleet import Processes
from pacemark.pace import Concurrency, Load, Rate
from pacemark.runs import trouble
from pacemark.runs.bench import Bench
from pacemark.scenario import Settings
from pacemark.workload.words import Workload, estimated
from support.processes import receive
from support.sampled import first
from support.servers import address, answer, chunk, delta, event, listening, read_request, stream
from support.waiting import wait_for

Reply = Callable[[asyncio.StreamWriter, int], Awaitable[None]]


class Endpoint:
    """Answers by `reply(writer, number of the request)`, keeps every prompt and who was there at once."""

    def __init__(self, reply: Reply, close_after: int = 0) -> None:
        self.reply = reply
        self.close_after = close_after
        self.prompts: list[str] = []
        self.times: list[float] = []
        self.connections = 0
        self.at_once = 0
        self.most_at_once = 0

    async def __call__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        served = 0
        while not self.close_after or served < self.close_after:
            body = json.loads((await read_request(reader)).partition(b"\r\n\r\n")[2])
            self.prompts.append(body["messages"][0]["content"])
            self.times.append(time.monotonic())
            self.at_once += 1
            self.most_at_once = max(self.most_at_once, self.at_once)
            try:
                await self.reply(writer, len(self.times))
            finally:
                self.at_once -= 1
            served += 1


def tokens(count: int = 5, gap_s: float = 0.02) -> Reply:
    async def reply(writer: asyncio.StreamWriter, number: int) -> None:
        await stream(writer, count, gap_s)

    return reply


@contextlib.contextmanager
def bench(endpoint: Endpoint, **settings: object) -> Iterator[Bench]:
    """A bench that has asked its first questions; what they left in the endpoint's books is kept."""
    options = {"duration_s": 1.0, "timeout_s": 10.0} | settings
    with listening(endpoint) as port:
        place = target(f"http://127.0.0.1:{port}/v1", model="m")
        workload = Workload(input_tokens=16, output_tokens=5, seed=11)
        with Bench(place, workload, Settings(**options)) as ready:  # type: ignore[arg-type]
            ready.prepare()
            yield ready


def run(endpoint: Endpoint, load: Load, **settings: object) -> LevelResult:
    with bench(endpoint, **settings) as ready:
        ready.measure(load)
        return ready.finish()[0]


class Cache(Endpoint):
    """Knows again the prompts that it was asked before, and answers them sooner; it tells nobody."""

    def __init__(self) -> None:
        super().__init__(self.look_up)

    async def look_up(self, writer: asyncio.StreamWriter, number: int) -> None:
        known = self.prompts[-1] in self.prompts[:-1]
        await asyncio.sleep(0.005 if known else 0.12)
        await stream(writer, 5)


@pytest.mark.parametrize("earlier_seed", [11, 12])
def test_prompts_of_an_earlier_run_are_suspected_in_the_cache(earlier_seed: int) -> None:
    endpoint = Cache()
    known = []
    for seed in (earlier_seed, 11):
        with listening(endpoint) as port:
            place, workload = target(f"http://127.0.0.1:{port}/v1", model="m"), Workload(16, 5, seed)
            with Bench(place, workload, Settings(seed_given=True)) as ready:
                ready.prepare()
                known.append(ready.known_prompts)
    assert known[0] is not None
    assert known[1] is not None
    assert known[0] > 0.7
    assert (known[1] < 0.5) == (earlier_seed == 11)


def test_a_server_that_forgets_prompts_is_not_suspected() -> None:
    with bench(Endpoint(tokens(2, 0.01)), seed_given=True) as ready:
        assert ready.known_prompts is None


# --- closed loop


def test_a_concurrency_is_kept_and_never_passed() -> None:
    endpoint = Endpoint(tokens())
    result = run(endpoint, Concurrency(6), workers=2)
    assert endpoint.most_at_once == 6
    assert result.level.errors == {}
    assert result.level.verdict.status != "invalid"
    # One connection for each stream, and a few for the first questions.
    assert endpoint.connections <= 6 + 2
    begun, ended = result.trace.sent_ns, result.trace.ended_ns
    middle = np.linspace(result.window.start_ns, result.window.end_ns, 50)[1:-1]
    in_flight = [int(((begun <= t) & (ended > t)).sum()) for t in middle]
    assert np.mean(in_flight) > 5.5


@pytest.mark.slow(shared=True)
def test_streams_do_not_march_in_step() -> None:
    """They start one after the other, and their first answers are of as many lengths as can be."""
    endpoint = Endpoint(tokens(10, 0.05))
    result = run(endpoint, Concurrency(5))
    first = [int(np.flatnonzero(result.trace.stream == n)[0]) for n in range(5)]
    starts_s = result.trace.sent_ns[first] / 1e9
    assert starts_s[-1] - starts_s[0] > 0.02  # a busy machine begins late and hurries
    assert sorted(result.trace.asked_tokens[first].tolist()) == [2, 2, 3, 4, 5]  # none of one: some servers refuse that
    later = np.setdiff1d(np.arange(len(result.trace)), first)
    assert set(result.trace.asked_tokens[later].tolist()) == {5}


@pytest.mark.trap("prompts that an earlier run left in the cache")
def test_no_two_requests_of_a_run_open_alike() -> None:
    """A prefix cache must find nothing: not in other levels, and not in the questions before the first."""
    endpoint = Endpoint(tokens(2, 0.001))
    with bench(endpoint, duration_s=0.3, workers=2) as ready:
        for load in (Concurrency(2), Concurrency(3), Rate(20.0)):
            ready.measure(load)
        ready.finish()
    openings = [prompt.split()[0] for prompt in endpoint.prompts]
    assert len(openings) > 60
    assert len(set(openings)) == len(openings)


def test_every_request_sent_is_a_request_told_of() -> None:
    endpoint = Endpoint(tokens())
    with bench(endpoint) as ready:
        before = len(endpoint.prompts)
        for load in (Concurrency(2), Concurrency(5), Concurrency(1)):
            ready.measure(load)
        results = ready.finish()
    told = sum(r.level.requests.completed + r.level.requests.failed for r in results)
    assert told == len(endpoint.prompts) - before


def test_levels_go_down_as_well_as_up() -> None:
    endpoint = Endpoint(tokens())
    with bench(endpoint, duration_s=0.5) as ready:
        ready.measure(Concurrency(6))
        endpoint.most_at_once = 0
        down = ready.measure(Concurrency(2))
        ready.finish()
    window = down.trace.sent_ns > down.window.start_ns
    assert set(down.trace.stream[window].tolist()) == {0, 1}


# --- connections that go away


def test_an_idle_close_is_met_by_a_counted_reconnect() -> None:
    """The server closes after every third answer without a word; no request may fail for it."""
    endpoint = Endpoint(tokens(3, 0.005), close_after=3)
    result = run(endpoint, Concurrency(3))
    assert result.level.errors == {}
    assert result.level.requests.completed > 30
    assert result.health.reconnects >= 2


def test_a_close_in_the_face_of_a_request_is_met_by_another_try() -> None:
    """The server reads a request on a used connection and hangs up on it, as at the end of its idle time."""

    class Rude(Endpoint):
        async def __call__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            self.connections += 1
            for _ in range(3):
                await read_request(reader)
                self.times.append(time.monotonic())
                await self.reply(writer, len(self.times))
            await read_request(reader)

    endpoint = Rude(tokens(3, 0.005))
    result = run(endpoint, Concurrency(2))
    assert result.level.errors == {}
    assert result.health.reconnects >= 2


def test_fresh_connections_are_fresh() -> None:
    endpoint = Endpoint(tokens(2, 0.005))
    result = run(endpoint, Concurrency(2), fresh_connections=True)
    assert endpoint.connections == len(endpoint.prompts)
    assert result.level.errors == {}
    assert result.health.reconnects == 0


def test_an_address_that_does_not_answer_is_passed_over(monkeypatch: pytest.MonkeyPatch) -> None:
    """`localhost` is often ::1 first, where nobody listens."""
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        dead = unused.getsockname()[1]

        def both(place: object) -> list[Address]:
            return [Address(socket.AF_INET, ("127.0.0.1", p), "localhost", p) for p in (dead, port[0])]

        endpoint, port = Endpoint(tokens(2, 0.005)), [0]
        monkeypatch.setattr("pacemark.runs.bench.resolve", both)
        with listening(endpoint) as port[0]:
            place = target(f"http://localhost:{port[0]}/v1", model="m")
            with Bench(place, Workload(input_tokens=16, output_tokens=2), Settings(duration_s=0.5)) as ready:
                ready.prepare()
                result = ready.measure(Concurrency(4))
                ready.finish()
    assert result.level.errors == {}
    assert result.level.requests.completed > 10


# --- refusals


def refusing(status: str, *headers: str, after: int = 10**9, until: int = 10**9) -> Reply:
    """Good answers, but for a refusal from the request number `after` to `until`."""

    async def reply(writer: asyncio.StreamWriter, number: int) -> None:
        if after < number <= until:
            writer.write(answer(b'{"error": {"message": "not now"}}', *headers, status=status))
        else:
            await stream(writer, 2, 0.01)

    return reply


def questions() -> int:
    """How many requests a bench sends before its first level."""
    endpoint = Endpoint(tokens(2, 0.001))
    with bench(endpoint):
        return len(endpoint.prompts)


def test_retry_after_is_honoured() -> None:
    asked = questions()
    endpoint = Endpoint(refusing("429 Too Many Requests", "Retry-After: 1", after=asked + 3, until=asked + 4))
    result = run(endpoint, Concurrency(1), duration_s=2.0)
    refused = endpoint.times[asked + 3]
    assert endpoint.times[asked + 4] - refused >= 0.99
    assert result.level.errors == {"http_429": 1}


@pytest.mark.parametrize(
    "header", first(1, ["Retry-After: nan", "Retry-After: -5", "Retry-After: soon", "X-Nothing: 1"])
)
def test_a_refusing_server_is_not_hammered(header: str) -> None:
    asked = questions()
    endpoint = Endpoint(refusing("503 Service Unavailable", header, after=asked + 2, until=asked + 100))
    with contextlib.suppress(RunFailed):
        run(endpoint, Concurrency(2), duration_s=1.0)
    times = np.asarray(endpoint.times[asked + 2 :])
    assert len(times) < 60


@pytest.mark.parametrize(
    ("status", "kind"), [("500 Internal Server Error", "http_500"), ("429 Too Many Requests", "http_429")]
)
def test_a_hopeless_level_is_given_up(status: str, kind: str) -> None:
    asked = questions()
    endpoint = Endpoint(refusing(status, after=asked))
    begun = time.monotonic()
    with bench(endpoint) as ready, pytest.raises(RunFailed, match=f"{kind}.*not now"):
        ready.measure(Concurrency(8))
    assert time.monotonic() - begun < 15
    assert len(endpoint.times) - asked < 60


def test_a_redirect_is_a_refusal() -> None:
    asked = questions()
    endpoint = Endpoint(refusing("307 Temporary Redirect", "Location: http://elsewhere.test/", after=asked))
    with bench(endpoint) as ready, pytest.raises(RunFailed, match="http_307"):
        ready.measure(Concurrency(4))
    assert len(endpoint.times) - asked < 60


def test_a_bad_first_answer_is_bad_input() -> None:
    endpoint = Endpoint(refusing("404 Not Found", after=0))
    with pytest.raises(BadInput, match=r"404.*not now"), bench(endpoint):
        pass
    # 400 is tried with plainer and plainer options before it is believed.
    endpoint = Endpoint(refusing("400 Bad Request", after=0))
    with pytest.raises(BadInput, match="not now"), bench(endpoint):
        pass
    assert 2 <= len(endpoint.prompts) <= 8


# --- open loop


@pytest.mark.trap("late arrivals dropped")
def test_an_open_loop_does_not_wait_for_answers() -> None:
    """20 requests/s at half a second each: ten in flight, whatever the server does."""
    endpoint = Endpoint(tokens(5, 0.1))
    result = run(endpoint, Rate(20.0, "constant"), duration_s=1.2, workers=2)
    assert 8 <= endpoint.most_at_once <= 14
    due = np.sort(result.trace.scheduled_ns)
    assert np.diff(due) == pytest.approx(50_000_000, abs=2)
    assert result.level.errors == {}


@pytest.mark.trap("late sends that hide the wait")
def test_requests_held_back_count_from_their_schedule() -> None:
    """One place for 20 requests/s of 100 ms each: the wait for the place is part of the latency."""
    endpoint = Endpoint(tokens(5, 0.02))
    result = run(endpoint, Rate(20.0, "constant"), duration_s=1.0, max_in_flight=1)
    assert endpoint.most_at_once == 1
    trace = result.trace
    assert trace.open_loop
    waited = (trace.sent_ns - trace.scheduled_ns) / 1e6
    assert waited.max() > 200
    due = np.sort(trace.scheduled_ns)
    assert np.diff(due) == pytest.approx(50_000_000, abs=2)
    # Every request that was due within the window is in the sample, however late it was sent.
    in_window = ((due > result.window.start_ns) & (due <= result.window.end_ns)).sum()
    assert in_window == pytest.approx(result.window.seconds * 20, abs=1)


@pytest.mark.slow
def test_a_rate_far_beyond_capacity_ends_too() -> None:
    """One place for five times as many requests as it can serve: the wait grows faster than half the time goes by."""
    result = run(Endpoint(tokens(5, 0.02)), Rate(50.0, "constant"), duration_s=1.0, max_in_flight=1)
    assert result.window.seconds == pytest.approx(1.0, abs=0.1)
    assert np.max(result.trace.ended_ns - result.trace.scheduled_ns) > 1e9


# --- told while it runs


def test_connections_take_turns() -> None:
    """One replica behind a balancer would have all of an open loop's requests, if the last connection were taken."""
    served: list[int] = []

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        me = len(served)
        served.append(0)
        while True:
            await read_request(reader)
            served[me] += 1
            await stream(writer, 2, 0.001)

    with listening(handle) as port, Processes(1) as fleet:
        ask = Asking(b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: ", b"{}", Workload(4, 2), estimated(4, 0))
        fleet.send(Setup(0, 1, [address(port)], 5.0, 1))
        fleet.send(ask)
        fleet.send(Begin(0, Rate(100.0, "constant"), time.monotonic_ns(), 100_000_000))  # opens 13 connections
        wait_for(lambda: bool(list(fleet.receive(0.05))) and sum(served) > 100)
        fleet.send(Hush())
        wait_for(lambda: any(batch.beat.idle for batch in fleet.receive(0.05)))
        asked = sum(served)
        end = time.monotonic() + 0.5
        while time.monotonic() < end:
            list(fleet.receive(0.05))
        assert sum(served) == asked  # hushed
        fleet.send(Begin(1, Concurrency(2), time.monotonic_ns(), 1_000_000))
        wait_for(lambda: bool(list(fleet.receive(0.05))) and sum(served) > asked + 4)
    assert len(served) >= 10
    assert min(served[:10]) > 0.3 * max(served)


def test_an_answer_that_stalls_ends_as_it_was_told_to() -> None:
    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_request(reader)
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n")
        writer.write(chunk(event(delta(content="x"))))
        await asyncio.sleep(20)

    with listening(handle) as port, Processes(1) as fleet:
        fleet.send(Setup(0, 1, [address(port)], 15.0, 1))
        fleet.send(Asking(b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: ", b"{}", Workload(4, 2), estimated(4, 0)))
        fleet.send(Begin(0, Concurrency(1), time.monotonic_ns(), 1_000_000))
        fleet.send(Patience(0.3))
        batches = receive(fleet, lambda bs: any(b.exchanges for b in bs))
    ended = next(b.exchanges[0] for b in batches if b.exchanges)
    assert ended.error == "stalled"
    assert (ended.ended_ns - ended.sent_ns) / 1e9 == pytest.approx(0.6, abs=0.5)


@pytest.mark.slow
def test_a_request_that_is_lost_does_not_hold_its_level_up(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each seventh is never answered; the others take 0.1 s."""

    async def reply(writer: asyncio.StreamWriter, number: int) -> None:
        if number > 20 and number % 7 == 0:
            await asyncio.sleep(60)
        await stream(writer, 5, 0.02)

    monkeypatch.setattr(trouble, "LEAST_UNANSWERED_S", 1.0)
    begun = time.monotonic()
    result = run(Endpoint(reply), Concurrency(4), duration_s=4.0, timeout_s=50.0)
    assert time.monotonic() - begun < 40
    assert result.level.errors.keys() == {"unanswered"}
    lost = result.trace.error == "unanswered"
    assert (result.trace.ended_ns - result.trace.sent_ns)[lost].min() > 1e9
    assert any(r.code == "errors" for r in result.level.verdict.reasons)
