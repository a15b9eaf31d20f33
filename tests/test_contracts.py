"""What the house holds itself to: sizes, versions that agree, pages that are current, links that lead somewhere."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import pacemark

ROOT = Path(__file__).parent.parent
SOURCE = ROOT / "src" / "pacemark"
FILE_LINES, FUNCTION_LINES = 450, 60
PAGES = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/*.md")])


def functions(path: Path) -> Iterator[tuple[str, int]]:
    """Name and lines of every function, its docstring left out."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
            first = node.body[0]
            told = first.end_lineno - first.lineno + 1 if ast.get_docstring(node) and first.end_lineno else 0
            yield f"{path.relative_to(SOURCE)}: {node.name}", (node.end_lineno or 0) - node.lineno + 1 - told


def test_no_file_is_too_long() -> None:
    sizes = {str(p.relative_to(SOURCE)): len(p.read_text().splitlines()) for p in SOURCE.rglob("*.py")}
    assert len(sizes) > 50
    assert [x for x in sizes.items() if x[1] > FILE_LINES] == []


def test_no_function_is_too_long() -> None:
    sizes = dict(found for path in SOURCE.rglob("*.py") for found in functions(path))
    assert len(sizes) > 500
    assert [x for x in sizes.items() if x[1] > FUNCTION_LINES] == []


def test_the_measured_path_is_read_in_one_sitting() -> None:
    path = [SOURCE / "instrument" / f"{name}.py" for name in ("generator", "connection", "clock")]
    assert sum(len(file.read_text().splitlines()) for file in path) < 700


TWINS = {
    # What the simulated server and the client that loads it both have: each has its own side of the wire.
    "Access", "Answer", "Ask", "Connection", "Plan", "Request", "main", "serving", "written",
    # The API has the words of the commands; what it calls may have them too.
    "compare", "find", "run", "together",
    # One for each dialect, or for each kind of file.
    "SCHEMA", "attach", "body", "read", "schema", "tools",
    # Short names for types of arrays, and bounds that each module has for itself.
    "Floats", "Mask", "LONGEST_S", "LOOK_NS", "PROBES", "READ_BYTES", "WIDTH",
    # Verbs, each of what its own module is about.
    "answer", "answered", "checked", "counted", "errors", "failed", "named", "parts", "planned", "positive", "settled",
    "table", "told_s", "tpot_ms",
    # Yet to be told apart.
    "Condition", "Options", "Probe", "Reading", "Source", "Verdict",
}  # fmt: skip
"""Public names that two modules have; any other stands for one thing."""


def public_names(path: Path) -> Iterator[str]:
    """The functions, classes and values that a module has for others."""
    for node in ast.parse(path.read_text()).body:
        if isinstance(node, (ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)):
            yield node.name
        elif isinstance(node, ast.Assign):
            yield from (target.id for target in node.targets if isinstance(target, ast.Name))


def test_a_name_stands_for_one_thing() -> None:
    found: dict[str, list[str]] = {}
    for path in SOURCE.rglob("*.py"):
        for name in {name for name in public_names(path) if not name.startswith("_")}:
            found.setdefault(name, []).append(str(path.relative_to(SOURCE)))
    assert len(found) > 500
    assert {name: paths for name, paths in found.items() if len(paths) > 1 and name not in TWINS} == {}


def test_the_files_that_the_pages_name_exist() -> None:
    roots = (ROOT, SOURCE)
    wings = {path.name for root in roots for path in root.iterdir() if path.is_dir()}
    named = [
        (page.name, path)
        for page in PAGES
        if page.name != "CHANGELOG.md"
        for path in re.findall(r"`([\w./]+\.(?:py|md|toml))`", page.read_text())
        if path.partition("/")[0] in wings or page.name in ("architecture.md", "CONTRIBUTING.md")
    ]
    assert len(named) > 10
    assert [x for x in named if not any((root / x[1]).exists() for root in roots)] == []


def test_the_version_opens_the_changelog() -> None:
    releases = re.findall(r"^## (\S+)$", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)
    assert releases[0] == pacemark.__version__
    assert releases[-1] == "0.1.0"
    assert len(set(releases)) == len(releases)


@pytest.mark.parametrize("name", ["cli", "python"])
def test_the_reference_is_that_of_the_code(name: str, tmp_path: Path) -> None:
    made = tmp_path / f"make_{name}.py"
    made.write_text((ROOT / "docs" / made.name).read_text())
    done = subprocess.run([sys.executable, made], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    assert (ROOT / "docs" / f"{name}.md").read_text() == made.with_name(f"{name}.md").read_text(), "make docs"


def test_the_python_reference_has_every_public_name() -> None:
    page = (ROOT / "docs" / "python.md").read_text()
    missing = [name for name in pacemark.__all__ if not re.search(rf"^### (pacemark\.)?{name}$", page, re.MULTILINE)]
    assert missing == []
    assert " at 0x" not in page


def anchors(page: Path) -> set[str]:
    """The places in a page that a link may name."""
    headings = re.findall(r"^#+ (.+)$", page.read_text(), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page: Path) -> None:
    assert page.read_text().startswith("# ")
    for link in re.findall(r"\]\(([^)\s]+)\)", page.read_text()):
        if link.startswith(("http://", "https://")):
            continue
        name, _, place = link.partition("#")
        to = (page.parent / name).resolve() if name else page
        assert to.exists(), link
        assert to.is_relative_to(ROOT), link
        assert not place or place in anchors(to), link


def test_every_page_is_in_the_contents() -> None:
    listed = re.findall(r"^ +- .+: (\S+\.md)$", (ROOT / "mkdocs.yml").read_text(), re.MULTILINE)
    assert sorted(listed) == [page.name for page in sorted((ROOT / "docs").glob("*.md"))]


def test_constraints_hold_names_and_versions_alone() -> None:
    pinned = [line for line in (ROOT / "constraints.txt").read_text().splitlines() if not line.startswith("#")]
    assert len(pinned) > 100
    assert [line for line in pinned if not re.fullmatch(r"[\w.-]+==[\w.]+", line)] == []
    wanted = (ROOT / "requirements-test.txt").read_text().split()
    names = {line.partition("==")[0].lower().replace("_", "-") for line in pinned}
    assert {name for name in wanted if name.lower() not in names} == set()
