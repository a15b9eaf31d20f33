"""Databricks Model Serving as a target: what the workspace says of an endpoint, and the headers that open it.

All of it goes through `databricks-sdk` and its unified authentication: environment, profiles of ~/.databrickscfg,
OAuth of a service principal, the notebook's own. The package is imported on first use.
"""

from __future__ import annotations

import contextlib
import datetime
import difflib
import logging
import os
import re
from collections.abc import Sequence
from pathlib import Path
from time import monotonic_ns
from typing import TYPE_CHECKING, Any, NoReturn

import msgspec

from pacemark.dialects.dialect import spoken
from pacemark.endpoint.description import caller_in, endpoint_in, principals_in
from pacemark.endpoint.served import Caller, Endpoint, exceeding
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
        self._caller: Caller | None = None
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
        return headers | self._where()

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
        """The endpoint as it is now, from the answer itself: the SDK's own classes know less, and fail on more."""
        try:
            told = self._get(f"/api/2.0/serving-endpoints/{self._name}")
        except Exception as error:  # as above
            self._refuse(error)
        if self._caller is None and principals_in(told):
            with contextlib.suppress(Exception):  # then every limit counts
                self._caller = caller_in(self._get("/api/2.0/preview/scim/v2/Me"))
        found = endpoint_in(told, self._caller)
        return found if found.name else msgspec.structs.replace(found, name=self._name)

    def _get(self, path: str) -> Any:
        return self._client.api_client.do("GET", path, headers={"Accept": "application/json"} | self._where())

    def _where(self) -> dict[str, str]:
        """Which workspace is meant, where one host has several."""
        workspace = getattr(self._client.config, "workspace_id", None)
        return {"X-Databricks-Workspace-Id": str(workspace)} if workspace else {}

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
            listed = self._get("/api/2.0/serving-endpoints")
            names = [str(e["name"]) for e in listed.get("endpoints", []) if e.get("name")]
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
        raise BadInput("a databricks: target needs databricks-sdk: pip install 'databricks-sdk>=0.40'") from None
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


def _one_line(text: str, known: Sequence[str]) -> str:
    for secret in known:
        text = text.replace(secret, "***")
    text = re.sub(r"(?i)(bearer|basic) [\w.~+/=-]+", r"\1 ***", text)
    text = re.sub(r"\. (?:Config|Env): .*", "", text, flags=re.DOTALL)  # the SDK lists its settings behind each error
    return " ".join(text.split()).rstrip(".")
