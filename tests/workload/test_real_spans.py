"""Spans that MLflow and OpenTelemetry have written themselves are read as they were made."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from pacemark.errors import BadInput
from pacemark.workload.files import read_trace
from support.needed import late, needed

mlflow = late("mlflow")
pytestmark = [
    pytest.mark.xdist_group("mlflow"),  # the tracking URI is one for the whole process
    pytest.mark.filterwarnings("default"),  # MLflow makes no span where a warning is an error
]
ASKED = [{"role": "user", "content": "Hi"}]
INNER = [*ASKED, {"role": "user", "content": "and be brief"}]


@pytest.fixture
def experiment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    mlflow.set_tracking_uri(f"file://{tmp_path / 'mlruns'}")
    try:
        yield mlflow.set_experiment("agents")
    finally:
        mlflow.set_tracking_uri(None)


def test_what_mlflow_has_traced(experiment: Any, tmp_path: Path) -> None:
    @mlflow.trace(span_type="CHAT_MODEL")  # type: ignore[untyped-decorator]
    def model(messages: list[Any], max_tokens: int = 7) -> dict[str, Any]:
        usage = {"input_tokens": 8, "output_tokens": 5, "total_tokens": 13}
        mlflow.get_current_active_span().set_attribute("mlflow.chat.tokenUsage", usage)
        return {"choices": []}

    @mlflow.trace(span_type="AGENT")  # type: ignore[untyped-decorator]
    def agent(messages: list[Any]) -> Any:
        mlflow.update_current_trace(metadata={"mlflow.trace.session": "s1"})
        return model(INNER)

    agent(ASKED)
    agent(ASKED)
    mlflow.flush_trace_async_logging()
    frame = mlflow.search_traces(locations=[experiment.experiment_id])
    lines = tmp_path / "traces.jsonl"
    lines.write_text("\n".join(mlflow.get_trace(trace).to_json() for trace in frame["trace_id"]))
    for source in (frame, lines):
        with pytest.raises(BadInput, match="row 1: the trace holds requests to an agent and calls of a model"):
            read_trace(source)
        root, called = (list(read_trace(source, spans=which)) for which in ("root", "model"))
        assert [(row.body, row.session, row.turn) for row in root] == [
            ({"messages": ASKED}, "s1", 0), ({"messages": ASKED}, "s1", 1),
        ]  # fmt: skip
        assert [(row.input_tokens, row.output_tokens) for row in [*root, *called]] == [(8, 5)] * 4
        assert [row.body for row in called] == [{"messages": INNER, "max_tokens": 7}] * 2
        assert root[0].at_ms == called[0].at_ms == 0.0
        assert 0 < (root[1].at_ms or 0) < 60_000


def test_what_opentelemetry_has_exported(tmp_path: Path) -> None:
    sdk, export = needed("opentelemetry.sdk.trace"), needed("opentelemetry.sdk.trace.export")
    path = tmp_path / "spans.json"
    with path.open("w") as out:
        provider = sdk.TracerProvider()
        provider.add_span_processor(export.SimpleSpanProcessor(export.ConsoleSpanExporter(out=out)))
        tracer = provider.get_tracer("test")
        told = [{"role": "user", "parts": [{"type": "text", "content": "Hi"}]}]
        usage = {"gen_ai.usage.input_tokens": 8, "gen_ai.usage.output_tokens": 5}
        for more in ({"gen_ai.input.messages": json.dumps(told)}, {"gen_ai.conversation.id": "c"}):
            with tracer.start_as_current_span("chat", attributes=usage | more):
                pass
        with pytest.raises(ValueError, match="broken"), tracer.start_as_current_span("chat", attributes=usage):
            raise ValueError("broken")
        with tracer.start_as_current_span("other"):
            pass
        provider.shutdown()
    rows = read_trace(path)
    assert [(row.number, row.messages, row.session, row.input_tokens, row.output_tokens) for row in rows] == [
        (1, ASKED, None, 8, 5), (2, None, "c", 8, 5),
    ]  # fmt: skip
    assert [(x.reason, x.first) for x in rows.found.left_out] == [
        ("it failed", 3),
        ("the span is no call of a model", 4),
    ]
