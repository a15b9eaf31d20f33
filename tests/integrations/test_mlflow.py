"""A run in MLflow: the real client, a file store and a database, and everything read back."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

import pacemark
from pacemark.api import Run
from pacemark.errors import BadInput
from pacemark.integrations.mlflow import log, metrics_of, parameters_of
from pacemark.summary import Summary
from support.cli_tools import pacemark as call
from support.needed import late
from support.samples import found, known, open_loop, sweep, troubled

mlflow = late("mlflow")
pytestmark = pytest.mark.xdist_group("mlflow")  # the tracking URI is one for the whole process


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    os.environ["PACEMARK_TEST_KEY"] = "sk-not-for-anyone"
    try:
        return pacemark.sweep(
            "sim:demo", concurrency=[1, 3], duration=0.5, input_tokens=32, output_tokens=8, seed=2,
            out=tmp_path_factory.mktemp("runs"), api_key_env="PACEMARK_TEST_KEY",
        )  # fmt: skip
    finally:
        del os.environ["PACEMARK_TEST_KEY"]


@pytest.fixture(params=["file", pytest.param("sqlite", marks=pytest.mark.slow)])  # it migrates a new database
def store(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """A tracking store. MLflow 3 keeps its file store for those who ask for it by MLFLOW_ALLOW_FILE_STORE."""
    uri = f"file://{tmp_path / 'mlruns'}" if request.param == "file" else f"sqlite:///{tmp_path / 'mlflow.db'}"
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    monkeypatch.chdir(tmp_path)
    yield from _tracked(uri)


@pytest.fixture
def file_store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    yield from _tracked(f"file://{tmp_path / 'mlruns'}")


def _tracked(uri: str) -> Iterator[str]:
    mlflow.set_tracking_uri(uri)
    try:
        yield uri
    finally:
        mlflow.set_tracking_uri(None)


def written(summary: Summary, path: Path) -> Path:
    """A run folder with the summary alone."""
    path.mkdir()
    (path / "summary.json").write_bytes(msgspec.json.encode(summary))
    return path


@pytest.mark.slow(shared=True)
def test_a_benchmark_is_one_run_and_can_be_read_back(run: Run, store: str, tmp_path: Path) -> None:
    name = pacemark.log_to_mlflow(run)
    client = mlflow.MlflowClient()
    (logged,) = client.search_runs(["0"])
    assert logged.info.run_id == name
    assert logged.info.run_name == run.path.name
    assert logged.info.status == "FINISHED"
    assert logged.data.params["target.model"] == "demo-8b"
    assert logged.data.params["workload.input_tokens"] == "32"
    assert logged.data.params["settings.duration_s"] == "0.5"
    history = client.get_metric_history(name, "output_tokens_per_s")
    expected = [(level.load.value, level.output_tokens_per_s.value) for level in run.levels]
    assert [(m.step, m.value) for m in history] == expected
    ttft = {m.step: m.value for m in client.get_metric_history(name, "ttft_ms.p50")}
    assert ttft == {level.load.value: level.ttft_ms.p50.value for level in run.levels}
    assert logged.data.tags["mlflow.note.content"] == run.answer
    files = {item.path for item in client.list_artifacts(name)}
    assert files == {"report.html", "summary.json", "run.json", "run.db"}
    copy = tmp_path / "copy"
    copy.mkdir()
    for file in files:
        client.download_artifacts(name, file, str(copy))
    assert pacemark.load(copy).summary == run.summary
    anew = [level.ttft_ms for level in pacemark.report(copy).levels]
    assert anew == [level.ttft_ms for level in run.levels]


@pytest.mark.slow(shared=True)
def test_the_experiment_may_be_named(run: Run, file_store: str) -> None:
    name = pacemark.log_to_mlflow(run, experiment="endpoints")
    client = mlflow.MlflowClient()
    experiment = client.get_experiment_by_name("endpoints")
    assert client.get_run(name).info.experiment_id == experiment.experiment_id


def test_within_an_active_run_it_is_a_child(run: Run, file_store: str) -> None:
    with mlflow.start_run() as parent:
        name = pacemark.log_to_mlflow(run)
        assert mlflow.active_run().info.run_id == parent.info.run_id
    assert mlflow.MlflowClient().get_run(name).data.tags["mlflow.parentRunId"] == parent.info.run_id


def test_no_key_is_logged(run: Run, file_store: str, tmp_path: Path) -> None:
    pacemark.log_to_mlflow(run)
    files = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert len(files) > 50
    assert not [path for path in files if b"sk-not-for-anyone" in path.read_bytes()]


@pytest.mark.parametrize(
    ("record", "status"), [({"interrupted": True}, "KILLED"), ({"failure": "all requests failed"}, "FAILED")]
)
def test_a_run_that_did_not_end_well_says_so(
    record: dict[str, Any], status: str, file_store: str, tmp_path: Path
) -> None:
    summary = msgspec.structs.replace(troubled(), run=troubled().run | record)
    name = log(summary, written(summary, tmp_path / "run"))
    logged = mlflow.MlflowClient().get_run(name)
    assert logged.info.status == status
    assert logged.data.tags["pacemark.verdict"] == "invalid"


class TestMetrics:
    def test_the_step_is_the_concurrency(self) -> None:
        rows = list(metrics_of(sweep()))
        assert [step for name, _, step in rows if name == "ttft_ms.p95"] == [1, 2, 4, 8, 16, 32, 64]
        low = {step: value for name, value, step in rows if name == "ttft_ms.p95.low"}
        assert low[8] == known(sweep().levels[3].ttft_ms.p95.low)

    def test_in_open_loop_it_is_the_number_of_the_level(self) -> None:
        rows = list(metrics_of(open_loop()))
        assert [step for name, _, step in rows if name == "requests_per_s"] == list(range(1, 8))
        assert [value for name, value, _ in rows if name == "load"] == [1.0, 2.5, 5.0, 7.5, 10.0, 11.5, 14.0]

    def test_what_is_not_known_is_left_out(self) -> None:
        assert all(isinstance(value, float) and value == value for _, value, _ in metrics_of(troubled()))
        assert not [row for row in metrics_of(troubled()) if row[0] == "ttft_ms.p50" and row[2] == 128]

    def test_the_answer_of_a_search(self) -> None:
        rows = {name: value for name, value, _ in metrics_of(found())}
        assert (rows["find.value"], rows["find.low"], rows["find.high"]) == (26.0, 24.0, 27.0)

    def test_parameters_are_flat_and_short(self) -> None:
        long = msgspec.structs.replace(sweep(), workload={"extra": {"prompt": "x" * 9000}})
        found = parameters_of(long)
        assert len(found["workload.extra.prompt"]) == 6000
        assert found["host.cpus"] == "2"


@pytest.mark.slow(shared=True)
def test_the_command_line_logs_a_run(file_store: str, tmp_path: Path) -> None:
    env = {"MLFLOW_TRACKING_URI": file_store, "MLFLOW_ALLOW_FILE_STORE": "true"}
    done = call(
        "run", "sim:demo", "--concurrency", 2, "--duration", 0.5, "--output-tokens", 8, "--input-tokens", 32,
        "--out", tmp_path / "runs", "--mlflow", "--json", env=env, cwd=tmp_path, timeout=120,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert msgspec.json.decode(done.stdout)["schema"] == "pacemark/summary/1"
    name = done.stderr.strip().splitlines()[-1].removeprefix("MLflow run: ")
    assert mlflow.MlflowClient().get_run(name).data.metrics["load"] == 2.0


@pytest.mark.slow(shared=True)
def test_a_store_that_does_not_take_it_is_one_line(run: Run, tmp_path: Path) -> None:
    env = {"MLFLOW_TRACKING_URI": f"file://{tmp_path}", "MLFLOW_ALLOW_FILE_STORE": "false"}
    done = call("report", run.path, "--mlflow", env=env, cwd=tmp_path, timeout=120)
    assert done.returncode == 3
    assert done.stderr.startswith("pacemark: MLflow did not take the run (")
    assert f"pacemark report {run.path} --mlflow" in done.stderr
    assert done.stderr.count("\n") == 1


def test_without_mlflow_nothing_is_measured(monkeypatch: pytest.MonkeyPatch, run: Run) -> None:
    monkeypatch.setitem(sys.modules, "mlflow", None)
    monkeypatch.setattr("pacemark.integrations.mlflow.find_spec", lambda name: None)
    with pytest.raises(BadInput, match="pip install mlflow-skinny"):
        pacemark.log_to_mlflow(run)
