"""Databricks as a target: a serving endpoint by its name, or a route of the workspace such as its AI Gateway."""

from __future__ import annotations

import contextlib
import difflib
import re
from time import monotonic_ns
from typing import Any, NoReturn

import msgspec

from pacemark.dialects.dialect import DIALECTS, spoken
from pacemark.endpoint.description import caller_in, chunk_in, endpoint_in, principals_in
from pacemark.endpoint.served import Caller, Endpoint, exceeding
from pacemark.endpoint.signon import DataPlane, Key, SignOn, signed_on
from pacemark.endpoint.tags import body_tags, header_tags
from pacemark.endpoint.target import Target
from pacemark.errors import BadInput, RunFailed
from pacemark.trace import Sight

__all__ = ["SCHEME", "Route", "Serving", "exceeding", "serving"]

SCHEME = "databricks:"
_OWN_URL_MS = 1_758_499_200_000
"""2025-09-22: route-optimised endpoints made since then are not served by the workspace's URL ("Query route-optimized
serving endpoints", docs.databricks.com)."""
_FAMILIES = {"anthropic": "messages", "gemini": "gemini"}
"""Routes of the AI Gateway whose API follows from their family ("Query model services", docs.databricks.com)."""


class Serving:
    """One endpoint of a workspace, through the SDK: a `watch.Source`. Raises nothing but PacemarkError."""

    def __init__(self, workspace: SignOn, name: str) -> None:
        self._workspace = workspace
        self._name = name
        self._caller: Caller | None = None
        self.endpoint = self._with_chunks(self._read())
        self._key: Key = workspace
        self.base, self._path = f"{workspace.host}/serving-endpoints", f"/{name}/invocations"
        if self.endpoint.route_optimized and self.endpoint.url:
            self._ask_directly()
        self.opening = self.headers() | {"User-Agent": workspace.agent}
        """The headers to begin with."""

    def _ask_directly(self) -> None:
        """Ask the endpoint at its own URL, if the way of signing on gives a token for it. Raises BadInput."""
        endpoint, own = self.endpoint, DataPlane(self._workspace, self.endpoint.authorization_details)
        url = endpoint.url if "://" in endpoint.url else f"https://{endpoint.url}"
        try:
            own.headers()
        except RunFailed as error:
            if 0 < endpoint.created_ms < _OWN_URL_MS:  # the workspace's URL serves it too
                self.endpoint = msgspec.structs.replace(endpoint, detour=str(error))
                return
            raise BadInput(
                f"{self._name} is route-optimised and opens to OAuth only ({error}): sign on as a service principal, "
                "DATABRICKS_CLIENT_ID and DATABRICKS_CLIENT_SECRET"
            ) from None
        self._key = own
        self.base, self._path = (
            (url.removesuffix(self._path), self._path) if url.endswith(self._path)
            else (url.removesuffix("/invocations"), "/invocations")
        )  # fmt: skip

    def target(self, plain: Target) -> Target:
        """The endpoint as a target, with what `plain` says besides; its own task, if stated, decides on the dialect.

        Raises BadInput where pacemark cannot ask an endpoint of that task.
        """
        endpoint = self.endpoint
        if endpoint.task and endpoint.api is None:
            raise BadInput(
                f"{self._name} is of task {endpoint.task}, which pacemark cannot ask: it asks {spoken('and')} endpoints"
            )
        return msgspec.structs.replace(
            plain,
            api=endpoint.api or plain.api,
            headers=plain.headers | self.opening,
            past=self._workspace.secrets,
            path=self._path,
            endpoint=self._name,
        )

    def tags(self, run: str) -> tuple[dict[str, Any], dict[str, str]]:
        """Fields and headers by which a request says that it is of `run`: only models know the fields."""
        return (body_tags(run) if self.endpoint.task.startswith("llm/") else {}), {}

    # --- what a Source does

    def headers(self) -> dict[str, str]:
        """What opens the endpoint now."""
        return self._key.headers()

    def lasts_s(self) -> float | None:
        """Seconds until those expire; None where they have no stated end."""
        return self._key.lasts_s()

    def look(self) -> Sight:
        """State and exported metrics, as they are now."""
        from pacemark.endpoint.prometheus import metrics_in  # its parser: 70 ms that only a workspace needs

        endpoint = self._read()
        try:
            contents = self._workspace.client.serving_endpoints.export_metrics(self._name).contents
            text = contents.read().decode("utf-8", "replace") if contents is not None else ""
            problem = ""
        except Exception as error:  # as in SignOn; endpoints of some kinds export none
            text, problem = "", f"no metrics: {self._workspace.said(error)}"
        metrics = metrics_in(text)
        return Sight(
            now_ns=monotonic_ns(),
            state=endpoint.state,
            ready=endpoint.ready,
            bursts=endpoint.may_burst,
            capacity=metrics.get("provisioned_concurrent_requests_total"),
            version=endpoint.version,
            metrics=metrics,
            problem=problem,
        )

    def advice(self, error: str, detail: str) -> str | None:
        """What a failed first request means here."""
        name = self._name
        if error in ("http_401", "http_403"):
            return _by_address(self._workspace.host, detail) or (
                f"{name} may not be queried with these credentials: ask its owner for the permission CAN QUERY"
            )
        if error in ("http_404", "http_503") and (state := self._unready()):
            return f"{name} is {state}: wait until it is ready"
        if error == "http_404":
            return f"{name} is there, but its model does not answer as {self.endpoint.api or 'the API asked'} does"
        if error == "http_429":
            return f"{name} is at its rate limit before the run has begun: wait, or ask for a higher limit"
        if error in ("timeout", "http_503", "http_504") and self.endpoint.scales_to_zero:
            return f"{name} is starting from zero and did not answer yet: wait some minutes, or raise --timeout"
        if error == "http_503":
            return f"{name} has no room for a request, or none of its replicas is up: try again later, see --wait"
        return None

    def _unready(self) -> str:
        """How the workspace words it that the endpoint is not ready now; empty where it is: one that is not answers
        with 404 or with 503."""
        with contextlib.suppress(BadInput):
            now = self._read()
            return "" if now.ready else now.state
        return ""

    # --- asking the workspace

    def _read(self) -> Endpoint:
        """The endpoint as it is now, from the answer itself: the SDK's own classes know less, and fail on more."""
        try:
            told = self._workspace.get(f"/api/2.0/serving-endpoints/{self._name}")
        except Exception as error:  # as in SignOn
            self._refuse(error)
        if self._caller is None and principals_in(told):
            with contextlib.suppress(Exception):  # then every limit counts
                self._caller = caller_in(self._workspace.get("/api/2.0/preview/scim/v2/Me"))
        found = endpoint_in(told, self._caller)
        return found if found.name else msgspec.structs.replace(found, name=self._name)

    def _with_chunks(self, endpoint: Endpoint) -> Endpoint:
        """With what the throughput of its models is sold in, where the workspace tells."""
        path, entities = "/api/2.0/serving-endpoints/get-model-optimization-info", []
        for entity in endpoint.entities:
            chunk = None
            if entity.kind == "provisioned throughput":
                with contextlib.suppress(Exception):  # as in SignOn; it is but a convenience
                    chunk = chunk_in(self._workspace.get(f"{path}/{entity.name}/{entity.version}"))
            entities.append(msgspec.structs.replace(entity, throughput_chunk=chunk) if chunk else entity)
        return msgspec.structs.replace(endpoint, entities=tuple(entities))

    def _refuse(self, error: Exception) -> NoReturn:
        from databricks.sdk import errors
        from databricks.sdk.errors.base import DatabricksError

        name, host, said = self._name, self._workspace.host, self._workspace.said(error)
        if refused := _by_address(host, said):
            raise BadInput(refused) from None
        if isinstance(error, errors.NotFound):
            raise BadInput(f"no serving endpoint {name!r} in {host}{self._alike()}") from None
        if isinstance(error, errors.Unauthenticated) or "access token" in said.lower():
            raise BadInput(f"{host} does not accept these credentials ({said}): wrong, expired or revoked?") from None
        if isinstance(error, errors.PermissionDenied):
            raise BadInput(f"no permission to see {name} in {host}: {said}; ask its owner for CAN QUERY") from None
        if isinstance(error, (TimeoutError, OSError)) and not isinstance(error, DatabricksError):
            raise BadInput(f"cannot reach {host}: {said}; check the host") from None
        raise BadInput(f"{host} does not tell about {name}: {said}") from None

    def _alike(self) -> str:
        """What the user may have meant."""
        try:
            listed = self._workspace.get("/api/2.0/serving-endpoints")
            names = [str(e["name"]) for e in listed.get("endpoints", []) if e.get("name")]
        except Exception:  # as above; it is but a hint
            return ""
        near = difflib.get_close_matches(self._name, names, n=3, cutoff=0.4)
        return f"; did you mean {' or '.join(near)}?" if near else f"; it has {len(names)} other endpoints"


class Route:
    """A path of the workspace that answers as an API does, such as the AI Gateway's: a `watch.Source` of headers.

    Nothing is known of what is behind it; the model that is asked for decides.
    """

    def __init__(self, workspace: SignOn, path: str, model: str) -> None:
        self._workspace = workspace
        self._path = path
        self._model = model
        family, _, below = path.removeprefix("/ai-gateway/").partition("/")
        self._api = _FAMILIES.get(family, "")
        self.base = f"{workspace.host}{path}{DIALECTS[self._api].root if self._api and not below else ''}"
        self.endpoint = Endpoint(model, task="", ready=True, state="not told", version=None, entities=(), limits=())

    def target(self, plain: Target) -> Target:
        """The route as a target, with what `plain` says besides; its family decides on the API where nobody does."""
        api = self._api if self._api and plain.api == "chat" else plain.api
        headers = dict(DIALECTS[api].headers) | plain.headers | self.headers() | {"User-Agent": self._workspace.agent}
        return msgspec.structs.replace(plain, api=api, headers=headers, past=self._workspace.secrets)

    def tags(self, run: str) -> tuple[dict[str, Any], dict[str, str]]:
        """Fields and headers by which a request says that it is of `run`."""
        return {}, header_tags(run) if self._path.startswith("/ai-gateway/") else {}

    def headers(self) -> dict[str, str]:
        """What opens the workspace now."""
        return self._workspace.headers()

    def lasts_s(self) -> float | None:
        """Seconds until those expire; None where they have no stated end."""
        return self._workspace.lasts_s()

    def look(self) -> Sight:
        """Nothing but that it is asked: a route tells nothing of itself."""
        return Sight(monotonic_ns(), "not told", True)

    def advice(self, error: str, detail: str) -> str | None:
        """What a failed first request means here."""
        if error in ("http_401", "http_403"):
            return (
                _by_address(self._workspace.host, detail)
                or f"{self._model} may not be queried at {self._path} with these credentials: ask for the permission"
            )
        if error == "http_404":
            return f"{self._path} of this workspace has no {self._model}: check the path, --model and --api"
        return None


def serving(name: str, profile: str = "", model: str = "") -> Serving | Route:
    """The endpoint `name` of the workspace that the environment, a profile or the notebook names; with a slash before
    it, the path of a route that serves `model`.

    Raises BadInput where the SDK is not installed, finds no credentials, or the workspace refuses.
    """
    if not re.fullmatch(r"[A-Za-z0-9._-]{1,128}|(?:/[A-Za-z0-9._-]+)+", name):
        raise BadInput(f"{SCHEME}{name}: that is no name of a serving endpoint; for example {SCHEME}my-endpoint")
    if name.startswith("/") and not model:
        raise BadInput(f"{SCHEME}{name}: a route serves many models; name one with --model")
    workspace = signed_on(profile)
    try:
        if name.startswith("/"):
            return Route(workspace, name, model)
        found = Serving(workspace, name)
    except RunFailed as error:
        raise BadInput(str(error)) from None
    _refuse_unusable(found.endpoint)
    return found


def _by_address(host: str, said: str) -> str | None:
    """What to do where a workspace refuses the place that one asks from, whoever asks."""
    if not re.search(r"\bIP\b.{0,80}(?:access list|ACL|blocked|not allowed)", said, re.IGNORECASE | re.DOTALL):
        return None
    return (
        f"{host} refuses this machine's address (IP access list): run where it is allowed, or ask its admins ({said})"
    )


def _refuse_unusable(endpoint: Endpoint) -> None:
    name = endpoint.name
    if not endpoint.ready:
        raise BadInput(f"{name} is {endpoint.state}: wait until it is ready")
    if endpoint.permission == "CAN_VIEW":
        raise BadInput(f"{name} may be looked at but not queried with these credentials: ask for CAN QUERY on it")
