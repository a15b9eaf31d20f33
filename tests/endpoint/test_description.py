"""What a workspace says of an endpoint, in the forms that it says it in: newer, older, and partly missing."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pacemark.endpoint.databricks import serving
from pacemark.endpoint.description import caller_in, endpoint_in, principals_in
from pacemark.endpoint.prometheus import metrics_in
from pacemark.endpoint.served import Caller
from pacemark.pace import Rate
from support.needed import late

late("databricks.sdk")

ODD: dict[str, Any] = {
    "name": "odd",
    "state": {"ready": "READY", "config_update": "UPDATE_FAILED"},
    "task": "llm/v1/chat",
    "permission_level": "CAN_DO_WHAT_IS_NEW",
    "config": {
        "config_version": "3",
        "served_entities": [
            {"name": "a", "entity_name": "system.ai.a", "max_provisioned_throughput": "9500", "workload_size": "Small"},
            {"name": "b", "external_model": {"provider": "a-new-provider", "name": "m", "task": "llm/v1/chat"}},
            {"name": "c", "external_model": {"name": "m", "task": "llm/v1/chat"}, "state": {"deployment": "NEW_STATE"}},
            "not an object",
        ],
        "traffic_config": {
            "routes": [{"served_model_name": "a"}, {"served_entity_name": "b", "traffic_percentage": "60"}]
        },
    },
    "ai_gateway": {
        "rate_limits": [
            {"calls": "120", "key": "endpoint", "renewal_period": "minute"},
            {"tokens": 5, "key": "a_new_key", "renewal_period": "fortnight"},
        ]
    },
}  # fmt: skip


@contextmanager
def told(monkeypatch: pytest.MonkeyPatch, endpoint: Any, me: Any = None) -> Iterator[None]:
    """A workspace that says exactly this of its endpoint `odd`, and of whoever asks."""
    answers = {"/api/2.0/serving-endpoints/odd": endpoint, "/api/2.0/preview/scim/v2/Me": me}

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            known = answers.get(self.path) is not None
            body = json.dumps(answers[self.path] if known else {"error_code": "ENDPOINT_NOT_FOUND"}).encode()
            self.send_response(200 if known else 404)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: Any) -> None:
            """Nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = Thread(target=server.serve_forever, args=(0.05,), daemon=True)
    thread.start()
    for name in [x for x in os.environ if x.startswith("DATABRICKS_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("DATABRICKS_CONFIG_FILE", "/nowhere")
    monkeypatch.setenv("DATABRICKS_HOST", f"http://127.0.0.1:{server.server_address[1]}")
    monkeypatch.setenv("DATABRICKS_TOKEN", "dapi-anything")
    try:
        yield
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


@pytest.mark.usefixtures("no_connections_left")
@pytest.mark.filterwarnings("ignore::ResourceWarning")
class TestThroughTheSdk:
    def test_what_the_sdk_does_not_know_stops_nothing(self, monkeypatch: pytest.MonkeyPatch) -> None:
        with told(monkeypatch, ODD):
            endpoint = serving("odd").endpoint
        assert endpoint.described() == {
            "state": "ready, config update failed, new state",
            "task": "llm/v1/chat",
            "serves": [
                "system.ai.a: 0 to 9,500 tokens/s provisioned",
                "m: external, by a-new-provider, 60% of the traffic",
                "m: external",
            ],
            "limits": [
                "120 requests per minute (set on the endpoint)",
                "5 tokens per fortnight (set on the endpoint for each a new key)",
                "200 requests per second (of a workspace, over all endpoints that are not route-optimised, as of "
                "2026-06-18)",
            ],
            "permission": "CAN_DO_WHAT_IS_NEW",
        }
        assert endpoint.version == 3

    def test_a_limit_for_somebody_else_is_not_the_callers(self, monkeypatch: pytest.MonkeyPatch) -> None:
        limits = [
            {"calls": 6, "key": "user", "principal": "other@example.com", "renewal_period": "minute"},
            {"calls": 60, "key": "user_group", "principal": "testers", "renewal_period": "minute"},
        ]
        endpoint = {"name": "odd", "ai_gateway": {"rate_limits": limits}}
        me = {"userName": "me@example.com", "groups": [{"display": "testers"}]}
        with told(monkeypatch, endpoint, me):
            found = serving("odd").endpoint
        assert [limit.binds for limit in found.limits[:2]] == [False, True]
        assert found.described()["limits"][0].endswith("(set on the endpoint for user other@example.com, not you)")
        (line,) = found.planned([Rate(2.0)], latency_s=1.0, input_tokens=1, output_tokens=1)
        assert line.startswith("60 requests per minute (set on the endpoint for user group testers)")
        with told(monkeypatch, endpoint):  # nobody says who asks
            assert [limit.binds for limit in serving("odd").endpoint.limits[:2]] == [True, True]

    def test_an_answer_that_is_nothing_is_an_endpoint_without_properties(self, monkeypatch: pytest.MonkeyPatch) -> None:
        with told(monkeypatch, {}):
            assert serving("odd").endpoint.name == "odd"


def test_old_served_models_alone_are_what_is_served() -> None:
    models = [{"name": "m-1", "model_name": "m", "model_version": "1", "workload_size": "Large"}]
    endpoint = endpoint_in({"name": "e", "config": {"served_models": models}})
    assert endpoint.described()["serves"][0].startswith("m: ")


def test_an_endpoint_under_construction_shows_what_it_is_to_be() -> None:
    pending = {"served_entities": [{"name": "m", "provisioned_model_units": 50, "burst_scaling_enabled": False}]}
    (entity,) = endpoint_in({"name": "e", "pending_config": pending}).entities
    assert (entity.kind, entity.model_units, entity.bursts) == ("model units", 50, False)


def test_a_limit_of_nothing_refuses_all() -> None:
    endpoint = endpoint_in({"name": "e", "ai_gateway": {"rate_limits": [{"calls": 0, "renewal_period": "minute"}]}})
    (line,) = endpoint.planned([Rate(1.0)], latency_s=1.0, input_tokens=1, output_tokens=1)
    assert line == "0 requests per minute (set on the endpoint): every request is refused"


def test_periods_are_told_apart() -> None:
    limits = [{"calls": 3600, "renewal_period": period} for period in ("second", "minute", "hour", "day", "era")]
    found = endpoint_in({"name": "e", "ai_gateway": {"rate_limits": limits}}).limits
    assert [limit.per_second for limit in found[:5]] == [3600.0, 60.0, 1.0, pytest.approx(1 / 24), float("inf")]


def test_who_asks() -> None:
    assert caller_in({"userName": "a", "groups": [{"display": "b"}, {}, 3]}) == Caller(frozenset("a"), frozenset("b"))
    assert caller_in(None) == Caller(frozenset())
    assert not principals_in({"ai_gateway": None})


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.text(max_size=5), inner, max_size=2),
    max_leaves=4,
)


def _paths(value: Any, here: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    yield here
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, inner in items:
        yield from _paths(inner, (*here, key))


def _with(value: Any, path: tuple[Any, ...], new: Any) -> Any:
    if not path:
        return new
    copy = dict(value) if isinstance(value, dict) else list(value)
    copy[path[0]] = _with(value[path[0]], path[1:], new)
    return copy


@given(st.sampled_from(list(_paths(ODD))), json_values)
def test_any_value_anywhere_is_read(path: tuple[Any, ...], value: Any) -> None:
    odd = _with(ODD, path, value)
    endpoint = endpoint_in(odd, caller_in(value))
    assert principals_in(odd) in (True, False)
    json.dumps(endpoint.described())
    endpoint.warnings(256)
    endpoint.planned([Rate(1.0)], latency_s=1.0, input_tokens=1, output_tokens=1)


def test_a_time_stamp_with_an_exponent_costs_no_metric() -> None:
    text = (
        'requests{endpoint_name="a b"} 3 1.788718e+12\nplain 4 1.7E12\nlabelled{x="y z"} 5\nbig 1e3\nno metric 7 8 9\n'
    )
    assert metrics_in(text) == {"requests": 3.0, "plain": 4.0, "labelled": 5.0, "big": 1000.0}


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize("version", ["==0.40.0", ""], ids=["oldest", "newest"])
def test_the_oldest_and_the_newest_sdk(version: str, tmp_path: Path) -> None:
    """Each in a folder of its own before all others: what signs on, reads and renews works with both."""
    install = [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-deps"]
    try:
        subprocess.run([*install, "--target", str(tmp_path), f"databricks-sdk{version}"], check=True, timeout=200)
    except subprocess.CalledProcessError:
        pytest.skip("no registry to install the other SDK from")
    here = Path(__file__).parent
    path = os.pathsep.join([str(tmp_path), *filter(None, [os.environ.get("PYTHONPATH")])])
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider", "-m", "not slow",
         str(here / "test_description.py"), str(here / "test_databricks.py"),
         "-k", "TestThroughTheSdk or what_cannot_work or credentials or profile or was_bought or expires"],
        env=os.environ | {"PYTHONPATH": path}, capture_output=True, text=True, timeout=390, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout[-4000:]
    version_found = subprocess.run(
        [sys.executable, "-c", "import databricks.sdk as s; print(s.__file__)"],
        env=os.environ | {"PYTHONPATH": path}, capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert str(tmp_path) in version_found.stdout
