"""A run as a table: the same columns in pandas, Arrow and Spark, and for every run."""

from __future__ import annotations

import os
import re
import shutil
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

import pacemark
from pacemark.api import Run
from pacemark.errors import BadInput
from pacemark.runs import tables
from pacemark.summary import Find
from support.samples import found, known, open_loop, single, sweep, troubled

pytestmark = pytest.mark.xdist_group("export")


def of(summary: Any) -> Run:
    return Run(summary, Path("runs/20260302T140511Z-demo"))


@pytest.fixture
def run(stored_run: Path) -> Run:
    return pacemark.load(stored_run)


class TestLevels:
    def test_a_row_says_what_the_level_says(self) -> None:
        table = tables.levels(sweep(), "a-run")
        level = sweep().levels[3]
        row = {name: values[3] for name, values in table.columns.items()}
        assert (row["run"], row["load_kind"], row["load_value"]) == ("a-run", "concurrency", 8.0)
        assert row["ttft_ms_p95"] == level.ttft_ms.p95.value
        assert row["ttft_ms_p95_low"] == level.ttft_ms.p95.low
        assert row["output_tokens_per_s_high"] == level.output_tokens_per_s.high
        assert (row["asked_input_tokens"], row["asked_output_tokens"]) == (512, 128)
        assert row["verdict"] == "valid"

    def test_the_columns_are_those_of_every_run(self) -> None:
        kinds = [tables.levels(x(), "r").types for x in (sweep, troubled, single, open_loop, found)]
        assert all(types == kinds[0] for types in kinds)
        assert len(kinds[0]) == 101

    def test_every_value_is_of_its_columns_type(self) -> None:
        for summary in (sweep(), troubled(), single(), open_loop()):
            table = tables.levels(summary, "r")
            for name, values in table.columns.items():
                assert all(value is None or isinstance(value, table.types[name]) for value in values), name

    def test_an_open_loop_says_how_requests_arrive(self) -> None:
        columns = tables.levels(open_loop(), "r").columns
        assert set(columns["arrivals"]) == {"poisson"}
        assert columns["load_value"][1] == 2.5

    def test_doubts_and_errors_are_words(self) -> None:
        columns = tables.levels(troubled(), "r").columns
        assert columns["reasons"][2].startswith("Throughput fell by 6%")
        assert columns["errors"][3] == '{"timeout":11,"http_429":180}'


class TestForms:
    def test_pandas(self) -> None:
        frame = of(troubled()).to_pandas()
        assert frame["load_value"].tolist() == [1.0, 4.0, 16.0, 64.0, 128.0]
        assert frame["ttft_ms_p50"].isna().tolist() == [False] * 4 + [True]
        assert frame["failed"].tolist() == [0, 0, 3, 191, 512]

    def test_arrow(self) -> None:
        table = of(troubled()).to_arrow()
        assert table.schema.field("ttft_ms_p50").type == "double"
        assert table.schema.field("arrivals").type == "string"  # also where all are null
        assert table.column("ttft_ms_p50").to_pylist()[-1] is None
        assert table.schema == of(open_loop()).to_arrow().schema

    def test_a_row_per_request(self, run: Run) -> None:
        table = run.to_arrow("requests").to_pydict()
        assert len(table["index"]) == sum(level.requests.completed for level in run.levels)
        assert set(table["load_value"]) == {1.0, 2.0, 4.0, 8.0}
        frame = run.to_pandas("requests")
        assert frame[frame["in_window"]].groupby("load_value")["output_tokens"].min().tolist() == [8] * 4

    def test_rows_of_another_kind(self, run: Run) -> None:
        with pytest.raises(BadInput, match="levels or requests"):
            run.to_pandas("tokens")  # type: ignore[arg-type]

    @pytest.mark.parametrize(
        ("form", "package", "advice"),
        [("to_pandas", "pandas", "pip install pandas"), ("to_arrow", "pyarrow", "pip install pyarrow")],
    )
    def test_what_is_missing_is_named(
        self, form: str, package: str, advice: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setitem(sys.modules, package, None)
        with pytest.raises(BadInput, match=advice):
            getattr(of(sweep()), form)()

    def test_without_spark(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setitem(sys.modules, "pyspark", None)
        monkeypatch.setitem(sys.modules, "pyspark.sql", None)
        with pytest.raises(BadInput, match="needs pyspark"):
            of(sweep()).to_spark()

    def test_the_session_is_found_from_whichever_thread_asks(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """`getActiveSession` is of the thread that made it; a widget's or a watcher's thread is another."""
        session = SimpleNamespace(createDataFrame=lambda rows, schema: (rows, schema))
        builder = SimpleNamespace(getOrCreate=lambda: session)
        there = SimpleNamespace(builder=builder, getActiveSession=lambda: None)
        monkeypatch.setitem(sys.modules, "pyspark", ModuleType("pyspark"))
        monkeypatch.setitem(sys.modules, "pyspark.sql", SimpleNamespace(SparkSession=there))
        with ThreadPoolExecutor(1) as other:
            rows, schema = other.submit(of(sweep()).to_spark).result()
        assert schema.startswith("`run` string")
        assert len(rows) == len(sweep().levels)


class TestSpark:
    """The real Spark. It is 490 MB and needs Java, so it is not among the test dependencies: pip install pyspark."""

    @pytest.fixture(scope="class")
    @staticmethod
    def session(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
        sql = pytest.importorskip("pyspark.sql", reason="needs pyspark, which is too large to ask for here")
        if shutil.which("java") is None:
            pytest.skip("Spark needs Java")
        os.environ.setdefault("SPARK_LOCAL_IP", "127.0.0.1")
        warehouse = tmp_path_factory.mktemp("warehouse")
        builder = sql.SparkSession.builder.master("local[1]").config("spark.sql.warehouse.dir", str(warehouse))
        builder = builder.config("spark.ui.enabled", "false").config("spark.sql.shuffle.partitions", "1")
        session = builder.config("spark.driver.bindAddress", "127.0.0.1").getOrCreate()
        yield session
        session.stop()

    @pytest.mark.filterwarnings("ignore")
    def test_tables_of_any_run_can_be_added_to(self, session: Any) -> None:
        for summary in (sweep(), troubled(), open_loop()):
            of(summary).to_spark().write.mode("append").saveAsTable("benchmarks")
        rows = session.sql("SELECT count(*) n, count(ttft_ms_p95) known FROM benchmarks").collect()[0]
        assert (rows["n"], rows["known"]) == (19, 18)
        best = session.sql("SELECT max(output_tokens_per_s) FROM benchmarks WHERE verdict = 'valid'").collect()[0][0]
        valid = [x for s in (sweep(), open_loop(), troubled()) for x in s.levels if x.verdict.status == "valid"]
        assert best == max(known(x.output_tokens_per_s.value) for x in valid)

    @pytest.mark.filterwarnings("ignore")
    def test_a_row_per_request(self, session: Any, run: Run) -> None:
        frame = run.to_spark("requests", session)
        assert frame.count() == sum(level.requests.completed for level in run.levels)
        assert dict(frame.dtypes)["ttft_ms"] == "double"


class TestNotebookDisplay:
    def test_a_run_shows_its_chart_without_a_call(self) -> None:
        bundle = of(sweep())._repr_mimebundle_()
        (kind,) = [kind for kind in bundle if kind.startswith("application/vnd.vegalite")]
        assert bundle[kind]["layer"]
        assert bundle["text/plain"] == of(sweep()).answer

    def test_the_html_needs_no_script_and_no_network(self) -> None:
        page = of(troubled())._repr_mimebundle_()["text/html"]
        assert "<svg" in page
        assert "<script" not in page
        assert not [part for part in page.split('"') if part.startswith("http") and "www.w3.org" not in part]

    @pytest.mark.slow(shared=True)
    def test_databricks_display_gets_the_same_html_and_it_is_light(self) -> None:
        for summary in (sweep(), troubled(), open_loop(), found()):
            page = of(summary)._repr_html_()
            bundled = of(summary)._repr_mimebundle_()["text/html"]
            assert re.sub(r"clip\d+", "", page) == re.sub(r"clip\d+", "", bundled)
            assert len(page) < 200_000
            assert not [word for word in ("<script", "<link", "@import", "<img", "<iframe") if word in page]

    def test_foreign_words_are_escaped(self) -> None:
        from msgspec.structs import replace

        summary = found()
        assert isinstance(summary.find, Find)
        bad = replace(summary, find=replace(summary.find, why="<script>alert(1)</script>"))
        assert "<script>" not in of(bad)._repr_mimebundle_()["text/html"]
