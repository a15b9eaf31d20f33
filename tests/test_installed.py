"""The wheel in clean environments, old and new, as a Databricks runtime would take it; and what the texts say of it."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from support.needed import needed

ROOT = Path(__file__).resolve().parents[1]
NOTEBOOK = ROOT / "notebooks" / "benchmark_llm_endpoint.ipynb"
TEXTS = [
    *ROOT.glob("*.md"),
    *ROOT.glob("docs/*.md"),
    *ROOT.glob("src/**/*.py"),
    *ROOT.glob("examples/**/*.yml"),
    NOTEBOOK,
]

QUICK = {
    "PACEMARK_INPUT_TOKENS": "32", "PACEMARK_OUTPUT_TOKENS": "8", "PACEMARK_PARALLEL_REQUESTS": "1,4",
    "PACEMARK_DURATION": "1", "PACEMARK_SEARCH_SECONDS": "5", "PACEMARK_BUDGET": "ttft p95 < 2s",
    "PACEMARK_LENGTH_GRID": "no",
}  # fmt: skip

EXECUTE = """
import sys, nbclient, nbformat
notebook = nbformat.read(sys.argv[1], as_version=4)
nbclient.NotebookClient(notebook, timeout=300, kernel_name="python3").execute()
nbformat.write(notebook, sys.argv[2])
"""


def quietly(*words: Any, timeout_s: float = 500, **how: Any) -> subprocess.CompletedProcess[str]:
    done = subprocess.run(
        [str(w) for w in words], capture_output=True, text=True, timeout=timeout_s, check=False, **how
    )
    assert done.returncode == 0, (done.stdout + done.stderr)[-3000:]
    return done


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("wheel")
    quietly(sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--wheel-dir", place, ROOT)
    (built,) = place.glob("pacemark-*.whl")
    return built


@pytest.mark.slow
def test_the_same_source_makes_the_same_wheel(tmp_path: Path) -> None:
    made = []
    for hours in (1, 2):
        source, out = tmp_path / "source", tmp_path / str(hours)
        shutil.copytree(ROOT / "src", source / "src", ignore=shutil.ignore_patterns("*.egg-info", "__pycache__"))
        for name in ("pyproject.toml", "README.md", "LICENSE"):
            shutil.copy(ROOT / name, source)
        for path in source.rglob("*.py"):
            os.utime(path, (1e9 + 3600 * hours, 1e9 + 3600 * hours))
        env = os.environ | {"SOURCE_DATE_EPOCH": "1700000000"}
        quietly(sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--wheel-dir", out, source, env=env)
        made.append(next(out.glob("*.whl")).read_bytes())
        shutil.rmtree(source)
    assert made[0] == made[1]


def test_the_container_runs_as_a_plain_user_with_pinned_versions() -> None:
    lines = (ROOT / "Containerfile").read_text().splitlines()
    user = next(n for n, line in enumerate(lines) if line.startswith("USER "))
    assert lines[user] == "USER 10001:10001"
    assert user > max(n for n, line in enumerate(lines) if line.startswith(("RUN ", "COPY ")))
    assert any("--constraint /src/constraints.txt" in line for line in lines)


@pytest.mark.slow
def test_the_wheel_is_small_and_whole(wheel: Path) -> None:
    assert wheel.stat().st_size < 1_000_000
    inside = zipfile.ZipFile(wheel).namelist()
    assert {"pacemark/py.typed", "pacemark/reporting/templates/report.html"} <= set(inside)
    assert not [name for name in inside if name.startswith("tests")]


@pytest.mark.slow
def test_serverless_compute_may_be_arm64(wheel: Path, tmp_path: Path) -> None:
    """All that it needs is there as a wheel for such a machine: nothing is downloaded but what the wheels say."""
    platforms = [f"--platform=manylinux{libc}_aarch64" for libc in ("_2_28", "_2_17", "2014")]
    how = ["--dry-run", "--quiet", "--ignore-installed", "--only-binary=:all:", "--python-version=312", *platforms]
    quietly(sys.executable, "-m", "pip", "install", *how, "--target", tmp_path, f"{wheel}[databricks]")
    assert not list(tmp_path.iterdir())


OLD = ("numpy==1.26.4", "pandas==1.5.3", "scipy==1.13.1", "databricks-sdk==0.40.0")
NEW = ("numpy", "pandas", "databricks-sdk")


@pytest.mark.slow
@pytest.mark.timeout(1500)
@pytest.mark.parametrize(("there", "then"), [(OLD, ["pandas==2.2.3"]), (NEW, [])], ids=["numpy 1.26", "newest"])
def test_the_notebook_installs_the_wheel_and_runs(
    wheel: Path, there: tuple[str, ...], then: list[str], tmp_path: Path
) -> None:
    """What Databricks Runtime 16.4 LTS and serverless 3 have beside, then what is newest: the wheel leaves it as it is.
    Once installed it also runs with what pandas is `then`."""
    quietly(sys.executable, "-m", "venv", tmp_path / "env")
    python = tmp_path / "env" / "bin" / "python"
    quietly(python, "-m", "pip", "install", "--quiet", "ipykernel", "nbclient", "nbformat", *there)
    plain = {k: v for k, v in os.environ.items() if not k.startswith(("PYTHON", "PACEMARK_", "DATABRICKS_"))}
    place = plain | QUICK | {"PACEMARK_PACKAGE": str(wheel), "JUPYTER_PLATFORM_DIRS": "1"}
    before = quietly(python, "-m", "pip", "list", "--format", "json", env=plain).stdout
    quietly(python, "-c", EXECUTE, NOTEBOOK, tmp_path / "done.ipynb", env=place, cwd=tmp_path, timeout_s=900)
    after = quietly(python, "-m", "pip", "list", "--format", "json", env=plain).stdout
    was, now = ({x["name"]: x["version"] for x in json.loads(text)} for text in (before, after))
    assert "pacemark" in set(now) - set(was)
    assert {k: now[k] for k in ("numpy", "pandas")} == {k: was[k] for k in ("numpy", "pandas")}
    quietly(python, "-m", "pip", "check", env=plain)
    ran_through(tmp_path / "done.ipynb")
    for newer in then:
        quietly(python, "-m", "pip", "install", "--quiet", newer, there[0], env=plain)
        quietly(python, "-c", EXECUTE, NOTEBOOK, tmp_path / "again.ipynb", env=place, cwd=tmp_path, timeout_s=900)
        ran_through(tmp_path / "again.ipynb")


def ran_through(done: Path) -> None:
    """The executed notebook has an answer, and no cell failed."""
    cells = json.loads(done.read_text())["cells"]
    outputs = [output for cell in cells for output in cell.get("outputs", [])]
    said = " ".join("".join("".join(output.get("text", [])) for output in outputs).split())
    assert "(budget search): concurrency" in said
    assert "error" not in {output["output_type"] for output in outputs}


def checked(monkeypatch: pytest.MonkeyPatch, python: tuple[int, ...], numpy: str, pacemark: bool = False) -> Any:
    """The notebook's check, on a Databricks runtime that has these."""
    nbformat = needed("nbformat")
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    (cell,) = [c for c in notebook.cells if c.cell_type == "code" and "importlib.metadata" in c.source]
    dist = SimpleNamespace(metadata={"Name": "numpy"}, version=numpy)
    monkeypatch.setattr("importlib.metadata.distributions", lambda: [dist])
    monkeypatch.setattr("importlib.util.find_spec", lambda name: object() if pacemark else None)
    monkeypatch.setattr(sys, "version_info", python)
    monkeypatch.setenv("DATABRICKS_RUNTIME_VERSION", "15.4")
    widgets = SimpleNamespace(text=lambda name, default: None, get=lambda name: "/Volumes/a/b/c/pacemark.whl")
    place: dict[str, Any] = {"dbutils": SimpleNamespace(widgets=widgets)}
    exec(compile(cell.source, "cell", "exec"), place)
    return place["needed"]


@pytest.mark.parametrize(("python", "numpy"), [((3, 11, 0), "1.23.5"), ((3, 10, 12), "1.26.4")])
def test_a_runtime_that_is_too_old_is_refused_in_one_line(
    monkeypatch: pytest.MonkeyPatch, python: tuple[int, ...], numpy: str
) -> None:
    with pytest.raises(RuntimeError, match=r"runtime 15.4 has Python 3.1. and numpy 1\..*: use .* 16.4 LTS or") as said:
        checked(monkeypatch, python, numpy)
    assert "\n" not in str(said.value)


def test_a_runtime_that_will_do_is_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    assert checked(monkeypatch, (3, 12, 3), "1.26.4")
    assert not checked(monkeypatch, (3, 12, 3), "2.1.3", pacemark=True)


def test_without_a_package_to_install_the_notebook_says_where_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    notebook = needed("nbformat").read(NOTEBOOK, as_version=4)
    (cell,) = [c for c in notebook.cells if c.cell_type == "code" and "importlib.metadata" in c.source]
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    monkeypatch.delenv("PACEMARK_PACKAGE", raising=False)
    with pytest.raises(RuntimeError, match="make wheel"):
        exec(compile(cell.source, "cell", "exec"), {})


@pytest.mark.parametrize(
    ("package", "words"),
    [
        ("/Volumes/a b/c/pacemark.whl", "'/Volumes/a b/c/pacemark.whl[databricks]' numpy==1.26.4"),
        ("git+https://host/x/pacemark", "'pacemark[databricks] @ git+https://host/x/pacemark' numpy==1.26.4"),
    ],
)
def test_what_pip_is_asked_for(package: str, words: str) -> None:
    """The install cell as IPython runs it, then the restart that Databricks needs."""
    transformer: Any = needed("IPython.core.inputtransformer2").TransformerManager()

    notebook = needed("nbformat").read(NOTEBOOK, as_version=4)
    (cell,) = [c for c in notebook.cells if c.cell_type == "code" and "%pip" in c.source]
    done: list[str] = []
    magic = SimpleNamespace(run_line_magic=lambda name, line: done.append(f"{name} {line}"))
    library = SimpleNamespace(restartPython=lambda: done.append("restart"))
    place = {
        "needed": True, "package": package, "there": {"numpy": "1.26.4"},
        "get_ipython": lambda: magic, "dbutils": SimpleNamespace(library=library),
    }  # fmt: skip
    exec(compile(transformer.transform_cell(cell.source), "cell", "exec"), place)
    assert done == ["pip install --quiet {named} {kept}", "restart"]
    assert f"{place['named']} {place['kept']}" == words


def test_no_text_tells_to_install_what_no_registry_has() -> None:
    """By pip, uv, pipx or conda, whatever stands between; a git address or a file behind the name will do."""
    tools = r"(?:pip3?|uv pip|uv tool|pipx|conda) install|(?:pipx|uv tool) run|uv add|uvx"
    told = re.compile(rf"\b(?:{tools})(?:\s+-\S+)*\s+['\"]?pacemark(?![\w./-])(?!\S* @ )")
    assert all(map(told.search, ("pip install -U pacemark", "%pip install 'pacemark[mlflow]'", "uvx pacemark demo")))
    assert not told.search("pip install 'pacemark[databricks] @ git+https://host/x/pacemark'")
    found = [f"{p}: {line}" for p in TEXTS for line in p.read_text().splitlines() if told.search(line)]
    assert not found


def test_every_test_that_the_page_names_is_there() -> None:
    table = (ROOT / "docs" / "databricks.md").read_text().partition("## How this is tested")[2]
    named = re.findall(r"`([\w/]+\.py)?::([\w:]+)`", table)
    assert len(named) > 40
    file = ""
    for path, name in named:
        file = path or file
        source = (ROOT / "tests" / file).read_text()
        for part in name.split("::"):
            assert re.search(rf"^ *(?:def|class) {part}\b", source, re.MULTILINE), (file, name)
