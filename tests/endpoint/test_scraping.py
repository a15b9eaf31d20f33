"""Metrics read by a process of its own, of real servers and of none."""

from __future__ import annotations

import http.client
import json
import time
from urllib.parse import urlsplit

import pytest

from pacemark.endpoint.scraping import YOURS, Scraper, _together, exporters
from pacemark.endpoint.target import target
from pacemark.errors import BadInput
from pacemark.simulator import Served, serving
from support.servers import listening, plainly_answered


def ask(served: Served, tokens: int) -> None:
    """One whole answer."""
    url = urlsplit(served.url)
    connection = http.client.HTTPConnection(str(url.hostname), url.port, timeout=20)
    body = {"model": served.model, "messages": [{"role": "user", "content": "a b c"}], "max_tokens": tokens}
    connection.request("POST", "/v1/chat/completions", json.dumps(body), {"Content-Type": "application/json"})
    assert connection.getresponse().read()
    connection.close()


def test_a_look_holds_all_that_was_counted_before_it() -> None:
    with serving("fixed", ttft_ms=1.0, itl_ms=0.1) as served:
        (place,) = exporters(target(served.url, model="m"), ["auto"])
        assert place.url == served.url.removesuffix("/v1") + "/metrics"
        scraper = Scraper([place])
        try:
            scraper.look(10.0)
            before = scraper.news()[-1]
            ask(served, 9)
            asked_ns = time.monotonic_ns()
            scraper.look(10.0)
            after = scraper.news()[-1]
        finally:
            scraper.close()
    assert after.now_ns > asked_ns
    assert after.engines == ["vLLM"]
    assert after.values["output_tokens"] - before.values["output_tokens"] == 9
    assert after.values["requests"] - before.values["requests"] == 1
    assert not after.problem


def test_a_server_that_went_away_is_said_and_is_no_zero() -> None:
    with serving("fixed") as served:
        found = exporters(target(served.url, model="m"), ["auto"])
        scraper = Scraper(found)
    try:
        scraper.look(10.0)
        look = scraper.news()[-1]
    finally:
        scraper.close()
    assert look.values == {}
    assert "cannot be read" in look.problem
    scraper.look(0.1)  # it has ended, and no one minds


@pytest.mark.parametrize(
    ("url", "said"),
    [("http://127.0.0.1:9", "cannot be read"), ("http://127.0.0.1:9/prometheus", "cannot be read")],
)
def test_metrics_that_are_not_there_are_refused(url: str, said: str) -> None:
    with pytest.raises(BadInput, match=f"--metrics {url}: {said}"):
        exporters(target("http://127.0.0.1:9/v1"), [url])
    assert exporters(target("http://127.0.0.1:9/v1"), ["auto"]) == []


def test_a_key_goes_to_its_own_server_only() -> None:
    with listening(plainly_answered(b"up 1\nmy_up 2\n")) as port, listening(plainly_answered(b"my_up 2\n")) as other:
        place = target(f"http://127.0.0.1:{port}/v1", headers={"Authorization": "Bearer word"})
        urls = [f"http://127.0.0.1:{n}" for n in (port, other)]
        own, foreign = exporters(place, urls, "running=my_up")
        assert own.headers == place.headers
        assert foreign.headers == {}
        with pytest.raises(BadInput, match="none of its metrics is known: name them with --metrics-map"):
            exporters(place, urls[:1])


def test_replicas_are_summed_and_a_front_end_counts_once() -> None:
    vllm, dynamo = {"requests": 3.0, "kv_used": 0.2, "running": 1.0}, {"requests": 7.0}
    engines, values = _together([{"vLLM": vllm}, {"vLLM": vllm | {"kv_used": 0.4}}, {"DCGM": {"power_w": 500.0}}])
    assert engines == ["vLLM", "DCGM"]
    assert values == {"requests": 6.0, "kv_used": pytest.approx(0.3), "running": 2.0, "power_w": 500.0}
    assert _together([{"vLLM": vllm}, {"Dynamo": dynamo}])[1]["requests"] == 7.0
    assert _together([{"vLLM": vllm}, {YOURS: dynamo}])[1]["requests"] == 7.0
    assert "kv_used" not in _together([{"vLLM": vllm}, {"vLLM": {"requests": 1.0}}])[1]
