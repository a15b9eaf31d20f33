"""Signed on to a Databricks workspace, and what keeps it so: headers that are good now.

All of it goes through `databricks-sdk` and its unified authentication: environment, profiles of ~/.databrickscfg,
OAuth of a service principal, the notebook's own. The package is imported on first use.
"""

from __future__ import annotations

import datetime
import logging
import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol
from urllib.parse import urlencode

from pacemark.endpoint.target import secrets_in
from pacemark.errors import BadInput, RunFailed
from pacemark.version import __version__

if TYPE_CHECKING:
    from databricks.sdk import WorkspaceClient

__all__ = ["DataPlane", "Key", "SignOn", "signed_on"]

ANSWER_S, RETRY_S = 20, 8
"""How long one answer of the workspace may take, and for how long a failed question is asked again."""
_RENEW_S = 300.0
"""A token of the data plane is renewed so long before its end, or when a quarter of its life is left."""


class Key(Protocol):
    """What opens an endpoint."""

    def headers(self) -> dict[str, str]:
        """Headers that are good now. Raises RunFailed."""

    def lasts_s(self) -> float | None:
        """Seconds until they are not; None where nobody knows, or for good."""


class SignOn:
    """A workspace, as whoever is signed on sees it: a `Key` to it."""

    def __init__(self, client: WorkspaceClient) -> None:
        self.client = client
        self.host = str(client.config.host).rstrip("/")
        self.secrets = secrets_in(
            str(getattr(client.config, field, None) or "")
            for field in ("token", "client_secret", "password", "azure_client_secret", "google_credentials")
        )

    @property
    def agent(self) -> str:
        """How requests name themselves: `pacemark/VERSION`, and what the SDK adds to every product's name."""
        return str(self.client.config.user_agent)

    def headers(self) -> dict[str, str]:
        """What authenticates a request now; the SDK renews its tokens well before they expire. Raises RunFailed."""
        try:
            headers = dict(self.client.config.authenticate())
        except Exception as error:  # the SDK raises ValueError, OSError and its own, as the way of signing on has it
            raise RunFailed(f"no new token for {self.host}: {self.said(error)}") from None
        return headers | self._where()

    def lasts_s(self) -> float | None:
        """Seconds until the token expires; None for one that has no stated end."""
        try:
            return _left_s(self.client.config.oauth_token().expiry)
        except Exception:  # a personal access token, or an SDK that cannot tell
            return None

    def get(self, path: str) -> Any:
        """The JSON that the workspace answers with. Raises what the SDK does."""
        accept = {"Accept": "application/json"}
        return self.client.api_client.do("GET", path, headers=accept | self._where())

    def said(self, error: Exception) -> str:
        """An error's words in one line, without secrets and without the settings that the SDK puts behind them."""
        return _one_line(str(error), self.secrets)

    def _where(self) -> dict[str, str]:
        """Which workspace is meant, where one host has several."""
        workspace = getattr(self.client.config, "workspace_id", None)
        return {"X-Databricks-Workspace-Id": str(workspace)} if workspace else {}


class DataPlane:
    """A `Key` to one route-optimised endpoint: a token of its own, for which the workspace's OAuth token is exchanged.

    So does the SDK's `data_plane.py`, which says that it is experimental and differs by version: grant type jwt-bearer
    (RFC 7523) with the authorization details that the endpoint names.
    """

    def __init__(self, workspace: SignOn, details: str) -> None:
        self._workspace = workspace
        self._details = details
        self._token, self._life_s = "", 0.0
        self._expiry: datetime.datetime | None = None

    def headers(self) -> dict[str, str]:
        """The token, renewed long before its end. Raises RunFailed."""
        left_s = self.lasts_s()
        if left_s is None or left_s < min(_RENEW_S, self._life_s / 4):
            self._renew()
        return {"Authorization": f"Bearer {self._token}"}

    def lasts_s(self) -> float | None:
        """Seconds until the token expires."""
        return _left_s(self._expiry)

    def _renew(self) -> None:
        from databricks.sdk.oauth import retrieve_token

        workspace = self._workspace
        try:
            asserted = workspace.client.config.oauth_token().access_token
            form = {
                "grant_type": "urn:ietf:params:oauth:grant-type:jwt-bearer",
                "authorization_details": self._details,
                "assertion": asserted,
            }
            token = retrieve_token(
                client_id="", client_secret="", token_url=f"{workspace.host}/oidc/v1/token", params=urlencode(form),
                headers={"Content-Type": "application/x-www-form-urlencoded"},
            )  # fmt: skip
        except Exception as error:  # as above, and for every way of signing on that is not OAuth
            raise RunFailed(f"no token for the endpoint's own URL: {workspace.said(error)}") from None
        self._token, self._expiry = token.access_token, token.expiry
        self._life_s = self.lasts_s() or 0.0


def signed_on(profile: str = "") -> SignOn:
    """The workspace that the environment, a profile or the notebook names.

    Raises BadInput where the SDK is not installed or finds no credentials.
    """
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
        return SignOn(WorkspaceClient(config=config))
    except Exception as error:  # ValueError, or whatever the way of signing on raises
        raise BadInput(
            f"no access to a Databricks workspace: {_one_line(str(error), ())}; set DATABRICKS_HOST and "
            "DATABRICKS_TOKEN, or name a profile of ~/.databrickscfg with --profile"
        ) from None


def _left_s(expiry: datetime.datetime | None) -> float | None:
    if expiry is None:
        return None
    return float((expiry - datetime.datetime.now(tz=expiry.tzinfo)).total_seconds())


def _one_line(text: str, known: Sequence[str]) -> str:
    """`text` in one line, without the known secrets and whatever looks like one."""
    for secret in known:
        text = text.replace(secret, "***")
    text = re.sub(r"(?i)(bearer|basic) [\w.~+/=-]+", r"\1 ***", text)
    text = re.sub(r"\. (?:Config|Env): .*", "", text, flags=re.DOTALL)  # the SDK lists its settings behind each error
    return " ".join(text.split()).rstrip(".")
