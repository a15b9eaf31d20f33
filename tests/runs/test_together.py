"""Pages of several runs: side by side, and a folder of them over time; in a real browser without a network."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Literal

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, Page, sync_playwright

import pacemark as face
from support.inside import inside
from support.needed import missing

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
HOSTILE = "</script><script>window.hit=1</script><img src=x onerror='window.hit=2'>"


@pytest.fixture
def runs(stored_run: Path) -> Path:
    """A folder of three runs: as stored; 40% faster a day later; and one that was cut off before its summary."""
    folder = stored_run.parent
    faster = Path(shutil.copytree(stored_run, folder / "20260102T000000Z-faster"))
    summary = json.loads((faster / "summary.json").read_text())
    summary["run"] |= {"started": "2027-01-02T00:00:00+00:00", "labels": {"gpu": HOSTILE}}
    for level in summary["levels"]:
        rate = level["output_tokens_per_s"]
        level["output_tokens_per_s"] = {name: value and 1.4 * value for name, value in rate.items()}
    (faster / "summary.json").write_text(json.dumps(summary))
    cut = Path(shutil.copytree(stored_run, folder / "20260103T000000Z-cut"))
    (cut / "summary.json").unlink()
    return folder


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    if CHROMIUM is None:
        missing("opening a page needs Chromium on the PATH")
    with sync_playwright() as playwright:
        started = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox", "--disable-gpu"])
        yield started
        started.close()


def heard(page: Page, troubles: list[str]) -> None:
    """Take down what the page says and what it asks for."""
    page.on("console", lambda message: troubles.append(message.text))
    page.on("pageerror", lambda error: troubles.append(str(error)))
    page.on("request", lambda asked: troubles.append(asked.url))


def looked_at(browser: Browser, path: Path) -> Iterator[Page]:
    """The page at three widths, light and dark; what it says to the console, and any request elsewhere, is a fault."""
    schemes: list[Literal["light", "dark"]] = ["light", "dark"]
    for scheme in schemes:
        context = browser.new_context(viewport={"width": 1200, "height": 900}, offline=True, color_scheme=scheme)
        page = context.new_page()
        troubles: list[str] = []
        heard(page, troubles)
        page.goto(path.as_uri())
        page.wait_for_function(
            "document.querySelectorAll('.plot svg').length == document.querySelectorAll('.plot').length"
        )
        page.get_by_role("button", name="Unfold all").click()
        for width in (1200, 800, 400):
            page.set_viewport_size({"width": width, "height": 900})
            page.wait_for_timeout(200)
            assert page.evaluate("document.documentElement.scrollWidth") <= width
            yield page
        assert Axe().run(page).response["violations"] == []
        assert [x for x in troubles if not x.startswith(("file:", "data:,"))] == []
        assert page.evaluate("window.hit") is None
        context.close()


@pytest.mark.slow(shared=True)
def test_runs_side_by_side(runs: Path, browser: Browser, tmp_path: Path) -> None:
    page = tmp_path / "pages" / "together.html"
    one, two = runs / "20260101T000000Z-golden", runs / "20260102T000000Z-faster"
    done = inside("report", one, two, "--output", page)
    assert done.returncode == 0, done.stderr
    assert done.stdout == f"page: {page}\n"
    for shown in looked_at(browser, page):
        assert shown.locator("article").count() == 2
        assert shown.get_by_role("cell", name="higher").count() >= 4
        for link in shown.locator("article a").all():
            assert (page.parent / (link.get_attribute("href") or "")).resolve().parent in (one, two)
    assert face.together([one, two], output=tmp_path / "again.html").exists()


def test_a_comparison_draws(runs: Path, tmp_path: Path) -> None:
    words = (runs / "20260101T000000Z-golden", runs / "20260102T000000Z-faster", "--html", tmp_path / "ab.html")
    done = inside("compare", *words)
    assert done.returncode == 0, done.stderr
    assert "B against A" in (tmp_path / "ab.html").read_text()


@pytest.mark.slow(shared=True)
def test_a_folder_of_runs(runs: Path, browser: Browser) -> None:
    done = inside("list", runs, "--html")
    assert done.returncode == 0, done.stderr
    page = runs / "index.html"
    for shown in looked_at(browser, page):
        names = shown.locator("tbody tr td:nth-child(2)").all_inner_texts()
        assert [name.split("\n")[0] for name in names][:2] == ["20260102T000000Z-faster", "20260101T000000Z-golden"]
        assert "cut off" in shown.locator("tbody tr").nth(2).inner_text()
        assert shown.locator("article").count() == 1, "both are of one endpoint: the newest answer stands first"
        assert shown.locator("#trend .plot .mark-symbol.role-mark path").count() == 2
    assert face.index(runs) == page


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["report", "{0}", "{0}", "--budget", "ttft p95 < 1s"], "of one run"),
        (["report", *["{0}"] * 9], "2 to 8 runs, not 9"),
        (["report", "{0}", "/nowhere"], "/nowhere is no run"),
        (["list", "/nowhere", "--html"], "holds no run"),
    ],
)
def test_what_cannot_work_is_refused_in_a_line(stored_run: Path, tmp_path: Path, words: list[str], said: str) -> None:
    done = inside(*(word.format(stored_run) for word in words), cwd=tmp_path)
    assert done.returncode == 2
    assert said in done.stderr.splitlines()[-1]
