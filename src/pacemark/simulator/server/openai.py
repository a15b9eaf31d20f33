"""The endpoint by itself: every API under its path, the models under /v1, and what operators look at."""

from __future__ import annotations

import time
from typing import Any

from pacemark.simulator.engine.engine import EngineSpec
from pacemark.simulator.server.access import Access
from pacemark.simulator.server.asks import Refusal
from pacemark.simulator.server.faces import catalogue, face_of, openai_error
from pacemark.simulator.server.http import Connection, Request, response
from pacemark.simulator.server.prometheus import exposition
from pacemark.simulator.server.service import Service

__all__ = ["OpenAI"]


class OpenAI:
    """As vLLM presents itself: the key guards what generates, and all of /v1."""

    def __init__(self, service: Service, access: Access) -> None:
        self._service = service
        self._access = access
        self._started = int(time.time())

    def handle(self, connection: Connection, request: Request) -> None:
        """Answer one request."""
        face = face_of(request.path)
        try:
            if (face or request.path.startswith("/v1/")) and not self._access.allowed(request):
                message = (
                    "Incorrect API key provided." if self._access.token(request) else "You did not provide an API key."
                )
                raise Refusal(401, message, code="invalid_api_key")
            if face and request.method == "POST":
                name = self._service.preset.model if face.named else None
                self._service.serve(connection, request, face.read, face.make, name=name)
            else:
                connection.send(self._other(request))
                connection.done()
        except Refusal as refusal:
            if face:
                self._service.refused(refusal.status)
            error = face.error(refusal) if face else openai_error(refusal)
            connection.send(response(refusal.status, error, *refusal.headers))
            connection.done()

    def _other(self, request: Request) -> bytes:
        service = self._service
        if request.method == "GET" and (models := catalogue(request.path, service.preset.model)):
            return response(200, models)
        match request.method, request.path:
            case "GET", "/v1/models":
                return response(200, {"object": "list", "data": [self._model()]})
            case "GET", path if path == f"/v1/models/{service.preset.model}":
                return response(200, self._model())
            case "GET", "/health":
                return response(200, {"status": "ok"})
            case "GET", "/metrics":
                occupancy = service.live.model.occupancy(time.monotonic_ns())
                text = exposition(service.meter, occupancy, service.preset)
                return response(200, text, content_type="text/plain; version=0.0.4; charset=utf-8")
            case "GET", "/lateness":
                return response(200, service.lateness.report())
            case "POST", "/lateness/reset":
                service.lateness.reset()
                return response(200, service.lateness.report())
        paths = ("/v1/models", "/health", "/metrics", "/lateness", "/lateness/reset")
        known = request.path in paths or face_of(request.path) is not None
        raise Refusal(405 if known else 404, f"no {request.method} {request.path} here")

    def _model(self) -> dict[str, Any]:
        preset = self._service.preset
        model = {"id": preset.model, "object": "model", "created": self._started, "owned_by": "pacemark"}
        if isinstance(preset.timeline, EngineSpec):
            model["max_model_len"] = preset.timeline.kv_tokens
        return model
