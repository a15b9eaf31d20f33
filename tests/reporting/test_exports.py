"""A run and a gate for other tools: OpenMetrics, JUnit, Markdown, and the levels as a table."""

from __future__ import annotations

import csv
from pathlib import Path
from xml.etree import ElementTree

import msgspec
import pytest
from prometheus_client.openmetrics.parser import text_string_to_metric_families

from pacemark.answers.comparison import Outcome
from pacemark.reporting import junit
from pacemark.reporting.markdown import cell, run_in_markdown
from pacemark.reporting.openmetrics import openmetrics
from pacemark.summary import Held
from support.inside import inside
from support.samples import sweep, troubled


def test_openmetrics_holds_every_figure_with_its_interval() -> None:
    families = {f.name: f for f in text_string_to_metric_families(openmetrics(sweep()))}  # type: ignore[no-untyped-call]
    level = sweep().levels[3]
    found = {
        (sample.labels["statistic"], sample.labels["bound"]): sample.value
        for sample in families["pacemark_ttft_seconds"].samples
        if sample.labels["load"] == "concurrency 8"
    }
    assert level.ttft_ms.p95.value is not None
    assert found["p95", "value"] == pytest.approx(level.ttft_ms.p95.value / 1e3)
    assert found["p95", "low"] <= found["p95", "value"] <= found["p95", "high"]
    verdicts = families["pacemark_verdict"].samples
    assert sum(sample.value for sample in verdicts) == len(sweep().levels)


def cases(text: str) -> dict[str, list[str]]:
    """What JUnit says of each case: the kinds of its outcome."""
    root = ElementTree.fromstring(text)
    assert root[0].attrib["tests"] == str(len(root[0]))
    return {c.attrib["name"]: [e.tag for e in c if e.tag != "system-out"] for c in root[0]}


def test_a_level_fails_where_it_is_invalid_or_misses_the_budget() -> None:
    whole = sweep()
    marks = [Held("met", "ttft p95", 0.5, "it meets it"), Held("missed", "ttft p95", 2.0, "twice < as long\x07")]
    marks.append(Held("open", "ttft p95", 1.0, "too close to tell"))
    levels = [msgspec.structs.replace(x, budget=m) for x, m in zip(whole.levels, marks, strict=False)]
    text = junit.of_run(msgspec.structs.replace(whole, levels=levels))
    assert list(cases(text).values()) == [[], ["failure"], ["skipped"]]
    bad = troubled()
    invalid = [x.verdict.status == "invalid" for x in bad.levels]
    assert any(invalid)
    assert [kinds == ["failure"] for kinds in cases(junit.of_run(bad)).values()] == invalid


def test_a_gate_fails_where_a_condition_does_and_where_nobody_knows() -> None:
    outcomes = [
        Outcome(f"c{n}", status, [], why="why")  # type: ignore[arg-type]
        for n, status in enumerate(("passed", "failed", "undecided"))
    ]
    assert cases(junit.of_gate("x", outcomes)) == {"c0": [], "c1": ["failure"], "c2": ["failure"]}
    assert cases(junit.of_gate("x", outcomes, "pass")) == {"c0": [], "c1": ["failure"], "c2": ["skipped"]}


def test_markdown_cannot_be_broken_by_what_was_measured() -> None:
    whole = msgspec.structs.replace(sweep(), target={"model": "a|b <script>", "url": "http://x/v1"})
    text = run_in_markdown(whole, "Recommended: concurrency 16")
    rows = [line for line in text.splitlines() if line.startswith("|")]
    assert len(rows) == 2 + len(whole.levels)
    assert len({line.replace("\\|", "").count("|") for line in rows}) == 1
    assert "<script>" not in text
    assert cell("a\nb") == "a b"


def test_export_writes_each_form(stored_run: Path, tmp_path: Path) -> None:
    for name in ("openmetrics", "junit", "markdown", "csv"):
        done = inside("export", stored_run, "--format", name, "--rows", "levels", "--output", tmp_path / name)
        assert done.returncode == 0, done.stderr
    with (tmp_path / "csv").open() as file:
        rows = list(csv.DictReader(file))
    assert rows
    assert float(rows[0]["ttft_ms_p50"]) > 0
    assert cases((tmp_path / "junit").read_text())
    done = inside("export", stored_run, "--rows", "columns")
    assert (done.returncode, done.stderr.count("\n")) == (2, 1)


def test_compare_writes_junit(stored_run: Path, tmp_path: Path) -> None:
    file = tmp_path / "gate.xml"
    done = inside("compare", stored_run, stored_run, "--fail-if", "ttft p50 > +400%", "--junit", file)
    assert done.returncode in (0, 4), done.stderr
    assert cases(file.read_text()).keys() == {"ttft p50 > +400%"}
