"""The notebook, executed by a real kernel against the embedded endpoint; and the bundle that runs it as a job."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import msgspec
import pytest
from rich.console import Console

import pacemark
from pacemark.errors import BadInput, PacemarkError
from pacemark.pace import Concurrency
from pacemark.simulator import serving
from support import samples
from support.needed import late, needed

nbformat = late("nbformat")
nbclient = late("nbclient")
needed("ipykernel")

ROOT = Path(__file__).resolve().parents[2]
NOTEBOOK = ROOT / "notebooks" / "benchmark_llm_endpoint.ipynb"
BUNDLE = ROOT / "examples" / "bundle"

QUICK = {
    "PACEMARK_INPUT_TOKENS": "64", "PACEMARK_OUTPUT_TOKENS": "16", "PACEMARK_PARALLEL_REQUESTS": "1,4,16",
    "PACEMARK_DURATION": "2", "PACEMARK_SEARCH_SECONDS": "15", "PACEMARK_BUDGET": "ttft p95 < 2s, tpot p95 < 500ms",
}  # fmt: skip


@pytest.fixture(scope="module")
def executed(tmp_path_factory: pytest.TempPathFactory) -> tuple[Any, Path]:
    """The notebook after a run from top to bottom, and the folder that was asked to hold the results."""
    results = tmp_path_factory.mktemp("volume")
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    with pytest.MonkeyPatch.context() as patch:
        for name, value in (QUICK | {"PACEMARK_RESULTS": str(results)}).items():
            patch.setenv(name, value)
        patch.setenv("JUPYTER_PLATFORM_DIRS", "1")
        patch.delenv("PACEMARK_ENDPOINT", raising=False)
        client = nbclient.NotebookClient(notebook, timeout=240, kernel_name="python3")
        client.execute(cwd=str(tmp_path_factory.mktemp("work")))
    return notebook, results


def cell(notebook: Any, text: str) -> Any:
    """The one code cell with that text in it."""
    (found,) = [c for c in notebook.cells if c.cell_type == "code" and text in c.source]
    return found


def shown(notebook: Any) -> Any:
    """The cell that shows the sweep and does nothing else."""
    return next(c for c in notebook.cells if c.source == "swept")


def printed(cell: Any) -> str:
    return "".join(output.text for output in cell.outputs if output.output_type == "stream")


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # of the packages that run the kernel
@pytest.mark.timeout(400)
class TestExecution:
    def test_the_endpoint_is_the_embedded_one(self, executed: tuple[Any, Path]) -> None:
        assert "'sim:demo'" in str(cell(executed[0], "DEFAULTS").outputs)
        assert "streams              True" in printed(cell(executed[0], "pacemark.check"))

    def test_progress_is_shown_while_it_runs(self, executed: tuple[Any, Path]) -> None:
        lines = printed(cell(executed[0], "swept = ")).splitlines()
        head = next(n for n, line in enumerate(lines) if line.split()[:2] == ["concurrency", "tok/s"])
        assert [line.split()[0] for line in lines[head + 1 : head + 4]] == ["1", "4", "16"]

    def test_the_curve_is_drawn(self, executed: tuple[Any, Path]) -> None:
        (output,) = shown(executed[0]).outputs
        (kind,) = [kind for kind in output.data if kind.startswith("application/vnd.vegalite")]
        rows = output.data[kind]["datasets"][output.data[kind]["data"]["name"]]
        assert {row["load"] for row in rows} == {"concurrency 1", "concurrency 4", "concurrency 16"}
        assert "<svg" in output.data["text/html"]
        assert "output tokens/s" in output.data["text/plain"]

    def test_what_is_shown_is_light(self, executed: tuple[Any, Path]) -> None:
        assert len(shown(executed[0]).outputs[0].data["text/html"]) < 200_000

    def test_it_can_be_rendered(self, executed: tuple[Any, Path]) -> None:
        import altair
        import vl_convert

        (output,) = shown(executed[0]).outputs
        (chart,) = [data for kind, data in output.data.items() if kind.startswith("application/vnd.vegalite")]
        version = ".".join(altair.SCHEMA_VERSION.removeprefix("v").split(".")[:2])
        assert vl_convert.vegalite_to_png(chart, vl_version=version).startswith(b"\x89PNG")

    def test_the_table_has_a_row_per_level(self, executed: tuple[Any, Path]) -> None:
        (output,) = cell(executed[0], "swept.to_pandas").outputs
        assert output.data["text/html"].count("<tr") == 1 + 3

    def test_the_operating_points_are_named(self, executed: tuple[Any, Path]) -> None:
        said = printed(cell(executed[0], "print(swept.answer)"))
        assert said.startswith(("Recommended (", "Doubtful ("))  # the latter where this machine was too busy
        assert "output tokens/s" in said

    def test_the_search_has_an_answer(self, executed: tuple[Any, Path]) -> None:
        said = " ".join(printed(cell(executed[0], "pacemark.find")).split())
        assert "(budget search): concurrency" in said
        assert "is the most that meets" in said

    def test_tokens_have_a_price(self, executed: tuple[Any, Path]) -> None:
        priced = cell(executed[0], "pacemark.sweep(target, **grid")
        said = " ".join(printed(priced).split())
        assert "1,000 more input tokens add" in said
        assert "each more output token adds" in said
        assert any("text/html" in output.get("data", {}) for output in priced.outputs)

    def test_the_results_are_where_they_were_asked_to_be(self, executed: tuple[Any, Path]) -> None:
        runs = [pacemark.load(path) for path in sorted(executed[1].iterdir())]
        assert len(runs) == 3
        assert all((run.path / "report.html").is_file() for run in runs)
        assert sum(bool(run.summary.find) for run in runs) == 1


def page_cell(target: str, options: dict[str, Any], face: Any = pacemark) -> tuple[list[Any], str]:
    """The cell that measures as Databricks' notebook does, done: the runs that it made, and what it printed."""
    out = io.StringIO()
    place: dict[str, Any] = {
        "given": {"page_notebook": "yes"}, "target": target, "options": options, "runs": [], "pacemark": face,
        "Console": Console, "sys": SimpleNamespace(stdout=out),
    }  # fmt: skip
    exec(cell(nbformat.read(NOTEBOOK, as_version=4), "page_rows").source, place)
    return place["runs"], out.getvalue()


def table(said: str) -> list[list[str]]:
    """The rows that it printed, cell by cell."""
    return [cells for line in said.splitlines() if (cells := line.split()) and cells[0].isdigit()]


class TestPageCell:
    def known(self, latencies_ms: dict[int, float], *, refuses_one: bool = False) -> tuple[list[dict[str, Any]], str]:
        """What it asks for, and what it prints, of an endpoint whose whole answers take so long at so many in
        parallel, and whose answers of one token take 20 ms."""
        asked: list[dict[str, Any]] = []

        def run(target: str, **options: Any) -> Any:
            asked.append(options)
            parallel, output = options["concurrency"], options["output_tokens"]
            if refuses_one and output == 1:
                raise BadInput("Could not finish the message because max_tokens was reached")
            ms = (20.0, 20.0) if output == 1 else (latencies_ms[parallel], latencies_ms[parallel])
            level = samples.level(Concurrency(parallel), tokens_per_s=1, ttft_ms=(1, 2), tpot_ms=(1, 2), latency_ms=ms)
            return SimpleNamespace(levels=[msgspec.structs.replace(level, input_tokens=2048, output_tokens=output)])

        face = SimpleNamespace(run=run, PacemarkError=PacemarkError)
        runs, said = page_cell("databricks:e", {"duration": 9.0, "out": "here"}, face)
        assert len(runs) == len(asked) // (2 if refuses_one else 1)
        return asked, said

    def test_its_lengths_loads_and_requests_are_that_notebooks(self) -> None:
        asked, said = self.known({1: 2560, 2: 2560, 4: 2560, 8: 2560})
        assert [(x["concurrency"], x["requests"]) for x in asked[::2]] == [(1, 8), (2, 10), (4, 20), (8, 40)]
        assert [x["output_tokens"] for x in asked] == [256, 1] * 4
        assert {(x["input_tokens"], x["out"], "duration" in x) for x in asked} == {(2048, "here", False)}
        assert all(x["stream"] is False for x in asked if x["output_tokens"] == 1)
        assert table(said)[0] == ["1", "2.56", "900", "-", "0.0200", "9.96"]

    def test_it_stops_where_one_more_step_gives_less_than_a_tenth(self) -> None:
        asked, said = self.known({1: 2560, 2: 2560, 4: 4800, 8: 4800})
        assert [x["concurrency"] for x in asked[::2]] == [1, 2, 4]
        assert "4 (it stops)" in said

    def test_a_model_that_refuses_one_token_has_no_ttft_of_that_kind(self) -> None:
        asked, said = self.known({1: 2560, 2: 2560, 4: 2560, 8: 2560}, refuses_one=True)
        assert len(asked) == 8
        assert "there are none here" in said

    @pytest.mark.slow
    @pytest.mark.filterwarnings("ignore")
    def test_over_real_sockets(self, tmp_path: Path) -> None:
        """2,048 tokens in and 256 out, on a timeline that no load changes: each step doubles the throughput."""
        with serving("fixed", ttft_ms=20, itl_ms=1) as served:
            runs, said = page_cell(served.url, {"duration": 9.0, "out": tmp_path, "workers": 1})
        rows = table(said)
        assert [row[0] for row in rows] == ["1", "2", "4", "8"]
        latency_s, rate, ttft_s, tpot_ms = (float(rows[0][n].replace(",", "")) for n in (1, 2, 4, 5))
        assert rate == pytest.approx((2048 + 256) / latency_s, rel=0.02)
        assert latency_s == pytest.approx(ttft_s + 255 * tpot_ms / 1e3, rel=0.02)
        assert ttft_s >= 0.02
        assert "it stops" not in said
        assert len(runs) == 8
        assert {round(run.levels[0].input_tokens) for run in runs} <= set(range(2000, 2100))


class TestSource:
    def test_it_holds_no_outputs(self) -> None:
        notebook = nbformat.read(NOTEBOOK, as_version=4)
        nbformat.validate(notebook)
        code = [c for c in notebook.cells if c.cell_type == "code"]
        assert [c.outputs for c in code] == [[]] * len(code)
        assert {c.execution_count for c in code} == {None}

    def test_widgets_give_the_parameters_on_databricks(self) -> None:
        notebook = nbformat.read(NOTEBOOK, as_version=4)
        place: dict[str, Any] = {"dbutils": Dbutils({"endpoint": "my-llm", "parallel_requests": "1, 2,8"})}
        exec(cell(notebook, "DEFAULTS").source, place)
        assert place["target"] == "databricks:my-llm"
        assert place["parallel_requests"] == [1, 2, 8]
        assert place["dbutils"].widgets.defaults["output_tokens"] == "64"

    def test_rows_of_a_file_or_a_table_take_the_place_of_made_up_prompts(self) -> None:
        notebook = nbformat.read(NOTEBOOK, as_version=4)

        class Spark:
            @staticmethod
            def table(name: str) -> str:
                return f"the rows of {name}"

        for data, rows in (("/Volumes/a/b/c.jsonl", "/Volumes/a/b/c.jsonl"), ("a.b.c", "the rows of a.b.c")):
            place: dict[str, Any] = {"dbutils": Dbutils({"endpoint": "my-llm", "data": data}), "spark": Spark}
            exec(cell(notebook, "DEFAULTS").source, place)
            assert place["traffic"] == {"data": rows, "output_tokens": 64}


class Dbutils:
    """A stand-in for what only a Databricks notebook has: widgets, some of them filled in."""

    def __init__(self, given: dict[str, str]) -> None:
        self.given = given
        self.defaults: dict[str, str] = {}
        self.widgets = self

    def text(self, name: str, default: str) -> None:
        self.defaults[name] = default

    def get(self, name: str) -> str:
        return self.given.get(name, self.defaults[name])


class TestBundle:
    """There is no Databricks CLI to validate it with here, so the job is read by the SDK's own classes."""

    def test_the_job_is_one_that_the_jobs_api_knows(self) -> None:
        yaml = needed("yaml")
        jobs = needed("databricks.sdk.service.jobs")
        (job,) = yaml.safe_load((BUNDLE / "resources" / "benchmark.job.yml").read_text())["resources"]["jobs"].values()
        assert jobs.JobSettings.from_dict(job).as_dict() == job  # a field it does not know would be lost

    def test_its_environment_is_pinned_and_holds_the_wheel(self) -> None:
        (job,) = self.resource()["resources"]["jobs"].values()
        (environment,) = job["environments"]
        assert job["tasks"][0]["environment_key"] == environment["environment_key"]
        assert int(environment["spec"]["environment_version"]) >= 3  # the first whose numpy will do
        wheels, _ = environment["spec"]["dependencies"]
        place = (BUNDLE / "resources" / wheels).resolve()
        assert (place.parent, place.name) == (ROOT / "dist", "*.whl")
        bundle = needed("yaml").safe_load((BUNDLE / "databricks.yml").read_text())
        assert place.parent in [(BUNDLE / path).resolve() for path in bundle["sync"]["paths"]]

    def resource(self) -> Any:
        return needed("yaml").safe_load((BUNDLE / "resources" / "benchmark.job.yml").read_text())

    @pytest.mark.slow
    def test_the_classes_of_the_clis_schema_take_it(self, tmp_path: Path) -> None:
        """`databricks-bundles` is made from the schema of the Databricks CLI and refuses what that does not know."""
        install = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--target", str(tmp_path)]
        if subprocess.run([*install, "databricks-bundles"], check=False, timeout=200).returncode:
            pytest.skip("no registry to install databricks-bundles from")
        read = (
            "import json, sys; from databricks.bundles.jobs import Job; job = json.load(sys.stdin); "
            "print(json.dumps(Job.from_dict(job).as_dict()))"
        )
        (job,) = self.resource()["resources"]["jobs"].values()
        for given, taken in ((job, True), (job | {"environment": []}, False)):
            done = subprocess.run(
                [sys.executable, "-c", read], input=json.dumps(given), capture_output=True, text=True, check=False,
                env=os.environ | {"PYTHONPATH": str(tmp_path)}, timeout=60,
            )  # fmt: skip
            assert (done.returncode == 0) == taken, done.stderr
            assert not taken or json.loads(done.stdout) == job

    def test_it_runs_the_notebook_with_parameters_that_it_has(self) -> None:
        yaml = needed("yaml")
        resource = BUNDLE / "resources" / "benchmark.job.yml"
        (job,) = yaml.safe_load(resource.read_text())["resources"]["jobs"].values()
        task = job["tasks"][0]["notebook_task"]
        notebook = (resource.parent / task["notebook_path"]).resolve()
        assert notebook == NOTEBOOK
        place: dict[str, Any] = {}
        exec(cell(nbformat.read(NOTEBOOK, as_version=4), "DEFAULTS").source, place)
        assert set(task["base_parameters"]) == set(place["DEFAULTS"])
        bundle = yaml.safe_load((BUNDLE / "databricks.yml").read_text())
        assert NOTEBOOK.parent in [(BUNDLE / path).resolve() for path in bundle["sync"]["paths"]]
        used = [part.split("}")[0] for part in json.dumps(job).split("${var.")[1:]]
        assert set(used) == set(bundle["variables"])
