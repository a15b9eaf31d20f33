"""What a workspace's JSON says of a serving endpoint, read without trust in its form.

The REST API answers with more than any one version of its SDK knows: fields and values that are newer, numbers as
strings, parts that are left out. What cannot be read counts as not stated. Names are those of the public reference
("Serving endpoints: get", as `databricks-sdk` 0.162 has it).
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from pacemark.endpoint.limits import RateLimit, RateUnit, documented
from pacemark.endpoint.served import Billing, Caller, Endpoint, Entity

__all__ = ["caller_in", "chunk_in", "endpoint_in", "principals_in"]

_UPDATES = {
    "IN_PROGRESS": "config update in progress",
    "UPDATE_FAILED": "config update failed",
    "UPDATE_CANCELED": "config update canceled",
}
_UNITS: tuple[tuple[str, RateUnit], ...] = (("calls", "requests"), ("tokens", "tokens"))


def endpoint_in(raw: Any, caller: Caller | None = None) -> Endpoint:
    """The endpoint that the answer to GET /api/2.0/serving-endpoints/NAME describes; `caller` is who asks."""
    told = _object(raw)
    config = _object(told.get("config")) or _object(told.get("pending_config"))
    served = _objects(config.get("served_entities")) or _objects(config.get("served_models"))
    entities = tuple(_entity(e, _traffic(config).get(_text(e.get("name")))) for e in served)
    state = _object(told.get("state"))
    ready, update = _text(state.get("ready")) != "NOT_READY", _text(state.get("config_update"))
    task = _text(told.get("task")) or next(
        (t for e in served if (t := _text(_object(e.get("external_model")).get("task")))), ""
    )
    direct = _object(_object(told.get("data_plane_info")).get("query_info"))
    return Endpoint(
        name=_text(told.get("name")),
        task=task,
        ready=ready,
        state=", ".join(_said(ready, update, entities)),
        version=_whole(config.get("config_version")),
        entities=entities,
        limits=tuple(_limits(told, entities, caller)),
        permission=_text(told.get("permission_level")),
        updating=update == "IN_PROGRESS",
        route_optimized=told.get("route_optimized") is True,
        url=_text(direct.get("endpoint_url")) or _text(told.get("endpoint_url")),
        authorization_details=_text(direct.get("authorization_details")) or _permission(_text(told.get("id"))),
        created_ms=_whole(told.get("creation_timestamp")) or 0,
        falls_back=_object(_object(told.get("ai_gateway")).get("fallback_config")).get("enabled") is True,
    )


def caller_in(raw: Any) -> Caller:
    """Who asks, as the answer to GET /api/2.0/preview/scim/v2/Me has it."""
    told = _object(raw)
    names = {_text(told.get(field)) for field in ("userName", "applicationId", "id")}
    return Caller(
        names=frozenset(names - {""}),
        groups=frozenset(_text(group.get("display")) for group in _objects(told.get("groups"))) - {""},
    )


def chunk_in(raw: Any) -> int | None:
    """Tokens/s that a model's throughput is sold in, as get-model-optimization-info answers."""
    told = _object(raw)
    return _whole(told.get("throughput_chunk_size")) if told.get("optimizable") else None


def principals_in(raw: Any) -> bool:
    """Whether the endpoint has limits that hold for some and not for others."""
    return any(_text(limit.get("principal")) for limit in _rate_limits(_object(raw)))


def _rate_limits(told: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    return _objects(_object(told.get("ai_gateway")).get("rate_limits"))


def _permission(endpoint_id: str) -> str:
    """The authorization details of an endpoint that does not name them, as the page on route-optimised ones does."""
    details = {
        "type": "workspace_permission",
        "object_type": "serving-endpoints",
        "object_path": f"/serving-endpoints/{endpoint_id}",
        "actions": ["query_inference_endpoint"],
    }
    return json.dumps([details])


def _said(ready: bool, update: str, entities: Sequence[Entity]) -> Iterator[str]:
    yield "ready" if ready else "not ready"
    if update not in ("", "NOT_UPDATING"):
        yield _UPDATES.get(update, f"config {_words(update)}")
    for entity in entities:
        if entity.message or entity.deployment not in ("", "DEPLOYMENT_READY"):
            words = _words(entity.deployment)
            yield ": ".join(x for x in (words, entity.message) if x and x != "deployment ready")


def _traffic(config: Mapping[str, Any]) -> dict[str, int | None]:
    """Percent of the requests by the name of what serves them."""
    routes = _objects(_object(config.get("traffic_config")).get("routes"))
    return {
        _text(r.get("served_entity_name")) or _text(r.get("served_model_name")): _whole(r.get("traffic_percentage"))
        for r in routes
    }


def _entity(raw: Mapping[str, Any], traffic: int | None) -> Entity:
    external, foundation = _object(raw.get("external_model")), _object(raw.get("foundation_model"))
    units, most = _whole(raw.get("provisioned_model_units")), _whole(raw.get("max_provisioned_throughput"))
    kind: Billing = (
        "external" if external
        else "model units" if units is not None
        else "provisioned throughput" if most is not None
        else "pay per token" if foundation
        else "custom"
    )  # fmt: skip
    fields = (raw.get("entity_name"), raw.get("model_name"), external.get("name"), foundation.get("name"))
    state, burst = _object(raw.get("state")), raw.get("burst_scaling_enabled")
    return Entity(
        version=_text(raw.get("entity_version")),
        served_as=_text(raw.get("name")),
        name=next((name for x in (*fields, raw.get("name")) if (name := _text(x))), "unnamed"),
        kind=kind,
        traffic=traffic,
        min_throughput=_whole(raw.get("min_provisioned_throughput")),
        max_throughput=most,
        model_units=units,
        bursts=burst if isinstance(burst, bool) else None,
        min_concurrency=_whole(raw.get("min_provisioned_concurrency")),
        max_concurrency=_whole(raw.get("max_provisioned_concurrency")),
        workload_size=_text(raw.get("workload_size")),
        workload_type=_text(raw.get("workload_type")),
        scale_to_zero=raw.get("scale_to_zero_enabled") is True,
        provider=_text(external.get("provider")),
        deployment=_text(state.get("deployment")),
        message=_text(state.get("deployment_state_message")),
    )


def _limits(told: Mapping[str, Any], entities: Sequence[Entity], caller: Caller | None) -> Iterator[RateLimit]:
    """The limits that the endpoint's AI Gateway sets, then those that the documentation states for its kind."""
    for limit in _rate_limits(told):
        key, principal = _words(_text(limit.get("key"))), _text(limit.get("principal"))
        whom = f"{key} {principal}" if principal else "" if key in ("", "endpoint") else f"each {key}"
        for field, unit in _UNITS:
            if (amount := _number(limit.get(field))) is not None:
                yield RateLimit(
                    amount,
                    unit,
                    _text(limit.get("renewal_period")) or "minute",
                    f"set on the endpoint for {whom}" if whom else "set on the endpoint",
                    binds=not principal or caller is None or caller.known_as(principal),
                )
    shared = [e.name for e in entities if e.kind == "pay per token"]
    yield from documented(shared, bool(shared), told.get("route_optimized") is True)


# --- JSON without trust


def _object(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}


def _objects(value: Any) -> list[Mapping[str, Any]]:
    return [x for x in value if isinstance(x, Mapping)] if isinstance(value, list) else []


def _text(value: Any) -> str:
    return value.strip() if isinstance(value, str) else str(value) if isinstance(value, int) else ""


def _number(value: Any) -> float | None:
    """A number, also one that is written as a string."""
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        return None
    try:
        number = float(value)
    except (ValueError, OverflowError):
        return None
    return number if abs(number) < 1e15 else None


def _whole(value: Any) -> int | None:
    number = _number(value)
    return None if number is None else round(number)


def _words(value: str) -> str:
    return value.lower().replace("_", " ")
