"""Targets in a Databricks workspace: the real databricks-sdk against the embedded endpoint's workspace."""

from __future__ import annotations

import io
import logging
import random
import re
import subprocess
import sys
import time
import traceback
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import pacemark
from pacemark.answers.boundary import believe, read
from pacemark.answers.search import find
from pacemark.endpoint import databricks, signon, watch
from pacemark.endpoint.databricks import serving
from pacemark.endpoint.limits import RateLimit
from pacemark.endpoint.prometheus import metrics_in
from pacemark.endpoint.served import Endpoint, Entity, exceeding
from pacemark.endpoint.target import Target
from pacemark.endpoint.watch import Watcher, limit_named
from pacemark.errors import BadInput, RunFailed
from pacemark.figures.conditions import Condition
from pacemark.figures.health import Health
from pacemark.figures.level import Enough, LevelResult, sum_up
from pacemark.instrument.answer import Answer
from pacemark.instrument.patience import pause_s
from pacemark.pace import Concurrency, Load, Rate
from pacemark.reporting.charts import curve as charts
from pacemark.runs.folder import RunFolder
from pacemark.summary import Timeline
from pacemark.trace import Sight, Watch, Window, trace_of
from support.servers import exchange
from support.waiting import wait_for
from support.workspaces import NAME, PAT, QUICK, SECRET, TARGET, no_settings, service_principal, workspace

# The SDK leaves its connections to the garbage collector.
pytestmark = [
    pytest.mark.usefixtures("no_connections_left"),
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
    pytest.mark.filterwarnings(f"ignore:{NAME} :UserWarning"),
    pytest.mark.filterwarnings("ignore:.* per :UserWarning"),
]


@pytest.fixture(autouse=True)
def no_configuration(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing of this machine's own Databricks settings may leak in."""
    no_settings(monkeypatch)


def test_check_tells_what_the_endpoint_is(monkeypatch: pytest.MonkeyPatch) -> None:
    with workspace(monkeypatch, min_throughput=2000, calls_per_minute=6000):
        with pytest.warns(UserWarning, match="scales with the load"):
            found = pacemark.check(TARGET, **QUICK)
        assert found["target"]["endpoint"] == NAME
        assert found["target"]["api"] == "chat"
        assert found["endpoint"]["state"] == "ready"
        assert found["endpoint"]["task"] == "llm/v1/chat"
        assert found["endpoint"]["serves"] == ["system.ai.simulated_model: 2,000 to 9,500 tokens/s provisioned"]
        assert any("6,000 requests per minute" in line for line in found["endpoint"]["limits"])
        assert found["streams"]
        assert found["reports_usage"]
        assert found["output_tokens"] == 8
        assert found["ttft_ms"] >= 4
        assert PAT not in str(found)


def test_a_profile_opens_the_workspace(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    with workspace(monkeypatch) as served:
        monkeypatch.delenv("DATABRICKS_HOST")
        monkeypatch.delenv("DATABRICKS_TOKEN")
        file = tmp_path / "cfg"
        file.write_text(f"[bench]\nhost = {served.root}\ntoken = {PAT}\n")
        monkeypatch.setenv("DATABRICKS_CONFIG_FILE", str(file))
        assert serving(NAME, "bench").endpoint.ready
        with pytest.raises(BadInput, match="other"):
            serving(NAME, "other")
        monkeypatch.setenv("DATABRICKS_CONFIG_FILE", str(tmp_path / "gone"))
        with pytest.raises(BadInput, match="--profile bench: there is no file"):
            serving(NAME, "bench")


@pytest.mark.slow
def test_a_token_that_expires_in_mid_run_fails_no_request(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    tokens: list[str] = []
    real = databricks.Serving.headers

    def noted(self: databricks.Serving) -> dict[str, str]:
        headers = real(self)
        tokens.append(headers["Authorization"].removeprefix("Bearer "))
        return headers

    monkeypatch.setattr(databricks.Serving, "headers", noted)
    monkeypatch.setattr(watch, "LOOK_S", 0.5)
    with workspace(monkeypatch, token_s=3.0):
        service_principal(monkeypatch)
        run = pacemark.run(TARGET, concurrency=4, duration=8.0, out=tmp_path, **QUICK)
    level = run.levels[0]
    assert level.requests.failed == 0, level.errors
    assert level.requests.completed > 100
    assert len(set(tokens)) > 3
    folder = RunFolder.open(run.path)
    (session,) = folder.sessions()
    sights = session.sights()
    folder.close()
    assert len(sights) > 3
    assert all(s.ready and not s.problem for s in sights)
    assert sights[-1].metrics["request_count_total"] > 0
    for file in run.path.iterdir():
        data = file.read_bytes()
        assert not [t for t in {*tokens, SECRET, PAT} if t.encode() in data], file
    assert run.summary.run["header_names"][0] == "Authorization"
    assert isinstance(run.summary.timeline, Timeline)
    assert len(run.summary.timeline.endpoint) > 3
    # What the endpoint said is kept, so the report can be had again.
    assert pacemark.report(run.path).summary.timeline == run.summary.timeline


@pytest.mark.slow(shared=True)
def test_nothing_that_is_written_or_said_holds_the_token(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Files, standard output and error, logs at their fullest, and tracebacks with every local variable."""
    with workspace(monkeypatch):
        words = ["run", TARGET, "--concurrency", "2", "--duration", "1", "--output-tokens", "8", "--input-tokens", "16"]
        command = [sys.executable, "-X", "dev", "-W", "ignore", "-m", "pacemark.cli", *words, "--out", str(tmp_path)]
        done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
        assert done.returncode == 0, done.stderr
        said = io.StringIO()
        handler = logging.StreamHandler(said)
        root = logging.getLogger()
        level = root.level
        root.addHandler(handler)
        root.setLevel(logging.DEBUG)
        try:
            place = serving(NAME).target(Target("http://x"))
            serving(NAME).look()
            with pytest.raises(BadInput) as caught:
                serving("lama-bench")
            lines = "".join(traceback.TracebackException.from_exception(caught.value).format())
            try:
                raise RuntimeError(f"{place!r}")
            except RuntimeError as error:
                lines += "".join(traceback.TracebackException.from_exception(error, capture_locals=True).format())
        finally:
            root.removeHandler(handler)
            root.setLevel(level)
    assert place.headers["Authorization"] == f"Bearer {PAT}"
    assert NAME in lines
    assert "serving-endpoints" in said.getvalue()
    files = [f for f in tmp_path.rglob("*") if f.is_file()]
    assert {"run.json", "run.db", "summary.json", "report.html"} <= {f.name for f in files}
    for text in (done.stdout, done.stderr, said.getvalue(), lines, *(f.read_bytes().decode("latin-1") for f in files)):
        assert PAT not in text
        assert SECRET not in text


@pytest.mark.parametrize(
    ("fields", "name", "says"),
    [
        ({}, "lama-bench", "no serving endpoint 'lama-bench' in .*; did you mean llama-bench?"),
        ({"permission": "NONE"}, NAME, "no permission to see llama-bench .*CAN QUERY"),
        ({"permission": "CAN_VIEW"}, NAME, "looked at but not queried .*CAN QUERY"),
        (
            {"deployment": "DEPLOYMENT_CREATING", "config_update": "IN_PROGRESS"},
            NAME,
            "llama-bench is not ready, config update in progress, deployment creating: wait until it is ready",
        ),
        ({"task": "agent/v9/talk"}, NAME, "of task agent/v9/talk, which pacemark cannot ask"),
        ({}, "no/name", "no name of a serving endpoint"),
    ],
)
def test_what_cannot_work_is_one_clear_line(
    monkeypatch: pytest.MonkeyPatch, fields: dict[str, Any], name: str, says: str
) -> None:
    with workspace(monkeypatch, **fields), pytest.raises(BadInput, match=says) as caught:
        pacemark.check(f"databricks:{name}", **QUICK)
    assert "\n" not in str(caught.value)
    assert PAT not in str(caught.value)
    assert len(str(caught.value)) < 300


def test_credentials_that_are_wrong_or_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    with workspace(monkeypatch):
        monkeypatch.setenv("DATABRICKS_TOKEN", "dapi-something-else")
        with pytest.raises(BadInput, match=r"does not accept these credentials .*Invalid access token") as caught:
            serving(NAME)
        assert "something-else" not in str(caught.value)
        service_principal(monkeypatch)
        monkeypatch.setenv("DATABRICKS_CLIENT_SECRET", "not-the-secret")
        with pytest.raises(BadInput, match="invalid_client") as caught:
            serving(NAME)
        assert "not-the-secret" not in str(caught.value)
    for variable in ("DATABRICKS_HOST", "DATABRICKS_CLIENT_ID", "DATABRICKS_CLIENT_SECRET"):
        monkeypatch.delenv(variable)
    with pytest.raises(BadInput, match="set DATABRICKS_HOST and DATABRICKS_TOKEN, or name a profile"):
        serving(NAME)
    monkeypatch.setitem(sys.modules, "databricks.sdk", None)
    with pytest.raises(BadInput, match="pip install 'databricks-sdk"):
        serving(NAME)


def test_a_workspace_that_is_not_there(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(signon, "RETRY_S", 1)
    monkeypatch.setenv("DATABRICKS_HOST", "http://127.0.0.1:9")
    monkeypatch.setenv("DATABRICKS_TOKEN", PAT)
    with pytest.raises(BadInput, match=r"cannot reach http://127.0.0.1:9"):
        serving(NAME)


@pytest.mark.slow(shared=True)
def test_an_endpoint_at_zero_says_so_before_it_is_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    scaling = {"min_replicas": 0, "max_replicas": 1, "cold_start_s": 1.0}
    with workspace(monkeypatch, "demo", scaling=scaling):
        with pytest.warns(UserWarning, match="scaled to zero: the first request starts it"):
            found = pacemark.check(TARGET, **QUICK)
        assert found["endpoint"]["state"] == "ready, Scaled to zero"
        assert found["output_tokens"] == 8
    with (
        workspace(monkeypatch, "demo", scaling=scaling | {"cold_start_s": 30.0}),
        pytest.raises(BadInput, match=r"starting from zero and did not answer yet: .*raise --timeout"),
    ):
        pacemark.check(TARGET, **(QUICK | {"timeout": 1.0}))


@pytest.mark.slow(shared=True)
@pytest.mark.parametrize(("task", "api"), [("llm/v1/completions", "completions"), ("llm/v1/embeddings", "embeddings")])
def test_the_endpoints_task_decides_on_the_dialect(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, task: str, api: str
) -> None:
    with workspace(monkeypatch, task=task):
        run = pacemark.run(TARGET, concurrency=2, duration=1.0, out=tmp_path, **QUICK)
    level = run.levels[0]
    assert run.summary.target["api"] == api
    assert level.requests.failed == 0
    assert level.latency_ms.p50.value
    assert "token_count" not in [r.code for r in level.verdict.reasons]
    assert level.output_tokens == (1 if api == "embeddings" else 8)
    assert (level.ttft_ms.p50.value is None) == (api == "embeddings")
    assert level.input_tokens
    assert level.total_tokens_per_s.value


@pytest.mark.parametrize(
    ("provisioned", "capacity", "warning"),
    [
        ("none", "pay per token", "paid per token"),
        ("external", "external, by openai", "passes requests on to openai"),
        ("model_units", "50 model units and bursts beyond them", "makes people buy too few"),
    ],
)
def test_what_was_bought(monkeypatch: pytest.MonkeyPatch, provisioned: str, capacity: str, warning: str | None) -> None:
    with workspace(monkeypatch, provisioned=provisioned, model="gpt-x"):
        endpoint = serving(NAME).endpoint
        assert capacity in endpoint.described()["serves"][0]
        said = endpoint.warnings(256)
        assert any(warning in line for line in said) if warning else said == []
        assert pacemark.check(TARGET, **QUICK)["output_tokens"] == 8


@pytest.mark.slow
def test_a_limit_ends_a_level_and_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    with workspace(monkeypatch, provisioned="none", output_tokens_per_minute=1600, minute_s=3.0):
        run = pacemark.run(TARGET, concurrency=4, duration=5.0, out=tmp_path, **QUICK)
    level = run.levels[0]
    assert level.errors["http_429"] >= 4
    assert level.requests.completed >= 150
    reasons = {r.code: r.message for r in level.verdict.reasons}
    assert "output tokens per minute" in reasons["rate_limited"]
    # A refused stream waits for as long as it was told to, and its wait is in no latency.
    assert level.errors["http_429"] < 40
    assert (level.latency_ms.p99.value or 0.0) < 500
    timeline = run.summary.timeline
    assert isinstance(timeline, Timeline)
    assert sum(timeline.throttled) == level.errors["http_429"]
    assert "turned away" in charts.parts(run.summary, 600, 400)[-1].to_json(validate=False)


@pytest.mark.slow(shared=True)
def test_a_run_that_would_exceed_a_limit_is_told(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    with (
        workspace(monkeypatch, calls_per_minute=600),
        pytest.warns(UserWarning, match=r"600 requests per minute .*are planned: expect 429"),
    ):
        pacemark.run(TARGET, rate=30.0, duration=1.0, out=tmp_path, **QUICK)


def _endpoint(**fields: Any) -> Endpoint:
    plain: dict[str, Any] = {"task": "llm/v1/chat", "ready": True, "state": "ready", "version": 1, "limits": ()}
    entity = Entity(name="m", kind="pay per token")
    return Endpoint(name=NAME, **(plain | {"entities": (entity,)} | fields))


def test_plans_against_limits() -> None:
    limit = RateLimit(6000, "output tokens", "minute", "stated")
    endpoint = _endpoint(limits=(limit,))
    assert endpoint.planned([Concurrency(1)], latency_s=2.0, input_tokens=10, output_tokens=100) == []
    (line,) = endpoint.planned([Concurrency(1), Concurrency(8)], latency_s=2.0, input_tokens=10, output_tokens=100)
    assert line.startswith("6,000 output tokens per minute (stated) are enough for 1 requests/s, or 2 in parallel")
    assert endpoint.planned([Rate(0.9)], latency_s=2.0, input_tokens=10, output_tokens=100) == []
    assert len(endpoint.planned([Rate(1.1)], latency_s=2.0, input_tokens=10, output_tokens=100)) == 1
    (line,) = endpoint.planned([], latency_s=2.0, input_tokens=10, output_tokens=100)
    assert "planned" not in line
    assert endpoint.planned([Concurrency(9)], latency_s=2.0, input_tokens=10, output_tokens=0) == []
    slow = _endpoint().planned([Concurrency(1)], latency_s=200.0, input_tokens=1, output_tokens=1)
    assert "297 s" in slow[0]


def test_warnings_before_money_is_spent() -> None:
    assert "4 MB" in _endpoint().warnings(2_000_000)[-1]
    custom = _endpoint(entities=(Entity(name="m", kind="custom", max_concurrency=4),))
    assert not any("MB" in line for line in custom.warnings(2_000_000))
    split = _endpoint(entities=(Entity("a", "custom", traffic=90), Entity("b", "custom", traffic=10)))
    assert any("a 90%, b 10%" in line for line in split.warnings(1))
    assert any("being updated" in line for line in _endpoint(updating=True).warnings(1))


def test_metrics_are_summed_over_labels() -> None:
    text = """# TYPE request_count_total gauge
request_count_total{endpoint_name="e",served_model_name="a{b} c"} 3 1788718020000
request_count_total{endpoint_name="e",served_model_name="b"} 4.5e1 1788718020000
provisioned_concurrent_requests_total 8
cpu_usage_percentage{x="y"} NaN 1788718020000
request_latency_ms_bucket{le="5"} 9 1788718020000
request_latency_ms_sum{a="b"} 120.5
"""
    found = {"request_count_total": 48.0, "provisioned_concurrent_requests_total": 8.0, "request_latency_ms_sum": 120.5}
    assert metrics_in(text) == found
    assert metrics_in("") == {}


@pytest.mark.parametrize(
    ("text", "limit"),
    [
        ("Exceeded workspace output tokens per minute rate limit for databricks-m.", "output tokens per minute"),
        ("Rate limit exceeded: ITPM limit of 200,000 tokens reached", "input tokens per minute"),
        ("Exceeded workspace QPS rate limit for m", "requests per second"),
        ("Rate limit reached: more than 4 requests in parallel.", "requests in parallel"),
        ('{"limit_type": "queries_per_hour"}', "requests per hour"),
        ("slow down", ""),
    ],
)  # fmt: skip
def test_limits_by_their_names(text: str, limit: str) -> None:
    assert limit_named(text) == limit


@pytest.mark.parametrize(
    ("headers", "body", "seconds"),
    [
        ({b"retry-after": b"7"}, b"", 7.0),
        ({b"retry-after": b"7"}, b'{"error": {"retry_after": 15}}', 7.0),
        ({}, b'{"error": {"code": 429, "limit_type": "input_tokens_per_minute", "retry_after": 15}}', 15.0),
        ({}, b'{"retry_after": 3600}', 60.0),
    ],
)
def test_a_stream_that_is_turned_away_waits_as_it_is_told(
    headers: dict[bytes, bytes], body: bytes, seconds: float
) -> None:
    answer = Answer()
    answer.status, answer.headers, answer.body = 429, headers, body
    assert pause_s(answer, 1, random.Random(1)) == seconds


class _Source:
    """An endpoint whose token changes and that once cannot be reached."""

    def __init__(self) -> None:
        self.asked = 0

    def headers(self) -> Mapping[str, str]:
        self.asked += 1
        if self.asked == 2:
            raise RunFailed("no new token: the network is down")
        return {"Authorization": f"Bearer token-{self.asked // 3}"}

    def lasts_s(self) -> float | None:
        return 0.1

    def look(self) -> Sight:
        return Sight(time.monotonic_ns(), "ready", True, 4.0)

    def advice(self, error: str, detail: str) -> str | None:
        return None


def test_the_watcher_gets_over_failures_and_hands_on_new_headers() -> None:
    source = _Source()
    watcher = Watcher(source, {"Authorization": "Bearer token-0"})
    watcher.start()
    try:
        wait_for(lambda: source.asked >= 4)
        news = watcher.news()
    finally:
        watcher.stop()
    problems = [x for x in news if isinstance(x, Sight) and x.problem]
    assert [p.problem for p in problems] == ["no new token: the network is down"]
    assert [x for x in news if isinstance(x, Sight) and x.capacity == 4.0]
    assert {"Authorization": "Bearer token-1"} in news
    assert {"Authorization": "Bearer token-0"} not in news


def test_renewed_headers_keep_the_old_ones_secret() -> None:
    target = Target("http://h", headers={"Authorization": "Bearer first-token", "X-Team": "blue-team"})
    target = target.renewed({"Authorization": "Bearer second-token", "X-Databricks-Workspace-Id": "1234567"})
    assert target.redacted("first-token second-token blue-team 1234567") == "*** *** *** 1234567"
    assert b"Bearer second-token" in target.head("/x")
    assert b"first" not in target.head("/x")
    assert "token" not in repr(target)


def test_what_the_endpoint_says_of_itself_counts() -> None:
    watched = Watch(tuple(Sight(at * 10**9, "ready", True, 4.0) for at in (1, 5, 12)))
    assert [s.now_ns for s in watched.during(Window(4 * 10**9, 10 * 10**9))] == [10**9, 5 * 10**9]


def _sight(at_s: int, **fields: Any) -> Sight:
    return Sight(at_s * 10**9, "ready", **({"ready": True, "capacity": 4.0, "version": 1} | fields))


@pytest.mark.parametrize(
    ("sights", "code", "says"),
    [
        ([_sight(1), _sight(5), _sight(9)], None, ""),
        ([_sight(1), _sight(5, capacity=8.0)], "endpoint_scaled", "from 4 to 8 .*seen 3 s into the window"),
        ([_sight(1), _sight(3, capacity=8.0), _sight(20, capacity=2.0)], "endpoint_scaled", "from 4 to 8"),
        ([_sight(0), _sight(1, capacity=8.0), _sight(5, capacity=8.0)], None, ""),
        ([_sight(3), _sight(5, version=2)], "endpoint_updated", "seen 3 s"),
        ([_sight(3), Sight(4 * 10**9, "not ready, config update", False)], "endpoint_not_ready", "not ready, config"),
        ([_sight(1), Sight(4 * 10**9, problem="no metrics: gone")], "endpoint_unseen", "no metrics: gone"),
        ([_sight(1), _sight(5, capacity=None)], None, ""),
    ],
)
def test_scaling_and_updates_show_in_the_verdict(sights: list[Sight], code: str | None, says: str) -> None:
    exchanges = [exchange(t * 20, [t * 20 + 10, t * 20 + 15], stream=0) for t in range(500)]
    trace, window = trace_of(exchanges), Window(2 * 10**9, 10 * 10**9)
    result = sum_up(Concurrency(1), trace, window, Health(), watch=Watch(tuple(sights)))
    found = {r.code: r.message for r in result.level.verdict.reasons if r.code.startswith("endpoint_")}
    assert list(found) == ([code] if code else [])
    if code:
        assert re.search(says, found[code])


def test_a_level_beyond_what_a_limit_sustains_is_told() -> None:
    exchanges = [exchange(t * 20, [t * 20 + 10, t * 20 + 15], stream=0) for t in range(500)]
    level = sum_up(Concurrency(1), trace_of(exchanges), Window(2 * 10**9, 10 * 10**9), Health()).level
    assert level.output_tokens_per_s.value == pytest.approx(100, rel=0.01)
    told = exceeding(_endpoint(limits=(RateLimit(3000, "output tokens", "minute", "stated"),)), [level])
    assert told == (
        "concurrency 1 gave 100 output tokens/s, more than 3,000 output tokens per minute (stated) lets through for "
        "long: the curve from there on holds for bursts"
    )
    assert exceeding(_endpoint(limits=(RateLimit(6000, "output tokens", "minute", "stated"),)), [level]) is None


def test_a_limit_ends_a_search_and_is_what_binds() -> None:
    asked: list[float] = []

    def measure(load: Load, enough: Enough | None = None) -> LevelResult:
        """Quick answers for up to six streams; of more, two of five requests are turned away."""
        n = int(load.value)
        asked.append(n)
        rows = []
        for k in range(60 * n):
            at, refused = 20.0 * (k // n), n > 6 and k % 5 < 2
            fields: dict[str, Any] = {"error": "http_429", "status": 429} if refused else {}
            rows.append(exchange(at + k % n, [] if refused else [at + 10, at + 15], stream=k % n, **fields))
        return sum_up(load, trace_of(rows), Window(0, 1200 * 10**6), Health())

    found = find(measure, "ttft p95 < 500ms")
    assert found.answer is not None
    assert found.answer.value == 6
    assert found.binds == "rate limit (429)"
    assert max(asked) <= 16
    assert all("http_429" in p.why for p in found.probes if not p.within)
    assert any(not p.within for p in found.probes)


def test_a_boundary_before_answers_that_never_came_is_found() -> None:
    scores = {4: 0.2, 8: 0.4, 12: np.inf, 16: np.inf}
    readings = [read(x, [Condition("ttft p95", np.full(40, y), 0.95, 500.0)], x) for x, y in scores.items()]
    belief = believe(readings)
    assert np.isfinite(belief.draws).all()
    assert 8 <= belief.middle <= 12
