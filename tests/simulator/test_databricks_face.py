"""The Databricks look-alike, asked by the real databricks-sdk and the real openai client."""

from __future__ import annotations

import base64
import time
from collections.abc import Iterator
from typing import Any

import pytest

from pacemark.simulator import Served, serving
from pacemark.simulator.server.limits import Quota
from pacemark.simulator.server.tokens import count
from support.needed import late
from support.simulated import ask, connect
from support.waiting import wait_for

anthropic, openai, sdk = late("anthropic"), late("openai"), late("databricks.sdk")
ENDPOINT = "llama-bench"
CHAT: dict[str, Any] = {"messages": [{"role": "user", "content": "hello there"}], "max_tokens": 5}
INVOKE = f"/serving-endpoints/{ENDPOINT}/invocations"


# The SDK leaves its connections to the garbage collector.
pytestmark = [pytest.mark.filterwarnings("ignore::ResourceWarning"), pytest.mark.usefixtures("no_connections_left")]


@pytest.fixture(autouse=True)
def no_configuration(monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory) -> None:
    """Nothing of this machine's own Databricks settings may leak in."""
    for name in ("DATABRICKS_HOST", "DATABRICKS_TOKEN", "DATABRICKS_CLIENT_ID", "DATABRICKS_CLIENT_SECRET"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("DATABRICKS_CONFIG_FILE", str(tmp_path_factory.mktemp("config") / "none"))


@pytest.fixture(scope="module")
def workspace() -> Iterator[Served]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SIMULATOR_PAT", "dapi-sesame")
        patch.setenv("SIMULATOR_SECRET", "dose-secret")
        databricks = {
            "endpoint": ENDPOINT,
            "client_id": "principal",
            "client_secret_env": "SIMULATOR_SECRET",
            "min_throughput": 2000,
            "max_throughput": 9500,
        }
        with serving(
            "fixed", ttft_ms=2, itl_ms=1, model="served-llama", api_key_env="SIMULATOR_PAT", databricks=databricks
        ) as served:
            yield served


def client(served: Served, **given: str) -> Any:
    auth: dict[str, Any] = given or {"token": "dapi-sesame"}
    return sdk.WorkspaceClient(config=sdk.core.Config(host=served.root, retry_timeout_seconds=2, **auth))


def test_the_sdk_reads_the_endpoint(workspace: Served) -> None:
    endpoint = client(workspace).serving_endpoints.get(ENDPOINT)
    assert endpoint.name == ENDPOINT
    assert endpoint.task == "llm/v1/chat"
    assert endpoint.state
    assert endpoint.state.ready == sdk.service.serving.EndpointStateReady.READY
    assert endpoint.config
    assert endpoint.config.served_entities
    entity = endpoint.config.served_entities[0]
    assert entity.entity_name == "system.ai.simulated_model"
    assert (entity.min_provisioned_throughput, entity.max_provisioned_throughput) == (2000, 9500)
    assert entity.scale_to_zero_enabled is False
    assert [e.name for e in client(workspace).serving_endpoints.list()] == [ENDPOINT]


def test_the_sdk_asks_the_endpoint(workspace: Served) -> None:
    reply = client(workspace).serving_endpoints.query(
        name=ENDPOINT,
        messages=[
            sdk.service.serving.ChatMessage(role=sdk.service.serving.ChatMessageRole.USER, content="hello there")
        ],
        max_tokens=5,
    )
    assert reply.usage
    assert reply.usage.completion_tokens == 5
    assert reply.choices
    assert reply.choices[0].message
    assert count(reply.choices[0].message.content or "") == 5
    text = client(workspace).serving_endpoints.query(name=ENDPOINT, prompt="once", max_tokens=3)
    assert text.choices
    assert count(text.choices[0].text or "") == 3
    vectors = client(workspace).serving_endpoints.query(name=ENDPOINT, input=["a", "b"])
    assert vectors.data
    assert len(vectors.data) == 2


def test_the_sdk_exports_metrics(workspace: Served) -> None:
    w = client(workspace)
    w.serving_endpoints.query(name=ENDPOINT, prompt="once", max_tokens=2)
    with pytest.raises(sdk.errors.NotFound):
        w.serving_endpoints.query(name="other", prompt="once")
    contents = w.serving_endpoints.export_metrics(ENDPOINT).contents
    assert contents
    text = contents.read().decode()
    found = {line.split("{")[0]: float(line.rsplit(" ", 1)[1]) for line in text.splitlines() if line[0] != "#"}
    assert found["request_count_total"] >= 2
    assert found["request_4xx_count_total"] >= 1
    assert found["request_latency_ms_count"] >= 1
    assert found["request_latency_ms_sum"] >= 3
    assert "provisioned_concurrent_requests_total" in found
    queue, model, whole = (
        found[f"{name}_ms_sum"] for name in ("model_queue_time", "model_prediction_latency", "request_latency")
    )
    assert queue + model == pytest.approx(whole)
    assert model >= 3
    assert found["model_queue_time_ms_count"] == found["request_latency_ms_count"]


def test_what_is_not_there_is_the_sdks_not_found(workspace: Served) -> None:
    w = client(workspace)
    with pytest.raises(sdk.errors.NotFound, match="no-such does not exist"):
        w.serving_endpoints.get("no-such")
    with pytest.raises(sdk.errors.NotFound):
        w.serving_endpoints.query(name="no-such", prompt="x")
    reply = ask(workspace, "/api/2.0/serving-endpoints/no-such", headers={"authorization": "Bearer dapi-sesame"})
    assert reply.status == 404
    assert reply.json["error_code"] == "RESOURCE_DOES_NOT_EXIST"
    assert "x-request-id" in reply.headers


def test_the_sdk_is_told_of_wrong_tokens(workspace: Served) -> None:
    with pytest.raises(sdk.errors.PermissionDenied, match="Invalid access token"):
        client(workspace, token="wrong").serving_endpoints.get(ENDPOINT)
    assert ask(workspace, INVOKE, CHAT).status == 401
    assert ask(workspace, INVOKE, CHAT).json["error_code"] == 401

    @sdk.credentials_provider.credentials_strategy("nobody", [])  # type: ignore[untyped-decorator]
    def nobody(cfg: Any) -> Any:
        return dict

    config = sdk.core.Config(host=workspace.root, credentials_strategy=nobody, retry_timeout_seconds=2)
    with pytest.raises(sdk.errors.Unauthenticated):
        sdk.WorkspaceClient(config=config).serving_endpoints.get(ENDPOINT)


def test_a_service_principal_gets_tokens(workspace: Served) -> None:
    w = client(workspace, client_id="principal", client_secret="dose-secret", auth_type="oauth-m2m")
    assert w.serving_endpoints.get(ENDPOINT).name == ENDPOINT
    token = w.config.authenticate()["Authorization"]
    assert token != "Bearer dapi-sesame"
    assert ask(workspace, INVOKE, CHAT, headers={"authorization": token}).status == 200
    with pytest.raises(ValueError, match="invalid_client"):
        client(workspace, client_id="principal", client_secret="wrong", auth_type="oauth-m2m").serving_endpoints.get(
            "x"
        )


def test_oauth_tokens_expire(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SIMULATOR_SECRET", "dose-secret")
    databricks = {
        "endpoint": ENDPOINT, "client_id": "principal", "client_secret_env": "SIMULATOR_SECRET", "token_s": 1.0
    }  # fmt: skip
    with serving("fixed", ttft_ms=1, databricks=databricks) as served:
        basic = base64.b64encode(b"principal:dose-secret").decode()
        form = b"grant_type=client_credentials&scope=all-apis"
        reply = ask(served, "/oidc/v1/token", form, headers={"authorization": f"Basic {basic}"})
        assert reply.json["token_type"] == "Bearer"
        assert reply.json["expires_in"] == 1
        headers = {"authorization": f"Bearer {reply.json['access_token']}"}
        got = time.monotonic()
        assert ask(served, INVOKE, CHAT | {"max_tokens": 1}, headers=headers).status == 200
        wait_for(lambda: ask(served, INVOKE, CHAT | {"max_tokens": 1}, headers=headers).status == 403)
        assert time.monotonic() - got > 0.9
        reply = ask(served, INVOKE, CHAT, headers=headers)
        assert reply.json == {"error_code": 403, "message": "Invalid access token."}
        # The secret may also come in the form.
        again = ask(served, "/oidc/v1/token", form + b"&client_id=principal&client_secret=dose-secret")
        assert again.status == 200
        assert ask(served, "/oidc/v1/token", b"grant_type=password").json["error"] == "unsupported_grant_type"


@pytest.mark.xdist_group("clients")
def test_the_openai_client_on_the_workspace_base(workspace: Served) -> None:
    w = openai.OpenAI(base_url=f"{workspace.root}/serving-endpoints", api_key="dapi-sesame", max_retries=0)
    stream = w.chat.completions.create(model=ENDPOINT, messages=CHAT["messages"], max_tokens=5, stream=True)
    chunks = list(stream)
    assert chunks[0].model == "served-llama"
    assert count("".join(c.choices[0].delta.content or "" for c in chunks)) == 5
    # Usage comes with every event, asked for or not, and grows.
    assert [c.usage and c.usage.completion_tokens for c in chunks] == [0, 1, 2, 3, 4, 5, 5]
    vectors = w.embeddings.create(model=ENDPOINT, input="a text")
    assert len(vectors.data[0].embedding) == 64
    with pytest.raises(openai.NotFoundError, match=f"this workspace has {ENDPOINT}"):
        w.chat.completions.create(model="other", messages=CHAT["messages"])
    w.close()


def test_invocations_stream_too(workspace: Served) -> None:
    headers = {"authorization": "Bearer dapi-sesame"}
    connection = connect(workspace)
    reply = ask(connection, INVOKE, CHAT | {"stream": True}, headers=headers)
    assert reply.headers["content-type"].startswith("text/event-stream")
    assert reply.events[-1]["usage"]["completion_tokens"] == 5
    assert reply.events[-1]["choices"][0]["finish_reason"] == "length"
    reply = ask(connection, INVOKE, {"nothing": 1}, headers=headers)
    assert (reply.status, reply.json["error_code"]) == (400, "BAD_REQUEST")
    assert ask(connection, INVOKE, b"{", headers=headers).json["error_code"] == "BAD_REQUEST"
    connection.close()


def test_reasoning_comes_as_typed_parts() -> None:
    with serving("fixed", ttft_ms=1, itl_ms=1, reasoning_tokens=2, databricks={"endpoint": ENDPOINT}) as served:
        events = ask(served, INVOKE, CHAT | {"stream": True}).events
        contents = [e["choices"][0]["delta"].get("content") for e in events[1:-1]]
        assert [c[0]["type"] if isinstance(c, list) else "text" for c in contents] == ["reasoning"] * 2 + ["text"] * 3
        assert contents[0][0]["summary"][0]["text"]


@pytest.mark.slow(shared=True)
def test_rate_limits_in_databricks_form() -> None:
    with serving("fixed", ttft_ms=1, requests_per_s=0.9, burst=1, databricks={"endpoint": ENDPOINT}) as served:
        assert ask(served, INVOKE, CHAT).status == 200
        reply = ask(served, INVOKE, CHAT)
        assert (reply.status, reply.json["error_code"]) == (429, "REQUEST_LIMIT_EXCEEDED")
        assert 1 <= int(reply.headers["retry-after"]) <= 2
        config = sdk.core.Config(host=served.root, token="any", retry_timeout_seconds=1)
        with pytest.raises((sdk.errors.TooManyRequests, TimeoutError)):
            sdk.WorkspaceClient(config=config).serving_endpoints.query(name=ENDPOINT, prompt="x")


@pytest.mark.parametrize("provisioned", ["throughput", "model_units", "none"])
def test_capacity_as_it_was_bought(provisioned: str) -> None:
    scaling = {"min_replicas": 0, "max_replicas": 2}
    with serving(
        "demo", scaling=scaling, databricks={"endpoint": ENDPOINT, "provisioned": provisioned, "model_units": 30}
    ) as served:
        entity = ask(served, f"/api/2.0/serving-endpoints/{ENDPOINT}").json["config"]["served_entities"][0]
        assert ("max_provisioned_throughput" in entity) == (provisioned == "throughput")
        assert entity.get("provisioned_model_units") == (30 if provisioned == "model_units" else None)
        assert ("foundation_model" in entity) == (provisioned == "none")
        assert entity["scale_to_zero_enabled"] is True
        assert entity["state"]["deployment_state_message"] == "Scaled to zero"


def test_without_the_option_there_is_no_workspace() -> None:
    with serving("fixed") as served:
        assert ask(served, "/api/2.0/serving-endpoints").status == 404


def test_what_a_caller_may_do() -> None:
    for permission, seen, asked in (("NONE", 403, 403), ("CAN_VIEW", 200, 403), ("CAN_MANAGE", 200, 200)):
        with serving("fixed", ttft_ms=1, databricks={"endpoint": ENDPOINT, "permission": permission}) as served:
            look = ask(served, f"/api/2.0/serving-endpoints/{ENDPOINT}")
            reply = ask(served, INVOKE, CHAT)
            assert (look.status, reply.status) == (seen, asked)
            for refusal in (x for x in (look, reply) if x.status == 403):
                assert refusal.json["error_code"] == "PERMISSION_DENIED"
                assert ENDPOINT in refusal.json["message"]
            if seen == 200:
                assert look.json["permission_level"] == permission


def test_an_endpoint_that_is_not_ready() -> None:
    databricks = {"endpoint": ENDPOINT, "deployment": "DEPLOYMENT_CREATING", "config_update": "IN_PROGRESS"}
    with serving("fixed", ttft_ms=1, databricks=databricks) as served:
        state = client(served, token="any").serving_endpoints.get(ENDPOINT).state
        assert state
        assert state.ready == sdk.service.serving.EndpointStateReady.NOT_READY
        assert ask(served, INVOKE, CHAT).status == 503


def test_an_external_model_and_limits_of_its_own() -> None:
    databricks = {"endpoint": ENDPOINT, "provisioned": "external", "task": "llm/v1/completions", "calls_per_minute": 2}
    with serving("fixed", ttft_ms=1, databricks=databricks) as served:
        endpoint = client(served, token="any").serving_endpoints.get(ENDPOINT)
        assert endpoint.task == "llm/v1/completions"
        assert endpoint.config
        assert endpoint.config.served_entities
        model = endpoint.config.served_entities[0].external_model
        assert model
        assert (model.provider.value, model.task) == ("openai", "llm/v1/completions")
        assert endpoint.ai_gateway
        assert endpoint.ai_gateway.rate_limits
        assert endpoint.ai_gateway.rate_limits[0].calls == 2
        assert ask(served, INVOKE, CHAT).status == 400
        texts = [ask(served, INVOKE, {"prompt": "once", "max_tokens": 2}) for _ in range(3)]
        assert [reply.status for reply in texts] == [200, 200, 429]
        assert "calls per minute" in texts[-1].json["message"]
        assert 50 <= int(texts[-1].headers["retry-after"]) <= 60


@pytest.mark.parametrize(
    ("limit", "says"),
    [
        ({"output_tokens_per_minute": 12}, "Exceeded workspace output tokens per minute"),
        ({"input_tokens_per_minute": 20}, "Exceeded workspace input tokens per minute"),
        ({"tokens_per_minute": 30}, "Exceeded tokens per minute"),
        ({"queries_per_hour": 2}, "Exceeded workspace queries per hour"),
    ],
)
def test_limits_of_a_workspace(limit: dict[str, int], says: str) -> None:
    """Two requests of 9 tokens in and 5 out fit, a third does not; in half a second they are forgotten."""
    minute = {"minute_s": 0.5 / 60 if "queries_per_hour" in limit else 0.5}
    with serving("fixed", ttft_ms=1, databricks={"endpoint": ENDPOINT} | limit | minute) as served:
        first = ask(served, INVOKE, CHAT)
        assert first.json["usage"]["prompt_tokens"] + 5 <= 15
        assert ask(served, INVOKE, CHAT).status == 200
        reply = ask(served, INVOKE, CHAT)
        assert reply.status == 429
        assert says in reply.json["message"]
        assert reply.headers["retry-after"] == "1"
        wait_for(lambda: ask(served, INVOKE, CHAT).status == 200)


def test_quotas_are_for_any_stretch_of_time() -> None:
    quota, s = Quota(10, "output", 60.0, "too much"), 10**9
    for at, amount in ((0, 4), (10, 4)):
        assert quota.wait_s(at * s, amount) == 0
        quota.spend(at * s, amount)
    assert quota.wait_s(20 * s, 2) == 0
    assert quota.wait_s(20 * s, 4) == pytest.approx(40)
    assert quota.wait_s(20 * s, 8) == pytest.approx(50)
    assert quota.wait_s(20 * s, 11) == 60.0
    assert quota.wait_s(60 * s, 4) == 0
    assert quota.wait_s(70 * s, 10) == 0


def test_what_was_reserved_and_not_used_is_given_back() -> None:
    """Ten tokens are reserved for each and two are used: of twenty a minute that is nine requests, not two."""
    databricks = {"endpoint": ENDPOINT, "output_tokens_per_minute": 20}
    with serving("fixed", ttft_ms=1, itl_ms=1, answer_tokens=[2.0, 0.0], databricks=databricks) as served:
        answers = [ask(served, INVOKE, CHAT | {"max_tokens": 10}) for _ in range(7)]
        assert [answer.status for answer in answers] == [200] * 6 + [429]
        assert {answer.json["usage"]["completion_tokens"] for answer in answers[:6]} == {2}


def test_split_traffic_says_who_answered() -> None:
    databricks = {"endpoint": ENDPOINT, "split": {"champion": 70, "challenger": 30}}
    with serving("fixed", ttft_ms=1, databricks=databricks) as served:
        config = client(served, token="any").serving_endpoints.get(ENDPOINT).config
        assert config
        assert config.served_entities
        assert [entity.name for entity in config.served_entities] == ["champion", "challenger"]
        assert config.traffic_config
        assert [r.traffic_percentage for r in config.traffic_config.routes or []] == [70, 30]
        bodies = [CHAT | {"max_tokens": 1, "stream": n % 2 == 0} for n in range(40)]
        names = [ask(served, INVOKE, body).headers["served-model-name"] for body in bodies]
    assert names.count("champion") == pytest.approx(28, abs=1)
    assert names.count("champion") + names.count("challenger") == 40


@pytest.mark.xdist_group("clients")
@pytest.mark.slow(shared=True)
def test_real_clients_at_the_gateways_routes(workspace: Served) -> None:
    at = f"{workspace.root}/ai-gateway"
    w = openai.OpenAI(base_url=f"{at}/openai/v1", api_key="dapi-sesame", max_retries=0)
    response = w.responses.create(model="a.b.c", input="hello there", max_output_tokens=5)
    assert response.usage
    assert response.usage.output_tokens == count(response.output_text) == 5
    w.close()
    headers = {"Authorization": "Bearer dapi-sesame"}
    with anthropic.Anthropic(base_url=f"{at}/anthropic", api_key="unused", default_headers=headers) as a:
        said = a.messages.create(model="a.b.c", max_tokens=5, messages=[{"role": "user", "content": "hello there"}])
    assert said.usage.output_tokens == 5
    assert ask(workspace, "/ai-gateway/anthropic/v1/chat/completions", CHAT, headers=headers).status == 404
    assert ask(workspace, "/ai-gateway/none/v1/messages", CHAT, headers=headers).status == 404
