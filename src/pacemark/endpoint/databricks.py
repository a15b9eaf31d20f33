"""Databricks Model Serving as a target: what an endpoint is, what it allows, and the headers that open it.

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
from typing import TYPE_CHECKING, Any, Literal, NoReturn

import msgspec

from pacemark.endpoint.target import Target, secrets_in
from pacemark.errors import BadInput, RunFailed
from pacemark.pace import Concurrency, Load
from pacemark.summary import Level
from pacemark.trace import Sight
from pacemark.version import __version__

if TYPE_CHECKING:
    from databricks.sdk import WorkspaceClient

SCHEME = "databricks:"
ANSWER_S, RETRY_S = 20, 8
"""How long one answer of the workspace may take, and for how long a failed question is asked again."""

PAYLOAD_MB = {"custom": 16.0}
"""Largest request by kind of endpoint; 4 MB for every other kind."""
LONGEST_S = 297.0
"""The service ends a request that takes longer. Both: "Model Serving limits and regions" and "Foundation Model APIs
limits and quotas" at docs.databricks.com, as they stood in September 2026."""

Unit = Literal["input tokens", "output tokens", "tokens", "requests"]
Kind = Literal["provisioned throughput", "model units", "pay per token", "external", "custom"]

_TASKS = {"llm/v1/chat": "chat", "llm/v1/completions": "completions", "llm/v1/embeddings": "embeddings"}
_AGENTS = ("agent/v1/chat", "agent/v2/chat")


class Limit(msgspec.Struct, frozen=True):
    """A rate that the service is known to hold callers to."""

    amount: float
    unit: Unit
    per: Literal["second", "minute", "hour"]
    source: str

    def __str__(self) -> str:
        return f"{self.amount:,g} {self.unit} per {self.per}"

    @property
    def per_second(self) -> float:
        """The same, per second."""
        return self.amount / {"second": 1, "minute": 60, "hour": 3600}[self.per]


_USUAL = "what most models are allowed per workspace on the Enterprise tier, as of 2026-09-12"
PAY_PER_TOKEN = (
    Limit(200_000, "input tokens", "minute", _USUAL),
    Limit(20_000, "output tokens", "minute", _USUAL),
    Limit(360_000, "requests", "hour", _USUAL),
)
"""From "Foundation Model APIs limits and quotas" at docs.databricks.com; the page lists them model by model."""
PROVISIONED = (Limit(200, "requests", "second", "per workspace with provisioned throughput, as of 2026-06-18"),)
"""From the same page."""


class Entity(msgspec.Struct, frozen=True):
    """A model that the endpoint serves."""

    name: str
    kind: Kind
    traffic: int | None = None
    """Percent of the requests."""
    min_throughput: int | None = None
    max_throughput: int | None = None
    """Tokens/s: the range that was provisioned."""
    model_units: int | None = None
    min_concurrency: int | None = None
    max_concurrency: int | None = None
    scale_to_zero: bool = False
    provider: str = ""
    deployment: str = ""
    message: str = ""

    @property
    def capacity(self) -> str:
        """What was bought, in words."""
        if self.max_throughput is not None:
            return f"{self.min_throughput or 0:,} to {self.max_throughput:,} tokens/s provisioned"
        if self.model_units is not None:
            return f"{self.model_units:,} model units"
        if self.max_concurrency is not None:
            return f"{self.min_concurrency or 0} to {self.max_concurrency} requests in parallel"
        return {"pay per token": "pay per token, shared capacity", "external": f"external, by {self.provider}"}.get(
            self.kind, "custom model"
        )

    @property
    def scales(self) -> bool:
        """Whether its capacity follows the load."""
        low, high = self.min_throughput, self.max_throughput
        if high is None:
            low, high = self.min_concurrency, self.max_concurrency
        return high is not None and (low or 0) < high

    @property
    def at_zero(self) -> bool:
        """Whether it says that nothing of it runs at present."""
        return bool(re.search(r"scal\w* (?:to|from) zero", self.message, re.IGNORECASE))


class Endpoint(msgspec.Struct, frozen=True):
    """A serving endpoint, as the workspace describes it."""

    name: str
    task: str
    ready: bool
    state: str
    version: int | None
    entities: tuple[Entity, ...]
    limits: tuple[Limit, ...]
    permission: str = ""
    updating: bool = False
    route_optimized: bool = False

    @property
    def scales_to_zero(self) -> bool:
        """Whether a request may have to wait for a start."""
        return any(e.scale_to_zero or e.at_zero for e in self.entities)

    @property
    def api(self) -> str | None:
        """The dialect that its task speaks; None where it states no task."""
        return "chat" if self.task in _AGENTS else _TASKS.get(self.task)

    def described(self) -> dict[str, Any]:
        """What is worth knowing of it, for people and for `run.json`."""
        return {
            "state": self.state,
            "task": self.task or None,
            "serves": [
                f"{e.name}: {e.capacity}"
                + (", scales to zero" if e.scale_to_zero else "")
                + (f", {e.traffic}% of the traffic" if e.traffic not in (None, 100) else "")
                for e in self.entities
            ],
            "limits": [f"{limit} ({limit.source})" for limit in self.limits],
            "permission": self.permission or None,
        }

    def warnings(self, input_tokens: int) -> list[str]:
        """What to know before anything is sent and costs money."""
        return list(self._warnings(input_tokens))

    def _warnings(self, input_tokens: int) -> Iterator[str]:
        name = self.name
        if any(e.at_zero for e in self.entities):
            yield f"{name} is scaled to zero: the first request starts it and may wait for minutes; then it costs"
        elif self.scales_to_zero:
            yield f"{name} scales to zero: after a quiet time the first request waits until it has started again"
        if self.updating:
            yield f"{name} is being updated: figures before and after the change are of two endpoints"
        if any(e.scales for e in self.entities):
            yield (
                f"{name} scales with the load: a level may start on less capacity than it ends with; "
                "levels during which it scales are marked"
            )
        kinds = {e.kind for e in self.entities}
        if "pay per token" in kinds:
            yield f"{name} is paid per token and shares its capacity with others, so figures vary with their load too"
        for provider in sorted({e.provider for e in self.entities if e.kind == "external"}):
            yield f"{name} passes requests on to {provider}: its limits and its prices apply too"
        shares = [f"{e.name} {e.traffic}%" for e in self.entities if e.traffic]
        if len(shares) > 1:
            yield f"{name} splits its traffic, {', '.join(shares)}: the figures are those of the mixture"
        if self.route_optimized:
            yield f"{name} is route optimized, but is asked through the workspace's URL: a path with more latency"
        payload_mb = 4 * input_tokens / 1e6  # some four letters a token
        most_mb = min((PAYLOAD_MB.get(kind, 4.0) for kind in kinds), default=4.0)
        if payload_mb > most_mb:
            yield f"a prompt of {input_tokens:,} tokens is about {payload_mb:.1f} MB, and {name} takes {most_mb:g} MB"

    def planned(self, loads: Sequence[Load], latency_s: float, input_tokens: float, output_tokens: float) -> list[str]:
        """What the planned loads would exceed, judged by one answer that took `latency_s`.

        In closed loop that is the most that so many streams can ask for: answers only get slower under load. No loads:
        those of a search, which climbs until something ends it.
        """
        found = []
        if latency_s > LONGEST_S / 2:
            found.append(
                f"one answer alone took {latency_s:.0f} s, and the service ends a request after {LONGEST_S:.0f} s: "
                "ask for fewer --output-tokens"
            )
        each = {"input tokens": input_tokens, "output tokens": output_tokens, "requests": 1.0}
        each["tokens"] = input_tokens + output_tokens
        rate = max((x.value / latency_s if isinstance(x, Concurrency) else x.value for x in loads), default=None)
        for limit in self.limits:
            if not each[limit.unit]:
                continue
            most = limit.per_second / each[limit.unit]
            if rate is None or rate > most:
                plan = "" if rate is None else f"; up to {rate:.3g} requests/s are planned: expect 429"
                found.append(
                    f"{limit} ({limit.source}) are enough for {most:.3g} requests/s, or {most * latency_s:.3g} in "
                    f"parallel{plan}"
                )
        return found


def exceeding(endpoint: Endpoint, levels: Sequence[Level]) -> str | None:
    """A level that went faster than a known limit allows for long, in words: short levels live on what was saved up."""
    for level in sorted(levels, key=lambda x: x.output_tokens_per_s.value or 0.0):
        rates = {
            "requests": level.requests_per_s.value,
            "output tokens": level.output_tokens_per_s.value,
            "tokens": level.total_tokens_per_s.value,
        }
        for limit in endpoint.limits:
            rate = rates.get(limit.unit) or 0.0
            if rate > 1.05 * limit.per_second:
                return (
                    f"{level.load} gave {rate:,.0f} {limit.unit}/s, more than {limit} ({limit.source}) lets through "
                    "for long: the curve from there on holds for bursts"
                )
    return None


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
                f"{self._name} is of task {endpoint.task}, which pacemark cannot ask: it asks chat, completions and "
                "embeddings endpoints"
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
    kind: Kind = (
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


def _limits(raw: Any, entities: Sequence[Entity]) -> Iterator[Limit]:
    """The limits that the endpoint's AI Gateway sets, then those that the documentation states for its kind."""
    for limit in getattr(getattr(raw, "ai_gateway", None), "rate_limits", None) or []:
        key = _text(limit.key).lower().replace("_", " ")
        source = f"set on the endpoint, per {key}" if key not in ("", "endpoint") else "set on the endpoint"
        if limit.calls is not None:
            yield Limit(limit.calls, "requests", "minute", source)
        if (tokens := getattr(limit, "tokens", None)) is not None:
            yield Limit(tokens, "tokens", "minute", source)
    kinds = {e.kind for e in entities}
    if "pay per token" in kinds:
        yield from PAY_PER_TOKEN
    if kinds & {"provisioned throughput", "model units"}:
        yield from PROVISIONED


_SAMPLE = re.compile(r"(?m)^([A-Za-z_:][\w:]*)(?:\{[^\n]*\})?[ \t]+([-+.\deE]+|NaN)(?:[ \t]+-?[\d.]+)?[ \t]*$")


def metrics_in(text: str) -> dict[str, float]:
    """Samples of Prometheus' text form, summed over their labels; buckets of histograms are left out.

    The service puts a timestamp behind each value.
    """
    found: dict[str, float] = {}
    for name, value in _SAMPLE.findall(text):
        if not name.endswith("_bucket") and value != "NaN":
            found[name] = found.get(name, 0.0) + float(value)
    return found


def _text(value: Any) -> str:
    """The value of an enumeration of the SDK, or of what stands for one."""
    return str(getattr(value, "value", value) or "")


def _one_line(text: str, known: Sequence[str]) -> str:
    for secret in known:
        text = text.replace(secret, "***")
    text = re.sub(r"(?i)(bearer|basic) [\w.~+/=-]+", r"\1 ***", text)
    text = re.sub(r"\. (?:Config|Env): .*", "", text, flags=re.DOTALL)  # the SDK lists its settings behind each error
    return " ".join(text.split()).rstrip(".")
