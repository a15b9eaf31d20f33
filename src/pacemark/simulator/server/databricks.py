"""The Databricks face: a workspace with one serving endpoint, seen as its REST API shows it.

Paths and fields follow the public REST API reference (Serving endpoints; Foundation Model APIs) and what the
`databricks-sdk` package reads. It is a look-alike for tests: what it does not know, it does not answer.
"""

from __future__ import annotations

import itertools
import re
import secrets
import time
from typing import Any, Literal

import msgspec

from pacemark.pace import GOLDEN
from pacemark.simulator.engine.presets import Preset
from pacemark.simulator.engine.replicas import Scaling
from pacemark.simulator.server.access import Access
from pacemark.simulator.server.agents import AGENTS, AgentAnswer, ResponsesAnswer, read_agent, refuse_fields
from pacemark.simulator.server.answers import Answer, ChatAnswer, Plan, Usage, answer
from pacemark.simulator.server.asks import Ask, Refusal, read_chat, read_completion, read_embeddings, read_task
from pacemark.simulator.server.faces import face_of
from pacemark.simulator.server.http import Connection, Request, response
from pacemark.simulator.server.limits import Quota
from pacemark.simulator.server.prometheus import gauge, written
from pacemark.simulator.server.service import Service

__all__ = ["Databricks", "Workspace"]

_DIRECT = "/1234567890/serving-endpoints/"
"""Where a route-optimised endpoint is asked itself; the service has a host of its own for it."""
_GATEWAY = "/ai-gateway/"
_FAMILIES = {
    "mlflow": "/v1/(?:chat/completions|embeddings|responses)",
    "openai": "/v1/(?:chat/completions|embeddings|responses)",
    "anthropic": "/v1/messages",
    "gemini": "/v1beta/models/.*",
}
"""The paths below each family of the AI Gateway's routes ("Query model services", 2026)."""
PATHS = ("/serving-endpoints", "/api/", "/oidc/", "/.well-known/", _DIRECT, _GATEWAY)
"""What belongs to this face."""


class Workspace(msgspec.Struct, frozen=True, kw_only=True):
    """The workspace and its endpoint."""

    endpoint: str = "simulated"
    entity: str = "system.ai.simulated_model"
    """The model in Unity Catalog that the endpoint serves."""
    task: str = "llm/v1/chat"
    provisioned: Literal["throughput", "model_units", "none", "external"] = "throughput"
    """How its capacity was bought; none: pay per token; external: another provider's model."""
    min_throughput: int = 0
    max_throughput: int = 9500
    """Tokens per second, as the provisioned range states it."""
    model_units: int = 50
    burst_scaling: bool = True
    """Whether it may go beyond its model units, as those do that are not told otherwise: the replicas that `scaling`
    adds to the first are the burst."""
    split: dict[str, int] = {}
    """Percent of the requests by the name of a served entity, all of one model; empty: one serves all."""
    throughput_chunk: int = 950
    """Tokens per second that throughput is sold in."""
    client_id: str = ""
    client_secret_env: str = ""
    """Environment variable with the service principal's secret; empty: no OAuth."""
    token_s: float = 3600.0
    """Life of an OAuth token."""
    permission: Literal["CAN_MANAGE", "CAN_QUERY", "CAN_VIEW", "NONE"] = "CAN_QUERY"
    """What callers with a good token may do with the endpoint."""
    deployment: str = "DEPLOYMENT_READY"
    """State of its deployment; in any other it is not ready and answers nothing."""
    config_update: Literal["NOT_UPDATING", "IN_PROGRESS", "UPDATE_FAILED", "UPDATE_CANCELED"] = "NOT_UPDATING"
    route_optimized: bool = False
    """Asked by its own URL only, with a token of the data plane, as those made since 2025-09-22 are."""
    strict_fields: bool = True
    """Refuse fields of a request that endpoints of the task do not know, as the service does."""
    calls_per_minute: int | None = None
    tokens_per_minute: int | None = None
    """Rate limits set on the endpoint (AI Gateway)."""
    input_tokens_per_minute: int | None = None
    output_tokens_per_minute: int | None = None
    queries_per_hour: int | None = None
    """Rate limits of the workspace, as pay per token has them. Output counts as `max_tokens` asks for it."""
    minute_s: float = 60.0
    """Length of a minute in these limits; an hour has sixty."""

    def unburst(self, preset: Preset) -> Preset:
        """The preset without replicas beyond what was bought, where its model units may not burst."""
        if preset.scaling is None or self.provisioned != "model_units" or self.burst_scaling:
            return preset
        bought = max(1, preset.scaling.min_replicas)
        scaling = msgspec.structs.replace(preset.scaling, max_replicas=bought)
        return msgspec.structs.replace(preset, scaling=scaling)

    def quotas(self) -> list[Quota]:
        """The limits that it sets."""
        minute, end = self.minute_s, f"rate limit for {self.endpoint}."
        given: list[tuple[int | None, Any, float, str]] = [
            (self.calls_per_minute, "requests", minute, f"Exceeded calls per minute {end}"),
            (self.tokens_per_minute, "tokens", minute, f"Exceeded tokens per minute {end}"),
            (self.input_tokens_per_minute, "input", minute, f"Exceeded workspace input tokens per minute {end}"),
            (self.output_tokens_per_minute, "output", minute, f"Exceeded workspace output tokens per minute {end}"),
            (self.queries_per_hour, "requests", 60 * minute, f"Exceeded workspace queries per hour {end}"),
        ]
        return [Quota(most, counts, window_s, says) for most, counts, window_s, says in given if most is not None]


class _WorkspaceChat(ChatAnswer):
    """Chat as Foundation Model APIs stream it: usage in every event, reasoning as typed parts of the content."""

    def __init__(self, plan: Plan) -> None:
        super().__init__(plan)
        self._sent = 0

    def token(self, count: int) -> bytes:
        self._sent += count
        return self._with_usage(super().token(count))

    def opening(self) -> bytes:
        return self._with_usage(super().opening())

    def closing(self, reason: str, usage: Usage) -> bytes:
        counts = b',"usage":' + msgspec.json.encode(usage.as_json())
        events = self._chunk([self._last(reason)]).removesuffix(b"}\n\n")
        return events + counts + b"}\n\ndata: [DONE]\n\n"

    def _with_usage(self, events: bytes) -> bytes:
        prompt = self.plan.ask.prompt_tokens
        counts = b',"usage":{"prompt_tokens":%d,"completion_tokens":%d,"total_tokens":%d}}\n\n' % (
            prompt,
            self._sent,
            prompt + self._sent,
        )
        return events.replace(b"}\n\n", counts)

    def _thinking(self, text: str) -> dict[str, Any]:
        return {"content": [{"type": "reasoning", "summary": [{"type": "summary_text", "text": text}]}]}


_MAKERS = {"agent/v1/responses": ResponsesAnswer, "agent/v2/chat": AgentAnswer}


def _answer(plan: Plan) -> Answer:
    return _WorkspaceChat(plan) if plan.ask.task == "chat" and not plan.ask.tool else answer(plan)


_CODES = {
    400: "BAD_REQUEST",
    401: 401,
    403: 403,
    404: "RESOURCE_DOES_NOT_EXIST",
    405: "ENDPOINT_NOT_FOUND",
    429: "REQUEST_LIMIT_EXCEEDED",
    500: "INTERNAL_ERROR",
    503: "TEMPORARILY_UNAVAILABLE",
}
_DENIED = "PERMISSION_DENIED"


class Databricks:
    """Answers for the workspace. Everything but token discovery needs a token where any is configured."""

    def __init__(self, service: Service, access: Access, workspace: Workspace, base: str) -> None:
        """`base` is the workspace's URL."""
        self._service = service
        self._access = access
        self._workspace = workspace
        self._base = base
        self._started_ms = int(time.time() * 1000)
        self._id = secrets.token_hex(16)
        self._asked = itertools.count(1)

    def handle(self, connection: Connection, request: Request) -> None:
        """Answer one request."""
        generating = request.method == "POST" and request.path.startswith(("/serving-endpoints/", _DIRECT, _GATEWAY))
        request_id = f"x-request-id: {secrets.token_hex(16)}"
        try:
            if request.path.startswith(("/oidc/", "/.well-known/")):
                connection.send(self._sign_on(request))
                connection.done()
                return
            self._check(request)
            if request.path.startswith(_GATEWAY) and generating:
                self._gateway(connection, request)
            elif generating:
                self._generate(connection, request)
            else:
                connection.send(self._read(request))
                connection.done()
        except Refusal as refusal:
            if generating:
                self._service.refused(refusal.status)
            if request.path.startswith("/oidc/"):
                body: dict[str, Any] = {"error": refusal.code, "error_description": str(refusal)}
            else:
                code = _DENIED if refusal.code == _DENIED else _CODES[refusal.status]
                body = {"error_code": code, "message": str(refusal)}
            connection.send(response(refusal.status, body, request_id, *refusal.headers))
            connection.done()

    def _check(self, request: Request) -> None:
        if request.path.startswith(_DIRECT):
            if not self._access.allowed_directly(request):
                raise Refusal(401, "Credential was not sent or is no token for this endpoint.")
            return
        if not self._access.allowed(request):
            if self._access.token(request):
                raise Refusal(403, "Invalid access token.")  # Expired ones too: clients must refresh on 403.
            raise Refusal(401, "Credential was not sent or was of an unsupported type for this API.")

    def _generate(self, connection: Connection, request: Request) -> None:
        readers = {"chat/completions": read_chat, "completions": read_completion, "embeddings": read_embeddings}
        direct, endpoint = request.path.startswith(_DIRECT), self._workspace.endpoint
        rest = request.path.removeprefix(_DIRECT if direct else "/serving-endpoints/")
        if self._workspace.route_optimized and not direct:
            raise Refusal(400, f"{endpoint} is route-optimised: use its endpoint_url")
        self._allow("Query", ("CAN_MANAGE", "CAN_QUERY"))
        headers = (f"served-model-name: {self._served_by()}",)
        if self._workspace.deployment != "DEPLOYMENT_READY":
            raise Refusal(503, f"The endpoint {endpoint} is not ready.")
        try:
            if rest in readers:
                self._service.serve(connection, request, readers[rest], _answer, name=endpoint, headers=headers)
            elif rest == f"{endpoint}/invocations":
                make = _MAKERS.get(self._workspace.task, _answer)
                self._service.serve(connection, request, self._read_task, make, name=None, headers=headers)
            else:
                raise self._unknown(rest.removesuffix("/invocations"))
        except Refusal as refusal:
            if refusal.code == "model_not_found":
                raise self._unknown("named as the model") from None
            raise

    def _gateway(self, connection: Connection, request: Request) -> None:
        """Answer a request to the AI Gateway: each family of routes has the API of its name."""
        family, slash, rest = request.path.removeprefix(_GATEWAY).partition("/")
        face = face_of(slash + rest)
        if face is None or not re.fullmatch(_FAMILIES.get(family, "(?!)"), slash + rest):
            raise Refusal(404, f"No API found for 'POST {request.path}'")
        make = _answer if family == "mlflow" and face.make is answer else face.make
        below = msgspec.structs.replace(request, path=slash + rest)
        self._service.serve(connection, below, face.read, make, name=None)

    def _entities(self) -> list[str]:
        """The names of what is served."""
        return list(self._workspace.split) or [self._workspace.entity.rpartition(".")[2]]

    def _served_by(self) -> str:
        """Which of them answers the next request; their shares hold for any stretch of requests, but for one or two."""
        at, names, split = 100 * (next(self._asked) * GOLDEN % 1.0), self._entities(), self._workspace.split
        edges = itertools.accumulate(split.get(name, 100) for name in names)
        return next((name for name, edge in zip(names, edges, strict=True) if at < edge), names[-1])

    def _read_task(self, request: Request, *, strict: bool = False) -> Ask:
        """Any request to a chat endpoint, which is the default and answers all; to others those of their task."""
        task = self._workspace.task
        if self._workspace.strict_fields:
            refuse_fields(request, task)
        ask = read_agent(request) if task in AGENTS else read_task(request, strict=strict)
        if task in ("llm/v1/completions", "llm/v1/embeddings") and not task.endswith(ask.task):
            raise Refusal(400, f"this endpoint is of task {task}")
        return ask

    def _allow(self, action: str, levels: tuple[str, ...]) -> None:
        """Raise Refusal (403) unless the caller's permission is one of `levels`."""
        if self._workspace.permission not in levels:
            message = f"User does not have permission '{action}' on serving endpoint '{self._workspace.endpoint}'."
            raise Refusal(403, message, code=_DENIED)

    def _read(self, request: Request) -> bytes:
        prefix = "/api/2.0/serving-endpoints"
        rest = request.path.removeprefix(prefix).strip("/")
        if request.method != "GET":
            raise Refusal(405, f"no {request.method} {request.path} here")
        if request.path.rstrip("/") == prefix:
            return response(200, {"endpoints": [self._endpoint()]})
        if request.path.startswith(prefix + "/"):
            if rest.removesuffix("/metrics") == self._workspace.endpoint:
                self._allow("View", ("CAN_MANAGE", "CAN_QUERY", "CAN_VIEW"))
            if rest == self._workspace.endpoint:
                return response(200, self._endpoint() | {"permission_level": self._workspace.permission})
            if rest == f"{self._workspace.endpoint}/metrics":
                return response(200, self._metrics(), content_type="text/plain; charset=utf-8")
            if rest == f"get-model-optimization-info/{self._workspace.entity}/1":
                return response(200, {"optimizable": True, "throughput_chunk_size": self._workspace.throughput_chunk})
            raise self._unknown(rest.removesuffix("/metrics"))
        if request.path == "/api/2.0/preview/scim/v2/Me":
            return response(200, {"id": "1", "userName": "somebody@example.com", "active": True})
        raise Refusal(404, f"No API found for '{request.method} {request.path}'")

    def _unknown(self, name: str) -> Refusal:
        return Refusal(404, f"The endpoint {name} does not exist; this workspace has {self._workspace.endpoint}.")

    def _endpoint(self) -> dict[str, Any]:
        workspace, preset = self._workspace, self._service.preset
        occupancy = self._service.live.model.occupancy(time.monotonic_ns())
        scaling = preset.scaling or Scaling(min_replicas=preset.replicas, max_replicas=preset.replicas)
        message = "" if occupancy.replicas else ("Scaling from zero" if occupancy.starting else "Scaled to zero")
        entity: dict[str, Any] = {
            "entity_name": workspace.entity,
            "entity_version": "1",
            "creator": "somebody@example.com",
            "creation_timestamp": self._started_ms,
            "scale_to_zero_enabled": scaling.min_replicas == 0,
            "state": {"deployment": workspace.deployment, "deployment_state_message": message},
        }
        if workspace.provisioned == "throughput":
            entity["min_provisioned_throughput"] = workspace.min_throughput
            entity["max_provisioned_throughput"] = workspace.max_throughput
        elif workspace.provisioned == "model_units":
            entity["provisioned_model_units"] = workspace.model_units
            entity["burst_scaling_enabled"] = workspace.burst_scaling
        elif workspace.provisioned == "external":
            entity["external_model"] = {"name": preset.model, "provider": "openai", "task": workspace.task}
            del entity["entity_name"], entity["entity_version"]
        else:
            entity["foundation_model"] = {"name": workspace.entity, "display_name": preset.model}
        rates = [("calls", workspace.calls_per_minute), ("tokens", workspace.tokens_per_minute)]
        limits = [{kind: n, "key": "endpoint", "renewal_period": "minute"} for kind, n in rates if n is not None]
        shares = workspace.split or {self._entities()[0]: 100}
        routes = [{"served_model_name": name, "traffic_percentage": share} for name, share in shares.items()]
        ready = "READY" if workspace.deployment == "DEPLOYMENT_READY" else "NOT_READY"
        return {
            "name": workspace.endpoint,
            "id": self._id,
            "creator": "somebody@example.com",
            "creation_timestamp": self._started_ms,
            "last_updated_timestamp": self._started_ms,
            "state": {"ready": ready, "config_update": workspace.config_update},
            **({"ai_gateway": {"rate_limits": limits}} if limits else {}),
            "config": {
                "served_entities": [{"name": name} | entity for name in shares],
                "traffic_config": {"routes": routes},
                "config_version": 1,
            },
            **({"task": workspace.task} if workspace.task else {}),
            **(self._directly() if workspace.route_optimized else {}),
        }

    def _directly(self) -> dict[str, Any]:
        """Where and with what a route-optimised endpoint is asked."""
        url = f"{self._base}{_DIRECT}{self._workspace.endpoint}/invocations"
        details = [{"type": "workspace_permission", "actions": ["query_inference_endpoint"]}]
        info = {"endpoint_url": url, "authorization_details": msgspec.json.encode(details).decode()}
        return {"route_optimized": True, "endpoint_url": url, "data_plane_info": {"query_info": info}}

    def _metrics(self) -> bytes:
        """The endpoint's health metrics: counts are those of the last minute, as the service documents them."""
        meter, now = self._service.meter, time.monotonic_ns()
        occupancy = self._service.live.model.occupancy(now)
        recent = meter.last_minute(now)
        labels = {"endpoint_name": self._workspace.endpoint}
        values = {
            "request_count_total": recent.total(),
            "request_4xx_count_total": recent[4],
            "request_5xx_count_total": recent[5],
            "provisioned_concurrent_requests_total": occupancy.replicas,
            "gpu_memory_usage_percentage": round(100 * occupancy.kv_used, 3),
        }
        gauges = [gauge(name, "", labels, value) for name, value in values.items()]
        times = {
            "request_latency_ms": meter.latency_s,
            "model_queue_time_ms": meter.queue_s,
            "model_prediction_latency_ms": meter.inference_s,
        }
        histograms = [seconds.scaled(1000).family(name, "", labels) for name, seconds in times.items()]
        return written([*gauges, *histograms])

    def _sign_on(self, request: Request) -> bytes:
        match request.method, request.path:
            case "GET", "/.well-known/databricks-config":
                return response(200, {"oidc_endpoint": f"{self._base}/oidc", "workspace_id": "1"})
            case "GET", "/oidc/.well-known/oauth-authorization-server":
                oidc = f"{self._base}/oidc/v1"
                return response(
                    200,
                    {
                        "issuer": f"{self._base}/oidc",
                        "authorization_endpoint": f"{oidc}/authorize",
                        "token_endpoint": f"{oidc}/token",
                        "grant_types_supported": ["client_credentials"],
                    },
                )
            case "POST", "/oidc/v1/token":
                return response(200, self._access.issue(request), "cache-control: no-store")
        raise Refusal(404, f"no {request.method} {request.path} here", code="not_found")
