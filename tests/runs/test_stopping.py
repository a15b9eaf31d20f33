"""The user's rules for when a run is to be stopped, over real sockets."""

from __future__ import annotations

import contextlib
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

import pytest

import pacemark
from pacemark.answers.allowance import Allowance, allowed
from pacemark.errors import BadInput, Failed
from pacemark.pace import Concurrency
from pacemark.reporting.html import html
from pacemark.runs.cost import planned_spending, say_cost
from pacemark.runs.ledger import Ledger, Page
from pacemark.runs.stopping import Reached, StopRules
from pacemark.scenario import Levels, Scenario, Search, Words, ordered
from pacemark.simulator import Served, serving
from support.cli_tools import Asked, Reply, as_json, only_run, server, streamed
from support.cli_tools import pacemark as command
from support.servers import exchange

SHORT: dict[str, Any] = {"input_tokens": 16, "output_tokens": 4, "duration": 1.5}


@pytest.fixture(scope="module")
def endpoint() -> Iterator[Served]:
    with serving("demo") as served:
        yield served


def sent(path: Path) -> tuple[int, int]:
    """Requests of a run's levels, and their tokens."""
    with contextlib.closing(sqlite3.connect(path / "run.db")) as db:
        asked = "SELECT count(*), sum(max(input_tokens, 0) + output_tokens) FROM request WHERE level >= 0"
        requests, tokens = db.execute(asked).fetchone()
        return requests, tokens


@pytest.mark.slow(shared=True)
def test_a_run_ends_before_it_has_sent_more_requests_than_it_may(endpoint: Served, tmp_path: Path) -> None:
    run = pacemark.sweep(endpoint.url, concurrency=[1, 2, 4, 8], max_requests=150, out=tmp_path, **SHORT)
    assert len(run.levels) < 4
    assert run.levels[0].ended_by == "duration"
    assert 60 < sent(run.path)[0] <= 150 + 16  # what goes out while one level hands over to the next
    assert "allowance of 150 requests" in run.summary.run["stopped"]
    assert run.summary.run["ended"] == "completed"
    assert "was stopped by a rule of yours" in html(run.summary)
    requests = sent(run.path)
    assert pacemark.resume(run.path).levels == run.levels  # nothing is left that it may do
    assert sent(run.path) == requests


@pytest.mark.slow
@pytest.mark.parametrize("load", [{"concurrency": 2}, {"rate": 60.0}], ids=["closed", "open"])
def test_workers_share_what_may_be_sent(endpoint: Served, tmp_path: Path, load: dict[str, Any]) -> None:
    words = SHORT | {"duration": 30, "workers": 3}
    run = pacemark.run(endpoint.url, **load, max_requests=60, out=tmp_path, **words)
    assert run.levels[0].ended_by == "allowance"
    assert 20 <= sent(run.path)[0] <= 63  # a worker's share at least, for one that is slow to start leaves its own


@pytest.mark.slow(shared=True)
def test_an_open_loop_keeps_its_tokens(endpoint: Served, tmp_path: Path) -> None:
    run = pacemark.run(endpoint.url, rate=60.0, max_tokens=1500, out=tmp_path, **(SHORT | {"duration": 20}))
    assert run.levels[0].ended_by == "allowance"
    assert 700 < sent(run.path)[1] <= 1700


@pytest.mark.slow(shared=True)
def test_the_command_says_so_first(tmp_path: Path) -> None:
    words = ("--concurrency", 4, "--duration", 20, "--input-tokens", 16, "--output-tokens", 4)
    price = ("--max-cost", "0.01", "--price-per-million", 3)
    done = command("run", "sim:demo", *words, *price, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("Stopped by a rule of yours: the level at concurrency 4 had to end for the\n")
    assert "tokens and 20 s, which cost" in done.stderr
    assert sent(only_run(tmp_path / "runs"))[1] <= 0.011 / 3 * 1e6


@pytest.mark.slow(shared=True)
def test_too_many_failures_end_a_run_with_what_was_measured_kept(tmp_path: Path) -> None:
    def every_other(asked: Asked) -> Reply:
        return streamed(asked, 4) if asked.number < 100 or asked.number % 2 else as_json({"error": "no"}, 500)

    with server(every_other) as url:
        words = ("--concurrency", "2,1", "--duration", 60, "--input-tokens", 16, "--output-tokens", 4)
        done = command("sweep", url, "--model", "m", *words, "--max-error-share", "5%", cwd=tmp_path)
    assert done.returncode == 1, done.stderr
    (line,) = [x for x in done.stderr.splitlines() if x.startswith("pacemark: ")]
    assert "requests at concurrency 2 failed (most of them http_500)" in line
    assert "--max-error-share" in line
    folder = only_run(tmp_path / "runs")
    assert sent(folder)[0] > 100
    stored = pacemark.load(folder).summary.run
    assert (stored["ended"], stored["failure"]) == ("failed", stored["stopped"])


def test_a_few_failures_stop_nothing_under_way_and_a_level_that_ends_with_them() -> None:
    rules, page = StopRules(Ledger(str), 0.05), Page()
    for n in range(9):
        page.add(exchange(n, [n + 1]))
    page.add(exchange(9, error="http_500"))
    rules.check(page, Concurrency(1), [])  # one of ten: it may be chance
    for n in range(10, 20):
        page.add(exchange(n, error="http_500"))
    with pytest.raises(Reached, match="11 of 20 requests") as stopped:
        rules.check(page, Concurrency(1), [])
    assert stopped.value.failed


def test_a_level_that_cannot_be_ended_is_not_begun() -> None:
    ledger = Ledger(str)
    rules = StopRules(ledger)
    rules.allowance = Allowance(requests=100)
    assert rules.begin(Concurrency(64), []) == 100
    for n in range(50):
        ledger.add(exchange(n, [n + 1]))
    assert rules.begin(Concurrency(25), []) == 50
    with pytest.raises(Reached, match="100 requests is too little for concurrency 26"):
        rules.begin(Concurrency(26), [])


# --- what it will cost


def order(**words: Any) -> Scenario:
    return ordered("http://llm.example/v1", Levels((Concurrency(2), Concurrency(4))), cast("Words", words))


FIRST = exchange(0, [100 + 10 * n for n in range(11)])
"""An answer of 11 tokens in 200 ms, the first after 100."""


def test_the_cost_is_estimated_from_the_first_request() -> None:
    scenario = order(duration=10.0, input_tokens=89, output_tokens=11)
    spent = planned_spending(scenario, Allowance(), FIRST)
    assert spent is not None
    assert spent.seconds == pytest.approx(2 * 10.4)
    assert spent.requests == pytest.approx(10.4 / 0.2 * 6)
    assert spent.tokens == 100 * spent.requests
    assert say_cost(scenario, Allowance(), FIRST, "llm.example", {}) == ""
    said = say_cost(scenario, Allowance(price_per_hour=36.0), FIRST, "llm.example", {})
    assert said == "about 312 requests, 31,200 tokens and 21 s, which cost 0.208"


def test_a_costly_run_is_refused_unless_it_is_wanted() -> None:
    scenario, price = order(), Allowance(price_per_million_tokens=1000.0)
    with pytest.raises(BadInput, match=r"--yes, or give --max-cost"):
        say_cost(scenario, price, FIRST, "llm.example", {})
    assert say_cost(scenario, price, FIRST, "llm.example", {"yes": True})
    assert say_cost(scenario, price, FIRST, "llm.example", {"ask_above": 1e6})
    assert say_cost(scenario, price, FIRST, "127.0.0.1", {})
    assert say_cost(scenario, Allowance(cost=1.0, price_per_hour=1e9), FIRST, "llm.example", {})


def test_a_search_by_the_token_needs_a_limit() -> None:
    search = ordered("http://llm.example/v1", Search(), {})
    with pytest.raises(BadInput, match="--max-cost, or --yes"):
        say_cost(search, Allowance(seconds=900, price_per_million_tokens=1.0), FIRST, "llm.example", {})
    by_the_hour = say_cost(search, Allowance(seconds=900, price_per_hour=4.0), FIRST, "llm.example", {})
    assert by_the_hour == "a search of at most 900 s, which costs 1.00"


def test_a_costly_run_sends_nothing_but_first_requests(endpoint: Served, tmp_path: Path) -> None:
    named = endpoint.url.replace("127.0.0.1", "localhost")
    run = pacemark.run(named, concurrency=1, price_per_million=1e9, out=tmp_path, **(SHORT | {"duration": 0.3}))
    assert run.levels


@pytest.mark.parametrize(
    ("words", "part"),
    [
        ({"max_cost": 1.0}, "--max-cost needs a price"),
        ({"max_requests": 0}, "--max-requests 0"),
        ({"max_tokens": 1.5}, "--max-tokens 1.5"),
        ({"max_cost": -1.0, "price_per_hour": 1.0}, "--max-cost -1"),
        ({"price_per_million": float("nan")}, "--price-per-million nan"),
    ],
)
def test_rules_that_cannot_be(words: dict[str, Any], part: str) -> None:
    with pytest.raises(BadInput, match=part):
        allowed(words)


def test_rules_stand_beside_those_that_stood() -> None:
    assert allowed({}) is None
    assert allowed({}, Allowance(900.0)) == Allowance(900.0)
    assert allowed({"max_requests": 5, "price_per_million": 2.0}, Allowance(900.0)) == Allowance(
        900.0, requests=5, price_per_million_tokens=2.0
    )


@pytest.mark.slow(shared=True)
def test_failures_stop_a_search_too(tmp_path: Path) -> None:
    def refusing(asked: Asked) -> Reply:
        return streamed(asked, 4) if asked.number < 60 else as_json({"error": "no"}, 503)

    with server(refusing) as url, pytest.raises(Failed, match="max-error-share"):
        pacemark.find(url, model="m", budget="ttft p95 < 5s", max_error_share="10%", out=tmp_path, **SHORT)
    assert sent(only_run(tmp_path))[0] > 30
