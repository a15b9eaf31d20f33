"""Spans: MLflow's traces of agents and models, and OpenTelemetry's of calls to a model.

An agent's trace is a tree. Its root is a request to the agent, the spans of type CHAT_MODEL or LLM are requests to a
model: two loads on two endpoints, and which of them is wanted must be said. MLflow: its TraceInfo and Span, versions 2
and 3. OpenTelemetry: the semantic conventions for generative AI (`gen_ai.*`), as OTLP JSON or one span for each line.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, ClassVar

import msgspec

from pacemark.errors import BadInput
from pacemark.workload.keys import chat, filled_key, recorded, whole
from pacemark.workload.row import FileFound, Row
from pacemark.workload.traces.format import How, Left, Taken, at, first_of, in_json

__all__ = ["MLflow", "OpenTelemetry"]

_CALLS = ("CHAT_MODEL", "LLM")
_AGENTS = ("create_agent", "invoke_agent", "invoke_workflow", "execute_tool", "retrieval")
"""Values of `gen_ai.operation.name` of spans around calls of a model, whose tokens are those of the calls once more."""


class MLflow:
    """MLflow's traces: as `search_traces` gives them, or as each is written as JSON."""

    name = "MLflow traces"
    ordered: ClassVar = False
    counted: ClassVar = True

    def __init__(self, how: How, found: FileFound) -> None:
        if how.spans not in ("", "root", "model"):
            raise BadInput(f"--spans {how.spans!r} is not known: root or model")
        self._spans, self._unit, self._found = how.spans, how.unit, found
        found.keys = {"body": "request" if how.spans != "model" else "mlflow.spanInputs"}
        found.keys |= {"at_ms": "request_time", "session": "mlflow.trace.session"}

    @staticmethod
    def knows(value: Mapping[str, Any]) -> bool:
        """A trace's id and time, in a table or in its own JSON."""
        info = value.get("info") if isinstance(value.get("info"), Mapping) else value
        if not isinstance(info, Mapping) or "databricks_request_id" in info:
            return False
        ids, times = {"trace_id", "request_id"} & info.keys(), {"request_time", "timestamp_ms"} & info.keys()
        told = {"trace_metadata", "request_metadata", "state", "status", "execution_duration"} & info.keys()
        return bool(ids and times and told) and "status_code" not in info

    def take(self, value: Mapping[str, Any], number: int) -> Iterator[Taken | Left]:
        """The root's request, or one row for each call of a model."""
        info: Mapping[str, Any] = value["info"] if isinstance(value.get("info"), Mapping) else value
        data = value.get("data") if isinstance(value.get("data"), Mapping) else value
        spans = [span for entry in in_json((data or {}).get("spans")) or () if (span := _mapping(in_json(entry)))]
        calls = [span for span in spans if _attribute(span, "mlflow.spanType") in _CALLS]
        if calls and not self._spans:
            raise BadInput(
                "the trace holds requests to an agent and calls of a model: --spans root replays the first, "
                "--spans model the second"
            )
        metadata = _mapping(first_of(info, "trace_metadata", "request_metadata"))
        session = metadata.get("mlflow.trace.session")
        if self._spans == "model":
            yield from (_call(span, number, session) for span in calls)
            return
        if str(first_of(info, "state", "status") or "OK").rpartition(".")[2] not in ("OK", "1"):
            yield Left("it failed")
            return
        root = next((span for span in spans if not first_of(span, "parent_span_id", "parent_id")), {})
        request = first_of(data or {}, "request") or first_of(value, "request")
        request = request if request is not None else _attribute(root, "mlflow.spanInputs")
        usage = _mapping(in_json(metadata.get("mlflow.trace.tokenUsage")))
        key = filled_key(("request_time", "timestamp_ms"), info) or "request_time"
        unit = self._unit or ("ms" if key == "timestamp_ms" else "")
        self._found.unit = unit or "found"
        yield _replayed(_read(request), number, session, usage, at(info, key, unit))

    def end(self) -> None:
        """Nothing more to say."""


def _replayed(request: Any, number: int, session: Any, usage: Mapping[str, Any], at_ns: int) -> Taken | Left:
    if isinstance(request, Mapping) and not any(key in request for key in ("messages", "prompt", "input")):
        inner = [x for x in request.values() if isinstance(x, Mapping) and ("messages" in x or "input" in x)]
        request = inner[0] if len(inner) == 1 else request  # the arguments of a function, by their names
    if isinstance(request, list):
        request = {"messages": request}
    if not isinstance(request, Mapping) or not any(request.get(key) for key in ("messages", "prompt", "input")):
        return Left("what it asked is no request to a model: no messages, prompt or input")
    row = recorded(request, number, None if session is None else str(session))
    tokens = whole(usage.get("output_tokens"), "output_tokens") or row.output_tokens
    known = whole(usage.get("input_tokens"), "input_tokens")
    return Taken(msgspec.structs.replace(row, input_tokens=known, output_tokens=tokens), at_ns)


def _call(span: Mapping[str, Any], number: int, session: Any) -> Taken | Left:
    """A call of a model in an MLflow trace."""
    if _failed(span):
        return Left("it failed")
    usage = _mapping(_attribute(span, "mlflow.chat.tokenUsage"))
    key = filled_key(("start_time_unix_nano", "start_time_ns", "start_time"), span) or "start_time_unix_nano"
    return _replayed(_attribute(span, "mlflow.spanInputs"), number, session, usage, at(span, key, "ns"))


def _failed(span: Mapping[str, Any]) -> bool:
    """Whether a span says of itself that it failed: OTLP, MLflow and the SDK's own JSON each in their way."""
    status = span.get("status")
    code = first_of(status, "code", "status_code") if isinstance(status, Mapping) else first_of(span, "status_code")
    return str(code).rpartition("_")[2].upper() in ("ERROR", "2")


def _attribute(span: Mapping[str, Any], name: str) -> Any:
    """An attribute of an MLflow span; each is written as JSON."""
    return _read(_mapping(span.get("attributes")).get(name))


def _read(value: Any) -> Any:
    """What is in `value` where it is JSON, or the text that it is."""
    try:
        return in_json(value)
    except BadInput:
        return value


def _mapping(value: Any) -> Mapping[str, Any]:
    """`value` as a mapping: Arrow has its maps as pairs, some tables as JSON. Empty for what is none."""
    if isinstance(value, str):
        value = in_json(value) if value.lstrip().startswith("{") else None
    if isinstance(value, list) and all(isinstance(pair, tuple) and len(pair) == 2 for pair in value):
        return dict(value)
    return value if isinstance(value, Mapping) else {}


class OpenTelemetry:
    """Spans of calls to a model; the messages are there only where the program was told to record them."""

    name = "OpenTelemetry GenAI spans"
    ordered: ClassVar = False
    counted: ClassVar = True

    def __init__(self, how: How, found: FileFound) -> None:
        self._unit, self._found, self._cut, self._agents = how.unit or "ns", found, 0, how.spans == "root"
        found.unit = how.unit or "ns or date"
        found.keys = {"input_tokens": "gen_ai.usage.input_tokens", "output_tokens": "gen_ai.usage.output_tokens"}
        found.keys |= {"at_ms": "start of the span"}

    @staticmethod
    def knows(value: Mapping[str, Any]) -> bool:
        """OTLP's own nesting, or a span with attributes."""
        return "resourceSpans" in value or ("attributes" in value and bool(filled_key(_STARTS, value)))

    def take(self, value: Mapping[str, Any], number: int) -> Iterator[Taken | Left]:
        """One row for each span of a call."""
        for span in _nested(value):
            attributes = _attributes(span.get("attributes"))
            if not any(key.startswith("gen_ai.") for key in attributes) or "gen_ai.tool.name" in attributes:
                yield Left("the span is no call of a model")
            elif (attributes.get("gen_ai.operation.name") in _AGENTS) != self._agents:
                yield Left("it is a call of a model" if self._agents else "it is an agent's; --spans root takes those")
            elif _failed(span):
                yield Left("it failed")
            else:
                yield self._row(span, attributes, number)

    def _row(self, span: Mapping[str, Any], attributes: Mapping[str, Any], number: int) -> Taken | Left:
        tokens = [
            whole(first_of(attributes, f"gen_ai.usage.{new}", f"gen_ai.usage.{old}"), f"gen_ai.usage.{new}")
            for new, old in (("input_tokens", "prompt_tokens"), ("output_tokens", "completion_tokens"))
        ]
        messages = self._messages(attributes)
        if not messages and not tokens[0]:
            return Left("neither messages nor lengths were recorded")
        if messages:
            self._found.keys.setdefault("messages", "gen_ai.input.messages")
        session = attributes.get("gen_ai.conversation.id")
        if session is not None:
            self._found.keys.setdefault("session", "gen_ai.conversation.id")
        row = Row(
            number, messages=messages or None, input_tokens=tokens[0], output_tokens=tokens[1] or None,
            session=None if session is None else str(session),
        )  # fmt: skip
        return Taken(row, at(span, filled_key(_STARTS, span) or _STARTS[0], self._unit))

    def _messages(self, attributes: Mapping[str, Any]) -> list[dict[str, Any]]:
        told = in_json(first_of(attributes, "gen_ai.input.messages", "gen_ai.prompt"))
        if told is None:
            told = _indexed(attributes)
        if not isinstance(told, list):
            return []
        system = in_json(attributes.get("gen_ai.system_instructions"))
        parts = [{"role": "system", "parts": system}] if isinstance(system, list) else []
        return chat([self._plain(message) for message in [*parts, *told]], "gen_ai.input.messages") if told else []

    def _plain(self, message: Any) -> Any:
        """A message whose text stands in parts, as one with content."""
        if not isinstance(message, Mapping) or not isinstance(message.get("parts"), list):
            return message
        texts = [part.get("content") for part in message["parts"] if isinstance(part, Mapping)]
        kept = [text for text in texts if isinstance(text, str)]
        self._cut += len(kept) < len(message["parts"])
        return {"role": message.get("role"), "content": "\n".join(kept)}

    def end(self) -> None:
        """Say what of the messages is not in the rows."""
        if self._cut:
            self._found.said.append(f"{self._cut:,} messages had parts that are no text, which are not sent")


_STARTS = ("startTimeUnixNano", "start_time_unix_nano", "start_time", "startTime")


def _nested(value: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    """The spans of a record: of an export with its resources and scopes, or the one that it is."""
    if "resourceSpans" not in value:
        yield value
        return
    for resource in _mappings(value["resourceSpans"]):
        for scope in _mappings(first_of(resource, "scopeSpans", "instrumentationLibrarySpans")):
            yield from _mappings(scope.get("spans"))


def _mappings(value: Any) -> Iterable[Mapping[str, Any]]:
    if not isinstance(value, list) or not all(isinstance(x, Mapping) for x in value):
        raise BadInput("resourceSpans is not nested as OTLP has it")
    return value


def _attributes(value: Any) -> Mapping[str, Any]:
    """Attributes by name; OTLP has a list of keys and typed values."""
    if not isinstance(value, list) or not all(isinstance(x, Mapping) for x in value):
        return _mapping(value)
    return {str(x.get("key")): _typed(x.get("value")) for x in value}


def _typed(value: Any) -> Any:
    if not isinstance(value, Mapping) or len(value) != 1:
        return value
    kind, inner = next(iter(value.items()))
    if kind == "arrayValue":
        return [_typed(x) for x in _mapping(inner).get("values") or ()]
    if kind == "kvlistValue":
        return dict(_attributes(_mapping(inner).get("values") or []))
    return inner


def _indexed(attributes: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Messages that stand one field in one attribute: `gen_ai.prompt.0.content`."""
    messages: dict[int, dict[str, Any]] = {}
    for key, value in attributes.items():
        if found := re.fullmatch(r"gen_ai\.prompt\.(\d{1,6})\.(role|content)", key):
            messages.setdefault(int(found[1]), {})[found[2]] = value
    return [messages[k] for k in sorted(messages)]
