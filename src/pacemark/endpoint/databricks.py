"""Databricks Model Serving as a target: what the workspace says of an endpoint, and the headers that open it.

All of it goes through `databricks-sdk` and its unified authentication: environment, profiles of ~/.databrickscfg,
OAuth of a service principal, the notebook's own. The package is imported on first use.
"""

from __future__ import annotations

import datetime
import difflib
import logging
import os
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from time import monotonic_ns
from typing import TYPE_CHECKING, Any, NoReturn

import msgspec

from pacemark.dialects.dialect import spoken
from pacemark.endpoint.served import PAY_PER_TOKEN, PROVISIONED, Billing, Endpoint, Entity, RateLimit, exceeding
from pacemark.endpoint.target import Target, secrets_in
from pacemark.errors import BadInput, RunFailed
from pacemark.trace import Sight
from pacemark.version import __version__

if TYPE_CHECKING:
    from databricks.sdk import WorkspaceClient

__all__ = ["SCHEME", "Serving", "exceeding", "serving"]

SCHEME = "databricks:"
ANSWER_S, RETRY_S = 20, 8
"""How long one answer of the workspace may take, and for how long a failed question is asked again."""


class Serving:
    """One endpoint of a workspace, through the SDK: a `watch.Source`. Raises nothing but PacemarkError."""

    def __init__(self, client: WorkspaceClient, name: str) -> None:
        self._client = client
        self._name = name
        self._known = secrets_in(
            str(getattr(client.config, field, None) or "")
            for field in ("token", "client_secret", "password", "azure_client_secret", "google_credentials")
        )
        self.host = str(client.config.host).rstrip("/")
        self.opening = self.headers()
        """The headers to begin with."""
        self.endpoint = self._read()

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
            past=self._known,
            path=f"/{self._name}/invocations",
            endpoint=self._name,
        )

    # --- what a Source does

    def headers(self) -> dict[str, str]:
        """What authenticates a request now; the SDK renews its tokens well before they expire."""
        config = self._client.config
        try:
            headers = dict(config.authenticate())
        except Exception as error:  # the SDK raises ValueError, OSError and its own, as the way of signing on has it
            raise RunFailed(f"no new token for {self.host}: {self._said(error)}") from None
        if workspace := getattr(config, "workspace_id", None):
            headers["X-Databricks-Workspace-Id"] = str(workspace)
        return headers

    def lasts_s(self) -> float | None:
        """Seconds until the token expires; None for one that has no stated end."""
        try:
            expiry = self._client.config.oauth_token().expiry
        except Exception:  # a personal access token, or an SDK that cannot tell
            return None
        if expiry is None:
            return None
        return float((expiry - datetime.datetime.now(tz=expiry.tzinfo)).total_seconds())

    def look(self) -> Sight:
        """State and exported metrics, as they are now."""
        from pacemark.endpoint.prometheus import metrics_in  # its parser: 70 ms that only a workspace needs

        endpoint = self._read()
        try:
            contents = self._client.serving_endpoints.export_metrics(self._name).contents
            text = contents.read().decode("utf-8", "replace") if contents is not None else ""
            problem = ""
        except Exception as error:  # as above; endpoints of some kinds export none
            text, problem = "", f"no metrics: {self._said(error)}"
        metrics = metrics_in(text)
        return Sight(
            now_ns=monotonic_ns(),
            state=endpoint.state,
            ready=endpoint.ready,
            capacity=metrics.get("provisioned_concurrent_requests_total"),
            version=endpoint.version,
            metrics=metrics,
            problem=problem,
        )

    def advice(self, error: str) -> str | None:
        """What a failed first request means here."""
        name = self._name
        if error in ("http_401", "http_403"):
            return f"{name} may not be queried with these credentials: ask its owner for the permission CAN QUERY"
        if error == "http_404":
            return f"{name} is there, but its model does not answer as {self.endpoint.api or 'the API asked'} does"
        if error == "http_429":
            return f"{name} is at its rate limit before the run has begun: wait, or ask for a higher limit"
        if error in ("timeout", "http_503", "http_504") and self.endpoint.scales_to_zero:
            return f"{name} is starting from zero and did not answer yet: wait some minutes, or raise --timeout"
        return None

    # --- asking the workspace

    def _read(self) -> Endpoint:
        try:
            return _endpoint(self._client.serving_endpoints.get(self._name))
        except Exception as error:  # as above
            self._refuse(error)

    def _refuse(self, error: Exception) -> NoReturn:
        from databricks.sdk import errors
        from databricks.sdk.errors.base import DatabricksError

        name, host, said = self._name, self.host, self._said(error)
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
            names = [str(e.name) for e in self._client.serving_endpoints.list()]
        except Exception:  # as above; it is but a hint
            return ""
        near = difflib.get_close_matches(self._name, names, n=3, cutoff=0.4)
        return f"; did you mean {' or '.join(near)}?" if near else f"; it has {len(names)} other endpoints"

    def _said(self, error: Exception) -> str:
        return _one_line(str(error), self._known)


def serving(name: str, profile: str = "") -> Serving:
    """The endpoint `name` of the workspace that the environment, a profile or the notebook names.

    Raises BadInput where the SDK is not installed, finds no credentials, or the workspace refuses.
    """
    if not re.fullmatch(r"[A-Za-z0-9._-]{1,128}", name):
        raise BadInput(f"{SCHEME}{name}: that is no name of a serving endpoint; for example {SCHEME}my-endpoint")
    try:
        from databricks.sdk import WorkspaceClient
        from databricks.sdk.core import Config
    except ImportError:
        raise BadInput(
            "a databricks: target needs databricks-sdk, which is not installed: pip install 'pacemark[databricks]'"
        ) from None
    logging.getLogger("databricks.sdk").addHandler(logging.NullHandler())  # what goes wrong is told by an exception
    file = Path(os.environ.get("DATABRICKS_CONFIG_FILE") or "~/.databrickscfg").expanduser()
    if profile and not file.is_file():  # the SDK would pass over it in silence
        raise BadInput(f"--profile {profile}: there is no file {file} to find it in")
    try:
        config = Config(
            profile=profile or None, http_timeout_seconds=ANSWER_S, retry_timeout_seconds=RETRY_S,
            product="pacemark", product_version=__version__,
        )  # fmt: skip
        client = WorkspaceClient(config=config)
    except Exception as error:  # ValueError, or whatever the way of signing on raises
        said = _one_line(str(error), ())
        raise BadInput(
            f"no access to a Databricks workspace: {said}; set DATABRICKS_HOST and DATABRICKS_TOKEN, or name a profile "
            "of ~/.databrickscfg with --profile"
        ) from None
    try:
        found = Serving(client, name)
    except RunFailed as error:
        raise BadInput(str(error)) from None
    _refuse_unusable(found.endpoint)
    return found


def _refuse_unusable(endpoint: Endpoint) -> None:
    name = endpoint.name
    if not endpoint.ready:
        raise BadInput(f"{name} is {endpoint.state}: wait until it is ready")
    if endpoint.permission == "CAN_VIEW":
        raise BadInput(f"{name} may be looked at but not queried with these credentials: ask for CAN QUERY on it")


def _endpoint(raw: Any) -> Endpoint:
    """What the SDK's ServingEndpointDetailed says. Fields that an older SDK lacks count as not stated."""
    config, state = raw.config, raw.state
    served = list(getattr(config, "served_entities", None) or [])
    routes = getattr(getattr(config, "traffic_config", None), "routes", None) or []
    traffic = {
        str(getattr(r, "served_entity_name", None) or r.served_model_name): int(r.traffic_percentage) for r in routes
    }
    entities = tuple(_entity(e, traffic.get(str(e.name))) for e in served)
    task = str(raw.task or next((e.external_model.task for e in served if e.external_model), "") or "")
    ready = _text(getattr(state, "ready", None)) != "NOT_READY"
    update = _text(getattr(state, "config_update", None))
    said = ["ready" if ready else "not ready"]
    said += [f"config update {update.lower().replace('_', ' ')}"] if update not in ("", "NOT_UPDATING") else []
    said += [
        ": ".join(x for x in (e.deployment.lower().replace("_", " "), e.message) if x and x != "deployment ready")
        for e in entities
        if e.message or e.deployment not in ("", "DEPLOYMENT_READY")
    ]
    return Endpoint(
        name=str(raw.name),
        task=task,
        ready=ready,
        state=", ".join(said),
        version=getattr(config, "config_version", None),
        entities=entities,
        limits=tuple(_limits(raw, entities)),
        permission=_text(raw.permission_level),
        updating=update == "IN_PROGRESS",
        route_optimized=bool(getattr(raw, "route_optimized", False)),
    )


def _entity(raw: Any, traffic: int | None) -> Entity:
    external, foundation = raw.external_model, raw.foundation_model
    units, most = getattr(raw, "provisioned_model_units", None), raw.max_provisioned_throughput
    kind: Billing = (
        "external" if external
        else "model units" if units is not None
        else "provisioned throughput" if most is not None
        else "pay per token" if foundation
        else "custom"
    )  # fmt: skip
    names = (raw.entity_name, getattr(external, "name", None), getattr(foundation, "name", None), raw.name)
    return Entity(
        name=str(next((n for n in names if n), "unnamed")),
        kind=kind,
        traffic=traffic,
        min_throughput=raw.min_provisioned_throughput,
        max_throughput=most,
        model_units=units,
        min_concurrency=getattr(raw, "min_provisioned_concurrency", None),
        max_concurrency=getattr(raw, "max_provisioned_concurrency", None),
        scale_to_zero=bool(raw.scale_to_zero_enabled),
        provider=_text(getattr(external, "provider", None)),
        deployment=_text(getattr(raw.state, "deployment", None)),
        message=str(getattr(raw.state, "deployment_state_message", None) or ""),
    )


def _limits(raw: Any, entities: Sequence[Entity]) -> Iterator[RateLimit]:
    """The limits that the endpoint's AI Gateway sets, then those that the documentation states for its kind."""
    for limit in getattr(getattr(raw, "ai_gateway", None), "rate_limits", None) or []:
        key = _text(limit.key).lower().replace("_", " ")
        source = f"set on the endpoint, per {key}" if key not in ("", "endpoint") else "set on the endpoint"
        if limit.calls is not None:
            yield RateLimit(limit.calls, "requests", "minute", source)
        if (tokens := getattr(limit, "tokens", None)) is not None:
            yield RateLimit(tokens, "tokens", "minute", source)
    kinds = {e.kind for e in entities}
    if "pay per token" in kinds:
        yield from PAY_PER_TOKEN
    if kinds & {"provisioned throughput", "model units"}:
        yield from PROVISIONED


def _text(value: Any) -> str:
    """The value of an enumeration of the SDK, or of what stands for one."""
    return str(getattr(value, "value", value) or "")


def _one_line(text: str, known: Sequence[str]) -> str:
    for secret in known:
        text = text.replace(secret, "***")
    text = re.sub(r"(?i)(bearer|basic) [\w.~+/=-]+", r"\1 ***", text)
    text = re.sub(r"\. (?:Config|Env): .*", "", text, flags=re.DOTALL)  # the SDK lists its settings behind each error
    return " ".join(text.split()).rstrip(".")
