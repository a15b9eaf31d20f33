"""How pacemark signs on where newer endpoints are: their own URL, and the routes of the AI Gateway."""

from __future__ import annotations

import datetime
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

import pacemark
from pacemark.endpoint import watch
from pacemark.endpoint.databricks import Route, Serving, serving
from pacemark.endpoint.description import endpoint_in
from pacemark.endpoint.signon import DataPlane, SignOn, signed_on
from pacemark.endpoint.target import Target, target
from pacemark.errors import BadInput
from pacemark.version import __version__
from support.sampled import first
from support.workspaces import NAME, PAT, QUICK, SECRET, TARGET, no_settings, service_principal, workspace

pytestmark = [
    pytest.mark.usefixtures("no_connections_left"),
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
    pytest.mark.filterwarnings(f"ignore:{NAME} :UserWarning"),
    pytest.mark.filterwarnings("ignore:.* per :UserWarning"),
]


@pytest.fixture(autouse=True)
def no_configuration(monkeypatch: pytest.MonkeyPatch) -> None:
    no_settings(monkeypatch)


class TestRouteOptimised:
    @pytest.mark.slow
    def test_it_is_asked_by_its_own_url_with_a_token_of_its_own(
        self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
    ) -> None:
        """The workspace's URL refuses such an endpoint here, as it does those made since September 2025."""
        used: list[dict[str, str]] = []
        real = Serving.headers

        def noted(self: Serving) -> dict[str, str]:
            used.append(real(self))
            return used[-1]

        monkeypatch.setattr(Serving, "headers", noted)
        monkeypatch.setattr(watch, "RENEW_S", 0.2)
        with workspace(monkeypatch, route_optimized=True, token_s=4.0) as served:
            service_principal(monkeypatch)
            run = pacemark.run(TARGET, concurrency=2, duration=6.0, out=tmp_path, **QUICK)
        level = run.levels[0]
        assert level.requests.failed == 0, level.errors
        assert level.requests.completed > 20
        assert run.summary.target["url"] == f"{served.root}/1234567890/serving-endpoints"
        tokens = {headers["Authorization"].removeprefix("Bearer ") for headers in used}
        assert len(tokens) > 2
        for file in run.path.iterdir():
            assert not [t for t in {*tokens, SECRET} if t.encode() in file.read_bytes()], file

    def test_a_personal_access_token_does_not_open_it(self, monkeypatch: pytest.MonkeyPatch) -> None:
        with (
            workspace(monkeypatch, route_optimized=True),
            pytest.raises(
                BadInput, match=f"{NAME} is route-optimised and opens to OAuth only .*DATABRICKS_CLIENT_ID"
            ) as said,
        ):
            pacemark.check(TARGET, **QUICK)
        assert PAT not in str(said.value)

    def test_an_old_one_is_asked_through_the_workspace_and_that_is_said(self, monkeypatch: pytest.MonkeyPatch) -> None:
        told = {"name": NAME, "route_optimized": True, "endpoint_url": "https://own/invocations"}
        with workspace(monkeypatch):
            way = signed_on()
            for created_ms, taken in ((1_700_000_000_000, True), (1_770_000_000_000, False)):
                monkeypatch.setattr(SignOn, "get", lambda self, path, ms=created_ms: told | {"creation_timestamp": ms})
                if taken:
                    found = Serving(way, NAME)
                    assert found.base.endswith("/serving-endpoints")
                    (line,) = [x for x in found.endpoint.warnings(16) if "route-optimised" in x]
                    assert "through the workspace's URL" in line
                else:
                    with pytest.raises(BadInput, match="OAuth only"):
                        Serving(way, NAME)

    def test_where_its_url_leads(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(DataPlane, "headers", lambda self: {"Authorization": "Bearer own-token"})
        own = f"abc.serving.cloud.databricks.com/123/serving-endpoints/{NAME}/invocations"
        with workspace(monkeypatch):
            way = signed_on()
            for url in (own, f"https://{own}"):
                monkeypatch.setattr(
                    SignOn, "get", lambda self, path, url=url: {"route_optimized": True, "endpoint_url": url}
                )
                found = Serving(way, NAME)
                place = found.target(target(found.base))
                assert f"{place.url}{place.path}" == f"https://{own}"

    def test_details_that_are_not_told_are_those_of_the_page(self) -> None:
        details = endpoint_in({"name": NAME, "id": "abc"}).authorization_details
        assert '"object_path": "/serving-endpoints/abc"' in details
        assert '"query_inference_endpoint"' in details


def test_of_several_workspaces_behind_one_host_each_request_says_which() -> None:
    config = SimpleNamespace(host="https://h", workspace_id="1234567890", authenticate=lambda: {"Authorization": "x"})
    client: Any = SimpleNamespace(config=config)
    assert SignOn(client).headers() == {"Authorization": "x", "X-Databricks-Workspace-Id": "1234567890"}
    config.workspace_id = None
    assert SignOn(client).headers() == {"Authorization": "x"}


class TestDataPlane:
    def test_a_token_is_renewed_long_before_its_end(self, monkeypatch: pytest.MonkeyPatch) -> None:
        given: list[dict[str, Any]] = []

        def retrieve(**form: Any) -> Any:
            given.append(form)
            expiry = datetime.datetime.now() + datetime.timedelta(seconds=lives_s)
            return SimpleNamespace(access_token=f"token-{len(given)}", expiry=expiry)

        monkeypatch.setattr("databricks.sdk.oauth.retrieve_token", retrieve)
        oauth = SimpleNamespace(access_token="of-the-workspace")
        client: Any = SimpleNamespace(config=SimpleNamespace(host="https://h/", oauth_token=lambda: oauth))
        key = DataPlane(SignOn(client), "the details")
        lives_s = 3600
        assert key.headers() == key.headers() == {"Authorization": "Bearer token-1"}
        assert given[0]["token_url"] == "https://h/oidc/v1/token"
        assert "assertion=of-the-workspace" in given[0]["params"]
        monkeypatch.setattr("pacemark.endpoint.signon._RENEW_S", 4000.0)
        assert key.headers() == {"Authorization": "Bearer token-1"}  # three quarters of its life are left
        lives_s = -1
        key._expiry = datetime.datetime.now() + datetime.timedelta(seconds=800)
        assert key.headers() == {"Authorization": "Bearer token-2"}
        assert key.headers() == {"Authorization": "Bearer token-3"}


class TestGateway:
    @pytest.mark.slow(shared=True)
    def test_a_route_of_the_workspace_is_asked_as_its_user(
        self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
    ) -> None:
        monkeypatch.setattr(watch, "RENEW_S", 0.2)
        with workspace(monkeypatch, token_s=3.0) as served:
            service_principal(monkeypatch)
            run = pacemark.run(
                "databricks:/ai-gateway/mlflow/v1",
                model="my-service",
                concurrency=2,
                duration=4.0,
                out=tmp_path,
                **QUICK,
            )
        assert run.levels[0].requests.failed == 0
        assert run.levels[0].requests.completed > 20
        assert run.summary.target["url"] == f"{served.root}/ai-gateway/mlflow/v1"
        assert run.summary.target["model"] == "my-service"

    @pytest.mark.parametrize(
        ("route", "given", "api", "url"),
        first(
            3,
            [
                ("mlflow/v1", "chat", "chat", "mlflow/v1"),
                ("mlflow/v1", "responses", "responses", "mlflow/v1"),
                ("openai/v1", "chat", "chat", "openai/v1"),
                ("openai/v1/responses", "chat", "responses", "openai/v1"),
                ("openai/v1/embeddings", "chat", "embeddings", "openai/v1"),
                ("anthropic", "chat", "messages", "anthropic/v1"),
                ("anthropic/v1", "messages", "messages", "anthropic/v1"),
                ("anthropic/v1/messages", "chat", "messages", "anthropic/v1"),
                ("gemini", "chat", "gemini", "gemini/v1beta"),
                ("gemini/v1beta", "gemini", "gemini", "gemini/v1beta"),
            ],
        ),
    )
    def test_each_family_of_routes_has_its_api(
        self, monkeypatch: pytest.MonkeyPatch, route: str, given: str, api: str, url: str
    ) -> None:
        """By the whole path, by the family's name, or as the user says; each answers in its own words and counts."""
        with workspace(monkeypatch) as served:
            found = pacemark.check(f"databricks:/ai-gateway/{route}", model="a.b.c", api=given, **QUICK)
        assert found["target"] == {"url": f"{served.root}/ai-gateway/{url}", "model": "a.b.c", "api": api}
        assert found["output_tokens"] == (1 if api == "embeddings" else 8)
        assert found["streams"] == (api != "embeddings")
        assert found["input_tokens"] > 8

    @pytest.mark.parametrize(
        ("where", "model", "says"),
        [
            ("/ai-gateway/mlflow/v1", "", "name one with --model"),
            ("/ai-gateway/no/v1", "m", "has no m: check the path, --model and --api"),
            ("/ai-gateway/../x y", "m", "no name of a serving endpoint"),
        ],
    )
    def test_what_cannot_work(self, monkeypatch: pytest.MonkeyPatch, where: str, model: str, says: str) -> None:
        with workspace(monkeypatch), pytest.raises(BadInput, match=says):
            pacemark.check(f"databricks:{where}", model=model, **QUICK)

    def test_a_route_without_permission(self, monkeypatch: pytest.MonkeyPatch) -> None:
        with workspace(monkeypatch):
            route = serving("/ai-gateway/mlflow/v1", model="m")
        assert isinstance(route, Route)
        assert "ask for the permission" in str(route.advice("http_403", ""))
        assert route.advice("timeout", "") is None
        assert route.look().ready


class TestAgent:
    def test_every_request_says_that_it_is_pacemarks(self, monkeypatch: pytest.MonkeyPatch) -> None:
        assert f"User-Agent: pacemark/{__version__}\r\n".encode() in Target("http://h").head("/x")
        with workspace(monkeypatch):
            for name, model in ((NAME, ""), ("/ai-gateway/mlflow/v1", "m")):
                found = serving(name, model=model)
                agent = found.target(target(found.base)).headers["User-Agent"]
                assert agent.startswith(f"pacemark/{__version__} databricks-sdk-py/")
                assert found.target(target(found.base)).redacted(agent) == agent
