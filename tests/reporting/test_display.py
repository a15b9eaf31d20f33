"""What a Python session and a notebook show of results: without a network, and while a run goes on."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import altair as alt
import pytest

import pacemark as face
from pacemark.reporting.observing import observing
from pacemark.runs.run import Run
from support.needed import needed
from support.samples import sweep

NETWORK = re.compile(r"(src|href)=[\"']?https?:|<script")


def test_a_comparison_is_a_table(stored_run: Path) -> None:
    found = face.compare(stored_run, stored_run, fail_if=["ttft p50 > +5%"])
    shown: dict[str, Any] = found._repr_mimebundle_()
    html = shown["text/html"]
    assert html == found._repr_html_()
    assert "passed: ttft p50 &gt; +5%" in html
    assert html.count("<tr>") > 40
    assert "no difference shown" in html
    assert NETWORK.search(html) is None
    text = repr(found)
    assert text == shown["text/plain"]
    assert text.startswith("passed: ttft p50 > +5%")
    assert len(text.splitlines()) < 20
    assert max(map(len, text.splitlines())) <= 80


def test_a_chart_brings_its_drawing(tmp_path: Path) -> None:
    chart = Run(sweep(), tmp_path).plot()
    assert isinstance(chart, alt.LayerChart)
    shown: Any = chart._repr_mimebundle_()
    assert shown["text/html"].startswith("<svg")
    assert NETWORK.search(shown["text/html"]) is None
    assert any(kind.startswith("application/vnd.vegalite") for kind in shown)
    wider: Any = chart.properties(width=900)
    assert "<svg" in wider._repr_mimebundle_()["text/html"], "what is made of it is shown the same way"
    assert wider.to_dict()["width"] == 900


def test_where_nobody_looks_nothing_is_said(capfd: pytest.CaptureFixture[str]) -> None:
    with observing() as observe:
        assert observe.__name__ == "<lambda>"
    assert capfd.readouterr() == ("", "")


NOTEBOOK = (
    """
import pacemark
run = pacemark.sweep("sim:demo", concurrency=[1, 2], duration=1, input_tokens=16, output_tokens=4, out=OUT)
""",
    "run.plot()",
    "pacemark.compare(run.path, run.path)",
)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # of the packages that run the kernel
def test_a_saved_notebook_shows_the_rows_the_chart_and_the_table_offline(tmp_path: Path) -> None:
    nbformat, nbclient = needed("nbformat"), needed("nbclient")
    needed("ipykernel")
    cells = [nbformat.v4.new_code_cell(text.replace("OUT", repr(str(tmp_path)))) for text in NOTEBOOK]
    notebook = nbformat.v4.new_notebook(cells=cells)
    nbclient.NotebookClient(notebook, timeout=120, kernel_name="python3").execute(cwd=str(tmp_path))
    ran, plotted, compared = (cell.outputs for cell in notebook.cells)
    progress, curve = [output for output in ran if output.output_type == "display_data"]
    lines = progress.data["text/plain"].splitlines()
    row = next(n for n, line in enumerate(lines) if line.startswith("concurrency"))
    assert [line.split()[0] for line in lines[row + 1 : row + 3]] == ["1", "2"]
    assert "measuring" not in lines[-1]
    assert curve.data["text/html"].startswith("<svg")
    assert "<svg" in plotted[0].data["text/html"]
    assert "<table" in compared[0].data["text/html"]
    assert all(NETWORK.search(x[0].data["text/html"]) is None for x in (plotted, compared))


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # of the packages that run the kernel
def test_in_a_kernel_the_picture_of_a_run_grows_in_its_place(tmp_path: Path) -> None:
    manager = needed("jupyter_client.manager")
    needed("ipykernel")
    kernel, client = manager.start_new_kernel(cwd=str(tmp_path))
    messages: list[Any] = []
    try:
        short = "duration=1, input_tokens=16, output_tokens=4"
        code = f"import pacemark; run = pacemark.sweep('sim:demo', concurrency=[1, 2, 4], {short})"
        client.execute_interactive(code, timeout=120, output_hook=messages.append)
    finally:
        client.stop_channels()
        kernel.shutdown_kernel(now=True)
    shown = [m for m in messages if m["msg_type"] in ("display_data", "update_display_data")]
    assert [m["msg_type"] for m in shown].count("display_data") == 2, "one output for the rows, one for the curve"
    curves = [m["content"] for m in shown if any("vegalite" in kind for kind in m["content"]["data"])]
    assert len({content["transient"]["display_id"] for content in curves}) == 1
    sizes = [len({row["load"] for row in rows_of(content["data"])}) for content in curves]
    assert sizes == [1, 2, 3]
    assert "measuring" in str(shown)


def rows_of(bundle: dict[str, Any]) -> list[dict[str, Any]]:
    (spec,) = (value for kind, value in bundle.items() if "vegalite" in kind)
    return [row for rows in spec["datasets"].values() for row in rows if "load" in row]
